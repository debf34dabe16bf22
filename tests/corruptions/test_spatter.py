from __future__ import annotations

import heapq

import numpy as np
import pytest
import torch
from scipy import ndimage

from mixcli.corruptions import catalogue, spatter
from mixcli.corruptions.parameters import PARAMETERS
from tests.corruptions import cells, reference
from tests.corruptions.cells import drawn, generated

# Slow oracles: one image at a time; a stack of edge pixels, a queue of distances, scipy for filters


def slow_spatter(image, parameters, random):
    mean, deviation, sigma, threshold, strength, mud = parameters
    layer = ndimage.gaussian_filter(
        mean + deviation * random["normal"].astype(float), sigma, mode="nearest", truncate=4
    )
    layer[layer < threshold] = 0
    values = image.astype(np.float32) / np.float32(255)
    colour = np.array((63, 42, 20) if mud else (175, 238, 238), np.float32) / np.float32(255)
    if mud:
        share = ndimage.gaussian_filter((layer > threshold).astype(float), strength, mode="nearest", truncate=4)
        share = np.where(share < 0.8, 0, share).astype(np.float32)[..., None]
        mixed = values * (1 - share) + colour * share
    else:
        height = slow_relief((layer * 255 + 2.0**-31).astype(int) % 256)[..., None]
        if height.max() == 0:
            return image
        share = height.astype(np.float32) / np.float32(height.max()) * np.float32(strength)
        mixed = values + share * colour
    return (np.clip(mixed, 0, 1) * np.float32(255)).astype(np.uint8)


def slow_relief(layer):
    far = slow_distance(slow_edges(layer))
    thick = ndimage.correlate(far, np.ones((3, 3), np.int64), mode="mirror") // (9 * 65536)
    lit = ndimage.correlate(slow_equalised(thick), np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]), mode="mirror")
    soft = ndimage.correlate(lit.clip(0, 255), np.ones((3, 3), np.int64), mode="mirror")
    return layer * np.rint(soft / 9).astype(int)


def slow_edges(layer):
    height, width = layer.shape
    smooth, slope = np.array([1, 2, 1]), np.array([-1, 0, 1])
    across = ndimage.correlate(layer, np.outer(smooth, slope), mode="nearest")
    down = ndimage.correlate(layer, np.outer(slope, smooth), mode="nearest")
    size = np.pad(np.abs(across) + np.abs(down), 1)
    thin = np.zeros((height, width), bool)
    for y, x in np.ndindex(height, width):
        gx, gy = int(across[y, x]), int(down[y, x])
        if abs(gy) << 15 < abs(gx) * 13573:
            before, after, ties = (0, -1), (0, 1), True
        elif abs(gy) << 15 > abs(gx) * 13573 + (abs(gx) << 16):
            before, after, ties = (-1, 0), (1, 0), True
        else:
            side = -1 if gx * gy < 0 or (gx == 0 and gy < 0) or (gy == 0 and gx < 0) else 1
            before, after, ties = (-1, -side), (1, side), False
        here = size[y + 1, x + 1]
        first, second = (size[y + 1 + dy, x + 1 + dx] for dy, dx in (before, after))
        thin[y, x] = here > 50 and here > first and (here >= second if ties else here > second)
    edges = thin & (size[1:-1, 1:-1] > 150)
    stack = list(zip(*edges.nonzero(), strict=True))
    while stack:
        y, x = stack.pop()
        for near in ((y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
            if 0 <= near[0] < height and 0 <= near[1] < width and thin[near] and not edges[near]:
                edges[near] = True
                stack.append(near)
    return edges


LENGTHS = {(0, 1): 65536, (1, 1): 91750, (1, 2): 143976}
STEPS = [(dy, dx, LENGTHS[min(abs(dy), abs(dx)), max(abs(dy), abs(dx))]) for dy in range(-2, 3) for dx in range(-2, 3)
         if (min(abs(dy), abs(dx)), max(abs(dy), abs(dx))) in LENGTHS]  # fmt: skip


def slow_distance(edges):
    height, width = edges.shape
    far = np.full(edges.shape, 20 * 65536)
    queue = [(0, int(y), int(x)) for y, x in zip(*edges.nonzero(), strict=True)]
    far[edges] = 0
    while queue:
        length, y, x = heapq.heappop(queue)
        if length > far[y, x]:
            continue
        for dy, dx, step in STEPS:
            near = y + dy, x + dx
            if 0 <= near[0] < height and 0 <= near[1] < width and length + step < far[near]:
                far[near] = length + step
                heapq.heappush(queue, (length + step, *near))
    return far


def slow_equalised(values):
    counts = np.bincount(values.ravel(), minlength=256)
    darkest = int(values.min())
    if counts[darkest] == values.size:
        return values
    scale = np.float32(255) / np.float32(values.size - counts[darkest])
    table, passed = {darkest: 0}, 0
    for grey in range(darkest + 1, 256):
        passed += counts[grey]
        table[grey] = int(np.rint(np.float32(passed) * scale))
    return np.vectorize(table.get)(values)


@pytest.mark.parametrize("shape", [(8, 32, 32, 3), (3, 19, 33, 3), (2, 64, 64, 3)], ids=str)
def test_spatter_equals_the_slow_loop(shape):
    cells.check_against_the_loop(slow_spatter, "spatter", shape)


def test_spatter_equals_the_slow_loop_at_150_px():
    cells.check_against_the_loop(slow_spatter, "spatter", (1, 150, 130, 3), (1, 3, 5))


@pytest.mark.stress
@pytest.mark.parametrize("shape", [(64, 32, 32, 3), (64, 19, 33, 3), (64, 64, 64, 3)], ids=str)
def test_spatter_equals_the_slow_loop_on_64_images(shape):
    cells.check_against_the_loop(slow_spatter, "spatter", shape)


def injected(name, parameters, severity, shape):
    mean, deviation, *_ = parameters
    generators = [reference.legacy(name, severity, index) for index in range(shape[0])]
    fields = np.stack([g.normal(size=shape[1:3], loc=mean, scale=deviation) for g in generators])
    return {"normal": (torch.from_numpy(fields) - mean) / deviation}


@reference.needs_outputs
@pytest.mark.parametrize("side", reference.SIDES)
def test_with_the_references_draws_bytes_are_the_references(side):
    clean = reference.clean(side)
    columns = enumerate(PARAMETERS["spatter"][str(side)], 1)
    draws = {severity: injected("spatter", parameters, severity, clean.shape) for severity, parameters in columns}
    cells.check_reference("spatter", clean, side, draws, 0.9999, 0.001)


@reference.needs_cifar
def test_keyed_spatter_has_the_references_statistics():
    cells.check_statistics("spatter", reference.cifar(1000), 0.02, 0.02, 0.02)


@reference.needs_cifar
def test_a_spatter_parameter_wrong_by_a_tenth_would_be_seen():
    clean = reference.cifar(1000)
    for severity in catalogue.SEVERITIES:
        wrong = list(PARAMETERS["spatter"]["32"][severity - 1])
        wrong[1 if wrong[5] else 4] *= 1.1  # mud: the deviation of the noise; water, which has a fixed peak: strength
        found = spatter.spatter(clean, tuple(wrong), drawn("spatter", severity, clean))
        distance = reference.distances(found, clean).mean() / reference.statistics("spatter", severity)["rmse_mean"]
        assert abs(distance - 1) > 0.02, (severity, distance)


# Laws and quirks


def test_an_empty_layer_leaves_the_image_clean_and_is_counted():
    images = torch.from_numpy(reference.scenes(4, 32, 32))
    for severity in catalogue.SEVERITIES:
        parameters = PARAMETERS["spatter"]["32"][severity - 1]
        draws = drawn("spatter", severity, images)
        draws["normal"][1], draws["normal"][3] = -5, 1000 / 255  # nothing, and a layer with no edge
        found = spatter.spatter(images, parameters, draws)
        empty = spatter.empty(parameters, draws)
        assert empty[1] and torch.equal(found[1], images[1])
        assert empty.tolist() == [bool(torch.equal(a, b)) for a, b in zip(found, images, strict=True)]


def test_chamfer_distance_of_one_point_is_the_queues_and_cut_at_20_px():
    edge = torch.zeros(3, 50, 41, dtype=torch.bool)
    edge[0, 7, 11] = edge[1, 0, 0] = edge[1, 49, 40] = True
    found = spatter.distance(edge).numpy()
    for one, expected in zip(found, edge.numpy(), strict=True):
        assert (one == slow_distance(expected)).all()
    assert (found[2] == 20 * 65536).all()


def test_edges_are_those_of_the_loop_on_any_picture():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 9, 7)).repeat(3, 1).repeat(3, 2)
    pictures = np.concatenate([rng.integers(0, 256, (12, 27, 21)), coarse, coarse // 3]).astype(np.uint8)
    found = spatter.edges(torch.from_numpy(pictures)).numpy()
    for picture, one in zip(pictures, found, strict=True):
        assert (one == slow_edges(picture.astype(int))).all()


def test_equalising_keeps_an_image_of_one_level_and_spreads_two():
    values = torch.tensor([[[7, 7], [7, 7]], [[3, 5], [5, 5]]], dtype=torch.int32)
    assert spatter.equalised(values, 21).tolist() == [[[7, 7], [7, 7]], [[0, 255], [255, 255]]]


def test_water_is_turquoise_and_mud_brown():
    images = torch.zeros(20, 32, 32, 3, dtype=torch.uint8)
    for severity in (1, 2, 3):
        red, green, blue = generated("spatter", severity, images).double().mean((0, 1, 2))
        assert green == blue and 0.70 < red / green < 0.76
    for severity in (4, 5):
        assert generated("spatter", severity, images).amax((0, 1, 2)).tolist() == [62, 41, 19]  # truncated
