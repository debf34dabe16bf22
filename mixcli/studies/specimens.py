"""specimens.py: the small nets, batches and contexts that laws are tried on."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from mixcli.engine.learner import Learner
from mixcli.mix import SECOND, Batch, Context, implementation
from mixcli.nets.building import build
from mixcli.nets.staged import StagedNet
from mixcli.sampling import Random
from mixcli.settings import Method

CLASSES = 5
UNLABELLED = 6  # images without labels beside a batch


def net(seed: int = 0, channels: int = 3, classes: int = CLASSES, width: int = 4) -> StagedNet:
    return build("small", channels, classes, width, Random(seed, "init"))


def labels(batch: int, classes: int = CLASSES, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, batch)


def context(batch: int = 8, height: int = 8, width: int = 8, classes: int = CLASSES) -> Context:
    return Context(
        (batch, height, width), labels(batch, classes), classes, 0, _sizes(height, width), UNLABELLED, 1.5, 4
    )


@cache
def _sizes(height: int, width: int) -> dict[str, tuple[int, int] | None]:
    return net().sizes(3, height, width)


def images(
    batch: int = 8, height: int = 8, width: int = 8, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """(B, 3, H, W), standard normal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, height, width, generator=generator, dtype=torch.float64).to(dtype)


def rows(
    settings: Method, batch: int = 8, height: int = 8, width: int = 8, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The stacked views that a Mix of these settings takes its sources from."""
    views = ("images", *implementation(settings).needs(settings).views)
    return torch.cat([images(batch, height, width, seed, dtype) for seed in range(len(views))])


def batch(settings: Method, size: int = 8, device: str = "cpu") -> Batch:
    """A batch with all that the method asks for beside the images."""
    needs = implementation(settings).needs(settings)
    extra = {name: images(size, seed=i + 1).to(device) for i, name in enumerate(needs.views)}
    mixed = [images(size).to(device), *([extra.pop(SECOND)] if SECOND in extra else [])]
    asked = needs.unlabelled
    unlabelled = () if asked is None else tuple(images(UNLABELLED, seed=50 + i).to(device) for i in range(asked.views))
    return Batch(torch.cat(mixed), torch.from_numpy(labels(size)).to(device), CLASSES, 0.0, extra, unlabelled)


def learner(settings: Method, model: StagedNet | None = None) -> Learner:
    """A net and the loss of a method; its teacher, where it has one, has other weights than the net."""
    model = model or net()
    asked = implementation(settings).needs(settings).average
    if asked is None or not asked.teaches:
        return Learner(model, settings)
    teacher = net(seed=9).requires_grad_(False).train(model.training)
    return Learner(model, settings, teacher)
