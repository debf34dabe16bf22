from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mixcli.errors import UserError
from mixcli.methods import supervised, synermix
from mixcli.mix import Batch, Context
from mixcli.nets.staged import StagedNet
from mixcli.sampling import Random
from mixcli.settings import CutMix, Manifold, MixUp, NoMixing, SynerMix, SynerMixIntra
from tests import fakes


def run(settings: SynerMix, net: StagedNet | None = None, batch: Batch | None = None, added: int = 0):
    base = fakes.context()
    context = Context(base.size, base.labels, base.classes, added, base.stages)
    plan = synermix.plan(settings, context, Random(0, "mix"))
    net = net or fakes.net()
    return synermix.loss(settings, net, batch or fakes.batch(settings), plan), plan, net


def updates(net: StagedNet) -> int:
    return int(net.stages["stem"][1].num_batches_tracked)


def test_the_total_is_beta_intra_plus_the_rest_inter():
    losses, _, _ = run(SynerMix(beta=0.3))
    parts = losses.parts
    assert torch.allclose(losses.total, 0.3 * parts["intra"] + 0.7 * parts["inter"], atol=1e-6)


def test_beta_zero_is_the_inter_loss_and_beta_one_the_intra_loss_bit_for_bit():
    batch = fakes.batch(SynerMix())
    losses, plan, net = run(SynerMix(beta=0), batch=batch)
    inter = supervised.loss(MixUp(), fakes.net(), batch, plan.inter)
    assert torch.equal(losses.total, inter.total)
    losses.total.backward()
    twin = fakes.net()
    supervised.loss(MixUp(), twin, batch, plan.inter).total.backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(net.parameters(), twin.parameters(), strict=True))
    only, plan, _ = run(SynerMix(beta=1), batch=batch)
    assert torch.equal(only.total, only.parts["intra"]) and "inter" not in only.parts


def test_the_intra_loss_equals_a_loop_over_classes():
    settings = SynerMix(beta=1)
    losses, plan, net = run(settings, net=fakes.net().eval())
    f = net.features(fakes.batch(settings).views["intra"])
    each = []
    for c in np.unique(fakes.labels(8)):
        a, b = int(plan.blend.starts[c]), int(plan.blend.starts[c + 1])
        members, weights = plan.blend.member[a:b], plan.blend.weight[a:b].float()
        z = (weights[:, None] * f[members]).sum(0)
        each.append(nn.functional.cross_entropy(net.head(z[None]), torch.tensor([int(c)])))
    assert torch.allclose(losses.total, torch.stack(each).mean(), atol=1e-6)


@pytest.mark.parametrize(("clean_bn", "count"), [("two_pass", 2), ("joint", 1), ("frozen", 1)])
@pytest.mark.parametrize("inter", [MixUp(), Manifold(), CutMix(), NoMixing()], ids=lambda m: m.name)
def test_ledger_25_batchnorm_moves_as_often_as_the_option_says(clean_bn, count, inter):
    losses, _, net = run(SynerMix(clean_bn=clean_bn, inter=inter))
    assert updates(net) == count and losses.total.isfinite()
    assert all(m.training for m in net.modules())


def test_the_clean_pass_is_skipped_at_beta_zero_unless_asked_for():
    assert updates(run(SynerMix(beta=0))[2]) == 1
    losses, _, net = run(SynerMix(beta=0, clean_pass="always"))
    assert updates(net) == 2
    assert torch.equal(losses.total, run(SynerMix(beta=0))[0].total)


def test_running_statistics_settle_at_the_computed_mixture():
    """Momentum 0.1, clean statistics 0 and mixed ones 1: after many steps the running mean is 1 / (2 - 0.1)."""
    norm = nn.BatchNorm1d(1)
    for _ in range(200):
        norm(torch.zeros(2, 1)), norm(torch.ones(2, 1))
    assert abs(float(norm.running_mean) - 1 / 1.9) < 1e-3


def test_without_batchnorm_one_pass_equals_two():
    def plain():
        torch.manual_seed(0)
        stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        return StagedNet({"stem": stem, "layer1": nn.Conv2d(4, 4, 3), "layer2": nn.ReLU()}, nn.Linear(4, fakes.CLASSES))

    base = plain().sizes(3, 8, 8)
    found = []
    for clean_bn in ("two_pass", "joint", "frozen"):
        settings = SynerMix(clean_bn=clean_bn, inter=Manifold(stages=("layer1",)))
        context = Context((8, 8, 8), fakes.labels(8), fakes.CLASSES, 0, base)
        plan = synermix.plan(settings, context, Random(0, "mix"))
        found.append(synermix.loss(settings, plain(), fakes.batch(settings), plan).total)
    assert torch.allclose(found[0], found[1], atol=1e-6) and torch.equal(found[0], found[2])


def test_frozen_still_trains_scale_and_shift_of_the_clean_pass():
    losses, _, net = run(SynerMix(beta=1, clean_bn="frozen"))
    losses.total.backward()
    norm = net.stages["stem"][1]
    assert norm.weight.grad.abs().max() > 0 and updates(net) == 0


def test_the_log_counts_classes_supplements_and_the_share_with_two_images_before_them():
    labels = fakes.labels(8)
    parts = run(SynerMix(), added=3)[0].parts
    drawn = np.bincount(labels[:5])
    assert parts["added"] == 3 and parts["classes"] == np.count_nonzero(drawn)
    assert torch.allclose(parts["eligible"], torch.tensor((drawn > 1).sum() / np.count_nonzero(drawn)).float())


def test_views_and_supplements_are_what_the_options_need():
    assert synermix.needs(SynerMix()).views == {"intra": 0.0} and synermix.needs(SynerMix()).supplement == 2
    assert synermix.needs(SynerMix(intra_view="augmented", intra_degree=0.5)).views == {"intra": 0.5}
    assert synermix.needs(SynerMixIntra(intra_view="shared")).views == {}


def test_the_shared_view_is_the_inter_parts_own_images():
    settings = SynerMix(beta=1, intra_view="shared")
    batch = fakes.batch(settings)
    same = SynerMix(beta=1)
    with_view = Batch(batch.images, batch.labels, batch.classes, 0.0, {"intra": batch.images})
    assert torch.equal(run(settings, batch=batch)[0].total, run(same, batch=with_view)[0].total)


def test_labels_are_needed():
    with pytest.raises(ValueError, match="labels"):
        synermix.plan(SynerMix(), Context((4, 8, 8), None, 5), Random(0, "mix"))


def test_no_clean_view_is_made_that_no_pass_uses():
    assert synermix.needs(SynerMix(beta=0)).views == {}
    assert synermix.needs(SynerMix(beta=0, clean_pass="always")).views == {"intra": 0.0}


def test_an_unknown_stage_of_the_inter_part_is_told_under_its_own_name():
    settings = SynerMix(inter=Manifold(stages=("layer7",)))
    with pytest.raises(UserError) as caught:
        synermix.plan(settings, fakes.context(), Random(0, "mix"))
    assert caught.value.subject == "inter_stages"
