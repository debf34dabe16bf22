"""agmix.py: GMix and AGMix, a Gaussian bump of whichever image is in the minority.

GMix: C. Park, S. Yun, S. Chun, "A Unified Analysis of Mixed Sample Data Augmentation", 2022, arXiv 2208.09913; the
formula as in the authors' code (naver-ai/hmix-gmix). AGMix: W. Liang, Y. Liang, J. Jia, "MiAMix", 2023, arXiv
2308.02804. Legend: lambda = share of the image itself, s = the minority's share, c = centre, q = covariance, theta =
angle.

    K_s(p) = exp(-pi sqrt(1 - q^2) d^2 / (s H W)),   d^2 = (p - c)^T S^-1 (p - c),   S = R(theta) [[1, q], [q, 1]]
    R(theta)^T keep = K_lambda where lambda < 1/2, else 1 - K_(1 - lambda)

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
from mixcli.sampling import Random
from mixcli.settings import AGMix, GMix


def draw(settings: GMix, context: Context, random: Random) -> Mix:
    """Draws partners, ratios and bumps."""
    return masked.draw(settings, context, random, masks)


def masks(settings: GMix, share: np.ndarray, size: tuple[int, int], random: Random) -> tuple[Tensor, np.ndarray]:
    """Bumps whose nominal share is `share` (n,) of the image itself; see `masked.Masks`."""
    rng, n = random.host, len(share)
    y, x = rng.integers(0, size[0], n), rng.integers(0, size[1], n)
    q, theta = np.zeros(n), np.zeros(n)
    scale = "gmix"
    if isinstance(settings, AGMix):
        q, theta = rng.uniform(-settings.tilt, settings.tilt, n), rng.uniform(0, 2 * math.pi, n)
        theta, scale = theta if settings.rotate else np.zeros(n), settings.scale
    own_in_bump = (share < 0.5) & (scale != "sqrt_lambda_n")
    mass = np.where(own_in_bump, share, 1 - share) * size[0] * size[1]
    factor = {"area": math.pi * np.sqrt(1 - q**2), "gmix": math.pi, "sqrt_lambda_n": 0.5}[scale]
    a, b, c = _inverse(q, theta)
    # A bump of no mass is no bump: its exponent is made large instead of dividing by zero.
    rate = np.where(mass > 0, factor / np.maximum(mass, 1e-30), 1e30)
    numbers = np.stack([y, x, a * rate, b * rate, c * rate, mass > 0, own_in_bump]).astype(np.float32)
    y, x, a, b, c, present, own = random.carry(numbers)[0].view(7, n, 1, 1)
    row, column = masked.grid(size, random.device)
    dy, dx = row - y, column - x
    bump = torch.exp(-(a * dx * dx + 2 * b * dx * dy + c * dy * dy)) * present
    return torch.where(own > 0, bump, 1 - bump)[:, None], share


def _inverse(q: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries xx, xy, yy of S^-1 = R(theta) [[1, -q], [-q, 1]] R(theta)^T / (1 - q^2)."""
    cos, sin, det = np.cos(2 * theta), np.sin(2 * theta), 1 - q**2
    return (1 + q * sin) / det, -q * cos / det, (1 - q * sin) / det
