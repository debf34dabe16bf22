"""foreign.py: mixings of other libraries, which draw and apply in one call, as they are: an adapter is ten lines.

timm's and torchvision's convention is a callable (images, labels) -> (mixed, targets), its random numbers out of global
generators. `draw` calls it once, on images that spell out their row number, and reads off who met whom under which
mask. Whatever is mixed later is mixed by the library itself: the call is repeated under the global states of the draw,
so its arithmetic, its label weights and its mistakes are what a Mix of it shows. Pairs only, and nothing moved.
"""

from __future__ import annotations

import random as python_random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixcli.mix import Context, Mix
from mixcli.sampling import Random

Apply = Callable[[Tensor, Tensor], Any]  # (B, C, H, W) float images, (B,) int labels -> mixed images, soft rows
Make = Callable[[int], Apply]  # number of classes -> the library's callable


class Seen:
    """The states of torch's, numpy's and Python's global generators."""

    def __init__(self) -> None:
        self.torch, self.numpy, self.python = torch.get_rng_state(), np.random.get_state(), python_random.getstate()

    def restore(self) -> None:
        torch.set_rng_state(self.torch)
        np.random.set_state(self.numpy)
        python_random.setstate(self.python)

    @contextmanager
    def again(self) -> Iterator[None]:
        """These states inside; what was there before is put back."""
        before = Seen()
        self.restore()
        try:
            yield
        finally:
            before.restore()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generators as a seed leaves them, inside; what was there before is put back."""
    before = Seen()
    torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
    np.random.set_state(np.random.RandomState(seed).get_state())
    python_random.setstate(python_random.Random(seed).getstate())
    try:
        yield
    finally:
        before.restore()


@dataclass(frozen=True)
class Foreign(Mix):
    """A Mix that another library applies: its images and targets are what a call under the draw's states gives."""

    make: Make | None = None
    seen: Seen | None = None
    size: tuple[int, int] = (0, 0)

    def images(self, rows: Tensor) -> Tensor:
        """As the library mixes them; it may change `rows`."""
        return self._again(rows, torch.arange(len(rows), device=rows.device), len(rows))[0]

    def targets(self, labels: Tensor, classes: int) -> Tensor:
        """As the library mixes integer labels; rows that are soft already are mixed by the mask."""
        if labels.is_floating_point():
            return super().targets(labels, classes)
        return self._again(_numbered(len(labels), self.size).to(labels.device), labels, classes)[1]

    @torch.compiler.disable(reason="another library draws while it mixes, which no graph can hold")
    def _again(self, images: Tensor, labels: Tensor, classes: int) -> Any:
        assert self.make is not None and self.seen is not None
        with self.seen.again():
            return self.make(classes)(images, labels)


def draw(make: Make, context: Context, random: Random) -> Mix:
    """The Mix that the library draws at this moment, from global generators as is its custom; `random` gives none."""
    batch, size = context.size[0], context.size[1:]
    seen, numbered, itself = Seen(), _numbered(batch, size), torch.arange(batch)
    mixed, _ = make(max(2, batch))(numbered.clone(), itself)
    changed = (mixed != numbered).flatten(2).any(2)  # (B, bits): where image and partner differ
    partner = ((numbered[:, :, 0, 0].bool() ^ changed).long() << torch.arange(numbered.shape[1])).sum(1)
    share = (mixed - numbered).abs().amax(1, keepdim=True)  # of the partner, in any bit that differs
    source, keep = (value.to(random.device) for value in (torch.stack([itself, partner]), 1 - share))
    return Foreign(source, keep=keep, make=make, seen=seen, size=size)


def _numbered(batch: int, size: tuple[int, int]) -> Tensor:
    """(B, bits, H, W) float32 images: the bits of each one's row number, lowest first."""
    bits = torch.arange(max(1, (batch - 1).bit_length()))
    return ((torch.arange(batch)[:, None] >> bits) & 1).float()[:, :, None, None].expand(-1, -1, *size).contiguous()
