"""learner.py: Learner, a net and a method's loss as one module.

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
    """`forward(batch, plan) -> Losses`; draws nothing but dropout."""

    def __init__(self, net: StagedNet, settings: Method):
        super().__init__()
        self.net = net
        self.settings = settings
        self.loss = implementation(settings).loss

    def forward(self, batch: Batch, plan: Any) -> Losses:
        return self.loss(self.settings, self.net, batch, plan)
