"""Kills a whole study at random moments and starts it again: python -m tests.studies.study_trials FOLDER KILLS [N]

With N processes that share the work, one of them is killed each time and the others are stopped. Fails where a cell is
lost, done twice, or where the tables at the end are not those of a study that was left alone, byte for byte.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mixcli import runs
from mixcli.runs import Run
from tests.studies.study import digests

STUDY = """
study = "small"
question = "which?"
seeds = [0, 1, 2]
[base]
per_class = 6
batch = 20
width = 4
epochs = 12
save_every = 1
[arms.none]
method = "none"
[arms.mixup]
method = "mixup"
"""
CELLS = 6


def start(folder: Path, *words: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """The study in a process of its own, with one worker."""
    folder.mkdir(exist_ok=True)
    (folder / "small.toml").write_text(STUDY)
    argv = [sys.executable, "-m", "mixcli.cli", "ablate", "small.toml", "--devices", "cpu:1", *words]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MIXCLI_")} | (environment or {})
    return subprocess.Popen(argv, cwd=folder, env=clean, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and what it told."""
    _, told = process.communicate(timeout=300)
    return process.returncode, told


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """The runs that are done: inode and time of each result."""
    found = [Run(path) for path in runs.all_runs(folder / "runs")]
    stats = {run.id: run.result.stat() for run in found if run.finished() is not None}
    return {id: (stat.st_ino, stat.st_mtime_ns) for id, stat in stats.items()}


def at_work(folder: Path) -> list[Path]:
    """Checkpoints of runs that are not done."""
    found = [Run(path) for path in runs.all_runs(folder / "runs")]
    return [run.checkpoint for run in found if run.finished() is None and run.checkpoint.exists()]


def orphans(folder: Path) -> list[int]:
    """Workers that were started in `folder` and still live."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if "mixcli.studies.workers" in (path / "cmdline").read_text() and (path / "cwd").readlink() == folder:
                found.append(int(path.name))
        except OSError:
            continue
    return found


def until(true, what: str) -> None:
    """Waits for `true()`; a hang fails after two minutes."""
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def logged(folder: Path) -> int:
    """Epochs that all runs together have logged: how far the study is, on a machine of any speed."""
    return sum(path.read_bytes().count(b"\n") for path in (folder / "runs").glob("*/metrics.jsonl"))


def kill_at_random(folder: Path, together: int, rng: random.Random) -> None:
    """Starts the study, kills one of its processes after some epochs, and waits until nobody of it is left."""
    before, enough = finished(folder), logged(folder) + rng.randint(1, 12)
    processes = [start(folder) for _ in range(together)]
    until(lambda: logged(folder) >= enough or len(finished(folder)) == CELLS, "no epoch was made")
    time.sleep(rng.uniform(0, 0.05))
    victim = rng.choice(processes)
    for process in processes:
        process.send_signal(signal.SIGKILL if process is victim else signal.SIGUSR1)
    for other in processes:
        code, told = ended(other)
        assert other is victim or code in (0, 75, -signal.SIGUSR1), told  # the last: it was not listening yet
    until(lambda: not orphans(folder), "a worker outlived its study")
    after = finished(folder)
    assert before.items() <= after.items(), "a cell that was done was lost or done again"
    print(f"killed after {logged(folder)} epochs, {len(after)} of {CELLS} cells done", flush=True)


def undisturbed(folder: Path) -> None:
    code, told = ended(start(folder))
    assert code == 0, told


def trial(
    root: Path, kills: int, together: int = 1, seed: int = 0, left_alone: Callable[[Path], None] = undisturbed
) -> None:
    """Kills a study several times, ends it, and compares it with one that was left alone."""
    rng, killed, alone = random.Random(seed), root / "killed", root / "alone"
    for _ in range(kills):
        kill_at_random(killed, together, rng)
    before = finished(killed)
    code, told = ended(start(killed))
    assert code == 0, told
    after = finished(killed)
    assert before.items() <= after.items() and len(after) == CELLS == len(list(runs.all_runs(killed / "runs")))
    left_alone(alone)
    assert digests(killed / "studies/small") == digests(alone / "studies/small")
    assert not [path for path in killed.rglob("*.mixcli-tmp")]


if __name__ == "__main__":
    trial(Path(sys.argv[1]).resolve(), int(sys.argv[2]), *map(int, sys.argv[3:4]))
