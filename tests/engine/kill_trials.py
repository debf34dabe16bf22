"""Kills a training run at random moments while it saves every step: python -m tests.engine.kill_trials FOLDER TRIALS

Prints the step found after each kill. Fails where a checkpoint cannot be read, goes back, or the last one is not a
step of the undisturbed run, bit for bit.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from mixcli import options
from mixcli.data import sources
from mixcli.engine import checkpoint
from mixcli.recipe import Train
from mixcli.runs import Run, name
from tests.engine import harness


def main(root: Path, trials: int) -> None:
    torch.set_num_threads(1)
    train, rng = harness.settings(epochs=400, save_every=1), random.Random(0)
    run = Run(root / name(train, options.identity(train, sources.look(train))))
    sources.load(train)  # imports scikit-learn once, not in every child
    reached = 0
    for _ in range(trials):
        child = os.fork()
        if child == 0:
            train_until_killed(root, train)
        wait_for_progress(run.checkpoint)
        time.sleep(rng.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        step = checkpoint.load(run.checkpoint, resume=True)["step"]
        assert step > reached, (step, reached)
        reached = step
        print(step, flush=True)
    compare(root, train, run, reached)


def train_until_killed(root: Path, train: Train) -> None:
    try:
        made = harness.training(root, train)
        with made.machine.session():
            if made.run.checkpoint.exists():
                made.restore(made.run.checkpoint)
            made.go()
    finally:
        os._exit(0)


def wait_for_progress(path: Path) -> None:
    """Until the file has been replaced once more; a hang fails after a minute."""
    before = path.stat().st_ino if path.exists() else None
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and path.stat().st_ino != before:
            return
        time.sleep(0.002)
    raise AssertionError("the run saved nothing for a minute")


def compare(root: Path, train: Train, run: Run, step: int) -> None:
    """The weights after all the kills are those of a run that was left alone until the same step."""
    alone = harness.training(root / "alone", train)
    alone.reporter.at = step
    with alone.machine.session():
        try:
            alone.go()
        except harness.UserError as stopped:
            assert stopped.exit_code == 75
    found, expected = checkpoint.load(run.checkpoint)["net"], alone.state.net.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
