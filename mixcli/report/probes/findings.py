"""findings.py: what a probe prints: the first line, its tables, what must be said beside them, where its files are."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mixcli.errors import printable
from mixcli.report.export import Section
from mixcli.report.probes.figures import number

LONG = 2000
MANY = 6  # headline numbers of a probe that a line holds


def shown(findings: Any, folders: Sequence[str] = ()) -> RenderableType:
    """The tables of findings, remarks below them."""
    parts: list[RenderableType] = []
    for section in findings.page.sections(findings.table, findings.about):
        parts += [_table(section), Text()]
    lines = [*findings.remarks, *(f"files: {folder}" for folder in dict.fromkeys(folders))]
    return Group(_text(findings.about["told"], "bold"), Text(), *parts, *map(_text, lines))


def overview(found: Any) -> RenderableType:
    """What `probe all` made: a line per probe with its headline numbers, and where the report is."""
    rows = []
    for name, one in found.found.items():
        told = [f"{key} {number(value)}" for values in [*one.headline.values()][:1] for key, value in values.items()]
        rows.append((name, ", ".join(told[:MANY]) + (", …" if len(told) > MANY else "")))
    rows += [(name, f"left out: {why}") for name, why in found.left_out.items()]
    table = Table(box=box.HORIZONTALS, pad_edge=False, padding=(0, 1), border_style="dim", show_header=False)
    for row in rows:
        table.add_row(*map(_text, row))
    where = [f"report: {found.folder / 'report.html'}", f"        {found.folder / 'report.md'}"] if found.found else []
    return Group(_text(found.told, "bold"), Text(), table, Text(), *map(_text, where or ["nothing was started"]))


def study(found: Any) -> RenderableType:
    """Headline numbers by arm, and a sentence per comparison."""
    parts: list[RenderableType] = [_text(f"{found.study}: {found.probe}, against {found.baseline}", "bold"), Text()]
    kinds: dict[str, list[str]] = {}
    for name in found.numbers:
        kinds.setdefault(name.partition(".")[0], []).append(name)
    for kind, names in kinds.items():
        arms = [f"{arm} (n = {len(runs)})" for arm, runs in found.values.items()]
        rows = [(name.partition(".")[2] or name, *(_spread([one[name] for one in runs.values()])
                                                   for runs in found.values.values())) for name in names]  # fmt: skip
        parts += [_table(Section((f"{kind}, mean ± SD", *arms), tuple(rows))), Text()]
    parts += [_text(f"{row['a']}, {row['number']}: {row['sentence']}") for row in found.comparisons]
    return Group(*parts, Text(), *map(_text, found.remarks))


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = statistics.fmean(values)
    return number(mean) if len(values) < 2 else f"{number(mean)} ± {number(statistics.stdev(values))}"


def planned(document: dict[str, Any]) -> RenderableType:
    """What `--dry-run` tells."""
    lines = (f"sites: {', '.join(document['sites'])}", document["cost"], "nothing was started")
    return Group(_text(document["told"], "bold"), *map(_text, lines))


def _table(section: Section) -> Table:
    table = Table(box=box.HORIZONTALS, pad_edge=False, padding=(0, 1), border_style="dim")
    for place, heading in enumerate(section.headings):
        table.add_column(_text(heading), justify="right" if place else "left", no_wrap=bool(place))
    for row in section.rows:
        table.add_row(*map(_text, row))
    return table


def _text(value: str, style: str = "") -> Text:
    return Text(printable(value, limit=LONG), style=style)
