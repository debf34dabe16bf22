"""test_overhead.py: blocks of the loop's own steps, in turned order, and ratios with an interval over blocks."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from mixcli.cli import main
from mixcli.engine import training
from mixcli.studies import design, overhead
from mixcli.studies.overhead import Block
from mixcli.studies.written import Typed
from tests.studies.study import ARMS, TINY, write

pytestmark = pytest.mark.usefixtures("folder")

TIMED = TINY + ARMS + "[timing]\nwarm_up = 3\nsteps = 4\nblocks = 3\n[timing.published]\nmixup = 1.11\n"


def test_blocks_are_timed_after_the_warm_up_in_an_order_that_is_reversed_every_second_time(monkeypatch, capsys):
    made: list[str] = []
    step = training.Training.step

    def counted(self, order, k):
        made.append(self.settings.method.name)
        step(self, order, k)

    monkeypatch.setattr(training.Training, "step", counted)
    monkeypatch.setattr(overhead, "clock_of", lambda device: lambda: float(len(made)))
    assert main(["ablate", write(TIMED), "--devices", "cpu:1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["result"]
    assert made == ["none"] * 7 + ["mixup"] * 14 + ["none"] * 14 + ["mixup"] * 7
    assert [(b["arm"], b["block"]) for b in found["blocks"]] == [
        ("none", 0), ("mixup", 0), ("mixup", 1), ("none", 1), ("none", 2), ("mixup", 2)]  # fmt: skip
    assert all(block["seconds_per_step"] == 1.0 and block["images_per_step"] == 20 for block in found["blocks"])
    plain, mixup = found["rows"]
    assert plain["seconds_per_epoch"] == 3.0 and plain["seconds_per_image"] == 0.05 and plain["peak_bytes"] is None
    assert mixup["ratio"] == mixup["low"] == mixup["high"] == 1 and mixup["inside"] is False
    assert plain["inside"] is None and not Path("runs").exists()
    with Path("studies/small/overhead.csv").open() as file:
        assert [row["arm"] for row in csv.DictReader(file)] == ["none", "mixup"]
    assert main(["ablate", "small.toml", "--report"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "medians of 3 blocks of 4 steps, CPU time, data resident" in out and len(made) == 42
    assert "mixup: the published 1.11 is outside the interval, on this machine only" in out


def blocks(**seconds: list[float]) -> list[Block]:
    return [Block(arm, k, s, 10.0, 5, 2**20) for arm, each in seconds.items() for k, s in enumerate(each)]


def test_medians_ratio_and_whether_the_published_one_lies_inside():
    found = list(overhead.rows(blocks(none=[1.0, 1.2, 0.8], mixup=[1.5, 1.3, 1.1]), "none", {"mixup": 1.4}))
    assert found[1]["seconds_per_step"] == 1.3 and found[1]["seconds_per_epoch"] == 6.5
    assert found[1]["seconds_per_image"] == pytest.approx(0.13) and found[1]["peak_bytes"] == 2**20
    assert found[1]["ratio"] == pytest.approx(1.3) and found[1]["low"] <= 1.3 <= found[1]["high"]
    assert found[1]["inside"] is True and found[0]["ratio"] == 1
    [_, outside] = overhead.rows(blocks(none=[1.0, 1.2], mixup=[1.5, 1.3]), "none", {"mixup": 2.0})
    assert outside["inside"] is False


def test_a_block_is_drawn_of_both_arms_at_once():
    """A machine that slows down by half meets both alike: their ratio is known to the digit."""
    times = [1.0, 1.0, 1.5, 1.5, 2.0, 2.0]
    assert overhead.interval([1.11 * t for t in times], times) == pytest.approx((1.11, 1.11))
    low, high = overhead.interval([1.0, 1.1, 1.2, 1.3, 1.4, 1.5], [1.0] * 6)
    assert 1.0 <= low < 1.25 < high <= 1.5


def test_the_interval_covers_the_true_ratio():
    """Six blocks with noise of 2 %: a percentile interval of medians is a little narrow, and not more than that."""
    rng = np.random.default_rng(0)
    drawn = [overhead.interval(1.11 * rng.normal(1, 0.02, 6), rng.normal(1, 0.02, 6)) for _ in range(200)]
    assert 0.85 <= np.mean([low <= 1.11 <= high for low, high in drawn]) <= 0.99


@pytest.mark.stress
def test_the_named_study_is_measured_in_its_tiny_form_and_told(capsys):
    assert main(["ablate", "overhead", "--tiny", "--devices", "cpu:1"]) == 0
    out, err = capsys.readouterr()
    assert "2 blocks of 20 steps, CPU time, data resident" in " ".join(out.split())
    assert "miamix: the published 1.11 is " in out and "this machine only" in out
    assert "20/20  none  " in err and len([line for line in err.splitlines() if "per step" in line]) == 20
    rows = {row["arm"]: row for row in json.loads(Path("studies/overhead-tiny/overhead.json").read_text())["rows"]}
    assert rows["synermix"]["images_per_step"] == rows["none-supplement"]["images_per_step"] > 25
    assert rows["synermix"]["ratio"] > 1.2  # two passes; 2.0 by arithmetic, and this machine is shared
    assert main(["ablate", "overhead", "--tiny", "--report"]) == 0
    assert capsys.readouterr().out == out


def test_a_busy_machine_is_told(monkeypatch):
    monkeypatch.setattr(overhead.os, "getloadavg", lambda: (100.0, 0.0, 0.0))
    assert "load 100.0" in overhead._busy("cpu")
    monkeypatch.setattr(overhead.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert overhead._busy("cpu") == ""


MISTAKES = [
    (["--status"], "--status: a study of times is measured anew"),
    (["--stop-after", "3h"], "--stop-after: a study of times"),
    (["--engine", "ray"], "--engine: a study of times"),
    (["--per-device", "2"], "--per-device: a study of times"),
    (["--screen"], "--screen: the study compares times, not accuracies"),
    (["--confirm", "mixup"], "--confirm: the study compares times, not accuracies"),
    (["--report"], "--report: nothing was measured yet"),
]


@pytest.mark.parametrize(("words", "line"), MISTAKES, ids=[words[0] for words, _ in MISTAKES])
def test_what_makes_no_sense_for_times_is_refused(words, line, capsys):
    assert main(["ablate", write(TIMED), *words]) == 2
    assert capsys.readouterr().err.startswith(f"mixcli ablate: error: {line}")


FILES = [
    ("step = 4\n", "small.toml field timing.step: unknown. Did you mean steps?"),
    ("blocks = 0\n", "small.toml field timing.blocks: out of range"),
    ("[timing.published]\nmixpu = 1.1\n", "small.toml field timing.published: no such arm; got mixpu"),
    ("[timing.published]\nmixup = 0\n", "small.toml field timing.published.mixup: out of range"),
]


def test_a_tiny_table_lies_over_a_whole_one(capsys):
    study = TINY.replace("[tiny]", "[tiny]\ntiming = { blocks = 2 }") + ARMS
    assert main(["ablate", write(study), "--dry-run"]) == 2
    assert "small.toml field tiny.timing.blocks: is not in the whole study" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "line"), FILES, ids=[text for text, _ in FILES])
def test_a_mistake_in_the_table_is_told_with_its_place(text, line, capsys):
    assert main(["ablate", write(TINY + ARMS + "[timing]\n" + text), "--dry-run"]) == 2
    assert capsys.readouterr().err.startswith(f"mixcli ablate: error: {line}")


def test_a_damaged_measurement_is_a_data_error(capsys):
    Path("studies/small").mkdir(parents=True)
    Path("studies/small/overhead.json").write_text("{")
    assert main(["ablate", write(TIMED), "--report"]) == 3


def test_the_tiny_form_lies_over_the_whole_one():
    found = design.read(Typed("overhead", tiny=True), {}, {}).timing
    assert found is not None and (found.blocks, found.steps, found.published) == (2, 20, {"miamix": 1.11})
