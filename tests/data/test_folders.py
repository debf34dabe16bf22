"""Data sets that are folders of image files: what is read, in which order, and what is said of anything else."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from mixcli import pictures
from mixcli.data import folders, sources
from mixcli.errors import UserError
from mixcli.recipe import Train
from tests.image_folders import WNIDS, class_folders, picture, tiny_imagenet


@pytest.fixture
def animals(tmp_path):
    return class_folders(tmp_path / "animals")


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    tiny_imagenet(data)
    return data


def load(folder, **settings):
    return sources.load(Train(dataset=str(folder), **settings))


def refused(folder, **settings):
    with pytest.raises(UserError) as error:
        load(folder, **settings)
    assert error.value.exit_code == 3 and "\n" not in str(error.value)
    return str(error.value)


def test_classes_are_folders_in_alphabetical_order_and_images_are_their_files(animals):
    source = load(animals)
    assert source.classes == ("ant", "bee", "cat") and source.facts.size == (8, 8) and source.facts.channels == 3
    assert source.train.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8 and len(source.test) == 12
    assert np.array_equal(source.train.images[9], np.asarray(Image.open(animals / "train" / "bee" / "1.png")))
    assert np.array_equal(source.test.images[-1], np.asarray(Image.open(animals / "test" / "cat" / "3.png")))
    assert source.train.index.tolist() == list(range(24)) and source.train.labels.dtype == np.int64


def test_constants_are_measured_on_the_training_images(animals):
    source = load(animals)
    pixels = source.train.images.reshape(-1, 3) / 255
    np.testing.assert_allclose(source.mean, pixels.mean(0))
    np.testing.assert_allclose(source.std, pixels.std(0))


def test_val_is_tested_where_there_is_no_test_and_left_alone_where_there_is(tmp_path):
    folder = class_folders(tmp_path / "a", test="val", tested=2)
    assert len(load(folder).test) == 6
    class_folders(folder, test="test", tested=3)
    assert len(load(folder).test) == 9


def test_looking_decodes_nothing_and_knows_what_loading_finds(animals, monkeypatch):
    source = load(animals)
    monkeypatch.setattr(pictures, "decoded", None)
    assert sources.look(Train(dataset=str(animals))) == source.facts
    assert (source.facts.images, source.facts.test_images, source.facts.classes) == (24, 12, 3)


def test_the_test_images_alone_are_those_of_the_whole_set(animals, tiny_data, monkeypatch):
    for train in (Train(dataset=str(animals)), Train(dataset="tiny-imagenet", data_dir=str(tiny_data)), Train()):
        whole = sources.load(train)
        facts, classes, test = sources.load_test(train)
        assert (facts, classes) == (whole.facts, whole.classes) and np.array_equal(test.images, whole.test.images)
        assert np.array_equal(test.labels, whole.test.labels) and np.array_equal(test.index, whole.test.index)
    decoded, seen = pictures.decoded, []
    monkeypatch.setattr(pictures, "decoded", lambda path, *a: seen.append(path) or decoded(path, *a))
    sources.load_test(Train(dataset=str(animals)))
    assert len(seen) == 12 and {path.parent.parent.name for path in seen} == {"test"}


def test_a_set_is_known_by_its_files_wherever_it_lies(animals, tmp_path):
    shutil.copytree(animals, tmp_path / "copy")
    before, copy = (sources.look(Train(dataset=str(f))).identity for f in (animals, tmp_path / "copy"))
    assert before == copy
    picture(tmp_path / "copy" / "train" / "ant" / "9.png", 1, format="PNG")
    assert sources.look(Train(dataset=str(tmp_path / "copy"))).identity != before


def test_grey_files_alone_make_a_grey_set_and_among_others_they_are_colour(tmp_path):
    grey = class_folders(tmp_path / "grey", mode="L")
    source = load(grey)
    assert source.facts.channels == 1 and source.train.images.shape == (24, 8, 8, 1)
    picture(grey / "train" / "ant" / "0.png", 1, format="PNG")
    source = load(grey)
    assert source.facts.channels == 3 and np.ptp(source.train.images[5], axis=2).max() == 0
    picture(grey / "train" / "ant" / "0.png", 1, mode="L", format="PNG")
    picture(grey / "train" / "ant" / "5.png", 1, format="PNG")
    assert "grey/train/ant/5.png: a colour image in a set of grey ones" in refused(grey)


def test_hidden_files_and_those_that_are_no_images_are_nobodys(animals):
    (animals / "train" / "ant" / "._0.png").write_text("")
    (animals / "train" / "ant" / "notes.txt").write_text("")
    (animals / "train" / ".DS_Store").write_text("")
    assert len(load(animals).train) == 24


def test_d04_empty_classes_one_class_and_missing_ones_are_refused(animals):
    (animals / "train" / "dog").mkdir()
    assert "animals/test: 1 of 4 class folders missing. First: dog" in refused(animals)
    (animals / "test" / "dog").mkdir()
    assert "animals/train/dog: no images" in refused(animals)
    shutil.rmtree(animals / "train" / "dog")
    assert "animals/test/dog: a class that train/ does not have" in refused(animals)
    shutil.rmtree(animals / "test" / "dog")
    for name in ("ant", "bee"):
        shutil.rmtree(animals / "train" / name)
    assert "animals/train: 1 class folders; expected at least 2" in refused(animals)


def test_d14_a_folder_without_the_parts_or_not_there_is_told(animals):
    shutil.rmtree(animals / "test")
    told = refused(animals)
    assert "animals/test: no such folder; expected train/ and test/ or val/" in told
    shutil.rmtree(animals)
    assert f"{animals}: not found" in refused(animals)


def test_d06_d09_files_that_cannot_be_used_are_named(animals):
    picture(animals / "train" / "bee" / "7.png", 1, side=12, format="PNG")
    assert "animals/train/bee/7.png: size 12x12; expected 8x8" in refused(animals)
    picture(animals / "train" / "bee" / "0.png", 1, side=12, format="PNG")
    assert "animals/train/bee/0.png: size 12x12, another than that of train/ant/0.png" in refused(animals)
    picture(animals / "train" / "bee" / "0.png", 1, format="PNG")
    (animals / "train" / "bee" / "7.png").write_text("text")
    assert "animals/train/bee/7.png: cannot decode (not an image)" in refused(animals)


def test_a_set_that_no_memory_holds_is_refused_before_it_is_read(animals, monkeypatch):
    monkeypatch.setattr(folders.os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 1)
    with pytest.raises(
        UserError, match="36 images of 8x8 need 0 GiB of memory, and this machine has 0.*--resize"
    ) as error:
        load(animals)
    assert error.value.exit_code == 1


# Tiny-ImageNet


def test_tiny_imagenet_has_the_classes_of_its_list_and_is_tested_on_its_validation_images(tiny_data):
    source = sources.load(Train(dataset="tiny-imagenet", data_dir=str(tiny_data)))
    assert source.classes == WNIDS[::-1] and source.facts.size == (64, 64) and source.facts.classes == 200
    assert len(source.train) == 400 and len(source.test) == 200
    root = tiny_data / "tiny-imagenet-200"
    word = WNIDS[-1]
    first = np.asarray(Image.open(root / "train" / word / "images" / f"{word}_0.JPEG"))
    assert source.train.labels[0] == 0 and np.array_equal(source.train.images[0], first)
    rows = [line.split("\t")[:2] for line in (root / "val" / "val_annotations.txt").read_text().splitlines()]
    for row in (0, 77, 199):
        name, word = rows[row]
        assert source.classes[source.test.labels[row]] == word
        assert np.array_equal(source.test.images[row], np.asarray(Image.open(root / "val" / "images" / name)))
    assert source.mean == (0.485, 0.456, 0.406) and source.std == (0.229, 0.224, 0.225)


@pytest.fixture
def tiny(tiny_data, tmp_path):
    shutil.copytree(tiny_data, tmp_path / "data")
    return tmp_path / "data" / "tiny-imagenet-200"


def broken(tiny):
    return refused("tiny-imagenet", data_dir=str(tiny.parent))


def test_an_incomplete_tiny_imagenet_is_refused(tiny):
    word = WNIDS[3]
    images = tiny / "train" / word / "images"
    (images / f"{word}_1.JPEG").unlink()
    assert f"tiny-imagenet-200/train/{word}: 1 images; expected 2, by {word}_boxes.txt" in broken(tiny)
    (images / f"{word}_0.JPEG").unlink()
    assert f"train/{word}/images: no images" in broken(tiny)
    shutil.rmtree(tiny / "train" / word)
    assert f"train/{word}/images: cannot be read" in broken(tiny)


def test_validation_images_and_their_annotations_must_agree(tiny):
    (tiny / "val" / "images" / "val_7.JPEG").unlink()
    assert "val/images: 1 of 200 images missing. First: val_7.JPEG" in broken(tiny)
    for line in ("val_1.JPEG", "val_1.JPEG\tn99\t0", f"../../x.JPEG\t{WNIDS[0]}\t0"):
        (tiny / "val" / "val_annotations.txt").write_text(line + "\n")
        assert "val_annotations.txt: line 1 names no image of a class" in broken(tiny)
    (tiny / "val" / "val_annotations.txt").unlink()
    assert "val_annotations.txt: cannot be read" in broken(tiny)


def test_tiny_imagenet_has_200_classes(tiny):
    (tiny / "wnids.txt").write_text("\n".join(WNIDS[:100]))
    rows = (tiny / "val" / "val_annotations.txt").read_text().splitlines(keepends=True)
    (tiny / "val" / "val_annotations.txt").write_text("".join(r for r in rows if r.split("\t")[1] in WNIDS[:100]))
    assert "not tiny-imagenet; got 100 classes of 64x64x3, expected 200" in broken(tiny)
    (tiny / "wnids.txt").write_text("n1\nn1\n")
    assert "wnids.txt: not a list of class names" in broken(tiny)


def test_a_folder_in_tiny_imagenets_layout_is_read_by_its_path_too(tiny):
    assert len(load(tiny).test) == 200
