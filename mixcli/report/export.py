"""export.py: a comparison of arms as files: CSV for programs, Markdown and LaTeX ready to paste, and its figure.

All but cost.csv, which holds the times, have the same bytes whenever the same runs are compared. The tables on the
terminal are made of the same `sections`.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixcli.errors import printable
from mixcli.files import make_folder, write_atomic
from mixcli.report import plots
from mixcli.report.rows import SHORT, as_csv

TIMES = ("seconds", "seconds_per_step")
NONE = "–"
UNEVEN = 1.1  # images of the largest class to those of the smallest, above which balanced accuracy is shown too
LONG = 400  # characters of a cell
ACROSS, LINE, COLUMN = 8, 80, 10  # columns of a table of follow-ups, fewer beside long names; characters of each


@dataclass(frozen=True)
class Section:
    """A table as text: the first column holds names, the others numbers."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def turned(self) -> Section:
        """Columns as rows: a terminal is higher than it is wide."""
        first, *others = zip(self.headings, *self.rows, strict=True)
        return Section(first, tuple(others))


@dataclass(frozen=True)
class Detail:
    """A further table: as readers see it, and its rows for programs."""

    name: str
    section: Section
    rows: tuple[Mapping[str, Any], ...]


def write(report: Any, folder: Path) -> None:
    """runs.csv, results.csv, comparisons.csv, cost.csv, table.md, table.tex and figure.png; each whole or not there.

    Where a report has details, also details.csv.

    Raises UserError: disk_full, io.
    """
    contents = {
        "runs.csv": as_csv(_runs(report), SHORT),
        "results.csv": as_csv(_results(report), SHORT),
        "comparisons.csv": as_csv(_comparisons(report), SHORT),
        "cost.csv": as_csv(_costs(report), SHORT),
        "table.md": ("\n".join(_markdown(report)) + "\n").encode(),
        "table.tex": ("\n".join(_latex(report)) + "\n").encode(),
        **({"details.csv": as_csv(_details(report), SHORT)} if report.details else {}),
    }
    make_folder(folder)
    for name, content in contents.items():
        write_atomic(folder / name, content)
    plots.comparison(report, folder / "figure.png")


# ----------------------------------------------------------------------------------------------- what a reader is shown


def sections(report: Any) -> Iterator[Section]:
    """The tables of a comparison: arms, planned comparisons where they need their own, exploratory ones, outcomes."""
    planned, others = ([c for c in report.comparisons if c["planned"] is kind] for kind in (True, False))
    base = report.plan.baseline
    versus = {c["a"]: c for c in planned} if all(c["b"] == base for c in planned) and planned else {}
    yield _arms(report, versus)
    if planned and not versus:
        yield _differences("comparisons" if report.plan.post_hoc else "planned comparisons", planned, "Holm p")
    if others:
        yield _differences("exploratory, unadjusted", others, "p")
    longest = max((len(row.arm) for row in report.rows), default=0)
    for title, columns in _grouped(report.columns, max(3, min(ACROSS, (LINE - longest) // COLUMN))):
        rows = tuple((row.arm, *(_short(row.columns[name]) for name in columns)) for row in report.rows)
        yield Section((title, *columns.values()), rows)
    yield from (detail.section for detail in report.details)


def _grouped(columns: Mapping[str, str], across: int) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Follow-up columns by table: a number that is taken at several sites has one of its own, a column per site."""
    groups: dict[str, dict[str, str]] = {}
    for name, heading in columns.items():
        number, _, site = heading.rpartition(" ") if name.count(".") == 2 else ("", "", heading)
        groups.setdefault(f"{number} (means)" if number else "follow-up (means)", {})[name] = site
    for title, found in groups.items():
        for start in range(0, len(found), across):
            yield title, dict(list(found.items())[start : start + across])


def _arms(report: Any, versus: Mapping[str, Mapping[str, Any]]) -> Section:
    score = ("arm", "n", "mean ± SD")
    rows = []
    for row in report.rows:
        name = f"{row.arm} (unequal)" if row.unequal else row.arm
        cells = [name, row.n, _spread(row.mean, row.sd)]
        if row.arm in versus:
            cells += [_difference(versus[row.arm]), _adjusted(versus[row.arm])]
        elif versus:
            cells += ["baseline", ""]
        rows.append(tuple(cells))
    return Section((*score, "difference [95 %]", "Holm p") if versus else score, tuple(rows))


def _differences(title: str, comparisons: Sequence[Mapping[str, Any]], p: str) -> Section:
    cells = (
        (f"{c['name']}{' (unequal)' if c['unequal'] else ''}", c["n"], _difference(c), _adjusted(c))
        for c in comparisons
    )
    return Section((title, "n", "difference [95 %]", p), tuple(cells))


def sentences(report: Any) -> Iterator[tuple[str, str, list[str]]]:
    """Of each comparison: its name, the sentence it allows, and the lines below that."""
    for c in report.comparisons:
        yield c["name"], c["sentence"], list(c["notes"])


def remarks(report: Any) -> Iterator[str]:
    """What must be said beside the tables: runs that are missing, arms treated otherwise, warnings, further notes."""
    for row in report.rows:
        if row.missing:
            yield f"{row.arm}: {len(row.points)} of {row.planned} runs ({_missing(row)})"
    for row in report.rows:
        if row.unequal:
            yield f"unequal: {row.arm}: {row.unequal}"
    yield from report.warnings
    yield from report.notes


def _missing(row: Any) -> str:
    return "; ".join(f"seed {seed}: {reason}" for seed, reason in row.missing.items())


def _spread(mean: float, sd: float) -> str:
    return NONE if math.isnan(mean) else f"{mean:.2f}" if math.isnan(sd) else f"{mean:.2f} ± {sd:.2f}"


def _difference(c: Mapping[str, Any]) -> str:
    if math.isnan(c["difference"]):
        return NONE
    interval = "" if math.isnan(c["low"]) else f" [{c['low']:z.2f}, {c['high']:z.2f}]"
    return f"{c['difference']:+z.2f}{interval}"


def _adjusted(c: Mapping[str, Any]) -> str:
    """The p that the sentence rests on; a pilot's stands in comparisons.csv alone."""
    p = c["p_holm"] if c["planned"] else c["p"]
    shown = c["verdict"] in ("above", "open", "exploratory") and not math.isnan(p)
    return NONE if not shown else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _short(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


# ------------------------------------------------------------------------------------------------------- rows of tables


def _runs(report: Any) -> Iterator[dict[str, Any]]:
    names = list(dict.fromkeys(name for one in report.scores for name in one.values if name not in TIMES))
    for one in report.scores:
        values = {name: one.values.get(name) for name in names}
        yield {"arm": one.arm, "seed": one.seed, "run": one.run, "state": "done", **values}
    for row in report.rows:
        done = {one.seed for one in report.scores if one.arm == row.arm}
        for seed, reason in row.missing.items():
            if seed not in done:
                yield {"arm": row.arm, "seed": seed, "run": "", "state": reason}


def _results(report: Any) -> Iterator[dict[str, Any]]:
    for row in report.rows:
        yield {
            "arm": row.arm, "n": len(row.points), "planned": row.planned, "metric": report.plan.key, "mean": row.mean,
            "sd": row.sd, "median": row.median, "low": row.low, "high": row.high, **row.columns,
            "unequal": row.unequal, "missing": _missing(row),
        }  # fmt: skip


def _comparisons(report: Any) -> Iterator[dict[str, Any]]:
    order = ("name", "a", "b", "test", "n", "difference", "low", "high", "p", "p_holm", "family", "g", "r", "df", "sd",
             "verdict", "planned", "unequal")  # fmt: skip
    for c in report.comparisons:
        words = {"post_hoc": report.plan.post_hoc, "sentence": c["sentence"], "notes": " | ".join(c["notes"])}
        yield {key: c[key] for key in order} | words


def _details(report: Any) -> Iterator[dict[str, Any]]:
    for detail in report.details:
        yield from ({"table": detail.name, **row} for row in detail.rows)


def _costs(report: Any) -> Iterator[dict[str, Any]]:
    """Seconds of each arm, and its step as a multiple of the baseline's (or of the first arm's)."""
    medians = {row.arm: _medians(report, row.arm) for row in report.rows}
    base = medians.get(report.plan.baseline or report.rows[0].arm, {}).get("seconds_per_step") if report.rows else None
    for arm, found in medians.items():
        step = found.get("seconds_per_step")
        times = step / base if step and base else None
        yield {"arm": arm, **{f"{name}_median": found.get(name) for name in TIMES}, "times_baseline": times}


def _medians(report: Any, arm: str) -> dict[str, float]:
    values = {name: [one.values.get(name) for one in report.scores if one.arm == arm] for name in TIMES}
    return {name: statistics.median(found) for name, found in values.items() if found and None not in found}


# --------------------------------------------------------------------------------------------------- Markdown and LaTeX


def _markdown(report: Any) -> Iterator[str]:
    text = in_markdown
    yield f"### {text(report.plan.title)}"
    yield ""
    yield from (f"- {text(name)}: {text(fact)}" for name, fact in report.facts)
    for section in sections(report):
        yield from table_in_markdown(section)
    lines = list(_lines(report))
    if lines:
        yield ""
    yield from (f"- {text(line)}" for line in lines)


def _lines(report: Any) -> Iterator[str]:
    """The sentences, each with its comparison's name, and the remarks."""
    yield from (f"{name}: {sentence}" for name, sentence, _ in sentences(report))
    yield from remarks(report)


def table_in_markdown(section: Section) -> Iterator[str]:
    """An empty line, and the lines of the table."""
    yield ""
    yield f"| {' | '.join(map(in_markdown, section.headings))} |"
    yield f"|:---|{'---:|' * (len(section.headings) - 1)}"
    yield from (f"| {' | '.join(map(in_markdown, row))} |" for row in section.rows)


def in_markdown(text: str) -> str:
    """Text as it is: nothing in it is markup, ends a cell or a line."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$&])", r"\\\1", printable(text, limit=10 * LONG))


def _latex(report: Any) -> Iterator[str]:
    """A table environment for the preamble \\usepackage{booktabs}."""
    yield "% needs \\usepackage{booktabs}"
    yield "\\begin{table}"
    yield "  \\centering"
    yield f"  \\caption{{{_in_latex(report.plan.title)}. {_in_latex('; '.join(map(': '.join, report.facts)))}.}}"
    for section in sections(report):
        yield f"  \\begin{{tabular}}{{l{'r' * (len(section.headings) - 1)}}}"
        yield "    \\toprule"
        yield f"    {' & '.join(map(_in_latex, section.headings))} \\\\"
        yield "    \\midrule"
        for name, *numbers in section.rows:
            yield f"    {' & '.join([_in_latex(name), *map(_number_in_latex, numbers)])} \\\\"
        yield "    \\bottomrule"
        yield "  \\end{tabular}\\par\\smallskip"
    yield "  \\begin{flushleft}\\footnotesize"
    yield from (f"    {_in_latex(line)}.\\par" for line in _lines(report))
    yield "  \\end{flushleft}"
    yield "\\end{table}"


LATEX = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}",
         ">": "\\textgreater{}", "|": "\\textbar{}", "±": "$\\pm$", "–": "--", "…": "\\dots{}", '"': "\\textquotedbl{}",
         **{c: f"\\{c}" for c in "{}$&#%_"}}  # fmt: skip


def _in_latex(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in printable(text, limit=10 * LONG))


def _number_in_latex(text: str) -> str:
    """A cell of numbers, with minus signs instead of hyphens."""
    return re.sub(r"(?<![\w.])[-+]\d+(?:\.\d+)?", r"$\g<0>$", _in_latex(text))
