from __future__ import annotations

import torch

from mixcli.methods import supervised
from mixcli.methods.supervised import Plan
from mixcli.mix import Batch, Mix
from mixcli.sampling import Random
from mixcli.settings import MixUp, NoMixing
from tests import fakes


def pair(ratio: list[float]) -> Mix:
    n = len(ratio)
    keep = torch.tensor(ratio).view(n, 1, 1, 1)
    return Mix(torch.stack([torch.arange(n), (torch.arange(n) + 1) % n]), keep=keep)


def test_ledger_2_weights_come_first_and_the_mean_last():
    logits = torch.tensor([[0.0, 9.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 4.0]])
    y, partners = torch.tensor([1, 2, 0]), torch.tensor([2, 0, 1])
    batch = Batch(torch.zeros(3, 1, 1, 1), y, 3)
    total = supervised.score(logits, batch, Plan(pair([0.1, 0.9, 0.5]))).total
    by_hand = 0.0
    for p, own, other, ratio in zip(logits.log_softmax(1), y, partners, [0.1, 0.9, 0.5], strict=True):
        by_hand += -(ratio * p[own] + (1 - ratio) * p[other]) / 3
    assert torch.allclose(total, by_hand)
    ce = torch.nn.functional.cross_entropy
    mean_first = 0.5 * ce(logits, y) + 0.5 * ce(logits, partners)
    assert not torch.allclose(total, mean_first, atol=0.01)


def test_soft_cross_entropy_and_its_gradient_are_the_weighted_sum_of_two():
    logits = torch.randn(6, 4, requires_grad=True)
    y, mix = torch.tensor([0, 1, 2, 3, 0, 1]), pair([0.3] * 6)
    batch = Batch(torch.zeros(6, 1, 1, 1), y, 4)
    total = supervised.score(logits, batch, Plan(mix)).total
    ce = torch.nn.functional.cross_entropy
    two = 0.3 * ce(logits, y) + 0.7 * ce(logits, y[mix.source[1]])
    assert torch.allclose(total, two, atol=1e-6)
    (one_grad,) = torch.autograd.grad(total, logits, retain_graph=True)
    (two_grad,) = torch.autograd.grad(two, logits)
    assert torch.allclose(one_grad, two_grad, atol=1e-6)


def test_ledger_13_smoothing_is_applied_once_and_is_off_by_default():
    batch = Batch(torch.zeros(2, 1, 1, 1), torch.tensor([0, 1]), 10, smoothing=0.1)
    assert torch.allclose(batch.smoothed(batch.targets()).max(1).values, torch.tensor(0.91))
    assert torch.allclose(batch.smoothed(batch.targets(pair([1.0, 1.0]))).max(), torch.tensor(0.91))
    plain = Batch(torch.zeros(2, 1, 1, 1), torch.tensor([0, 1]), 10)
    assert plain.smoothed(plain.targets()).unique().tolist() == [0, 1]


def test_ledger_28_accuracy_on_mixed_images_is_weighted_by_their_shares():
    logits = torch.tensor([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    batch = Batch(torch.zeros(2, 1, 1, 1), torch.tensor([0, 2]), 3)
    parts = supervised.score(logits, batch, Plan(pair([0.75, 0.6]))).parts
    assert torch.allclose(parts["accuracy"], torch.tensor((0.75 + 0.0) / 2))


def test_binary_cross_entropy_is_the_mean_over_all_entries():
    logits, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    batch = Batch(torch.zeros(4, 1, 1, 1), y, 3)
    total = supervised.score(logits, batch, Plan(criterion="bce")).total
    p, t = logits.softmax(1), torch.nn.functional.one_hot(y, 3)
    assert torch.allclose(total, -(t * p.log() + (1 - t) * (1 - p).log()).mean())


def test_probability_zero_is_plain_training_bit_for_bit():
    context, batch = fakes.context(), fakes.batch(NoMixing())
    mixed = supervised.plan(MixUp(probability=0), context, Random(0, "mix"))
    one = supervised.loss(MixUp(), fakes.net(), batch, mixed).total
    two = supervised.loss(NoMixing(), fakes.net(), batch, Plan()).total
    assert torch.equal(one, two)
