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
    with torch.autocast(random.device.type, enabled=False):  # half-precision FFTs take powers of two only
        field = FIELDS[settings.variant](settings, n, size, random)
    exact = share * pixels
    chance = exact % 1 if settings.variant == "paper" else np.where(exact % 1 > 0, 0.5, 0.0)
    kept = np.floor(exact) + (random.host.random(n) < chance)
    soft = np.minimum(settings.softness, np.minimum(share, 1 - share)) * pixels
    (numbers,) = random.carry(np.stack([kept, soft]))
    kept, soft = numbers.view(2, n, 1)
    keep = _highest(field.view(n, pixels), kept, soft, settings.softness > 0).view(n, 1, *size)
    return Masks(keep, share, "any" if settings.softness > 0 else "binary")


def _highest(field: Tensor, kept: Tensor, soft: Tensor, fades: bool) -> Tensor:
    """(n, pixels) float32: 1 at the `kept` highest values; ranks kept - soft .. kept + soft fall from 1 to 0."""
    if fades:
        rank = field.argsort(1, descending=True).argsort(1)
        return ((kept + soft - rank - 0.5) / (2 * soft).clamp(min=1e-9)).clamp(0, 1).float()
    edge = torch.where(kept > 0, _kth_highest(field, kept.long().clamp(min=1)), torch.inf)
    return field.ge_(edge)


def _kth_highest(field: Tensor, k: Tensor) -> Tensor:
    """(n, 1): of each row (n, pixels) its k-th highest value, k (n, 1) int64 from 1 on.

    On a CPU numpy's vector sort of whole rows is five times faster than any selection at hand, and PyTorch refuses to
    select on a GPU where deterministic algorithms are asked for.
    """
    if field.device.type == "cpu":
        return torch.from_numpy(np.sort(field.numpy(), axis=1)).gather(1, field.shape[1] - k)
    if torch.are_deterministic_algorithms_enabled():
        return field.sort(1).values.gather(1, field.shape[1] - k)
    return _selected(field, k)


def _selected(field: Tensor, k: Tensor) -> Tensor:
    """The same by one selection, which takes one k for all rows: each is padded until its k is the same."""
    pixels = field.shape[1]
    above = torch.arange(pixels, device=field.device) < pixels - k
    filled = torch.cat([field, torch.where(above, torch.inf, -torch.inf)], 1)
    return filled.kthvalue(pixels + 1, dim=1, keepdim=True).values


def _paper(settings: FMix, n: int, size: tuple[int, int], random: Random) -> Tensor:
    """(n, H, W): real and imaginary part are independent fields, so each complex draw serves two masks."""
    amplitude, down, across = _spectrum(size, settings.decay, random.device)
    noise = random.field((-(-n // 2), *amplitude.shape), "normal")
    rows = (noise * amplitude @ across).view(
        len(noise), -1, size[1]
    )  # the inverse DFT as two products of real matrices
    return (down @ rows).view(-1, *size)[:n]


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
def _spectrum(size: tuple[int, int], decay: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The amplitudes f^-decay (h, 2w) of the w by h frequencies that matter, and their waves (2H, 2h) and (2w, 2W).

    A complex number is two neighbours in a row, a complex wave a rotation of two of them; the result's real parts come
    first. Left out are the highest frequencies, as many as together hold less than `NEGLIGIBLE` of the variance.
    """
    fy, fx = np.fft.fftfreq(size[0]), np.fft.fftfreq(size[1])
    amplitude = (np.maximum(np.hypot(fy[:, None], fx[None, :]), 1 / max(size)) * max(size)) ** -decay
    power = amplitude**2
    power[0, 0] = 0  # a constant moves no threshold
    for limit in np.unique(np.abs(np.concatenate([fy, fx]))):
        rows, columns = np.abs(fy) <= limit, np.abs(fx) <= limit
        if power[rows][:, columns].sum() >= (1 - NEGLIGIBLE) * power.sum():
            break
    y, x = (2 * np.pi * np.outer(f, np.arange(side)) for f, side in ((fy[rows], size[0]), (fx[columns], size[1])))
    kept = np.repeat(amplitude[rows][:, columns], 2, 1), _rotations(y).T, _rotations(x)
    amplitude, down, across = (torch.from_numpy(a.astype(np.float32)).to(device) for a in kept)
    return amplitude, down, across


def _rotations(angle: np.ndarray) -> np.ndarray:
    """(2w, 2W) out of (w, W): what e^(i angle) does to a complex number, its parts being two neighbouring rows."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.hstack([cos, sin]), np.hstack([-sin, cos])], 1).reshape(2 * len(angle), -1)


FIELDS = {"paper": _paper, "reference": _reference}
