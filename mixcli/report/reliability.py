"""reliability.py: the calibration probe as tables and figures: scores with their floor, and reliability diagrams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mixcli.report import figures
from mixcli.report.export import Section
from mixcli.report.figures import names

SCORES = ("top1", "nll", "brier", "conf_minus_acc", "ece15", "ece_floor", "ece_adaptive", "rms_adaptive")
HEADINGS = {"top1": "accuracy", "brier": "brier (0..2)", "ece_floor": "floor of ece15"}


def sections(table: Any, about: Mapping[str, Any]) -> Iterator[Section]:
    """A column per checkpoint as trained, and one after temperature scaling where it could be fitted."""
    shown, scores = names(table), table[table["row"] == "scores"]
    columns = {}
    for _, row in scores.iterrows():
        scaled = "" if row["scaling"] == "none" else f", T = {row['temperature']:.3f}"
        columns[shown[row["checkpoint"]] + scaled] = [_score(row, name) for name in SCORES]
    rows = zip((HEADINGS.get(name, name) for name in SCORES), *columns.values(), strict=True)
    yield Section(("calibration", *columns), tuple(rows))


def _score(row: Any, name: str) -> str:
    if name == "top1":
        return f"{row[name]:.2%}".replace("%", " %")
    value = f"{row[name]:+.4f}" if name == "conf_minus_acc" else f"{row[name]:.4f}"
    return f"{value} [{row['ece_floor_low']:.4f}, {row['ece_floor_high']:.4f}]" if name == "ece_floor" else value


def drawn(table: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """Reliability diagrams, a panel per checkpoint, the number of images in each bin below."""
    return {"": _diagrams(table, about)}


def _diagrams(table: Any, about: Mapping[str, Any]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = names(table)
    across = min(4, len(shown))
    down = -(-len(shown) // across)
    page = Figure(figsize=(3.3 * across + 0.3, 4.1 * down + 0.7), layout="constrained", facecolor="white")
    FigureCanvasAgg(page)
    ratios = [3, 1] * down
    axes: Any = page.subplots(2 * down, across, squeeze=False, height_ratios=ratios)
    for place, (label, name) in enumerate(shown.items()):
        row, column = 2 * (place // across), place % across
        mine = table[table["checkpoint"] == label]
        _diagram(axes[row, column], axes[row + 1, column], mine, name, first=column == 0)
    for place in range(len(shown), across * down):
        for offset in (0, 1):
            axes[2 * (place // across) + offset, place % across].remove()
    below = f"{about['dataset']}, {about['split']} split, {about['images']:,} images; 15 bins of equal width"
    figures.titled(page, "Reliability: accuracy against confidence (line: perfect)", below)
    figures.legend(page, axes[0, 0])
    return page


def _diagram(axis: Any, counts: Any, rows: Any, name: str, first: bool) -> None:
    plain = rows[(rows["row"] == "bin") & (rows["scaling"] == "none")]
    scaled = rows[(rows["row"] == "bin") & (rows["scaling"] == "temperature") & (rows["n"] > 0)]
    axis.plot((0, 1), (0, 1), color=figures.FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    filled = plain[plain["n"] > 0]
    axis.plot(filled["confidence"], filled["accuracy"], "o-", color=figures.COLOURS[0], markersize=4.5, linewidth=1.4,
              label="as trained")  # fmt: skip
    if len(scaled):
        axis.plot(scaled["confidence"], scaled["accuracy"], "s--", color=figures.COLOURS[1], markersize=4,
                  linewidth=1.2, label="after temperature scaling")  # fmt: skip
    figures.panel(axis, name, y="accuracy" if first else "")
    axis.set(xlim=(0, 1), ylim=(0, 1.02), xticklabels=())
    centres = (np.arange(len(plain)) + 0.5) / len(plain)
    counts.bar(centres, plain["n"], width=0.9 / len(plain), color=figures.COLOURS[0], alpha=0.75)
    figures.panel(counts, "", x="confidence", y="images" if first else "")
    counts.set(xlim=(0, 1), yscale="symlog", ylim=(0, None))
