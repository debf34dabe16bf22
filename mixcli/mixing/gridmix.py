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
    crop, sides, patch, hole = (drawn[..., None] for drawn in grids(settings, share, size, random))
    place = np.arange(max(size)) - crop
    in_holes = (place >= 0) & (place < sides) & (place % patch < hole)  # (2, n, side), down and across
    return Masks(masked.outside(in_holes[0, :, : size[0]], in_holes[1, :, : size[1]], random), share, "binary")


def grids(settings: GridMix, share: np.ndarray, size: tuple[int, int], random: Random) -> tuple[np.ndarray, ...]:
    """Corners (2, n) and sides (2, n) of the crops, sides of a patch (n,) and of its hole (n,), all int64."""
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
    return corner, sides, patch, hole
