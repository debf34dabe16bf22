"""Trackers are told what the log is told, are no part of the run, and never cost one."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path

import pytest

from mixcli.cli import main
from mixcli.report import tracking

WORDS = ["train", "--per-class", "8", "--batch", "16", "--epochs", "3", "--width", "4", "--quiet"]
here_is_tensorboard = pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)


class FakeWandB(types.ModuleType):
    """W&B as far as the adapter knows it; what it is told stays here."""

    def __init__(self, fails: str = ""):
        super().__init__("wandb")
        self.__spec__ = importlib.util.spec_from_loader("wandb", None)
        self.fails, self.opened, self.logged, self.summary, self.finished = fails, [], [], {}, 0

    def Settings(self, **given):
        return given

    def init(self, **given):
        if self.fails == "init":
            raise OSError("no space")
        self.opened.append(given)
        return self

    def log(self, numbers, step):
        if self.fails == "log":
            raise RuntimeError("the server\nsays no")
        self.logged.append((step, numbers))

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    def put(fails=""):
        module = FakeWandB(fails)
        monkeypatch.setitem(sys.modules, "wandb", module)
        return module

    return put


def the_run() -> Path:
    [run] = [path for path in Path("runs").iterdir() if path.is_dir() and not path.is_symlink()]
    return run


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_wandb_is_told_every_row_and_the_result_offline_and_under_the_runs_name(wandb):
    told = wandb()
    assert main([*WORDS, "--track", "wandb"]) == 0
    run = the_run()
    [opened] = told.opened
    assert opened["mode"] == "offline" and opened["name"] == run.name and run.name.endswith(opened["id"])
    assert opened["config"]["per_class"] == 8 and opened["dir"] == str(Path("runs") / run.name)
    assert told.logged == [(row["epoch"], tracking.numbers(row)) for row in rows(run)] and told.finished == 1
    first = told.logged[0][1]
    assert {"train/loss", "test/accuracy", "test/nll", "lr", "step", "images", "seconds"} <= set(first)
    assert "epoch" not in first and told.summary["result/accuracy"] == rows(run)[-1]["test"]["accuracy"]


def test_wandb_goes_online_where_its_own_variable_says_so(wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    told = wandb()
    assert main([*WORDS, "--track", "wandb"]) == 0 and told.opened[0]["mode"] == "online"


def test_a_tracker_is_no_part_of_the_run_and_a_finished_run_opens_none(wandb, capsys):
    told = wandb()
    assert main([*WORDS]) == 0
    plain = (the_run() / "run.ckpt").read_bytes()
    assert main([*WORDS, "--track", "wandb"]) == 0 and told.opened == [] and told.finished == 0
    assert main([*WORDS, "--track", "wandb", "--overwrite"]) == 0
    assert len(told.logged) == 3 and (the_run() / "run.ckpt").stat().st_size == len(plain)


@pytest.mark.parametrize(("fails", "word"), [("init", "OSError: no space"), ("log", "RuntimeError: the server")])
def test_a_tracker_that_fails_is_one_warning_and_the_run_ends(wandb, capsys, fails, word):
    wandb(fails)
    assert main([*WORDS, "--track", "wandb", "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert len(document["warnings"]) == 1 and word in document["warnings"][0]
    assert err.count("\n") == 1 and "--track: wandb failed, training goes on" in err
    assert document["result"]["epochs"] == 3


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_extra_is_one_line_before_anything_is_made(monkeypatch, capsys, name):
    monkeypatch.setattr(tracking, "find_spec", lambda module: None)
    assert main([*WORDS, "--track", name]) == 2
    assert capsys.readouterr().err == (
        f"mixcli train: error: --track: needs the extra {name}. pip install 'mixcli[{name}]'\n"
    )
    assert not Path("runs").exists()


def test_an_unknown_tracker_is_refused(capsys):
    assert main([*WORDS, "--track", "tensorbord"]) == 2
    assert "--track: unknown; got tensorbord. Did you mean tensorboard?" in capsys.readouterr().err


@here_is_tensorboard
def test_tensorboard_reads_back_the_log_and_a_resumed_run_goes_on(monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main([*WORDS, "--track", "tensorboard", "--stop-after", "1s", "--epochs", "400"]) == 75
    assert main([*WORDS, "--track", "tensorboard", "--resume", "--stop-after", "1s", "--epochs", "400"]) == 75
    run = the_run()
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    for name in ("train/loss", "test/accuracy", "lr"):
        read = [(event.step, event.value) for event in events.Scalars(name)]
        expected = [(row["epoch"], tracking.numbers(row)[name]) for row in rows(run)]
        assert [step for step, _ in read] == [epoch for epoch, _ in expected]
        assert [value for _, value in read] == pytest.approx([value for _, value in expected], rel=1e-6)


def test_nobody_imports_a_tracker_that_is_not_asked_for(monkeypatch):
    for name in ("tensorboard", "torch.utils.tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)  # an import raises
    assert main(WORDS) == 0
