"""figures.py: the look that figures of probes share: plain axes, colours that colour-blind readers tell apart.

Colours are Paul Tol's bright scheme, each with a mark of its own; nets that were never trained are grey. No text is
read as mathematics, and equal findings give equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np

from mixcli.errors import printable
from mixcli.report.plots import FAINT, GREY, INK

COLOURS = ("#4477aa", "#ee6677", "#228833", "#aa8800", "#66ccee", "#aa3377", "#222222")
MARKS = "osD^vPX"
UNTRAINED = "#9a9a9a"
INCHES = 2.9  # of a panel's height


def canvas(width: float, height: float) -> Any:
    """An empty figure, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(drawn)
    return drawn


def panels(count: int, width: float = 3.6, height: float = INCHES, columns: int = 4, **shared: Any) -> tuple[Any, Any]:
    """A figure of `count` panels in rows of at most `columns`; returns it and its axes, a flat list."""
    across = min(count, columns)
    down = -(-count // across)
    drawn = canvas(across * width, down * height + 0.75)
    axes = list(drawn.subplots(down, across, squeeze=False, **shared).flat)
    for axis in axes[count:]:
        axis.remove()
    return drawn, axes[:count]


def titled(drawn: Any, title: str, below: str = "") -> None:
    """The figure's title at its upper left, and how its numbers came about on a second line."""
    text = printable(title, limit=160) + (f"\n{printable(below, limit=200)}" if below else "")
    drawn.suptitle(text, fontsize=9.5, x=0.01, ha="left", color=INK, parse_math=False)


def panel(axis: Any, title: str, x: str = "", y: str = "") -> None:
    """Only the axes that are read, faint lines, the panel's title at its left."""
    axis.set_title(printable(title), fontsize=9.5, loc="left", color=INK)
    axis.set_xlabel(x, fontsize=9, color=INK)
    axis.set_ylabel(y, fontsize=9, color=INK)
    for side in ("right", "top"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(FAINT)
    axis.tick_params(labelsize=8.5, color=FAINT, labelcolor=GREY)
    axis.grid(color="#e6e6e6", linewidth=0.8)
    axis.set_axisbelow(True)


def legend(drawn: Any, axis: Any, columns: int = 4) -> None:
    """One legend for all panels, below them."""
    found = drawn.legend(*axis.get_legend_handles_labels(), loc="outside lower left", ncols=columns, frameon=False,
                         fontsize=8.5)  # fmt: skip
    for text in found.get_texts():
        text.set_parse_math(False)


def names(table: Any) -> dict[str, str]:
    """checkpoint -> how a reader is told: method and seed, and the epoch or the file where these do not tell it."""
    own = table.drop_duplicates("checkpoint")
    told: dict[str, str] = {}
    for more in ((), ("epoch",), ("checkpoint",)):
        told = {
            row["checkpoint"]: ", ".join([row["method"], f"seed {row['run_seed']}", *(_more(row, key) for key in more)])
            for _, row in own.iterrows()
        }
        if len(set(told.values())) == len(told):
            break
    return told


def _more(row: Any, key: str) -> str:
    return f"epoch {row[key]}" if key == "epoch" else str(row[key])[-24:]


def number(value: Any) -> str:
    """Three digits that are read at a glance, 0 for what is rounding; a dash where there is none."""
    if value is None or value != value:
        return "-"
    size = abs(value)
    return (
        "0" if size == 0 else f"{value:.1f}" if size >= 99.95 else f"{value:.3f}" if size >= 0.0995 else f"{value:.2g}"
    )


def banded(axis: Any, x: Iterable[float], line: Any, column: str, place: int, name: str) -> None:
    """A line with its mark, and the columns _low and _high as a band."""
    colour, x = COLOURS[place % len(COLOURS)], list(x)
    low, high = (np.asarray(line[f"{column}_{end}"], np.float64) for end in ("low", "high"))
    axis.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axis.plot(x, line[column], color=colour, marker=MARKS[place % len(MARKS)], markersize=4.5, linewidth=1.5,
              label=printable(name, limit=60))  # fmt: skip


def numbers(axis: Any, values: Any, rows: Any, columns: Any, x: str, y: str, top: float) -> None:
    """A table as a picture: darker is more, `top` the largest number of all panels; None stays empty."""
    found = np.array([[np.nan if v is None else v for v in line] for line in values], float)
    axis.imshow(found, cmap="Blues", vmin=0, vmax=1.25 * top or 1.0, aspect="auto")
    for (i, j), value in np.ndenumerate(found):
        if np.isfinite(value):
            axis.text(j, i, number(float(value)), ha="center", va="center", fontsize=8,
                      color="white" if value > 0.75 * top else INK)  # fmt: skip
    axis.set_xticks(range(len(columns)), [str(c) for c in columns], fontsize=8.5, color=GREY)
    axis.set_yticks(range(len(rows)), [str(r) for r in rows], fontsize=8.5, color=GREY)
    axis.set_xlabel(x, fontsize=9, color=INK)
    axis.set_ylabel(y, fontsize=9, color=INK)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)


def saved(drawn: Any) -> dict[str, bytes]:
    """The figure as png and pdf, with neither the program's version nor a date in it."""
    from matplotlib.style import context

    found = {}
    with context("default"):
        for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            picture = io.BytesIO()
            drawn.savefig(picture, format=kind, dpi=160, metadata=metadata)
            found[kind] = picture.getvalue()
    return found
