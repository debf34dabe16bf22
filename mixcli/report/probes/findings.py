"""findings.py: what a probe prints: the first line, its tables, what must be said beside them, where its files are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mixcli.errors import printable
from mixcli.report import tables
from mixcli.report.probes.figures import number

LONG = 2000
SITES = 8  # columns that 80 characters hold beside the names
MANY = 6  # headline numbers of a probe that a line holds


def shown(findings: Any, folders: Sequence[str] = ()) -> RenderableType:
    """The tables of findings, remarks below them."""
    parts: list[RenderableType] = []
    for section in findings.page.sections(findings.table, findings.about):
        wide = len(section.headings) > max(SITES, len(section.rows))
        parts += [tables.section(section.turned() if wide else section), Text()]
    where = [tables.whole(f"files: {folder}") for folder in dict.fromkeys(folders)]
    return Group(text(findings.about["told"], "bold"), Text(), *parts, *map(text, findings.remarks), *where)


def overview(found: Any) -> RenderableType:
    """What `probe all` made: a line per probe with its headline numbers, and where the report is."""
    rows = []
    for name, one in found.found.items():
        told = [f"{key} {number(value)}" for values in [*one.headline.values()][:1] for key, value in values.items()]
        rows.append((name, ", ".join(told[:MANY]) + (", …" if len(told) > MANY else "")))
    rows += [(name, f"left out: {why}") for name, why in found.left_out.items()]
    table = Table(box=box.HORIZONTALS, pad_edge=False, padding=(0, 1), border_style="dim", show_header=False)
    for row in rows:
        table.add_row(*map(text, row))
    files = [tables.whole(f"report: {found.folder / f'report.{kind}'}") for kind in ("html", "md")]
    where = files if found.found else [text("nothing was started")]
    return Group(text(found.told, "bold"), Text(), table, Text(), *where)


def planned(document: dict[str, Any]) -> RenderableType:
    """What `--dry-run` tells."""
    lines = (f"sites: {', '.join(document['sites'])}", document["cost"], "nothing was started")
    return Group(text(document["told"], "bold"), *map(text, lines))


def text(value: str, style: str = "") -> Text:
    return Text(printable(value, limit=LONG), style=style)
