from __future__ import annotations

import numpy as np
import pytest
import torch

from mixcli.corruptions import catalogue
from mixcli.corruptions.catalogue import CORRUPTIONS, SEVERITIES
from mixcli.corruptions.keyed import Keys
from mixcli.corruptions.parameters import EXTRA, FAMILIES, NAMES, PARAMETERS, STANDARD
from mixcli.errors import UserError
from tests.corruptions import reference

TINY = {
    "gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "gaussian_blur", "defocus_blur", "motion_blur",
    "zoom_blur", "fog", "brightness", "contrast", "pixelate", "jpeg_compression",
}  # fmt: skip
BUILT = [name for name in CORRUPTIONS if name != "frost"]  # frost needs the user's textures


def generated(name, severity, images, index=None, seed=0):
    index = torch.arange(len(images)) if index is None else index
    draws = catalogue.draws(name, severity, tuple(images.shape[1:]), Keys(seed, index))
    return catalogue.corrupt(name, images, severity, draws)


# Names, sizes, parameters


def test_there_are_15_standard_corruptions_4_more_and_4_families():
    assert len(STANDARD) == 15 and len(EXTRA) == 4 and len(set(NAMES)) == 19
    assert sorted(name for names in FAMILIES.values() for name in names) == sorted(NAMES)
    standard = [sum(name in STANDARD for name in names) for names in FAMILIES.values()]
    assert standard == [3, 4, 4, 4]
    originals = {substitute: name for name, substitute in catalogue.SUBSTITUTES.items()}
    for name, corruption in CORRUPTIONS.items():
        assert originals.get(name, name) in FAMILIES[corruption.family]


def test_every_corruption_has_three_columns_of_five_and_thirteen_have_a_tiny_one():
    for name in NAMES:
        assert {"32", "64", "224"} <= set(PARAMETERS[name])
        assert all(len(column) == 5 for column in PARAMETERS[name].values())
    assert {name for name in NAMES if "tiny" in PARAMETERS[name]} == TINY


@pytest.mark.parametrize(
    ("size", "column", "published", "count"),
    [
        ((8, 8, 1), "tiny", False, 13),
        ((15, 40, 3), "tiny", False, 13),
        ((16, 16, 3), "32", False, 19),
        ((28, 28, 1), "32", False, 16),
        ((32, 32, 3), "32", True, 19),
        ((48, 90, 3), "32", False, 19),
        ((32, 64, 3), "32", False, 19),
        ((49, 49, 3), "64", False, 19),
        ((64, 64, 3), "64", True, 19),
        ((300, 128, 3), "64", False, 19),
        ((129, 300, 3), "224", False, 19),
        ((224, 224, 3), "224", True, 19),
        ((299, 299, 3), "224", False, 19),
    ],
)
def test_the_shorter_side_chooses_the_column(size, column, published, count):
    found = catalogue.profile(size)
    assert (found.column, found.published, len(found.names)) == (column, published, count)
    assert list(found.names) == [name for name in NAMES if name in found.names]
    if column == "tiny":
        assert set(found.names) == TINY
    if size[2] == 1:
        assert not {"saturate", "frost", "spatter"} & set(found.names)


@pytest.mark.parametrize("size", [(7, 32, 3), (32, 7, 1), (32, 32, 2), (32, 32, 4)])
def test_e14_smaller_images_and_other_channel_counts_are_refused(size):
    with pytest.raises(UserError, match="expected (sides of at least 8 px|1 or 3)"):
        catalogue.profile(size)


def test_the_column_for_224_px_is_never_used_at_32_px():
    for name in ("gaussian_noise", "gaussian_blur", "fog", "zoom_blur", "jpeg_compression"):
        if name in CORRUPTIONS:
            for severity in SEVERITIES:
                found = catalogue.parameters(name, severity, (32, 32, 3))
                assert found == PARAMETERS[name]["32"][severity - 1] != PARAMETERS[name]["224"][severity - 1]


def test_lengths_per_pixel_give_the_published_lengths():
    for side, alpha in (("32", 0.05 * 32), ("64", 0.05 * 64), ("224", 2 * 244)):
        assert PARAMETERS["elastic_transform"][side][1][0] * int(side) == pytest.approx(alpha)
    for side, scale in (("32", 0.2), ("64", 0.3), ("224", 1)):
        assert PARAMETERS["frost"][side][0][2] * int(side) == pytest.approx(scale)


# What is refused


@pytest.mark.parametrize("severity", [0, 6, -1, 2.5, 2.0, "a", "3", True])
def test_only_severities_1_to_5_exist(severity):
    images = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    for call in (
        lambda: catalogue.draws("gaussian_noise", severity, (32, 32, 3), Keys(0, torch.arange(2))),
        lambda: catalogue.corrupt("gaussian_blur", images, severity, {}),
    ):
        with pytest.raises(UserError, match="--severity: .*got .*, expected integer 1..5"):
            call()


def test_unknown_names_get_the_nearest_one():
    with pytest.raises(UserError, match="--corruption: unknown 'zoom_blurr'. Did you mean zoom_blur?"):
        catalogue.parameters("zoom_blurr", 1, (32, 32, 3))


def test_e14_a_corruption_that_does_not_apply_is_refused_with_those_that_do():
    with pytest.raises(UserError, match="glass_blur not applicable at 8x8 with 1 channel. Available: gaussian_noise, "):
        catalogue.parameters("glass_blur", 1, (8, 8, 1))
    with pytest.raises(UserError, match="saturate not applicable at 28x28 with 1 channel"):
        catalogue.parameters("saturate", 1, (28, 28, 1))


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 32, 32, 3),
        torch.zeros(32, 32, 3, dtype=torch.uint8),
        torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
    ],
    ids=["float", "no batch", "channels first"],
)
def test_other_images_are_refused(images):
    with pytest.raises(UserError, match="^images: "):
        catalogue.corrupt("gaussian_blur", images, 1, {})


# Laws of every corruption


def check_that_bytes_depend_on_the_image_alone(name, images, severities, batches):
    count = len(images)
    index = torch.arange(count) * 37 + 5
    for severity in severities:
        before = images.clone()
        whole = generated(name, severity, images, index)
        assert torch.equal(images, before) and whole.shape == images.shape and whole.dtype == torch.uint8
        for size in batches:
            chunks = zip(images.split(size), index.split(size), strict=True)
            assert torch.equal(torch.cat([generated(name, severity, *chunk) for chunk in chunks]), whole)
        assert torch.equal(generated(name, severity, images.flip(0), index.flip(0)).flip(0), whole)
        assert torch.equal(generated(name, severity, images[::3], index[::3]), whole[::3])


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("side", [32, 64])
def test_an_images_bytes_do_not_depend_on_its_batch(name, side):
    images = torch.from_numpy(reference.scenes(16, side, side))
    check_that_bytes_depend_on_the_image_alone(name, images, SEVERITIES, (1, 7))


@pytest.mark.parametrize("name", BUILT)
def test_images_and_draws_are_not_changed(name):
    images = torch.from_numpy(reference.scenes(3, 32, 32))
    draws = catalogue.draws(name, 4, (32, 32, 3), Keys(0, torch.arange(3)))
    before = images.clone(), {key: values.clone() for key, values in draws.items()}
    catalogue.corrupt(name, images, 4, draws)
    assert torch.equal(images, before[0]) and all(torch.equal(draws[key], before[1][key]) for key in draws)


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("severity", [0, -1, 6, 2.5, True])
def test_other_severities_are_refused_by_every_corruption(name, severity):
    with pytest.raises(UserError, match="severity"):
        generated(name, severity, torch.zeros(1, 32, 32, 3, dtype=torch.uint8))


@pytest.mark.stress
@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("side", [32, 64])
def test_an_images_bytes_do_not_depend_on_its_batch_600_images(name, side):
    images = torch.from_numpy(reference.scenes(600, side, side))
    check_that_bytes_depend_on_the_image_alone(name, images, SEVERITIES, (1, 7, 100, 128))


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("size", [(8, 8, 1), (9, 14, 3), (17, 40, 1), (21, 16, 3), (50, 70, 3), (131, 130, 3)], ids=str)
def test_every_size_from_8_px_is_corrupted_sides_may_differ(name, size):
    images = torch.from_numpy(reference.scenes(2, *size))
    if catalogue.SUBSTITUTES.get("frost") == name and "frost" not in catalogue.profile(size).names:
        return
    if name in NAMES and name not in catalogue.profile(size).names:
        with pytest.raises(UserError, match="not applicable"):
            generated(name, 3, images)
        return
    found = generated(name, 3, images)
    assert found.shape == images.shape and found.dtype == torch.uint8
    assert not torch.equal(found, images)


@pytest.mark.parametrize("name", BUILT)
def test_one_seed_gives_one_result_and_another_seed_another_one(name):
    images = torch.from_numpy(reference.scenes(2, 32, 32))
    found = generated(name, 4, images)
    assert torch.equal(found, generated(name, 4, images))
    draws = catalogue.draws(name, 4, (32, 32, 3), Keys(0, torch.arange(2)))
    assert torch.equal(found, generated(name, 4, images, seed=1)) == (not draws)
    assert all(len(numbers) == 2 for numbers in draws.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", BUILT)
def test_cuda_gives_the_same_bytes_but_for_a_few(name):
    images = torch.from_numpy(reference.scenes(200, 32, 32))
    limit = 1e-3 if name in ("snow", "spatter") else 1e-5
    for severity in SEVERITIES:
        there = generated(name, severity, images.cuda(), torch.arange(200, device="cuda")).cpu().numpy()
        assert np.mean(there != generated(name, severity, images).numpy()) <= limit
