"""gridmix.py: GridMix, a grid of small holes inside a random crop; the holes show the partner.

K. Baek, D. Bang, H. Shim, "GridMix: Strong regularization through local context mapping", 2021, Pattern Recognition.
The article's own grid rule is not published where we could read it; this is the form behind the public benchmark
numbers (constants of Westlake-AI/openmixup). Rounding, grid phase and the log-uniform aspect, symmetric in height and
width, are ours, and so is that a hole is never larger than its patch. Large shares cannot be reached when the crop is
small: only the mean of the mask is the label weight.
"""

from __future__ import annotations

import math

import numpy as np

from mixcli.mix import Context, Mix
from mixcli.mixing import masked
from mixcli.mixing.masked import Masks
from mixcli.sampling import Random
from mixcli.settings import GridMix


def draw(settings: GridMix, context: Context, random: Random) -> Mix:
    """Draws partners, ratios, crops and grids; keep is 0 in the holes."""
    return masked.draw(settings, context, random, masks)


def masks(settings: GridMix, share: np.ndarray, size: tuple[int, int], random: Random) -> Masks:
    """Holes whose share of their patch is 1 - `share` (n,); see `Masks`."""
    top, left, height, width, patch, hole = grids(settings, share, size, random)[:, :, None]
    in_rows = _in_holes(size[0], top, height, patch, hole)
    in_columns = _in_holes(size[1], left, width, patch, hole)
    return Masks(masked.outside(in_rows, in_columns, random), share, "binary")


def grids(settings: GridMix, share: np.ndarray, size: tuple[int, int], random: Random) -> np.ndarray:
    """(6, n) int64: top, left, height and width of the crop, side of a patch, side of its hole."""
    (fewest, most), (smallest, largest), (narrowest, widest) = settings.cells, settings.area, settings.aspect
    u, bounds = random.host.random((5, len(share))), np.array(size)[:, None]
    cells = fewest + (u[0] * (most + 1 - fewest)).astype(np.int64)
    area = (smallest + (largest - smallest) * u[1]) * (size[0] * size[1])
    stretch = np.exp((math.log(narrowest) + math.log(widest / narrowest) * u[2]) / 2)  # the root of the aspect
    sides = np.rint(np.sqrt(area) * np.array([1 / stretch, stretch]))
    sides = np.minimum(np.maximum(sides, 1), bounds).astype(np.int64)
    corner = (u[3:] * (bounds + 1 - sides)).astype(np.int64)
    patch = -(-sides[1] // cells)
    hole = np.rint(patch * np.sqrt(1 - share)).astype(np.int64)
    return np.array([*corner, *sides, patch, hole])


def _in_holes(side: int, start: np.ndarray, length: np.ndarray, patch: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """(n, side) bool: places along one axis that lie in the crop and in the hole of their patch."""
    place = np.arange(side) - start
    return (place >= 0) & (place < length) & (place % patch < hole)
