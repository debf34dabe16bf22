"""mixcli probe through the command line: what is printed, what --json holds, one line for a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixcli.cli import main
from tests.studies import study


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("probe")
    words = ["--per-class", "10", "--width", "2", "--epochs", "1", "--runs", str(root / "runs"), "--quiet"]
    for method in ("none", "mixup"):
        assert main(["train", "--method", method, *words]) == 0
    return root


@pytest.fixture(autouse=True)
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main(["probe", *words]) == code
    found = capsys.readouterr()
    return found.out, found.err


def test_linearity_prints_its_tables_and_writes_its_files(capsys):
    none = next(Path("runs").glob("*-none-*"))
    out, err = said(capsys, "linearity", "latest", "--against", str(none), "--points", "2", "--images", "100")
    assert err.startswith("linearity: digits, test split, 100 images | digits-small-mixup-s0-")
    assert "forward passes, about" in err
    for words in (
        "dev_spread",
        "dev_norm",
        "layer3",
        "mixup, seed 0",
        "none, seed 0",
        "untrained",
        "no verdict from 1",
    ):
        assert words in " ".join(out.split()), words
    assert sorted(p.suffix for p in none.glob("studies/linearity.*")) == [".csv", ".json", ".pdf", ".png"]


def test_json_is_one_document_with_the_headline_numbers(capsys):
    out, _ = said(capsys, "calibration", "latest", "--json")
    envelope = json.loads(out)
    assert envelope["ok"] and envelope["command"] == "probe" and envelope["result"]["images"] == 360
    [numbers] = envelope["result"]["headline"].values()
    assert set(numbers) == {"nll", "brier"} and envelope["result"]["rows"]


def test_a_dry_run_tells_the_cost(capsys):
    out, _ = said(capsys, "linearity", "--dry-run")
    assert "forward passes" in out and "nothing was started" in out


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["liniarity"], 2, "probe: no such probe; got liniarity. Did you mean linearity?"),
        (["linearity", "latest", "--stages", "layer9"], 2, "--stages: unknown; got layer9. Did you mean layer"),
        (["linearity", "latest", "--points", "1"], 2, "--points: "),
        (["linearity", "latest", "--mix-at", "some"], 2, "--mix-at: unknown"),
        (["calibration", "latest", "--points", "2"], 2, "--points: no such option"),
        (["linearity", "nowhere"], 3, "nowhere: no such file, folder or run"),
        (["linearity", "latest", "--images", "9"], 3, "--images: 9 images of 10 classes"),
        (["linearity", "latest", "--all-epochs"], 2, "--all-epochs: "),
        (["linearity", "latest", "--study", "quickstart"], 2, "--study: names the runs"),
        (["all", "--study", "quickstart"], 2, "--study: compares the numbers of one probe"),
        (["linearity", "latest", "--against", "latest"], 2, "latest: named twice"),
        (["calibration", "latest", "--out", "x.bmpx"], 2, "--out: suffix"),
        (["calibration", "latest", "--seed", "-1"], 2, "--seed: "),
        (["calibration", "latest", "--split", "val"], 2, "--split: the run held no validation images out"),
    ],
)
def test_a_mistake_is_one_line(words, code, line, capsys):
    out, err = said(capsys, *words, "--quiet", code=code)
    assert not out and len(err.splitlines()) == 1 and err.startswith(f"mixcli probe: error: {line}"), err


def test_the_finished_runs_of_a_study_give_one_number_each_and_a_sentence_per_site(trained, capsys):
    file = study.write(study.TINY + study.ARMS)
    out, _ = said(capsys, "calibration", "--study", file, "--quiet", code=5)
    assert main(["ablate", file, "--devices", "cpu:1", "--quiet"]) == 0
    out, _ = said(capsys, "calibration", "--study", file, "--quiet")
    text = " ".join(out.split())
    assert "2 runs of each arm" in text and "mixup - none, nll: pilot (n = 2):" in text and "no claim" in text
    assert "points are hundredths of the number" in text and "exploratory: the study did not plan this probe" in text
    rows = Path("studies/small/probe-calibration.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 2 * 2  # arms, seeds, numbers


def test_the_kept_epochs_of_a_study_are_followed_arm_by_arm(trained, capsys):
    tiny = study.TINY.replace('"small"', '"kept"')
    file = study.write(tiny.replace("epochs = 2", 'epochs = 3\nkeep = "every:2"') + study.ARMS, "kept.toml")
    assert main(["ablate", file, "--devices", "cpu:1", "--quiet"]) == 0
    out, _ = said(capsys, "calibration", "--study", file, "--all-epochs", "--quiet")
    assert "mixup, 2" in out and "means over runs" in out
    last, _ = said(capsys, "calibration", "--study", file, "--json")
    both, _ = said(capsys, "calibration", "--study", file, "--all-epochs", "--json")
    [kept] = json.loads(both)["result"]["epochs"]
    assert kept["epoch"] == 2 and kept["values"] != json.loads(last)["result"]["values"]
    rows = Path("studies/kept/probe-calibration-epochs.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 2 * 2 and rows[0].startswith("epoch,arm,seed,number,value")
    assert main(["ablate", study.write(), "--devices", "cpu:1", "--quiet"]) == 0
    _, err = said(capsys, "calibration", "--study", "small.toml", "--all-epochs", "--quiet", code=2)
    assert "kept no epoch in common" in err


def test_help_of_a_probe_shows_its_own_options(capsys):
    linearity, _ = said(capsys, "linearity", "--help")
    calibration, _ = said(capsys, "calibration", "--help")
    assert "--mix-at" in linearity and "--mix-at" not in calibration and "--against" in calibration
