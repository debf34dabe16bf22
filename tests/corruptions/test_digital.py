from __future__ import annotations

import colorsys
import io
from math import floor

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from mixcli.corruptions import catalogue, digital
from mixcli.corruptions.parameters import PARAMETERS
from tests.corruptions import cells, reference
from tests.corruptions.cells import drawn, generated

NAMES = tuple(digital.CORRUPTIONS)
TINY = ("contrast", "pixelate", "jpeg_compression")


# Slow oracles: one image at a time, plain loops, Pillow or scipy; `random` is one image's draws


def level(value):
    """A number where 1 is white -> its byte, truncated."""
    return int(min(max(value, 0.0), 1.0) * 255)


def slow_contrast(image, gain, random):
    result = np.empty_like(image)
    for channel in range(image.shape[2]):
        plane = image[..., channel]
        mean = int(plane.astype(int).sum()) / (255 * plane.size)
        for place, grey in np.ndenumerate(plane):
            result[(*place, channel)] = level((grey / 255 - mean) * gain + mean)
    return result


def hue_saturation_value(pixel):
    red, green, blue = (float(grey) / 255 for grey in pixel)
    value = max(red, green, blue)
    spread = value - min(red, green, blue)
    if spread == 0:
        return 0.0, 0.0, value
    if blue == value:
        sixths = 4 + (red - green) / spread
    elif green == value:
        sixths = 2 + (blue - red) / spread
    else:
        sixths = (green - blue) / spread
    return (sixths / 6) % 1, spread / value, value


def pixel_of(hue, saturation, value):
    sector = floor(hue * 6)
    rise = hue * 6 - sector
    low, down, up = value * (1 - saturation), value * (1 - rise * saturation), value * (1 - (1 - rise) * saturation)
    return [
        (value, up, low), (down, value, low), (low, value, up), (low, down, value), (up, low, value), (value, low, down)
    ][sector % 6]  # fmt: skip


def slow_saturate(image, parameters, random):
    gain, lift = parameters
    result = np.empty_like(image)
    for place in np.ndindex(*image.shape[:2]):
        hue, saturation, value = hue_saturation_value(image[place])
        saturation = min(max(saturation * gain + lift, 0.0), 1.0)
        result[place] = [level(channel) for channel in pixel_of(hue, saturation, value)]
    return result


def pillow(image):
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def slow_jpeg(image, quality, random):
    file = io.BytesIO()
    pillow(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(image.shape)


def slow_pixelate(image, scale, random):
    """One axis a call: Pillow's own choice of the first axis changes with its release where H is over twice W."""
    height, width = image.shape[:2]
    small_height, small_width = int(height * scale), int(width * scale)
    picture = pillow(image)
    for size in ((small_width, height), (small_width, small_height), (width, small_height), (width, height)):
        picture = picture.resize(size, Image.Resampling.BOX)
    return np.asarray(picture).reshape(image.shape)


def slow_elastic(image, parameters, random):
    height, width, channels = image.shape
    alpha, sigma, jitter = (value * min(height, width) for value in parameters)
    reach, x, y = min(height, width) // 3, width // 2, height // 2
    anchors = np.array([[x + reach, y + reach], [x + reach, y - reach], [x - reach, y - reach]], float)
    shaken = np.column_stack([anchors + jitter * random["anchors"], np.ones(3)])
    back = np.linalg.solve(shaken, anchors)  # (x, y, 1) of the result -> (x, y) of the image
    rows, columns = np.mgrid[:height, :width].astype(float)
    source_x, source_y = (rows * back[1, k] + columns * back[0, k] + back[2, k] for k in (0, 1))
    values = read_at(image / 255, source_y, source_x, "mirror")
    if alpha:
        across, down = (
            ndimage.gaussian_filter(np.asarray(random[name], float), sigma, mode="reflect", truncate=3) * alpha
            for name in ("across", "down")
        )
        values = read_at(values, rows + down, columns + across, "reflect")
    return np.floor(np.clip(values * 255 + 2.0**-31, 0, 255)).astype(np.uint8)


def read_at(values, rows, columns, mode):
    planes = [
        ndimage.map_coordinates(values[..., c], (rows, columns), order=1, mode=mode) for c in range(values.shape[2])
    ]
    return np.stack(planes, -1)


SLOW = {"contrast": slow_contrast, "saturate": slow_saturate, "jpeg_compression": slow_jpeg, "pixelate": slow_pixelate,
        "elastic_transform": slow_elastic}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(8, 32, 32, 3), (2, 19, 33, 3), (2, 28, 28, 1), (8, 8, 8, 1)], ids=str)
def test_digital_equals_the_slow_loop(name, shape):
    if name in catalogue.profile(shape[1:]).names:
        cells.check_against_the_loop(SLOW[name], name, shape)


@pytest.mark.parametrize("name", NAMES)
def test_digital_equals_the_slow_loop_at_64_and_150_px(name):
    cells.check_against_the_loop(SLOW[name], name, (2, 64, 64, 3), (2, 5))
    cells.check_against_the_loop(SLOW[name], name, (1, 150, 130, 3), (1, 4))


@pytest.mark.stress
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(64, 8, 8, 1), (64, 32, 32, 3), (64, 19, 33, 3), (64, 64, 64, 3)], ids=str)
def test_digital_equals_the_slow_loop_on_64_images(name, shape):
    if name in catalogue.profile(shape[1:]).names:
        cells.check_against_the_loop(SLOW[name], name, shape)


# The reference's outputs, its draws made again and injected


def injected(name, parameters, severity, shape):
    if name != "elastic_transform":
        return {}
    count, side = shape[:2]
    names, jitter, found = ("anchors", "across", "down"), parameters[2] * side, []
    for index in range(count):
        random = reference.legacy(name, severity, index)
        found.append((random.uniform(-jitter, jitter, size=(3, 2)) / jitter, *random.uniform(-1, 1, (2, side, side))))
    return {
        key: torch.from_numpy(np.stack(values)) for key, values in zip(names, zip(*found, strict=True), strict=True)
    }


# The least share of equal bytes; elastic misses where the reference's float32 falls to another side of an integer
GATES = {"contrast": 1, "saturate": 1, "jpeg_compression": 1, "pixelate": 1, "elastic_transform": 0.9998}


@reference.needs_outputs
@pytest.mark.parametrize("side", reference.SIDES)
@pytest.mark.parametrize("name", NAMES)
def test_with_the_references_draws_bytes_are_the_references(name, side):
    clean = reference.clean(side)
    columns = enumerate(PARAMETERS[name][str(side)], 1)
    draws = {severity: injected(name, parameters, severity, clean.shape) for severity, parameters in columns}
    cells.check_reference(name, clean, side, draws, GATES[name], 0.001)


STRESS = [pytest.param(name, marks=pytest.mark.stress) for name in NAMES if name != "elastic_transform"]


@reference.needs_cifar
@pytest.mark.parametrize("name", ["elastic_transform", *STRESS])
def test_keyed_digital_has_the_references_statistics(name):
    random = name == "elastic_transform"
    cells.check_statistics(name, reference.cifar(1000), *((0.02, 0.02, 0.02) if random else (1e-5, 1e-5, 1e-4)))


@reference.needs_cifar
def test_an_elastic_jitter_or_strength_wrong_by_a_tenth_would_be_seen():
    clean = reference.cifar(1000)
    for severity, wrong in ((1, (1, 1, 1.1)), (5, (1.1, 1, 1))):
        right = PARAMETERS["elastic_transform"]["32"][severity - 1]
        draws = drawn("elastic_transform", severity, clean)
        found = digital.elastic(clean, tuple(a * b for a, b in zip(right, wrong, strict=True)), draws)
        expected = reference.statistics("elastic_transform", severity)["rmse_mean"]
        assert reference.distances(found, clean).mean() / expected - 1 > 0.02, severity


# Laws and quirks


def test_saturate_turns_grey_reddish_where_saturation_is_added():
    grey = torch.full((1, 32, 32, 3), 128, dtype=torch.uint8)
    assert generated("saturate", 5, grey)[0, 0, 0].tolist() == [128, 102, 102]
    for severity in (1, 2, 3):
        assert torch.equal(generated("saturate", severity, grey), grey)
    assert torch.equal(generated("saturate", 5, grey * 0), grey * 0)


def test_saturate_is_the_standard_librarys_but_for_rounding():
    images = torch.from_numpy(reference.scenes(4, 32, 32))
    for severity, (gain, lift) in enumerate(PARAMETERS["saturate"]["32"], 1):
        found = generated("saturate", severity, images).view(-1, 3).tolist()
        for pixel, result in zip(images.view(-1, 3).tolist(), found, strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*(grey / 255 for grey in pixel))
            expected = colorsys.hsv_to_rgb(hue, min(gain * saturation + lift, 1), value)
            assert max(abs(255 * a - b) for a, b in zip(expected, result, strict=True)) < 1.001


def test_contrast_keeps_flat_images_and_each_channels_mean():
    flat = torch.arange(0, 255, 17, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 32, 32, 3)
    images = torch.from_numpy(reference.scenes(8, 32, 32))
    for severity in catalogue.SEVERITIES:
        assert (flat.int() - generated("contrast", severity, flat).int()).abs().max() <= 1
        shift = generated("contrast", severity, images).double().mean((1, 2)) - images.double().mean((1, 2))
        assert shift.min() > -1 and shift.max() < 1e-6


def test_pixelate_is_pillows_at_once_on_common_shapes():
    for height, width in ((8, 8), (32, 32), (19, 27), (33, 19), (61, 40), (64, 64), (40, 96)):
        for image in reference.scenes(2, height, width):
            for scale in (0.95, 0.9, 0.875, 0.85, 0.75, 0.65, 0.6, 0.5, 0.4, 0.375, 0.3, 0.25):
                small = Image.fromarray(image).resize((int(width * scale), int(height * scale)), Image.Resampling.BOX)
                expected = np.asarray(small.resize((width, height), Image.Resampling.BOX))
                found = digital.pixelate(torch.from_numpy(image)[None], scale, {})[0]
                assert (found.numpy() == expected).all(), (height, width, scale)


def test_elastic_without_shake_or_shift_is_the_identity():
    images = torch.from_numpy(reference.scenes(4, 32, 20))
    still = {"anchors": torch.zeros(4, 3, 2), "across": torch.zeros(4, 32, 20), "down": torch.zeros(4, 32, 20)}
    assert torch.equal(digital.elastic(images, (0.1, 0.04, 0.05), still), images)


@pytest.mark.parametrize(("shift", "axis"), [((1, 0), 2), ((0, 1), 1)])
def test_elastic_anchors_shaken_alike_shift_the_image(shift, axis):
    images = torch.from_numpy(reference.scenes(4, 32, 32))
    draws = {"anchors": torch.tensor(shift).expand(4, 3, 2)}
    found = digital.elastic(images, (0, 0, 3 / 32), draws)  # to the right by 3 px, or down
    assert torch.equal(found.narrow(axis, 3, 29), images.narrow(axis, 0, 29))
    assert torch.equal(found.narrow(axis, 0, 3), images.narrow(axis, 1, 3).flip(axis))


@pytest.mark.parametrize("name", TINY)
def test_digital_grows_with_severity_on_digits(name):
    cells.check_growth(name, reference.digits())
    cells.check_growth(name, reference.digits()[:20])


@pytest.mark.parametrize("name", ["contrast", "jpeg_compression"])
def test_digital_grows_with_severity_at_32_px(name):
    cells.check_growth(name, torch.from_numpy(reference.scenes(64, 32, 32)))
