"""gradient_noise.py: what the random blending of features adds to the noise of the gradient, and where it points.

Claimed for blended features: their randomness is useful noise, and the two parts of the loss complement each other.
Chosen, since no paper gives a formula. Legend: G_r = gradient of a part's loss at fixed weights under the r-th draw,
R = draws, D_r = G_r - G_1, so that nothing cancels; three vectors are held, never R.

    trace_cov = (sum_r ||D_r||^2 - R ||mean D||^2) / (R - 1)        mean_sq = ||mean G||^2 - trace_cov / R
    noise     = trace_cov / mean_sq
    share     = weight^2 trace_cov(blends) / trace_cov(total loss over batches, augmentation, ratios, blends)
    cosine    of the mean gradients of two parts; beside it that of one part on two disjoint batches

A part that is the mean of P independent blends has 1 / P of the trace: a self-check, not a finding. Weights, BatchNorm
averages and gradients are left as they were found; dropout is off; BatchNorm sees the batch, as in training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mixcli.nets.staged import StagedNet

TOTAL = "total"
Places = Mapping[str, slice]  # stage, or `head`, or `total` -> where its parameters lie in a flat gradient


@dataclass(frozen=True)
class Noise:
    """Draws of one gradient, by place.

    draws      R
    mean       (n,) float32: the mean gradient
    trace_cov  trace of the covariance of the draws
    mean_sq    squared norm of the gradient's expectation, unbiased, so it can fall below 0
    """

    draws: int
    mean: Tensor
    trace_cov: dict[str, float]
    mean_sq: dict[str, float]

    @property
    def noise(self) -> dict[str, float]:
        """Trace over squared norm; nan where the draws cannot tell the norm from 0."""
        return {place: trace / self.mean_sq[place] if self.mean_sq[place] > 0 else math.nan
                for place, trace in self.trace_cov.items()}  # fmt: skip


def spread(gradients: Iterable[Tensor], places: Places) -> Noise:
    """The noise of R >= 2 flat gradients, one at a time. Raises ValueError for fewer."""
    stream = iter(gradients)
    first = next(stream)
    total = torch.zeros_like(first)
    squares, count = dict.fromkeys(places, 0.0), 1
    for gradient in stream:
        moved = gradient - first
        total += moved
        count += 1
        for place, at in places.items():
            squares[place] += _square(moved[at])
    if count < 2:
        raise ValueError("the noise of one draw is not defined")
    shift = total / count
    mean = first + shift
    trace = {p: max(0.0, squares[p] - count * _square(shift[at])) / (count - 1) for p, at in places.items()}
    norm = {p: _square(mean[at]) - trace[p] / count for p, at in places.items()}
    return Noise(count, mean, trace, norm)


def _square(values: Tensor) -> float:
    return float(values.double().square().sum())


def cosine(a: Tensor, b: Tensor, places: Places) -> dict[str, float]:
    """Cosine of two flat gradients, by place; nan where one is 0."""
    return {place: _cosine(a[at].double(), b[at].double()) for place, at in places.items()}


def _cosine(a: Tensor, b: Tensor) -> float:
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length > 0 else math.nan


# --------------------------------------------------------------------------------------------------- gradients of a net


def places(net: StagedNet) -> Places:
    """Where the parameters of each stage, of what follows them, and of the head lie in a flat gradient."""
    found, start = {}, 0
    for name, module in (*net.stages.items(), ("neck", net.neck), ("head", net.head)):
        size = sum(p.numel() for p in module.parameters())
        if size:
            found[name] = slice(start, start + size)
            start += size
    return {**found, TOTAL: slice(0, start)}


def gradient(net: StagedNet, loss: Tensor) -> Tensor:
    """(n,) float32: the gradient of a loss by all parameters, in the order of `places`; `.grad` is not touched."""
    modules = (*net.stages.values(), net.neck, net.head)
    parameters = [p for module in modules for p in module.parameters()]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, found, strict=True)]
    )


@contextmanager
def undisturbed(net: StagedNet) -> Iterator[None]:
    """Inside, the net computes as in training but for dropout, with gradients; BatchNorm's averages and every mode are
    set back afterwards."""
    modes = {module: module.training for module in net.modules()}
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    net.train()
    for module in net.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.training = False
    try:
        with torch.enable_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        with torch.no_grad():
            for name, buffer in net.named_buffers():
                buffer.copy_(buffers[name])
