from __future__ import annotations

from collections import Counter

import pytest
import torch

from mixcli.errors import UserError
from mixcli.methods import manifold, regmixup, supervised
from mixcli.methods.supervised import cross_entropy
from mixcli.sampling import Random
from mixcli.settings import CutMix, FMix, Manifold, MixUp, RegMixUp
from tests import fakes

STAGES = ["input", "stem", "layer1", "layer2", "layer3"]


def plan_at(stage: str, settings: Manifold | None = None, step: int = 0):
    settings = settings or Manifold()
    settings = settings.model_copy(update={"stages": (stage,)})
    return manifold.plan(settings, fakes.context(), Random(0, "mix", step))


@pytest.mark.parametrize("stage", STAGES)
def test_ledger_21_each_stage_equals_a_hand_written_forward(stage):
    net, batch, plan = fakes.net(), fakes.batch(Manifold()), plan_at(stage)
    found = manifold.loss(Manifold(), net, batch, plan).total
    twin = fakes.net()
    x, keep, partner = batch.images, plan.mix.keep, plan.mix.source[1]
    for name in STAGES:
        x = x if name == "input" else twin.stages[name](x)
        if name == stage:
            x = keep * x + (1 - keep) * x[partner]
    logits = twin.head(x.mean((2, 3)))
    assert torch.allclose(found, cross_entropy(logits, batch.targets(plan.mix)).mean(), atol=1e-6)


def test_input_only_equals_mixup_bit_for_bit():
    context, batch = fakes.context(), fakes.batch(MixUp())
    hidden = manifold.plan(Manifold(alpha=1.0, stages=("input",)), context, Random(0, "mix"))
    plain = supervised.plan(MixUp(alpha=1.0), context, Random(0, "mix"))
    one = manifold.loss(Manifold(), fakes.net(), batch, hidden).total
    assert torch.equal(one, supervised.loss(MixUp(), fakes.net(), batch, plain).total)


def test_ledger_22_each_default_stage_is_drawn_a_third_of_the_time():
    context = fakes.context()
    drawn = Counter(manifold.plan(Manifold(), context, Random(0, "mix", step)).stage for step in range(3000))
    assert set(drawn) == {"input", "layer1", "layer2"}
    assert all(abs(count / 3000 - 1 / 3) < 0.03 for count in drawn.values())


def test_ledger_22_a_stage_named_twice_is_drawn_twice_as_often():
    """As SynerMix's code draws on some nets, where an index off by one mixes the input in place of a stage."""
    settings, context = Manifold(stages=("input", "input", "layer1", "layer2")), fakes.context()
    drawn = Counter(manifold.plan(settings, context, Random(0, "mix", step)).stage for step in range(3000))
    shares = {"input": 1 / 2, "layer1": 1 / 4, "layer2": 1 / 4}
    assert all(abs(drawn[stage] / 3000 - share) < 0.03 for stage, share in shares.items())


def test_the_stage_is_equal_on_all_ranks_and_the_pairing_is_not():
    context = fakes.context(16)
    plans = [[manifold.plan(Manifold(), context, Random(0, "mix", s, rank=r)) for r in (0, 1)] for s in range(20)]
    assert all(a.stage == b.stage for a, b in plans)
    assert any(not torch.equal(a.mix.source, b.mix.source) for a, b in plans)


@pytest.mark.parametrize("stage", STAGES)
def test_the_gradient_reaches_the_stem_and_constant_features_stay(stage):
    net, plan = fakes.net(), plan_at(stage)
    manifold.loss(Manifold(), net, fakes.batch(Manifold()), plan).total.backward()
    assert net.stages["stem"][0].weight.grad.abs().max() > 0
    h = torch.full((8, 4, 8, 8), 0.3)
    assert torch.equal(plan.mix.images(h), h)


@pytest.mark.parametrize("stage", STAGES)
def test_a_mask_is_drawn_at_the_size_of_its_stage(stage):
    plan = plan_at(stage, Manifold(inter=CutMix()))
    assert plan.mix.keep.shape[-2:] == fakes.context().stages[stage]
    manifold.loss(Manifold(inter=CutMix()), fakes.net(), fakes.batch(Manifold()), plan)


def test_a_plan_of_another_size_raises_naming_both_sizes():
    plan = plan_at("layer3", Manifold(inter=CutMix()))
    wrong = supervised.Plan(plan.mix, "stem")
    with pytest.raises(ValueError, match=r"\(2, 2\).*8, 8"):
        manifold.loss(Manifold(), fakes.net(), fakes.batch(Manifold()), wrong)


def test_an_unknown_stage_is_named_beside_the_known_ones():
    with pytest.raises(UserError, match="layer7") as caught:
        plan_at("layer7")
    assert caught.value.subject == "stages" and "layer3" in str(caught.value)


@pytest.mark.parametrize(("module", "settings"), [(manifold, Manifold), (regmixup, RegMixUp)])
def test_what_the_mixing_inside_refuses_is_named_with_its_key(module, settings):
    inside = settings(inter=FMix(variant="reference"))
    with pytest.raises(UserError) as caught:
        module.plan(inside, fakes.context(4, 8, 9), Random(0, "mix"))
    assert caught.value.subject == "inter_variant"
