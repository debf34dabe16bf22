"""learner.py: Learner, a net and a method's loss as one module, and the teacher where the method has one.

One module, so that whatever wraps a training step (compilation, CUDA graphs, distribution) wraps the whole loss:
reaching past a wrapper leaves ranks with different weights, silently. It holds functions, not modules of its own
making, and can be copied deeply.
"""

from __future__ import annotations

from typing import Any

from torch import nn

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
