"""agmix.py: GMix and AGMix, a Gaussian bump of whichever image is in the minority.

GMix: C. Park, S. Yun, S. Chun, "A Unified Analysis of Mixed Sample Data Augmentation", 2022, arXiv 2208.09913; the
formula as in the authors' code (naver-ai/hmix-gmix). AGMix: W. Liang, Y. Liang, J. Jia, "MiAMix", 2023, arXiv
2308.02804. Legend: lambda = share of the image itself, s = the minority's share, c = centre, q = covariance, theta =
angle.

    K_s(p) = exp(-pi sqrt(1 - q^2) d^2 / (s H W)),   d^2 = (p - c)^T S^-1 (p - c)
    S      = R(theta) [[1, q], [q, 1]] R(theta)^T
    keep   = K_lambda where lambda < 1/2, else 1 - K_(1 - lambda)

det S = 1 - q^2, so the root keeps the bump's mass at s H W, and only borders reduce it (`scale = area`, ours).
`gmix` leaves the root out; `sqrt_lambda_n`, of a public re-implementation, is keep = 1 - exp(-d^2 / (2 s H W)) with s
the partner's share and no minority rule. GMix is q = 0. The range of q is not published where we could read it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mixcli.mix import Context, Mix
from mixcli.mixing import masked
from mixcli.mixing.masked import Masks
from mixcli.sampling import Random
from mixcli.settings import AGMix, GMix

SMALLEST = 1e-6  # pixels: a smaller bump is its centre alone, and its exponents would overflow in float32
FARTHEST = -40.0  # e^-40 is nothing; where two such meet, numbers turn denormal, and a CPU takes ten times as long


def draw(settings: GMix, context: Context, random: Random) -> Mix:
    """Draws partners, ratios and bumps."""
    return masked.draw(settings, context, random, masks)


def masks(settings: GMix, share: np.ndarray, size: tuple[int, int], random: Random) -> Masks:
    """Bumps whose nominal share is `share` (n,) of the image itself; see `Masks`."""
    tilt, turn, scale = 0.0, 0.0, "gmix"
    if isinstance(settings, AGMix):
        tilt, turn, scale = settings.tilt, 2 * math.pi * settings.rotate, settings.scale
    u = random.host.random((4, len(share)))
    centre, q, theta = np.floor(u[:2] * [[size[0]], [size[1]]]), tilt * (2 * u[2] - 1), turn * u[3]
    own_in_bump = share < (0.5 if scale != "sqrt_lambda_n" else 0.0)
    mass = np.where(own_in_bump, share, 1 - share) * (size[0] * size[1])
    det = 1 - q * q
    factor = {"area": math.pi * np.sqrt(det), "gmix": math.pi, "sqrt_lambda_n": 0.5}[scale]
    squared = _adjugate(q, 2 * theta) * (factor / (det * np.maximum(mass, SMALLEST)))
    height = np.where(own_in_bump, 1.0, -1.0) * (mass > 0)  # a bump of no mass is no bump
    return Masks(_bumps(centre, squared, 1.0 - own_in_bump, height, size, random), share)


def _bumps(
    centre: np.ndarray, form: np.ndarray, base: np.ndarray, height: np.ndarray, size: tuple[int, int], random: Random
) -> Tensor:
    """(n, 1, H, W): base + height exp(-(p - centre)^T form (p - centre)).

    centre        (2, n), down and across
    form          (3, n): entries xx, xy, yy of a symmetric matrix
    base, height  (n,)
    """
    y, x, xx, xy, yy, base, height = np.array([*centre, *form, base, height], np.float32)[:, :, None, None, None]
    dy, dx = np.arange(size[0], dtype=np.float32)[:, None] - y, np.arange(size[1], dtype=np.float32) - x
    parts = -yy * dy * dy, -xx * dx * dx, dy, -2 * xy * dx, base, height
    along_y, along_x, down, across, least, rise = random.carry(*parts)
    exponent = torch.addcmul(along_y + along_x, down, across)
    return exponent.clamp_(min=FARTHEST).exp_().mul_(rise).add_(least)


def _adjugate(q: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """(3, n): entries xx, xy, yy of det(S) S^-1 = R(theta) [[1, -q], [-q, 1]] R(theta)^T; `angle` is 2 theta."""
    tilted = q * np.sin(angle)
    return np.array([1 + tilted, -q * np.cos(angle), 1 - tilted])
