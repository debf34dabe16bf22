"""whitening.py: ZCA, the fixed linear map in front of a net that decorrelates pixels.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, appendix A. It is the net's first layer
and not a treatment of the files: it stands in every checkpoint, and whatever looks at the net (evaluation, corruptions,
probes) meets it without knowing. The authors of ICT whiten first and shift and mirror then; here augmentation comes
first. Mixing with constant weights commutes with it, since the map is affine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

FLOOR = 1e-5  # added to every variance, of normalised pixels, so that empty directions do not blow up


class Whitening(nn.Module):
    """(B, C, H, W) -> the same shape, of mean 0 and covariance I over the images that `fit` saw."""

    def __init__(self, size: tuple[int, int, int]):
        super().__init__()
        numbers = math.prod(size)
        self.mean: Tensor
        self.matrix: Tensor
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("matrix", torch.eye(numbers))

    def forward(self, x: Tensor) -> Tensor:
        # bfloat16 has too few digits for a covariance; shapes alone (`meta`) know no autocast
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            return ((x.flatten(1).float() - self.mean) @ self.matrix).view(x.shape)

    @torch.no_grad()
    def fit(self, images: Iterable[Tensor]) -> None:
        """Sets mean and matrix from images (n, C, H, W) handed over in pieces; float64, O((C H W)^3)."""
        count, total = 0, torch.zeros_like(self.mean, dtype=torch.float64)
        products = torch.zeros_like(self.matrix, dtype=torch.float64)
        for piece in images:
            rows = piece.flatten(1).double()
            count, total = count + len(rows), total + rows.sum(0)
            products += rows.T @ rows
        mean = total / count
        variances, directions = torch.linalg.eigh(products / count - torch.outer(mean, mean))
        scale = (variances.clamp(min=0) + FLOOR).rsqrt()
        self.mean.copy_(mean)
        self.matrix.copy_((directions * scale) @ directions.T)


def whitenings(net: nn.Module) -> list[Whitening]:
    """The whitening layers of a net, in one order for all nets of one architecture."""
    return [module for module in net.modules() if isinstance(module, Whitening)]
