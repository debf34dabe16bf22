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

from mixcli.mix import Context, Mix
from mixcli.mixing import masked
from mixcli.mixing.masked import Masks
from mixcli.sampling import Random, below
from mixcli.settings import AGMix, GMix

FARTHEST = -40.0  # e^-40 is nothing; where two such meet, numbers turn denormal, and a CPU takes ten times as long


def draw(settings: GMix, context: Context, random: Random) -> Mix:
    """Draws partners, ratios and bumps."""
    return masked.draw(settings, context, random, masks)


def masks(settings: GMix, share: np.ndarray, size: tuple[int, int], random: Random) -> Masks:
    """Bumps whose nominal share is `share` (n,) of the image itself; see `Masks`."""
    rng, n = random.host, len(share)
    y, x = below(rng, [[size[0]], [size[1]]], (2, n))
    q, theta = np.zeros(n), np.zeros(n)
    scale = "gmix"
    if isinstance(settings, AGMix):
        q, theta = rng.uniform(-settings.tilt, settings.tilt, n), rng.uniform(0, 2 * math.pi, n)
        theta, scale = theta if settings.rotate else np.zeros(n), settings.scale
    own_in_bump = (share < 0.5) & (scale != "sqrt_lambda_n")
    mass = np.where(own_in_bump, share, 1 - share) * size[0] * size[1]
    factor = {"area": math.pi * np.sqrt(1 - q**2), "gmix": math.pi, "sqrt_lambda_n": 0.5}[scale]
    rate = factor / np.where(mass > 0, mass, 1)
    xx, xy, yy = (entry * rate for entry in _inverse(q, theta))
    dy, dx = (np.arange(side) - c[:, None] for side, c in zip(size, (y, x), strict=True))
    present = (mass > 0).astype(float)  # a bump of no mass is no bump
    height, offset = np.where(own_in_bump, present, -present), np.where(own_in_bump, 0.0, 1.0)
    parts = (-yy[:, None] * dy**2, -xx[:, None] * dx**2, dy, -2 * xy[:, None] * dx, height, offset)
    along_y, along_x, dy, across, height, offset = random.carry(*(part.astype(np.float32) for part in parts))
    exponent = torch.addcmul(along_y[:, :, None] + along_x[:, None, :], dy[:, :, None], across[:, None, :])
    bump = exponent.clamp_(min=FARTHEST).exp_()
    keep = bump.mul_(height[:, None, None]).add_(offset[:, None, None])
    return Masks(keep[:, None], share)


def _inverse(q: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries xx, xy, yy of S^-1 = R(theta) [[1, -q], [-q, 1]] R(theta)^T / (1 - q^2)."""
    cos, sin, det = np.cos(2 * theta), np.sin(2 * theta), 1 - q**2
    return (1 + q * sin) / det, -q * cos / det, (1 - q * sin) / det
