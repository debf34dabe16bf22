from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import poisson

from mixcli.corruptions import catalogue, noise
from mixcli.corruptions.keyed import Keys
from mixcli.corruptions.parameters import PARAMETERS
from tests.corruptions import reference

NAMES = tuple(noise.CORRUPTIONS)
INJECTED = ("gaussian_noise", "shot_noise", "speckle_noise")  # the reference's impulses were never seeded
SIZES = [(8, 8, 8, 1), (8, 32, 32, 3), (4, 19, 33, 3), (4, 28, 28, 1), (2, 64, 64, 3)]


def drawn(name, severity, shape, seed=0):
    return catalogue.draws(name, severity, shape[1:], Keys(seed, torch.arange(shape[0])))


def generated(name, severity, images):
    return catalogue.corrupt(name, images, severity, drawn(name, severity, tuple(images.shape)))


# Slow oracles: one value at a time


def snapped(value: np.float32) -> int:
    return int(min(max(value * np.float32(255) + np.float32(2**-11), np.float32(0)), np.float32(255)))


def slow_gaussian(value, sigma, normal):
    return snapped(np.float32(value) / np.float32(255) + normal * np.float32(sigma))


def slow_speckle(value, sigma, normal):
    x = np.float32(value) / np.float32(255)
    return snapped(x + normal * np.float32(sigma) * x)


def slow_impulse(value, share, uniform):
    return 0 if uniform < share / 2 else 255 if uniform < share else value


def slow_shot(value, photons, level):
    mean, quantile, count = photons * float(value) / 255, (float(level) + 0.5) / 2**14, 0
    probability = total = np.exp(-mean)
    while total < quantile:
        count += 1
        probability *= mean / count
        total += probability
    return min(int(count / photons * 255 + 2**-20), 255)


SLOW = {"gaussian_noise": slow_gaussian, "speckle_noise": slow_speckle, "impulse_noise": slow_impulse,
        "shot_noise": slow_shot}  # fmt: skip


def check_against_the_loop(name, shape, severities):
    images = reference.scenes(*shape)
    for severity in severities:
        parameters = catalogue.parameters(name, severity, shape[1:])
        draws = drawn(name, severity, shape)
        (numbers,) = draws.values()
        found = catalogue.corrupt(name, torch.from_numpy(images), severity, draws).numpy()
        pairs = zip(images.flat, numbers.numpy().flat, strict=True)
        expected = np.array([SLOW[name](value, parameters, number) for value, number in pairs])
        assert (found.ravel() != expected).sum() == 0, (name, severity)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(8, 8, 8, 1), (1, 32, 32, 3), (1, 19, 33, 3)], ids=str)
def test_noise_equals_a_loop_over_values(name, shape):
    check_against_the_loop(name, shape, catalogue.SEVERITIES)


@pytest.mark.stress
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(64, 8, 8, 1), (64, 32, 32, 3), (64, 19, 33, 3), (64, 64, 64, 3)], ids=str)
def test_noise_equals_a_loop_over_values_of_64_images(name, shape):
    check_against_the_loop(name, shape, catalogue.SEVERITIES)


# The reference's outputs, its draws made again and injected


def injected(name, parameters, severity, clean):
    """The reference's draws for our interface, and where ours can hold them."""
    found, held = [], np.ones(clean.shape, bool)
    for index, image in enumerate(clean / 255):
        random = reference.legacy(name, severity, index)
        if name == "shot_noise":
            count = random.poisson(image * parameters)
            below, to = (poisson.cdf(n, image * parameters) * 2**14 for n in (count - 1, count))
            level = np.floor((below + to) / 2).clip(0, 2**14 - 1)
            held[index] = (below < level + 0.5) & (level + 0.5 < to)  # counts rarer than a quantile level are not
            found.append(level.astype(np.int32))
        else:
            found.append(random.normal(size=image.shape, scale=parameters) / parameters)
    return {"level" if name == "shot_noise" else "normal": torch.from_numpy(np.stack(found))}, held


@reference.needs_outputs
@pytest.mark.parametrize("side", reference.SIDES)
@pytest.mark.parametrize("name", INJECTED)
def test_with_the_references_draws_every_byte_is_the_references(name, side):
    clean = reference.clean(side)
    for severity in catalogue.SEVERITIES:
        draws, held = injected(name, PARAMETERS[name][str(side)][severity - 1], severity, clean)
        found = catalogue.corrupt(name, torch.from_numpy(clean), severity, draws)
        expected = reference.corrupted(side, name, severity)
        assert held.mean() > 0.9995
        assert (found.numpy()[held] == expected[held]).mean() > 0.99999, severity
        _, _, mean = reference.share_equal(found, expected)
        assert abs(mean) < 0.02


# Distributions


@reference.needs_cifar
@pytest.mark.parametrize("name", NAMES)
def test_keyed_noise_has_the_references_statistics(name):
    clean = reference.cifar(1000)
    for severity in catalogue.SEVERITIES:
        expected = reference.statistics(name, severity)
        found = generated(name, severity, clean)
        distance = reference.distances(found, clean)
        shift = (found.double() - clean.double()).mean((0, 1, 2))
        assert abs(distance.mean() / expected["rmse_mean"] - 1) < 0.01, severity
        assert abs(distance.std() / expected["rmse_sd"] - 1) < 0.1
        error = (2 / (1000 * 1024)) ** 0.5 * expected["rmse_mean"]  # of the difference of two such means
        assert np.abs(shift.numpy() - expected["mean_shift"]).max() < 4 * error + 0.01
        assert abs((found == 0).double().mean() - expected["share_0"]) < 0.001
        assert abs((found == 255).double().mean() - expected["share_255"]) < 0.001
        residual = (found.double() - clean.double()) - (found.double() - clean.double()).mean((1, 2), keepdim=True)
        rows = (residual[:, 1:] * residual[:, :-1]).mean() / residual.square().mean()
        columns = (residual[:, :, 1:] * residual[:, :, :-1]).mean() / residual.square().mean()
        assert abs(rows - expected["lag1_rows"]) < 0.02 and abs(columns - expected["lag1_columns"]) < 0.02


@reference.needs_cifar
def test_a_sigma_wrong_by_a_tenth_would_be_seen():
    clean = reference.cifar(1000)
    for name, wrong in (("gaussian_noise", noise.gaussian), ("speckle_noise", noise.speckle)):
        for severity in catalogue.SEVERITIES:
            sigma = 1.1 * PARAMETERS[name]["32"][severity - 1]
            found = wrong(clean, sigma, drawn(name, severity, tuple(clean.shape)))
            ratio = reference.distances(found, clean).mean() / reference.statistics(name, severity)["rmse_mean"]
            assert ratio > 1.05


def test_counts_of_impulses_are_binomial_half_of_them_black():
    images = torch.full((200, 32, 32, 3), 100, dtype=torch.uint8)
    for severity, share in enumerate(PARAMETERS["impulse_noise"]["32"], 1):
        found = generated("impulse_noise", severity, images)
        values = images[0].numel()
        hit = (found != 100).flatten(1).sum(1).double()
        assert abs(hit.mean() - values * share) < 4 * (values * share * (1 - share) / len(images)) ** 0.5
        assert abs(hit.var() / (values * share * (1 - share)) - 1) < 0.4
        black, white = (found == 0).sum(), (found == 255).sum()
        assert abs(black - white) < 4 * (black + white) ** 0.5 and black + white == hit.sum()


@pytest.mark.parametrize("photons", [500, 60, 3])
def test_shot_noise_has_the_mean_and_the_variance_of_photons(photons):
    table = noise._photographs(photons, torch.device("cpu")).view(256, -1).double()
    counts = np.arange(3000)
    shown = np.floor(np.minimum(counts / photons, 1) * 255 + 2**-20)
    for grey in (0, 1, 40, 128, 200, 255):
        law = poisson.pmf(counts, photons * grey / 255)
        mean = (law * shown).sum()
        deviation = (law * (shown - mean) ** 2).sum() ** 0.5
        assert abs(table[grey].mean() - mean) < 0.02
        assert abs(table[grey].std(unbiased=False) - deviation) <= 0.003 * deviation + 1e-12


def test_channels_are_drawn_apart_and_keep_their_order():
    images = torch.zeros(50, 32, 32, 3, dtype=torch.uint8)
    images[..., 0], images[..., 1], images[..., 2] = 60, 120, 180
    for name in NAMES:
        found = generated(name, 3, images).double()
        assert found.mean((0, 1, 2)).argsort().tolist() == [0, 1, 2]
        assert np.abs(np.corrcoef(found.reshape(-1, 3).T.numpy()) - np.eye(3)).max() < 0.03


@pytest.mark.parametrize("name", NAMES)
def test_noise_grows_with_severity_on_digits_and_at_32_px(name):
    for images in (reference.digits(), reference.digits()[:20], torch.from_numpy(reference.scenes(64, 32, 32))):
        distances = [
            (generated(name, severity, images).double() - images.double()).square().mean().sqrt()
            for severity in catalogue.SEVERITIES
        ]
        assert all(a < b for a, b in zip(distances, distances[1:], strict=False)), distances
