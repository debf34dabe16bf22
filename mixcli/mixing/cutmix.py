"""cutmix.py: CutMix, a box of one image pasted into another.

S. Yun, D. Han, S. J. Oh, S. Chun, J. Choe, Y. Yoo, "CutMix: Regularization Strategy to Train Strong Classifiers with
Localizable Features", 2019, arXiv 1905.04899. Legend: lambda = the drawn share of the image itself, M = `keep`.
Eq. (1) is `Mix.images`; eq. (2), the box, is `_clipped`, as in the authors' code (clovaai/CutMix-PyTorch).
Differences: the label weight is always the mean of the mask, never lambda; `inside` places the whole box in the
image, so the realised share follows Beta(alpha, alpha); `minmax` draws both sides from U(0.2, 0.8) and may touch
every border.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from mixcli.mix import Context, Mix
from mixcli.mixing import masked
from mixcli.mixing.masked import Masks
from mixcli.sampling import Random, below
from mixcli.settings import CutMix

Boxes = np.ndarray  # (4, n) int64: top, left, bottom, right; bottom and right excluded


def draw(settings: CutMix, context: Context, random: Random) -> Mix:
    """Draws partners and boxes; keep is 0 inside the box and 1 outside."""
    return masked.draw(settings, context, random, masks)


def masks(settings: CutMix, share: np.ndarray, size: tuple[int, int], random: Random) -> Masks:
    """Boxes whose nominal area is 1 - `share` (n,), unless their law knows no share; see `Masks`."""
    boxes, drawn = BOXES[settings.box](share, *size, random.host)
    return boxed(boxes, drawn, *size, random)


def boxed(boxes: Boxes, drawn: np.ndarray, height: int, width: int, random: Random) -> Masks:
    """(4, n) boxes -> masks: 0 inside the box, 1 outside; see `Masks`."""
    if len(drawn) == 1:
        top, left, bottom, right = boxes[:, 0].tolist()
        keep = np.ones((1, 1, height, width), np.float32)
        keep[:, :, top:bottom, left:right] = 0
        (mask,) = random.carry(keep)
        return Masks(mask, drawn, "binary", (slice(top, bottom), slice(left, right)))
    place, start, stop = np.arange(max(height, width)), boxes[:2, :, None], boxes[2:, :, None]
    inside = (place >= start) & (place < stop)  # (2, n, side), down and across
    return Masks(masked.outside(inside[0, :, :height], inside[1, :, :width], random), drawn, "binary")


def _clipped(share: np.ndarray, height: int, width: int, rng: Generator) -> tuple[Boxes, np.ndarray]:
    """Centre uniform over pixels, sides floor(s H) and floor(s W), clipped at the borders: E ratio 0.70 at 32 px."""
    bounds = np.array([[height], [width]])
    half = (np.sqrt(1 - share) * bounds).astype(np.int64) // 2
    centre = below(rng, bounds, half.shape)
    return np.concatenate([np.maximum(centre - half, 0), np.minimum(centre + half, bounds)]), share


def _inside(share: np.ndarray, height: int, width: int, rng: Generator) -> tuple[Boxes, np.ndarray]:
    """The whole box lies in the image, its corner uniform where it fits."""
    return placed(np.rint(np.sqrt(1 - share) * [[height], [width]]), height, width, rng), share


def _minmax(share: np.ndarray, height: int, width: int, rng: Generator) -> tuple[Boxes, np.ndarray]:
    """Both side fractions uniform on 0.2 .. 0.8, independent, whatever the share."""
    fractions = rng.uniform(0.2, 0.8, (2, len(share)))
    sides = np.maximum(1, np.rint(fractions * [[height], [width]]))
    return placed(sides, height, width, rng), 1 - fractions.prod(0)


def placed(sides: np.ndarray, height: int, width: int, rng: Generator) -> Boxes:
    """Boxes of `sides` (2, n) pixels, corner uniform over all places where they fit, the last row and column included.

    sides  heights, then widths
    """
    sides = sides.astype(np.int64)
    corner = below(rng, [[height + 1], [width + 1]] - sides, sides.shape)
    return np.concatenate([corner, corner + sides])


BOXES = {"clipped": _clipped, "inside": _inside, "minmax": _minmax}
