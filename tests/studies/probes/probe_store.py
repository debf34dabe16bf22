"""Tiny runs for probes to look at, and nets whose answers are known."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixcli.nets.staged import StagedNet
from mixcli.settings import METHODS
from mixcli.studies.probes import catalogue as probes
from mixcli.studies.probes import probing
from mixcli.studies.probes.probing import Asked, Probed
from tests.engine import harness
from tests.studies.heard import Heard

FACTS = {"per_class": 12, "val_fraction": 0.1}


def train(root: Path, method: str = "none", **changes: Any) -> Path:
    """The folder of a run of four epochs on few digits."""
    return harness.run_through(root, harness.settings(METHODS[method](), **{**FACTS, **changes})).run.folder


def store(root: Path) -> Path:
    """Four runs: `none` that kept its epochs, `mixup`, `synermix`, and `none` with averaged weights."""
    train(root, keep="every:2")
    train(root, "mixup")
    train(root, "synermix")
    train(root, seed=1, ema=0.9)
    return root


def copied(store: Path, tmp_path: Path) -> Path:
    """A copy of a store, which a test may write to."""
    shutil.copytree(store, tmp_path / "runs")
    return tmp_path / "runs"


def suited(probe: str) -> tuple[str, dict[str, Any]]:
    """The method of a run that the probe can be made of, and options that keep it short."""
    few = {"draws": 4, "batches": 2, "points": (1, 2)}
    return ("synermix", few) if probe == "gradient-noise" else ("none", {})


def run_of(root: Path, method: str = "none", seed: int = 0) -> str:
    """The folder of one of its runs, as it would be typed."""
    return str(next(root.glob(f"*-{method}-s{seed}-*")))


def probe(name: str, run: str, reporter: Heard | None = None, **asked: Any) -> Probed:
    """What a probe finds in a run."""
    own = probes.named(name).options(**asked.pop("options", {}))
    return probing.run(Asked(name, run, options=own, **asked), reporter or Heard())


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square()


class Scaled(nn.Module):
    """x -> factor x + offset."""

    def __init__(self, factor: float, offset: float) -> None:
        super().__init__()
        self.factor, self.offset = factor, offset

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x + self.offset


def net_of(*modules: nn.Module, channels: int = 1, classes: int = 2) -> StagedNet:
    """A net of the stages a, b, ... and a linear head."""
    stages = dict(zip("abcdef", modules, strict=False))
    return StagedNet(stages, nn.Linear(channels, classes)).double().eval()


def points(*values: float) -> Tensor:
    """One-pixel images, float64."""
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)
