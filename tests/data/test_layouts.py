"""Published sets of image files: which images are for training and which for the test; incomplete and damaged ones."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from mixcli import pictures
from mixcli.catalogue import MEDMNIST
from mixcli.data import folders, layouts, sources
from mixcli.errors import UserError
from mixcli.recipe import SIDES, Train, complete
from tests.image_folders import class_folders, food_101, numbered_folders, oblong, oxford_iiit_pet

SMALL = 32  # px: large enough to be resized to, small enough for many


def load(name, data, **settings):
    return sources.load(Train(dataset=name, data_dir=str(data), **settings))


def refused(name, data, **settings):
    with pytest.raises(UserError) as error:
        load(name, data, **settings)
    assert error.value.exit_code == 3 and "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data directory with every set, never changed."""
    data = tmp_path_factory.mktemp("data")
    food_101(data)
    oxford_iiit_pet(data)
    numbered_folders(data / "256_ObjectCategories", [f"{k:03}.thing-{k}" for k in range(1, 258)], 81)
    numbered_folders(data / "mini-imagenet", [f"n{k:08}" for k in range(100)], 5, (84, 84))
    numbered_folders(data / "eurosat" / "2750", [f"Land{k}" for k in range(10)], 10, (64, 64))
    return data


def divided(name, data):
    """The names of the training and of the test files."""
    train = Train(dataset=name, data_dir=str(data))
    parts = sources._divided(sources._listed(sources.locate(train), train))
    return [list(part.names) for part in parts]


# Splits


def test_food_101_is_split_by_its_lists(made):
    source = load("food-101", made, resize=SMALL)
    assert (len(source.train), len(source.test), len(source.classes)) == (202, 101, 101)
    assert source.classes[7] == "dish_007" and source.train.labels.tolist() == sorted([*range(101)] * 2)
    train, test = divided("food-101", made)
    assert train[:2] == ["images/dish_000/0.jpg", "images/dish_000/1.jpg"] and test[0] == "images/dish_000/2.jpg"
    assert not set(train) & set(test)


def test_pets_are_numbered_by_their_annotations_and_split_into_trainval_and_test(made):
    source = load("oxford-iiit-pet", made, resize=SMALL)
    assert (len(source.train), len(source.test), len(source.classes)) == (74, 37, 37)
    assert source.classes[:3] == ("breed_of_z_00", "breed_of_y_01", "breed_of_x_02")
    assert source.test.labels.tolist() == list(range(37))
    assert divided("oxford-iiit-pet", made)[1][36] == "images/breed_of_z_36_2.jpg"


def test_caltech_256_takes_the_first_60_and_the_next_20_of_each_of_257_classes(made):
    look = sources.look(Train(dataset="caltech-256", data_dir=str(made)))
    assert (look.images, look.test_images, look.classes, look.size) == (15_420, 5_140, 257, (224, 224))
    train, test = divided("caltech-256", made)
    assert train[:60] == [f"001.thing-1/{k:04}.jpg" for k in range(1, 61)] and train[60].startswith("002.")
    assert test[:20] == [f"001.thing-1/{k:04}.jpg" for k in range(61, 81)] and test[20].startswith("002.")


@pytest.mark.parametrize(("name", "each", "classes"), [("mini-imagenet", 5, 100), ("eurosat", 10, 10)])
def test_a_set_without_a_published_split_tests_a_fifth_of_each_class_whatever_the_split_seed(made, name, each, classes):
    source = load(name, made)
    assert (np.bincount(source.train.labels) == each * 4 // 5).all() and len(source.classes) == classes
    assert (np.bincount(source.test.labels) == each // 5).all()
    assert (source.facts.images, source.facts.test_images) == (len(source.train), len(source.test))
    train, test = divided(name, made)
    assert not set(train) & set(test) and len({*train, *test}) == each * classes
    assert np.array_equal(source.test.images, load(name, made, split_seed=3).test.images)


def test_the_two_drawn_splits_are_those_that_were_drawn_first(made):
    assert folders.Drawn(0.2, seed=100) == layouts.MINI_IMAGENET
    digits = [int(name[-5]) for name in divided("mini-imagenet", made)[1][:12]]
    assert digits == [1, 5, 3, 1, 5, 2, 2, 1, 2, 1, 2, 3]
    assert [int(name[-6:-4]) for name in divided("eurosat", made)[1][:10]] == [6, 9, 2, 6, 7, 8, 1, 7, 5, 7]


def test_mini_imagenet_in_few_shot_parts_is_the_same_set_with_the_same_split(made, tmp_path):
    for k in range(100):
        part = "train" if k % 3 else "val" if k % 2 else "test"
        shutil.copytree(made / "mini-imagenet" / f"n{k:08}", tmp_path / "mini-imagenet" / part / f"n{k:08}")
    ours, flat = load("mini-imagenet", tmp_path), load("mini-imagenet", made)
    assert ours.classes == flat.classes and ours.digest == flat.digest
    assert np.array_equal(ours.test.images, flat.test.images)


def test_constants_are_those_of_the_recipes(made):
    assert load("food-101", made, resize=SMALL).mean == (0.485, 0.456, 0.406)
    assert load("mini-imagenet", made).mean == load("mini-imagenet", made).std == (0.5, 0.5, 0.5)
    eurosat = load("eurosat", made)
    np.testing.assert_allclose(eurosat.mean, eurosat.train.images.reshape(-1, 3).mean(0) / 255)


@pytest.mark.parametrize("name", ["food-101", "oxford-iiit-pet", "caltech-256", "mini-imagenet", "eurosat"])
def test_what_is_known_of_a_set_agrees_with_the_tables(name):
    facts = sources.KNOWN[name]
    assert facts.size == ((SIDES[name],) * 2 if name in SIDES else (64, 64))
    assert name in sources.DATASETS and name in layouts.LAYOUTS and name in sources.FOLDERS


# Where sets may lie


def test_a_set_may_lie_in_class_folders_of_its_name(tmp_path):
    class_folders(tmp_path / "eurosat", [f"c{k}" for k in range(10)], side=64, train=2, tested=1)
    source = load("eurosat", tmp_path)
    assert (len(source.train), len(source.test)) == (20, 10)


def test_a_set_may_lie_where_torchvision_leaves_it(tmp_path):
    names = [f"{k:03}.thing" for k in range(1, 258)]
    numbered_folders(tmp_path / "caltech256" / "256_ObjectCategories", names, 80)
    assert sources.look(Train(dataset="caltech-256", data_dir=str(tmp_path))).images == 15_420


def test_a_set_may_be_an_array_file_of_the_stored_side(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (74, 48, 48, 3), dtype=np.uint8)
    np.savez(tmp_path / "oxford-iiit-pet.npz", x_train=images, y_train=np.arange(74) % 37, x_test=images,
             y_test=np.arange(74) % 37)  # fmt: skip
    assert load("oxford-iiit-pet", tmp_path, resize=48).facts.size == (48, 48)
    with pytest.raises(UserError, match="resize: 48x48 images in arrays stay as they are.*got 224") as error:
        load("oxford-iiit-pet", tmp_path)
    assert error.value.exit_code == 2


# Sizes


@pytest.mark.parametrize("side", [224, 84, 32, 9])
@pytest.mark.parametrize("size", [(300, 200), (200, 301), (90, 90), (8, 41)])
def test_resized_images_have_the_bits_of_torchvision(tmp_path, side, size):
    path = tmp_path / "a" / "x.jpg"
    oblong(path, 1, size)
    expected = Compose([Resize(round(side * 256 / 224)), CenterCrop(side)])(Image.open(path).convert("RGB"))
    assert np.array_equal(pictures.decoded(path, "x", (side, side, 3), True), np.asarray(expected))


def test_an_image_of_the_stored_side_stays_as_it_is(tmp_path):
    path = tmp_path / "a" / "x.jpg"
    oblong(path, 1, (32, 32))
    assert np.array_equal(pictures.decoded(path, "x", (32, 32, 3), True), np.asarray(Image.open(path)))


def test_photographs_are_stored_at_224_and_any_folder_at_the_side_that_is_asked_for(made, tmp_path):
    source = load("oxford-iiit-pet", made)
    assert source.train.images.shape == (74, 224, 224, 3) and source.facts.size == (224, 224)
    completed = complete(Train(dataset="oxford-iiit-pet", data_dir=str(made)), source.facts)
    assert (completed.resize, completed.pad, completed.flip) == (224, 28, True)
    folder = class_folders(tmp_path / "animals")
    oblong(folder / "train" / "ant" / "0.jpg", 1, (30, 20))
    assert sources.load(Train(dataset=str(folder), resize=16)).test.images.shape == (12, 16, 16, 3)
    grey = class_folders(tmp_path / "grey", mode="L", side=12)
    assert sources.load(Train(dataset=str(grey), resize=8)).test.images.shape == (12, 8, 8, 1)


def test_d09_other_sizes_without_a_side_name_the_option_that_helps(tmp_path):
    folder = class_folders(tmp_path / "animals")
    for name, told in (("7", "size 7x5; expected 8x8. Give --resize N"), ("0", "size 7x5, another than that of")):
        oblong(folder / "train" / "bee" / f"{name}.jpg", 1, (5, 7))
        (folder / "train" / "bee" / f"{name}.png").unlink()
        assert told in refused(str(folder), tmp_path) and "Give --resize N" in refused(str(folder), tmp_path)


def test_d07_what_would_be_too_large_when_resized_is_refused(tmp_path):
    folder = class_folders(tmp_path / "animals")
    Image.fromarray(np.zeros((2, 9000, 3), np.uint8)).save(folder / "train" / "ant" / "9.png")
    told = refused(str(folder), tmp_path, resize=224)
    assert "animals/train/ant/9.png: size 9000x2: too narrow to be resized to 224" in told


def test_the_memory_needed_is_told_before_an_image_is_decoded(made, monkeypatch):
    monkeypatch.setattr(pictures, "decoded", None)
    monkeypatch.setattr(folders.os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 2**19)
    with pytest.raises(UserError) as error:
        load("caltech-256", made)
    told = "20560 images of 224x224 need 9 GiB of memory, and this machine has 2. Give a smaller --resize"
    assert error.value.exit_code == 1 and told in str(error.value)


def test_a_gif_is_read_whatever_its_name(tmp_path):
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(tmp_path / "x.jpg", "GIF")
    assert (pictures.decoded(tmp_path / "x.jpg", "x") == 77).all()


def test_a_known_set_of_one_size_is_resized_too(made):
    assert load("eurosat", made, resize=16).test.images.shape == (20, 16, 16, 3)


# Incomplete and damaged sets: exit 3


@pytest.fixture
def data(made, tmp_path):
    """The small sets in a directory of the test's own."""
    for name in ("food-101", "oxford-iiit-pet", "eurosat", "mini-imagenet"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


def test_an_incomplete_food_101_is_refused(data):
    folder = data / "food-101"
    (folder / "images" / "dish_003" / "1.jpg").write_bytes(
        (folder / "images" / "dish_003" / "0.jpg").read_bytes()[:-200]
    )
    assert "food-101/images/dish_003/1.jpg: cannot decode (truncated)" in refused("food-101", data, resize=SMALL)
    (folder / "images" / "dish_003" / "1.jpg").unlink()
    assert "food-101/images/dish_003: 1 of 303 images missing. First: 1.jpg" in refused("food-101", data)
    shutil.rmtree(folder / "images" / "dish_003")
    assert "food-101/images/dish_003: cannot be read (No such file or directory)" in refused("food-101", data)
    rows = (folder / "meta" / "train.txt").read_text().splitlines()
    for bad in ("dish_003", "../x/y", "dish_003/", "a/../b"):
        (folder / "meta" / "train.txt").write_text("\n".join([*rows, bad]))
        assert "food-101/meta/train.txt: line 203 names no image of a class" in refused("food-101", data)


def test_food_101_has_101_classes_in_both_lists(data):
    meta = data / "food-101" / "meta"
    whole = {part: (meta / f"{part}.txt").read_text().splitlines() for part in ("train", "test")}
    (meta / "test.txt").write_text("\n".join(whole["test"][:-1]))
    assert "food-101/dish_100: a class without test images" in refused("food-101", data)
    (meta / "test.txt").write_text("\n".join(whole["test"]))
    (meta / "train.txt").write_text("\n".join(whole["train"][2:]))
    assert "food-101/dish_000: a class without training images" in refused("food-101", data)
    (meta / "test.txt").write_text("\n".join(whole["test"][1:]))
    told = refused("food-101", data, resize=SMALL)
    assert "not food-101; got 100 classes of 32x32x3, expected 101 classes of 32x32x3" in told


def test_incomplete_pets_are_refused(data):
    folder = data / "oxford-iiit-pet"
    (folder / "images" / "breed_of_y_01_0.jpg").write_text("text")
    assert "images/breed_of_y_01_0.jpg: cannot decode (not an image)" in refused("oxford-iiit-pet", data)
    (folder / "images" / "breed_of_y_01_0.jpg").unlink()
    assert "oxford-iiit-pet/images: 1 of 111 images missing" in refused("oxford-iiit-pet", data)
    rows = (folder / "annotations" / "test.txt").read_text().splitlines()
    for bad, told in (("x", "line 1 names no image"), ("breed_of_y_01_9 3 1 1", "breed_of_y_01 is class 3; expected 2"),
                      ("../b_1 1 1 1", "line 1 names no image")):  # fmt: skip
        (folder / "annotations" / "test.txt").write_text("\n".join([bad, *rows]))
        assert told in refused("oxford-iiit-pet", data)
    (folder / "annotations" / "test.txt").write_text("\n".join(["new_1 39 1 1", *rows]))
    assert "38 classes whose numbers are not 1 … 38" in refused("oxford-iiit-pet", data)
    (folder / "annotations" / "test.txt").unlink()
    assert "annotations/test.txt: cannot be read" in refused("oxford-iiit-pet", data)


def test_caltech_256_needs_80_images_of_each_of_257_classes(tmp_path):
    folder = tmp_path / "256_ObjectCategories"
    folder.mkdir()
    assert "256_ObjectCategories: no class folders such as 001.ak47" in refused("caltech-256", tmp_path)
    numbered_folders(folder, ["001.ak47", "002.flag"], 80)
    assert "not caltech-256; got 2 classes of 224x224x3, expected 257" in refused("caltech-256", tmp_path)
    (folder / "002.flag" / "0080.jpg").unlink()
    (folder / "002.flag" / "RENAME2").write_text("")
    assert "256_ObjectCategories/002.flag: 79 images; expected at least 80" in refused("caltech-256", tmp_path)


def test_incomplete_folders_of_classes_are_refused(data):
    folder = data / "eurosat" / "2750"
    shutil.rmtree(folder / "Land3")
    assert "2750: not eurosat; got 9 classes" in refused("eurosat", data)
    (folder / "Land3").mkdir()
    assert "2750/Land3: no images" in refused("eurosat", data)
    oblong(folder / "Land3" / "0001.jpg", 1, (32, 32))
    assert "2750/Land3: 1 images; expected at least 5" in refused("eurosat", data)
    for k in range(2, 6):
        oblong(folder / "Land3" / f"000{k}.jpg", 1, (32, 32))
    assert "2750/Land3/0001.jpg: size 32x32, another than that of Land0/0001.jpg" in refused("eurosat", data)
    shutil.rmtree(data / "mini-imagenet")
    (data / "mini-imagenet").mkdir()
    assert "mini-imagenet: 0 class folders; expected one for each class" in refused("mini-imagenet", data)


def test_a_set_that_is_not_there_names_its_places_and_the_way_to_it(tmp_path):
    told = refused("eurosat", tmp_path)
    assert f"not found as {tmp_path}/eurosat/2750 or {tmp_path}/EuroSAT_RGB or {tmp_path}/eurosat or" in told
    assert "mixcli data fetch eurosat" in told
    with pytest.raises(UserError, match="Did you mean food-101"):
        load("food101", tmp_path)


# MedMNIST's arrays


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 28, 33])
def test_medmnists_arrays_are_read_and_their_validation_part_is_left_aside(tmp_path, channels, side):
    rng = np.random.default_rng(0)
    shape = (side, side) if channels == 1 else (side, side, 3)
    images = {
        p: rng.integers(0, 256, (n, *shape), dtype=np.uint8) for p, n in (("train", 30), ("val", 10), ("test", 20))
    }
    labels = {f"{p}_labels": (np.arange(len(x)) % 3)[:, None].astype(np.uint8) for p, x in images.items()}
    np.savez(tmp_path / "m.npz", **{f"{p}_images": x for p, x in images.items()}, **labels)
    source = sources.load(Train(dataset=str(tmp_path / "m.npz"), val_fraction=0.2))
    assert source.facts.size == (side, side) and source.facts.channels == channels and len(source.classes) == 3
    assert len(source.train) + len(source.val) == 30 and len(source.test) == 20
    assert np.array_equal(source.test.images.reshape(20, *shape), images["test"])
    assert source.test.labels.tolist() == [k % 3 for k in range(20)]


def test_the_sets_of_medmnist_are_known_and_another_set_under_such_a_name_is_refused(tmp_path):
    images = np.zeros((20, 28, 28), np.uint8)
    labels = (np.arange(20) % 11)[:, None]
    content = dict(train_images=images, train_labels=labels, val_images=images, val_labels=labels, test_images=images,
                   test_labels=labels)  # fmt: skip
    np.savez(tmp_path / "organamnist.npz", **content)
    np.savez(tmp_path / "pathmnist.npz", **content)
    assert sources.look(Train(dataset="organamnist", data_dir=str(tmp_path))).classes == 11
    assert "not pathmnist; got 11 classes of 28x28x1, expected 9 classes of 28x28x3" in refused("pathmnist", tmp_path)
    assert all(sources.KNOWN[name].classes == MEDMNIST[name][2] for name in MEDMNIST)


def test_a_set_with_several_labels_for_an_image_is_refused(tmp_path):
    images, labels = np.zeros((20, 28, 28), np.uint8), np.zeros((20, 14), np.uint8)
    np.savez(
        tmp_path / "chestmnist.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels
    )
    assert "train_labels: not class numbers; got shape (20,14) uint8" in refused(str(tmp_path / "chestmnist.npz"), ".")


def test_no_image_is_flipped_where_a_mirror_makes_something_else_of_it():
    grey = sources.KNOWN["organamnist"]
    for name, facts in (("svhn", sources.SVHN), ("retinamnist", sources.KNOWN["retinamnist"]), ("organamnist", grey)):
        assert complete(Train(dataset=name), facts).flip is False
    for name in ("eurosat", "pathmnist"):
        assert complete(Train(dataset=name), sources.KNOWN[name]).flip is True
