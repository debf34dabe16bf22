"""augment.py: the training view: random crop, flip, operations and Cutout, drawn for a whole batch at once.

Draw first, apply later, as everywhere: `draw` makes the offsets, on the device, out of one field of uniform numbers;
the functions below apply them and draw nothing. Windows to be resized (resized.py) and operations (operations.py) have
streams of their own. Pixels stay uint8 until the last moment:

    padded                   (N, H, W, C) on the host  ->  (N, C, H + 2 pad, W + 2 pad)
    crop, or resized.crop    (N, C, H + 2 pad, W + 2 pad)  ->  (B, C, H, W)
    mirrored, applied, cut   (B, C, H, W)  ->  (B, C, H, W)
    normalised               ->  float32: (x / 255 - mean) / std, in this order, as torchvision has it

Cutout (DeVries and Taylor 2017, arXiv 1708.04552) acts before normalisation: the hole is black, not mean-grey; its
centre is a uniform pixel and the hole is clipped at the border.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mixcli.data.operations import Operations, Turn
from mixcli.data.resized import ResizedCrop, Window
from mixcli.errors import UserError
from mixcli.recipe import Train
from mixcli.sampling import Random


@dataclass(frozen=True)
class Draw:
    """The offsets of one batch; tensors are (B,) on the device.

    top, left    int64: corner of the crop in the padded image
    mirror       bool: flip left to right; None: no image is
    row, column  int64: centre of the hole, in the crop
    side         pixels of the hole's side before clipping; 0: no hole
    window       what is resized to the image's size, in place of the crop; None: nothing is
    turns        operations, one after the other
    """

    top: Tensor
    left: Tensor
    mirror: Tensor | None
    row: Tensor
    column: Tensor
    side: int
    window: Window | None = None
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class Augmentation:
    """The training view: `pad` and `cutout` in pixels; `flip` mirrors half of the images.

    resized     windows in place of the padded crop
    operations  RandAugment or TrivialAugment, after the flip and before Cutout
    """

    pad: int = 0
    pad_mode: Literal["zero", "reflect"] = "zero"
    flip: bool = False
    cutout: int = 0
    resized: ResizedCrop | None = None
    operations: Operations | None = None

    def draw(self, batch: int, size: tuple[int, int], degree: float, random: Random) -> Draw:
        """Offsets for `batch` images of `size` (H, W) at a strength: 1 is the training view, 0 the clean one.

        At degree d: padding round(d pad), flip probability d / 2, hole of side round(d cutout).
        Always the same number of draws, so that switching one part off does not shift the others.
        """
        uniform = random.field((5, batch))
        pad = _rounded(degree * self.pad)
        crop = _below(uniform[:2], 2 * pad + 1) + (self.pad - pad)
        mirror = uniform[2] < degree / 2 if self.flip and degree > 0 else None
        windows, turns = self.resized, self.operations
        return Draw(crop[0], crop[1], mirror, _below(uniform[3], size[0]), _below(uniform[4], size[1]),
                    _rounded(degree * self.cutout),
                    None if windows is None else windows.draw(batch, size, degree, random.child("resized")),
                    () if turns is None else turns.draw(batch, size, degree, random.child("operations")))  # fmt: skip


def training_view(train: Train) -> Augmentation:
    """The augmentation of completed settings."""
    resized = None if train.crop == "pad" else ResizedCrop(train.crop_scale, train.crop_ratio, train.crop_filter)
    operations = None
    if train.augment == "trivialaugment":
        operations = Operations(train.augment)
    elif train.augment == "randaugment":
        operations = Operations(train.augment, train.augment_count, train.augment_magnitude)
    return Augmentation(train.pad or 0, train.pad_mode or "zero", bool(train.flip), train.cutout, resized, operations)


def _rounded(pixels: float) -> int:
    """To the nearest, halves up: Python's `round` would make half of one pixel none."""
    return math.floor(pixels + 0.5)


def _below(uniform: Tensor, count: int) -> Tensor:
    """Integers 0 .. count - 1, int64, from uniform numbers on [0, 1)."""
    return (uniform * count).long()


def padded(images: np.ndarray, augmentation: Augmentation) -> Tensor:
    """(N, C, H + 2 pad, W + 2 pad) uint8, contiguous, from (N, H, W, C).

    Raises UserError where a reflected border would be as wide as the image.
    """
    pad, side = augmentation.pad, min(images.shape[1:3])
    if augmentation.pad_mode == "reflect" and pad >= side:
        raise UserError("config", "pad", "a reflected border is narrower than the image", got=pad,
                        expected=f"0 … {side - 1}", hint="Give --pad-mode zero")  # fmt: skip
    mode = "reflect" if augmentation.pad_mode == "reflect" else "constant"
    planes = np.pad(images.transpose(0, 3, 1, 2), ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode=mode)
    return torch.from_numpy(np.ascontiguousarray(planes))


def crop(images: Tensor, rows: Tensor, top: Tensor, left: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W): of each image in `rows` (B,) the window of `size` at its corner; `images` contiguous.

    A window is H * C runs of W bytes in memory. Naming each run by its first byte lets `index_select` copy it whole, on
    a CPU eight times faster than indexing image, line and column.
    """
    _, channels, height, width = images.shape
    runs = images.view(-1).unfold(0, size[1], 1)  # row b: the W bytes from byte b on; a view
    line = torch.arange(size[0], device=images.device) * width
    plane = torch.arange(channels, device=images.device) * (height * width)
    corner = (rows * (channels * height) + top) * width + left
    first = corner[:, None, None] + plane[:, None] + line  # (B, C, H)
    return runs.index_select(0, first.view(-1)).view(*first.shape, size[1])


def mirrored(images: Tensor, mirror: Tensor) -> Tensor:
    """`images` (B, C, H, W) uint8 with those that `mirror` (B,) bool marks flipped left to right."""
    every_bit = -mirror.to(torch.uint8).view(-1, 1, 1, 1)  # 255 or 0
    flipped = images.flip(-1)  # torch.where on bytes takes seven times as long on a CPU as these three
    return flipped.bitwise_xor_(images).bitwise_and_(every_bit).bitwise_xor_(images)


def cut(images: Tensor, row: Tensor, column: Tensor, side: int) -> Tensor:
    """`images` (B, C, H, W) uint8 with a black square of `side` around (row, column) of each, clipped at the border."""
    hole = _span(row, side, images.shape[2])[:, :, None] & _span(column, side, images.shape[3])[:, None, :]
    return images * (~hole)[:, None].to(torch.uint8)


def _span(centre: Tensor, side: int, count: int) -> Tensor:
    """(B, count) bool: the `side` places around each centre."""
    offset = torch.arange(count, device=centre.device) - (centre[:, None] - side // 2)
    return (offset >= 0) & (offset < side)


def normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(B, C, H, W) float32, contiguous, from uint8 and (C, 1, 1) constants of pixels in [0, 1]."""
    # A tensor, not a number: CUDA divides by a number as a product with its reciprocal, which is not the same bits.
    full = torch.full((), 255.0, device=images.device)
    return images.to(torch.float32, memory_format=torch.contiguous_format).div_(full).sub_(mean).div_(std)
