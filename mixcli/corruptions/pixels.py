"""pixels.py: the rules that all corruptions share: units, truncation to bytes, edges, and what a corruption is.

D. Hendrycks, T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019,
arXiv 1903.12261. Images are (B, H, W, C) uint8; sums over pixels are made in float64 on planes (B, C, H, W) of numbers
in [0, 1]; elementwise work may be float32, multiplied and added separately. Results are clipped, multiplied by 255 and
*truncated*: the benchmark's own rule, which moves a noisy image's mean by -0.58 grey levels. Deliberate difference:
values are snapped to a fine grid first, so that what is an integer in exact arithmetic does not fall to the one below
by a rounding error, which would differ between devices and batch sizes. The step is 2^-10 grey level for float32, and
2^-30 for float64: narrow blurs leave many values less than 2^-10 below an integer (at 32 px a step of 2^-10 turns 9 %
of the bytes of defocus blur 4 and 7 % of glass blur 2 into others than the published ones, one of 2^-30 turns none).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mixcli.corruptions.keyed import Stream

HALF = 2.0**-31  # of the step of the grid of float64, grey levels
Size = tuple[int, int, int]  # height, width, channels
Draws = dict[str, Tensor]  # name of a draw -> tensor whose first dimension is the batch
Parameters = Any  # one severity's number or tuple out of parameters.py
Edge = Literal["edge", "reflect", "symmetric"]  # numpy.pad's names: nearest, mirror without and with the edge repeated


def _no_draws(parameters: Parameters, size: Size, stream: Stream) -> Draws:
    return {}


@dataclass(frozen=True)
class Corruption:
    """One corruption: a pair of pure functions.

    family  "noise", "blur", "weather" or "digital"
    apply   (images (B, H, W, C) uint8, parameters, draws) -> uint8 of the same shape; images are not changed
    draw    (parameters, size, stream) -> every random tensor that `apply` reads, by name
    """

    family: Literal["noise", "blur", "weather", "digital"]
    apply: Callable[[Tensor, Parameters, Draws], Tensor]
    draw: Callable[[Parameters, Size, Stream], Draws] = _no_draws


def unit(images: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """uint8 of any shape -> `dtype` in [0, 1]."""
    return images.to(dtype).div_(255)


def truncated(values: Tensor, white: float = 1.0) -> Tensor:
    """Numbers where 1 / `white` of a unit is white -> uint8: clipped, snapped to the grid of their dtype, truncated.

    `white` is the value of white: 1 for numbers in [0, 1], 255 for grey levels. Rounding half up to a grid and then
    down to an integer is the floor of (value + half a step of the grid).
    """
    half = HALF if values.dtype == torch.float64 else 2.0**-11
    return values.mul(255 / white).add_(half).clamp_(0, 255).to(torch.uint8)


def planes(images: Tensor) -> Tensor:
    """(B, H, W, C) uint8 -> (B, C, H, W) float64 in [0, 1], contiguous."""
    return images.permute(0, 3, 1, 2).to(torch.float64, memory_format=torch.contiguous_format).div_(255)


def from_planes(values: Tensor) -> Tensor:
    """(B, C, H, W) floats in [0, 1] -> (B, H, W, C) uint8 by `truncated`."""
    return truncated(values).permute(0, 2, 3, 1).contiguous()


def filtered(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows (h, H), columns (w, W) on planes (..., H, W) -> (..., h, w): a separable linear map, edges included."""
    return rows @ (values @ columns.T)


def gaussian_taps(sigma: float, truncate: float = 4.0) -> np.ndarray:
    """(2 r + 1,) float64 normalised Gaussian weights, r = int(truncate sigma + 1/2); one tap where r = 0."""
    radius = int(truncate * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2) if radius else np.ones(1)
    return weights / weights.sum()


def banded(taps: np.ndarray, size: int, edge: Edge) -> np.ndarray:
    """(size, size) float64 matrix of the correlation with odd-length `taps`, its edge rule folded in."""
    radius = len(taps) // 2
    source = np.pad(np.arange(size), radius, mode=edge)
    matrix = np.zeros((size, size))
    for tap, weight in enumerate(taps):
        np.add.at(matrix, (np.arange(size), source[tap : tap + size]), weight)
    return matrix


@lru_cache(maxsize=256)
def gaussian_matrix(
    sigma: float, size: int, device: torch.device, edge: Edge = "edge", truncate: float = 4.0
) -> Tensor:
    """(size, size) float64: the Gaussian blur of one axis, for `filtered`."""
    return torch.from_numpy(banded(gaussian_taps(sigma, truncate), size, edge)).to(device)


def gaussian_blurred(values: Tensor, sigma: float, edge: Edge = "edge", truncate: float = 4.0) -> Tensor:
    """(..., H, W) float64 -> the same shape, blurred along both axes; radius 0 returns the values themselves."""
    if int(truncate * sigma + 0.5) == 0:
        return values
    height, width = values.shape[-2:]
    rows = gaussian_matrix(sigma, height, values.device, edge, truncate)
    return filtered(values, rows, gaussian_matrix(sigma, width, values.device, edge, truncate))
