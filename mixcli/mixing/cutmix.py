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
from torch import Tensor

from mixcli.mix import Context, Mix
from mixcli.mixing import masked
from mixcli.mixing.masked import Masks
from mixcli.sampling import Random, below
from mixcli.settings import CutMix

Boxes = np.ndarray  # (n, 4) int64: top, bottom, left, right; bottom and right excluded


def draw(settings: CutMix, context: Context, random: Random) -> Mix:
    """Draws partners and boxes; keep is 0 inside the box and 1 outside."""
    return masked.draw(settings, context, random, masks)


def masks(settings: CutMix, share: np.ndarray, size: tuple[int, int], random: Random) -> Masks:
    """Boxes whose nominal area is 1 - `share` (n,), unless their law knows no share; see `Masks`."""
    boxes, drawn = BOXES[settings.box](share, *size, random.host)
    return Masks(outside(boxes, *size, random), drawn, "binary")


def outside(boxes: Boxes, height: int, width: int, random: Random) -> Tensor:
    """(n, 4) boxes -> (n, 1, height, width) float32 masks: 0 inside the box, 1 outside."""
    top, bottom, left, right = boxes.T[:, :, None]
    row, column = np.arange(height), np.arange(width)
    return masked.outside((row >= top) & (row < bottom), (column >= left) & (column < right), random)


def _clipped(share: np.ndarray, height: int, width: int, rng: Generator) -> tuple[Boxes, np.ndarray]:
    """Centre uniform over pixels, sides floor(s H) and floor(s W), clipped at the borders: E ratio 0.70 at 32 px."""
    n, side = len(share), np.sqrt(1 - share)
    h, w = np.floor(side * height).astype(np.int64), np.floor(side * width).astype(np.int64)
    y, x = below(rng, [[height], [width]], (2, n))
    top, bottom = np.maximum(y - h // 2, 0), np.minimum(y + h // 2, height)
    left, right = np.maximum(x - w // 2, 0), np.minimum(x + w // 2, width)
    return np.stack([top, bottom, left, right], 1), share


def _inside(share: np.ndarray, height: int, width: int, rng: Generator) -> tuple[Boxes, np.ndarray]:
    """The whole box lies in the image, its corner uniform where it fits."""
    side = np.sqrt(1 - share)
    return placed(np.rint(side * height), np.rint(side * width), height, width, rng), share


def _minmax(share: np.ndarray, height: int, width: int, rng: Generator) -> tuple[Boxes, np.ndarray]:
    """Both side fractions uniform on 0.2 .. 0.8, independent, whatever the share."""
    n = len(share)
    down, across = rng.uniform(0.2, 0.8, n), rng.uniform(0.2, 0.8, n)
    h, w = np.maximum(1, np.rint(down * height)), np.maximum(1, np.rint(across * width))
    return placed(h, w, height, width, rng), 1 - down * across


def placed(h: np.ndarray, w: np.ndarray, height: int, width: int, rng: Generator) -> Boxes:
    """Boxes of h by w pixels, corner uniform over all places where they fit, the last row and column included."""
    h, w = h.astype(np.int64), w.astype(np.int64)
    top, left = below(rng, [height - h + 1, width - w + 1], (2, len(h)))
    return np.stack([top, top + h, left, left + w], 1)


BOXES = {"clipped": _clipped, "inside": _inside, "minmax": _minmax}
