"""Corrupted sets on disk: what is accepted, in which order it is read, and what is said of anything else."""

import hashlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from mixcli.corruptions import official
from mixcli.corruptions.official import Clean, Expected
from mixcli.corruptions.parameters import EXTRA, FAMILIES, NAMES, STANDARD
from mixcli.corruptions.published import PUBLISHED
from mixcli.errors import UserError

N, SIZE, CLASSES = 12, (8, 8, 3), 4
EXPECTED = Expected(CLASSES, SIZE)


def clean():
    rng = np.random.default_rng(3)
    return Clean(rng.integers(60, 190, (N, *SIZE), dtype=np.uint8), np.arange(N) % CLASSES)


def blocks(name, images):
    """(5 n, H, W, C): each block further from clean than the one before."""
    rng = np.random.default_rng(len(name))
    noise = rng.integers(-10, 11, images.shape)
    return np.concatenate([np.clip(images + s * noise, 0, 255).astype(np.uint8) for s in range(1, 6)])


@pytest.fixture
def folder(tmp_path):
    """A whole set: 19 files and labels."""
    path, held = tmp_path / "CIFAR-10-C", clean()
    path.mkdir()
    for name in NAMES:
        np.save(path / f"{name}.npy", blocks(name, held.images))
    np.save(path / "labels.npy", np.tile(held.labels, 5).astype(np.uint8))
    return path


def opened(folder, held="clean", only=None, expected=EXPECTED):
    return official.open_arrays(folder, expected, clean() if held == "clean" else held, only)


def refused(folder, kind="data_corrupt", **changes):
    with pytest.raises(UserError) as error:
        opened(folder, **changes)
    assert error.value.kind == kind and error.value.exit_code == 3
    assert "\n" not in str(error.value) and str(folder.parent) not in str(error.value)
    return str(error.value)


def test_a_whole_folder_is_official_sorted_and_paired(folder):
    found = opened(folder)
    assert found.names == NAMES and found.paired and found.origin is None
    assert np.array_equal(found.labels, clean().labels)


def test_a_cell_is_its_block_of_rows_and_any_choice_of_them(folder):
    found, images = opened(folder), np.load(folder / "fog.npy")
    whole, some = np.empty((N, *SIZE), np.uint8), np.empty((3, *SIZE), np.uint8)
    for severity in range(1, 6):
        found.into(whole, "fog", severity)
        assert np.array_equal(whole, images[N * (severity - 1) : N * severity])
        found.into(some, "fog", severity, np.array([1, 5, 7]))
        assert np.array_equal(some, whole[[1, 5, 7]])


def test_the_standard_15_alone_are_enough_and_16_are_not(folder):
    for name in EXTRA[1:]:
        (folder / f"{name}.npy").unlink()
    assert f"CIFAR-10-C/{EXTRA[1]}.npy: missing; 16 of 19 found" in refused(folder, "data_missing")
    (folder / f"{EXTRA[0]}.npy").unlink()
    assert opened(folder).names == STANDARD


def test_e04_a_missing_file_is_named_and_a_named_corruption_needs_no_other(folder):
    (folder / "frost.npy").unlink()
    assert "CIFAR-10-C/frost.npy: missing; 18 of 19 found" in refused(folder, "data_missing")
    assert opened(folder, only=("fog",)).names == ("fog",)
    assert "frost.npy: missing" in refused(folder, "data_missing", only=("frost",))


LABELS = {
    "length 11; expected 12 or 60": np.zeros(11, np.uint8),
    "shape (60,1); expected (60,)": np.zeros((60, 1), np.uint8),
    "dtype float64; expected integers": np.zeros(60),
    "labels.npy[59]: 4; expected 0..3": np.array([*np.tile(np.arange(N) % 4, 5)[:-1], 4]),
    "labels.npy[13]: 3; expected 1 (= row 1)": np.array([*(np.arange(N) % 4), 0, 3, *np.tile(np.arange(N) % 4, 4)[2:]]),
    "labels.npy[0]: 1; expected 0": np.tile(np.array([1, *(np.arange(1, N) % 4)]), 5),
}


@pytest.mark.parametrize("told", LABELS)
def test_e08_e16_labels_that_are_not_those_of_the_set_are_refused(folder, told):
    np.save(folder / "labels.npy", LABELS[told])
    assert told in refused(folder)


def test_e08_labels_of_one_cell_do_and_missing_ones_do_not(folder):
    np.save(folder / "labels.npy", clean().labels)
    assert opened(folder).paired
    (folder / "labels.npy").unlink()
    assert "CIFAR-10-C/labels.npy: cannot be read" in refused(folder, "data_missing")


def test_e16_the_same_labels_in_another_order_pair_nothing_and_still_run(folder):
    held = clean()
    turned = Clean(held.images[::-1], held.labels[::-1])
    found = opened(folder, turned)
    assert not found.paired and found.names == NAMES


def test_without_a_clean_set_the_length_tells_the_number_of_images(folder):
    found = opened(folder, None)
    assert len(found.labels) == N and not found.paired
    assert "expected 10000 or 50000" in refused(folder, held=None, expected=replace(EXPECTED, images=10_000))


def archive():
    content = io.BytesIO()
    np.savez(content, np.zeros(3))
    return content.getvalue()


def saved(array, **more):
    content = io.BytesIO()
    np.save(content, array, **more)
    return content.getvalue()


def claiming(shape):
    """A header of that shape and no data to speak of."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return content.getvalue() + b"\0" * 100


ARRAYS = {
    "40 rows; expected 60": lambda: saved(np.zeros((40, *SIZE), np.uint8)),
    "dtype float32; expected uint8": lambda: saved(np.zeros((60, *SIZE), np.float32)),
    "shape (60,3,8,8); expected (60,8,8,3)": lambda: saved(np.zeros((60, 3, 8, 8), np.uint8)),
    "Fortran order; expected C order": lambda: saved(np.asfortranarray(np.zeros((60, *SIZE), np.uint8))),
    "pickled arrays refused": lambda: saved(np.array([{}, []], dtype=object), allow_pickle=True),
    "not a plain array": archive,
    "shorter than its header says": lambda: saved(np.zeros((60, *SIZE), np.uint8))[:-1],
    "longer than its header says": lambda: saved(np.zeros((60, *SIZE), np.uint8)) + b"\0",
    "fog.npy: shorter": lambda: claiming((10**13, *SIZE)),
    "fog.npy: not a plain array": lambda: b"",
}


@pytest.mark.parametrize("told", ARRAYS)
def test_e09_e10_e11_e12_e13_a_file_that_is_no_such_array_is_refused_before_it_is_read(folder, told):
    (folder / "fog.npy").write_bytes(ARRAYS[told]())
    assert told in refused(folder)


@pytest.mark.parametrize("name", FAMILIES["noise"])
@pytest.mark.parametrize("held", ["clean", None])
def test_e25_blocks_out_of_order_are_found_in_every_noise(folder, name, held):
    images = np.load(folder / f"{name}.npy")
    images[:N], images[N : 2 * N] = images[N : 2 * N].copy(), images[:N].copy()
    np.save(folder / f"{name}.npy", images)
    nearer = "nearer to clean than" if held else "smoother than"
    assert f"{name}.npy: block 2 {nearer} block 1" in refused(folder, held=held)


def test_sums_are_those_of_the_files_and_are_read_once(folder, monkeypatch):
    known = PUBLISHED["cifar10"]
    found = opened(folder)
    assert set(official.differing(found, known)) == {f"{name}.npy" for name in NAMES} | {"labels.npy"}
    remembered = json.loads(folder.with_name("CIFAR-10-C.md5.json").read_text())
    sums = {f"{name}.npy": remembered[str(folder / f"{name}.npy")][2] for name in NAMES}
    sums["labels.npy"] = remembered[str(folder / "labels.npy")][2]
    ours = replace(known, sums=sums)
    monkeypatch.setattr(hashlib, "file_digest", None)  # nothing is read again
    assert official.differing(found, ours) == []
    monkeypatch.undo()
    np.save(folder / "fog.npy", blocks("fog", clean().images) // 2)
    assert official.differing(found, ours) == ["fog.npy"]


def test_every_file_of_both_published_sets_has_a_sum_of_its_own():
    sums = [md5 for name in ("cifar10", "cifar100") for md5 in PUBLISHED[name].sums.values()]
    assert len(sums) == len(set(sums)) == 40 and all(len(md5) == 32 for md5 in sums)
    assert all(set(PUBLISHED[n].sums) == {f"{c}.npy" for c in (*NAMES, "labels")} for n in ("cifar10", "cifar100"))
    first_eight = {"gaussian_noise": "ecc4d366", "glass_blur": "0bf384f3", "frost": "3a39c682", "fog": "4efc7ebd",
                   "jpeg_compression": "c851b7f1", "zoom_blur": "02046134", "labels": "bb4026e9"}  # fmt: skip
    assert all(PUBLISHED["cifar100"].sums[f"{name}.npy"][:8] == start for name, start in first_eight.items())


def test_a_folder_of_our_own_says_so_and_names_only_known_corruptions(folder):
    content = {"generator": 1, "seed": 5, "files": {"fog": [], "../../etc/passwd": []}}
    (folder / official.PROVENANCE).write_text(json.dumps(content))
    found = opened(folder)
    assert found.origin == content and found.names == ("fog",)
    (folder / official.PROVENANCE).write_text("[")
    assert "provenance.json: not readable" in refused(folder)


def test_the_folder_of_a_set_is_its_published_name_and_of_others_only_one_of_our_own(folder, tmp_path):
    assert official.locate(tmp_path, "cifar10") == folder
    assert official.locate(tmp_path, "cifar100") is None
    (tmp_path / "my-c").mkdir()
    assert official.locate(tmp_path, "data/my.npz") is None
    (tmp_path / "my-c" / official.PROVENANCE).write_text("{}")
    assert official.locate(tmp_path, "data/my.npz") == tmp_path / "my-c"


def test_an_absent_official_set_is_named_with_where_to_get_it(tmp_path):
    error = official.absent(tmp_path, "cifar100")
    assert error.exit_code == 3
    assert "mixcli data fetch cifar100-c (Zenodo 3555552, CIFAR-100-C.tar, md5 11f0ed0f1191" in str(error)
    assert official.absent(tmp_path, "digits").exit_code == 2


# Folders of images

CLASS_NAMES = ("n02", "n01", "n03")  # the order of the clean set, not that of a listing


@pytest.fixture
def images(tmp_path):
    """Two corruptions at two severities, two images of each of three classes."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("fog", "frost"):
        for severity in (1, 2):
            for word in CLASS_NAMES:
                place = tmp_path / "Tiny-ImageNet-C" / name / str(severity) / word
                place.mkdir(parents=True)
                for number in (0, 1):
                    pixels = rng.integers(0, 256, SIZE, dtype=np.uint8)
                    Image.fromarray(pixels).save(place / f"val_{number}.JPEG", format="PNG")
    return tmp_path / "Tiny-ImageNet-C"


def listed(images, only=("fog", "frost"), size=SIZE):
    return official.open_folders(images, CLASS_NAMES, size, only, (1, 2))


def test_classes_have_the_order_of_the_clean_set_never_that_of_a_listing(images):
    found, surplus = listed(images)
    assert surplus == {} and found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.files[0] == "n02/val_0.JPEG" and not found.paired


def test_surplus_classes_are_left_out_and_counted(images):
    (images / "frost" / "1" / "n99").mkdir()
    (images / "frost" / "1" / "n99" / "x.JPEG").write_text("")
    found, surplus = listed(images)
    assert surplus == {"frost": 1} and len(found.files) == 6


def test_a_cell_of_image_files_is_decoded_in_the_order_of_its_labels(images):
    from PIL import Image

    found, _ = listed(images)
    out = np.empty((2, *SIZE), np.uint8)
    found.into(out, "frost", 2, np.array([2, 5]))
    for pixels, file in zip(out, ("n01/val_0.JPEG", "n03/val_1.JPEG"), strict=True):
        assert np.array_equal(pixels, np.asarray(Image.open(images / "frost" / "2" / file)))


def test_e28_missing_classes_and_files_are_errors_never_dropped_silently(images):
    (images / "fog" / "2" / "n01" / "val_1.JPEG").unlink()
    with pytest.raises(UserError, match=r"fog/2: 1 images that other cells do not share.*n01/val_1") as error:
        listed(images)
    assert error.value.exit_code == 3
    (images / "fog" / "2" / "n01" / "val_0.JPEG").unlink()
    (images / "fog" / "2" / "n01").rmdir()
    with pytest.raises(UserError, match="fog/2: 1 of 3 class folders missing"):
        listed(images)
    with pytest.raises(UserError, match="Tiny-ImageNet-C/snow: missing; 2 of 19 found"):
        listed(images, only=("snow",))


def test_e30_an_image_that_cannot_be_decoded_or_has_another_size_is_named(images):
    found, _ = listed(images)
    out = np.empty((6, *SIZE), np.uint8)
    path = images / "fog" / "1" / "n02" / "val_1.JPEG"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"fog/1/n02/val_1.JPEG: cannot decode \(truncated\)"):
        found.into(out, "fog", 1)
    path.write_text("no image")
    with pytest.raises(UserError, match=r"cannot decode \(not an image\)"):
        found.into(out, "fog", 1)
    larger, _ = listed(images, size=(9, 8, 3))
    with pytest.raises(UserError, match="size 8x8; expected 8x9"):
        larger.into(np.empty((6, 9, 8, 3), np.uint8), "frost", 1)
