"""miamix.py: MiAMix, several mixings in layers on one image, their masks augmented, an image sometimes its own partner.

W. Liang, Y. Liang, J. Jia, "MiAMix: Enhancing Image Classification through a Multi-stage Augmented Mixed Sample Data
Augmentation Method", 2023, arXiv 2308.02804 (Processes 11(12), 3284). Its four stages are the four lines of `draw`:
pairing (`_partners`), sampling of methods and ratios (`_layers`), masks and their augmentation (`_masks`), and their
merge. Legend: k = number of layers of an image, `share` = partner's part of a layer, lambda = `ratio` of the result.

The paper leaves much open, no authors' code is public, and two public re-implementations differ. Every choice is an
option; our defaults: at most two layers; shares are the first k entries of Dirichlet(alpha, .., alpha, k alpha), so
that the partner's total is one half on average for every k; masks are merged as layers laid one over the other on the
same pair, keep = prod_j (1 - m_j); all masks are written as the partner's weight m with mean `share`, where one
re-implementation multiplies masks of both orientations. The label weight is the mean of the merged mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, reduce
from importlib import import_module

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from mixcli.errors import inside
from mixcli.mix import SECOND, Context, Mix, Needs
from mixcli.mixing import masked
from mixcli.mixing.masked import Masks
from mixcli.mixing.pairing import draws
from mixcli.sampling import Random, below, dirichlet
from mixcli.settings import MiAMix, Mixing


def needs(settings: MiAMix) -> Needs:
    """A second, independently augmented view, unless no partner is taken from it."""
    used = settings.second_view == "always" or settings.p_self > 0
    return Needs({SECOND: 1.0}) if used else Needs()


def draw(settings: MiAMix, context: Context, random: Random) -> Mix:
    """Draws partners, layers and masks; rows are the batch and its second view, where `needs` names one.

    Notes: `layers` of each image, 0 for one that is not mixed, and `self_mixed`. Raises UserError as its mixings do.
    """
    pairing, self_mixed = _partners(settings, context, random)
    layers = _layers(settings, draws(settings, context.size[0]), random.host)
    keep = _merged(settings, *_masks(settings, layers, context.size[1:], random), layers, random)
    own = 1 - layers.share
    drawn = reduce(np.multiply, own.T) if settings.merge == "product" else 1 - layers.share.sum(1) / layers.count
    notes = {"layers": np.where(pairing.alone, 0, layers.count), "self_mixed": self_mixed & ~pairing.alone}
    return pairing.mix(Masks(keep, drawn), random, notes)


def _partners(settings: MiAMix, context: Context, random: Random) -> tuple[masked.Pairing, np.ndarray]:
    """Whom each image is mixed with, rows of both views, and who with itself (B,) bool."""
    batch = context.size[0]
    pairing = masked.paired(settings, context, random)
    chosen = random.host.random(batch) < settings.p_self
    itself = np.arange(batch)
    partner = np.where(chosen, itself, pairing.partner)
    row = partner + (batch if settings.second_view == "always" else batch * chosen)
    return masked.Pairing(row, pairing.unpaired & ~chosen, pairing.mixed), partner == itself


@dataclass(frozen=True)
class Layers:
    """What is laid over each of n images; slots (n, L) that an image does not use have share 0.

    count   (n,) int64: layers in use, 1 .. L
    used    (n, L) bool: slots in use, the first ones of each image
    share   (n, L) float64: the partner's nominal part
    method  (n, L) int64: place of the slot's mixing among the candidates
    """

    count: np.ndarray
    used: np.ndarray
    share: np.ndarray
    method: np.ndarray


def _layers(settings: MiAMix, n: int, rng: Generator) -> Layers:
    """Draws how many layers, with which shares, of which mixings."""
    most = settings.layers
    count = 1 + below(rng, most, (n,)) if settings.layers_law == "random" else np.full(n, most)
    concentrations = np.empty((n, most + 1))
    used = np.less(np.arange(most), count[:, None])
    concentrations[:, :most] = used
    concentrations[:, most] = {"balanced": count, "flat": 1, "simplex": count == 1}[settings.ratio_law]
    share = dirichlet(rng, settings.alpha * concentrations)[:, :most]
    return Layers(count, used, share, _methods(settings, n, rng))


def _methods(settings: MiAMix, n: int, rng: Generator) -> np.ndarray:
    """(n, L) int64: candidates by their weights, with replacement, or without it where they are to be distinct."""
    weights = settings.weights
    if not settings.distinct:
        # The last bound is left out: rounding must not name a candidate that is not there.
        bounds = np.cumsum(weights[:-1]) / sum(weights)
        return bounds.searchsorted(rng.random((n, settings.layers)), side="right")
    with np.errstate(divide="ignore"):  # the first of independent exponential clocks rings by the weights
        clocks = rng.exponential(size=(n, len(weights))) / np.array(weights)
    return clocks.argsort(1)[:, : settings.layers]


def _masks(settings: MiAMix, layers: Layers, size: tuple[int, int], random: Random) -> tuple[Tensor, np.ndarray]:
    """(R, 1, H, W) float32 masks, the image's own weight, and (L, n) int64: which of them lies in each slot.

    Each candidate draws its masks once, for all slots that it was drawn for; of those of hard edges some are augmented.
    Where a slot is not used, lies a mask that changes nothing.
    """
    used = layers.used.ravel().nonzero()[0]
    method = layers.method.ravel()[used]
    used, each = used[method.argsort(kind="stable")], np.bincount(method, minlength=len(settings.methods))
    share, mixings = 1 - layers.share.ravel()[used], settings.mixings
    hard = np.array([mixing.name in settings.augmented for mixing in mixings]).repeat(each)
    changes = _changes(settings, hard.nonzero()[0], random.host)
    neutral = used.size
    masks = torch.empty((neutral + 1 + changes.number, 1, *size), device=random.device)
    masks[neutral].fill_(1.0 if settings.merge == "product" else 0.0)
    ends = each.cumsum()
    with masked.full_precision(random.device):
        for mixing, start, end in zip(mixings, (ends - each).tolist(), ends.tolist(), strict=True):
            if start < end:
                masks[start:end].copy_(_drawn_by(mixing, share[start:end], size, random))
        row = changes.apply(masks, neutral + 1, random)
    slots = np.full(layers.used.size, neutral)
    slots[used] = row[:neutral]
    return masks, slots.reshape(layers.used.shape).T


def _drawn_by(mixing: Mixing, share: np.ndarray, size: tuple[int, int], random: Random) -> Tensor:
    """The masks of a candidate for nominal shares (n,) of the image itself."""
    with inside(f"candidates_{mixing.name}_"):
        return import_module(mixing.drawing).masks(mixing, share, size, random).keep


def _merged(settings: MiAMix, masks: Tensor, row: np.ndarray, layers: Layers, random: Random) -> Tensor:
    """(n, 1, H, W): the masks of each image's slots, rows (L, n), as one."""
    count, first, *others = random.carry(layers.count, *row)
    merged = masks.index_select(0, first)
    for other in others:
        layer = masks.index_select(0, other)
        merged = merged.mul_(layer) if settings.merge == "product" else merged.add_(layer)
    return merged if settings.merge == "product" else merged.div_(count.view(-1, 1, 1, 1)).clamp_(0, 1)


@dataclass(frozen=True)
class Changes:
    """Which masks are smoothed, and which are then rotated and sheared.

    blunt         (b,) int64: rows to be smoothed, the first `wide` of them over squares of side 5, the others of 3
    bent          (m,) int64: rows to be rotated by `angle` (m,) and sheared by `slant` (m,), radians
    """

    blunt: np.ndarray
    wide: int
    bent: np.ndarray
    angle: np.ndarray
    slant: np.ndarray

    @property
    def number(self) -> int:
        """How many masks come to those that were drawn."""
        return self.blunt.size + self.bent.size

    def apply(self, masks: Tensor, count: int, random: Random) -> np.ndarray:
        """Fills `masks` behind the first `count` with what becomes of those.

        Returns (count,) int64: in which row each of them lies from now on.
        """
        row, middle, end = np.arange(count), count + self.blunt.size, count + self.number
        row[self.blunt] = np.arange(count, middle)
        blunt, bent = random.carry(self.blunt, row[self.bent])
        masks[count:middle].copy_(smoothed(masks.index_select(0, blunt), self.wide))
        masks[middle:end].copy_(rotated(masks.index_select(0, bent), self.angle, self.slant, random))
        row[self.bent] = np.arange(middle, end)
        return row


def _changes(settings: MiAMix, hard: np.ndarray, rng: Generator) -> Changes:
    """Draws what is done to the masks in rows `hard`."""
    drawn = rng.random((5, len(hard)))
    blurred, five, bent = drawn[0] < settings.p_smooth, drawn[1] < 0.5, drawn[2] < settings.p_affine
    wide, narrow = hard[blurred & five], hard[blurred & ~five]
    angle = math.radians(settings.rotation) * (2 * drawn[3][bent] - 1)
    slant = math.radians(settings.shear) * (2 * drawn[4][bent] - 1)
    return Changes(np.concatenate([wide, narrow]), len(wide), hard[bent], angle, slant)


def smoothed(masks: Tensor, wide: int) -> Tensor:
    """(n, 1, H, W), each pixel the mean over the square around it, as far as there are pixels.

    The square's side is 5 for the first `wide` masks, 3 for the others.
    """
    mean = _window_sums(_window_sums(masks, wide, 3), wide, 2)
    for part, side in ((mean[:wide], 5), (mean[wide:], 3)):
        part.div_(_window_sizes(masks.shape[2:], side, masks.device))
    return mean  # no clamp: sums of so many weights up to 1 do not pass their number, in floating point either


@lru_cache(maxsize=32)
def _window_sizes(size: tuple[int, int], side: int, device: torch.device) -> Tensor:
    """(H, W): the pixels in the window around each."""
    one = torch.ones(1, 1, *size, device=device)
    return _window_sums(_window_sums(one, side // 5, 3), side // 5, 2)[0, 0]


def _window_sums(masks: Tensor, wide: int, dim: int) -> Tensor:
    """Of the same shape: sums over the neighbours along `dim`, two on each side in the first `wide` masks, else one."""
    total = masks.clone()
    for offset, added, own in ((1, total, masks), (2, total[:wide], masks[:wide])):
        rest = masks.shape[dim] - offset
        if rest > 0:
            added.narrow(dim, offset, rest).add_(own.narrow(dim, 0, rest))
            added.narrow(dim, 0, rest).add_(own.narrow(dim, offset, rest))
    return total


def rotated(masks: Tensor, angle: np.ndarray, slant: np.ndarray, random: Random) -> Tensor:
    """(n, 1, H, W), rotated by `angle` (n,) and sheared along the rows by `slant` (n,), radians, about the middle.

    Bilinear; beyond the border lies the nearest edge.
    """
    if not angle.size:
        return masks
    height, width = masks.shape[2:]
    cos, sin, tan, slim = np.cos(angle), np.sin(angle), np.tan(slant), height / width
    # In half images from the middle.
    x, y = (np.arange(1 - side, side, 2, dtype=np.float32) / side for side in (width, height))
    along = np.array([cos, sin / slim], np.float32)[:, :, None, None] * x
    down = np.array([(cos * tan - sin) * slim, sin * tan + cos], np.float32)[:, :, None, None] * y[:, None]
    along, down = random.carry(along, down)
    where = (along + down).permute(1, 2, 3, 0)  # (n, H, W, 2)
    found = F.grid_sample(masks, where, mode="bilinear", padding_mode="border", align_corners=False)
    return found.clamp_(0, 1)
