"""The calibration probe: the numbers of eval-corruptions, a temperature from validation images alone, a floor."""

import numpy as np
import pytest
import torch

from mixcli.studies.corruptions import robustness as corruption_robustness
from mixcli.studies.probes import probing
from tests.studies.heard import Heard
from tests.studies.probes import probe_store
from tests.studies.probes.probe_store import probe, run_of

pytestmark = pytest.mark.usefixtures("undrawn_probes")

SCORES = ("top1", "top5", "nll", "brier", "ece15", "ece_adaptive", "rms_adaptive", "conf_minus_acc")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One run with validation images, one without."""
    root = tmp_path_factory.mktemp("reliability")
    probe_store.train(root)
    probe_store.train(root, "mixup", val_fraction=0.0)
    return root


def scores(table, scaling="none"):
    return table[(table["row"] == "scores") & (table["scaling"] == scaling)].iloc[0]


def test_clean_columns_are_those_of_eval_corruptions(store, tmp_path, undrawn_corruptions):
    asked = corruption_robustness.Asked("digits-c", (run_of(store),), corruptions="contrast", severities="1",
                                        out=tmp_path / "c")  # fmt: skip
    [theirs] = corruption_robustness.evaluate(asked, Heard())["checkpoints"]
    ours = scores(probe("calibration", run_of(store), out=tmp_path / "p").findings.table)
    assert theirs["clean"]["correct"] == ours["correct"] and theirs["clean"]["n"] == ours["n"]
    for name in SCORES:
        assert ours[name] == pytest.approx(theirs["clean"][name], abs=1e-6), name


def test_counts_are_equal_for_any_batch_size_and_scores_to_a_millionth(store, monkeypatch):
    one = scores(probe("calibration", run_of(store), refresh=True).findings.table)
    monkeypatch.setattr(probing, "BATCH", {"cpu": 37})
    other = scores(probe("calibration", run_of(store), refresh=True).findings.table)
    assert one["correct"] == other["correct"]
    for name in SCORES:
        assert one[name] == pytest.approx(other[name], abs=1e-6), name


def test_scaling_changes_no_accuracy_and_lowers_nll_on_validation_images(store):
    table = probe("calibration", run_of(store)).findings.table
    plain, scaled = scores(table), scores(table, "temperature")
    assert plain["temperature"] == 1 and scaled["temperature"] != 1 and plain["top1"] == scaled["top1"]
    scene = probing.scene_of(probing.Asked("calibration", run_of(store)), Heard())
    held = scene.features(scene.main, "val")
    logits, labels = torch.from_numpy(held.values["logits"]).double(), torch.from_numpy(held.labels)
    loss = torch.nn.functional.cross_entropy
    least = float(loss(logits / scaled["temperature"], labels))
    assert least < float(loss(logits, labels))
    assert all(least <= float(loss(logits / (scaled["temperature"] * f), labels)) for f in (0.99, 1.01))


def test_the_temperature_does_not_look_at_test_images(store, monkeypatch):
    before = scores(probe("calibration", run_of(store)).findings.table, "temperature")["temperature"]
    features = probing.Scene.features

    def other_labels(scene, subject, split=None):
        found = features(scene, subject, split)
        return found if split == "val" else probing.Features(found.values, np.roll(found.labels, 1), found.index)

    monkeypatch.setattr(probing.Scene, "features", other_labels)
    table = probe("calibration", run_of(store)).findings.table
    assert scores(table, "temperature")["temperature"] == before and scores(table)["top1"] < 0.5


def test_without_validation_images_there_is_no_scaled_row_and_the_reason_is_told(store):
    found = probe("calibration", run_of(store, "mixup")).findings
    assert set(found.table["scaling"]) == {"none"}
    assert any("held no validation images out" in line for line in found.remarks)
    on_val = probe("calibration", run_of(store), split="val").findings
    assert set(on_val.table["scaling"]) == {"none"}


def test_where_every_validation_image_is_right_no_temperature_is_best(store, monkeypatch):
    features = probing.Scene.features

    def all_right(scene, subject, split=None):
        found = features(scene, subject, split)
        right = found.values["logits"].argmax(1)
        return probing.Features(found.values, right, found.index) if split == "val" else found

    monkeypatch.setattr(probing.Scene, "features", all_right)
    found = probe("calibration", run_of(store)).findings
    assert set(found.table["scaling"]) == {"none"}
    assert any("which no temperature fits best" in line for line in found.remarks)


def test_bins_count_every_image_and_a_floor_stands_beside_every_error(store):
    table = probe("calibration", run_of(store)).findings.table
    for scaling in ("none", "temperature"):
        bins = table[(table["row"] == "bin") & (table["scaling"] == scaling)]
        row = scores(table, scaling)
        assert len(bins) == 15 and bins["n"].sum() == row["n"] == 360
        filled = bins[bins["n"] > 0]
        error = (filled["n"] * (filled["accuracy"] - filled["confidence"]).abs()).sum() / 360
        assert error == pytest.approx(row["ece15"], abs=1e-12)
        assert 0 < row["ece_floor_low"] < row["ece_floor"] < row["ece_floor_high"]
