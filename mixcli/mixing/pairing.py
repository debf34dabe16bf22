"""pairing.py: which image is mixed with which, and who is mixed at all.

A plain permutation pairs an image with its own class in 1.8 % of cases on CIFAR-100 and 10.7 % on CIFAR-10 at batch
128, itself included, so the rule is an option of every mixing and its unmet cases are counted.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from mixcli.mix import Context
from mixcli.settings import Pairs


def partners(settings: Pairs, context: Context, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws one partner per image.

    Returns `partner` (B,) int64 and `unpaired` (B,) bool: images whose rule could not be met, their own partner.
    Raises ValueError where the rule needs labels and the context has none.
    """
    batch = context.size[0]
    if settings.pairing == "permutation":
        return rng.permutation(batch), np.zeros(batch, bool)
    if settings.pairing == "derangement":
        order = rng.permutation(batch)
        return _rotate(order, np.zeros(batch, np.int64)), np.zeros(batch, bool)
    if context.labels is None:
        raise ValueError(f"pairing {settings.pairing} needs the labels of the batch")
    order = np.lexsort((rng.random(batch), context.labels))
    if settings.pairing == "same-class":
        partner = _rotate(order, context.labels)
        return partner, partner == np.arange(batch)
    return _of_another_class(order, context.labels, rng)


def mixed_at_all(settings: Pairs, batch: int, rng: Generator) -> np.ndarray:
    """(B,) bool: who is mixed, drawn with `probability` once or per image; always consumes its draw."""
    drawn = rng.random(draws(settings, batch)) < settings.probability
    return drawn if len(drawn) == batch else drawn.repeat(batch)


def draws(settings: Pairs, batch: int) -> int:
    """How many ratios and geometries a batch of this size draws."""
    return 1 if settings.per == "batch" else batch


def _rotate(order: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Each image's partner is the next of its group, the last one's the first; `order` sorts by group."""
    sizes = np.bincount(groups)
    starts = (np.cumsum(sizes) - sizes)[groups[order]]
    place = np.arange(len(order)) - starts
    partner = np.empty_like(order)
    partner[order] = order[starts + (place + 1) % sizes[groups[order]]]
    return partner


def _of_another_class(order: np.ndarray, labels: np.ndarray, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Uniform over the images of other labels, with replacement: a draw that steps over the image's own class."""
    sizes = np.bincount(labels)
    start, size = (np.cumsum(sizes) - sizes)[labels], sizes[labels]
    others = len(labels) - size
    u = np.floor(rng.random(len(labels)) * others).astype(np.int64)
    unpaired = others == 0
    partner = order[np.where(unpaired, 0, u + np.where(u >= start, size, 0))]
    return np.where(unpaired, np.arange(len(labels)), partner), unpaired
