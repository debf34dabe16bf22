"""blur.py: defocus, glass, motion, zoom and gaussian blur.

D. Hendrycks, T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019,
arXiv 1903.12261. Every sum over pixels is float64: after the snap of `pixels.truncated` nothing is left of a rounding
that depends on the batch. Reproduced quirks: glass blur's "swap" copies one way; motion blur is ImageMagick's, a
one-sided kernel on integer offsets whose sum is quantised to 16 bits and then cut (not rounded) to 8; zoom blur counts
the image itself twice; the discs of defocus blur are rounded to float32. Batched forms: glass blur resolves all its
copies as one index map, zoom blur is one sparse matrix over pixels, defocus blur a product of Fourier transforms.
Deliberate difference: rectangles are zoomed by the same factors along both sides, where squares alone were published.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
import scipy.sparse
import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn.functional import embedding_bag

from mixcli.corruptions.keyed import Stream
from mixcli.corruptions.pixels import (
    HALF,
    Corruption,
    Draws,
    Size,
    banded,
    from_planes,
    gaussian_taps,
    planes,
    truncated,
)

BAND = 8  # rows of the matrix of a Gaussian blur that are multiplied at once
NEGLIGIBLE = 1e-12  # lighter weights of motion blur are left out; at 1e-7 one byte in 100,000 would change


def gaussian(images: Tensor, sigma: float, draws: Draws) -> Tensor:
    """A Gaussian of `sigma` px cut at 4 sigma, edges replicated; no draws.

    The images are the last axis, so that a few bands of rows, and then of columns, are large products.
    """
    batch, height, width, _ = images.shape
    values = images.flatten(1).T.contiguous().double().view(height, -1)  # (H, W C B), grey levels
    rows = torch.empty_like(values)
    for band in _bands(sigma, height, images.device):
        torch.mm(band.weights, values[band.inputs], out=rows[band.outputs])
    lines = rows.view(height, width, -1)
    found = torch.empty(lines.shape, dtype=torch.uint8, device=images.device)
    snap = values.new_full((), HALF)  # that of `truncated`; there is nothing to clip
    for band in _bands(sigma, width, images.device):
        found[:, band.outputs] = snap.baddbmm(band.weights.expand(height, -1, -1), lines[:, band.inputs])
    return found.view(-1, batch).T.contiguous().view(images.shape)


@dataclass(frozen=True)
class Band:
    """Some rows of a banded matrix, without the zeros on both sides."""

    outputs: slice
    inputs: slice
    weights: Tensor


@lru_cache(maxsize=256)
def _bands(sigma: float, size: int, device: torch.device) -> tuple[Band, ...]:
    """The Gaussian blur of one axis, `BAND` rows at a time."""
    matrix, bands = banded(gaussian_taps(sigma), size, "edge"), []
    for first in range(0, size, BAND):
        rows = matrix[first : first + BAND]
        used = np.flatnonzero(rows.any(0))
        inputs = slice(int(used[0]), int(used[-1]) + 1)
        weights = torch.from_numpy(rows[:, inputs].copy()).to(device)
        bands.append(Band(slice(first, first + len(rows)), inputs, weights))
    return tuple(bands)


# ---- glass ----


def _offsets(parameters: tuple[float, int, int], size: Size, stream: Stream) -> Draws:
    _, delta, iterations = parameters
    shape = (iterations, size[0] - 2 * delta, size[1] - 2 * delta, 2)
    return {"offset": stream.integers("offset", shape, -delta, delta)}


def glass(images: Tensor, parameters: tuple[float, int, int], draws: Draws) -> Tensor:
    """Gaussian blur, every pixel replaced by a neighbour again and again, Gaussian blur; 8 bits after each blur.

    parameters  (sigma, delta, iterations)
    draws       "offset" (B, iterations, H - 2 delta, W - 2 delta, 2): dy and dx in -delta .. delta - 1, in the order of
                visits: row H - delta first and row delta + 1 last, columns likewise
    """
    sigma, delta, _ = parameters
    source = shuffled(draws["offset"], delta, images.shape[1], images.shape[2])
    blurred = _blurred(images, sigma).flatten(1, 2)
    moved = blurred.gather(1, source[..., None].expand(-1, -1, images.shape[3]))
    return _blurred(moved.view(images.shape), sigma)


def _blurred(images: Tensor, sigma: float) -> Tensor:
    return gaussian(images, sigma, {}) if len(gaussian_taps(sigma)) > 1 else images


def shuffled(offsets: Tensor, delta: int, height: int, width: int) -> Tensor:
    """(B, iterations, h, w, 2) offsets -> (B, H W) int64: the flat index of the pixel that each pixel ends up with."""
    place = torch.arange(height * width, device=offsets.device).expand(len(offsets), -1)
    for sweep in offsets.unbind(1):
        place = place.gather(1, _one_sweep(sweep, delta, height, width))
    return place


def _one_sweep(offsets: Tensor, delta: int, height: int, width: int) -> Tensor:
    """One sweep over the image: (B, h, w, 2) -> (B, H W) int64, the pixel of the image before it that each one gets.

    A pixel takes its neighbour's *present* value: what the neighbour took, if it was visited before (it lies later in
    reading order), else the original. With delta = 1 no neighbour was visited before.
    """
    here = torch.arange(height * width, device=offsets.device)
    taken = here.view(height, width).repeat(len(offsets), 1, 1)
    taken[:, delta + 1 : height - delta + 1, delta + 1 : width - delta + 1] += (
        offsets[..., 0] * width + offsets[..., 1]
    ).flip(1, 2)
    taken = taken.view(-1, height * width)
    return taken if delta == 1 else _followed(taken, taken > here)


def _followed(taken: Tensor, copied: Tensor) -> Tensor:
    """Chains of copies (B, n) followed to their originals; `copied` says whose source may itself be a copy.

    Doubling: after k rounds every chain has advanced 2^k copies, so the rounds are the logarithm of the longest chain.
    """
    while copied.any():
        taken, copied = taken.gather(1, taken).where(copied, taken), copied & copied.gather(1, taken)
    return taken


# ---- defocus ----


def defocus(images: Tensor, parameters: tuple[float, float], draws: Draws) -> Tensor:
    """Correlation with a softened disc of `parameters` = (radius, sigma of the softening); edges mirrored; no draws."""
    kernel = disc(*parameters)
    height, width = images.shape[1:3]
    edge = len(kernel) // 2
    padded = planes(images)[:, :, _mirrored(height, edge)][..., _mirrored(width, edge)]
    shape = [next_fast_len(side + 2 * edge, real=True) for side in (height, width)]
    response = torch.fft.rfft2(torch.from_numpy(kernel).to(images.device), s=shape)
    values = torch.fft.irfft2(torch.fft.rfft2(padded, s=shape).mul_(response), s=shape)
    first = 2 * edge  # the first place where no product wraps around
    return from_planes(values[..., first : first + height, first : first + width])


@lru_cache(maxsize=16)
def disc(radius: float, sigma: float) -> np.ndarray:
    """(k, k) float64: the integer points within `radius`, smoothed by 3 x 3 Gaussian taps, 5 x 5 if radius > 8.

    Rounded to float32 after every step, as published: the sum of the kernel then differs from 1 in the eighth digit,
    and truncation makes a grey level of it wherever the exact result is an integer.
    """
    reach, width = (8, 3) if radius <= 8 else (int(radius), 5)
    axis = np.arange(-reach, reach + 1)
    points = (axis[:, None] ** 2 + axis**2 <= radius**2).astype(float)
    weights = np.exp(-0.5 * (np.arange(-(width // 2), width // 2 + 1) / sigma) ** 2)
    soften = banded(_single(weights / weights.sum()), len(axis), "reflect")
    kernel = _single(soften @ _single(_single(points / points.sum()) @ soften.T))
    used = int(np.abs(axis[kernel.max(0) > 1e-15]).max())
    return kernel[reach - used : reach + used + 1, reach - used : reach + used + 1]


def _single(values: np.ndarray) -> np.ndarray:
    """float64 numbers rounded to float32."""
    return values.astype(np.float32).astype(np.float64)


def _mirrored(size: int, edge: int) -> np.ndarray:
    return np.pad(np.arange(size), edge, mode="reflect")


# ---- motion ----


def _angle(parameters: tuple[float, float], size: Size, stream: Stream) -> Draws:
    return {"angle": stream.uniform("angle", (), -45, 45)}


def motion(images: Tensor, parameters: tuple[float, float], draws: Draws) -> Tensor:
    """`motion_blurred` with `parameters` = (radius, sigma); draws: "angle" (B,) degrees in -45 .. 45."""
    return motion_blurred(images, *parameters, draws["angle"])


def motion_blurred(images: Tensor, radius: float, sigma: float, angle: Tensor) -> Tensor:
    """ImageMagick's motion blur of (B, H, W, C) uint8, one angle (B,) in degrees for each image.

    The mean of 2 ceil(radius) + 1 pixels along a ray, the pixel itself first, weighted by half a Gaussian; the i-th
    lies ceil(i cos - 1/2) columns to the right and ceil(i sin - 1/2) rows down, edges replicated.
    """
    weights = np.exp(-0.5 * (np.arange(2 * ceil(radius) + 1) / sigma) ** 2)
    weights = weights[weights / weights.sum() >= NEGLIGIBLE] / weights.sum()
    windows, first = _windows(images, len(weights) - 1, angle)
    shares = torch.from_numpy(weights).to(images.device).expand(first.shape)
    total = embedding_bag(first, windows, per_sample_weights=shares, mode="sum")
    # 16 bits: floor(257 total + 1/2); 8 bits: floor of that / 257. Both floors in one.
    return total.add_(0.5 / 257).clamp_(0, 255).to(torch.uint8).view(images.shape)


def _windows(images: Tensor, reach: int, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Every run of W pixels of the images, and which of them lie on the ray of each row, tap by tap.

    Returns (n, W C) float64, an overlapping view of the images with their rows lengthened by `reach` pixels at both
    ends; and (B H, reach + 1) int64, the number of the run that a row meets at each step along its ray.
    """
    batch, height, width, channels = images.shape
    radians, taps = angle.double().deg2rad()[:, None], torch.arange(reach + 1, device=images.device)
    down, across = ((taps * part - 0.5).ceil().long() for part in (radians.sin(), radians.cos()))  # (B, taps)
    row = (torch.arange(height, device=images.device)[:, None] + down[:, None]).clamp_(0, height - 1)
    image = torch.arange(batch, device=images.device)[:, None, None] * height
    long = torch.empty((batch, height, width + 2 * reach, channels), dtype=torch.float64, device=images.device)
    long[:, :, reach : reach + width] = images
    long[:, :, :reach], long[:, :, reach + width :] = images[:, :, :1], images[:, :, -1:]
    runs = long.view(-1).as_strided((long.numel() // channels - width + 1, width * channels), (channels, 1))
    return runs, ((image + row) * (width + 2 * reach) + (across + reach)[:, None]).flatten(0, 1)


# ---- zoom ----


def zoom(images: Tensor, parameters: tuple[float, int], draws: Draws) -> Tensor:
    """The mean of the image and its zooms by 1, 1 + step, ...; `parameters` = (step, count of zooms); no draws."""
    batch, height, width, channels = images.shape
    values = images.flatten(1, 2).transpose(0, 1).to(torch.float64, memory_format=torch.contiguous_format)
    mixed = torch.sparse.mm(_zooms(*parameters, height, width, images.device), values.view(height * width, -1))
    return truncated(mixed, white=255).view(-1, batch, channels).transpose(0, 1).reshape(images.shape)


@lru_cache(maxsize=8)
def _zooms(step: float, count: int, height: int, width: int, device: torch.device) -> Tensor:
    """(H W, H W) sparse float64 matrix of zoom blur; a row has some 5 to 40 entries, fewer than there are zooms."""
    total = scipy.sparse.csr_array(scipy.sparse.eye_array(height * width))
    exact_step = (1 + step) - 1  # as the published factors were counted up: 26 x 1.25 is then above 32.5, not on it
    for k in range(count):
        rows, columns = zoomed(height, 1 + exact_step * k), zoomed(width, 1 + exact_step * k)
        total = total + scipy.sparse.kron(scipy.sparse.csr_array(rows), scipy.sparse.csr_array(columns), format="csr")
    mean = scipy.sparse.coo_array(total / (count + 1))
    places = torch.from_numpy(np.stack(mean.coords).astype(np.int64))
    return torch.sparse_coo_tensor(
        places, torch.from_numpy(mean.data), mean.shape, device=device, is_coalesced=True, check_invariants=False
    )


@lru_cache(maxsize=256)
def zoomed(size: int, factor: float) -> np.ndarray:
    """(size, size) float64 matrix of one axis of a central zoom.

    The middle ceil(size / factor) pixels are stretched linearly to round(factor times as many), ends on ends, and the
    middle of these is kept.
    """
    kept = ceil(size / factor)
    long = round(kept * factor)
    place = (np.arange(size) + (long - size) // 2) * (kept - 1) / max(long - 1, 1)
    below = np.minimum(np.floor(place).astype(int), max(kept - 2, 0))
    share, first = place - below, (size - kept) // 2
    matrix = np.zeros((size, size))
    row = np.arange(size)
    matrix[row, first + below] = 1 - share
    matrix[row, np.minimum(first + below + 1, size - 1)] += share
    return matrix


CORRUPTIONS = {
    "defocus_blur": Corruption("blur", defocus),
    "glass_blur": Corruption("blur", glass, _offsets),
    "motion_blur": Corruption("blur", motion, _angle),
    "zoom_blur": Corruption("blur", zoom),
    "gaussian_blur": Corruption("blur", gaussian),
}
