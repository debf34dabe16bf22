"""How often the printed sentence calls equal methods different, counted on real training runs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from mixcli.cli import main
from mixcli.studies.significance import Arm, compare, sentence

RUNS, DRAWS = 240, 20_000
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


@pytest.mark.stress
def test_rule_13_two_arms_of_plain_training_are_called_different_in_5_percent_of_studies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("equal.toml").write_text(STUDY)
    assert main(["ablate", "equal.toml", "--quiet"]) == 0
    with Path("studies/equal/runs.csv").open() as file:
        points = np.array([float(row["test.top1"]) for row in csv.DictReader(file)])
    assert len(points) == RUNS and points.std() > 0
    rng = np.random.default_rng(0)
    for n in (5, 8, 10):
        claims = 0
        for _ in range(DRAWS):
            drawn = rng.choice(points, 2 * n, replace=False)
            found = compare(Arm("A", drawn[:n]), Arm("B", drawn[n:]))
            claims += found.p < 0.05 and " above " in sentence(found, found.p)
        print(f"n = {n}: {100 * claims / DRAWS:.2f} %")
        assert claims / DRAWS <= 0.055
