"""plots.py: figures, drawn without a screen."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from mixcli.errors import UserError
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
    """Four rows: images, partners, masks (white is the image itself), mixed images with the weight of their label."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(sheet.ratio)
    figure = Figure(figsize=(1.1 * count, 5), layout="constrained")
    FigureCanvasAgg(figure)
    rows = {"image": sheet.originals, "partner": sheet.partners, "mask": sheet.own, "mixed": sheet.mixed}
    axes = figure.subplots(len(rows), count, squeeze=False)
    for row, (name, images) in enumerate(rows.items()):
        for axis, image in zip(axes[row], images, strict=True):
            grey = image.shape[0] == 1
            pixels = (image[0] if grey else image.permute(1, 2, 0)).numpy()
            axis.imshow(pixels, cmap="gray" if grey else None, vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        axes[row, 0].set_ylabel(name)
    for axis, ratio in zip(axes[-1], sheet.ratio, strict=True):
        axis.set_xlabel(f"{ratio:.2f}")
    figure.suptitle(sheet.title)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:], dpi=150)
    write_atomic(path, picture.getvalue())
