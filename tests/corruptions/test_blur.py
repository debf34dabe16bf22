from __future__ import annotations

from math import ceil, cos, exp, floor, radians, sin

import numpy as np
import pytest
import torch
from scipy import ndimage

from mixcli.corruptions import blur, catalogue
from mixcli.corruptions.keyed import Keys
from mixcli.corruptions.parameters import PARAMETERS
from tests.corruptions import cells, reference

NAMES = tuple(blur.CORRUPTIONS)


def drawn(name, severity, shape, seed=0):
    return catalogue.draws(name, severity, shape[1:], Keys(seed, torch.arange(shape[0])))


def generated(name, severity, images):
    return catalogue.corrupt(name, images, severity, drawn(name, severity, tuple(images.shape)))


# Slow oracles: one image at a time, scipy or plain loops; `random` is one image's draws


def snapped(values):
    """Values in [0, 1], in float64 -> bytes."""
    return np.floor(np.clip(values * 255 + 2.0**-31, 0, 255)).astype(np.uint8)


def slow_gaussian(image, sigma, random):
    return snapped(ndimage.gaussian_filter(image / 255, (sigma, sigma, 0), mode="nearest", truncate=4))


def slow_glass(image, parameters, random):
    sigma, delta, iterations = parameters
    x = slow_gaussian(image, sigma, {})
    height, width = x.shape[:2]
    for sweep in range(iterations):
        for i, h in enumerate(range(height - delta, delta, -1)):
            for j, w in enumerate(range(width - delta, delta, -1)):
                dy, dx = random["offset"][sweep, i, j]
                x[h, w] = x[h + dy, w + dx]
    return slow_gaussian(x, sigma, {})


def slow_disc(radius, sigma):
    reach, softened = (8, 1) if radius <= 8 else (int(radius), 2)
    side = 2 * reach + 1
    inside = [[(y - reach) ** 2 + (x - reach) ** 2 <= radius**2 for x in range(side)] for y in range(side)]
    kernel = np.array(inside, np.float32) / np.float32(np.sum(inside))
    taps = np.exp(-0.5 * (np.arange(-softened, softened + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32).astype(float)
    for axis in (1, 0):
        kernel = ndimage.correlate1d(kernel.astype(float), taps, axis, mode="mirror").astype(np.float32)
    return kernel.astype(float)


def slow_defocus(image, parameters, random):
    kernel = slow_disc(*parameters)[..., None]
    return snapped(ndimage.correlate(image / 255, kernel, mode="mirror"))


def slow_motion(image, parameters, random):
    radius, sigma = parameters
    height, width, channels = image.shape
    angle, count = radians(float(random["angle"])), 2 * radius + 1
    weights = [exp(-i * i / (2 * sigma * sigma)) for i in range(count)]
    places = [(ceil(i * sin(angle) - 0.5), ceil(i * cos(angle) - 0.5)) for i in range(count)]
    result = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            total = np.zeros(channels)
            for weight, (down, across) in zip(weights, places, strict=True):
                source = image[min(max(y + down, 0), height - 1), min(max(x + across, 0), width - 1)]
                total += weight / sum(weights) * (257 * source.astype(float))
            result[y, x] = [floor(value + 0.5) // 257 for value in total]
    return result


def slow_zoom(image, parameters, random):
    step, count = parameters
    x = image / 255
    total = x.copy()
    for k in range(count):
        factor = 1 + k * ((1 + step) - 1)
        kept = [ceil(side / factor) for side in x.shape[:2]]
        top, left = ((side - short) // 2 for side, short in zip(x.shape[:2], kept, strict=True))
        large = ndimage.zoom(x[top : top + kept[0], left : left + kept[1]], (factor, factor, 1), order=1)
        down, across = ((long - side) // 2 for long, side in zip(large.shape[:2], x.shape[:2], strict=True))
        total += large[down : down + x.shape[0], across : across + x.shape[1]]
    return snapped(total / (count + 1))


SLOW = {"gaussian_blur": slow_gaussian, "glass_blur": slow_glass, "defocus_blur": slow_defocus,
        "motion_blur": slow_motion, "zoom_blur": slow_zoom}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(8, 32, 32, 3), (2, 19, 33, 3), (2, 28, 28, 1), (8, 8, 8, 1)], ids=str)
def test_blur_equals_the_slow_loop(name, shape):
    if name in catalogue.profile(shape[1:]).names:
        shape = (2, *shape[1:]) if name == "motion_blur" else shape
        cells.check_against_the_loop(SLOW[name], name, shape)


@pytest.mark.parametrize("name", NAMES)
def test_blur_equals_the_slow_loop_at_64_px(name):
    cells.check_against_the_loop(SLOW[name], name, (1, 64, 64, 3), (2, 4, 5) if name == "glass_blur" else (5,))


@pytest.mark.parametrize("name", ["glass_blur", "defocus_blur", "zoom_blur"])
def test_blur_equals_the_slow_loop_at_224_px(name):
    """A rectangle: the largest radius and delta, discs that fill their grid."""
    cells.check_against_the_loop(
        SLOW[name], name, (1, 130, 150, 1), {"glass_blur": (5,), "defocus_blur": (4, 5)}.get(name, (1,))
    )


@pytest.mark.stress
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(64, 8, 8, 1), (64, 32, 32, 3), (64, 19, 33, 3), (64, 64, 64, 3)], ids=str)
def test_blur_equals_the_slow_loop_on_64_images(name, shape):
    if name in catalogue.profile(shape[1:]).names:
        cells.check_against_the_loop(SLOW[name], name, shape)


# The reference's outputs, its draws made again and injected


def injected(name, parameters, severity, shape):
    count, height, width, _ = shape
    generators = [reference.legacy(name, severity, index) for index in range(count)]
    if name == "motion_blur":
        return {"angle": torch.tensor([g.uniform(-45, 45) for g in generators], dtype=torch.float64)}
    if name == "glass_blur":
        _, delta, iterations = parameters
        size = (iterations, height - 2 * delta, width - 2 * delta, 2)
        across_down = np.stack([g.randint(-delta, delta, size=size) for g in generators])
        return {"offset": torch.from_numpy(across_down).flip(-1)}
    return {}


# The least share of equal bytes. What misses are values at an integer, which the reference's rounding errors let fall.
GATES = {
    "defocus_blur": [1, 1, 1, 1, 1],
    "glass_blur": [1, 0.999, 0.999, 0.999, 0.999],
    "motion_blur": [1, 1, 1, 1, 1],
    "zoom_blur": [0.998] * 5,
    "gaussian_blur": [0.999] * 5,
}


@reference.needs_outputs
@pytest.mark.parametrize("side", reference.SIDES)
@pytest.mark.parametrize("name", NAMES)
def test_with_the_references_draws_bytes_are_the_references(name, side):
    clean = reference.clean(side)
    for severity, gate in enumerate(GATES[name], 1):
        draws = injected(name, PARAMETERS[name][str(side)][severity - 1], severity, clean.shape)
        found = catalogue.corrupt(name, torch.from_numpy(clean), severity, draws)
        equal, worst, mean = reference.share_equal(found, reference.corrupted(side, name, severity))
        assert equal >= gate and worst <= 1 and abs(mean) < 0.02, (severity, equal, worst, mean)


@reference.needs_cifar
@pytest.mark.parametrize("name", NAMES)
def test_keyed_blur_has_the_references_statistics(name):
    clean = reference.cifar(1000)
    for severity in catalogue.SEVERITIES:
        expected = reference.statistics(name, severity)
        found = generated(name, severity, clean)
        distance = reference.distances(found, clean)
        assert abs(distance.mean() / expected["rmse_mean"] - 1) < 0.015, severity
        assert abs(distance.std() / expected["rmse_sd"] - 1) < 0.05
        shift = (found.double() - clean.double()).mean((0, 1, 2))
        assert np.abs(shift.numpy() - expected["mean_shift"]).max() < 0.1


# Laws and quirks


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grey", [0, 1, 100, 254, 255])
def test_a_flat_image_stays_as_it_is(name, grey):
    """Up to the one level that the published discs lose where their float32 weights sum to less than 1."""
    images = torch.full((2, 32, 32, 3), grey, dtype=torch.uint8)
    for severity in catalogue.SEVERITIES:
        lost = images.int() - generated(name, severity, images).int()
        assert lost.min() >= 0 and lost.max() <= (1 if name == "defocus_blur" else 0)


@pytest.mark.parametrize("name", NAMES)
def test_channels_are_blurred_apart(name):
    images = torch.from_numpy(reference.scenes(3, 32, 32))
    for severity in (2, 5):
        draws = drawn(name, severity, (3, 32, 32, 3))
        whole = catalogue.corrupt(name, images, severity, draws)
        parts = [catalogue.corrupt(name, images[..., c : c + 1], severity, draws) for c in range(3)]
        assert torch.equal(whole, torch.cat(parts, -1))


def test_glass_blur_of_severity_1_only_moves_pixels_and_spares_the_border():
    images = torch.from_numpy(reference.scenes(4, 32, 32))
    found = generated("glass_blur", 1, images)
    assert torch.equal(found[:, :2], images[:, :2]) and torch.equal(found[:, :, :2], images[:, :, :2])
    assert not torch.equal(found, images)
    for before, after in zip(images, found, strict=True):
        assert {tuple(pixel) for pixel in after.view(-1, 3).tolist()} <= {
            tuple(pixel) for pixel in before.view(-1, 3).tolist()
        }


@pytest.mark.parametrize("delta", [1, 2, 3, 4])
def test_glass_blur_copies_and_never_swaps(delta):
    generator = torch.Generator().manual_seed(delta)
    offsets = torch.randint(-delta, delta, (3, 2, 23 - 2 * delta, 17 - 2 * delta, 2), generator=generator)
    found = blur.shuffled(offsets, delta, 23, 17)
    for image in range(3):
        place = np.arange(23 * 17).reshape(23, 17)
        for sweep in range(2):
            for i, h in enumerate(range(23 - delta, delta, -1)):
                for j, w in enumerate(range(17 - delta, delta, -1)):
                    dy, dx = offsets[image, sweep, i, j].tolist()
                    place[h, w] = place[h + dy, w + dx]
        assert (found[image].numpy() == place.ravel()).all()


def test_one_long_chain_of_copies_is_followed_to_its_end():
    """All offsets one row down: each pixel takes what the one below took, so the lowest row fills the columns."""
    offsets = torch.tensor([1, 0]).expand(1, 1, 28, 28, 2)
    found = blur.shuffled(offsets, 2, 32, 32).view(32, 32)
    assert (found[3:31, 3:31] == 31 * 32 + torch.arange(3, 31)).all()


def test_motion_blur_at_0_degrees_looks_to_the_right_and_at_minus_90_upwards():
    image = torch.zeros(2, 16, 16, 1, dtype=torch.uint8)
    image[:, 8, 8] = 255
    found = blur.motion_blurred(image, 4, 2, torch.tensor([0.0, -90.0]))[..., 0]
    assert set(found[0].nonzero()[:, 0].tolist()) == {8} and found[0].nonzero()[:, 1].max() == 8
    assert set(found[1].nonzero()[:, 1].tolist()) == {8} and found[1].nonzero()[:, 0].min() == 8


@pytest.mark.parametrize("name", ["gaussian_blur", "defocus_blur", "motion_blur", "zoom_blur"])
def test_blur_grows_with_severity_on_digits(name):
    for images in (reference.digits(), reference.digits()[:20]):
        distances = [
            (generated(name, severity, images).double() - images.double()).square().mean().sqrt()
            for severity in catalogue.SEVERITIES
        ]
        assert all(a < b for a, b in zip(distances, distances[1:], strict=False)), distances


@pytest.mark.parametrize("name", ["gaussian_blur", "zoom_blur"])
def test_blur_grows_with_severity_at_32_px(name):
    images = torch.from_numpy(reference.scenes(64, 32, 32))
    distances = [reference.distances(generated(name, s, images), images).mean() for s in catalogue.SEVERITIES]
    assert all(a < b for a, b in zip(distances, distances[1:], strict=False)), distances
