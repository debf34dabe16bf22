"""test_compare.py: runs and tables named on the command line, compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixcli.cli import main

TABLE = "method,seed,accuracy\nA,0,90\nA,1,91\nB,0,92\nB,1,93\n"


@pytest.fixture(autouse=True)
def table(folder: Path) -> None:
    Path("t.csv").write_text(TABLE)


def test_a_table_is_compared_and_written(capsys) -> None:
    words = ["compare", "t.csv", "--by", "method", "--value", "accuracy"]
    assert main(words) == 0
    assert "A - B: pilot (n = 2): -2.00 points" in " ".join(capsys.readouterr().out.split())
    assert main([*words, "--json", "--out", "found"]) == 0
    document = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert document["ok"] and [arm["arm"] for arm in document["result"]["arms"]] == ["A", "B"]
    assert (Path("found") / "table.md").is_file()


def test_runs_are_compared(capsys) -> None:
    words = ["--per-class", "6", "--batch", "20", "--width", "2", "--epochs", "1", "--threads", "1", "--quiet"]
    for method in ("none", "mixup"):
        assert main(["train", *words, "--method", method]) == 0
    capsys.readouterr()
    assert main(["compare", *map(str, sorted(Path("runs").glob("digits*")))]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "one run per method: no statement about the methods" in out and "about these two files" in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("x y", "x: no such file, folder or run under runs"),
        ("t.csv", "--by: needs the name of a column"),
        ("t.csv --by method", "--value: needs the name of a column"),
        ("t.csv --by methud --value accuracy", "--by: no such column; got methud. Did you mean method?"),
        ("a b --by method", "--by: is for a CSV file"),
        ("t.csv --by method --value accuracy --test t", "--test: unknown; got t, expected one of welch, paired"),
        ("x y --test corruptions", "--test corruptions: corruptions are a fixed panel, not replicates: a paired t or"),
        ("x y --on cifar100-c --metric test.nll", "--metric: does not go with --on"),
        ("x y --on cifar100-c", "x: no such file, folder or run under runs"),
        ("t.csv --by method --value accuracy --sesoi 0", "--sesoi: out of range"),
        ("t.csv --by method --value accuracy --baseline C", "--baseline: no such arm; got C"),
    ],
)
def test_a_mistake_is_one_line(words, line, capsys) -> None:
    assert main(["compare", *words.split()]) in (2, 3)
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"mixcli compare: error: {line}") and len(err.splitlines()) == 1


def test_saved_corruption_results_are_compared_and_written(capsys) -> None:
    train = ["--per-class", "6", "--batch", "20", "--width", "2", "--epochs", "1", "--threads", "1", "--quiet"]
    for method in ("none", "mixup"):
        assert main(["train", *train, "--method", method]) == 0
    runs = [*map(str, sorted(Path("runs").glob("digits*")))]
    assert main(["compare", *runs, "--on", "digits-c"]) == 3
    line = f"{runs[0]}: no per-image results. Run mixcli eval-corruptions digits-c {runs[0]}"
    assert capsys.readouterr().err.strip().endswith(line)
    assert main(["eval-corruptions", "digits-c", *runs, "--quiet"]) == 0
    capsys.readouterr()
    assert main(["compare", *runs, "--on", "digits-c", "--out", "found"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "these two files, these images; says nothing about the methods" in out
    assert "where, not whether" in out and "mean of 13 (tiny profile)" in out
    assert len((Path("found") / "details.csv").read_text().splitlines()) == 1 + 65
