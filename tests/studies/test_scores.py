"""What a finished run is worth, and which runs are refused (A08, A13)."""

from __future__ import annotations

import json
import shutil
import statistics

import pytest

from mixcli.errors import UserError
from mixcli.files import as_json
from mixcli.runs import Run
from mixcli.studies.scores import score, scores_of
from tests.engine import harness

ACCURACIES = [0.2, 0.5, 0.46, 0.8, 0.9, 0.7, 0.95, 0.93, 0.94, 0.9, 0.91, 0.92]
ID = "0123456789ab"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    made = harness.run_through(tmp_path_factory.mktemp("trained"), harness.settings(epochs=3))
    made.run.describe(made.machine.describe())
    return made.run


@pytest.fixture
def run(tmp_path, trained):
    """A finished run that a test may spoil."""
    return Run(shutil.copytree(trained.folder, tmp_path / trained.folder.name))


def written(tmp_path, tests=ACCURACIES, vals=None, every=1):
    """A finished run whose log is made up."""
    run = Run(tmp_path / f"digits-small-none-s0-{ID}")
    run.folder.mkdir()
    run.settings.write_text("seed = 0\n")
    for i, accuracy in enumerate(tests):
        row = {"epoch": i + 1, "step": 4 * (i + 1), "images": 100}
        if (i + 1) % every == 0:
            row["test"] = {"accuracy": accuracy, "nll": 1 - accuracy, "images": 360}
            row |= {"val": {"accuracy": vals[i], "nll": 0.5, "images": 50}} if vals else {}
        run.append(row)
    last = tests[-1]
    run.finish({
        "accuracy": last, "accuracy_median_last10": statistics.median(tests[-10:]), "nll": 1 - last, "test_images": 360,
        "epochs": len(tests), "steps": 4 * len(tests), "seconds": 4.8, "seed": 0, "early_spread": 0.07,
        "clean_train": {"accuracy": 0.97, "nll": 0.1, "images": 100},
        **({"val": {"accuracy": vals[-1], "nll": 0.5, "images": 50}} if vals else {}),
    })  # fmt: skip
    return run


def test_the_scores_of_a_made_up_run_are_those_counted_by_hand(tmp_path):
    found = scores_of(written(tmp_path))
    assert found["test.top1"] == pytest.approx(92) and found["test.nll"] == pytest.approx(0.08)
    assert found["test.top1_median_last10"] == pytest.approx(90.5)  # the middle two of ten are 0.9 and 0.91
    assert found["oracle_test_best"] == pytest.approx(95)
    assert found["epochs_to_90"] == 5  # 0.9 is the first at 0.9 x 0.92 = 0.828
    assert found["curve_area"] == pytest.approx(100 * sum(ACCURACIES) / 12)
    assert found["gap"] == pytest.approx(5)
    assert (found["early_spread"], found["seconds_per_step"]) == (0.07, pytest.approx(0.1))
    assert found["val.top1"] is found["test.top1_best_on_val"] is None


def test_with_validation_images_the_curve_is_theirs_and_the_first_best_epoch_is_known(tmp_path):
    found = scores_of(written(tmp_path, [0.3, 0.4, 0.9, 0.5], [0.2, 0.7, 0.7, 0.6]))
    assert found["test.top1_best_on_val"] == pytest.approx(40) and found["oracle_test_best"] == pytest.approx(90)
    assert found["val.top1"] == pytest.approx(60) and found["epochs_to_90"] == 2
    assert found["curve_area"] == pytest.approx(55)


def test_where_only_the_last_epochs_are_evaluated_there_is_no_curve(tmp_path):
    found = scores_of(written(tmp_path, every=12))
    assert found["epochs_to_90"] is found["curve_area"] is None and found["test.top1"] == pytest.approx(92)


def test_a_run_from_before_balanced_accuracy_has_none_and_a_new_one_has_it(tmp_path, trained):
    old, new = scores_of(written(tmp_path)), score(trained, "none")
    assert old["test.balanced"] is old["wrong_labels_learnt"] is None
    assert new.values["test.balanced"] == pytest.approx(100 * trained.finished()["balanced_accuracy"])
    assert new.facts["test_class_ratio"] == pytest.approx(37 / 35)


def test_a_trained_run_scores_what_its_files_say(trained):
    found, result = score(trained, "none"), trained.finished()
    assert (found.arm, found.seed, found.run) == ("none", 0, trained.id)
    assert found.values["test.top1"] == 100 * result["accuracy"]
    wanted = {"dataset": "digits", "test_images": 360, "epochs": 3, "batch": 20, "per_class": 12, "images_per_step": 20}
    assert {key: found.facts[key] for key in wanted} == wanted
    assert found.facts["test_digest"] == result["test_digest"] and found.facts["device"] == "cpu"


def test_a_run_from_before_the_gap_was_recorded_has_none(run):
    result = json.loads(run.result.read_bytes())
    del result["clean_train"]
    run.result.write_bytes(as_json(result))
    assert scores_of(run)["gap"] is None


def test_a08_a_cut_last_line_is_a_warning_and_the_result_stands_in(run):
    before = scores_of(run)
    lines = run.metrics.read_bytes()
    run.metrics.write_bytes(lines[:-20])
    warned = []
    assert scores_of(run, lambda *words: warned.append(words)) == before
    assert warned == [(f"{run.metrics} line 3", "incomplete, dropped")]


def test_a08_a_bad_line_in_the_middle_is_refused_with_its_number(run):
    lines = run.metrics.read_bytes().split(b"\n")
    run.metrics.write_bytes(b"\n".join([lines[0], b'{"epoch": 2,', *lines[2:]]))
    with pytest.raises(UserError, match="line 2: not valid") as caught:
        scores_of(run)
    assert caught.value.exit_code == 3


def test_a13_an_edited_log_is_refused(run):
    rows = run.rows()
    rows[1]["test"]["accuracy"] = 0.99
    run.metrics.write_bytes(b"".join(map(as_json, rows)))
    with pytest.raises(UserError, match=f"run {run.id}: digest differs") as caught:
        scores_of(run)
    assert caught.value.exit_code == 3


def test_a13_an_edited_result_is_refused(run):
    result = json.loads(run.result.read_text())
    run.result.write_text(json.dumps({**result, "accuracy": 0.99}))
    with pytest.raises(UserError, match="digest differs"):
        scores_of(run)


def test_an_unfinished_run_is_refused_with_what_to_do(run):
    run.result.unlink()
    with pytest.raises(UserError, match="not finished. Continue: mixcli train --resume-from") as caught:
        scores_of(run)
    assert caught.value.exit_code == 2
