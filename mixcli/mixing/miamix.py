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

from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from importlib import import_module

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from mixcli.errors import UserError
from mixcli.mix import Context, Mix, Needs
from mixcli.mixing import masked
from mixcli.mixing.masked import Masks
from mixcli.mixing.pairing import draws
from mixcli.sampling import Random, dirichlet
from mixcli.settings import MiAMix, Mixing


def needs(settings: MiAMix) -> Needs:
    """A second, independently augmented view, unless no partner is taken from it."""
    used = settings.second_view == "always" or settings.p_self > 0
    return Needs({"second": 1.0}) if used else Needs()


def draw(settings: MiAMix, context: Context, random: Random) -> Mix:
    """Draws partners, layers and masks; rows are the batch and its second view, where `needs` names one.

    Notes: `layers` of each image, 0 for one that is not mixed, and `self_mixed`. Raises UserError as its mixings do.
    """
    pairing, self_mixed = _partners(settings, context, random)
    layers = _layers(settings, draws(settings, context.size[0]), random.host)
    keep = _merged(settings, _masks(settings, layers, context.size[1:], random), layers, random)
    drawn = np.prod(1 - layers.share, 1) if settings.merge == "product" else 1 - layers.share.sum(1) / layers.count
    notes = {"layers": np.where(pairing.alone, 0, layers.count), "self_mixed": self_mixed & ~pairing.alone}
    return pairing.mix(Masks(keep, drawn), random, notes)


def _partners(settings: MiAMix, context: Context, random: Random) -> tuple[masked.Pairing, np.ndarray]:
    """Whom each image is mixed with, rows of both views, and who with itself (B,) bool."""
    batch = context.size[0]
    pairing = masked.paired(settings, context, random)
    chosen = random.host.random(batch) < settings.p_self
    partner = np.where(chosen, np.arange(batch), pairing.partner)
    self_mixed = partner == np.arange(batch)
    second = np.ones(batch, bool) if settings.second_view == "always" else chosen
    unpaired = pairing.unpaired & ~chosen
    not_drawn = pairing.alone & ~pairing.unpaired
    return replace(pairing, partner=partner + batch * second, alone=not_drawn | unpaired, unpaired=unpaired), self_mixed


@dataclass(frozen=True)
class Layers:
    """What is laid over each of n images; slots (n, L) that an image does not use have share 0.

    count   (n,) int64: layers in use, 1 .. L
    share   (n, L) float64: the partner's nominal part
    method  (n, L) int64: place of the slot's mixing among the candidates
    """

    count: np.ndarray
    share: np.ndarray
    method: np.ndarray

    @property
    def used(self) -> np.ndarray:
        """(n, L) bool."""
        return np.arange(self.share.shape[1]) < self.count[:, None]


def _layers(settings: MiAMix, n: int, rng: Generator) -> Layers:
    """Draws how many layers, with which shares, of which mixings."""
    most = settings.layers
    count = rng.integers(1, most + 1, n) if settings.layers_law == "random" else np.full(n, most)
    used = np.arange(most) < count[:, None]
    rest = {"balanced": count, "flat": np.ones(n), "simplex": (count == 1).astype(float)}[settings.ratio_law]
    share = dirichlet(rng, settings.alpha * np.column_stack([used, rest]))[:, :most]
    return Layers(count, share, _methods(settings, n, rng))


def _methods(settings: MiAMix, n: int, rng: Generator) -> np.ndarray:
    """(n, L) int64: candidates by their weights, with replacement, or without it where they are to be distinct."""
    weights = np.array(settings.weights) / sum(settings.weights)
    if not settings.distinct:
        # The last bound is left out: rounding must not name a candidate that is not there.
        return np.searchsorted(weights.cumsum()[:-1], rng.random((n, settings.layers)), side="right")
    with np.errstate(divide="ignore"):  # the first of independent exponential clocks rings by the weights
        clocks = rng.exponential(size=(n, len(weights))) / weights
    return clocks.argsort(1)[:, : settings.layers]


def _masks(settings: MiAMix, layers: Layers, size: tuple[int, int], random: Random) -> Tensor:
    """(n, L, H, W) float32: the image's own weight under each layer, 1 where a slot is not used.

    Each candidate draws its masks once, for all slots that it was drawn for; those of hard edges are then augmented.
    """
    share, method = layers.share.ravel(), np.where(layers.used, layers.method, -1).ravel()
    keep = torch.ones((share.size, 1, *size), device=random.device)
    mixings = settings.mixings
    hard = np.array([mixing.name in settings.augmented for mixing in mixings] + [False])  # the last: not used
    with masked.full_precision(random.device):
        for place, mixing in enumerate(mixings):
            slots = np.flatnonzero(method == place)
            if len(slots):
                (at,) = random.carry(slots)
                keep.index_copy_(0, at, _drawn_by(mixing, 1 - share[slots], size, random).expand(-1, -1, *size))
        _augment(settings, keep, np.flatnonzero(hard[method]), random)
    return keep.view(*layers.share.shape, *size)


def _drawn_by(mixing: Mixing, share: np.ndarray, size: tuple[int, int], random: Random) -> Tensor:
    """The masks of a candidate for nominal shares (n,) of the image itself."""
    try:
        return import_module(mixing.drawing).masks(mixing, share, size, random).keep
    except UserError as error:  # its keys are the candidate's
        error.subject = f"candidates_{mixing.name}_{error.subject}"
        raise


def _merged(settings: MiAMix, keep: Tensor, layers: Layers, random: Random) -> Tensor:
    """(n, 1, H, W) out of (n, L, H, W)."""
    if settings.merge == "product":
        return reduce(torch.mul, keep.split(1, dim=1))
    used, count = random.carry(layers.used, layers.count)
    total = (keep * used[:, :, None, None]).sum(1, keepdim=True)
    return (total / count.view(-1, 1, 1, 1)).clamp(0, 1)


def _augment(settings: MiAMix, masks: Tensor, slots: np.ndarray, random: Random) -> None:
    """Of masks (n, 1, H, W), those in `slots`: smooths some and rotates and shears some, each by draws of its own."""
    rng, n = random.host, len(slots)
    blurred, wide, bent = rng.random((3, n)) < np.array([[settings.p_smooth], [0.5], [settings.p_affine]])
    angle, slant = (np.radians(rng.uniform(-most, most, n)) for most in (settings.rotation, settings.shear))
    five, three = slots[blurred & wide], slots[blurred & ~wide]
    blunt, turned = random.carry(np.concatenate([five, three]), slots[bent])
    masks.index_copy_(0, blunt, smoothed(masks[blunt], len(five)))
    masks.index_copy_(0, turned, rotated(masks[turned], angle[bent], slant[bent], random))


def smoothed(masks: Tensor, wide: int) -> Tensor:
    """(n, 1, H, W), each pixel the mean over the square around it, as far as there are pixels.

    The square's side is 5 for the first `wide` masks, 3 for the others.
    """
    total = _window_sums(_window_sums(masks, wide, 3), wide, 2)
    for part, side in ((total[:wide], 5), (total[wide:], 3)):
        part.div_(_window_sizes(masks.shape[2:], side, masks.device))
    return total.clamp_(0, 1)


@lru_cache(maxsize=32)
def _window_sizes(size: tuple[int, int], side: int, device: torch.device) -> Tensor:
    """(H, W): the pixels in the window around each."""
    one = torch.ones(1, 1, *size, device=device)
    return _window_sums(_window_sums(one, side // 5, 3), side // 5, 2)[0, 0]


def _window_sums(masks: Tensor, wide: int, dim: int) -> Tensor:
    """Of the same shape: sums over the neighbours along `dim`, two on each side in the first `wide` masks, else one."""
    total = masks.clone()
    for offset, count in ((1, len(masks)), (2, wide)):
        rest = masks.shape[dim] - offset
        if rest > 0 and count > 0:
            added, own = total[:count], masks[:count]
            added.narrow(dim, offset, rest).add_(own.narrow(dim, 0, rest))
            added.narrow(dim, 0, rest).add_(own.narrow(dim, offset, rest))
    return total


def rotated(masks: Tensor, angle: np.ndarray, slant: np.ndarray, random: Random) -> Tensor:
    """(n, 1, H, W), rotated by `angle` (n,) and sheared along the rows by `slant` (n,), radians, about the middle.

    Bilinear; beyond the border lies the nearest edge.
    """
    if not len(masks):
        return masks
    height, width = masks.shape[2:]
    cos, sin, tan, slim = np.cos(angle), np.sin(angle), np.tan(slant), height / width
    # Places are counted in half images from the middle, across and down.
    entries = np.stack([cos, (cos * tan - sin) * slim, sin / slim, sin * tan + cos], 1)
    (turn,) = random.carry(entries.astype(np.float32))
    where = (turn.view(-1, 2) @ _places((height, width), masks.device)).view(len(masks), 2, height, width)
    found = F.grid_sample(masks, where.permute(0, 2, 3, 1), mode="bilinear", padding_mode="border", align_corners=False)
    return found.clamp_(0, 1)


@lru_cache(maxsize=16)
def _places(size: tuple[int, int], device: torch.device) -> Tensor:
    """(2, H*W) float32: how far each pixel lies from the middle, across and down, in half images."""
    down, across = (torch.arange(1 - side, side, 2, device=device) / side for side in size)
    return torch.stack([across.expand(size).flatten(), down[:, None].expand(size).flatten()])
