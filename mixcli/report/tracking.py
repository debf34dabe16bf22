"""tracking.py: TensorBoard and Weights & Biases, told what a run tells: the one file that knows them.

Each is an extra, imported only when it is asked for and only once there is something to tell. It is told the rows of
metrics.jsonl, an epoch a step, and at the end the result; what it writes lies in the run's folder and is no part of the
run. One that fails is a warning, and training goes on without it. W&B is offline unless WANDB_MODE says otherwise:
`wandb sync` sends what it has written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Protocol

from mixcli import options
from mixcli.engine.job import Job, Reporter
from mixcli.errors import UserError, nearest

SUMMARY = ("accuracy", "accuracy_median_last10", "nll", "seconds")  # of a result


class Tracker(Protocol):
    """Where numbers go; opened by its constructor, with the job and the first epoch that it will be told."""

    def log(self, epoch: int, numbers: Mapping[str, float]) -> None: ...
    def close(self, summary: Mapping[str, float]) -> None: ...


class TensorBoard:
    """Event files in the run's folder, so that `tensorboard --logdir runs` shows every run beside the others."""

    def __init__(self, job: Job, first: int):
        from torch.utils.tensorboard import SummaryWriter

        # Epochs that an interrupted or overwritten run has told before are told again.
        self.writer = SummaryWriter(str(job.run.folder / "tensorboard"), purge_step=first)
        self.writer.add_text("settings", "    " + options.to_toml(job.settings).replace("\n", "\n    "), first)

    def log(self, epoch: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def close(self, summary: Mapping[str, float]) -> None:
        for name, value in summary.items():
            self.writer.add_scalar(f"result/{name}", value)
        self.writer.close()


class WandB:
    """A run of the project `mixcli`, or of WANDB_PROJECT, under the run's own name and id."""

    def __init__(self, job: Job, first: int):
        import wandb  # type: ignore[import-not-found]

        mode: Any = os.environ.get("WANDB_MODE") or "offline"
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "mixcli"), id=job.run.id, name=job.run.folder.name, resume="allow",
            dir=str(job.run.folder), config=options.flat(job.settings), mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip

    def log(self, epoch: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=epoch)

    def close(self, summary: Mapping[str, float]) -> None:
        self.run.summary.update({f"result/{name}": value for name, value in summary.items()})
        self.run.finish()


TRACKERS: dict[str, Callable[[Job, int], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB}


def check(name: str) -> None:
    """Raises UserError for a tracker that is not known or not installed; imports neither."""
    if name not in TRACKERS:
        raise UserError("usage", "--track", "unknown", got=name, hint=nearest(name, TRACKERS))
    if find_spec(name) is None:
        raise UserError("usage", "--track", f"needs the extra {name}", hint=f"pip install 'mixcli[{name}]'")


@contextmanager
def tracked(reporter: Reporter, name: str | None, job: Job) -> Iterator[Reporter]:
    """A reporter that tells a tracker too, closed at the end; the reporter itself where none is asked for."""
    if name is None:
        yield reporter
        return
    telling = Tracked(reporter, name, job)
    try:
        yield telling
    finally:
        telling.close()


class Tracked:
    """Hands everything on to a reporter, and the epochs to a tracker as well."""

    def __init__(self, reporter: Reporter, name: str, job: Job):
        self.reporter, self.name, self.job = reporter, name, job
        self._tracker: Tracker | None = None
        self._failed = False

    def note(self, line: str) -> None:
        self.reporter.note(line)

    def announce(self, line: str) -> None:
        self.reporter.announce(line)

    def warn(self, subject: str, problem: str) -> None:
        self.reporter.warn(subject, problem)

    def step(self, done: int, total: int) -> None:
        self.reporter.step(done, total)

    def epoch(self, row: dict[str, Any]) -> None:
        self.reporter.epoch(row)
        self._try(lambda: self._opened(row["epoch"]).log(row["epoch"], numbers(row)))

    def close(self) -> None:
        """Tells the result, where the run has ended; a tracker that was never told anything is not opened."""
        tracker = self._tracker
        if tracker is not None:
            result = self.job.run.finished() or {}
            self._try(lambda: tracker.close({key: result[key] for key in SUMMARY if key in result}))

    def _opened(self, first: int) -> Tracker:
        self._tracker = self._tracker or TRACKERS[self.name](self.job, first)
        return self._tracker

    def _try(self, call: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            call()
        except Exception as error:  # whatever goes wrong in there costs no run
            self._failed = True
            self.reporter.warn("--track", f"{self.name} failed, training goes on ({type(error).__name__}: {error})")


def numbers(row: Mapping[str, Any], before: str = "") -> dict[str, float]:
    """The numbers of a row of the log by path, `test/accuracy`; the epoch, which is the step, left out."""
    found: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{before}{key}/")
        elif isinstance(value, int | float) and before + key != "epoch":
            found[before + key] = value
    return found
