"""cells.py: the tables of a study's cells: what a start would do, and how far it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mixcli.errors import printable


def status(found: Mapping[str, Any]) -> RenderableType:
    """How many cells of each arm are in which state, and why some failed."""
    used = [state for state, count in found["states"].items() if count or state in ("done", "missing")]
    rows = [[arm["arm"], *(_count(arm[state]) for state in used)] for arm in found["arms"]]
    rows.append(["all", *(_count(found["states"][state]) for state in used)])
    lines = [f"{cell['cell']}: {cell['message']}" for cell in found["failed"]]
    return Group(_table(f"{found['study']}: {found['cells']} cells", ["arm", *used], rows), *map(_line, lines))


def forecast(found: Mapping[str, Any]) -> RenderableType:
    """What a start would do; nothing was started."""
    rows = [[arm["arm"], arm["method"], _count(arm["cells"]), _count(arm["done"]), _count(arm["to_do"]),
             _hours(arm["hours"])] for arm in found["arms"]]  # fmt: skip
    total = ["all", "", str(found["cells"]), _count(found["done"]), _count(found["to_do"]), _hours(found["hours"])]
    table = _table(f"{found['study']}: {found['question']}", ["arm", "method", "cells", "done", "to do", "time"],
                   [*rows, total])  # fmt: skip
    return Group(table, *map(_line, _told(found)))


def _told(found: Mapping[str, Any]) -> Sequence[str]:
    comparison, later = found["comparison"], found["chosen_later"]
    lines = [f"{len(later['arms'])} arms follow once their value is chosen: {', '.join(later['arms'])}, "
             f"{later['cells']} cells"] if later["arms"] else []  # fmt: skip
    pairs, devices = comparison["family"], f"devices: {', '.join(found['devices'])}"
    against = f"each arm against {comparison['baseline']}" if isinstance(pairs, str) else f"{len(pairs)} planned pairs"
    select, wall = comparison["select"].replace("_", " "), found["wall_hours"]
    lines.append(f"compared: {comparison['metric']} ({select}), {comparison['test']} test, {against}")
    lines.append(f"{devices}; {'time unknown' if wall is None else f'about {_hours(wall)} of training steps in all'}")
    lines += _basis(found)
    power = found["power"]
    seen = [f"{gap['gap']:.2f} points in {_percent(gap['power'])}, {gap['runs_for_80']} runs for 80 %"
            for gap in power["gaps"]]  # fmt: skip
    lines.append(f"power with {power['runs_per_arm']} runs per arm, if the SD of {power['of']} is "
                 f"{power['assumed_sd']} points: {'; '.join(seen)}")  # fmt: skip
    return [*lines, "nothing was started"]


def _basis(found: Mapping[str, Any]) -> Iterator[str]:
    """The disk that the cells will take, and from what time and disk are known."""
    if not found["to_do"]:
        return
    if found["bytes"] is not None:
        yield f"disk: about {_bytes(found['bytes'])} of checkpoints for the cells to do"
    unknown = [word for word, key in (("time", "hours"), ("disk", "bytes")) if found[key] is None]
    like = "runs of the same net, data set and method"
    if unknown:
        yield f"{' and '.join(unknown)} unknown: no finished {like}; --measure times 20 steps after 5"
    elif found["measured"]:
        yield f"measured: 20 steps after 5, and a checkpoint, of {', '.join(found['measured'])}; others: finished {like}"
    else:
        yield f"time and disk as of finished {like}"


def _bytes(number: float) -> str:
    """A size in the unit that fits."""
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.5 or unit == "GB":
            return f"{number:.3g} {unit}" if number < 100 else f"{number:.0f} {unit}"
    raise AssertionError


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _hours(hours: float | None) -> str:
    """A duration in the unit that fits; "unknown" where nothing like it was measured."""
    if hours is None:
        return "unknown"
    seconds = 3600 * hours
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{hours:.1f} h"


def _count(number: int) -> str:
    return str(number) if number else "–"


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=_text(title, "bold"), title_justify="left", box=box.HORIZONTALS, pad_edge=False,
                  border_style="dim")  # fmt: skip
    for number, heading in enumerate(headings):
        table.add_column(_text(heading), justify="left" if number == 0 or heading == "method" else "right")
    for number, row in enumerate(rows):
        table.add_row(*map(_text, row), end_section=number == len(rows) - 2)
    return table


def _line(line: str) -> Text:
    return _text(line, "dim")


def _text(value: str, style: str = "") -> Text:
    return Text(printable(value, limit=2000), style=style)
