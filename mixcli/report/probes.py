"""probes.py: what a probe prints: the first line, its tables, what must be said beside them, where its files are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mixcli.errors import printable
from mixcli.report.export import Section

LONG = 2000


def shown(findings: Any, folders: Sequence[str] = ()) -> RenderableType:
    """The tables of findings, remarks below them."""
    parts: list[RenderableType] = []
    for section in findings.page.sections(findings.table, findings.about):
        parts += [_table(section), Text()]
    lines = [*findings.remarks, *(f"files: {folder}" for folder in dict.fromkeys(folders))]
    return Group(_text(findings.about["told"], "bold"), Text(), *parts, *map(_text, lines))


def planned(document: dict[str, Any]) -> RenderableType:
    """What `--dry-run` tells."""
    lines = (f"sites: {', '.join(document['sites'])}", document["cost"], "nothing was started")
    return Group(_text(document["told"], "bold"), *map(_text, lines))


def _table(section: Section) -> Table:
    table = Table(box=box.HORIZONTALS, pad_edge=False, padding=(0, 1), border_style="dim")
    for place, heading in enumerate(section.headings):
        table.add_column(_text(heading), justify="right" if place else "left", overflow="fold")
    for row in section.rows:
        table.add_row(*map(_text, row))
    return table


def _text(value: str, style: str = "") -> Text:
    return Text(printable(value, limit=LONG), style=style)
