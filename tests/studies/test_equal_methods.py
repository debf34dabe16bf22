"""How often the printed sentence calls equal methods different, counted on real training runs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from mixcli import options
from mixcli.cli import main
from mixcli.engine import job
from mixcli.engine.stopping import Stop
from mixcli.studies import workers
from mixcli.studies.design import Cell
from mixcli.studies.significance import Arm, compare, sentence

RUNS, DRAWS, SIZES = 240, 20_000, (5, 8, 10)
BASE = {"dataset": "digits", "per_class": "10", "epochs": "30", "eval_every": "30", "threads": "1"}
STUDY = f"""
study = "equal"
seeds = {list(range(RUNS))}
[base]
dataset = "digits"
per_class = 10
epochs = 30
eval_every = 30
[arms.none]
method = "none"
"""


def claimed(a: Arm, b: Arm, test: str) -> bool:
    """Whether a reader is told that one of the two is above the other."""
    found = compare(a, b, test)  # pyright: ignore[reportArgumentType]
    return found.p < 0.05 and " above " in sentence(found, found.p)


@pytest.mark.stress
def test_rule_13_two_arms_of_plain_training_are_called_different_in_5_percent_of_studies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("equal.toml").write_text(STUDY)
    assert main(["ablate", "equal.toml", "--quiet"]) == 0
    with Path("studies/equal/runs.csv").open() as file:
        points = np.array([float(row["test.top1"]) for row in csv.DictReader(file)])
    assert len(points) == RUNS and points.std() > 0
    rng = np.random.default_rng(0)
    for n in SIZES:
        claims = 0
        for _ in range(DRAWS):
            drawn = rng.choice(points, 2 * n, replace=False)
            claims += claimed(Arm("A", drawn[:n]), Arm("B", drawn[n:]), "welch")
        print(f"n = {n}: {100 * claims / DRAWS:.2f} %")
        assert claims / DRAWS <= 0.055


@pytest.mark.stress
def test_rule_13_of_pairs_that_share_the_split_and_differ_in_the_seed(tmp_path, monkeypatch):
    """Pair k has split seed k and run seeds 2k and 2k + 1; which of the two is called A is drawn for each pair."""
    monkeypatch.chdir(tmp_path)
    cells = [cell(split=seed // 2, seed=seed) for seed in range(RUNS)]
    workers.Local(workers.slots(None, 1, 1)).run(cells, lambda ended: None, Stop())
    results = [c.job.run.finished() for c in cells]
    points = 100 * np.array([result["accuracy"] for result in results if result is not None]).reshape(-1, 2)
    assert len(points) == RUNS // 2 and len({result["train_digest"] for result in results if result}) == RUNS // 2
    print(f"r = {np.corrcoef(points.T)[0, 1]:.2f}, SD of runs {points.std(ddof=1):.2f}, of differences "
          f"{(points[:, 0] - points[:, 1]).std(ddof=1):.2f} points")  # fmt: skip
    rng = np.random.default_rng(0)
    for n in SIZES:
        claims, seeds = 0, tuple(range(n))
        for _ in range(DRAWS):
            drawn = rng.permuted(points[rng.choice(len(points), n, replace=False)], axis=1)
            claims += claimed(Arm("A", drawn[:, 0], seeds), Arm("B", drawn[:, 1], seeds), "paired")
        print(f"paired, n = {n}: {100 * claims / DRAWS:.2f} %")
        assert claims / DRAWS <= 0.055


def cell(split: int, seed: int) -> Cell:
    typed = BASE | {"split_seed": str(split), "seed": str(seed)}
    return Cell("none", seed, job.new(options.gather(typed, None, {}), resume=True))
