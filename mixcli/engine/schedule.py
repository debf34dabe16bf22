"""schedule.py: the learning rate as a function of the step alone, so a resumed run cannot lose its place.

A step is an update, however many batches its gradient is the mean of; the rate is not scaled by their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from mixcli.recipe import Train

WARM, START, END = (
    0.3,
    1 / 25,
    1 / 25e4,
)  # one-cycle: share of steps that rise, first and last factor; torch's own defaults


def factor(settings: Train, steps: int) -> Callable[[int], float]:
    """The factor on `lr` for each training step, counted from 0; `steps` is the number of steps per epoch.

    cosine     half a cosine to 0, constant within an epoch (OpenMixup); it may be cut off before its end (ICT)
    constant   1 (MixMatch)
    step       `step_factor` every `step_every` epochs (SynerMix)
    one-cycle  cosine up over the first 30 % of all steps and down over the rest (L. Smith, N. Topin 2017, arXiv
    1708.07120)

    Over the first `warmup` epochs it is multiplied by 1/W, 2/W, ..., 1, with W their steps: constant, step and cosine
    keep their places, and the peak is lower where they fall meanwhile. One-cycle has a rise of its own and takes none.
    """
    scheduled, warm = _scheduled(settings, steps), round(settings.warmup * steps)
    return scheduled if warm == 0 else lambda step: scheduled(step) * min(1.0, (step + 1) / warm)


def _scheduled(settings: Train, steps: int) -> Callable[[int], float]:
    """The same without the warm-up."""
    epochs = settings.epochs or 1
    if settings.schedule == "constant":
        return lambda step: 1.0
    if settings.schedule == "cosine":
        length = settings.schedule_epochs or epochs
        return lambda step: 0.5 * (1 + math.cos(math.pi * min(1.0, step // steps / length)))
    if settings.schedule == "step":
        return lambda step: settings.step_factor ** (step // steps // settings.step_every)
    last = max(1, epochs * steps - 1)
    return lambda step: _one_cycle(min(1.0, step / last))


def _one_cycle(progress: float) -> float:
    if progress < WARM:
        return _cosine(START, 1.0, progress / WARM)
    return _cosine(1.0, END, (progress - WARM) / (1 - WARM))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
