from __future__ import annotations

from math import ceil, cos, exp, floor, radians, sin

import numpy as np
import pytest
import torch
from scipy import ndimage

from mixcli.corruptions import catalogue, frost_pictures, hsv, weather
from mixcli.corruptions.parameters import PARAMETERS
from mixcli.errors import UserError
from tests.corruptions import cells, reference
from tests.corruptions.cells import drawn, generated
from tests.corruptions.test_digital import hue_saturation_value, level, pixel_of

NAMES = ("snow", "frost_procedural", "fog", "brightness")
COMPARED = ("snow", "fog", "brightness")  # the reference's outputs have no frost


# Slow oracles: one image at a time, plain loops or scipy; `random` is one image's draws


def slow_brightness(image, lift, random):
    result = np.empty_like(image)
    for place in np.ndindex(*image.shape[:2]):
        if image.shape[2] == 1:
            result[place] = level(image[place][0] / 255 + lift)
        else:
            hue, saturation, value = hue_saturation_value(image[place])
            result[place] = [level(channel) for channel in pixel_of(hue, saturation, min(value + lift, 1.0))]
    return result


def slow_fractal(draws, decay):
    side = len(draws)
    heights = {(0, 0): 0.0}
    step, amplitude = side, 100.0
    while step > 1:
        half = step // 2

        def at(y, x, heights=heights):
            return heights[y % side, x % side]

        for y in range(half, side, step):
            for x in range(half, side, step):
                left = at(y - half, x - half) + at(y + half, x - half)
                right = at(y - half, x + half) + at(y + half, x + half)
                heights[y, x] = (left + right) / 4 + draws[y, x] * amplitude * amplitude
        for first, second in ((0, half), (half, 0)):
            for y in range(first, side, step):
                for x in range(second, side, step):
                    vertical, horizontal = at(y + half, x) + at(y - half, x), at(y, x - half) + at(y, x + half)
                    heights[y, x] = (vertical + horizontal) / 4 + draws[y, x] * amplitude * amplitude
        step, amplitude = half, amplitude / decay
    low = min(heights.values())
    span = max(heights.values()) - low
    return {place: (height - low) / span for place, height in heights.items()}


def slow_fog(image, parameters, random):
    amount, decay = parameters
    mist, brightest = slow_fractal(random["height"], decay), image.max() / 255
    result = np.empty_like(image)
    for (y, x, channel), grey in np.ndenumerate(image):
        foggy = (grey / 255 + mist[y, x] * amount) * brightest / (brightest + amount)
        result[y, x, channel] = level(foggy)
    return result


def slow_snow(image, parameters, random):
    mean, deviation, zoom, threshold, radius, sigma, keep = parameters
    height, width = image.shape[:2]
    layer = mean + deviation * random["normal"].astype(float)
    if zoom != 1:
        kept = [ceil(side / zoom) for side in (height, width)]
        top, left = ((side - short) // 2 for side, short in zip((height, width), kept, strict=True))
        layer = ndimage.zoom(layer[top : top + kept[0], left : left + kept[1]], zoom, order=1, mode="nearest")
        top, left = ((long - side) // 2 for long, side in zip(layer.shape, (height, width), strict=True))
        layer = layer[top : top + height, left : left + width]
    flakes = [[int(min(v, 1) * 255 + 2**-31) if v >= threshold else 0 for v in row] for row in layer]
    streaks = slow_streaks(flakes, radius, sigma, radians(float(random["angle"])))
    result = np.empty_like(image)
    for y, x in np.ndindex(height, width):
        values = [float(grey) / 255 for grey in image[y, x]]
        grey = values[0] if len(values) == 1 else 0.299 * values[0] + 0.587 * values[1] + 0.114 * values[2]
        fallen = streaks[y][x] / 255, streaks[height - 1 - y][width - 1 - x] / 255
        for channel, value in enumerate(values):
            paler = keep * value + (1 - keep) * max(value, 1.5 * grey + 0.5)
            result[y, x, channel] = int(min((paler + sum(fallen)) * 255 + 2**-31, 255))
    return result


def slow_streaks(layer, radius, sigma, angle):
    height, width = len(layer), len(layer[0])
    weights = [exp(-i * i / (2 * sigma * sigma)) for i in range(2 * radius + 1)]
    places = [(ceil(i * sin(angle) - 0.5), ceil(i * cos(angle) - 0.5)) for i in range(len(weights))]

    def blurred(y, x):
        reached = (layer[min(max(y + dy, 0), height - 1)][min(max(x + dx, 0), width - 1)] for dy, dx in places)
        return floor(sum(w / sum(weights) * 257 * v for w, v in zip(weights, reached, strict=True)) + 0.5) // 257

    return [[blurred(y, x) for x in range(width)] for y in range(height)]


def slow_frost(image, parameters, random, pictures=None):
    weight, frost_weight, scale = parameters
    height, width = image.shape[:2]
    picture = (pictures or frost_pictures.drawn())[int(random["picture"])].numpy()
    scale = max(scale * min(height, width), (height + 1) / picture.shape[0], (width + 1) / picture.shape[1])
    sides = [round(side * scale) for side in picture.shape[:2]]
    top, left = (int(random["corner"][axis] * (sides[axis] - image.shape[axis])) for axis in (0, 1))
    rows, columns = np.mgrid[top : top + height, left : left + width]
    places = (rows + 0.5) / scale - 0.5, (columns + 0.5) / scale - 0.5
    result = np.empty_like(image)
    for channel in range(3):
        plane = picture[..., channel].astype(float)
        crop = np.floor(ndimage.map_coordinates(plane, places, order=1, mode="nearest") + 0.5 + 2.0**-31)
        mixed = weight * image[..., channel].astype(float) + frost_weight * crop
        result[..., channel] = np.clip(mixed, 0, 255).astype(np.uint8)
    return result


SLOW = {"snow": slow_snow, "frost_procedural": slow_frost, "fog": slow_fog, "brightness": slow_brightness}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(8, 32, 32, 3), (2, 19, 33, 3), (2, 28, 28, 1), (8, 8, 8, 1)], ids=str)
def test_weather_equals_the_slow_loop(name, shape):
    if name.removesuffix("_procedural") in catalogue.profile(shape[1:]).names:
        cells.check_against_the_loop(SLOW[name], name, shape)


@pytest.mark.parametrize("name", NAMES)
def test_weather_equals_the_slow_loop_at_64_and_150_px(name):
    cells.check_against_the_loop(SLOW[name], name, (2, 64, 64, 3), (2, 5))
    cells.check_against_the_loop(SLOW[name], name, (1, 150, 130, 3), (1,))


@pytest.mark.stress
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(64, 8, 8, 1), (64, 32, 32, 3), (64, 19, 33, 3), (64, 64, 64, 3)], ids=str)
def test_weather_equals_the_slow_loop_on_64_images(name, shape):
    if name.removesuffix("_procedural") in catalogue.profile(shape[1:]).names:
        cells.check_against_the_loop(SLOW[name], name, shape)


# The reference's outputs, its draws made again and injected


def injected(name, parameters, severity, shape):
    generators = [reference.legacy(name, severity, index) for index in range(shape[0])]
    if name == "snow":
        fields = [g.normal(size=shape[1:3], loc=parameters[0], scale=parameters[1]) for g in generators]
        normal = (torch.from_numpy(np.stack(fields)) - parameters[0]) / parameters[1]
        return {"normal": normal, "angle": torch.tensor([g.uniform(-135, -45) for g in generators]).double()}
    if name == "fog":
        maps = [fog_draws(g, parameters[1], shape[1]) for g in generators]
        return {"height": torch.from_numpy(np.stack(maps))}
    return {}


def fog_draws(generator, decay, side):
    draws, step, amplitude = np.zeros((side, side)), side, 100.0
    while step > 1:
        half, count = step // 2, side // step
        for top, left in ((half, half), (0, half), (half, 0)):
            draws[top::step, left::step] = generator.uniform(-amplitude, amplitude, (count, count)) / amplitude
        step, amplitude = half, amplitude / decay
    return draws


# The least share of equal bytes; snow misses where the reference's float32 falls to another side of an integer
GATES = {"snow": 0.9998, "fog": 1, "brightness": 1}


@reference.needs_outputs
@pytest.mark.parametrize("side", reference.SIDES)
@pytest.mark.parametrize("name", COMPARED)
def test_with_the_references_draws_bytes_are_the_references(name, side):
    clean = reference.clean(side)
    columns = enumerate(PARAMETERS[name][str(side)], 1)
    draws = {severity: injected(name, parameters, severity, clean.shape) for severity, parameters in columns}
    cells.check_reference(name, clean, side, draws, GATES[name], 0.001)


@reference.needs_cifar
@pytest.mark.parametrize("name", ["snow", "fog", pytest.param("brightness", marks=pytest.mark.stress)])
def test_keyed_weather_has_the_references_statistics(name):
    random = name != "brightness"
    cells.check_statistics(name, reference.cifar(1000), *((0.02, 0.02, 0.02) if random else (1e-5, 1e-5, 1e-4)))


@reference.needs_cifar
def test_a_weather_parameter_wrong_by_a_tenth_would_be_seen():
    clean = reference.cifar(1000)
    for name, part in (("snow", 1), ("fog", 0)):
        for severity in catalogue.SEVERITIES:
            wrong = list(PARAMETERS[name]["32"][severity - 1])
            wrong[part] *= 1.1
            found = weather.CORRUPTIONS[name].apply(clean, wrong, drawn(name, severity, clean))
            distance = reference.distances(found, clean).mean() / reference.statistics(name, severity)["rmse_mean"]
            assert abs(distance - 1) > 0.02, (name, severity, distance)


# Shortcuts: what is exact by an argument, held against the long way

LIFTS = sorted({lift for column in PARAMETERS["brightness"].values() for lift in column})


def check_lifts(colours):
    """`colours` (n, 3) uint8."""
    images = colours[:, None, None].contiguous()
    for lift in LIFTS:
        hue, saturation, value = hsv.split(images)
        expected = hsv.merged(hue, saturation, value.add_(lift).clamp_(0, 1))
        assert torch.equal(hsv.lifted(images, lift), expected), lift


def test_brightness_by_table_is_the_round_trip_by_hue_for_colours_near_and_far_from_integers():
    some = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (100_000, 3), dtype=np.uint8))
    steps = torch.arange(0, 256, 17)  # divisors of 255, so many exact values are integers
    check_lifts(torch.cat([some, torch.cartesian_prod(steps, steps, steps).byte(), some[:1000, :1].expand(-1, 3)]))


@pytest.mark.stress
def test_brightness_by_table_is_the_round_trip_by_hue_for_every_colour():
    level = torch.arange(256, dtype=torch.uint8)
    for red in level:
        check_lifts(torch.cartesian_prod(red[None], level, level))


def test_snow_counts_in_whole_units_that_float32_holds():
    for mean, *_, keep in (severity for column in PARAMETERS["snow"].values() for severity in column):
        kept = round(20 * keep)
        assert 20 * keep == pytest.approx(kept, abs=1e-12), mean
        assert 2000 * kept * 255 + (20 - kept) * (3 * sum(weather.GREY) * 255 + 255_000) < 2**24
    assert sum(weather.GREY) == 1000 and 255 * weather.UNIT < 2**24 and 510 * weather.UNIT // 64 < 2**24


# Frost


def test_frost_of_given_pictures_is_a_weighted_crop_of_the_one_drawn():
    pictures = tuple(torch.from_numpy(reference.scenes(1, 300 + 20 * k, 260, 3)[0]) for k in range(5))
    frost = weather.frost(lambda: pictures)
    for shape in ((12, 32, 32, 3), (6, 48, 20, 3), (3, 64, 64, 3)):
        images = reference.scenes(*shape)
        for severity in (1, 3, 5):
            draws = drawn("frost_procedural", severity, torch.from_numpy(images))
            parameters = catalogue.parameters("frost_procedural", severity, shape[1:])
            found = frost.apply(torch.from_numpy(images), parameters, draws).numpy()
            for index, image in enumerate(images):
                random = {key: values[index].numpy() for key, values in draws.items()}
                assert (found[index] == slow_frost(image, parameters, random, pictures)).all()


def test_frost_uses_all_five_pictures_alike_and_every_corner():
    draws = drawn("frost_procedural", 1, torch.zeros(4000, 32, 32, 3, dtype=torch.uint8))
    assert (draws["picture"].bincount(minlength=5) - 800).abs().max() < 110
    atlas = weather.Atlas(frost_pictures.drawn()[:1])
    size = frost_pictures.SIDE
    for corner, place in (((0.0, 0.0), (0, 0)), ((1 - 1e-9, 1 - 1e-9), (size - 33, size - 33))):
        crop = atlas.crops(torch.tensor([0]), torch.tensor([corner], dtype=torch.float64), 32, 32)[0]
        assert torch.equal(crop, frost_pictures.drawn()[0][place[0] : place[0] + 32, place[1] : place[1] + 32])


def test_small_pictures_are_enlarged_until_they_hold_the_image():
    assert weather.enlarged(torch.zeros(50, 80, 3, dtype=torch.uint8), 0.1, 32, 200).shape[1] >= 201
    assert weather.enlarged(torch.zeros(50, 80, 3, dtype=torch.uint8), 0.5, 8, 8).shape == (25, 40, 3)


@pytest.mark.parametrize("pictures", [[], [torch.zeros(9, 9, 3, dtype=torch.uint8)] * 6, [torch.zeros(9, 9, 3)] * 5])
def test_wrong_frost_pictures_are_refused(pictures):
    images = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    with pytest.raises(UserError, match="frost"):
        weather.frost(lambda: pictures).apply(images, (1, 0.2, 0.2 / 32), drawn("frost_procedural", 1, images))


def test_procedural_frost_has_the_figures_of_the_published_pictures():
    draws = drawn("frost_procedural", 1, torch.zeros(3000, 32, 32, 3, dtype=torch.uint8))
    atlas = weather.Atlas([weather.enlarged(p, 0.2, 32, 32) for p in frost_pictures.drawn()])
    crops = atlas.crops(draws["picture"], draws["corner"], 32, 32).double().numpy()
    means = crops.mean((1, 2))
    waves = crops - means[:, None, None]

    def near(found, expected):
        return np.abs(np.asarray(found) / expected - 1).max() < 0.1

    assert near(means.mean(0), [144, 165, 177]) and near(means.std(0), [51, 36, 34])
    assert near(waves.std((1, 2)).mean(), 22.6)
    assert near(np.corrcoef(waves.reshape(-1, 3).T)[[0, 0, 1], [1, 2, 2]].mean(), 0.87)
    for ahead, behind in ((waves[:, 1:], waves[:, :-1]), (waves[:, :, 1:], waves[:, :, :-1])):
        assert near((ahead * behind).mean() / (waves**2).mean(), 0.675)
    assert near(-spectral_slope(waves), 0.94)


def spectral_slope(waves):
    """The exponent of the amplitude's fall with frequency, rings one bin wide over 0.04 to 0.45 cycles per pixel."""
    side = waves.shape[1]
    power = (np.abs(np.fft.fft2(waves, axes=(1, 2))) ** 2).mean((0, 3))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    rings = [(frequency >= low) & (frequency < low + 1 / side) for low in np.arange(0.04, 0.45 - 1 / side, 1 / side)]
    rows = [(np.log(frequency[ring].mean()), np.log(power[ring].mean()) / 2) for ring in rings]
    return np.polyfit(*np.array(rows).T, 1)[0]


def test_procedural_frost_never_goes_by_the_name_of_frost():
    assert "frost" not in weather.CORRUPTIONS and "frost_procedural" not in catalogue.NAMES


# Laws and quirks


def test_brightness_lifts_black_to_grey_and_stops_at_white():
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    for severity, lift in enumerate(PARAMETERS["brightness"]["32"], 1):
        for channels in (1, 3):
            black, white = generated("brightness", severity, ends.expand(2, 32, 32, channels))
            assert (black == int(lift * 255)).all() and (white == 255).all()


def test_fog_keeps_black_images_black_and_never_exceeds_the_brightest_value():
    images = torch.from_numpy(reference.scenes(8, 32, 32))
    images[0] = 0
    images[1] = 77
    for severity in catalogue.SEVERITIES:
        found = generated("fog", severity, images)
        assert (found[0] == 0).all()
        assert (found.amax((1, 2, 3)) <= images.amax((1, 2, 3))).all()


def test_fog_of_a_larger_rectangle_is_cut_from_the_next_power_of_two():
    size = (40, 100, 1)
    draws = catalogue.draws("fog", 1, size, catalogue.Keys(0, torch.arange(2)))
    assert draws["height"].shape == (2, 128, 128)
    mist = weather.fractal(draws["height"], 3.0)
    assert (mist.amin((1, 2)) == 0).all() and (mist.amax((1, 2)) == 1).all()
    one = torch.full((2, *size), 255, dtype=torch.uint8)
    found = weather.fog(one, (1.0, 3.0), draws)
    assert torch.equal(found[..., 0], ((1 + mist[:, :40, :100]) / 2 * 255).to(torch.uint8))


def test_snow_lies_upright_and_turned():
    black = torch.zeros(6, 24, 32, 3, dtype=torch.uint8)
    found = generated("snow", 3, black)
    assert torch.equal(found, found.flip(1, 2)) and found.amax() > 100
    assert torch.equal(found[..., 0], found[..., 1]) and torch.equal(found[..., 0], found[..., 2])


def test_channels_keep_their_order():
    images = torch.zeros(20, 32, 32, 3, dtype=torch.uint8)
    images[..., 0], images[..., 1], images[..., 2] = 40, 90, 150
    for name in NAMES:
        assert generated(name, 2, images).double().mean((0, 1, 2)).argsort().tolist() == [0, 1, 2], name
    frosted = generated("frost_procedural", 5, images * 0).double().mean((0, 1, 2))
    assert frosted[0] < frosted[1] < frosted[2]  # frost is bluish


@pytest.mark.parametrize("name", ["fog", "brightness"])
def test_weather_grows_with_severity_on_digits_and_at_32_px(name):
    for images in (reference.digits(), reference.digits()[:20], torch.from_numpy(reference.scenes(64, 32, 32))):
        cells.check_growth(name, images)
