"""page.py: what several probes found as one report: Markdown beside its figures, and one page that holds them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from mixcli.errors import printable
from mixcli.report.export import Section, in_markdown, table_in_markdown
from mixcli.report.probes import figures

PIXELS = 104  # of the page for an inch of a figure, so that letters are as large in all
LONG = 2000
STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem; margin: 2.5rem auto; padding: 0 1.2rem }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.25rem; margin: 3rem 0 .2rem }
p.told, p.question { color: #5a5a5a; margin-top: 0 } nav a { margin-right: 1.1rem } a { color: #225599 }
figure { margin: 1.2rem 0 } img { max-width: 100%; height: auto }
div.table { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums }
th, td { padding: .22rem .7rem; text-align: right; white-space: nowrap } th { border-bottom: 1px solid #999 }
th:first-child, td:first-child { text-align: left } tr:nth-child(even) td { background: #f6f7f9 }
ul { color: #444; font-size: .92rem }
"""


@dataclass(frozen=True)
class Chapter:
    """A probe's part of a report.

    question  what it asks, in a line
    findings  table, about, remarks and the page that tells and draws them
    files     what the names of its files begin with
    """

    name: str
    question: str
    findings: Any
    files: str

    def sections(self) -> list[Section]:
        return list(self.findings.page.sections(self.findings.table, self.findings.about))

    def pictures(self) -> dict[str, Any]:
        """The name of each picture's file, and what it shows."""
        drawn = self.findings.page.drawn(self.findings.table, self.findings.about)
        return {f"{self.files}{'-' if what else ''}{what}.png": figure for what, figure in drawn.items()}


def markdown(told: str, chapters: Sequence[Chapter], left_out: Mapping[str, str]) -> str:
    """The report as Markdown; its figures are the files beside it."""
    return "\n".join(_markdown(told, chapters, left_out)) + "\n"


def _markdown(told: str, chapters: Sequence[Chapter], left_out: Mapping[str, str]) -> Iterator[str]:
    yield "# What the probes found"
    yield f"\n{in_markdown(told)}"
    for chapter in chapters:
        yield f"\n## {chapter.name}\n\n*{in_markdown(chapter.question)}*"
        yield from (f"\n![{chapter.name}]({name})" for name in chapter.pictures())
        for section in chapter.sections():
            yield from table_in_markdown(section)
        yield ""
        yield from (f"- {in_markdown(line)}" for line in chapter.findings.remarks)
    if left_out:
        yield "\n## left out\n"
        yield from (f"- {name}: {in_markdown(why)}" for name, why in left_out.items())


def html(told: str, chapters: Sequence[Chapter], left_out: Mapping[str, str]) -> str:
    """The report as one page; figures are inside it, and nothing is fetched."""
    return "\n".join(_html(told, chapters, left_out)) + "\n"


def _html(told: str, chapters: Sequence[Chapter], left_out: Mapping[str, str]) -> Iterator[str]:
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>What the probes found</title><style>{STYLE}</style></head><body>"
    yield f'<h1>What the probes found</h1><p class="told">{_text(told)}</p>'
    links = (f'<a href="#{chapter.name}">{chapter.name}</a>' for chapter in chapters)
    yield f"<nav>{''.join(links)}</nav>"
    for chapter in chapters:
        yield f'<h2 id="{chapter.name}">{chapter.name}</h2><p class="question">{_text(chapter.question)}</p>'
        for name, figure in chapter.pictures().items():
            inside = base64.b64encode(figures.saved(figure)["png"]).decode()
            width = round(PIXELS * figure.get_figwidth())
            yield f'<figure><img alt="{_text(name)}" width="{width}" src="data:image/png;base64,{inside}"></figure>'
        yield from (_table(section) for section in chapter.sections())
        yield _list(chapter.findings.remarks)
    if left_out:
        yield f"<h2>left out</h2>{_list([f'{name}: {why}' for name, why in left_out.items()])}"
    yield "</body></html>"


def _table(section: Section) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in section.headings)
    rows = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in section.rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>" if lines else ""


def _text(value: str) -> str:
    return escape(printable(value, limit=LONG))
