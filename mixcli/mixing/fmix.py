"""fmix.py: FMix, regions cut out of low-frequency noise.

E. Harris, A. Marcu, M. Painter, M. Niranjan, A. Prugel-Bennett, J. Hare, "FMix: Enhancing Mixed Sample Data
Augmentation", 2020, arXiv 2002.12047. Legend: lambda = `share`, delta = `decay`. The field is the real part of the
inverse DFT of complex Gaussian noise times f^-delta, f in cycles per pixel and at least 1 / max(H, W); the image itself
keeps the highest pixels.

`paper` (default) draws the noise on the full grid; a half spectrum with independent coefficients would lose half of the
power where kx = 0 and give masks that differ along the axes. The number of pixels kept is floor(lambda H W) plus a
Bernoulli draw of the rest, so the mask's mean is lambda on average.
`reference` repeats the published code, for re-runs of published numbers: there the noise has shape (H, W/2 + 1, 2)
and the first two of H are combined to a complex number where the last two were meant, so that no horizontal frequency
beyond 1 exists. It keeps ceil or floor, with equal odds, and takes even widths only.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from mixcli.errors import UserError
from mixcli.mix import Context, Mix
from mixcli.mixing import masked
from mixcli.mixing.masked import Masks
from mixcli.sampling import Random
from mixcli.settings import FMix

NEGLIGIBLE = 1e-4  # of a field's variance


def draw(settings: FMix, context: Context, random: Random) -> Mix:
    """Draws partners, ratios and fields. Raises UserError for an odd width under `variant = reference`."""
    return masked.draw(settings, context, random, masks)


def masks(settings: FMix, share: np.ndarray, size: tuple[int, int], random: Random) -> Masks:
    """Masks that keep `share` (n,) of the pixels; see `Masks`."""
    n, pixels = len(share), size[0] * size[1]
    with masked.full_precision(random.device):  # half-precision FFTs take powers of two only
        field = FIELDS[settings.variant](settings, n, size, random)
    exact = share * pixels
    chance = exact % 1 if settings.variant == "paper" else np.where(exact % 1 > 0, 0.5, 0.0)
    kept = exact.astype(np.int64) + (random.host.random(n) < chance)
    field = field.view(n, pixels)
    if settings.softness > 0:
        soft = np.minimum(settings.softness, np.minimum(share, 1 - share)) * pixels
        keep = _fading(field, *random.carry(kept[:, None], soft[:, None]))
    else:
        keep = _highest(field, kept, random)
    return Masks(keep.view(n, 1, *size), share, "any" if settings.softness > 0 else "binary")


def _fading(field: Tensor, kept: Tensor, soft: Tensor) -> Tensor:
    """(n, pixels) float32: the ranks kept - soft .. kept + soft, both (n, 1), fall from 1 to 0."""
    rank = field.argsort(1, descending=True).argsort(1)
    return ((kept + soft - rank - 0.5) / (2 * soft).clamp(min=1e-9)).clamp(0, 1).float()


def _highest(field: Tensor, kept: np.ndarray, random: Random) -> Tensor:
    """(n, pixels) float32, in the place of `field`: 1 at the `kept` (n,) int64 highest values, else 0."""
    none, lower = kept == 0, field.shape[1] - np.maximum(kept, 1)
    (rank,) = random.carry(lower[:, None])
    edge = _of_rank(field, rank)
    if none.any():
        (without,) = random.carry(none[:, None])
        edge.masked_fill_(without, torch.inf)
    return field.ge_(edge)


def _of_rank(field: Tensor, rank: Tensor) -> Tensor:
    """(n, 1): of each row (n, pixels) the value above so many others, rank (n, 1) int64 below pixels.

    On a CPU numpy's vector sort of whole rows is five times faster than any selection at hand, and PyTorch refuses to
    select on a GPU where deterministic algorithms are asked for.
    """
    if field.device.type == "cpu":
        return torch.from_numpy(np.sort(field.numpy(), axis=1)).gather(1, rank)
    if torch.are_deterministic_algorithms_enabled():
        return field.sort(1).values.gather(1, rank)
    return _selected(field, rank)


def _selected(field: Tensor, rank: Tensor) -> Tensor:
    """The same by one selection, which takes one rank for all rows: each is padded until its rank is the same."""
    pixels = field.shape[1]
    above = torch.arange(pixels, device=field.device) < rank
    filled = torch.cat([field, torch.where(above, torch.inf, -torch.inf)], 1)
    return filled.kthvalue(pixels + 1, dim=1, keepdim=True).values


def _paper(settings: FMix, n: int, size: tuple[int, int], random: Random) -> Tensor:
    """(n, H, W): waves weighed by real and independent normals, which is the law of the complex sum's real part."""
    amplitude, down, across = _waves(size, settings.decay, random.device)
    noise = random.field((n, *amplitude.shape), "normal").mul_(amplitude)
    rows = torch.mm(noise.flatten(0, 1), across).view(n, -1, size[1])
    return torch.bmm(down.expand(n, -1, -1), rows)


def _reference(settings: FMix, n: int, size: tuple[int, int], random: Random) -> Tensor:
    """(n, H, W) out of the published code's spectrum, its axes as they were mistaken."""
    height, width = size
    if width % 2:
        raise UserError(
            "config", "variant", "the published code takes even widths only", got=f"reference at {width} px"
        )
    noise = random.field((n, 2, width // 2 + 1, 2), "normal")  # its other rows of H are never used
    down = torch.fft.fftfreq(height, device=random.device)[:2, None]
    across = torch.fft.rfftfreq(width, device=random.device)[None, :]
    amplitude = (down**2 + across**2).sqrt().clamp(min=1 / max(size)) ** -settings.decay  # (2, W/2 + 1)
    scaled = noise * amplitude[:, :, None]
    spectrum = torch.complex(scaled[:, 0], scaled[:, 1])  # (n, W/2 + 1, 2): read as rows and columns of frequencies
    return torch.fft.irfft2(spectrum, s=size)


@lru_cache(maxsize=16)
def _waves(size: tuple[int, int], decay: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Amplitudes f^-decay (h, w) of the products of h waves along the height (H, h) and w along the width (w, W).

    Left out are the highest frequencies, as many as together hold less than `NEGLIGIBLE` of the variance, but never all
    along one side: pixels of a field that is constant there cannot be told apart by any threshold.
    """
    (fy, down), (fx, across) = (_cosines_and_sines(side) for side in size)
    amplitude = np.maximum(np.hypot(fy[:, None], fx[None, :]) * max(size), 1) ** -decay
    power = amplitude**2
    power[0, 0] = 0  # a constant moves no threshold
    lowest = 1 / min((side for side in size if side > 1), default=1)
    for limit in np.unique(np.concatenate([fy, fx])):
        rows, columns = fy <= limit, fx <= limit
        if limit >= lowest and power[rows][:, columns].sum() >= (1 - NEGLIGIBLE) * power.sum():
            break
    kept = amplitude[rows][:, columns], down[rows].T, across[columns]
    amplitude, down, across = (torch.from_numpy(a.astype(np.float32)).to(device) for a in kept)
    return amplitude, down, across


def _cosines_and_sines(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (side,) from 0 up, in cycles per pixel, and their waves (side, side) over the pixels.

    Orthogonal, of mean square 1: k and -k cycles are a cosine and a sine; without a partner are only the constant and,
    on an even side, the wave of two pixels.
    """
    cycles = (np.arange(side) + 1) // 2
    angle = 2 * np.pi * cycles[:, None] * np.arange(side) / side
    waves = np.where((np.arange(side) % 2 == 1)[:, None], np.cos(angle), np.sin(angle))
    waves[0] = 1
    alone = (cycles == 0) | (2 * cycles == side)
    return cycles / side, waves * np.where(alone, 1.0, np.sqrt(2))[:, None]


FIELDS = {"paper": _paper, "reference": _reference}
