"""resizemix.py: ResizeMix, the whole partner, shrunk, pasted into a box.

J. Qin, J. Fang, Q. Zhang, W. Liu, X. Wang, X. Wang, "ResizeMix: Mixing Data with Preserved Object Information and True
Labels", 2020, arXiv 2012.11101. Legend: tau = the scale of the sides, U(0.1, 0.8); lambda = the label weight, always
the mean of the mask. `scale_law = beta` makes tau = 0.1 + 0.7 Beta(alpha, alpha), which is the same at alpha 1.
The corner is uniform where the box fits, and the resize bilinear with antialiasing: both are ours, since plain bilinear
sampling at tau = 0.1 skips most pixels. What is pasted is no pixel of the partner at its place: a mask says nothing of
it at a hidden stage, or under other masks, and both are refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mixcli.mix import Context, Mix
from mixcli.mixing import masked
from mixcli.mixing.cutmix import boxed, placed
from mixcli.sampling import Random
from mixcli.settings import ResizeMix


def draw(settings: ResizeMix, context: Context, random: Random) -> Mix:
    """Draws partners, scales and boxes; keep is 0 inside the box, where the partner is seen whole."""
    pairing = masked.paired(settings, context, random)
    smallest, largest = settings.side
    scale = smallest + (largest - smallest) * masked.shares(settings, context, random)
    height, width = context.size[1:]
    boxes = placed(np.maximum(1, np.rint(scale * [[height], [width]])), height, width, random.host)
    masks = boxed(boxes, 1 - scale**2, height, width, random)
    return pairing.mix(masks, random, {}, Shrunk(*random.carry(boxes)))


@dataclass(frozen=True)
class Shrunk:
    """Turns partners into canvases that show them whole inside their boxes; what is outside is not defined.

    boxes  (4, 1 or B) int64: top, left, bottom, right; bottom and right excluded
    """

    boxes: Tensor

    def __call__(self, partners: Tensor) -> Tensor:
        """(B, C, H, W) in, the same out: the resize is separable, one matrix per axis carries scale and place."""
        batch, channels, height, width = partners.shape
        top, left, bottom, right = self.boxes.to(partners.dtype)
        down, across = _tents(top, bottom, height), _tents(left, right, width)
        with masked.full_precision(partners.device):
            narrow = (partners.flatten(1, 2) @ across.mT).view(batch, channels, height, width)
            lines = down @ narrow.transpose(1, 2).flatten(2)  # (B, H, C * W)
        canvas = lines.view(batch, height, channels, width).transpose(1, 2)
        # Weights that sum to 1 but for rounding must not leave the partner's range.
        return canvas.clamp(partners.amin((2, 3), keepdim=True), partners.amax((2, 3), keepdim=True))


def _tents(start: Tensor, stop: Tensor, side: int) -> Tensor:
    """(n, side, side): row p of each holds the weights of all places for place p, tents as wide as the shrinking."""
    place = torch.arange(side, device=start.device, dtype=start.dtype) + 0.5
    scale = (side / (stop - start))[:, None, None]
    centre = (place - start[:, None])[:, :, None] * scale
    weight = (1 - (place - centre).abs() / scale).clamp(min=0)
    return weight / weight.sum(2, keepdim=True).clamp(min=1e-6)
