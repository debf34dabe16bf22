"""learner.py: Learner, a net and a method's loss as one module, and the teacher where the method has one.

One module, so that whatever wraps a training step (compilation, CUDA graphs, distribution) wraps the whole loss:
reaching past a wrapper leaves ranks with different weights, silently. It holds functions, not modules of its own
making, and can be copied deeply.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mixcli.mix import Batch, Losses, implementation
from mixcli.nets.staged import StagedNet
from mixcli.settings import Method


class Learner(nn.Module):
    """`forward(batch, plan) -> Losses`; draws nothing but dropout.

    teacher  averaged weights that the loss looks at and no gradient reaches; what moves them is the State
    """

    def __init__(self, net: StagedNet, settings: Method, teacher: StagedNet | None = None):
        super().__init__()
        self.net = net
        self.teacher = teacher
        self.settings = settings
        self.loss = implementation(settings).loss

    def forward(self, batch: Batch, plan: Any) -> Losses:
        if self.teacher is None:
            return self.loss(self.settings, self.net, batch, plan)
        return self.loss(self.settings, self.net, batch, plan, self.teacher)


def of_any_size(batch: Batch, plan: Any) -> None:
    """Marks as dynamic what grows with the batch, so that a compiled learner is not a graph for each size of it.

    Images stand along a tensor's first dimension or its second. Heights and widths stay known: with these dynamic too,
    the shifted windows of a Swin take minutes to capture.
    """
    sizes = {len(batch.labels), len(batch.rows)}
    for tensor in _tensors((batch, plan)):
        for dim in (dim for dim, length in enumerate(tensor.shape[:2]) if length in sizes):
            torch._dynamo.maybe_mark_dynamic(tensor, dim)


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors inside a batch or a plan."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        yield from _tensors([getattr(value, field.name) for field in fields(value)])
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _tensors(inner)
