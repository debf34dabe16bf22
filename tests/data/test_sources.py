"""What data sets are accepted, how they are split and subset, and what is said of those that are not."""

import hashlib
import io
import os
import pickle
import random as python_random
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from mixcli.data import cifar, npz, sources, svhn
from mixcli.errors import UserError
from mixcli.recipe import Train, complete


def arrays(train=40, test=20, size=(8, 8, 3), classes=4):
    """A small valid set in Keras' layout."""
    rng = np.random.default_rng(5)
    return {
        "x_train": rng.integers(0, 256, (train, *size), dtype=np.uint8),
        "y_train": np.arange(train) % classes,
        "x_test": rng.integers(0, 256, (test, *size), dtype=np.uint8),
        "y_test": np.arange(test) % classes,
    }


@pytest.fixture
def saved(tmp_path):
    def save(name="tiny.npz", **changed):
        content = {k: v for k, v in (arrays() | changed).items() if v is not None}
        np.savez(tmp_path / name, **content)
        return str(tmp_path / name)

    return save


def load(dataset="digits", **settings):
    return sources.load(Train(dataset=dataset, **settings))


def refused(dataset, **settings):
    """The UserError that loading raises; `look` and `load` agree about all that headers and labels show."""
    with pytest.raises(UserError) as error:
        load(dataset, **settings)
    assert "\n" not in str(error.value)
    return error.value


# Digits


def test_digits_are_split_1437_to_360_with_every_class_in_proportion():
    source = load()
    assert (len(source.train), len(source.test), source.val) == (1437, 360, None)
    assert source.train.images.shape == (1437, 8, 8, 1) and source.train.images.dtype == np.uint8
    assert source.train.images.flags.c_contiguous and source.train.labels.dtype == np.int64
    assert source.train.images.max() == 255 and len(source.classes) == 10
    assert np.ptp(np.bincount(source.test.labels)) <= 2
    assert sorted([*source.train.index, *source.test.index]) == list(range(1797))


def test_digits_pixels_are_those_of_scikit_learn_rescaled():
    from sklearn.datasets import load_digits

    train, original = load().train, load_digits().images
    assert np.array_equal(train.images[..., 0], np.round(original[train.index] * 255 / 16))


def test_split_seed_changes_the_split_and_seed_does_not():
    first = load()
    assert np.array_equal(first.train.index, load(seed=7).train.index)
    assert first.digest == load(seed=7).digest
    assert not np.array_equal(first.test.index, load(split_seed=1).test.index)
    assert first.digest != load(split_seed=1).digest


# Splits, subsets, label noise


def test_the_validation_part_is_stratified_and_exact_and_shares_no_image_with_training():
    source = load(val_fraction=0.1)
    assert len(source.val) == 1437 - round(1437 * 0.9) and len(source.train) + len(source.val) == 1437
    assert not set(source.train.index) & set(source.val.index)
    whole = np.bincount(load().train.labels)
    assert np.abs(np.bincount(source.val.labels) - whole / 1437 * len(source.val)).max() < 1


def test_the_sizes_are_those_that_complete_counts_with(saved):
    for settings in ({}, {"val_fraction": 0.25}, {"per_class": 3}, {"per_class": 2, "val_fraction": 0.5}):
        train = Train(dataset=saved(), **settings)
        facts = sources.look(train)
        available = len(sources.load(train).train)
        complete(train.model_copy(update={"batch": available}), facts)
        with pytest.raises(UserError, match=f"the training set has {available} images"):
            complete(train.model_copy(update={"batch": available + 1}), facts)


def test_per_class_takes_as_many_of_each_and_smaller_subsets_lie_in_larger():
    five, twenty = load(per_class=5), load(per_class=20)
    assert (np.bincount(five.train.labels) == 5).all() and (np.bincount(twenty.train.labels) == 20).all()
    assert set(five.train.index) < set(twenty.train.index)
    assert not np.array_equal(five.train.index, load(per_class=5, split_seed=1).train.index)
    assert five.facts.images == 1437


@pytest.mark.parametrize(("kind", "share"), [("symmetric", 0.2), ("symmetric", 1.0), ("pair", 0.45)])
def test_label_noise_changes_exactly_its_share_and_every_label_it_draws(kind, share):
    clean, noisy = load(val_fraction=0.1), load(val_fraction=0.1, label_noise=share, noise_kind=kind)
    changed = clean.train.labels != noisy.train.labels
    assert changed.sum() == round(share * len(clean.train))
    assert np.array_equal(clean.train.images, noisy.train.images) and clean.digest != noisy.digest
    assert np.array_equal(clean.test.labels, noisy.test.labels)
    assert np.array_equal(clean.val.labels, noisy.val.labels)
    steps = (noisy.train.labels - clean.train.labels)[changed] % 10
    assert set(steps) == ({1} if kind == "pair" else set(range(1, 10)))


def test_label_noise_is_equal_for_every_run_seed_and_not_for_every_split_seed():
    noisy = load(label_noise=0.2)
    assert np.array_equal(noisy.train.labels, load(label_noise=0.2, seed=3).train.labels)
    assert noisy.digest != load(label_noise=0.2, split_seed=3).digest


def test_the_digest_tells_pixels_and_labels_apart(saved):
    content = arrays()
    first = load(saved()).digest
    assert load(saved("again.npz")).digest == first
    other = content["x_train"].copy()
    other[0, 0, 0, 0] ^= 1
    assert load(saved("pixel.npz", x_train=other)).digest != first
    assert load(saved("label.npz", y_train=content["y_train"][::-1])).digest != first
    assert load(saved("test.npz", y_test=content["y_test"][::-1])).digest == first


def test_no_global_generator_is_moved():
    before = np.random.get_state()[1].copy(), python_random.getstate(), torch.get_rng_state()
    load(val_fraction=0.1, per_class=10, label_noise=0.5)
    after = np.random.get_state()[1], python_random.getstate(), torch.get_rng_state()
    assert np.array_equal(before[0], after[0]) and before[1] == after[1] and torch.equal(before[2], after[2])


# Constants


def test_own_constants_are_those_of_the_whole_training_split_in_every_subset(saved):
    x = arrays()["x_train"] / 255
    for settings in ({}, {"per_class": 2}, {"val_fraction": 0.25}):
        source = load(saved(), **settings)
        np.testing.assert_allclose(source.mean, x.mean(axis=(0, 1, 2)), rtol=1e-12)
        np.testing.assert_allclose(source.std, x.std(axis=(0, 1, 2)), rtol=1e-12)


def test_a_constant_channel_does_not_divide_by_zero(saved):
    assert load(saved(x_train=np.full((40, 8, 8, 3), 7, np.uint8))).std == (1.0, 1.0, 1.0)


def test_other_constants_are_chosen_by_name(saved):
    assert load(saved(), normalise="half").mean == (0.5, 0.5, 0.5)
    assert load(saved(), normalise="imagenet").std == (0.229, 0.224, 0.225)
    assert load(saved(), normalise="openmixup").std == (0.2023, 0.1994, 0.2010)
    assert load(normalise="half").std == (0.5,)


@pytest.mark.parametrize("normalise", ["imagenet", "openmixup"])
def test_a_grey_set_refuses_constants_of_colour(normalise):
    error = refused("digits", normalise=normalise)
    assert (error.kind, error.exit_code, error.subject) == ("config", 2, "normalise")


# .npz files


def test_an_npz_in_keras_layout_is_read(saved):
    content = arrays()
    source = load(saved())
    assert np.array_equal(source.train.images, content["x_train"])
    assert np.array_equal(source.test.labels, content["y_test"])
    assert source.classes == ("0", "1", "2", "3") and source.facts.size == (8, 8)
    assert np.array_equal(source.train.index, np.arange(40)) and source.train.images.flags.c_contiguous


def test_medmnist_names_grey_images_and_column_labels_are_read(tmp_path):
    content, grey = arrays(), arrays(size=(8, 8))
    path = tmp_path / "med.npz"
    np.savez_compressed(
        path,
        train_images=grey["x_train"], train_labels=content["y_train"][:, None].astype(np.uint8),
        val_images=grey["x_test"], val_labels=content["y_test"][:, None],
        test_images=grey["x_test"], test_labels=content["y_test"][:, None],
    )  # fmt: skip
    source = load(str(path))
    assert source.train.images.shape == (40, 8, 8, 1) and source.facts.channels == 1 and source.val is None
    assert source.train.labels.dtype == np.int64 and np.array_equal(source.train.labels, content["y_train"])


def test_class_names_in_the_file_are_kept(saved):
    assert load(saved(classes=np.array(["a", "b", "c", "ß"]))).classes == ("a", "b", "c", "ß")
    assert load(saved(classes=np.array([b"a", b"b", b"c", b"d", b"e"]))).facts.classes == 5


def test_the_identity_of_a_file_is_its_sha256(saved):
    path = saved()
    assert sources.look(Train(dataset=path)).identity == f"npz:{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"


def test_looking_reads_no_pixels(saved, monkeypatch):
    path = saved("big.npz", x_train=np.zeros((50_000, 32, 32, 3), np.uint8), y_train=np.arange(50_000) % 100,
                 x_test=np.zeros((1000, 32, 32, 3), np.uint8), y_test=np.arange(1000) % 100)  # fmt: skip
    monkeypatch.setattr(npz, "part", None)
    facts = sources.look(Train(dataset=path))
    assert (facts.images, facts.test_images, facts.classes, facts.channels) == (50_000, 1000, 100, 3)


def test_looking_imports_no_torch():
    code = "import sys; from mixcli.data import sources; from mixcli.recipe import Train; sources.look(Train()); "
    check = code + "assert not {'torch', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


X, Y = arrays()["x_train"], arrays()["y_train"]
SOFT = np.full((40, 4), 0.25)


def changed(array, row, value):
    copy = array.copy()
    copy[row] = value
    return copy


@pytest.mark.parametrize(
    ("row", "content", "subject", "says"),
    [
        ("D01", {"classes": np.array(list("abc"))}, "y_train[3]", "class 3 out of range 0…2"),
        ("D01", {"y_train": changed(Y, 7, -1)}, "y_train[7]", "class -1 out of range 0…3"),
        ("D01", {"y_train": changed(Y, 7, 10**12)}, "y_train[7]", "class 1000000000000 out of range"),
        ("D01", {"y_test": np.full(20, 4)}, "y_test[0]", "class 4 out of range 0…3"),
        ("D02", {"y_train": np.full(40, -100)}, "y_train", "−100 not allowed"),
        ("D03", {"y_train": changed(SOFT, (5, 0), 0.3)}, "y_train[5]", "probabilities must be ≥ 0, sum 1 ± 1e-6"),
        ("D03", {"y_train": changed(SOFT, 5, [1.5, -0.5, 0, 0])}, "y_train[5]", "probabilities must be ≥ 0"),
        ("D03", {"y_train": changed(SOFT, 0, np.nan)}, "y_train[0]", "probabilities must be ≥ 0"),
        ("D03", {"y_train": SOFT}, "y_train", "soft labels are not read"),
        ("D04", {"x_train": X[:0], "y_train": Y[:0]}, "x_train", "no images"),
        ("D04", {"x_test": X[:0], "y_test": Y[:0]}, "x_test", "no images"),
        ("D04", {"y_train": Y * 0, "y_test": Y[:20] * 0}, "y_train", "at least 2 classes"),
        ("D10", {"x_train": X.transpose(0, 3, 1, 2)}, "x_train", "shape (40,3,8,8) uint8, expected (N,H,W)"),
        ("D10", {"x_train": X / 255}, "x_train", "float64, expected (N,H,W)"),
        ("D10", {"x_train": X.astype(np.int32)}, "x_train", "int32, expected (N,H,W)"),
        ("D10", {"x_train": X[0, 0]}, "x_train", "shape (8,3) uint8"),
        ("D10", {"x_test": X[:20, :7]}, "x_test", "another image size"),
        ("D10", {"y_train": Y[:39]}, "y_train", "39 labels, expected 40"),
        ("D10", {"y_train": Y.astype(float)}, "y_train", "shape (40,) float64, expected (40,) integers"),
        ("D10", {"y_train": np.stack([Y, Y], 1)}, "y_train", "shape (40,2) int64"),
        ("D10", {"classes": np.arange(4)}, "classes", "not a list of names"),
        ("D10", {"x_test": None}, "", "not an image set"),
        ("D11", {"x_train": np.array([[1, 2], [3]], dtype=object)}, "x_train", "pickled arrays refused"),
        ("D11", {"y_train": Y.astype(object)}, "y_train", "not a plain array, pickled arrays refused"),
        ("D13", {"x_train": changed(X / 255, (2, 3, 3, 0), np.nan)}, "x_train[2]", "non-finite pixel"),
        ("D13", {"x_test": changed(X[:20] / 255, 19, np.inf)}, "x_test[19]", "non-finite pixel"),
    ],
)
def test_a_bad_array_is_refused_in_one_line_that_names_it(saved, row, content, subject, says):
    path = saved(**content)
    error = refused(path)
    assert (error.kind, error.exit_code) == ("data_corrupt", 3)
    assert str(error).startswith(f"tiny.npz {subject}".strip() + ": ") and says in str(error)
    with pytest.raises(UserError, match=error.problem[:10].replace("(", ".")):
        sources.look(Train(dataset=path))


def claiming(shape, descr="|u1", version=b"\x01\x00"):
    """An .npy of 100 bytes of data whose header claims `shape`."""
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + bytes(100)


def archive_with(path, **members):
    """The small valid set with raw bytes in place of some members."""
    np.savez(path, **{k: v for k, v in arrays().items() if k not in members})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def damaged(path, kind):
    archive_with(path)
    whole = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not an archive")
    elif kind == "an .npy":
        buffer = io.BytesIO()
        np.save(buffer, X)
        path.write_bytes(buffer.getvalue())
    elif kind == "bit flip":
        path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 255]) + whole[5001:])
    elif kind == "10 TB":
        archive_with(path, x_train=claiming((10**13 // 192, 8, 8, 3)))
    elif kind == "10 TB of labels":
        archive_with(path, y_train=claiming((10**13,), "<i8"))
    elif kind == "negative":
        archive_with(path, x_train=claiming((-40, 8, -8, 3)))
    elif kind == "bad header":
        archive_with(path, x_train=b"\x93NUMPY\x01\x00\x10\x00" + b"{'descr': [[[[" * 40)
    elif kind == "no header":
        archive_with(path, y_train=b"")


@pytest.mark.parametrize(
    "kind",
    ["truncated", "empty", "text", "an .npy", "bit flip", "10 TB", "10 TB of labels", "negative", "bad header",
     "no header"],
)  # fmt: skip
def test_a_damaged_file_is_refused_before_memory_is_asked_for(tmp_path, kind):
    damaged(tmp_path / "d.npz", kind)
    error = refused(str(tmp_path / "d.npz"))
    assert (error.kind, error.exit_code) == ("data_corrupt", 3) and str(error).startswith("d.npz")
    if kind.startswith("10 TB"):
        assert "shorter than its header says" in str(error)


def test_nothing_in_an_npz_is_unpickled(tmp_path):
    target = tmp_path / "ran"
    path = tmp_path / "evil.npz"
    evil = np.empty(40, dtype=object)
    evil[0] = Marker(target)
    np.savez(path, **(arrays() | {"y_train": evil}))
    assert refused(str(path)).exit_code == 3
    assert not target.exists()


class Marker:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_one_image_of_a_class_is_fine_until_it_would_have_to_be_split(saved):
    path = saved(y_train=np.r_[Y[:39] % 3, 3])
    assert len(load(path).train) == 40
    error = refused(path, val_fraction=0.2)
    assert error.exit_code == 3 and "class '3': 1 sample, split needs 2" in str(error)


def test_a_split_or_subset_that_cannot_be_is_refused(saved):
    path = saved(y_train=np.r_[Y[:38] % 3, 3, 3])
    for settings in ({"val_fraction": 0.9}, {"val_fraction": 0.001}, {"per_class": 3}):
        error = refused(path, **settings)
        assert (error.kind, error.exit_code) == ("config", 2)
    assert "class '3' has 2 images" in str(refused(path, per_class=3))


# Names and places


def test_an_unknown_name_gets_the_nearest(tmp_path):
    error = refused("cifar1000")
    assert (error.kind, error.exit_code, error.subject) == ("config", 2, "dataset")
    assert "Did you mean cifar100?" in str(error)
    assert refused("data/none").exit_code == 3  # with a slash it is a path


def test_an_absent_set_names_the_places_looked_at(tmp_path):
    error = refused("cifar100", data_dir=str(tmp_path))
    assert (error.kind, error.exit_code) == ("data_missing", 3)
    assert "cifar-100-python" in str(error) and "cifar100.npz" in str(error) and "--data-dir" in str(error)
    error = refused(str(tmp_path / "none.npz"))
    assert (error.kind, error.exit_code) == ("data_missing", 3) and "none.npz" in str(error)
    (tmp_path / "folder.npz").mkdir()
    assert refused(str(tmp_path / "folder.npz")).kind == "data_missing"


def test_a_known_set_as_npz_takes_its_published_constants_and_must_look_like_it(tmp_path, saved):
    saved("cifar10.npz", **arrays(40, 20, (32, 32, 3), classes=10))
    source = load("cifar10", data_dir=str(tmp_path))
    assert source.name == "cifar10" and source.mean == (0.4914, 0.4822, 0.4465)
    saved("cifar100.npz", **arrays(40, 20, (32, 32, 3), classes=20))
    assert "not cifar100; got 20 classes of 32x32x3" in str(refused("cifar100", data_dir=str(tmp_path)))


# The official CIFAR layout

NAMES = [f"name {c}" for c in range(10)]


def batch_of(seed, count=20):
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
    return {"data": data, "labels": [i % 10 for i in range(count)], "batch_label": "small", "filenames": ["a"] * count}


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A small CIFAR-10 in the official layout, whose sums are taken for the published ones; `write` replaces a file."""
    layout = cifar.LAYOUTS["cifar10"]
    folder = tmp_path / layout.folder
    folder.mkdir()

    def write(file, content, known=True):
        raw = content if isinstance(content, bytes) else pickle.dumps(content, protocol=4)
        (folder / file).write_bytes(raw)
        part = next(p for p in (layout.train, layout.test, layout.names) if file in p)
        if known:
            monkeypatch.setitem(part, file, hashlib.md5(raw).hexdigest())

    for k, file in enumerate([*layout.train, *layout.test]):
        write(file, batch_of(k))
    write("batches.meta", {"label_names": NAMES, "num_vis": 3072})
    return folder, write


def test_the_official_layout_is_read_in_order_with_channels_last(official):
    folder, _ = official
    source = load("cifar10", data_dir=str(folder.parent))
    assert source.facts.identity == "cifar10" and source.classes == tuple(NAMES)
    assert source.train.images.shape == (100, 32, 32, 3) and len(source.test) == 20
    planes = batch_of(1)["data"][3].reshape(3, 32, 32)
    assert np.array_equal(source.train.images[23], planes.transpose(1, 2, 0))
    assert source.train.images.flags.c_contiguous and source.std == (0.2470, 0.2435, 0.2616)


def python_2_pickle(data, labels):
    """A batch as Python 2 wrote the published files: byte strings, numpy's old module, 0 and 1 for truth."""
    text = b"T" + struct.pack("<I", data.nbytes) + data.tobytes()
    shape = b"(K" + bytes([len(data)]) + b"M\x00\x0ct"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    state = b"(K\x01" + shape + dtype + b"\x89" + text + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(U\x04data" + array + state + b"U\x06labels" + numbers + b"u."


def test_a_pickle_of_python_2_is_read_without_a_warning(official):
    folder, write = official
    batch = batch_of(9)
    write("test_batch", python_2_pickle(batch["data"], batch["labels"]))
    test = load("cifar10", data_dir=str(folder.parent)).test
    assert np.array_equal(test.images.transpose(0, 3, 1, 2).reshape(20, 3072), batch["data"])
    assert test.labels.tolist() == batch["labels"]


def test_a_file_without_its_published_sum_is_not_opened(official, tmp_path):
    folder, write = official
    write("data_batch_3", pickle.dumps(Marker(tmp_path / "ran")), known=False)
    error = refused("cifar10", data_dir=str(folder.parent))
    assert (error.kind, error.subject) == ("data_corrupt", "data_batch_3") and "not the published file" in str(error)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_passes_the_sums_still_runs_nothing(official, tmp_path, protocol):
    folder, write = official
    write("test_batch", pickle.dumps({"data": Marker(tmp_path / "ran")}, protocol=protocol))
    error = refused("cifar10", data_dir=str(folder.parent))
    assert (error.kind, error.exit_code) == ("data_corrupt", 3) and "mkdir refused" in str(error)
    assert not (tmp_path / "ran").exists()


def test_a_truncated_pickle_and_a_missing_file_are_told(official):
    folder, write = official
    write("test_batch", (folder / "test_batch").read_bytes()[:-30])
    assert refused("cifar10", data_dir=str(folder.parent)).kind == "data_corrupt"
    (folder / "test_batch").unlink()
    error = refused("cifar10", data_dir=str(folder.parent))
    assert (error.kind, error.subject, error.exit_code) == ("data_missing", "test_batch", 3)


def test_the_published_sums_are_torchvisions():
    from torchvision.datasets import CIFAR10, CIFAR100

    for name, theirs in (("cifar10", CIFAR10), ("cifar100", CIFAR100)):
        ours = cifar.LAYOUTS[name]
        assert ours.folder == theirs.base_folder
        assert list(ours.train.items()) == [tuple(pair) for pair in theirs.train_list]
        assert list(ours.test.items()) == [tuple(pair) for pair in theirs.test_list]
        assert ours.names == {theirs.meta["filename"]: theirs.meta["md5"]}


# Equal pixels


@pytest.fixture
def house_numbers(tmp_path, monkeypatch):
    """A small SVHN in the official files, whose sums are taken for the published ones."""
    folder = tmp_path / "svhn"
    folder.mkdir()
    rng = np.random.default_rng(0)
    pixels = {file: rng.integers(0, 256, (32, 32, 3, 20), dtype=np.uint8) for file in (svhn.TRAIN, svhn.TEST)}

    def write(file, **content):
        scipy.io.savemat(folder / file, content)
        monkeypatch.setitem(svhn.SUMS, file, hashlib.md5((folder / file).read_bytes()).hexdigest())

    labels = np.arange(20, dtype=np.uint8)[:, None] % 10 + 1  # 1 .. 10, of which ten is the digit 0
    for file, x in pixels.items():
        write(file, X=x, y=labels)
    return folder, pixels, write


def test_svhn_is_read_from_its_official_files_and_its_label_ten_is_zero(house_numbers):
    folder, pixels, _ = house_numbers
    source = load("svhn", data_dir=str(folder.parent))
    assert source.facts.identity == "svhn" and source.classes == tuple("0123456789")
    assert source.train.labels.tolist() == [k % 10 for k in range(1, 21)]
    assert np.array_equal(source.train.images[3], pixels[svhn.TRAIN][:, :, :, 3])
    assert source.train.images.flags.c_contiguous and len(source.test) == 20
    assert source.mean[0] == pytest.approx(pixels[svhn.TRAIN][:, :, 0].mean() / 255)


def test_the_sums_of_svhn_are_the_published_ones():
    from torchvision.datasets import SVHN

    assert {SVHN.split_list[part][1]: SVHN.split_list[part][2] for part in ("train", "test")} == svhn.SUMS


def test_a_damaged_or_missing_file_of_svhn_is_told(house_numbers):
    folder, _, write = house_numbers
    write(svhn.TEST, X=np.zeros((4, 4), np.uint8), y=np.zeros((2, 1), np.uint8))
    assert "not SVHN's cropped digits" in str(refused("svhn", data_dir=str(folder.parent)))
    (folder / svhn.TEST).write_bytes(b"MATLAB 5.0")
    error = refused("svhn", data_dir=str(folder.parent))
    assert error.kind == "data_corrupt" and "not the published file" in str(error)
    (folder / svhn.TRAIN).unlink()
    assert refused("svhn", data_dir=str(folder.parent)).kind == "data_missing"


def test_svhn_is_not_mirrored_by_default():
    facts = sources.SVHN
    assert complete(Train(dataset="svhn"), facts).flip is False and complete(Train(dataset="cifar10"), facts).flip


PACKED = Path(__file__).parents[3] / "shared" / "data" / "cifar100" / "test.npz"


@pytest.mark.skipif(not PACKED.exists(), reason="needs the packed CIFAR-100 beside the checkout")
def test_the_real_cifar_100_is_read_and_has_two_pairs_of_equal_images_in_its_test_part(saved):
    from PIL import Image

    with np.load(PACKED, allow_pickle=False) as part:
        offsets, blob, labels, names = (part[k] for k in ("offsets", "webp", "y", "classes"))
    strips = [
        np.asarray(Image.open(io.BytesIO(blob[a:b].tobytes()))) for a, b in zip(offsets, offsets[1:], strict=False)
    ]
    images = np.concatenate(strips)[..., :3].reshape(-1, 32, 32, 3)
    path = saved("part.npz", x_train=images[:8000], y_train=labels[:8000], x_test=images[8000:], y_test=labels[8000:],
                 classes=names)  # fmt: skip
    source = load(path, per_class=50)
    assert source.classes[:2] == ("apple", "aquarium_fish") and len(source.train) == 5000
    np.testing.assert_allclose(source.mean, (0.5071, 0.4865, 0.4409), atol=0.005)
    assert len({image.tobytes() for image in images}) == 10_000 - 2
