"""cells.py: the tables of a study's cells: what a start would do, how far it is, and how a screen ranks its arms."""

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


def ranking(found: Mapping[str, Any], command: str) -> RenderableType:
    """The arms of a screen, headed by what it is not; `command` is what was typed, without the screen."""
    rows = [
        [_count(row["rank"]), row["arm"], f"{row['runs']} of {row['planned']}", _points(row["val.top1"]),
         f"{_points(row['lowest'])} .. {_points(row['highest'])}", str(row["epochs"])]
        for row in found["rows"]
    ]  # fmt: skip
    headings = ["", "arm", "runs", "mean", "range", "epochs"]
    lines = [
        f"validation accuracy in points after a quarter of the epochs, seeds {', '.join(map(str, found['seeds']))}; "
        "test images play no part",
        f"to compare some with the baseline, on the plan's seeds alone: {command} --confirm ARM,...",
    ]
    return Group(_table(f"{found['head']}. {found['question']}", headings, rows, foot=False), *map(_line, lines))


def timing(found: Mapping[str, Any]) -> RenderableType:
    """What a study of times would measure; nothing was started."""
    how = found["timing"]
    lines = [
        f"arms: {', '.join(found['arms'])}",
        f"{how['blocks']} blocks of {how['steps']} steps of each, after {how['warm_up']} that are dropped, on "
        f"{found['device']} alone; the order is reversed in every second block",
        "nothing was started",
    ]
    return Group(_text(f"{found['study']}: {found['question']}", "bold"), *map(_line, lines))


def overhead(found: Mapping[str, Any]) -> RenderableType:
    """What a step of each arm took, and its ratio to the baseline's."""
    peak = any(row["peak_bytes"] is not None for row in found["rows"])
    headings = ["arm", "ms/step", "s/epoch", "µs/image", *(["peak"] if peak else []), f"/{found['baseline']}", "95 %"]
    rows = [[row["arm"], f"{1e3 * row['seconds_per_step']:.2f}", f"{row['seconds_per_epoch']:.2f}",
             f"{1e6 * row['seconds_per_image']:.1f}", *([_bytes(row["peak_bytes"])] if peak else []),
             f"{row['ratio']:.3f}", f"{row['low']:.3f} .. {row['high']:.3f}"] for row in found["rows"]]  # fmt: skip
    how, machine = found["timing"], found["environment"]
    lines = [
        f"medians of {how['blocks']} blocks of {how['steps']} steps, {found['clock']}, data {found['data']}; images: "
        "those seen, supplements among them; interval: bootstrap over blocks",
        f"{machine['device']}, {machine['threads']} threads, {machine['precision']}, torch {machine['torch']}",
    ]
    lines += [
        f"{row['arm']}: the published {row['published']:.2f} is {'inside' if row['inside'] else 'outside'} the "
        "interval, on this machine only"
        for row in found["rows"]
        if row["published"] is not None
    ]
    lines += [f"not alone: {found['busy']}"] if found["busy"] else []
    return Group(_table(f"{found['study']}: {found['question']}", headings, rows, foot=False), *map(_line, lines))


def _told(found: Mapping[str, Any]) -> Sequence[str]:
    if found["screen"]:
        seeds, epochs = ", ".join(map(str, found["seeds"])), ", ".join(map(str, found["epochs"]))
        lines = [f"screen: no statement; seeds {seeds}, {epochs} epochs, validation images"]
        return [*lines, _devices(found), *_basis(found), "nothing was started"]
    comparison, later = found["comparison"], found["chosen_later"]
    lines = [f"{len(later['arms'])} arms follow once their value is chosen: {', '.join(later['arms'])}, "
             f"{later['cells']} cells"] if later["arms"] else []  # fmt: skip
    pairs = comparison["family"]
    against = f"each arm against {comparison['baseline']}" if isinstance(pairs, str) else f"{len(pairs)} planned pairs"
    select = comparison["select"].replace("_", " ")
    lines.append(f"compared: {comparison['metric']} ({select}), {comparison['test']} test, {against}")
    lines += [_devices(found), *_basis(found)]
    return [*lines, *_power(found["power"]), "nothing was started"]


def _power(power: Mapping[str, Any]) -> Iterator[str]:
    """What the planned runs can show, and how many it takes."""
    runs, of = power["runs_per_arm"], f"if the SD of {power['of']} is {power['assumed_sd']} points"
    if runs == 1:
        needed = ", ".join(f"{gap['runs_for_80']} for {gap['gap']:.2f} points" for gap in power["gaps"])
        yield ("one run per arm shows that every arm trains and what it costs; it cannot show which method is better: "
               "without a spread over seeds no gap can be tested")  # fmt: skip
        yield f"runs per arm that see a gap in 80 % of cases, {of}: {needed}"
        return
    seen = [f"{gap['gap']:.2f} points in {_percent(gap['power'])}, {gap['runs_for_80']} runs for 80 %"
            for gap in power["gaps"]]  # fmt: skip
    yield f"power with {runs} runs per arm, {of}: {'; '.join(seen)}"
    if runs < power["claim_runs"]:
        yield f"a pilot: no claim is made below {power['claim_runs']} runs per arm"


def _devices(found: Mapping[str, Any]) -> str:
    wall, devices = found["wall_hours"], f"devices: {', '.join(found['devices'])}"
    return f"{devices}; time unknown" if wall is None else f"{devices}; about {_hours(wall)} of training steps in all"


def _points(points: float | None) -> str:
    return "–" if points is None else f"{points:.2f}"


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
        names = ", ".join(found["measured"])
        yield f"measured: 20 steps after 5, and a checkpoint, of {names}; others: finished {like}"
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


def _count(number: int | None) -> str:
    return str(number) if number else "–"


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], foot: bool = True) -> Table:
    """Rows under their headings; the last of them is their sum where there is a `foot`."""
    table = Table(title=_text(title, "bold"), title_justify="left", box=box.HORIZONTALS, pad_edge=False,
                  border_style="dim")  # fmt: skip
    for heading in headings:
        table.add_column(_text(heading), justify="left" if heading in ("arm", "method") else "right")
    for number, row in enumerate(rows):
        table.add_row(*map(_text, row), end_section=foot and number == len(rows) - 2)
    return table


def _line(line: str) -> Text:
    return _text(line, "dim")


def _text(value: str, style: str = "") -> Text:
    return Text(printable(value, limit=2000), style=style)
