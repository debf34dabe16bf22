from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from mixcli.methods.supervised import cross_entropy
from mixcli.mixing import class_blend
from mixcli.sampling import Random

LABELS = np.array([4, 1, 1, 0, 4, 4, 6])
CLASSES = 8
each_law = pytest.mark.parametrize("weights", ["uniform", "dirichlet", "equal", "single"])


def drawn(weights="uniform", labels=LABELS, classes=CLASSES, step=0, **options):
    return class_blend.draw(labels, classes, Random(0, "mix", step), weights, **options)


def loop_loss(head, features, blend, labels):
    """A Python loop over classes, for the weights of a blend with one interpolation."""
    losses = []
    for c in np.unique(labels):
        mine = np.flatnonzero(labels == c)
        begin = int(blend.starts[c])
        order, weight = blend.member[begin : begin + len(mine)], blend.weight[begin : begin + len(mine)]
        assert sorted(order.tolist()) == mine.tolist() and abs(float(weight.sum()) - 1) < 1e-12
        z = sum(w.to(features.dtype) * features[i] for i, w in zip(order, weight, strict=True))
        losses.append(F.cross_entropy(head(z[None]), torch.tensor([c])))
    return torch.stack(losses).mean()


def vectorised_loss(head, features, blend, classes=CLASSES):
    rows = F.one_hot(blend.labels, classes).to(features.dtype)
    return (cross_entropy(head(blend.features(features)), rows) * blend.shares).sum()


@pytest.mark.parametrize("weights", ["uniform", "dirichlet", "equal"])
def test_loss_and_gradients_equal_a_loop_over_classes(weights):
    torch.manual_seed(0)
    head = torch.nn.Linear(16, CLASSES)
    features = torch.randn(len(LABELS), 16)
    found = []
    for loss in (
        lambda f: loop_loss(head, f, drawn(weights), LABELS),
        lambda f: vectorised_loss(head, f, drawn(weights)),
    ):
        f = features.clone().requires_grad_()
        head.zero_grad()
        value = loss(f)
        value.backward()
        found.append((value.detach(), f.grad, head.weight.grad.clone()))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-6)


def test_single_is_cross_entropy_with_classes_weighing_alike():
    head, f = torch.nn.Linear(16, CLASSES), torch.randn(len(LABELS), 16)
    each = F.cross_entropy(head(f), torch.from_numpy(LABELS), reduction="none")
    by_hand = torch.stack([each[c == LABELS].mean() for c in np.unique(LABELS)]).mean()
    assert torch.allclose(vectorised_loss(head, f, drawn("single")), by_hand, atol=1e-6)


@each_law
def test_the_blended_loss_never_exceeds_the_weighted_clean_loss(weights):
    """Cross-entropy is convex in the logits and the head affine, so a blend pulls less than its members."""
    rng = np.random.default_rng(0)
    for step in range(200):
        labels = rng.integers(0, 4, 12)
        blend = drawn(weights, labels, 4, step)
        head = torch.nn.Linear(6, 4, dtype=torch.float64)
        f = torch.from_numpy(rng.normal(size=(12, 6)))
        clean = F.cross_entropy(head(f), torch.from_numpy(labels), reduction="none")
        share = blend.shares.double()
        if blend.member is None:
            weighted = (clean * share).sum()
        else:
            row = np.repeat(np.arange(len(share)), np.diff(blend.starts))
            weighted = (clean[blend.member] * blend.weight * share[row]).sum()
        assert vectorised_loss(head, f, blend, 4) <= weighted + 1e-12


def test_equal_features_give_that_feature_and_equality_of_the_losses():
    f = torch.randn(1, 16, dtype=torch.float64).expand(len(LABELS), 16)
    blend = drawn("uniform", interpolations=3)
    present = blend.shares > 0
    assert torch.allclose(blend.features(f)[present], f[:1], atol=1e-12)


def test_the_gradient_agrees_with_finite_differences():
    f = torch.randn(len(LABELS), 4, dtype=torch.float64, requires_grad=True)
    blend = drawn(interpolations=2)
    assert torch.autograd.gradcheck(blend.features, (f,))


@pytest.mark.parametrize("points", [1, 2, 5])
@pytest.mark.parametrize("weights", ["uniform", "dirichlet"])
def test_shapes_are_static_shares_sum_to_one_and_absent_classes_add_nothing(points, weights):
    blend = drawn(weights, interpolations=points)
    z = blend.features(torch.randn(len(LABELS), 3))
    assert z.shape == (points * CLASSES, 3)
    absent = ~np.isin(np.tile(np.arange(CLASSES), points), LABELS)
    assert (z[absent] == 0).all() and (blend.shares[absent] == 0).all()
    assert abs(float(blend.shares.sum()) - 1) < 1e-6
    if points > 1:
        first, second = blend.weight[: len(LABELS)], blend.weight[len(LABELS) : 2 * len(LABELS)]
        assert not torch.equal(first, second)  # fresh weights each time


@pytest.mark.parametrize(("n", "uniform", "dirichlet"), [(2, 0.0569, 0.0833), (3, 0.0323, 0.0556), (5, 0.0129, 0.0267)])
def test_ledger_23_normalised_uniforms_and_dirichlet_are_told_apart(n, uniform, dirichlet):
    labels = np.repeat(np.arange(20_000), n)
    for law, variance in (("uniform", uniform), ("dirichlet", dirichlet)):
        weight = drawn(law, labels, 20_000).weight.view(-1, n)
        assert abs(float(weight[:, 0].var()) - variance) < 0.0012
        p = stats.kstest(weight[:, 0].numpy(), stats.beta(1, n - 1).cdf).pvalue
        assert p > 1e-4 if law == "dirichlet" else p < 1e-6


def test_a_class_with_one_image_is_its_own_blend_or_is_skipped():
    f = torch.randn(len(LABELS), 3)
    plain = drawn()
    assert torch.allclose(plain.features(f)[0], f[3]) and plain.shares[0] == torch.tensor(0.25)
    skipped = drawn(singletons="skip")
    assert skipped.shares[0] == 0 and skipped.shares[1] == 0.5
    nothing = drawn(labels=np.arange(4), singletons="skip")
    f.requires_grad_()
    loss = vectorised_loss(torch.nn.Linear(3, CLASSES), f[:4], nothing)
    loss.backward()
    assert loss == 0 and (f.grad == 0).all()
