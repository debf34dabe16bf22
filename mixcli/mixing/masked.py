"""masked.py: what every mixing of pairs shares: whom to mix, the nominal ratio, and the Mix around the mask.

A mixing of this kind brings one function, `masks(settings, share, size, random)`: from the nominal share of the image
itself to a mask. It is drawn once per batch or once per image; who is not mixed keeps all of its pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mixcli.mix import Box, Context, Form, Mix, Place
from mixcli.mixing.pairing import draws, mixed_at_all, partners
from mixcli.sampling import Random, beta
from mixcli.settings import Pairs


class Masks(NamedTuple):
    """Masks as they were drawn.

    keep       (n, 1, H, W) or (n, 1, 1, 1) float32 on the device: weight of the image itself
    drawn      (n,) float64: its nominal share, NaN where there is none
    form, box  see `Mix`
    """

    keep: Tensor
    drawn: np.ndarray
    form: Form = "any"
    box: Box | None = None


DrawMasks = Callable[[Any, np.ndarray, tuple[int, int], Random], Masks]  # settings, share (n,) float64, (H, W), random
Notes = dict[str, np.ndarray]  # named (B,) values for the log


@dataclass(frozen=True)
class Pairing:
    """Whom each image is mixed with.

    partner   (B,) int64, row of the stacked views
    unpaired  (B,) bool, whose pairing rule could not be met
    mixed     (B,) bool, who was drawn to be mixed
    """

    partner: np.ndarray
    unpaired: np.ndarray
    mixed: np.ndarray

    @property
    def alone(self) -> np.ndarray:
        """(B,) bool, who is not mixed: not drawn to be, or without a partner."""
        return ~self.mixed | self.unpaired

    def mix(self, masks: Masks, random: Random, notes: Notes, place: Place | None = None) -> Mix:
        """The Mix of masks drawn once or per image; who is alone keeps all of its pixels."""
        batch, alone, (keep, drawn, form, box) = len(self.partner), self.alone, masks
        source = np.empty((2, batch), np.int64)
        source[0], source[1] = np.arange(batch), self.partner
        if alone.any():  # the host knows, so usually there is nothing to do
            source[1, alone] = source[0, alone]
            drawn = np.where(alone, 1.0, drawn)
            (whole,) = random.carry(alone)
            keep = torch.where(whole.view(-1, 1, 1, 1), torch.ones((), device=keep.device), keep)
            form, box = "binary" if form == "binary" else "any", None
        if keep.shape[0] < batch:
            keep = keep.expand(batch, -1, -1, -1)
        if len(drawn) < batch:
            drawn = drawn.repeat(batch)
        names, values = ("unpaired", *notes), (self.unpaired, *notes.values())
        rows, nominal, *noted = random.carry(source, drawn, *values)
        named = dict(zip(names, noted, strict=True))
        return Mix(rows, keep=keep, form=form, box=box, place=place, drawn=nominal, notes=named)


def draw(settings: Any, context: Context, random: Random, masks: DrawMasks) -> Mix:
    """Draws, in this order: whether to mix, partners, ratios (Beta of `settings.alpha`, if it has one), masks."""
    pairing = paired(settings, context, random)
    return pairing.mix(masks(settings, shares(settings, context, random), context.size[1:], random), random, {})


def paired(settings: Pairs, context: Context, random: Random) -> Pairing:
    """Draws whether to mix, and partners."""
    mixed = mixed_at_all(settings, context.size[0], random.host)
    partner, unpaired = partners(settings, context, random.host)
    return Pairing(partner, unpaired, mixed)


def shares(settings: Any, context: Context, random: Random) -> np.ndarray:
    """Draws nominal shares of the image itself, one or (B,) of them, float64; NaN for a mixing without alpha."""
    n, alpha = draws(settings, context.size[0]), getattr(settings, "alpha", None)
    return np.full(n, np.nan) if alpha is None else beta(random.host, alpha, n)


def outside(rows: np.ndarray, columns: np.ndarray, random: Random) -> Tensor:
    """(n, H) and (n, W), what the partner has of each -> (n, 1, H, W) float32 on the device: 1 - their product."""
    down, across = -rows.astype(np.float32)[:, None, :, None], columns.astype(np.float32)[:, None, None, :]
    down, across = random.carry(down, across)
    return (down * across).add_(1)


def full_precision(device: torch.device) -> AbstractContextManager:
    """Autocast, which would make masks and products half-precision ones, is off inside."""
    on = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if on else nullcontext()
