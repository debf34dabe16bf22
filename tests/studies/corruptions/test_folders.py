"""Image files, tars and class folders in the corruption benchmark: Tiny-ImageNet-C end to end on a small fake one."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixcli import archive
from mixcli.cli import main
from mixcli.corruptions import digital, official, published
from mixcli.corruptions.generated import Generated
from mixcli.data import sources
from mixcli.errors import UserError
from mixcli.recipe import Train
from mixcli.report import robustness
from mixcli.runs import Run
from mixcli.studies.corruptions import results as corruption_results
from mixcli.studies.corruptions.robustness import Asked, evaluate
from tests.engine import harness
from tests.image_folders import WNIDS, class_folders, corrupted, tiny_imagenet
from tests.studies.corruptions.test_robustness import naive, refused
from tests.studies.heard import Heard

pytestmark = pytest.mark.usefixtures("undrawn_corruptions")

WORDS = WNIDS[::-1]  # in the order of wnids.txt
TWO = {"corruptions": "fog,frost", "severities": "1,3"}  # the four cells that are there


@pytest.fixture(scope="module")
def tiny_store(tmp_path_factory):
    """A run on a small Tiny-ImageNet, with its data, and a Tiny-ImageNet-C of two corruptions beside it."""
    root = tmp_path_factory.mktemp("tiny")
    tiny_imagenet(root / "data")
    train = harness.settings(dataset="tiny-imagenet", data_dir=str(root / "data"), net="small", per_class=None, width=2,
                             epochs=1, batch=20, pad=8)  # fmt: skip
    harness.run_through(root / "runs", train)
    folder = corrupted(root / "data" / "Tiny-ImageNet-C", ("fog", "frost"), WNIDS, (1, 3))
    for severity in (1, 3):  # as in the record: frost has classes that the set does not
        for number in range(10):
            shutil.copytree(folder / "frost" / str(severity) / WNIDS[0],
                            folder / "frost" / str(severity) / f"m{number}")  # fmt: skip
    return root


@pytest.fixture
def tiny(tiny_store, tmp_path):
    shutil.copytree(tiny_store, tmp_path / "tiny")
    return tmp_path / "tiny"


def run(root, name="tiny-imagenet-c", *checkpoints, heard=None, **options):
    where = {"data_dir": root / "data"}
    return evaluate(Asked(name, checkpoints, root / "runs", **(where | options)), heard or Heard())


def newest(root):
    return next(Run(folder) for folder in (root / "runs").iterdir() if folder.is_dir())


def test_tiny_imagenet_c_counts_as_a_loop_over_its_files_in_the_clean_sets_classes(tiny_store, tmp_path):
    heard = Heard()
    found = run(tiny_store, heard=heard, **TWO, out=tmp_path / "out")
    assert heard.lines[0].startswith("tiny-imagenet-c: official files, 2 of 19, image files, md5 not checked | ")
    bits, folder = corruption_results.bits_in(Path(found["folders"][0])), tiny_store / "data" / "Tiny-ImageNet-C"
    for name, severity in (("fog", 1), ("frost", 3)):
        cell = folder / name / str(severity)
        files = [next((cell / word).glob("*.JPEG")) for word in WORDS]
        images = np.stack([np.asarray(Image.open(file)) for file in files])
        expected = naive(newest(tiny_store).checkpoint, images, np.arange(200))
        assert np.array_equal(bits.correct[bits.cells.index(f"{name}/{severity}")], expected)


def test_its_caveats_are_told_and_nothing_is_paired_with_clean_images(tiny_store, tmp_path):
    heard = Heard()
    found = run(tiny_store, heard=heard, **TWO, out=tmp_path / "out")
    [summary] = found["checkpoints"]
    assert heard.warnings == [
        "Tiny-ImageNet-C/frost: 10 class folders that the clean set does not have, ignored"
    ]  # fmt: skip
    shown = " ".join(robustness.remarks([summary]))
    assert "its images are not the validation images; no corrupted image is paired with a clean one" in shown
    assert "clean accuracy, and all that is relative to it, is that of other images" in shown
    assert summary["clean"]["n"] == 200 and not summary["provenance"]["paired"]
    assert "clean" not in corruption_results.bits_in(Path(found["folders"][0])).cells
    assert summary["clean"]["top1"] == newest(tiny_store).finished()["accuracy"]


def test_e28_missing_classes_and_images_are_refused_before_the_first_cell(tiny):
    cell = tiny / "data" / "Tiny-ImageNet-C" / "frost" / "3"
    next((cell / WNIDS[5]).iterdir()).unlink()
    told = refused(tiny / "runs", "tiny-imagenet-c", code=3, data_dir=tiny / "data", **TWO)
    assert "Tiny-ImageNet-C/frost/3: 1 images that other cells do not share" in told
    for word in WNIDS[:12]:
        shutil.rmtree(cell / word)
    told = refused(tiny / "runs", "tiny-imagenet-c", code=3, data_dir=tiny / "data", **TWO)
    assert "Tiny-ImageNet-C/frost/3: 12 of 200 class folders missing" in told
    told = refused(tiny / "runs", "tiny-imagenet-c", code=3, data_dir=tiny / "data", severities="1,3")
    assert "Tiny-ImageNet-C/gaussian_noise: missing; 2 of 19 found" in told


def test_e30_an_image_that_cannot_be_decoded_is_named_and_finished_cells_are_kept(tiny, tmp_path):
    file = next((tiny / "data" / "Tiny-ImageNet-C" / "fog" / "3" / WNIDS[7]).iterdir())
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError) as error:
        run(tiny, **TWO, out=tmp_path / "out")
    assert error.value.exit_code == 3
    assert f"Tiny-ImageNet-C/fog/3/{WNIDS[7]}/{file.name}: cannot decode (truncated)" in str(error.value)
    kept = [json.loads(line) for line in (tmp_path / "out" / "journal.jsonl").read_text().splitlines()[1:]]
    assert [(row["corruption"], row["severity"]) for row in kept] == [("clean", 0), ("fog", 1)]


def test_generated_tiny_imagenet_c_has_the_column_of_64_pixels_and_its_images_are_the_validation_images(
    tiny_store, tmp_path
):
    heard = Heard()
    [summary] = run(tiny_store, heard=heard, generate=True, corruptions="contrast", out=tmp_path / "out")["checkpoints"]
    assert heard.lines[0].startswith("tiny-imagenet-c: generated (not the official files)")
    assert "parameters: column 64 (reference parameters)" in summary["notes"]
    assert any("without the JPEG 85" in note for note in summary["notes"])
    assert summary["provenance"]["paired"] and summary["images"] == 200


# --jpeg85


def test_jpeg85_stores_every_generated_image_and_says_so(tiny_store, tmp_path):
    options = {"generate": True, "corruptions": "contrast"}
    found = run(tiny_store, jpeg85=True, save=tmp_path / "saved", out=tmp_path / "stored", **options)
    [summary] = found["checkpoints"]
    assert summary["source"].endswith("seed 0, stored as JPEG 85") and summary["provenance"]["jpeg85"] is True
    assert any(note.startswith("every corrupted image went through a JPEG file") for note in summary["notes"])
    test = sources.load_test(Train(dataset="tiny-imagenet", data_dir=str(tiny_store / "data")))[2]
    made = Generated(torch.from_numpy(test.images), torch.arange(200), 0)
    saved = np.load(tmp_path / "saved" / "contrast.npy")
    for severity in (1, 5):
        plain = made.cell("contrast", severity)
        expected = digital.jpeg(plain, 85, {})
        assert not torch.equal(plain, expected)
        assert np.array_equal(saved[200 * (severity - 1) :][:200], expected.numpy())
    [other] = run(tiny_store, out=tmp_path / "plain", **options)["checkpoints"]
    assert "JPEG 85" not in other["source"] and "jpeg85" not in other["provenance"]


def test_a_saved_set_says_that_it_was_stored_and_another_is_not_added_to_it(tiny, tmp_path):
    options = {"generate": True, "corruptions": "contrast", "save": tmp_path / "saved"}
    run(tiny, jpeg85=True, **options)
    told = refused(tiny / "runs", "tiny-imagenet-c", code=2, data_dir=tiny / "data", **options)
    assert "holds another set (jpeg85)" in told
    shutil.rmtree(tiny / "data" / "Tiny-ImageNet-C")
    shutil.move(tmp_path / "saved", tiny / "data" / "Tiny-ImageNet-C")
    [summary] = run(tiny, out=tmp_path / "out")["checkpoints"]
    assert summary["source"].endswith("seed 0, stored as JPEG 85") and list(summary["corruptions"]) == ["contrast"]


def test_jpeg85_is_refused_where_nothing_is_generated(tiny_store):
    options = {"code": 2, "data_dir": tiny_store / "data", "jpeg85": True, **TWO}
    assert "--jpeg85: nothing is generated" in refused(tiny_store / "runs", "tiny-imagenet-c", **options)
    assert "--jpeg85: contradicts --official" in refused(
        tiny_store / "runs", "tiny-imagenet-c", official=True, **options
    )


# Class folders


def test_a_set_of_class_folders_has_a_corrupted_set_of_its_own(tmp_path, monkeypatch, capsys):
    class_folders(tmp_path / "birds", side=16)
    monkeypatch.chdir(tmp_path)
    trained = [
        "train",
        "--dataset",
        "birds",
        "--net",
        "small",
        "--width",
        "2",
        "--epochs",
        "1",
        "--batch",
        "8",
        "--quiet",
    ]
    assert main(trained) == 0
    capsys.readouterr()
    assert main(["eval-corruptions", "birds-c", "--corruption", "fog,jpeg_compression", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    [summary] = result["checkpoints"]
    assert summary["dataset"] == "birds-c" and summary["images"] == 12
    assert summary["provenance"]["column"] == "32" and "column 32 (a size without published" in summary["notes"][0]


# Tars


@pytest.fixture
def packed(tiny):
    """The store with its Tiny-ImageNet-C in a tar."""
    folder = tiny / "data" / "Tiny-ImageNet-C"
    with tarfile.open(tiny / "data" / "Tiny-ImageNet-C.tar", "w") as tar:
        tar.add(folder, "Tiny-ImageNet-C")
    shutil.move(folder, tiny / "folder")
    return tiny


def test_a_tar_in_the_folders_place_is_unpacked_once_and_is_the_folder(packed, tmp_path, monkeypatch):
    heard = Heard()
    [read] = run(packed, heard=heard, **TWO, out=tmp_path / "a")["checkpoints"]
    assert heard.lines[0].endswith("Tiny-ImageNet-C.tar: unpacked once, beside itself")
    assert heard.lines[1].startswith("tiny-imagenet-c: official files")
    same = sorted(p.relative_to(packed / "folder") for p in (packed / "folder").rglob("*"))
    there = packed / "data" / "Tiny-ImageNet-C"
    assert sorted(p.relative_to(there) for p in there.rglob("*")) == same
    monkeypatch.setattr(archive, "unpacked", None)
    [again] = run(packed, **TWO, out=tmp_path / "b")["checkpoints"]
    assert again["corruptions"] == read["corruptions"]


def test_e19_a_hostile_tar_is_one_line_and_leaves_nothing(packed):
    tar = packed / "data" / "Tiny-ImageNet-C.tar"
    with tarfile.open(tar, "a") as archive_:
        info = tarfile.TarInfo("../x")
        archive_.addfile(info, io.BytesIO())
    told = refused(packed / "runs", "tiny-imagenet-c", code=3, data_dir=packed / "data", **TWO)
    assert told.startswith("Tiny-ImageNet-C.tar: member '../x' leaves the folder")
    assert sorted(p.name for p in (packed / "data").iterdir()) == ["Tiny-ImageNet-C.tar", "tiny-imagenet-200"]


def test_e21_verify_compares_the_tar_before_it_is_unpacked(packed, monkeypatch):
    options = {"data_dir": packed / "data", **TWO, "verify": True}
    known = published.PUBLISHED["tiny-imagenet"]
    object.__setattr__(known, "md5", "0" * 32)
    try:
        told = refused(packed / "runs", "tiny-imagenet-c", code=3, **options)
        assert told == (
            "Tiny-ImageNet-C.tar: md5 differs from the recorded one. --allow-unofficial to go on, relabelled"
        )
        assert not (packed / "data" / "Tiny-ImageNet-C").exists()
        [summary] = run(packed, allow_unofficial=True, **options)["checkpoints"]
        assert summary["source"] == "unofficial folder"
        [sums] = json.loads(official.memory(packed / "data" / "Tiny-ImageNet-C").read_text()).values()
        object.__setattr__(known, "md5", sums[2])
        [summary] = run(packed, **options)["checkpoints"]
        assert summary["source"] == "official" and summary["provenance"]["md5"] == "md5 ok"
    finally:
        object.__setattr__(known, "md5", None)


def test_without_any_known_sum_verify_says_so(tiny_store, tmp_path):
    [summary] = run(tiny_store, verify=True, **TWO, out=tmp_path / "out")["checkpoints"]
    assert summary["provenance"]["md5"] == "md5 not checked (none is known)"
