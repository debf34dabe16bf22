"""jpeg_integers.py: a JPEG file's pixels without the file, in batched arithmetic: the bytes of Pillow on any device.

Baseline JPEG as libjpeg writes and reads it by default: fixed-point colour, 4:2:0 by means of 2 x 2 pixels whose
rounding alternates, the "slow" integer DCT of C. Loeffler, A. Ligtenberg, G. Moschytz 1989 with 13-bit constants,
the tables of ITU-T T.81 annex K scaled by the quality, and chroma enlarged by a triangle. What is coded without loss
in between changes nothing and is left out. Every number is an integer below 2^53, held in float64: products of
matrices are exact in any order, and so every device and every batch gives the same bytes.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

CONSTANT_BITS, FIRST_BITS = 13, 2  # of the DCT's constants, and kept between its two passes
HALF = 2**15  # of the 16 bits that colour weights have
SIDE = 8  # of a block
LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *((99,) * 8,) * 4,
)  # fmt: skip
TO_YCC = ((0.29900, 0.58700, 0.11400), (-0.16874, -0.33126, 0.50000), (0.50000, -0.41869, -0.08131))


def through_jpeg(images: Tensor, quality: int) -> Tensor:
    """(B, H, W, C) uint8 as they come back from a JPEG file of a quality 1 .. 100; 3 channels, or 1."""
    height, width, channels = images.shape[1:]
    planes = images.permute(3, 0, 1, 2).double()  # (C, B, H, W)
    if channels == 1:
        return _brightness(planes[0], quality)[:, :height, :width, None].to(torch.uint8)
    y, cb, cr = _ycc(planes)
    y = _brightness(y, quality)[:, :height, :width]
    cb, cr = (_colour(plane, quality)[:, :height, :width] for plane in (cb, cr))
    return _rgb(y, cb - 128, cr - 128).to(torch.uint8)


def _brightness(plane: Tensor, quality: int) -> Tensor:
    return _coded(_extended(plane, _whole(plane.shape[1], SIDE), _whole(plane.shape[2], SIDE)), LUMA, quality)


def _colour(plane: Tensor, quality: int) -> Tensor:
    """Halved, coded, and enlarged again; rows are extended after they are halved, columns before."""
    height, width = plane.shape[1:]
    plane = _extended(plane, _whole(height, 2), _whole(width, 2 * SIDE))
    total = plane[:, ::2] + plane[:, 1::2]
    total = total[:, :, ::2] + total[:, :, 1::2]
    bias = 1 + torch.arange(total.shape[2], device=plane.device) % 2
    small = ((total + bias) / 4).floor()
    coded = _coded(_extended(small, _whole(small.shape[1], SIDE), small.shape[2]), CHROMA, quality)
    return _enlarged(coded[:, : -(-height // 2), : -(-width // 2)])


def _enlarged(plane: Tensor) -> Tensor:
    """Twice the side: three parts of the nearest pixel and one of the next nearest, first down, then across."""
    sums = [3 * plane + _shifted(plane, 1, step) for step in (-1, 1)]
    rows = torch.stack(sums, 2).flatten(1, 2)
    parts = [3 * rows + _shifted(rows, 2, step) + rounding for step, rounding in ((-1, 8), (1, 7))]
    return (torch.stack(parts, 3).flatten(2, 3) / 16).floor()


def _shifted(plane: Tensor, axis: int, step: int) -> Tensor:
    """The neighbour of each pixel along an axis; at the border the pixel itself."""
    places = torch.arange(plane.shape[axis], device=plane.device)
    return plane.index_select(axis, (places + step).clamp_(0, len(places) - 1))


def _extended(plane: Tensor, height: int, width: int) -> Tensor:
    """The last row and the last column repeated."""
    for axis, size in ((1, height), (2, width)):
        places = torch.arange(size, device=plane.device).clamp_(max=plane.shape[axis] - 1)
        plane = plane.index_select(axis, places)
    return plane


def _whole(length: int, unit: int) -> int:
    return -(-length // unit) * unit


# ---- blocks ----


def _coded(plane: Tensor, table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """(B, h, w), sides multiples of 8: transformed, quantised, and back."""
    forward, steps = _dct(plane.device), _steps(table, quality, plane.device)
    blocks = (plane - 128).unflatten(2, (-1, SIDE)).unflatten(1, (-1, SIDE)).transpose(2, 3)  # (B, ., ., 8, 8)
    across = _descaled(blocks @ forward.T, CONSTANT_BITS - FIRST_BITS)
    values = _descaled(forward @ across, CONSTANT_BITS + FIRST_BITS)  # 8 times the coefficients
    levels = values.sign() * ((values.abs() + (4 * steps)) / (8 * steps)).floor()
    down = _descaled(forward.T @ (levels * steps), CONSTANT_BITS - FIRST_BITS)
    pixels = _descaled(down @ forward, CONSTANT_BITS + FIRST_BITS + 3) + 128
    return pixels.clamp_(0, 255).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _descaled(values: Tensor, bits: int) -> Tensor:
    """Divided by 2^bits, halves up."""
    return values.add_(2 ** (bits - 1)).mul_(2.0**-bits).floor_()


@lru_cache(maxsize=64)
def _steps(table: tuple[tuple[int, ...], ...], quality: int, device: torch.device) -> Tensor:
    """(8, 8) float64: the table at a quality, 50 being the table itself."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    scaled = (torch.tensor(table) * scale + 50).div(100, rounding_mode="floor").clamp(1, 255)
    return scaled.double().to(device)


@lru_cache(maxsize=8)
def _dct(device: torch.device) -> Tensor:
    """(8, 8) float64: the integer transform of 8 numbers as one matrix; its transpose is the inverse transform."""
    d = torch.eye(SIDE, dtype=torch.float64)  # each row the coefficients of one input
    sums, differences = [d[k] + d[7 - k] for k in range(4)], [d[k] - d[7 - k] for k in range(4)]
    even = [sums[0] + sums[3], sums[1] + sums[2], sums[1] - sums[2], sums[0] - sums[3]]
    turn = (even[2] + even[3]) * _fixed(0.541196100)
    a, b, c, e = differences[::-1]  # of the inner pair first
    z1, z2, z3, z4 = a + e, b + c, a + c, b + e
    z5 = (z3 + z4) * _fixed(1.175875602)
    z1, z2 = z1 * -_fixed(0.899976223), z2 * -_fixed(2.562915447)
    z3, z4 = z3 * -_fixed(1.961570560) + z5, z4 * -_fixed(0.390180644) + z5
    rows = [
        (even[0] + even[1]) * 2**CONSTANT_BITS, e * _fixed(1.501321110) + z1 + z4,
        turn + even[3] * _fixed(0.765366865), c * _fixed(3.072711026) + z2 + z3,
        (even[0] - even[1]) * 2**CONSTANT_BITS, b * _fixed(2.053119869) + z2 + z4,
        turn - even[2] * _fixed(1.847759065), a * _fixed(0.298631336) + z1 + z3,
    ]  # fmt: skip
    return torch.stack(rows).to(device)


def _fixed(value: float, bits: int = CONSTANT_BITS) -> int:
    return int(value * 2**bits + 0.5)


# ---- colour ----


def _ycc(planes: Tensor) -> tuple[Tensor, ...]:
    """Brightness and the two colour planes around 128, each (B, H, W), of (3, B, H, W)."""
    weights = [[_fixed(weight, 16) if weight > 0 else -_fixed(-weight, 16) for weight in row] for row in TO_YCC]
    total = torch.tensordot(torch.tensor(weights, dtype=torch.float64, device=planes.device), planes, 1)
    middle = (128 << 16) + HALF - 1
    offset = torch.tensor([HALF, middle, middle], dtype=torch.float64, device=planes.device)
    return total.add_(offset.view(3, 1, 1, 1)).mul_(2.0**-16).floor_().unbind()


def _rgb(y: Tensor, cb: Tensor, cr: Tensor) -> Tensor:
    """(B, H, W, 3) of brightness and colour around 0."""
    red = y + ((_fixed(1.40200, 16) * cr + HALF) / 2**16).floor()
    blue = y + ((_fixed(1.77200, 16) * cb + HALF) / 2**16).floor()
    green = y + ((-_fixed(0.71414, 16) * cr - _fixed(0.34414, 16) * cb + HALF) / 2**16).floor()
    return torch.stack((red, green, blue), 3).clamp_(0, 255)
