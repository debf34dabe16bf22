"""smoothmix.py: SmoothMix, a Gaussian bump of the partner.

J.-H. Lee, M. Z. Zaheer, M. Astrid, S.-I. Lee, "SmoothMix: a Simple Yet Effective Data Augmentation to Train Robust
Classifiers", 2020, CVPR workshops. Legend: sigma = `spread` times the shorter side, G = 1 - `keep`. The mask is
exp(-|p - c|^2 / (2 sigma^2)) around a uniform pixel c. There is no ratio to draw and so no alpha: the label weight is
the mean of the mask. The range of sigma is not published where we could read it; ours makes bumps visible but local.
"""

from __future__ import annotations

import numpy as np

from mixcli.mix import Context, Mix
from mixcli.mixing import masked
from mixcli.mixing.masked import Masks
from mixcli.sampling import Random, below
from mixcli.settings import SmoothMix


def draw(settings: SmoothMix, context: Context, random: Random) -> Mix:
    """Draws partners and bumps; `drawn` is NaN, since no ratio is."""
    return masked.draw(settings, context, random, masks)


def masks(settings: SmoothMix, share: np.ndarray, size: tuple[int, int], random: Random) -> Masks:
    """Bumps with centre and width of their own, whatever the share; see `Masks`."""
    rng, n = random.host, len(share)
    sigma = rng.uniform(*settings.spread, n) * min(size)
    centre = below(rng, [[size[0]], [size[1]]], (2, n))
    down, across = (
        np.exp(-((np.arange(side) - c[:, None]) ** 2) / (2 * sigma[:, None] ** 2))
        for side, c in zip(size, centre, strict=True)
    )
    return Masks(masked.outside(down, across, random), np.full(n, np.nan))
