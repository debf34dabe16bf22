"""budget.py: what a study costs before it is started: hours, disk and power, from what was measured and never guessed.

Seconds per step and bytes per cell come from finished runs of the store that are like the cell. Where there is none,
`measure` makes a few steps of it and weighs its checkpoint; without that they are unknown. Hours are those of training
steps, as runs count them; evaluations are not in them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixcli import options, runs, toml
from mixcli.engine import timing
from mixcli.engine.stopping import Stop
from mixcli.errors import UserError
from mixcli.recipe import epoch_steps, kept_epochs
from mixcli.runs import Run
from mixcli.studies.design import Cell, Design

ASSUMED_SD = 0.4  # points, over runs, where nothing was measured: what CIFAR-100 studies report
CHECKPOINTS = ("run.ckpt", "previous.ckpt", "best.ckpt")  # the files of a run's folder that count


@dataclass
class Budget:
    """Seconds and bytes that a cell takes.

    step    net, data set, method -> median seconds per step of finished runs, or measured
    folder  net, width, data set, what is kept -> median bytes of checkpoints in the folders of finished runs, or of the
            checkpoints that a measured cell will leave
    measured  the cells that were timed and weighed
    """

    step: dict[tuple[Any, ...], float]
    folder: dict[tuple[Any, ...], float]
    measured: list[Cell] = field(default_factory=list)

    def seconds(self, cell: Cell) -> float | None:
        """None where no such run has ended, nor was measured."""
        found = self.step.get(_like(cell))
        return None if found is None else found * steps(cell)

    def bytes(self, cell: Cell) -> float | None:
        """None where no such run has ended, nor was measured."""
        return self.folder.get(_weighed(options.flat(cell.job.settings)))

    def measure(self, cells: Iterable[Cell], device: str, note: Callable[[str], None] = lambda line: None) -> None:
        """Times and weighs one cell of each kind that is not known. Raises UserError where it could not start."""
        for cell in cells:
            if self.seconds(cell) is not None and self.bytes(cell) is not None:
                continue
            note(f"{cell.name}  {timing.TIMED} steps after {timing.WARM_UP} on {device}")
            seconds, size = measured(cell, device)
            self.step.setdefault(_like(cell), seconds)
            self.folder.setdefault(_weighed(options.flat(cell.job.settings)), size)
            self.measured.append(cell)


def of_runs(root: Path) -> Budget:
    """What the finished runs under `root` tell."""
    step: dict[tuple[Any, ...], list[float]] = {}
    folder: dict[tuple[Any, ...], list[float]] = {}
    for run in map(Run, runs.all_runs(root)):
        result = run.finished()
        if result is None or not result.get("steps") or not isinstance(result.get("seconds"), int | float):
            continue
        key = result.get("net"), result.get("dataset"), str(result.get("method")).partition("(")[0]
        step.setdefault(key, []).append(result["seconds"] / result["steps"])
        with_settings = _settings(run)
        if with_settings is not None:
            folder.setdefault(_weighed(with_settings), []).append(_size(run))
    return Budget(_medians(step), _medians(folder))


def _medians(found: Mapping[tuple[Any, ...], list[float]]) -> dict[tuple[Any, ...], float]:
    return {key: statistics.median(values) for key, values in found.items()}


def _settings(run: Run) -> dict[str, Any] | None:
    """The settings of a run, as its file has them; None for a file that is damaged, which is another's concern."""
    try:
        return toml.read(run.settings)
    except UserError:
        return None


def _like(cell: Cell) -> tuple[Any, ...]:
    train = cell.job.settings
    return train.net, train.dataset, train.method.name


def _weighed(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides the size of a cell's checkpoints."""
    held_out, averaged = bool(settings.get("val_fraction")), bool(settings.get("ema"))
    kept = settings.get("keep") and (settings["keep"], settings.get("epochs"))
    twice = settings.get("epochs") != 1 or bool(settings.get("save_every"))
    return settings.get("net"), settings.get("width"), settings.get("dataset"), held_out, averaged, kept, twice


def _size(run: Run) -> int:
    paths = [*(run.folder / name for name in CHECKPOINTS), *run.epochs.glob("*.ckpt")]
    return sum(path.stat().st_size for path in paths if path.is_file())


def steps(cell: Cell) -> int:
    """Updates of a cell."""
    train = cell.job.settings
    assert train.epochs is not None
    return epoch_steps(train, cell.job.facts) * train.epochs


def measured(cell: Cell, device: str) -> tuple[float, int]:
    """Seconds per step of a cell, of 20 steps after 5, and bytes of the checkpoints it will leave; writes nothing.

    Raises UserError for whatever would stop the cell before its first step.
    """
    from mixcli.engine import checkpoint, training

    train = cell.job.settings.model_copy(update={"device": device})
    made = training.ready(train, cell.job.run, training.Silent(), Stop())
    seconds = timing.pace(made).seconds
    content = made.content()
    whole = len(checkpoint.serialise(content))
    weights = len(checkpoint.serialise(checkpoint.weights(content)))
    files = (1 if train.epochs == 1 and not train.save_every else 2) + bool(train.val_fraction)
    return seconds, files * whole + len(kept_epochs(train)) * weights


def total(numbers: Sequence[float | None]) -> float | None:
    """Their sum; None where one is unknown."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def power(design: Design, sd: float = ASSUMED_SD) -> dict[str, Any]:
    """What the planned number of runs can see, at an assumed deviation over runs."""
    from mixcli.studies import significance

    count, paired = len(design.fields.seeds), design.fields.test == "paired"
    counts, weights = ((count,) if paired else (count, count)), significance.WEIGHTS[design.fields.test]
    gaps = sorted({design.fields.sesoi, *significance.GAPS}, reverse=True)
    return {
        "runs_per_arm": count, "test": design.fields.test, "assumed_sd": sd,
        "of": "the differences" if paired else "each arm", "claim_runs": significance.CLAIM_RUNS,
        "gaps": [{"gap": gap, "power": significance.power(gap, sd, counts, weights) if count > 1 else None,
                  "runs_for_80": significance.runs_for(gap, sd, weights)} for gap in gaps],
    }  # fmt: skip
