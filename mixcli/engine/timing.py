"""timing.py: how long a step takes here, from a few steps of the loop itself; nothing is written.

Torch is imported by whoever has a Training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

    from mixcli.engine.training import Training

WARM_UP, TIMED = 5, 20  # steps
PATIENCE = 10.0  # seconds that a glance at the pace may take, about

Clock = Callable[[], float]


class Pace(NamedTuple):
    """Wall seconds of a step, evaluations aside, and over how many steps they were measured."""

    seconds: float
    steps: int


def pace(training: Training, patience: float | None = None) -> Pace:
    """The mean of 20 steps after 5; of fewer after 1 where these would take longer than `patience` seconds.

    The Training has moved by these steps. Raises UserError where one of them is not finite.
    """
    with training.machine.session():
        clock, steps = wall_of(training.machine.device), stepping(training)
        begun = clock()
        next(steps)
        first = clock() - begun
        fit = TIMED if patience is None or first * (WARM_UP + TIMED) <= patience else max(1, int(patience / first))
        timed = min(TIMED, fit)
        list(islice(steps, WARM_UP - 1 if timed == TIMED else 0))
        begun = clock()
        list(islice(steps, timed))
        return Pace((clock() - begun) / timed, timed)


def stepping(training: Training) -> Iterator[None]:
    """Makes the steps of the training loop, one after each `next`, epoch after epoch and beyond the last."""
    while True:
        order = training.order(training.state.step // training.steps)
        for k in range(training.state.step % training.steps, training.steps):
            training.step(order, k)
            yield


def wall_of(device: torch.device) -> Clock:
    """Wall seconds, on CUDA after all that was asked for is done."""

    def wall() -> float:
        if device.type == "cuda":
            import torch

            torch.cuda.synchronize(device)
        return time.perf_counter()

    return wall
