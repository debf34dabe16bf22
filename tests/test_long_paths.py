"""A path is printed whole, in one line, however narrow the terminal: it is there to be copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixcli.cli import main
from mixcli.report import export, tables

FOLDER = "scratch of the group/a project with a name/experiments of this year"
TRAINED = ["train", "--width", "2", "--epochs", "1", "--per-class", "10", "--quiet"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("long") / FOLDER
    root.mkdir(parents=True)
    assert main([*TRAINED, "--runs", str(root)]) == 0
    return root


COMMANDS = {
    "train": ([*TRAINED], "checkpoint: {run}/run.ckpt"),
    "train --dry-run": ([*TRAINED, "--dry-run", "--no-measure"], "run: {run}"),
    "train --dry-run, settings": ([*TRAINED, "--dry-run", "--no-measure"], 'runs = "{runs}"'),
    "probe": (["probe", "calibration", "latest", "--quiet"], "files: {run}/studies"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_path_is_one_line(name: str, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    capsys.readouterr()
    words, line = COMMANDS[name]
    assert main([*words, "--runs", str(runs)]) == 0
    [run] = runs.glob("digits-*")
    assert line.format(run=run, runs=runs) in [shown.strip() for shown in capsys.readouterr().out.splitlines()]


def test_checkpoint_and_results_of_eval_corruptions_are_one_line_each(runs: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ["digits-c", "--corruption", "fog", "--severity", "1", "--quiet", "--runs", str(runs)]
    assert main(["eval-corruptions", *words]) == 0
    [results] = runs.glob("digits-*/studies/corruptions/*")
    first, *others = capsys.readouterr().out.splitlines()
    assert f" | {results.parents[2]}/run.ckpt, last epoch (1)" in first
    assert f"files: {results}" in others


def test_the_figure_of_show_is_one_line(runs: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["show", "cutmix", "--out", str(runs / "cutmix.png")]) == 0
    assert f"file: {runs}/cutmix.png" in capsys.readouterr().out.splitlines()


def test_a_table_wider_than_the_terminal_loses_no_number(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    numbers = tuple(f"{100 + place}.456 ± 9" for place in range(9))
    tables.show(tables.section(export.Section(("arm", *map(str, range(9))), (("one", *numbers),))))
    shown = capsys.readouterr().out
    assert all(number in shown for number in numbers)
