"""masked.py: what every mixing of pairs shares: whom to mix, the nominal ratio, and the Mix around the mask.

A mixing of this kind brings one function, `masks(settings, share, size, random)`: from the nominal share of the image
itself to a mask. It is drawn once per batch or once per image; who is not mixed keeps all of its pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixcli.mix import Context, Mix
from mixcli.mixing.pairing import draws, mixed_at_all, partners
from mixcli.sampling import Random, beta

# (settings, share (n,) float64, (H, W), random) -> keep (n, 1, H or 1, W or 1) float32 on the device, drawn (n,)
Masks = Callable[[Any, np.ndarray, tuple[int, int], Random], tuple[Tensor, np.ndarray]]


def draw(settings: Any, context: Context, random: Random, masks: Masks) -> Mix:
    """Draws, in this order: whether to mix, partners, ratios (Beta of `settings.alpha`, if it has one), masks."""
    batch, height, width = context.size
    rng = random.host
    mixed = mixed_at_all(settings, batch, rng)
    partner, unpaired = partners(settings, context, rng)
    n = draws(settings, batch)
    alpha = getattr(settings, "alpha", None)
    share = np.full(n, np.nan) if alpha is None else beta(rng, alpha, n)
    keep, drawn = masks(settings, share, (height, width), random)
    itself, alone = np.arange(batch), ~mixed | unpaired
    source = np.stack([itself, np.where(alone, itself, partner)])
    source, drawn, unpaired = random.carry(source, np.where(alone, 1.0, drawn), unpaired)
    return Mix(source, keep=_kept_whole(keep, alone, random), drawn=drawn, notes={"unpaired": unpaired})


def _kept_whole(keep: Tensor, alone: np.ndarray, random: Random) -> Tensor:
    """Masks for the whole batch, ones for images that are not mixed; the host knows them, so usually nothing to do."""
    if not alone.any():
        return keep.expand(len(alone), -1, -1, -1)
    (whole,) = random.carry(alone)
    return torch.where(whole.view(-1, 1, 1, 1), torch.ones((), device=keep.device), keep)


def grid(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Row (H, 1) and column (1, W) numbers of the pixels, float32."""
    height, width = size
    row = torch.arange(height, device=device, dtype=torch.float32)
    return row[:, None], torch.arange(width, device=device, dtype=torch.float32)[None, :]
