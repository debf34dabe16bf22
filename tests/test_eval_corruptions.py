"""mixcli eval-corruptions through the command line: one cell of a tiny run, and one line for a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixcli.cli import main


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--width", "2", "--epochs", "1", "--quiet"]) == 0
    return next(Path("runs").glob("digits-*"))


def test_the_newest_run_is_evaluated_and_its_clean_score_is_its_own(trained, capsys):
    capsys.readouterr()
    words = ["digits-c", "--corruption", "brightness,jpeg_compression", "--severity", "1,5", "--json"]
    assert main(["eval-corruptions", *words]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    own = json.loads((trained / "result.json").read_text())["accuracy"]
    cells = next(trained.glob("studies/corruptions/*/cells.csv")).read_text()
    assert f"{own:.6g}"[:6] in cells and cells.count("brightness") == cells.count("jpeg_compression") == 2
    assert result and (trained / "studies").is_dir()


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["cifar100-c"], 3, "cifar100: "),
        (["digits-c", "--severity", "6"], 2, "--severity: "),
        (["digits-c", "--corruption", "fogg"], 2, "--corruption: "),
        (["digits"], 2, "digits"),
        (["digits-c", "--per-cell", "0"], 2, "--per-cell: "),
    ],
)
def test_a_mistake_is_one_line(trained, words, code, line, capsys):
    capsys.readouterr()
    assert main(["eval-corruptions", *words, "--quiet"]) == code
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and err[0].startswith(f"mixcli eval-corruptions: error: {line}")
