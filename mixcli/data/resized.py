"""resized.py: RandomResizedCrop, ImageNet's view: a random window of each image, resized to the image's own size.

C. Szegedy et al. 2015, arXiv 1409.4842; the law is torchvision's: an area uniform on `scale` and an aspect, width over
height, log-uniform on `ratio`, until a window fits, ten times at most; else the largest one in the middle whose aspect
is within `ratio`.

A resize is separable: out = rows @ image @ columns, with a matrix of filter weights per image for either axis, so that
a batch is two products, whatever its windows. Weights are integers of 16 bits and values become bytes between the
products and after them, as torchvision's kernel for bytes on a CPU has it: every sum is a whole number below 2^24, so
float32 gives these bytes on any device, in any order. A window is never larger than its image; antialiasing, which
widens the filter where an image shrinks, has nothing to do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mixcli.sampling import Random

TRIES = 10


@dataclass(frozen=True)
class Window:
    """A part of each image; (B,) int64 on the device."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


@dataclass(frozen=True)
class ResizedCrop:
    """Which windows are drawn, and by which filter they are resized.

    scale  smallest and largest area, as shares of the image
    ratio  narrowest and widest aspect, width over height
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    filter: Literal["bilinear", "bicubic"] = "bilinear"

    def draw(self, batch: int, size: tuple[int, int], degree: float, random: Random) -> Window | None:
        """Windows for `batch` images of `size` (H, W) at a strength; None at 0, where the image stays as it is.

        At degree d an area bound s becomes 1 - d (1 - s) and an aspect bound r becomes r^d.
        random  a stream of their own, on the training device
        """
        if degree == 0:
            return None
        uniform = random.field((2 * TRIES + 2, batch))
        height, width = size
        least, most = (1 - degree * (1 - bound) for bound in self.scale)
        narrow, broad = (degree * math.log(bound) for bound in self.ratio)
        area = height * width * (least + (most - least) * uniform[:TRIES])
        aspect = (narrow + (broad - narrow) * uniform[TRIES:-2]).exp()
        tall, wide = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()  # (TRIES, B)
        fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
        first = fits.int().argmax(0, keepdim=True)  # the first that fits
        found, middle = fits.any(0), self._middle(height, width, narrow, broad)
        tall, wide = (torch.where(found, sides.gather(0, first)[0], side)
                      for sides, side in ((tall, middle[0]), (wide, middle[1])))  # fmt: skip
        top = torch.where(found, uniform[-2] * (height - tall + 1), (height - tall) / 2)
        left = torch.where(found, uniform[-1] * (width - wide + 1), (width - wide) / 2)
        return Window(top.long(), left.long(), tall.long(), wide.long())

    @staticmethod
    def _middle(height: int, width: int, narrow: float, broad: float) -> tuple[int, int]:
        """Sides of the window where none fits; bounds of the aspect as logarithms."""
        aspect = math.log(width / height)
        if aspect < narrow:
            return round(width / math.exp(narrow)), width
        if aspect > broad:
            return height, round(height * math.exp(broad))
        return height, width


def crop(images: Tensor, window: Window, filter: Literal["bilinear", "bicubic"]) -> Tensor:
    """(B, C, H, W) uint8: the window of each of `images` (B, C, H, W) uint8, resized to H x W."""
    batch, channels, height, width = images.shape
    columns, unit = _weights(window.left, window.width, width, filter)
    wide = _bytes(images.float().view(batch, channels * height, width) @ columns.transpose(1, 2), unit)
    lines = wide.view(batch, channels, height, width).transpose(1, 2).reshape(batch, height, channels * width)
    rows, unit = _weights(window.top, window.height, height, filter)
    done = _bytes(rows @ lines, unit).view(batch, height, channels, width)
    return done.transpose(1, 2).to(torch.uint8, memory_format=torch.contiguous_format)


def _weights(start: Tensor, length: Tensor, size: int, filter: Literal["bilinear", "bicubic"]) -> tuple[Tensor, Tensor]:
    """What each pixel of a line gives to each of its resized window: whole numbers, and the one that stands for 1.

    Returns (B, size, size) float32, rows summing to about the unit, and the units (B, 1, 1) float32, powers of 2.
    """
    pixel = torch.arange(size, device=start.device)
    first, last = start[:, None, None], (start + length)[:, None, None]
    centre = first + (pixel[:, None] + 0.5) * (length.double()[:, None, None] / size)  # (B, size, 1)
    share = (_triangle if filter == "bilinear" else _cubic)((pixel + 0.5 - centre).abs())
    share = torch.where((pixel >= first) & (pixel < last), share, 0.0)
    share = share / share.sum(-1, keepdim=True)
    most = share.amax(dim=(1, 2), keepdim=True)
    unit = torch.exp2(((2**15 - 0.5) / most).log2().ceil() - 1)  # the largest whose weights fit 16 bits
    return (share * unit + 0.5 * share.sign()).trunc().float(), unit.float()


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance).clamp(min=0)


def _cubic(distance: Tensor) -> Tensor:
    """R. Keys' kernel with a = -1/2, as Pillow has it."""
    near = (1.5 * distance - 2.5) * distance.square() + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))


def _bytes(sums: Tensor, unit: Tensor) -> Tensor:
    """Whole numbers 0 .. 255, halves rounded up, as float32."""
    return (sums / unit + 0.5).floor_().clamp_(0, 255)
