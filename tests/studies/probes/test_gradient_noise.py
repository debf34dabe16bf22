"""Gradient noise against blends whose covariance is known, and against what a net must not notice."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from mixcli.methods import synermix
from mixcli.mix import Batch, Context
from mixcli.mixing import class_blend
from mixcli.nets.building import build
from mixcli.nets.staged import StagedNet
from mixcli.sampling import Random
from mixcli.settings import MixUp, SynerMix
from mixcli.studies.probes.gradient_noise import _paired, _share_row, cosine, gradient, places, spread, undisturbed
from tests import fakes

WHOLE = {"total": slice(None)}


def blends(features: torch.Tensor, count: int, points: int = 1, weights: class_blend.Weights = "uniform"):
    """The gradient by theta of <theta, mean of the blends>: that mean itself, `count` times."""
    labels = np.zeros(len(features), np.int64)
    for draw in range(count):
        drawn = class_blend.draw(labels, 1, Random(0, "blends", draw), weights, points)
        yield (drawn.features(features) * drawn.shares[:, None]).sum(0)


def test_two_features_scatter_as_the_variance_of_a_normalised_uniform_says():
    """Var(u / (u + v)) = 3/4 - ln 2."""
    features = torch.randn(2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = spread(blends(features, 20_000), WHOLE)
    apart = float((features[0] - features[1]).square().sum())
    assert found.trace_cov["total"] == pytest.approx((0.75 - math.log(2)) * apart, rel=0.03)
    assert torch.allclose(found.mean, features.mean(0), atol=0.02)
    assert found.mean_sq["total"] == pytest.approx(float(features.mean(0).square().sum()), abs=0.02)


def test_twice_the_blends_halve_the_trace():
    features = torch.randn(5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one, two = (spread(blends(features, 4000, points), WHOLE).trace_cov["total"] for points in (1, 2))
    error = math.sqrt(2 * 2 / 4000) * 1.2  # of the quotient: of a variance of nearly normal draws, twice
    assert two / one == pytest.approx(0.5, abs=3 * 0.5 * error)


def test_nothing_scatters_where_the_draws_can_change_nothing():
    one = torch.randn(1, 4, generator=torch.Generator().manual_seed(2))
    assert spread(blends(one, 16), WHOLE).trace_cov["total"] == 0
    assert spread(blends(one.expand(5, -1), 16), WHOLE).trace_cov["total"] < 1e-12
    many = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))
    assert spread(blends(many, 16, weights="equal"), WHOLE).trace_cov["total"] == 0


def test_the_trace_is_that_of_the_covariance_matrix_and_survives_a_large_mean():
    rows = torch.randn(64, 9, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    cut = {"a": slice(0, 4), "b": slice(4, 9), "total": slice(None)}
    found = spread(rows, cut)
    exact = np.cov(rows.numpy(), rowvar=False)
    assert found.trace_cov == pytest.approx({"a": np.trace(exact[:4, :4]), "b": np.trace(exact[4:, 4:]),
                                             "total": np.trace(exact)})  # fmt: skip
    assert found.noise["total"] == found.trace_cov["total"] / found.mean_sq["total"] or math.isnan(found.noise["total"])
    shifted = spread((row.float() + 1e3 for row in rows), cut)
    assert shifted.trace_cov["total"] == pytest.approx(np.trace(exact), rel=1e-3)
    with pytest.raises(ValueError, match="one draw"):
        spread(rows[:1], cut)


# ------------------------------------------------------------------------------------------------------------- in a net


def case(settings: SynerMix) -> tuple[StagedNet, Batch, Context, synermix.Plan]:
    context = fakes.context()
    return fakes.net(), fakes.batch(settings), context, synermix.plan(settings, context, Random(0, "mix"))


def intra_noise(settings: SynerMix, labels: np.ndarray, images: torch.Tensor):
    net, base = fakes.net(), fakes.context()
    context = Context((len(labels), *base.size[1:]), labels, base.classes, 0, base.stages)
    batch = Batch(images, torch.from_numpy(labels), base.classes, 0.0, {"intra": images})
    plan = synermix.plan(settings, context, Random(0, "mix"))

    def draws():
        for r in range(12):
            drawn = synermix.redrawn(settings, plan, context, Random(0, "blends", r))
            yield gradient(net, synermix.part(settings, net, batch, drawn, "intra"))

    with undisturbed(net):
        return spread(draws(), places(net))


def test_the_blends_of_a_net_scatter_its_gradient_and_those_of_lone_or_equal_images_do_not():
    pairs, images = np.array([0, 0, 1, 1, 2, 2, 3, 4]), fakes.images()
    found = intra_noise(SynerMix(), pairs, images)
    assert found.trace_cov["total"] > 1e-3 * found.mean_sq["total"] > 0
    equal = images.clone()
    equal[[1, 3, 5]] = equal[[0, 2, 4]]
    for settings, labels, shown in ((SynerMix(), pairs, equal), (SynerMix(), np.arange(5), images[:5]),
                                    (SynerMix(weights="single"), pairs, images)):  # fmt: skip
        found = intra_noise(settings, labels, shown)
        assert found.trace_cov["total"] < 1e-9 * found.mean_sq["total"]


def test_the_parts_with_their_weights_are_the_loss():
    for settings in (SynerMix(beta=0.3), SynerMix(beta=0.3, clean_bn="joint"), SynerMix(beta=1), SynerMix(beta=0)):
        net, batch, _, plan = case(settings)
        weights = synermix.parts(settings)
        total = synermix.loss(settings, net, batch, plan).total
        named = {name: synermix.part(settings, net, batch, plan, name) for name in weights}
        assert torch.allclose(sum(weights[n] * v for n, v in named.items()), total, atol=1e-6)
        assert all(v.requires_grad for v in named.values()) and sum(weights.values()) == pytest.approx(1)


def test_the_interval_of_a_share_covers_that_of_known_draws():
    cut, generator, hit = {"total": slice(0, 3)}, torch.Generator().manual_seed(0), 0
    for _ in range(200):
        blends = [spread(torch.randn(16, 3, generator=generator), cut) for _ in range(16)]
        apart = []
        total = spread(_paired(iter(2 * torch.randn(64, 3, generator=generator)), cut, apart), cut)
        assert len(apart) == 32
        row = _share_row(blends, blends, total, apart, "total", 1.0)  # the truth is 1 / 4
        hit += row["share_blends_low"] <= 0.25 <= row["share_blends_high"]
    assert 180 <= hit <= 200


def test_a_redrawn_plan_with_the_same_key_is_the_plan_and_with_another_only_its_blends_differ():
    settings = SynerMix(inter=MixUp())
    _, _, context, plan = case(settings)
    same = synermix.redrawn(settings, plan, context, Random(0, "mix"))
    other = synermix.redrawn(settings, plan, context, Random(0, "mix", 1))
    assert torch.equal(same.blend.weight, plan.blend.weight) and not torch.equal(other.blend.weight, plan.blend.weight)
    assert other.inter is plan.inter


def test_averages_modes_and_gradients_are_left_as_they_were_also_after_an_error():
    net, batch, _, plan = case(SynerMix())
    net.eval()
    net.stages["stem"].train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    with undisturbed(net):
        gradient(net, synermix.part(SynerMix(), net, batch, plan, "intra"))
        assert int(net.stages["layer1"].state_dict()["bn1.num_batches_tracked"]) == 1
    with pytest.raises(RuntimeError), undisturbed(net):
        net.features(batch.images)
        raise RuntimeError
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert modes == [module.training for module in net.modules()] and all(p.grad is None for p in net.parameters())


def test_dropout_is_off_and_batchnorm_sees_the_batch():
    net = fakes.net()
    net.stages["stem"].append(nn.Dropout(0.5))
    x = fakes.images()
    with undisturbed(net):
        assert torch.equal(net(x), net(x)) and not torch.equal(net(x)[:2], net(x[:2]))


def test_the_places_of_a_gradient_are_its_stages_and_a_head_alone_moves_the_head_alone():
    net = fakes.net()
    cut = places(net)
    assert list(cut) == [*net.stages, "head", "total"]
    assert (
        cut["total"].stop == sum(p.numel() for p in net.parameters()) == len(gradient(net, net(fakes.images()).sum()))
    )
    head = gradient(net, net.head(torch.ones(1, net.head.in_features)).sum())
    assert float(head[cut["head"]].abs().sum()) > 0 and float(head[: cut["head"].start].abs().sum()) == 0


def test_the_cosine_of_a_part_with_itself_is_one_with_its_negative_minus_one_and_of_disjoint_stages_zero():
    net, batch, _, plan = case(SynerMix())
    cut = places(net)
    g = gradient(net, synermix.part(SynerMix(), net, batch, plan, "intra"))
    for scale, value in ((1.0, 1), (-1.0, -1), (0.1, 1), (0.9, 1)):
        assert cosine(g, scale * g, cut) == pytest.approx(dict.fromkeys(cut, value), abs=1e-6)
    first, last = torch.zeros_like(g), torch.zeros_like(g)
    first[cut["stem"]], last[cut["head"]] = 1, 1
    found = cosine(first, last, cut)
    assert found["total"] == 0 and math.isnan(found["layer1"])


def test_dropout_of_whole_branches_is_switched_off_too():
    net = build("torchvision:swin_t", 3, fakes.CLASSES, None, Random(0, "init"), size=(32, 32))
    with undisturbed(net), torch.no_grad():
        assert torch.equal(net(fakes.images(4, 32, 32)), net(fakes.images(4, 32, 32)))
    with torch.no_grad():
        assert not torch.equal(net.train()(fakes.images(4, 32, 32)), net(fakes.images(4, 32, 32)))
