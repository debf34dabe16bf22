from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mixcli.errors import UserError
from mixcli.methods import mixmatch, supervised
from mixcli.mix import Mix
from mixcli.mixing import blend
from mixcli.sampling import Random
from mixcli.settings import MixMatch, MixUp
from tests import fakes

B, U = 8, fakes.UNLABELLED


def planned(settings: MixMatch, step: int = 0):
    return mixmatch.plan(settings, fakes.context(), Random(0, "mix", step))


def run(settings: MixMatch, plan: mixmatch.Plan | None = None):
    learner = fakes.learner(settings)
    plan = plan or planned(settings)
    return learner(fakes.batch(settings), plan), plan, learner.net


def slow_loss(settings: MixMatch, plan: mixmatch.Plan) -> float:
    """METHODS 5.2, row by row."""
    batch, net = fakes.batch(settings), fakes.net()
    guesses = []
    views = torch.cat(batch.unlabelled)
    logits = net(views).detach()
    for i in range(U):
        each = [torch.softmax(logits[i + a * U], 0) for a in range(settings.augmentations)]
        q = sum(each) / len(each)
        powers = [float(p) ** (1 / settings.temperature) for p in q]
        guesses.append([p / sum(powers) for p in powers])
    rows = torch.cat([batch.images, views])
    labels = [[float(c == y) for c in range(fakes.CLASSES)] for y in batch.labels] + guesses * settings.augmentations
    ratio, source = plan.mix.ratio, plan.mix.source
    mixed, targets = [], []
    for i in range(len(rows)):
        pairs = [(float(ratio[k, i]), int(source[k, i])) for k in range(len(ratio))]
        mixed.append(sum(w * rows[j] for w, j in pairs))
        targets.append([sum(w * labels[j][c] for w, j in pairs) for c in range(fakes.CLASSES)])
    if settings.bn == "joint":
        found = net(torch.stack(mixed))
    else:
        found = interleaved_by_hand(net, mixed, settings.augmentations)
    found = found.detach() if settings.bn == "joint" else [row.detach() for row in found]
    entropy = [-sum(t * float(p) for t, p in zip(targets[i], found[i].log_softmax(0), strict=True)) for i in range(B)]
    squares = [
        (float(p) - t) ** 2 for i in range(B, len(rows)) for t, p in zip(targets[i], found[i].softmax(0), strict=True)
    ]
    return sum(entropy) / B + float(plan.weight) * sum(squares) / len(squares)


def interleaved_by_hand(net, mixed, augmentations):
    """Block k of A + 1 holds the k-th part of the labelled rows and of every view."""
    starts = [0, B, *[B + (a + 1) * U for a in range(augmentations)]]
    where = [np.array_split(np.arange(a, b), augmentations + 1) for a, b in zip(starts, starts[1:], strict=False)]
    found = [None] * len(mixed)
    for k in range(augmentations + 1):
        members = np.concatenate([parts[k] for parts in where])
        for i, row in zip(members, net(torch.stack([mixed[i] for i in members])), strict=True):
            found[i] = row
    return found


@pytest.mark.parametrize(
    "settings",
    [
        MixMatch(),
        MixMatch(ramp=0, points=4, concentration="total"),
        MixMatch(augmentations=3, temperature=1, per="batch", ramp=0),
        MixMatch(points=1, ramp=0),
        MixMatch(bn="interleave", ramp=0),
    ],
    ids=fakes.label,
)
def test_the_loss_equals_a_slow_reference(settings):
    losses, plan, _ = run(settings)
    assert losses.total.item() == pytest.approx(slow_loss(settings, plan), rel=2e-5)


def test_sharpening_by_hand_and_a_temperature_of_one_keeps_the_guess():
    rows = torch.tensor([[0.5, 0.3, 0.2]])
    assert torch.allclose(mixmatch.sharpened(rows, 0.5), torch.tensor([[0.658, 0.237, 0.105]]), atol=5e-4)
    assert torch.allclose(mixmatch.sharpened(rows, 1), rows, atol=1e-7)


def test_the_mean_ratio_at_alpha_three_quarters_is_the_computed_one_and_none_is_below_a_half():
    context = replace(fakes.context(), unlabelled=10_000)
    ratio = mixmatch.plan(MixMatch(), context, Random(0, "mix")).mix.ratio[0]
    assert float(ratio.mean()) == pytest.approx(0.778, abs=0.004)
    assert float(ratio.min()) >= 0.5


def test_partners_come_from_all_rows():
    plan = planned(MixMatch())
    assert torch.equal(plan.mix.source[1].sort().values, torch.arange(B + 2 * U))
    assert (plan.mix.source[1][:B] >= B).any()


def test_a_weight_of_zero_is_mixup_over_the_labelled_rows_with_partners_from_all():
    settings = MixMatch(unlabelled_weight=0)
    losses, plan, _ = run(settings)
    batch, net = fakes.batch(settings), fakes.net()
    views = net(torch.cat(batch.unlabelled)).detach().softmax(1).chunk(2)
    guess = mixmatch.sharpened((views[0] + views[1]) / 2, settings.temperature)
    rows = torch.cat([batch.images, *batch.unlabelled])
    targets = torch.cat([batch.targets(), guess, guess])
    logits = net(plan.mix.images(rows))[:B]
    expected = supervised.cross_entropy(logits, plan.mix.targets(targets, fakes.CLASSES)[:B]).mean()
    assert torch.allclose(losses.total, expected, atol=1e-6)
    assert torch.equal(losses.total, losses.parts["supervised"])


def test_two_points_as_weights_equal_the_pair():
    settings = MixMatch(ramp=0)
    plan = planned(settings)
    keep = plan.mix.keep[None]
    many = Mix(plan.mix.source, weight=torch.cat([keep, 1 - keep]), drawn=plan.mix.drawn, notes=plan.mix.notes)
    assert torch.allclose(run(settings)[0].total, run(settings, replace(plan, mix=many))[0].total, rtol=1e-5)


def test_one_point_leaves_unlabelled_rows_as_they_are():
    mix = planned(MixMatch(points=1)).mix
    rows = torch.randn(B + 2 * U, 3, 8, 8)
    assert torch.equal(mix.images(rows)[B:], rows[B:]) and not torch.equal(mix.images(rows)[:B], rows[:B])
    own = blend.folded(blend.draw(MixUp(alpha=0.75, per="sample"), fakes.context().of(B + 2 * U), Random(0, "mix")))
    assert torch.equal(mix.keep[:B], own.keep[:B])


@pytest.mark.parametrize("settings", [MixMatch(), MixMatch(bn="interleave")], ids=fakes.label)
def test_ledger_25_the_guess_moves_no_statistics_and_the_losses_move_them_once(settings):
    _, _, net = run(settings)
    assert int(net.stages["stem"][1].num_batches_tracked) == 1
    assert all(m.training and getattr(m, "track_running_stats", True) for m in net.modules())


def test_the_guess_carries_no_gradient():
    settings = MixMatch()
    batch, net = fakes.batch(settings), fakes.net()
    guess = mixmatch._guessed(net, list(batch.unlabelled))
    assert not guess.requires_grad and torch.allclose(guess.sum(1), torch.ones(U), atol=1e-6)


def test_the_linear_ramp_takes_a_64th_of_training_unless_told():
    assert MixMatch().weight_at(0, 64) == 0 and MixMatch().weight_at(0.5, 64) == 37.5
    assert MixMatch().weight_at(1, 64) == 75 == MixMatch().weight_at(60, 64)


def test_pairing_by_class_is_refused():
    with pytest.raises(UserError, match="needs labels"):
        MixMatch(pairing="different-class")
