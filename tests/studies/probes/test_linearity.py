"""Deviation from linearity: known answers, laws, fair tuples, and the words that may be said."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from mixcli.sampling import Random
from mixcli.studies.probes import linearity
from mixcli.studies.probes.linearity import DIR1, Weights, intervals, measured, ratios, tuples, weights
from tests.studies.probes.probe_store import Scaled, Squared, net_of, points


def deviation(net, images, weights, site="a", tap="post", reduce="full"):
    """(numerator, || hbar ||, spread) of one tuple of all images, and its dev_norm and dev_spread."""
    rows = np.arange(len(images))[None]
    drawn = Weights(np.array(weights, np.float64)[None, None], ("w",))
    with torch.no_grad():
        found = measured(net, images, rows, drawn, ["input"], [site])
    sums = found.named(("input", site, tap, reduce), "w")
    return sums[:, 0], ratios(sums)


def every(net, images, points_=2, dtype=torch.float64, **more):
    """All readings of tuples of random images: key -> (3, T) of the row dir1."""
    rows = np.arange(len(images)).reshape(-1, points_)
    drawn = weights(len(rows), points_, Random(0, "w"))
    with torch.no_grad():
        found = measured(net.to(dtype), images.to(dtype), rows, drawn, ["input"], linearity.sites.sites(net), **more)
    return found


# -------------------------------------------------------------------------------------------------------- known answers


def test_relu_between_minus_one_and_one():
    net = net_of(nn.ReLU())
    _, (norm, spread) = deviation(net, points(-1, 1), (0.5, 0.5))
    assert norm == pytest.approx(1, abs=1e-15) and spread == pytest.approx(1, abs=1e-15)
    _, (norm, spread) = deviation(net, points(-1, 1), (0.25, 0.75))
    assert norm == pytest.approx(1 / 3, abs=1e-15) and spread == pytest.approx(1 / np.sqrt(3), abs=1e-15)


def test_the_square_deviates_by_the_weighted_variance():
    (numerator, _, _), _ = deviation(net_of(Squared()), points(0, 1, 3), (0.2, 0.3, 0.5))
    assert numerator == pytest.approx(1.56, abs=1e-14)


def test_scale_changes_neither_and_an_offset_dev_norm_alone():
    images = points(-1, 1)
    _, plain = deviation(net_of(nn.ReLU()), images, (0.5, 0.5))
    _, scaled = deviation(net_of(nn.Sequential(nn.ReLU(), Scaled(7, 0))), images, (0.5, 0.5))
    _, moved = deviation(net_of(nn.Sequential(nn.ReLU(), Scaled(1, 10))), images, (0.5, 0.5))
    assert scaled == pytest.approx(plain, abs=1e-15)
    assert moved[1] == pytest.approx(1, abs=1e-14) and moved[0] == pytest.approx(0.5 / 10.5, abs=1e-14)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_an_affine_net_is_linear_at_every_site_before_the_softmax(dtype, most):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6)
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2), norm.weight.data.normal_()
    net = net_of(nn.Sequential(nn.Conv2d(3, 6, 3), norm), nn.Conv2d(6, 5, 3, stride=2), channels=5, classes=4)
    for count in (2, 3):
        found = every(net, torch.randn(24, 3, 8, 8), count, dtype)
        for key in found.values:
            worst = max(ratios(found.named(key, name))[1] for name in set(found.names))
            assert (worst > 0.01) if key[1] == "softmax" else (worst <= most), key


def test_the_input_one_point_and_whole_weights_deviate_by_nothing():
    torch.manual_seed(0)
    net = net_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), channels=4)
    images = torch.randn(12, 3, 6, 6)
    found = every(net, images, dtype=torch.float32)
    assert max(ratios(found.named(("input", "input", "post", r), DIR1))[1] for r in ("full", "pool")) < 1e-6
    alone, _ = deviation(net.double(), images[:1].double(), (1.0,))
    assert alone[0] == 0
    for whole in ((1.0, 0.0), (0.0, 1.0)):
        sums, _ = deviation(net.float(), images[:2], whole)
        assert sums[0] <= 1e-6 * sums[1]


def test_a_relu_in_an_affine_net_adds_what_post_has_over_pre():
    torch.manual_seed(0)
    net = net_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)), channels=4)
    found = every(net, torch.randn(40, 3, 6, 6))
    before, after = (ratios(found.named(("input", "a", tap, "full"), DIR1))[1] for tap in ("pre", "post"))
    assert before < 1e-12 and after > 0.1


def test_the_curve_is_symmetric_within_its_interval():
    torch.manual_seed(0)
    net = net_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), channels=4)
    found = every(net, torch.randn(400, 3, 6, 6))
    counts = linearity.resamples(200, Random(0, "r"))
    for low, high in (("0.1", "0.9"), ("0.3", "0.7")):
        one, other = (found.named(("input", "a", "post", "full"), name) for name in (low, high))
        ends = intervals(one[None], counts)[0, 1]
        assert ends[0] <= ratios(other)[1] <= ends[1]


def test_the_spread_equals_its_definition_and_mixing_at_a_stage_reads_only_what_follows():
    torch.manual_seed(0)
    net = net_of(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU()), nn.Sequential(nn.Conv2d(4, 3, 3), nn.ReLU()), channels=3)
    images, share = torch.randn(3, 2, 8, 8).double(), np.array([0.2, 0.3, 0.5])
    with torch.no_grad():
        rows, drawn = np.arange(3)[None], Weights(share[None, None], ("w",))
        found = measured(net, images, rows, drawn, ["input", "a", "pooled"], linearity.sites.sites(net))
        h = net.features(images, stop="a")
        mean = (torch.from_numpy(share).view(3, 1, 1, 1) * h).sum(0)
        spread = sum(w * (x - mean).norm() ** 2 for w, x in zip(share, h, strict=True)) ** 0.5
        numerator = (net.features(mean[None], start="a", stop="b") - sum(
            w * x for w, x in zip(share, net.features(images, stop="b"), strict=True))).norm()  # fmt: skip
    assert found.values["input", "a", "post", "full"][2, 0, 0] == pytest.approx(float(spread), rel=1e-12)
    assert found.values["a", "b", "post", "full"][0, 0, 0] == pytest.approx(float(numerator), rel=1e-12)
    assert {site for start, site, *_ in found.values if start == "pooled"} == {"pooled", "logits", "softmax"}
    assert found.values["pooled", "logits", "post", "full"][0].max() < 1e-12


# --------------------------------------------------------------------------------------------------------------- tuples

DIGITS = np.repeat(np.arange(10), [36, 36, 35, 37, 36, 36, 36, 36, 36, 36])


@pytest.mark.parametrize(("points_", "group", "count"), [(2, "different", 180), (3, "different", 120)])
def test_digits_give_as_many_tuples_as_can_be(points_, group, count):
    assert len(tuples(DIGITS, points_, group, Random(0, "t"))) == count


@pytest.mark.parametrize("points_", [2, 3, 5, 8])
@pytest.mark.parametrize("sizes", [[36] * 10, [100, *[10] * 9], [1, 2, 3, 50, 60, 70, 80, 90], [4000] * 10])
def test_no_image_is_used_twice_and_classes_are_one_or_all_different(points_, sizes):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    for group in ("same", "different"):
        rows = tuples(labels, points_, group, Random(3, "t"))
        assert len(np.unique(rows)) == rows.size and len(rows) <= linearity.TUPLES
        kinds = [len(set(row)) for row in labels[rows].tolist()]
        assert set(kinds) <= {1 if group == "same" else points_}
        assert np.array_equal(rows, tuples(labels, points_, group, Random(3, "t")))
        if group == "same":
            used = np.bincount(labels[rows[:, 0]], minlength=len(sizes)) if len(rows) else np.zeros(len(sizes))
            room = np.array(sizes) // points_
            assert (
                len(rows) == min(linearity.TUPLES, room.sum()) and (used.max() - used[room > used]).max(initial=0) <= 1
            )


def test_every_pair_of_classes_meets():
    labels = np.repeat(np.arange(5), 80)
    pairs = {tuple(sorted(row)) for row in labels[tuples(labels, 2, "different", Random(0, "t"))].tolist()}
    assert len(pairs) == 10


# ------------------------------------------------------------------------------------------------------------ intervals


def test_the_interval_is_scipys_percentile_bootstrap_of_the_whole_ratio():
    rng = np.random.default_rng(0)
    sums = np.abs(rng.normal(1, 0.4, (3, 150)))
    ours = intervals(sums[None], linearity.resamples(150, Random(0, "r")))[0]
    for found, below in zip(ours, sums[1:], strict=True):
        theirs = stats.bootstrap((sums[0], below), lambda a, b, axis: a.mean(axis) / b.mean(axis), paired=True,
                                 n_resamples=4000, method="percentile", rng=1).confidence_interval  # fmt: skip
        assert found == pytest.approx([theirs.low, theirs.high], abs=0.15 * (theirs.high - theirs.low))


def test_below_thirty_tuples_there_is_no_interval():
    assert linearity.resamples(29, Random(0, "r")) is None and linearity.resamples(30, Random(0, "r")) is not None
    assert np.isnan(intervals(np.ones((1, 3, 29)), None)).all()


def test_a_collapsed_pair_does_not_dominate():
    sums = np.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [2.0, 2.0, 1e-12]])
    assert ratios(sums)[1] == pytest.approx(0.75, abs=1e-9)


# ---------------------------------------------------------------------------------------------------- statistics, words


def test_clean_batchnorm_statistics_are_those_of_the_images_and_the_net_stays_as_it_was():
    torch.manual_seed(0)
    net = net_of(nn.BatchNorm2d(3), channels=3).float()
    images = 3 + 2 * torch.randn(500, 3, 4, 4)
    with torch.no_grad():
        made = linearity.with_clean_batchnorm(net, images)
    assert torch.allclose(made.stages["a"].running_mean, images.mean((0, 2, 3)), atol=1e-5)
    assert not made.training and torch.equal(net.stages["a"].running_mean, torch.zeros(3))


def headline(spread, norm=None):
    sites = ("stem", "layer1", "layer2", "logits")
    norm = spread if norm is None else norm
    return {**{f"dev_spread.{s}": v for s, v in zip(sites, spread, strict=True)},
            **{f"dev_norm.{s}": v for s, v in zip(sites, norm, strict=True)}}  # fmt: skip


BASE = headline((1.0, 1.0, 1.0, 1.0))


def test_a_direction_is_seen_where_three_seeds_and_both_normalisations_agree():
    pairs = [(headline((0.9, 1.1, 0.9, 0.9)), BASE)] * 3
    assert linearity.verdict(pairs) == {"stem": -1, "layer1": 1, "layer2": -1, "logits": -1}
    text = "\n".join(linearity.direction("mixup against none", pairs))
    assert "(i) intermediate stages less linear: direction seen at layer1" in text
    assert "(ii) every site more linear: not seen" in text
    told = " ".join(linearity._no_test(pairs))
    assert "not a test: 3 of 3 alike has two-sided p = 0.25, and of 2 stages one agrees by luck in 23 %" in told


def test_one_seed_or_one_normalisation_apart_is_no_direction():
    apart = [
        (headline((1.1, 1.1, 1.1, 1.1), (1.1, 0.9, 1.1, 1.1)), BASE),
        *[(headline((1.1, 1.1, 0.9, 1.1)), BASE)] * 2,
    ]
    assert linearity.verdict(apart) == {"stem": 1, "layer1": 0, "layer2": 0, "logits": 1}
    text = "\n".join(linearity.direction("a against b", apart))
    assert "(i) intermediate stages less linear: not seen" in text
    two = "\n".join(linearity.direction("a against b", [(headline((0.9,) * 4), BASE)] * 2))
    assert "no verdict from 2 seeds, 3 are needed" in two and "direction seen" not in two
    three = "\n".join(linearity.direction("a against b", [(headline((0.9,) * 4), BASE)] * 3))
    assert "(ii) every site more linear: direction seen" in three


def test_three_free_stages_agree_by_luck_in_a_third_of_cases():
    assert linearity._luck(3, 3) == pytest.approx(0.33, abs=0.005)
