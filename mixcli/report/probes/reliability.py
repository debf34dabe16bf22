"""reliability.py: the calibration probe as tables and figures: scores with their floor, and reliability diagrams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mixcli.report.export import Section
from mixcli.report.probes import figures
from mixcli.report.probes.figures import names

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
    """A panel per checkpoint above, its counts below."""
    shown = names(table)
    across = min(4, len(shown))
    down = -(-len(shown) // across)
    page = figures.canvas(3.3 * across + 0.3, 4.1 * down + 0.7)
    ratios = [3, 1] * down
    axes: Any = page.subplots(2 * down, across, squeeze=False, height_ratios=ratios)
    for place, (label, name) in enumerate(shown.items()):
        row, column = 2 * (place // across), place % across
        mine = table[table["checkpoint"] == label]
        _diagram(axes[row, column], axes[row + 1, column], mine, name, first=column == 0)
    for place in range(len(shown), across * down):
        for offset in (0, 1):
            axes[2 * (place // across) + offset, place % across].remove()
    data = f"{about['dataset']}, {about['split']} split, {about['images']:,} images"
    below = f"{data}; 15 bins of equal width; bars: 95 % for a bin of so many"
    figures.titled(page, "Reliability: accuracy against confidence (line: perfect)", below)
    figures.legend(page, axes[0, 0])
    return page


def _diagram(axis: Any, counts: Any, rows: Any, name: str, first: bool) -> None:
    """Accuracy against confidence, bars: 95 % for a bin of so few images; below, the images of each bin."""
    axis.plot((0, 1), (0, 1), color=figures.FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    styles = {"none": ("as trained", "o-", 0), "temperature": ("after temperature scaling", "s--", 1)}
    for scaling, (label, style, place) in styles.items():
        bins = rows[(rows["row"] == "bin") & (rows["scaling"] == scaling) & (rows["n"] > 0)]
        if not len(bins):
            continue
        colour = figures.COLOURS[place]
        axis.plot(bins["confidence"], bins["accuracy"], style, color=colour, markersize=5 - place, linewidth=0.8,
                  label=label, clip_on=False)  # fmt: skip
        low, high = _binomial(bins["n"].to_numpy(float), bins["accuracy"].to_numpy(float))
        axis.vlines(bins["confidence"], low, high, color=colour, linewidth=0.9, alpha=0.6)
    figures.panel(axis, name, y="accuracy" if first else "")
    axis.set(xlim=(0, 1), ylim=(0, 1.02))
    axis.tick_params(labelbottom=False)
    plain = rows[(rows["row"] == "bin") & (rows["scaling"] == "none")]
    counts.bar((plain["bin"] - 0.5) / len(plain), plain["n"], width=0.9 / len(plain), color=figures.COLOURS[0])
    figures.panel(counts, "", x="confidence", y="images" if first else "")
    counts.set(xlim=(0, 1), yscale="symlog", ylim=(0, None))
    counts.yaxis.set_major_formatter("{x:,.0f}")


def _binomial(n: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % Wilson interval of shares of `n` images."""
    z2 = 1.96**2
    centre, half = (share + z2 / (2 * n)) / (1 + z2 / n), np.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    return np.clip(centre - 1.96 * half / (1 + z2 / n), 0, 1), np.clip(centre + 1.96 * half / (1 + z2 / n), 0, 1)
