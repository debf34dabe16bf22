from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from scipy import stats

from mixcli.corruptions import keyed
from mixcli.corruptions.keyed import Keys, splitmix

MASK = 2**64 - 1


def finalised(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def stream(images=range(4), seed=0, corruption="fog", severity=3):
    return Keys(seed, torch.tensor(list(images))).stream(corruption, severity)


def unsigned(words: torch.Tensor) -> list[list[int]]:
    return [[word & MASK for word in row] for row in words.tolist()]


def test_words_are_those_of_splitmix64():
    assert unsigned(splitmix(torch.tensor([0]), 3)) == [[0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]]


def test_words_equal_a_loop_over_integers():
    for seed in (0, 7, 2**40):
        name = repr((keyed.GENERATOR_VERSION, seed, "snow", 2, "flakes")).encode()
        cell = int.from_bytes(hashlib.sha256(name).digest()[:8], "little")
        images = [0, 1, 9_999, 2**33]
        keys = [finalised((cell + image) & MASK) for image in images]
        expected = [[finalised((key + (i + 1) * 0x9E3779B97F4A7C15) & MASK) for i in range(5)] for key in keys]
        assert unsigned(stream(images, seed, "snow", 2).words("flakes", 5)) == expected


def test_numbers_are_cut_out_of_words_as_described():
    s = stream()
    words = unsigned(s.words("a", 3))
    for row, (first, second, third) in enumerate(words):
        assert s.uniform("a", (3,))[row].tolist() == [(w >> 11) / 2**53 for w in (first, second, third)]
        halves = [first & 0xFFFFFFFF, first >> 32, second & 0xFFFFFFFF, second >> 32, third & 0xFFFFFFFF]
        assert s.uniform24("a", (5,))[row].tolist() == [(h >> 8) / 2**24 for h in halves]
        assert s.integers("a", (5,), -3, 4)[row].tolist() == [(h * 7 >> 32) - 3 for h in halves]
        quarters = [w >> shift & 0xFFFF for w in (first, second, third) for shift in (0, 16, 32, 48)]
        assert s.levels("a", (3, 3), 14)[row].flatten().tolist() == [q >> 2 for q in quarters[:9]]


DRAWS = {
    "uniform": lambda s: s.uniform("x", (2, 3), -45, 45),
    "uniform24": lambda s: s.uniform24("x", (5, 7)),
    "integers": lambda s: s.integers("x", (3, 3), -2, 2),
    "levels": lambda s: s.levels("x", (5,), 14),
    "normal": lambda s: s.normal("x", (3, 5, 1)),
}


@pytest.mark.parametrize("law", DRAWS)
def test_an_images_draws_do_not_depend_on_its_batch(law):
    draw, whole = DRAWS[law], DRAWS[law](stream(range(100)))
    assert torch.equal(draw(stream(range(99, -1, -1))).flip(0), whole)
    assert torch.equal(draw(stream(range(0, 100, 3))), whole[::3])
    assert torch.equal(torch.cat([draw(stream(range(i, min(i + 7, 100)))) for i in range(0, 100, 7)]), whole)


def test_seed_corruption_severity_name_and_image_all_change_the_words():
    streams = [stream(seed=1), stream(corruption="frost"), stream(severity=4), stream(range(4, 8)), stream()]
    words = torch.cat([s.words("x", 50) for s in streams] + [stream().words("y", 50)])
    assert words.unique().numel() == words.numel()


def test_normals_follow_the_normal_law():
    drawn = stream(range(100)).normal("x", (2000,)).double().numpy().ravel()
    assert stats.kstest(drawn, "norm").pvalue > 0.01
    table = keyed._quantiles(torch.device("cpu")).double()
    assert abs(table.std(unbiased=False) - 1) < 1e-6 and abs(table.mean()) < 1e-6
    assert torch.allclose(table, -table.flip(0), atol=1e-6) and 4 < table.max() < 4.5


def test_uniforms_are_uniform_and_integers_are_equally_frequent():
    s = stream(range(100))
    for drawn in (s.uniform("x", (2000,)), s.uniform24("y", (2000,))):
        assert drawn.min() >= 0 and drawn.max() < 1
        assert stats.kstest(drawn.double().numpy().ravel(), "uniform").pvalue > 0.01
    for drawn in (s.integers("z", (2000,), -2, 2) + 2, s.levels("w", (2000,), 3)):
        assert stats.chisquare(torch.bincount(drawn.flatten()).numpy()).pvalue > 0.01


def test_neighbouring_images_and_neighbouring_values_are_uncorrelated():
    drawn = stream(range(500)).normal("x", (400,)).numpy()
    limit = 4 / np.sqrt(500 * 400)
    assert abs((drawn[1:] * drawn[:-1]).mean()) < limit
    for lag in (1, 2, 3, 4, 8):
        assert abs((drawn[:, lag:] * drawn[:, :-lag]).mean()) < limit


def test_no_global_generator_is_read_or_moved():
    before = torch.random.get_rng_state()
    first = stream().normal("x", (5,))
    torch.manual_seed(5)
    assert torch.equal(first, stream().normal("x", (5,)))
    torch.random.set_rng_state(before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("law", DRAWS)
def test_draws_are_bit_equal_on_cuda(law):
    here = DRAWS[law](stream(range(20)))
    there = DRAWS[law](Keys(0, torch.arange(20, device="cuda")).stream("fog", 3))
    assert torch.equal(there.cpu(), here)
