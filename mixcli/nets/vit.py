"""vit.py: a small vision transformer on patches of 4x4 pixels, for images of any sides that 4 divides.

A. Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020, arXiv 2010.11929; width, depth and heads of DeiT-Ti
(H. Touvron et al. 2020, arXiv 2012.12877). No class token: the patches are averaged after the closing LayerNorm, and
positions are fixed sines and cosines of row and column, both as in L. Beyer, X. Zhai, A. Kolesnikov, "Better plain ViT
baselines for ImageNet-1k", 2022, arXiv 2205.01580; that is why any grid of patches fits.
Stages: stem (the patch embedding with positions), block1 .. block12; the LayerNorm and the average are the neck. Each
stage hands its tokens over as a map (B, width, H/4, W/4), so that whatever mixes maps, masks included, mixes them.
Ours: dropout nowhere; weights from a normal distribution of deviation 0.02, cut at two, biases 0, the patch embedding
scaled to inputs of variance 1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixcli.errors import UserError
from mixcli.nets.staged import StagedNet

PATCH, DEPTH, HEAD = 4, 12, 64  # pixels of a side, blocks, channels of a head
TEMPERATURE = 10_000.0  # the longest wave of the positions, over 2 pi patches
EPSILON = 1e-6  # of every LayerNorm


class Patches(nn.Module):
    """(B, C, H, W) images -> (B, D, H/4, W/4): each patch mapped linearly, its position added."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.map = nn.Conv2d(channels, width, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % PATCH or width % PATCH:
            problem = f"images of {height}x{width} pixels do not fall into patches of {PATCH}x{PATCH}"
            raise UserError("config", "net", problem)
        tokens = self.map(x)
        return tokens + positions(tokens.shape[1], tokens.shape[2], tokens.shape[3], x.device).to(tokens.dtype)


def positions(width: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """(width, rows, columns): a quarter each of sine and cosine of the column and of the row, float32."""
    quarter = width // 4
    step = torch.arange(quarter, device=device) / max(1, quarter - 1)
    frequency = TEMPERATURE**-step
    row = (torch.arange(rows, device=device)[None] * frequency[:, None])[:, :, None].expand(-1, -1, columns)
    column = (torch.arange(columns, device=device)[None] * frequency[:, None])[:, None].expand(-1, rows, -1)
    return torch.cat([column.sin(), column.cos(), row.sin(), row.cos()])


class Block(nn.Module):
    """Attention among the patches and a perceptron on each, after a LayerNorm and beside a shortcut."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, EPSILON)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, EPSILON)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) -> the same shape."""
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.project(self._attended(self.qkv(self.norm1(tokens))))
        tokens = tokens + self.down(F.gelu(self.up(self.norm2(tokens))))
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:])

    def _attended(self, qkv: Tensor) -> Tensor:
        """(B, T, 3 D) queries, keys and values -> (B, T, D)."""
        query, key, value = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class Pooled(nn.Module):
    """(B, D, h, w) -> (B, D): the mean of the patches after a LayerNorm."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.flatten(2).transpose(1, 2)).mean(dim=1)


def vit_tiny(channels: int, classes: int, width: int = 192) -> StagedNet:
    """ViT-Ti/4: 5,367,460 parameters for three channels and 100 classes.

    Raises UserError for a width that neither holds whole heads of 64 channels nor is one small head.
    """
    if width % (HEAD if width > HEAD else 4):
        raise UserError("config", "width", "does not fit the heads", got=width,
                        expected=f"a multiple of 4 up to {HEAD}, of {HEAD} above")  # fmt: skip
    blocks = {f"block{n}": Block(width, max(1, width // HEAD)) for n in range(1, DEPTH + 1)}
    net = StagedNet({"stem": Patches(channels, width), **blocks}, nn.Linear(width, classes), Pooled(width))
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            scale = 0.02 if isinstance(module, nn.Linear) else 1 / math.sqrt(channels * PATCH**2)
            nn.init.trunc_normal_(module.weight, std=scale, a=-2 * scale, b=2 * scale)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return net


BUILDERS = {"vit-tiny": vit_tiny}
