from __future__ import annotations

import pytest
import torch

from mixcli.methods import regmixup
from mixcli.methods.supervised import cross_entropy
from mixcli.sampling import Random
from mixcli.settings import RegMixUp
from tests import fakes


def losses(settings: RegMixUp, net=None):
    plan = regmixup.plan(settings, fakes.context(), Random(0, "mix"))
    return regmixup.loss(settings, net or fakes.net(), fakes.batch(settings), plan), plan


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_loss_is_the_two_losses_by_hand(reduction):
    settings = RegMixUp(eta=0.5, reduction=reduction)
    found, plan = losses(settings)
    batch = fakes.batch(settings)
    logits = fakes.net()(torch.cat([batch.images, plan.mix.images(batch.images)]))
    plain = cross_entropy(logits[:8], batch.targets()).mean()
    mixed = cross_entropy(logits[8:], batch.targets(plan.mix)).mean()
    expected = (plain + 0.5 * mixed) / (1.5 if reduction == "mean" else 1)
    assert torch.allclose(found.total, expected, atol=1e-6)


def test_probability_zero_gives_one_plus_eta_times_cross_entropy():
    found, _ = losses(RegMixUp(probability=0, eta=2.0))
    assert torch.allclose(found.total, 3 * found.parts["plain"], atol=1e-5)


def test_ledger_25_batchnorm_moves_once():
    net = fakes.net()
    losses(RegMixUp(), net)
    assert net.stages["stem"][1].num_batches_tracked == 1


@pytest.mark.parametrize(("alpha", "deviation"), [(20.0, 0.078), (10.0, 0.109)])
def test_keep_has_the_deviation_of_its_alpha(alpha, deviation):
    settings, context = RegMixUp(alpha=alpha, per="sample"), fakes.context(64)
    plans = [regmixup.plan(settings, context, Random(0, "mix", step)) for step in range(200)]
    assert abs(float(torch.cat([p.mix.drawn for p in plans]).std()) - deviation) < 0.003
