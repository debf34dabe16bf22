"""The corruption benchmark end to end: what it counts, what it states, how it goes on, and what it refuses."""

import csv
import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mixcli.corruptions import generated
from mixcli.corruptions.generated import Generated
from mixcli.corruptions.official import PROVENANCE, ArraySet
from mixcli.corruptions.parameters import EXTRA, NAMES, STANDARD
from mixcli.data import augment, sources
from mixcli.engine import checkpoint, inference
from mixcli.engine.stopping import Stop
from mixcli.errors import UserError
from mixcli.report import robustness
from mixcli.runs import Run
from mixcli.studies import subjects
from mixcli.studies.corruptions import means as corruption_means
from mixcli.studies.corruptions import results as corruption_results
from mixcli.studies.corruptions import robustness as corruption_robustness
from mixcli.studies.corruptions.cells import chosen_images
from mixcli.studies.corruptions.means import Panel
from mixcli.studies.corruptions.robustness import Asked, evaluate, seen_in_training
from tests.engine import harness
from tests.studies.heard import Heard

pytestmark = pytest.mark.usefixtures("undrawn_corruptions")

COSTS = ("cost.csv", "environment.json", "lock")
SHORT = {"per_cell": 30, "corruptions": "fog,contrast"}  # ten cells of thirty images


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two finished runs on digits."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        harness.run_through(root, harness.settings(seed=seed))
    return root


@pytest.fixture
def runs(store, tmp_path):
    """A copy of the store that a test may write to."""
    shutil.copytree(store, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run on 24 colour images that go by the name of CIFAR-10, and the folder they lie in."""
    root, rng = tmp_path_factory.mktemp("cifar"), np.random.default_rng(0)
    base = rng.integers(40, 210, (10, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
    y = {"y_train": np.arange(40) % 10, "y_test": np.arange(24) % 10}
    x = {f"x_{k[2:]}": (base[v] + rng.integers(-30, 30, (len(v), 32, 32, 3))).astype(np.uint8) for k, v in y.items()}
    (root / "data").mkdir()
    np.savez(root / "data" / "cifar10.npz", classes=np.array(list("abcdefghij")), **x, **y)
    train = harness.settings(dataset="cifar10", data_dir=str(root / "data"), net="small", per_class=None, width=2,
                             epochs=2, batch=10, pad=0)  # fmt: skip
    harness.run_through(root / "runs", train)
    return root


@pytest.fixture
def cifar(small, tmp_path):
    shutil.copytree(small, tmp_path / "cifar")
    return tmp_path / "cifar"


def run(root, name="digits-c", *checkpoints, heard=None, stop=None, **options):
    return evaluate(Asked(name, checkpoints, root, **options), heard or Heard(), stop)


def folders(root):
    return sorted(folder for folder in root.iterdir() if folder.is_dir())


def newest(root):
    return Run(max(folders(root), key=lambda folder: Run(folder).result.stat().st_mtime))


def table(folder):
    with (Path(folder) / "cells.csv").open() as file:
        return list(csv.DictReader(file))


def contents(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir() if p.name not in COSTS}


def refused(root, *args, code, **options):
    """The one line of the error; nothing is left in the folders of the runs."""
    before = sorted(root.rglob("*"))
    with pytest.raises(UserError) as error:
        run(root, *args, **options)
    assert error.value.exit_code == code, error.value
    assert "\n" not in str(error.value)
    assert sorted(p for p in root.rglob("*") if p.name != "lock") == [p for p in before if p.name != "lock"]
    return str(error.value)


def naive(path, images, labels):
    """Counts of a loop that shows the net one image at a time."""
    content = checkpoint.load(path)
    _, machine, net = inference.restore(path)
    mean, std = (torch.tensor(content["data"][key]).view(-1, 1, 1) for key in ("mean", "std"))
    correct = []
    with torch.inference_mode(), machine.session():
        for image, label in zip(torch.from_numpy(np.ascontiguousarray(images)), labels, strict=True):
            planes = augment.normalised(image[None].permute(0, 3, 1, 2), mean, std)
            correct.append(int(net(planes).argmax(1)) == label)
    return np.array(correct)


# What it finds


def test_digits_end_to_end_with_nothing_on_disk(runs):
    heard = Heard()
    found = run(runs, heard=heard)
    [summary], [folder] = found["checkpoints"], found["folders"]
    rows = table(folder)
    assert len(rows) == 1 + 13 * 5 and rows[0]["corruption"] == "clean"
    top1 = [float(row["top1"]) for row in rows[1:]]
    assert summary["headline"] == "mean_available" and summary["mean_available"] == pytest.approx(np.mean(top1))
    assert summary["mean15"] is summary["mean19"] is summary["mean14"] is None
    assert "snow" in summary["reasons"]["mean15"] and "not applicable" in summary["reasons"]["mean15"]
    assert summary["headline_told"] == "mean of 13 (tiny profile)"
    assert any("comparable with no published table" in note for note in summary["notes"])
    name = newest(runs).folder.name
    assert heard.lines[0].startswith("digits-c: generated (not the official files), generator v")
    assert name in heard.lines[0] and heard.lines[0].endswith("plain weights (newest of 2 runs trained on digits; none "
                                                              "was named)")  # fmt: skip
    assert folder.startswith(str(runs / name / "studies" / "corruptions" / "digits-c-generated-"))
    assert set(contents(folder)) == set(corruption_results.FILES) - {"journal.jsonl", *COSTS}


def test_the_clean_row_is_the_runs_own_score(runs):
    heard = Heard()
    [summary] = run(runs, heard=heard, corruptions="contrast")["checkpoints"]
    result = newest(runs).finished()
    assert summary["clean"]["top1"] == result["accuracy"] and summary["clean"]["n"] == 360
    assert summary["clean"]["nll"] == pytest.approx(result["nll"], abs=1e-9)
    assert heard.warnings == []


def test_counts_are_those_of_a_loop_over_single_images(runs):
    found = run(runs, severities="2,5")
    [folder] = found["folders"]
    bits, test = corruption_results.bits_in(Path(folder)), sources.load(harness.settings()).test
    made = Generated(torch.from_numpy(test.images), torch.arange(360), 0)
    for cell, correct in zip(bits.cells, bits.correct, strict=True):
        name, _, severity = cell.partition("/")
        images = test.images if name == "clean" else made.cell(name, int(severity)).numpy()
        assert np.array_equal(correct, naive(newest(runs).checkpoint, images, test.labels)), cell
    counts = [int(row["correct"]) for row in table(folder)]
    assert counts == bits.correct.sum(1).tolist() and bits.index.tolist() == list(range(360))


def test_counts_do_not_depend_on_the_batch_and_the_rest_barely(runs, tmp_path):
    one, other = (run(runs, batch=batch, out=tmp_path / str(batch), corruptions="fog,pixelate") for batch in (7, 360))
    for a, b in zip(table(one["folders"][0]), table(other["folders"][0]), strict=True):
        assert a["correct"] == b["correct"]
        for key in ("nll", "brier", "ece15", "ece_adaptive"):
            assert float(a[key]) == pytest.approx(float(b[key]), abs=1e-6)
    bits = [contents(f)["per_image_correct.npz"] for f in (tmp_path / "7", tmp_path / "360")]
    assert bits[0] == bits[1]


def test_several_checkpoints_share_one_pass_and_count_as_alone(runs, tmp_path, monkeypatch):
    cell, asked = Generated.cell, []
    monkeypatch.setattr(Generated, "cell", lambda *a: asked.append(a[1:]) or cell(*a))
    both = run(runs, "digits-c", *map(str, folders(runs)), **SHORT)
    assert len(asked) == len(set(asked)) == 10
    for folder, together in zip(folders(runs), both["checkpoints"], strict=True):
        alone = run(runs, "digits-c", str(folder), out=tmp_path / folder.name, **SHORT)
        assert alone["checkpoints"][0]["corruptions"] == together["corruptions"]
    joint = Path(both["joint"])
    assert {f"joint-{name}" for name in ("table.md", "table.csv", "figure.png", "figure.pdf")} <= set(contents(joint))
    assert both["folders"][0].startswith(str(folders(runs)[0])) and both["folders"][1].startswith(str(folders(runs)[1]))


def test_a_checkpoint_whose_results_are_there_is_left_alone_while_another_is_evaluated(runs, tmp_path):
    one, other = map(str, folders(runs))
    [folder] = run(runs, "digits-c", one, **SHORT)["folders"]
    before = contents(folder)
    found = run(runs, "digits-c", other, one, **SHORT)
    assert found["folders"][1] == folder and contents(folder) == before
    assert found["checkpoints"][0]["corruptions"] != found["checkpoints"][1]["corruptions"]


def test_the_last_epochs_averaged_weights_are_taken_where_a_run_has_them(tmp_path):
    harness.run_through(tmp_path, harness.settings(ema=0.9))
    heard = Heard()
    [summary] = run(tmp_path, heard=heard, **SHORT)["checkpoints"]
    assert summary["provenance"]["weights"] == "EMA" and "last epoch (4), EMA weights" in heard.lines[0]


# Going on, and repeating


def test_a_repeated_evaluation_leaves_the_same_bytes(runs, tmp_path, undrawn_corruptions, monkeypatch):
    monkeypatch.setattr(robustness, "figure", undrawn_corruptions)
    for name in ("a", "b"):
        run(runs, out=tmp_path / name, **SHORT)
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert first == second and len(first) == 7
    assert first["figure.png"].startswith(b"\x89PNG") and first["figure.pdf"].startswith(b"%PDF")


@pytest.mark.parametrize("at", ["10 cells", "fog"])
def test_a_stopped_command_typed_again_goes_on_and_leaves_the_same_bytes(runs, tmp_path, monkeypatch, at):
    run(runs, out=tmp_path / "whole", **SHORT)
    stop = Stop()
    with pytest.raises(UserError) as error:
        run(runs, out=tmp_path / "cut", heard=Heard(stop, at), stop=stop, **SHORT)
    assert error.value.kind == "requeue" and "of 10 cells" in str(error.value)
    cell, asked = Generated.cell, []
    monkeypatch.setattr(Generated, "cell", lambda *a: asked.append(a[1:]) or cell(*a))
    run(runs, out=tmp_path / "cut", **SHORT)
    assert len(asked) == {"10 cells": 10, "fog": 5}[at]
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_journal_cut_in_its_last_line_loses_that_cell_alone(runs, tmp_path):
    run(runs, out=tmp_path / "whole", **SHORT)
    stop = Stop()
    with pytest.raises(UserError):
        run(runs, out=tmp_path / "cut", heard=Heard(stop, "fog"), stop=stop, **SHORT)
    journal = tmp_path / "cut" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    heard = Heard()
    run(runs, out=tmp_path / "cut", heard=heard, **SHORT)
    assert "6 cells x 30 images x 1 checkpoint" in heard.lines
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_finished_evaluation_is_reported_and_not_repeated(runs, monkeypatch):
    first = run(runs, **SHORT)
    monkeypatch.setattr(Generated, "cell", None)
    assert run(runs, **SHORT) == first


def test_e24_results_of_another_checkpoint_are_not_overwritten_unless_asked(runs, tmp_path):
    one, other = map(str, folders(runs))
    run(runs, "digits-c", one, out=tmp_path / "out", **SHORT)
    before = contents(tmp_path / "out")
    told = refused(runs, "digits-c", other, code=2, out=tmp_path / "out", **SHORT)
    assert "cells.csv: belongs to checkpoint" in told and told.endswith("--overwrite or --out")
    told = refused(runs, "digits-c", one, code=2, out=tmp_path / "out", per_cell=31)
    assert "belongs to another evaluation" in told
    assert contents(tmp_path / "out") == before
    run(runs, "digits-c", other, out=tmp_path / "out", overwrite=True, **SHORT)
    assert contents(tmp_path / "out") != before


def test_e24_a_folder_that_a_live_process_writes_is_refused(runs, tmp_path):
    with Run(tmp_path / "out").open():
        assert "in use by another process" in refused(runs, code=2, out=tmp_path / "out", **SHORT)


def test_e18_nothing_is_left_by_a_net_that_has_diverged_but_what_was_found_before(runs, tmp_path):
    path = newest(runs).checkpoint
    content = torch.load(path, weights_only=True)
    content["net"]["head.weight"][0, 0] = float("nan")
    torch.save(content, tmp_path / "bad.ckpt")
    told = refused(runs, "digits-c", str(tmp_path / "bad.ckpt"), code=4)
    assert told.startswith("clean: non-finite logits in 360 images")


def test_e18_the_cell_and_the_number_of_images_are_named(runs, tmp_path, monkeypatch):
    logits, seen = corruption_robustness._logits, []

    def broken(*args):
        found = logits(*args).clone()
        seen.append(len(found))
        if len(seen) == 2:  # after the clean images
            found[:12] = float("nan")
        return found

    monkeypatch.setattr(corruption_robustness, "_logits", broken)
    with pytest.raises(UserError, match="^fog/5: non-finite logits in 12 images") as error:
        run(runs, corruptions="fog", severities="5", out=tmp_path / "out")
    assert error.value.exit_code == 4


# Which cells


@pytest.mark.parametrize("partial", [{"corruptions": "fog"}, {"severities": "1,2,3,4"}])
def test_with_a_part_of_the_cells_every_mean_is_null(runs, partial):
    [summary] = run(runs, per_cell=30, **partial)["checkpoints"]
    means = [summary[key] for key in ("mean15", "mean19", "mean14", "mean_available")]
    means += [family["mean"] for family in summary["families"].values()] + [*summary["severities"].values()]
    means += [*summary["calibration"].values()]
    assert set(means) == {None} and "partial list" in summary["reasons"]["mean_available"]
    assert summary["clean"] is not None


def test_fewer_images_are_stratified_nested_and_the_same_in_every_cell(runs):
    labels = np.arange(1000) % 10
    some, more = (chosen_images(labels, count, 0) for count in (95, 300))
    assert set(some) < set(more) and (np.diff(some) > 0).all() and np.ptp(np.bincount(labels[some])) <= 1
    assert not np.array_equal(some, chosen_images(labels, 95, 1))
    found = run(runs, **SHORT)
    bits = corruption_results.bits_in(Path(found["folders"][0]))
    whole = run(runs, corruptions="fog,contrast")
    every = corruption_results.bits_in(Path(whole["folders"][0]))
    assert np.array_equal(bits.correct, every.correct[:, bits.index]) and bits.cells == every.cells


def test_the_generators_seed_is_stated_and_changes_the_draws(runs):
    one, other = (run(runs, seed=seed, corruptions="gaussian_noise")["checkpoints"][0] for seed in (0, 1))
    assert other["source"] == one["source"].replace("seed 0", "seed 1")
    assert one["provenance"]["cells_sha256"] != other["provenance"]["cells_sha256"]


def test_augmentations_of_the_training_name_the_corruptions_already_seen():
    assert seen_in_training({"augment": "jpeg, gaussian noise"}, STANDARD) == [
        "gaussian_noise", "shot_noise", "impulse_noise", "jpeg_compression",
    ]  # fmt: skip
    assert seen_in_training({"flip": True}, STANDARD) == []


# Files on disk


@pytest.fixture(scope="module")
def with_files(small, tmp_path_factory):
    """The run on colour images beside an official folder."""
    root = tmp_path_factory.mktemp("with-files") / "cifar"
    shutil.copytree(small, root)
    evaluate(Asked("cifar10c", (), root / "runs", data_dir=root / "data", save=root / "saved"), Heard())
    shutil.copytree(root / "saved", root / "data" / "CIFAR-10-C")
    folder = root / "data" / "CIFAR-10-C"
    (folder / "frost_procedural.npy").rename(folder / "frost.npy")
    (folder / PROVENANCE).unlink()
    return root


def test_official_files_count_as_a_loop_over_single_images_and_are_read_once(with_files, tmp_path, monkeypatch):
    runs, heard, read, into = with_files / "runs", Heard(), [], ArraySet.into
    monkeypatch.setattr(ArraySet, "into", lambda self, out, *cell: read.append(cell[:2]) or into(self, out, *cell))
    path = newest(runs).checkpoint
    other = tmp_path / "other.ckpt"
    content = torch.load(path, weights_only=True)
    content["net"]["head.weight"] += 0.1
    torch.save(content, other)
    found = run(runs, "cifar10-c", str(path), str(other), data_dir=with_files / "data", heard=heard, out=tmp_path / "o")
    assert len(read) == len(set(read)) == 95
    assert heard.lines[0].startswith("cifar10-c: official files, 19 of 19, 5 x 24 rows, sorted by severity, md5 not")
    labels = np.arange(24) % 10
    for folder, weights, summary in zip(found["folders"], (path, other), found["checkpoints"], strict=True):
        assert summary["source"] == "official" and summary["headline"] == "mean15"
        bits = corruption_results.bits_in(Path(folder))
        for name, severity in (("fog", 1), ("frost", 5), ("shot_noise", 3)):
            images = np.load(with_files / "data" / "CIFAR-10-C" / f"{name}.npy")[24 * (severity - 1) :][:24]
            row = bits.correct[bits.cells.index(f"{name}/{severity}")]
            assert np.array_equal(row, naive(weights, images, labels))
    cells = {name: f["mean"] for name, f in summary["corruptions"].items()}
    assert summary["mean15"] == pytest.approx(np.mean([cells[name] for name in STANDARD]))
    assert summary["mean19"] == pytest.approx(np.mean([cells[name] for name in NAMES]))
    assert summary["families"]["weather"]["mean"] == pytest.approx(
        np.mean([cells[n] for n in ("snow", "frost", "fog", "brightness")])
    )


def test_colour_images_without_frosts_textures_have_a_mean_over_14(with_files):
    [summary] = run(with_files / "runs", "cifar10-c", data_dir=with_files / "data", generate=True)["checkpoints"]
    assert summary["headline"] == "mean14" and summary["mean15"] is summary["mean19"] is None
    assert summary["headline_told"] == "mean of 14 (without frost)"
    assert summary["available_told"] == "mean of 19 (18 reference + 1 substituted)"
    assert summary["reasons"]["mean15"] == "frost substituted by frost_procedural"
    assert summary["families"]["weather"]["of"] == 3
    cells = {name: f["mean"] for name, f in summary["corruptions"].items()}
    assert summary["mean14"] == pytest.approx(np.mean([cells[name] for name in STANDARD if name != "frost"]))
    assert summary["mean_available"] == pytest.approx(np.mean([*cells.values()]))


def test_a_saved_set_is_the_generated_one_and_says_so_when_it_is_read(with_files, tmp_path):
    shutil.copytree(with_files / "data", tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "CIFAR-10-C")
    shutil.copytree(with_files / "saved", tmp_path / "data" / "CIFAR-10-C")
    runs, options = with_files / "runs", {"data_dir": tmp_path / "data"}
    [read] = run(runs, "cifar10-c", out=tmp_path / "read", **options)["checkpoints"]
    [made] = run(runs, "cifar10-c", out=tmp_path / "made", generate=True, **options)["checkpoints"]
    assert read["source"] == made["source"] and read["corruptions"] == made["corruptions"]
    assert read["mean14"] == made["mean14"] and read["headline"] == "mean14"
    provenance = json.loads((with_files / "saved" / PROVENANCE).read_text())
    flat = {f"{name}/{s}": sha for name, five in provenance["files"].items() for s, sha in enumerate(five, 1)}
    assert flat == made["provenance"]["cells_sha256"]
    told = refused(runs, "cifar10-c", code=3, official=True, **options)
    assert "CIFAR-10-C: not found" in told


def test_e27_saving_goes_on_after_a_stop_and_refuses_what_is_not_its_own(cifar):
    runs, where = cifar / "runs", {"data_dir": cifar / "data", "corruptions": "fog,contrast,pixelate"}
    stop = Stop()
    with pytest.raises(UserError, match="of 15 cells"):
        run(runs, "cifar10-c", save=cifar / "set", heard=Heard(stop, "fog"), stop=stop, **where)
    assert sorted(p.name for p in (cifar / "set").iterdir()) == ["fog.npy", "labels.npy", PROVENANCE]
    heard = Heard()
    run(runs, "cifar10-c", save=cifar / "set", heard=heard, **where)
    assert "10 cells x 24 images x 1 checkpoint" in heard.lines
    saved = np.load(cifar / "set" / "pixelate.npy", mmap_mode="r")
    assert saved.shape == (120, 32, 32, 3) and np.load(cifar / "set" / "labels.npy").shape == (120,)
    told = refused(runs, "cifar10-c", code=2, save=cifar / "set", seed=1, **where)
    assert "--save" in told and "holds another set (seed)" in told
    assert "is not empty" in refused(runs, "cifar10-c", code=2, save=cifar / "data", **where)


def test_e27_a_full_disk_keeps_the_files_that_are_finished(cifar, monkeypatch):
    def full(stream, cell):
        if stream.tell() > 128 + 2 * cell.nbytes and (cifar / "set" / "fog.npy").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        write(stream, cell)

    write, where = generated._write_all, {"data_dir": cifar / "data", "corruptions": "fog,contrast"}
    monkeypatch.setattr(generated, "_write_all", full)
    with pytest.raises(UserError, match="contrast.npy: no space left; previous files kept") as error:
        run(cifar / "runs", "cifar10-c", save=cifar / "set", **where)
    assert error.value.exit_code == 1
    assert sorted(p.name for p in (cifar / "set").iterdir()) == ["fog.npy", "labels.npy", PROVENANCE]
    monkeypatch.undo()
    heard = Heard()
    run(cifar / "runs", "cifar10-c", save=cifar / "set", heard=heard, **where)
    assert (cifar / "set" / "contrast.npy").exists()


def test_e27_nothing_is_saved_where_official_files_are_read(with_files, tmp_path):
    options = {"data_dir": with_files / "data", "code": 2}
    told = refused(with_files / "runs", "cifar10-c", save=tmp_path / "set", **options)
    assert told == "--save: nothing is generated. Add --generate"
    assert "--frost-dir: nothing is generated" in refused(
        with_files / "runs", "cifar10-c", frost_dir=tmp_path, **options
    )


def test_e15_a_net_for_grey_images_is_refused_on_colour(cifar, tmp_path):
    content = torch.load(newest(cifar / "runs").checkpoint, weights_only=True)
    content["data"]["channels"] = 1
    content["data"]["mean"], content["data"]["std"] = content["data"]["mean"][:1], content["data"]["std"][:1]
    content["net"]["stages.stem.0.weight"] = content["net"]["stages.stem.0.weight"][:, :1].clone()
    torch.save(content, tmp_path / "grey.ckpt")
    told = refused(cifar / "runs", "cifar10-c", str(tmp_path / "grey.ckpt"), code=2, data_dir=cifar / "data")
    assert "channels; got 1, expected 3" in told


def test_the_standard_15_alone_have_no_mean_over_19(with_files, tmp_path):
    (tmp_path / "data").mkdir()
    shutil.copy(with_files / "data" / "cifar10.npz", tmp_path / "data")
    shutil.copytree(with_files / "data" / "CIFAR-10-C", tmp_path / "data" / "CIFAR-10-C")
    for name in EXTRA:
        (tmp_path / "data" / "CIFAR-10-C" / f"{name}.npy").unlink()
    options = {"data_dir": tmp_path / "data", "out": tmp_path / "out"}
    [summary] = run(with_files / "runs", "cifar10-c", **options)["checkpoints"]
    assert summary["mean15"] is not None and summary["mean19"] is None and summary["headline"] == "mean15"
    assert "speckle_noise" in summary["reasons"]["mean19"] and "not in the folder" in summary["reasons"]["mean19"]


def test_a_set_is_saved_whole_after_its_cells_were_evaluated_without(cifar):
    runs, where = cifar / "runs", {"data_dir": cifar / "data", "corruptions": "fog,contrast"}
    first = run(runs, "cifar10-c", **where)
    assert run(runs, "cifar10-c", save=cifar / "set", **where) == first
    assert json.loads((cifar / "set" / PROVENANCE).read_text())["files"].keys() == {"fog", "contrast"}


def test_e21_sums_that_differ_are_refused_or_relabel_the_source(with_files, tmp_path):
    where = {"data_dir": with_files / "data", "verify": True, "corruptions": "fog"}
    told = refused(with_files / "runs", "cifar10-c", code=3, **where)
    assert "CIFAR-10-C/fog.npy: md5 differs" in told and "--allow-unofficial" in told
    [summary] = run(with_files / "runs", "cifar10-c", allow_unofficial=True, **where)["checkpoints"]
    assert summary["source"] == "unofficial folder"


def test_without_the_clean_set_cells_still_run_and_clean_is_null(with_files, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "CIFAR-10-C").mkdir()
    for path in (with_files / "data" / "CIFAR-10-C").iterdir():
        array = np.load(path)
        np.save(tmp_path / "data" / "CIFAR-10-C" / path.name, np.tile(array[:20], (2500, *[1] * (array.ndim - 1))))
        if path.stem not in ("labels", "fog"):
            (tmp_path / "data" / "CIFAR-10-C" / path.name).unlink()
    heard = Heard()
    options = {"data_dir": tmp_path / "data", "corruptions": "fog", "per_cell": 50, "out": tmp_path / "out"}
    [summary] = run(with_files / "runs", "cifar10-c", heard=heard, **options)["checkpoints"]
    assert summary["clean"] is None and summary["images"] == 50
    assert any("no clean accuracy" in note for note in summary["notes"])
    refused(with_files / "runs", "cifar10-c", code=3, generate=True, **options)


def test_e16_a_clean_set_in_another_order_runs_and_is_paired_with_nothing(with_files, tmp_path):
    with np.load(with_files / "data" / "cifar10.npz") as held:
        content = dict(held)
    content["x_test"], content["y_test"] = content["x_test"][::-1], content["y_test"][::-1]
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "cifar10.npz", **content)
    (tmp_path / "data" / "CIFAR-10-C").symlink_to(with_files / "data" / "CIFAR-10-C")
    heard, options = Heard(), {"corruptions": "fog", "out": tmp_path / "out"}
    [summary] = run(with_files / "runs", "cifar10-c", data_dir=tmp_path / "data", heard=heard, **options)["checkpoints"]
    result = newest(with_files / "runs").finished()
    assert heard.warnings == ["CIFAR-10-C/labels.npy: clean test set in another order; nothing is paired with clean "
                              "images"]  # fmt: skip
    assert summary["clean"]["top1"] == result["accuracy"] and not summary["provenance"]["paired"]


def test_e22_e27_official_files_are_missed_with_where_to_get_them(cifar):
    told = refused(cifar / "runs", "cifar10-c", code=3, official=True, data_dir=cifar / "data")
    assert "mixcli data fetch cifar10-c (Zenodo 2535967" in told
    for option in ("generate", "save"):
        value = True if option == "generate" else cifar / "set"
        assert f"--{option}" in refused(cifar / "runs", "cifar10-c", code=2, official=True, **{option: value})


def test_e26_frost_with_the_users_textures_completes_the_15(cifar):
    from PIL import Image

    rng = np.random.default_rng(0)
    (cifar / "frost").mkdir()
    for number in (1, 2, 3, 4):
        picture = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
        Image.fromarray(picture).save(cifar / "frost" / f"frost{number}.png")
    where = {"data_dir": cifar / "data", "frost_dir": cifar / "frost"}
    told = refused(cifar / "runs", "cifar10-c", code=3, **where)
    assert told.startswith("--frost-dir: frost5 missing; frost1..frost5 expected")
    (cifar / "frost" / "frost5.jpg").write_text("no picture")
    told = refused(cifar / "runs", "cifar10-c", code=3, **where)
    assert told == "--frost-dir: frost5.jpg: cannot decode (not an image)"
    Image.fromarray(picture).save(cifar / "frost" / "frost5.jpg")
    [summary] = run(cifar / "runs", "cifar10-c", **where)["checkpoints"]
    assert summary["headline"] == "mean15" and summary["mean15"] is not None and summary["mean19"] is not None
    assert len(summary["provenance"]["frost_sha256"]) == 5 and "frost_procedural" not in summary["corruptions"]


# Baselines


def test_errors_are_divided_by_those_of_a_named_baseline_and_of_nothing_else(runs, tmp_path):
    one, other = map(str, folders(runs))
    [alone] = run(runs, "digits-c", one, out=tmp_path / "one", per_cell=60)["checkpoints"]
    assert alone["baseline"] is None and "mCE" not in (tmp_path / "one" / "table.md").read_text()
    [base] = run(runs, "digits-c", other, out=tmp_path / "other", per_cell=60)["checkpoints"]
    [by_file] = run(runs, "digits-c", one, baseline=str(tmp_path / "other" / "cells.csv"), per_cell=60)["checkpoints"]
    [by_net] = run(runs, "digits-c", one, baseline=other, out=tmp_path / "net", per_cell=60)["checkpoints"]
    errors = [[1 - np.mean([*f["severities"].values()]) for f in s["corruptions"].values()] for s in (alone, base)]
    ratios = np.divide(*errors)
    assert by_file["baseline"]["mce"] == pytest.approx(ratios.mean())
    assert by_file["baseline"]["told"] == "mean CE of 13 vs other"  # not all 15, so it is not called mCE
    assert [*by_net["baseline"]["ce"].values()] == pytest.approx([*by_file["baseline"]["ce"].values()])
    drops = [np.array(e) - (1 - s["clean"]["top1"]) for e, s in zip(errors, (alone, base), strict=True)]
    assert by_file["baseline"]["relative_mce"] == pytest.approx(np.divide(*drops).mean())


def test_the_mean_of_ratios_has_an_interval_of_both_errors_resampled_or_says_that_it_is_conditional(runs, tmp_path):
    one, other = map(str, folders(runs))
    base = Path(run(runs, "digits-c", other, out=tmp_path / "other", per_cell=60)["folders"][0])
    alone = tmp_path / "alone.csv"
    shutil.copy(base / "cells.csv", alone)
    found = {}
    for name, baseline in {"net": other, "file": base / "cells.csv", "constants": alone}.items():
        options = {"baseline": str(baseline), "out": tmp_path / name, "per_cell": 60}
        [found[name]] = run(runs, "digits-c", one, **options)["checkpoints"]
        again = run(runs, "digits-c", one, **options)["checkpoints"]
        assert again[0]["baseline"] == found[name]["baseline"]  # once from the journal's bits, once from the saved ones
    blocks = {name: summary["baseline"] for name, summary in found.items()}
    numbers = {name: (block["mce"], block["low"], block["high"]) for name, block in blocks.items()}
    assert numbers["net"] == numbers["file"] != numbers["constants"]
    assert all(low < mce < high for mce, low, high in numbers.values())
    assert blocks["net"]["interval"] == (
        "95 % by bootstrap over 60 images, both nets' errors anew in each resample; these files alone"
    )
    assert "conditional on alone, whose errors are taken as exact" in blocks["constants"]["interval"]
    table = (tmp_path / "net" / "table.md").read_text()
    mce, low, high = (f"{100 * value:.2f}" for value in numbers["net"])
    assert f"{mce} \\[{low}, {high}\\]" in table and "both nets' errors anew in each resample" in table
    [row] = csv.DictReader((tmp_path / "net" / "table.csv").read_text().splitlines())
    assert [float(row[key]) for key in ("mce", "mce_low", "mce_high")] == pytest.approx(numbers["net"])


def imagenet(names=STANDARD, severities=(1, 2, 3, 4, 5), classes=1000, kind="official"):
    """What a baseline of constants looks at: cells of ImageNet-C and a checkpoint."""
    cells = SimpleNamespace(panel=Panel(names, severities, names, "224", 3), kind=kind, label=kind)
    return cells, [SimpleNamespace(data={"classes": list(range(classes))})]


def test_the_constants_of_alexnet_are_a_baseline_of_the_official_imagenet_c():
    cells, subjects = imagenet()
    baseline, further = corruption_robustness._baseline(Asked("imagenet-c", baseline="alexnet"), cells, subjects)
    assert further == [] and baseline.wrong is None and "google-research/augmix" in baseline.source
    perfect, worst = ({cell: top1 for cell in cells.panel.cells} for top1 in (1.0, 0.0))
    errors = [0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572, 0.819324,
              0.564592, 0.853204, 0.646056, 0.717840, 0.606500]  # fmt: skip
    for scores, mce in ((dict(baseline.cells), 1), (perfect, 0), (worst, np.mean(1 / np.array(errors)))):
        found = corruption_means.relative(cells.panel, scores, baseline.cells, (0.7, baseline.clean), baseline.name)
        assert found["mce"] == pytest.approx(mce) and found["told"] == "mCE vs alexnet"
        assert found["relative_mce"] is None  # no clean error is among the constants
    with_extra = imagenet((*STANDARD, *EXTRA))[0].panel
    scores = {cell: 0.5 for cell in with_extra.cells}
    found = corruption_means.relative(with_extra, scores, baseline.cells, (None, None), baseline.name)
    assert [*found["ce"]] == list(STANDARD) and [*found["ce"].values()] == pytest.approx(list(0.5 / np.array(errors)))


@pytest.mark.parametrize(
    ("name", "asked", "of"),
    [
        ("cifar100-c", {}, {}),
        ("imagenet-c", {}, {"classes": 10}),
        ("imagenet-c", {}, {"kind": "unofficial folder"}),
        ("imagenet-c", {"per_cell": 100}, {}),
        ("imagenet-c", {}, {"severities": (1, 3)}),
    ],
    ids=["CIFAR", "some classes", "other files", "some images", "some severities"],
)
def test_the_constants_of_alexnet_are_refused_for_anything_else(name, asked, of):
    with pytest.raises(UserError, match="alexnet stands for constants measured on the official ImageNet-C") as error:
        corruption_robustness._baseline(Asked(name, baseline="alexnet", **asked), *imagenet(**of))
    assert error.value.exit_code == 2


def test_e17_a_baseline_must_have_the_same_cells_source_and_images(runs, tmp_path):
    one, other = map(str, folders(runs))
    run(runs, "digits-c", other, out=tmp_path / "base", **SHORT)
    file = tmp_path / "base" / "cells.csv"
    options = {"out": tmp_path / "o", "baseline": str(file)}
    assert "has no cell gaussian_noise/1" in refused(runs, "digits-c", one, code=2, per_cell=30, **options)
    assert "n; got 30" in refused(runs, "digits-c", one, code=2, corruptions="fog", **options)
    assert "source; got" in refused(runs, "digits-c", one, code=2, seed=3, **SHORT, **options)
    text = file.read_text()
    file.write_text("a,b\n1,2\n")
    assert "not a cells.csv" in refused(runs, "digits-c", one, code=3, **SHORT, **options)
    file.write_text("".join(_perfect(line) for line in text.splitlines(keepends=True)))
    with pytest.raises(UserError, match="fog has error 0, ratio undefined") as error:
        run(runs, "digits-c", one, **SHORT, **options)
    assert error.value.exit_code == 3
    assert "not found" in refused(runs, "digits-c", one, code=3, baseline=str(tmp_path / "no.csv"), **SHORT)
    assert "alexnet" in refused(runs, "digits-c", one, code=2, baseline="alexnet", **SHORT)


def _perfect(line):
    cells = line.split(",")
    if "fog" in cells:
        cells[cells.index("fog") + 3] = "30"
    return ",".join(cells)


# Which checkpoint


def test_a_data_set_has_one_name_however_it_is_written():
    for name in ("cifar100c", "cifar100-c", "CIFAR-100-C", "CIFAR-100-c"):
        assert subjects.corrupted(name) == "cifar100"
    assert subjects.corrupted("data/my.npz-c") == subjects.corrupted("my-c") == "my"
    assert subjects.squashed("data/My_set.npz") == "myset"


NAMES_REFUSED = {
    "cifar100": "Did you mean cifar100-c?", "digits": "Did you mean digits-c?", "cifar10-c-bar": "C-bar",
    "cifra10-c": "Did you mean cifar10-c?", "c": "expected NAME-c",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES_REFUSED)
def test_e05_a_name_that_is_none_is_told_what_was_meant(runs, name):
    assert NAMES_REFUSED[name] in refused(runs, name, code=2)


def test_e01_no_run_for_the_data_set(runs, tmp_path):
    assert "cifar100: no finished run found under" in refused(runs, "cifar100-c", code=3)
    for folder in folders(runs):
        Run(folder).result.unlink()
    assert "digits: no finished run found" in refused(runs, code=3)
    found = run(runs, "digits-c", folders(runs)[0].name[-12:], **SHORT)  # unfinished, but named
    assert found["checkpoints"][0]["provenance"]["selection"] == "named"


def test_runs_of_a_study_come_after_those_that_were_typed_and_ends_count_not_dates(runs):
    for folder, extra in zip(folders(runs), ({"ended": 5.0}, {"ended": 9.0, "study": "x"}), strict=True):
        path = Run(folder).result
        path.write_text(json.dumps(json.loads(path.read_text()) | extra))
    assert subjects.choose((), "digits", runs, "digits-c")[0].path.parent == folders(runs)[0]
    path = Run(folders(runs)[1]).result
    path.write_text(path.read_text().replace('"study": "x"', '"study": null'))
    assert subjects.choose((), "digits", runs, "digits-c")[0].path.parent == folders(runs)[1]


def test_e02_e29_a_checkpoint_of_another_data_set_is_refused_with_both(runs, cifar):
    path = str(newest(runs).checkpoint)
    told = refused(runs, "cifar100-c", path, code=2)
    assert "classes; got 10 (digits), expected 100 (cifar100-c)" in told
    assert "data set; got digits" in refused(runs, "cifar10-c", path, code=2)
    other = str(newest(cifar / "runs").checkpoint)
    told = refused(runs, "digits-c", path, other, code=2)
    assert "made for cifar10" in told and "for digits" in told
    assert "named twice" in refused(runs, "digits-c", path, str(newest(runs).folder), code=2)


def test_e01_e03_a_damaged_checkpoint_or_one_without_constants_is_refused(runs, tmp_path):
    path = newest(runs).checkpoint
    data = path.read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(data[: len(data) // 2])
    assert "damaged" in refused(runs, "digits-c", str(tmp_path / "cut.ckpt"), code=3)
    content = torch.load(path, weights_only=True)
    del content["data"]["mean"]
    torch.save(content, tmp_path / "bare.ckpt")
    assert "field normalisation missing" in refused(runs, "digits-c", str(tmp_path / "bare.ckpt"), code=3)
    assert "not found" in refused(runs, "digits-c", str(tmp_path / "no.ckpt"), code=3)


def test_a_loose_checkpoint_keeps_its_results_beside_itself(runs, tmp_path):
    (tmp_path / "loose").mkdir()
    shutil.copy(newest(runs).checkpoint, tmp_path / "loose" / "mine.ckpt")
    [folder] = run(runs, "digits-c", str(tmp_path / "loose" / "mine.ckpt"), **SHORT)["folders"]
    assert folder.startswith(str(tmp_path / "loose" / "mine-studies" / "corruptions" / "digits-c-generated-"))
    assert corruption_results.of_checkpoint(newest(runs).checkpoint) == []


OPTIONS = {
    "--corruption: unknown 'fogg'. Did you mean fog?": {"corruptions": "fogg"},
    "--corruption: fog given twice": {"corruptions": "fog,fog"},
    "--corruption: snow not applicable at 8x8 with 1 channel": {"corruptions": "snow"},
    "--corruption: frost_procedural not applicable": {"corruptions": "frost_procedural"},
    "--severity: not a severity; got 0, expected integer 1..5": {"severities": "0"},
    "--severity: not a severity; got 6": {"severities": "1,6"},
    "--severity: not a severity; got 2.5": {"severities": "2.5"},
    "--severity: not a severity; got -1": {"severities": "-1"},
    "--severity: not a severity; got a": {"severities": "a"},
    "--severity: 2 given twice": {"severities": "2,2"},
    "--per-cell: not a number of images; got 0, expected 1..360": {"per_cell": 0},
    "--per-cell: not a number of images; got 361": {"per_cell": 361},
    "--batch-size: must be": {"batch": 0},
    "--precision: unknown; got fp8": {"precision": "fp8"},
    "--official: no official set exists for digits": {"official": True},
    "--save: saves all images": {"save": Path("x"), "per_cell": 5},
    "device: unknown device": {"device": "gpu"},
}


@pytest.mark.parametrize("told", OPTIONS)
def test_e05_e06_e07_e14_e23_an_option_that_cannot_be_is_refused_before_anything_is_made(runs, told):
    assert told in refused(runs, code=2, **OPTIONS[told])


def test_e31_bits_that_are_damaged_or_not_there_are_told(tmp_path):
    with pytest.raises(UserError, match="no per-image results. Run mixcli eval-corruptions"):
        corruption_results.bits_in(tmp_path)
    (tmp_path / "per_image_correct.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="damaged"):
        corruption_results.bits_in(tmp_path)


def test_a_net_in_training_mode_is_never_shown_a_cell(runs):
    [subject] = subjects.load(subjects.choose((), "digits", runs, "digits-c"), "cpu")
    subject.net.train()
    with pytest.raises(AssertionError, match="adaptation"):
        corruption_robustness._logits(subject, subject.machine, torch.zeros(2, 8, 8, 1, dtype=torch.uint8), None)


def test_text_that_a_spreadsheet_would_run_stands_after_an_apostrophe(runs, tmp_path):
    shutil.copy(newest(runs).checkpoint, tmp_path / "=1+2.ckpt")
    [folder] = run(runs, "digits-c", str(tmp_path / "=1+2.ckpt"), **SHORT)["folders"]
    assert {row["checkpoint"] for row in table(folder)} == {"'=1+2"}
