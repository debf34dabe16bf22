"""fmix.py: FMix, regions cut out of low-frequency noise.

E. Harris, A. Marcu, M. Painter, M. Niranjan, A. Prugel-Bennett, J. Hare, "FMix: Enhancing Mixed Sample Data
Augmentation",
2020, arXiv 2002.12047. Legend: lambda = `share`, delta = `decay`. The field is the real part of the inverse DFT of
complex Gaussian noise times f^-delta, f in cycles per pixel and at least 1 / max(H, W); the image itself keeps the
highest pixels.

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
from mixcli.sampling import Random
from mixcli.settings import FMix


def draw(settings: FMix, context: Context, random: Random) -> Mix:
    """Draws partners, ratios and fields. Raises UserError for an odd width under `variant = reference`."""
    return masked.draw(settings, context, random, masks)


def masks(settings: FMix, share: np.ndarray, size: tuple[int, int], random: Random) -> tuple[Tensor, np.ndarray]:
    """Masks that keep `share` (n,) of the pixels; see `masked.Masks`."""
    n, pixels = len(share), size[0] * size[1]
    with torch.autocast(random.device.type, enabled=False):  # half-precision FFTs take powers of two only
        field = FIELDS[settings.variant](settings, n, size, random)
    exact = share * pixels
    chance = exact % 1 if settings.variant == "paper" else np.where(exact % 1 > 0, 0.5, 0.0)
    kept = np.floor(exact) + (random.host.random(n) < chance)
    soft = np.minimum(settings.softness, np.minimum(share, 1 - share)) * pixels
    (numbers,) = random.carry(np.stack([kept, soft]))
    kept, soft = numbers.view(2, n, 1)
    return _highest(field.view(n, pixels), kept, soft, settings.softness > 0).view(n, 1, *size), share


def _highest(field: Tensor, kept: Tensor, soft: Tensor, fades: bool) -> Tensor:
    """(n, pixels) float32: 1 at the `kept` highest values; ranks kept - soft .. kept + soft fall from 1 to 0."""
    if fades:
        rank = field.argsort(1, descending=True).argsort(1)
        return ((kept + soft - rank - 0.5) / (2 * soft).clamp(min=1e-9)).clamp(0, 1).float()
    ordered = field.sort(1, descending=True).values
    edge = ordered.gather(1, (kept.long() - 1).clamp(min=0))
    return ((field >= edge) & (kept > 0)).float()


def _paper(settings: FMix, n: int, size: tuple[int, int], random: Random) -> Tensor:
    """(n, H, W): real and imaginary part are independent fields, so each complex draw serves two masks."""
    noise = random.field((-(-n // 2), *size, 2), "normal")
    amplitude = _amplitude(size, settings.decay, random.device)
    field = torch.fft.ifft2(torch.view_as_complex(noise) * amplitude)
    return torch.view_as_real(field).permute(3, 0, 1, 2).reshape(-1, *size)[:n]


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
def _amplitude(size: tuple[int, int], decay: float, device: torch.device) -> Tensor:
    """(H, W): f^-decay on the full grid of frequencies."""
    down = torch.fft.fftfreq(size[0], device=device)[:, None]
    across = torch.fft.fftfreq(size[1], device=device)[None, :]
    return (down**2 + across**2).sqrt().clamp(min=1 / max(size)) ** -decay


FIELDS = {"paper": _paper, "reference": _reference}
