"""mix.py: Mix, Batch, Context, Needs, Losses: the values everything turns on.

Orientation, everywhere: `keep` is the weight of the image itself, `1 - keep` that of its partner.

    mixed[i] = keep[i] * rows[i] + (1 - keep[i]) * rows[partner[i]]

A method is drawn first and applied later: `plan` makes a Mix out of a Context and a Random, `loss` applies it and draws
nothing. The label weight is the mean of the final mask, never the number that was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mixcli.settings import Method

SECOND = "second"  # the view that a Mix takes partners from, beside the training view
PIECE = 2**19  # numbers of an image tensor that fit the cache of a core, beside as many of another
Form = Literal["any", "binary", "partial"]
Box = tuple[slice, slice]  # rows and columns of a mask
Place = Callable[[Tensor], Tensor]  # (B, C, H, W) partners -> what of them is mixed, of the same shape


def implementation(settings: Method) -> ModuleType:
    """The module that offers `needs`, `plan` and `loss` for these settings."""
    return import_module(settings.implementation)


@dataclass(frozen=True)
class Context:
    """What a draw may look at.

    size        (B, H, W) of the images to be mixed
    labels      (B,) int64 on the host, or None where they are not known
    classes     number of classes of the data set, N
    added       how many of the B images, the last ones, are supplements
    stages      per stage of the net: (H, W) of its output, or None where it has no pixels; `input` included
    unlabelled  how many images without labels come beside the B
    epoch       epochs trained before this step, a fraction inside one
    epochs      that are trained in all
    """

    size: tuple[int, int, int]
    labels: np.ndarray | None
    classes: int
    added: int = 0
    stages: Mapping[str, tuple[int, int] | None] = field(default_factory=dict)
    unlabelled: int = 0
    epoch: float = 0.0
    epochs: int = 1

    def of(self, images: int) -> Context:
        """As many images of the same size, of whose labels nothing is known."""
        return replace(self, size=(images, *self.size[1:]), labels=None, added=0, unlabelled=0)

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
    form    what is known of `keep` without looking, which saves passes over the pixels and changes no bit: `binary`
            (0 or 1), `partial` (below 1 everywhere), or `any`
    box     where a binary `keep` is 0, if that is one box for all images; a compiled graph, which would be made anew
            for each, does not look at it
    place   K = 2: what is done to the partners first, for a mixing that moves what it takes
    drawn   (B,) float64: the nominal share of the image itself, logged beside the realised `ratio`
    notes   named (B,) tensors for the log, such as `unpaired`
    """

    source: Tensor
    keep: Tensor | None = None
    weight: Tensor | None = None
    form: Form = "any"
    box: Box | None = None
    place: Place | None = None
    drawn: Tensor | None = None
    notes: dict[str, Tensor] = field(default_factory=dict)

    @property
    def ratio(self) -> Tensor:
        """(K, B) float32: each source's share, the mean of the final mask taken in float64."""
        if self.weight is not None:
            return self.weight.mean(dim=(2, 3, 4), dtype=torch.float64).float()
        assert self.keep is not None
        box = self._box
        own = _means(_drawn_once(self.keep), self.form) if box is None else _share_outside(box, self.keep)
        return torch.cat([own, 1 - own]).expand(2, self.keep.shape[0])

    @property
    def _box(self) -> Box | None:
        return None if torch.compiler.is_compiling() or self.form != "binary" else self.box

    def images(self, rows: Tensor) -> Tensor:
        """The mixed images, or features: (V*B, ...) stacked views in, (B, ...) out, dtype kept.

        where(keep == 1, own, lerp(other, own, keep)), not two products: a self-mix returns its bits, a NaN in the
        partner stays out where keep = 1, and nothing leaves the range of the sources. More than two sources are clamped
        to their range.
        Half precision is mixed in float32 and cast back. Raises ValueError where a mask has another size than the rows,
        or, on a CPU, where a source is none of the rows: MiAMix takes partners from a second view below the first.
        """
        if not rows.is_floating_point():
            raise TypeError(f"mixing needs floating-point rows, got {rows.dtype}")
        work = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        mixed = self._pairs(work) if self.weight is None else self._weighted(work, self.weight)
        return mixed.to(rows.dtype)

    def _pairs(self, work: Tensor) -> Tensor:
        assert self.keep is not None
        own, partner, box = work[: self.source.shape[1]], self.source[1], self._box
        if self.place is None and _is_plain(work):
            try:
                if box is not None and self.keep.shape[2:] == own.shape[2:]:
                    return _pasted(work, own, partner, box)
                return _mixed_in_pieces(work, partner, _fit(_drawn_once(self.keep), own), self.form)
            except IndexError as error:
                raise ValueError(f"a partner is none of the {len(work)} rows: is a second view missing?") from error
        keep = _fit(_drawn_once(self.keep), own)
        other = work[partner] if self.place is None else self.place(work[partner])
        mixed = other if self.form == "binary" else torch.lerp(other, own, keep)
        return mixed if self.form == "partial" else torch.where(keep == 1, own, mixed)

    def _weighted(self, work: Tensor, weight: Tensor) -> Tensor:
        own = work[: self.source.shape[1]]
        mixed, low, high = own, own, own
        for share, source in zip(weight[1:], self.source[1:], strict=True):
            other = work[source]
            mixed = mixed + _fit(share, own) * (other - own)
            low, high = torch.minimum(low, other), torch.maximum(high, other)
        return torch.minimum(torch.maximum(mixed, low), high)

    def targets(self, labels: Tensor, classes: int) -> Tensor:
        """(B, classes) float32 soft rows from (B,) int labels or (B, classes) soft ones; rows sum to 1."""
        count = labels.shape[0]
        picked, ratio = labels[self.source % count], self.ratio
        if labels.is_floating_point():
            return (ratio[:, :, None] * picked).sum(0)
        rows = torch.zeros(count, classes, device=labels.device)
        if picked.shape[0] == 2:  # two summands give the same bits in either order
            return rows.scatter_add_(1, picked.T, ratio.T)
        for share, label in zip(ratio, picked, strict=True):  # one source at a time: sums in one order, on any device
            rows.scatter_add_(1, label[:, None], share[:, None])
        return rows


def _means(keep: Tensor, form: Form) -> Tensor:
    """(1, n) float32 of masks (n, 1, h, w): what the mean in float64 gives."""
    if keep.shape[2:] == (1, 1):
        return keep.reshape(1, -1)
    if form == "binary":  # sums of ones are exact in float32, and come faster
        return (keep.sum(dim=(1, 2, 3)).double() / keep[0].numel()).float()[None]
    return keep.mean(dim=(1, 2, 3), dtype=torch.float64).float()[None]


def _share_outside(box: Box, keep: Tensor) -> Tensor:
    """(1, 1) float32: the mean of `keep`, which is 0 in the box and 1 outside."""
    height, width = keep.shape[2:]
    rows, columns = box
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return torch.full((1, 1), 1 - area / (height * width), device=keep.device)


def _drawn_once(keep: Tensor) -> Tensor:
    """One mask where all images share it."""
    return keep[:1] if keep.stride(0) == 0 else keep


def _is_plain(rows: Tensor) -> bool:
    """Whether rows are mixed in memory on a CPU, with nobody asking for gradients or a graph."""
    return rows.device.type == "cpu" and not rows.requires_grad and not torch.compiler.is_compiling()


def _mixed_in_pieces(work: Tensor, partner: Tensor, keep: Tensor, form: Form) -> Tensor:
    """The bits of `Mix._pairs`, in half the time: a CPU waits for memory, so what fits its cache is finished at once.

    Where keep is 1 the image is put back by its bits, since `where` takes twice as long.
    """
    whole = torch.int64 if work.dtype == torch.float64 else torch.int32
    images = work[: len(partner)]
    mixed = torch.empty_like(images)
    step = max(1, PIECE // max(1, mixed[0].numel()))
    for start in range(0, len(partner), step):
        part = slice(start, start + step)
        own, other, share = images[part], mixed[part], keep if len(keep) == 1 else keep[part]
        torch.index_select(work, 0, partner[part], out=other)
        if form != "binary":
            torch.lerp(other, own, share, out=other)
        if form != "partial":
            own_bits, changed = own.view(whole), share.to(whole).sub_(1)  # no bit where keep is 1, every bit elsewhere
            other.view(whole).bitwise_xor_(own_bits).bitwise_and_(changed).bitwise_xor_(own_bits)
    return mixed


def _pasted(work: Tensor, own: Tensor, partner: Tensor, box: Box) -> Tensor:
    """The bits of `Mix._pairs` where all images share a box: only what is in it is taken from the partners."""
    mixed = own.clone()
    torch.index_select(work[:, :, *box], 0, partner, out=mixed[:, :, *box])
    return mixed


def _fit(mask: Tensor, rows: Tensor) -> Tensor:
    """A (B, 1, h, w) mask shaped to broadcast over `rows`, in their dtype."""
    if mask.shape[-2:] == (1, 1):
        return mask.view(-1, *[1] * (rows.ndim - 1)).to(rows.dtype)
    if rows.ndim != 4 or mask.shape[-2:] != rows.shape[-2:]:
        raise ValueError(f"a mask of {tuple(mask.shape[-2:])} pixels cannot mix rows of shape {tuple(rows.shape)}")
    return mask.to(rows.dtype)


@dataclass(frozen=True)
class Batch:
    """The images of a step.

    rows        (V*B, C, H, W) float, normalised, what a Mix takes its sources from: the training view, and below it
                the `second` one where the method needs that
    labels      (B,) int64
    classes     N
    smoothing   label smoothing, applied once, after mixing
    views       other views of the same images by name, each (B, C, H, W)
    unlabelled  (U, C, H, W) in each view: images whose labels the step does not have
    """

    rows: Tensor
    labels: Tensor
    classes: int
    smoothing: float = 0.0
    views: dict[str, Tensor] = field(default_factory=dict)
    unlabelled: tuple[Tensor, ...] = ()

    @property
    def images(self) -> Tensor:
        """(B, C, H, W), the training view."""
        return self.rows[: len(self.labels)]

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
class Unlabelled:
    """Images without labels that a method asks for, beside the labelled ones of each step.

    which  `rest`: the training images outside the labelled subset; `all`: every training image, its label dropped
    batch  of a step; None: as many as labelled ones
    views  of each image, all of them training views with draws of their own
    """

    which: Literal["rest", "all"] = "rest"
    batch: int | None = None
    views: int = 1


@dataclass(frozen=True)
class Average:
    """A moving average of the weights that a method asks for; it is what is evaluated. Its decay is the run's `ema`.

    teaches  it is handed to the loss, as `teacher`
    buffers  BatchNorm's statistics are averaged too; False: the teacher keeps those of its own passes
    """

    teaches: bool = False
    buffers: bool = True


@dataclass(frozen=True)
class Needs:
    """What a method asks of data and engine.

    views       further views by name, with the strength of their augmentation: 0 is the clean image, 1 the training
                view
    supplement  images of each present class that a batch is filled up to; 0 for none
    unlabelled  images without labels; None for none
    average     an average of the weights; None: one only where the run asks for it
    """

    views: Mapping[str, float] = field(default_factory=dict)
    supplement: int = 0
    unlabelled: Unlabelled | None = None
    average: Average | None = None
