"""plots.py: figures, drawn without a screen."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

from mixcli.errors import UserError, printable
from mixcli.files import write_atomic

SUFFIXES = (".png", ".pdf", ".svg")


def check(path: Path) -> Path:
    """Refuses a file that no figure could be written to, before anything is drawn."""
    if path.suffix not in SUFFIXES:
        raise UserError(
            "config", "--out", "unknown kind of figure", got=path.name, expected=f"one of {', '.join(SUFFIXES)}"
        )
    if not path.absolute().parent.is_dir():
        raise UserError("config", "--out", "its folder is not there", got=path)
    return path


def contact_sheet(sheet: Any, path: Path) -> None:
    """A row each of images, partners, masks, mixed images; below them the weight of the image's own label."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.style import context

    with context("default"):
        numbers = [""] if len(sheet.partners) == 1 else [f" {k + 1}" for k in range(len(sheet.partners))]
        partners = {f"partner{number}": images for number, images in zip(numbers, sheet.partners, strict=True)}
        rows = {"image": sheet.originals, **partners, "mask": sheet.own, "mixed": sheet.mixed}
        figure = Figure(figsize=(max(3.6, 1.1 * len(sheet.ratio)), 0.7 + 1.15 * len(rows)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(rows), len(sheet.ratio), squeeze=False)
        for row, (name, images) in zip(axes, rows.items(), strict=True):
            _row_of_images(row, name, images)
        for axis, ratio in zip(axes[-1], sheet.ratio, strict=True):
            axis.set_xlabel(f"{ratio:.2f}")
        figure.suptitle(sheet.title, fontsize=10, parse_math=False, wrap=True)
        figure.supxlabel("of the image itself: white in a mask, the number below", fontsize=8, color=GREY)
        picture = io.BytesIO()
        figure.savefig(picture, format=path.suffix[1:], dpi=150, metadata=_no_metadata(path.suffix))
    write_atomic(path, picture.getvalue())


def _row_of_images(axes: Any, name: str, images: Any) -> None:
    for axis, image in zip(axes, images, strict=True):
        grey = image.shape[0] == 1
        axis.imshow((image[0] if grey else image.permute(1, 2, 0)).numpy(), cmap="gray" if grey else None,
                    vmin=0, vmax=1)  # fmt: skip
        axis.set(xticks=[], yticks=[])
    axes[0].set_ylabel(name)


TILE = 96  # pixels of an image on a sheet of corruptions


def corruption_sheet(sheet: Any, path: Path) -> None:
    """A row per corruption, severity 1 to 5 from left to right, in two columns; the clean image leads the first."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.style import context

    with context("default"):
        names = list(sheet.images)
        half = len(names) // 2  # the clean image takes a row of the left column
        columns = [{"clean": sheet.clean[None], **{n: sheet.images[n] for n in names[:half]}},
                   {n: sheet.images[n] for n in names[half:]}]  # fmt: skip
        rows = max(map(len, columns))
        figure = Figure(figsize=(11.5, 0.75 + 0.82 * rows), layout="constrained", facecolor=PAPER)
        FigureCanvasAgg(figure)
        for axis, column in zip(figure.subplots(1, 2), columns, strict=True):
            _sheet_column(axis, column, rows)
        figure.suptitle(sheet.title, fontsize=10, x=0.01, ha="left", parse_math=False)
        picture = io.BytesIO()
        figure.savefig(picture, format=path.suffix[1:], dpi=150, metadata=_no_metadata(path.suffix))
    write_atomic(path, picture.getvalue())


def _sheet_column(axis: Any, column: Any, rows: int) -> None:
    import numpy as np

    step = TILE + 6
    canvas = np.full((rows * step, 5 * step, 3), 255, np.uint8)
    for row, images in enumerate(column.values()):
        for place, image in enumerate(images):
            height, width = image.shape[:2]
            scale = TILE / max(height, width)
            y, x = (np.minimum((np.arange(round(side * scale)) / scale).astype(int), side - 1)
                    for side in (height, width))  # fmt: skip
            top, left = row * step, place * step
            canvas[top : top + len(y), left : left + len(x)] = image[y][:, x]
    axis.imshow(canvas, interpolation="antialiased")
    axis.set_yticks([row * step + TILE / 2 for row in range(len(column))], list(column), fontsize=9)
    axis.set_xticks([place * step + TILE / 2 for place in range(5)], range(1, 6), fontsize=9)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)


# ------------------------------------------------------------------------------------------------------ arms of runs

INK, GREY, FAINT, PAPER, RUN = "#1a1a1a", "#5a5a5a", "#8c8c8c", "#ffffff", "#4477aa"
ROW = 0.62  # inches per arm
DOT = 5.5  # points across


def comparison(report: Any, path: Path) -> None:
    """A row per arm: a dot per run, below them the mean and its 95 % t interval; the baseline's mean is a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.style import context

    with context(["default", {"svg.hashsalt": "mixcli"}]):  # or its names would be new ones each time
        names = [_wrapped(row.arm) for row in report.rows]
        left = 0.35 + 0.085 * max((len(line) for name in names for line in name.split("\n")), default=0)
        width, height = left + 4.4 + 1.35, 1.25 + ROW * max(1, len(names))
        figure = Figure(figsize=(width, height), facecolor=PAPER)
        FigureCanvasAgg(figure)
        axis = figure.add_axes((left / width, 0.55 / height, 4.4 / width, 1 - 1.25 / height))
        low, high = _limits(report)
        axis.set(xlim=(low, high), ylim=(len(names) - 0.45, -0.55), xlabel=f"{report.plan.metric}, points")
        axis.set_yticks(range(len(names)), names)
        for label in axis.get_yticklabels():
            label.set_parse_math(False)
        across = (high - low) / (4.4 * 72) * DOT * 1.08
        for place, row in enumerate(report.rows):
            _runs_of_an_arm(axis, row, place, across)
            _interval(axis, row, place + 0.26, low, high)
            axis.annotate(_summary(row), (1.03, place + 0.04), xycoords=("axes fraction", "data"), va="center",
                          fontsize=8.5, color=INK)  # fmt: skip
            if row.arm == report.plan.baseline and row.points:
                axis.axvline(row.mean, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        _plain(axis)
        for text, below, size, colour in ((report.plan.title, 0.17, 10.5, INK), (_subtitle(report), 0.39, 8.5, GREY)):
            line = textwrap.shorten(printable(text, limit=400), int(width * 144 / size), placeholder=" …")
            figure.text(0.12 / width, 1 - below / height, line, va="top", fontsize=size, color=colour, parse_math=False)
        picture = io.BytesIO()
        # Neither the program's version nor a date: equal reports have equal bytes.
        figure.savefig(picture, format=path.suffix[1:], dpi=200, metadata=_no_metadata(path.suffix))
    write_atomic(path, picture.getvalue())


def _subtitle(report: Any) -> str:
    counts = sorted({len(row.points) for row in report.rows})
    runs = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" if counts else "0"
    images = "" if report.plan.images is None else f" · {report.plan.images:,} test images"
    line = ", dashed: the baseline's mean" if report.plan.baseline else ""
    return f"{runs} run{'' if runs == '1' else 's'} per arm{images} · dots: runs, bars: mean and 95 % interval{line}"


def _summary(row: Any) -> str:
    if not row.points:
        return f"no runs\n(n = {row.n})"
    spread = "" if len(row.points) < 2 else f" ± {row.sd:.2f}"
    return f"{row.mean:.2f}{spread}\nn = {row.n}"


def _wrapped(name: str) -> str:
    return "\n".join(textwrap.wrap(printable(name, limit=80), 26, max_lines=3, placeholder=" …")) or " "


def _limits(report: Any) -> tuple[float, float]:
    """Room for all runs, and for the intervals but where these are far wider: they are cut then, with an arrow."""
    points = [point for row in report.rows for point in row.points]
    if not points:
        return 0.0, 100.0
    ends = [end for row in report.rows if len(row.points) > 1 for end in (row.low, row.high)]
    room = max(max(points) - min(points), 0.2)
    low = max(min([*points, *ends]), min(points) - 0.6 * room)
    high = min(max([*points, *ends]), max(points) + 0.6 * room)
    return low - 0.06 * room, high + 0.06 * room


def _runs_of_an_arm(axis: Any, row: Any, place: int, across: float) -> None:
    """The runs as dots that do not cover each other: one that would stands a level higher."""
    levels: list[float] = []  # the last dot of each
    found = []
    for point in sorted(row.points):
        level = next((i for i, taken in enumerate(levels) if point - taken >= across), len(levels))
        levels[level : level + 1] = [point]
        found.append((point, level))
    step = min(0.13, 0.5 / max(1, len(levels)))
    for point, level in found:
        axis.plot(point, place + 0.08 - level * step, "o", markersize=DOT, markerfacecolor=RUN, markeredgecolor=PAPER,
                  markeredgewidth=0.6, alpha=0.9)  # fmt: skip


def _interval(axis: Any, row: Any, place: float, low: float, high: float) -> None:
    if len(row.points) > 1:
        ends = max(row.low, low), min(row.high, high)
        axis.plot(ends, (place, place), color=INK, linewidth=1.4, solid_capstyle="butt")
        for end, wanted, arrow in ((ends[0], row.low, "<"), (ends[1], row.high, ">")):
            mark = "|" if end == wanted else arrow
            axis.plot(end, place, mark, color=INK, markersize=6 if mark == "|" else 4.5, clip_on=False)
    if row.points:
        axis.plot(row.mean, place, "D", markersize=4.5, color=INK)


def _plain(axis: Any) -> None:
    """Only the axis that is read, and a faint line under each arm's name."""
    for side in ("left", "right", "top"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="y", length=0, labelsize=9)
    axis.tick_params(axis="x", labelsize=8.5, color=FAINT)
    axis.spines["bottom"].set_color(FAINT)
    axis.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axis.set_axisbelow(True)


def _no_metadata(suffix: str) -> dict[str, None]:
    return {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}[suffix]
