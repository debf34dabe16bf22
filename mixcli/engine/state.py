"""state.py: what an update moves: weights, their average, optimizer, schedule, the step's number, the sums for the log.

A step is one update: with `accumulate` its gradient is the mean over several batches, and the schedule, the average and
the step's number move once for all of them.

Nothing random is here: draws are keyed by the step's number, so this is all that a resumed run needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mixcli.engine import schedule
from mixcli.engine.device import Machine
from mixcli.mix import Average, Losses
from mixcli.nets.staged import StagedNet
from mixcli.recipe import Train


@dataclass
class Progress:
    """Sums over the batches of the running epoch, on the device; saved too, so that a resumed log line is exact.

    steps  how many batches were added
    """

    names: list[str] = field(default_factory=list)
    sums: Tensor | None = None
    steps: int = 0
    images: int = 0
    seconds: float = 0.0

    def add(self, losses: Losses) -> None:
        values = torch.stack([value.double() for value in losses.parts.values()])
        self.names = list(losses.parts)
        self.sums = values if self.sums is None else self.sums + values
        self.steps += 1

    def means(self) -> dict[str, float]:
        if self.sums is None:
            return {}
        return dict(zip(self.names, (self.sums / self.steps).tolist(), strict=True))


def optimizer(net: StagedNet, settings: Train, fused: bool) -> torch.optim.Optimizer:
    """The optimizer of completed settings over all weights of a net."""
    lr, decay = settings.lr or 0.0, settings.weight_decay or 0.0
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=decay, fused=fused)
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=settings.momentum, nesterov=settings.nesterov,
                           weight_decay=decay, fused=fused)  # fmt: skip


def mean_total(losses: Sequence[Losses]) -> Tensor:
    """() the loss of a step: the mean over its batches, each of one weight, without its graph."""
    return torch.stack([batch.total.detach() for batch in losses]).mean()


EARLY = 20  # the first twentieth of the steps


class State:
    """A net in training after `step` updates.

    steps    per epoch
    average  what the method asks of averaged weights
    """

    def __init__(self, net: StagedNet, settings: Train, machine: Machine, steps: int, average: Average | None = None):
        self.net = net
        self.average, self.decay = average, settings.ema or 0.0
        self.ema = AveragedModel(net, use_buffers=True).requires_grad_(False) if self.decay else None
        self.optimizer = optimizer(net, settings, fused=machine.device.type == "cuda")
        self.clip = settings.clip
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, schedule.factor(settings, steps))
        self.step = 0
        self.progress = Progress()
        self.best: float | None = None  # validation accuracy
        # The loss of each of the first steps, on the device; 0 until its step is made.
        early = steps * (settings.epochs or 0) // EARLY
        self.early = torch.zeros(early, dtype=torch.float64, device=machine.device)

    @property
    def evaluated(self) -> StagedNet:
        """The net that is evaluated: averaged weights where the run has them."""
        averaged = self.net if self.ema is None else self.ema.module
        assert isinstance(averaged, StagedNet)
        return averaged

    @property
    def teacher(self) -> StagedNet | None:
        """The averaged net, where the method's loss looks at it."""
        return self.evaluated if self.average is not None and self.average.teaches else None

    def lr(self, step: int) -> float:
        """The learning rate of the update that follows `step` others."""
        return float(self.scheduler.base_lrs[0]) * self.scheduler.lr_lambdas[0](step)

    def gradient_norm(self) -> Tensor:
        """() of all gradients together, on the device."""
        return torch.nn.utils.get_total_norm([p.grad for p in self.net.parameters() if p.grad is not None])

    def update(self, losses: Sequence[Losses], images: int, norm: Tensor) -> None:
        """One step of the optimizer with the gradients at hand, and all that follows it.

        losses  of the batches whose gradients were averaged
        norm    of the gradients before they are clipped
        """
        if self.clip:
            torch.nn.utils.clip_grads_with_norm_(self.net.parameters(), self.clip, norm)
        self.optimizer.step()
        self.scheduler.step()
        self._average()
        for batch in losses:
            self.progress.add(batch)
        self.progress.images += images
        if self.step < len(self.early):
            self.early[self.step] = mean_total(losses)
        self.step += 1

    def early_spread(self) -> float | None:
        """Standard deviation of the log of the first losses; None for fewer than 3, or where one is lost."""
        if len(self.early) < 3:
            return None
        spread = float(self.early.cpu().log().std())
        return spread if math.isfinite(spread) else None

    @torch.no_grad()
    def _average(self) -> None:
        """One step of the moving average; `update_parameters` would do the same and wait for a GPU.

        A run's own average starts with a copy. One that the method asks for starts with the first weights and warms up:
        after update t its decay is min(1 - 1 / (t + 1), decay). A teacher with statistics of its own keeps its buffers.
        """
        if self.ema is None:
            return
        updates = int(self.ema.n_averaged) + 1  # a counter on the host
        decay = self.decay if self.average is None else min(1 - 1 / (updates + 1), self.decay)
        started = updates > 1 or self.average is not None
        blended, copied = [], []
        for pair in zip(self._averaged(self.ema.module), self._averaged(self.net), strict=True):
            (blended if started and pair[0].is_floating_point() else copied).append(pair)
        if blended:
            averaged, current = map(list, zip(*blended, strict=True))
            get_ema_multi_avg_fn(decay)(averaged, current, updates)
        for averaged, current in copied:
            averaged.copy_(current)
        self.ema.n_averaged += 1

    def _averaged(self, net: torch.nn.Module) -> list[Tensor]:
        """What of a net is averaged."""
        own = self.average is not None and not self.average.buffers
        return list(net.parameters()) if own else list(net.state_dict().values())

    def content(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint."""
        return {
            "step": self.step,
            "net": self.net.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": {"last_epoch": self.scheduler.last_epoch},
            "progress": dict(vars(self.progress)),
            "best": self.best,
            "early": self.early,
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Takes over what `content` returned, in this process or another; raises a built-in error where it cannot."""
        self.step, self.best = content["step"], content["best"]
        early = content.get("early", self.early[:0])  # checkpoints of older versions have none
        kept = min(len(early), len(self.early))  # a run that is extended has a longer first twentieth
        self.early[:kept] = early[:kept].to(self.early.device)
        self.net.load_state_dict(content["net"])
        if self.ema is not None:
            self.ema.load_state_dict(content["ema"])
        self.optimizer.load_state_dict(content["optimizer"])
        # Weights that have no gradient, as a net of one's own may hold, have no momentum either.
        if self.step and self.optimizer.defaults.get("momentum", True) and not self.optimizer.state:
            raise ValueError("the optimizer's momentum is missing")
        self.schedule_at(content["scheduler"]["last_epoch"])
        self.progress = Progress(**content["progress"])
        if self.progress.sums is not None:
            self.progress.sums = self.progress.sums.to(self.net.head.weight.device)

    def schedule_at(self, step: int) -> None:
        """Puts the schedule at `step`: the optimizer's own lr was written under the schedule of the checkpoint."""
        self.scheduler.last_epoch = step
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(step)
