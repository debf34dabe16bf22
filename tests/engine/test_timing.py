"""Minutes of a run: measured on the loop's own steps, told by a dry run, remembered for the list of methods."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixcli import recipe
from mixcli.cli import main
from mixcli.engine import minutes, timing, training
from mixcli.settings import ICT, METHODS
from tests.engine import harness

pytestmark = pytest.mark.usefixtures("folder")


def result(capsys):
    return json.loads(capsys.readouterr().out)["result"]


@pytest.mark.parametrize(
    ("seconds", "patience", "timed", "made"), [(1, None, 20, 25), (0.1, 10, 20, 25), (1, 10, 10, 11), (60, 10, 1, 2)]
)
def test_a_pace_is_of_20_steps_after_5_and_of_fewer_where_these_take_too_long(
    tmp_path, monkeypatch, seconds, patience, timed, made
):
    ran = harness.training(tmp_path, harness.settings())
    monkeypatch.setattr(timing, "wall_of", lambda device: lambda: seconds * ran.state.step)
    found = timing.pace(ran, patience)
    assert found.steps == timed and found.seconds == pytest.approx(seconds) and ran.state.step == made


def test_the_steps_that_are_timed_are_those_of_the_loop(tmp_path):
    train = harness.settings(epochs=2, batch=10, accumulate=2)
    timed, whole = harness.training(tmp_path / "a", train), harness.run_through(tmp_path / "b", train)
    steps = timing.stepping(timed)
    with timed.machine.session():
        for _ in range(2 * harness.STEPS):
            next(steps)
    ours, theirs = (made.state.net.state_dict() for made in (timed, whole))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_a_dry_run_tells_the_minutes_of_all_steps_and_writes_nothing(monkeypatch, capsys):
    monkeypatch.setattr(timing, "wall_of", lambda device: iter([0.0, 0.5, 0.5, 10.5]).__next__)
    assert main(["train", "--epochs", "3", "--batch", "64", "--dry-run", "--json"]) == 0
    plan = result(capsys)
    assert plan["seconds_per_step"] == 0.5 and plan["measured_steps"] == 20 and plan["steps"] == 66
    assert plan["minutes"] == pytest.approx(66 * 0.5 / 60) and not list(Path().iterdir())


def test_a_dry_run_without_measuring_makes_no_step(monkeypatch, capsys):
    monkeypatch.setattr(training.Training, "step", None)
    assert main(["train", "--dry-run", "--no-measure", "--json"]) == 0
    assert "minutes" not in result(capsys)
    assert main(["train", "--no-measure"]) == 2
    assert "--no-measure: is for --dry-run" in capsys.readouterr().err


def test_times_are_remembered_for_a_net_of_ones_own_and_for_what_variables_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(minutes, "METHODS", {"none": METHODS["none"]})
    build = "def build(channels, classes):\n    return StagedNet({'flat': nn.Flatten()}, nn.Linear(64, classes))\n"
    Path("flat.py").write_text("from torch import nn\nfrom mixcli.nets.staged import StagedNet\n\n" + build)
    assert main(["list", "methods", "--measure", "--net", "flat.py:build", "--quiet", "--json"]) == 0
    here = result(capsys)["times"]
    assert here["methods"]["none"] is not None
    assert main(["list", "methods", "--net", "flat.py:build", "--json"]) == 0 and result(capsys)["times"] == here
    monkeypatch.setenv("MIXCLI_NET", "flat.py:build")
    assert main(["list", "methods", "--json"]) == 0 and result(capsys)["times"] == here


def test_the_list_of_methods_tells_what_was_measured_here_and_only_of_that_data_set_and_net(monkeypatch, capsys):
    monkeypatch.setattr(minutes, "METHODS", {name: METHODS[name] for name in ("none", "ict")})
    assert main(["list", "methods", "--json"]) == 0 and result(capsys).keys() == {"methods"}
    assert main(["list", "methods", "--measure", "--quiet", "--json"]) == 0
    here = result(capsys)["times"]
    assert (here["dataset"], here["net"]) == ("digits", "small") and here["methods"].keys() == {"none", "ict"}
    pace = here["methods"]["ict"]
    assert pace["steps"] == 20 and pace["minutes"] == pytest.approx(pace["seconds_per_step"] * (1337 // 25) * 20 / 60)
    assert [path.name for path in Path("runs").iterdir()] == ["minutes.json"]
    for words in ([], ["--net", "small"], ["--dataset", "digits"]):
        assert main(["list", "methods", *words, "--json"]) == 0 and result(capsys)["times"] == here
    assert main(["list", "methods"]) == 0
    assert "on digits with small" in " ".join(capsys.readouterr().out.split())
    for words in (["--net", "resnet18"], ["--dataset", "cifar10"], ["--runs", "elsewhere"]):
        assert main(["list", "methods", *words, "--json"]) == 0 and "times" not in result(capsys)


def test_a_method_that_cannot_be_trained_there_has_no_time_and_a_damaged_note_is_none(monkeypatch, capsys):
    monkeypatch.setattr(minutes, "METHODS", {"none": METHODS["none"], ICT.name: ICT})
    monkeypatch.setattr(recipe, "LABELS", {"digits": 33})
    assert main(["list", "methods", "--measure", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["result"]["times"]["methods"]["ict"] is None and "labels: not divisible" in err
    for damage in (b"", b"[]", b"\xff", b"{" * 100_000):
        Path("runs/minutes.json").write_bytes(damage)
        assert main(["list", "methods", "--json"]) == 0 and "times" not in result(capsys)
    assert main(["list", "methods", "--measure", "--dataset", "cifar100"]) == 3
    assert main(["list", "nets", "--measure"]) == 2
