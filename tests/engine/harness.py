"""A run of a few dozen steps on digits, stopped where a test wants it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mixcli import options
from mixcli.data import sources
from mixcli.engine import device
from mixcli.engine.stopping import Stop
from mixcli.engine.training import Training, loaded
from mixcli.errors import UserError
from mixcli.recipe import Train, complete
from mixcli.runs import Run, name
from mixcli.settings import Method, NoMixing, SemiSupervised

STEPS, EPOCHS = 6, 4  # per epoch; 24 in all


class Quiet:
    """A reporter that only remembers, and asks `stop` to stop after a step."""

    def __init__(self, stop: Stop | None = None, at: int | None = None):
        self.stop, self.at = stop, at
        self.rows: list[dict[str, Any]] = []
        self.warnings: list[str] = []

    def note(self, line: str) -> None: ...

    def warn(self, subject: str, problem: str) -> None:
        self.warnings.append(f"{subject}: {problem}")

    def step(self, done: int, total: int) -> None:
        if done == self.at and self.stop is not None:
            self.stop.deadline = 0.0

    def epoch(self, row: dict[str, Any]) -> None:
        self.rows.append(row)


def settings(method: Method | None = None, **changes: Any) -> Train:
    base = {"per_class": 12, "batch": 20, "epochs": EPOCHS, "width": 4, "method": method or NoMixing(), "threads": 1}
    if isinstance(method, SemiSupervised):  # two passes over half of the labels
        base |= {"labels": 60, "epoch_steps": STEPS}
    train = Train(**{**base, **changes})
    return complete(train, sources.look(train))


def training(root: Path, train: Train, stop_at: int | None = None) -> Training:
    """A Training with its run folder open under `root`; close the run, or leave it to the process."""
    run = Run(root / name(train, options.identity(train, sources.look(train))))
    run.open()
    run.begin(options.to_toml(train))
    stop = Stop()
    return Training(train, loaded(train), run, Quiet(stop, stop_at), device.prepare(train), stop)


def run_through(root: Path, train: Train) -> Training:
    """The uninterrupted run."""
    made = training(root, train)
    with made.machine.session():
        made.go()
    made.run.close()
    return made


def run_cut(root: Path, train: Train, cut: int, tamper: Any = None) -> Training:
    """The same run stopped after step `cut`, gone on from its checkpoint by a fresh Training."""
    first = training(root, train, stop_at=cut)
    with first.machine.session():
        try:
            first.go()
        except UserError as error:
            assert error.exit_code == 75
    first.run.close()
    second = training(root, train)
    with second.machine.session():
        second.restore(second.run.checkpoint)
        if tamper:
            tamper(second)
        second.go()
    second.run.close()
    return second


def tensors(value: Any, at: str = "") -> dict[str, torch.Tensor]:
    """Every tensor of a state, by its path."""
    if isinstance(value, torch.Tensor):
        return {at: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {k: v for key, inner in items for k, v in tensors(inner, f"{at}/{key}").items()}


def same_bits(one: Training, two: Training) -> bool:
    a, b = tensors(one.content()), tensors(two.content())
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
