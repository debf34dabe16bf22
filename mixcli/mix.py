"""mix.py: Mix, Batch, Context, Needs, Losses: the values everything turns on.

Orientation, everywhere: `keep` is the weight of the image itself, `1 - keep` that of its partner.

    mixed[i] = keep[i] * rows[i] + (1 - keep[i]) * rows[partner[i]]

A method is drawn first and applied later: `plan` makes a Mix out of a Context and a Random, `loss` applies it and draws
nothing. The label weight is the mean of the final mask, never the number that was drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from mixcli.settings import Method


def implementation(settings: Method) -> ModuleType:
    """The module that offers `needs`, `plan` and `loss` for these settings."""
    return import_module(settings.implementation)


@dataclass(frozen=True)
class Context:
    """What a draw may look at.

    size     (B, H, W) of the images to be mixed
    labels   (B,) int64 on the host, or None where they are not known
    classes  number of classes of the data set, N
    added    how many of the B images, the last ones, are supplements
    stages   per stage of the net: (H, W) of its output, or None where it has no pixels; `input` included
    """

    size: tuple[int, int, int]
    labels: np.ndarray | None
    classes: int
    added: int = 0
    stages: Mapping[str, tuple[int, int] | None] = field(default_factory=dict)

    def at(self, size: tuple[int, int] | None) -> Context:
        """The same batch seen at another height and width; None is one constant weight per image."""
        height, width = size or (1, 1)
        return replace(self, size=(self.size[0], height, width))


@dataclass(frozen=True)
class Mix:
    """A drawn plan: of which images each output is made, and how much of each pixel comes from which.

    source  (K, B) int64: rows of the stacked views; `source[0]` is the image itself
    keep    K = 2: (B, 1, H, W) or (B, 1, 1, 1) float32, weight of the image itself
    weight  K > 2: (K, B, 1, H, W) or (K, B, 1, 1, 1) float32, summing to 1 over K
    drawn   (B,) float64: the nominal share of the image itself, logged beside the realised `ratio`
    notes   named (B,) tensors for the log, such as `unpaired`
    """

    source: Tensor
    keep: Tensor | None = None
    weight: Tensor | None = None
    drawn: Tensor | None = None
    notes: dict[str, Tensor] = field(default_factory=dict)

    @property
    def ratio(self) -> Tensor:
        """(K, B) float32: each source's share, the mean of the final mask taken in float64."""
        if self.weight is not None:
            return self.weight.mean(dim=(2, 3, 4), dtype=torch.float64).float()
        assert self.keep is not None
        own = self.keep.mean(dim=(1, 2, 3), dtype=torch.float64).float()
        return torch.stack([own, 1 - own])

    def images(self, rows: Tensor) -> Tensor:
        """The mixed images, or features: (V*B, ...) stacked views in, (B, ...) out, dtype kept.

        `lerp` and the outer `where`, not two products: a self-mix returns its bits, a NaN in the partner stays out
        where keep = 1, and nothing leaves the range of the sources. More than two sources are clamped to their range.
        Half precision is mixed in float32 and cast back. Raises ValueError where a mask has another size than the rows.
        """
        if not rows.is_floating_point():
            raise TypeError(f"mixing needs floating-point rows, got {rows.dtype}")
        work = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        own, others = work[: self.source.shape[1]], self.source[1:]
        if self.weight is None:
            assert self.keep is not None
            keep = _fit(self.keep, own).to(own.dtype)
            mixed = torch.where(keep == 1, own, torch.lerp(work[others[0]], own, keep))
        else:
            mixed, low, high = own, own, own
            for share, source in zip(self.weight[1:], others, strict=True):
                other = work[source]
                mixed = mixed + _fit(share, own).to(own.dtype) * (other - own)
                low, high = torch.minimum(low, other), torch.maximum(high, other)
            mixed = torch.minimum(torch.maximum(mixed, low), high)
        return mixed.to(rows.dtype)

    def targets(self, labels: Tensor, classes: int) -> Tensor:
        """(B, classes) float32 soft rows from (B,) int labels or (B, classes) soft ones; rows sum to 1."""
        rows = labels if labels.is_floating_point() else torch.nn.functional.one_hot(labels, classes)
        picked = rows.float()[self.source % len(labels)]  # (K, B, classes)
        return (self.ratio[:, :, None] * picked).sum(0)


def _fit(mask: Tensor, rows: Tensor) -> Tensor:
    """A (B, 1, h, w) mask shaped to broadcast over `rows`."""
    if mask.shape[-2:] == (1, 1):
        return mask.view(-1, *[1] * (rows.ndim - 1))
    if rows.ndim != 4 or mask.shape[-2:] != rows.shape[-2:]:
        raise ValueError(f"a mask of {tuple(mask.shape[-2:])} pixels cannot mix rows of shape {tuple(rows.shape)}")
    return mask


@dataclass(frozen=True)
class Batch:
    """The images of a step.

    images     (B, C, H, W) float, training view, normalised
    labels     (B,) int64
    classes    N
    smoothing  label smoothing, applied once, after mixing
    views      further views of the same images by name, each (B, C, H, W)
    """

    images: Tensor
    labels: Tensor
    classes: int
    smoothing: float = 0.0
    views: dict[str, Tensor] = field(default_factory=dict)

    def targets(self, mix: Mix | None = None) -> Tensor:
        """(B, classes) float32: the labels as soft rows, mixed, not yet smoothed."""
        if mix is None:
            return torch.nn.functional.one_hot(self.labels, self.classes).float()
        return mix.targets(self.labels, self.classes)

    def smoothed(self, targets: Tensor) -> Tensor:
        """Soft rows with the label smoothing of the run."""
        return targets if self.smoothing == 0 else targets * (1 - self.smoothing) + self.smoothing / self.classes


@dataclass(frozen=True)
class Losses:
    """`total` to be minimised, and `parts`: detached scalars for the log."""

    total: Tensor
    parts: dict[str, Tensor]


@dataclass(frozen=True)
class Needs:
    """What a method asks of data and engine.

    views       further views by name, with the strength of their augmentation: 0 is the clean image, 1 the training
                view
    supplement  images of each present class that a batch is filled up to; 0 for none
    """

    views: Mapping[str, float] = field(default_factory=dict)
    supplement: int = 0
