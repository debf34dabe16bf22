"""noise.py: gaussian, shot, impulse and speckle noise.

D. Hendrycks, T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019,
arXiv 1903.12261. With x a value in [0, 1]: gaussian x + N(0, s), speckle x + x N(0, s), shot Poisson(c x) / c,
impulse 0 or 255 for a share c; each value, that is each pixel and channel, is drawn by itself.
Deliberate differences: normals come from 65,536 quantiles; a photon count is the Poisson quantile at one of 16,384
levels, so that shot noise is one gather from a table of (grey level, quantile level) made once per severity.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.special import pdtr
from torch import Tensor

from mixcli.corruptions.keyed import Stream
from mixcli.corruptions.pixels import Corruption, Draws, Size, truncated, unit

LEVEL_BITS = 14  # quantile levels of shot noise: 2^14


def _normals(sigma: float, size: Size, stream: Stream) -> Draws:
    return {"normal": stream.normal("normal", size)}


def gaussian(images: Tensor, sigma: float, draws: Draws) -> Tensor:
    """x + s n; draws: "normal" (B, H, W, C) standard normal."""
    return truncated(unit(images, draws["normal"].dtype).add_(draws["normal"] * sigma))


def speckle(images: Tensor, sigma: float, draws: Draws) -> Tensor:
    """x + x s n; draws: "normal" (B, H, W, C) standard normal."""
    values = unit(images, draws["normal"].dtype)
    return truncated((draws["normal"] * sigma).mul_(values).add_(values))


def _uniforms(share: float, size: Size, stream: Stream) -> Draws:
    return {"uniform": stream.uniform24("uniform", size)}


def impulse(images: Tensor, share: float, draws: Draws) -> Tensor:
    """Black where u < c/2, white where c/2 <= u < c; draws: "uniform" (B, H, W, C) on [0, 1)."""
    u = draws["uniform"]
    return images.masked_fill(u < share, 255).masked_fill_(u < share / 2, 0)


def _levels(photons: float, size: Size, stream: Stream) -> Draws:
    return {"level": stream.levels("level", size, LEVEL_BITS)}


def shot(images: Tensor, photons: float, draws: Draws) -> Tensor:
    """The Poisson count at quantile (k + 1/2) / 2^14, over c; draws: "level" (B, H, W, C), integers k below 2^14."""
    index = (images.int() << LEVEL_BITS).add_(draws["level"].int())
    return _photographs(photons, images.device).index_select(0, index.view(-1)).view(images.shape)


@lru_cache(maxsize=8)
def _photographs(photons: float, device: torch.device) -> Tensor:
    """(256 x 2^14,) uint8: what a grey level becomes at each quantile level of its photon count."""
    quantiles = (np.arange(2**LEVEL_BITS) + 0.5) / 2**LEVEL_BITS
    most = int(photons + 8 * photons**0.5 + 16)  # far beyond the last quantile level at white
    counts = [
        np.searchsorted(pdtr(np.arange(most), photons * grey / 255), quantiles) if grey else np.zeros(len(quantiles))
        for grey in range(256)
    ]
    return truncated(torch.from_numpy(np.concatenate(counts)) / photons).to(device)


CORRUPTIONS = {
    "gaussian_noise": Corruption("noise", gaussian, _normals),
    "shot_noise": Corruption("noise", shot, _levels),
    "impulse_noise": Corruption("noise", impulse, _uniforms),
    "speckle_noise": Corruption("noise", speckle, _normals),
}
