"""operations.py: RandAugment and TrivialAugment, whole batches at a time.

RandAugment (Cubuk et al. 2020, arXiv 1909.13719): `count` operations in turn, each uniform among 14, at one magnitude
of 31. TrivialAugment, wide (Müller and Hutter 2021, arXiv 2103.10158): one operation at a uniform magnitude. Names,
magnitudes, signs and pixels are torchvision's, whose loop over images is the oracle of the tests: nearest neighbour,
black where nothing is, grey values cut off after the point.

Draw first, apply later: which operation meets which image is drawn on the host, so that the images of an operation are
gathered without asking the device. The five geometric operations are one warp with a matrix per image; Equalize alone
is torchvision's own kernel, which has no magnitude. At degree d an operation that was drawn is applied with
probability d; torchvision knows only 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from mixcli.sampling import Random, below

LEVELS = 31  # magnitudes of an operation, from none to most
SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")
NAMES = ("Identity", *SIGNED, "Posterize", "Solarize", "AutoContrast", "Equalize")
WARPS = SIGNED[:5]

Space = Literal["randaugment", "trivialaugment"]


@lru_cache(maxsize=16)
def magnitudes(space: Space, size: tuple[int, int]) -> np.ndarray:
    """(14, 31) float64: the magnitudes of each operation of `NAMES` for images of `size` (H, W); 0 where it has none.

    Shears as slopes, translations in pixels, rotation in degrees, then what is added to a factor of 1, bits kept, and
    the threshold as a share of white. In float32 steps, as torchvision has them.
    """
    wide = space == "trivialaugment"
    shift = (32.0, 32.0) if wide else (150 / 331 * size[1], 150 / 331 * size[0])
    slope, angle, factor, lost = (0.99, 135.0, 0.99, 6) if wide else (0.3, 30.0, 0.9, 4)
    signed = [torch.linspace(0.0, most, LEVELS) for most in (slope, slope, *shift, angle, *(factor,) * 4)]
    bits, none = (8 - torch.arange(LEVELS) / ((LEVELS - 1) / lost)).round(), torch.zeros(LEVELS)
    return torch.stack([none, *signed, bits, torch.linspace(1.0, 0.0, LEVELS), none, none]).double().numpy()


@dataclass(frozen=True)
class Turn:
    """One operation for each image of a batch; tensors on the device.

    order      (B,) int64: the images sorted by operation
    back       (B,) int64: where each image lies in that order
    groups     the operations in that order, the warps as one, and of how many images
    magnitude  (B,) float64, in that order
    matrix     (W, 2, 3) float32: of the warped ones, from the output's pixels to the input's, the centre being (0, 0)
    """

    order: Tensor
    back: Tensor
    groups: tuple[tuple[str, int], ...]
    magnitude: Tensor
    matrix: Tensor


@dataclass(frozen=True)
class Operations:
    """What is drawn: the space of operations, how many in turn, and RandAugment's magnitude, 0 .. 30."""

    space: Space
    count: int = 1
    magnitude: int = 9

    def draw(self, batch: int, size: tuple[int, int], degree: float, random: Random) -> tuple[Turn, ...]:
        """The operations of `batch` images of `size` (H, W) at a strength; at 0 there are none.

        random  a stream of their own, on the training device
        """
        if degree == 0:
            return ()
        host, table = random.host, magnitudes(self.space, size)
        turns = []
        for _ in range(self.count):
            kind, drawn = below(host, len(NAMES), (batch,)), below(host, LEVELS, (batch,))
            sign, applied = host.random(batch), host.random(batch) < degree
            level = drawn if self.space == "trivialaugment" else np.full(batch, self.magnitude)
            amount = table[kind, level] * np.where((sign < 0.5) & (kind <= len(SIGNED)), -1, 1)
            turns.append(_turn(np.where(applied, kind, 0), amount, size, random))
        return tuple(turns)


def _turn(kind: np.ndarray, amount: np.ndarray, size: tuple[int, int], random: Random) -> Turn:
    """A turn in which image i meets operation `kind[i]` of `NAMES` by `amount[i]`."""
    order = np.argsort(kind, kind="stable")
    kind, amount = kind[order], amount[order]
    groups = [("Identity", int((kind == 0).sum())), ("warp", int(((kind > 0) & (kind <= len(WARPS))).sum()))]
    groups += [(name, int((kind == k).sum())) for k, name in enumerate(NAMES) if k > len(WARPS)]
    first, warped = groups[0][1], groups[1][1]
    matrix = _matrices(kind[first : first + warped], amount[first : first + warped], size).astype(np.float32)
    moved = random.carry(order, np.argsort(order), amount, matrix)
    return Turn(moved[0], moved[1], tuple(group for group in groups if group[1]), moved[2], moved[3])


def _matrices(kind: np.ndarray, amount: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(W, 2, 3) float64: the inverse maps of warps. Shears keep the top left corner, rotations the centre."""

    def of(name: str) -> np.ndarray:
        return np.where(kind == NAMES.index(name), amount, 0.0)

    height, width = size
    slope_x, slope_y, turn = of("ShearX"), of("ShearY"), np.radians(-(of("Rotate") % 360))
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, sin + slope_x, -np.trunc(of("TranslateX")) + slope_x * height / 2],
                       [slope_y - sin, cos, -np.trunc(of("TranslateY")) + slope_y * width / 2]])  # fmt: skip
    return np.moveaxis(matrix, -1, 0)


def applied(images: Tensor, turn: Turn) -> Tensor:
    """`images` (B, C, H, W) uint8, of 1 or 3 channels, after the operations of a turn."""
    counts = [count for _, count in turn.groups]
    parts = zip(
        turn.groups, images.index_select(0, turn.order).split(counts), turn.magnitude.split(counts), strict=True
    )
    done = [
        warped(part, turn.matrix) if name == "warp" else OPERATIONS[name](part, amount.view(-1, 1, 1, 1))
        for (name, _), part, amount in parts
    ]
    return torch.cat(done).index_select(0, turn.back)


# ------------------------------------------------- operations: (b, C, H, W) uint8, (b, 1, 1, 1) float64 -> (b, C, H, W)


def warped(images: Tensor, matrix: Tensor) -> Tensor:
    """Each image seen through its map (b, 2, 3), nearest neighbour, black outside."""
    height, width = images.shape[2:]
    x, y = (torch.linspace((1.0 - n) * 0.5, (n - 1.0) * 0.5, n, device=images.device) for n in (width, height))
    places = torch.ones(height, width, 3, device=images.device)
    places[..., 0], places[..., 1] = x, y[:, None]
    half = torch.stack([x.new_full((), 0.5 * width), x.new_full((), 0.5 * height)])
    grid = places.view(1, -1, 3).expand(len(images), -1, -1).bmm(matrix.transpose(1, 2) / half)
    seen = grid_sample(images.float(), grid.view(-1, height, width, 2), mode="nearest", align_corners=False)
    return seen.round_().to(torch.uint8)


def _same(images: Tensor, amount: Tensor) -> Tensor:
    return images


def _brightness(images: Tensor, amount: Tensor) -> Tensor:
    return _grey_values(images * (1 + amount).float())


def _color(images: Tensor, amount: Tensor) -> Tensor:
    return images if images.shape[1] == 1 else _blended(images, _grey(images), amount)


def _contrast(images: Tensor, amount: Tensor) -> Tensor:
    return _blended(images, _grey(images).mean(dim=(1, 2, 3), keepdim=True), amount)


def _sharpness(images: Tensor, amount: Tensor) -> Tensor:
    """Against a 3 x 3 mean whose middle weighs five times; the border stays."""
    if min(images.shape[2:]) <= 2:
        return images
    sharp = images.float()
    inside = sharp[:, :, 1:-1, 1:-1]
    smooth = ((9 * avg_pool2d(sharp, 3, stride=1) + 4 * inside) / 13).round_()
    inside.addcmul_((-amount).float(), smooth.sub_(inside))
    return _grey_values(sharp)


def _posterized(images: Tensor, amount: Tensor) -> Tensor:
    lost = (8 - amount).to(torch.uint8)
    return (images >> lost) << lost


def _solarized(images: Tensor, amount: Tensor) -> Tensor:
    return torch.where(images >= (255 * amount).float(), 255 - images, images)


def _autocontrast(images: Tensor, amount: Tensor) -> Tensor:
    """Each channel stretched to the whole range, unless it is flat."""
    values = images.float()
    low, high = values.amin(dim=(2, 3), keepdim=True), values.amax(dim=(2, 3), keepdim=True)
    flat = low == high
    stretch = torch.where(flat, 1.0, (high - low) * (1.0 / 255.0))
    return _grey_values((values - torch.where(flat, 0.0, low)) / stretch)


def _equalized(images: Tensor, amount: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional

    return functional.equalize(images)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Identity": _same, "Brightness": _brightness, "Color": _color, "Contrast": _contrast, "Sharpness": _sharpness,
    "Posterize": _posterized, "Solarize": _solarized, "AutoContrast": _autocontrast, "Equalize": _equalized,
}  # fmt: skip


def _blended(images: Tensor, other: Tensor, amount: Tensor) -> Tensor:
    """(1 + amount) of the image and -amount of the other."""
    return _grey_values(torch.addcmul(images * (1 + amount).float(), (-amount).float(), other))


def _grey(images: Tensor) -> Tensor:
    """(b, 1, H, W) float32: whole grey values."""
    if images.shape[1] == 1:
        return images.float()
    red, green, blue = images.unbind(1)
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_().unsqueeze(1)


def _grey_values(images: Tensor) -> Tensor:
    return images.clamp_(0, 255).to(torch.uint8)
