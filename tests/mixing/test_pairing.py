from __future__ import annotations

import numpy as np
import pytest
import torch

from mixcli.methods.supervised import draw
from mixcli.mix import Context
from mixcli.mixing.pairing import partners
from mixcli.sampling import Random
from mixcli.settings import CutMix, MiAMix, MixUp


def paired(pairing: str, labels: np.ndarray, step: int = 0) -> tuple[np.ndarray, np.ndarray]:
    context = Context((len(labels), 4, 4), labels, 10)
    return partners(MixUp(pairing=pairing), context, Random(0, "mix", step).host)


def test_a_permutation_has_one_fixed_point_on_average():
    fixed = [(paired("permutation", np.zeros(16, np.int64), s)[0] == np.arange(16)).sum() for s in range(2000)]
    assert abs(np.mean(fixed) - 1) < 0.08 and abs(np.var(fixed) - 1) < 0.15


def test_a_permutation_pairs_one_image_in_ten_with_its_own_class_at_ten_classes():
    labels = np.random.default_rng(0).integers(0, 10, (2000, 128))
    same = [(y[paired("permutation", y, s)[0]] == y).mean() for s, y in enumerate(labels)]
    assert abs(np.mean(same) - 0.107) < 0.004


@pytest.mark.parametrize("batch", range(2, 10))
def test_ledger_16_a_derangement_has_no_fixed_point_and_is_uniform_over_the_others(batch):
    found = np.stack([paired("derangement", np.zeros(batch, np.int64), s)[0] for s in range(2000)])
    assert not (found == np.arange(batch)).any()
    assert (np.sort(found, axis=1) == np.arange(batch)).all()
    counts = np.bincount(found[:, 0], minlength=batch)[1:]
    expected = 2000 / (batch - 1)
    assert ((counts - expected) ** 2 / expected).sum() < 30


def test_different_class_never_pairs_equal_labels_and_is_uniform_over_the_rest():
    labels = np.array([0, 0, 0, 1, 1, 2])
    found = np.stack([paired("different-class", labels, s)[0] for s in range(3000)])
    assert (labels[found] != labels).all()
    for image in range(6):
        counts = np.bincount(found[:, image], minlength=6)[labels != labels[image]]
        assert abs(counts / 3000 - 1 / len(counts)).max() < 0.04


def test_same_class_pairs_within_the_class_and_never_with_itself_unless_alone():
    labels = np.array([3, 1, 3, 1, 3, 7])
    for step in range(200):
        partner, unpaired = paired("same-class", labels, step)
        assert (labels[partner] == labels).all()
        assert (partner == np.arange(6)).tolist() == unpaired.tolist() == [False] * 5 + [True]
        assert sorted(partner) == list(range(6))


def test_mixing_within_the_class_leaves_every_label_as_it_is():
    """Intra-class MixUp, the baseline of SynerMix's blends of features: its targets are one-hot rows."""
    labels = np.random.default_rng(0).integers(0, 10, 128)
    for cls in (MixUp, MiAMix, CutMix):
        mix = draw(cls(pairing="same-class", per="sample"), Context((128, 8, 8), labels, 10), Random(0, "mix"))
        one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels), 10).float()
        assert torch.allclose(mix.targets(torch.from_numpy(labels), 10), one_hot, atol=1e-6)
        assert (mix.ratio[0] < 0.9).float().mean() > 0.3


@pytest.mark.parametrize("pairing", ["permutation", "derangement", "same-class", "different-class"])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_tiny_and_one_class_batches_terminate(pairing, batch):
    partner, unpaired = paired(pairing, np.zeros(batch, np.int64))
    assert ((partner >= 0) & (partner < batch)).all()
    if batch == 1:
        assert partner[0] == 0
    if pairing == "different-class":
        assert unpaired.all() and (partner == np.arange(batch)).all()


def test_ledger_15_the_partner_law_does_not_depend_on_position():
    found = np.stack([paired("permutation", np.zeros(7, np.int64), s)[0] for s in range(4000)])
    table = np.stack([np.bincount(found[:, i], minlength=7) for i in range(7)]) / 4000
    assert abs(table - 1 / 7).max() < 0.025


@pytest.mark.parametrize("pairing", ["same-class", "different-class"])
def test_a_rule_that_needs_labels_raises_without_them(pairing):
    with pytest.raises(ValueError, match="needs the labels"):
        partners(MixUp(pairing=pairing), Context((4, 2, 2), None, 10), Random(0, "mix").host)


def test_who_is_not_mixed_is_its_own_partner_and_keeps_all():
    mix = draw(CutMix(per="sample", probability=0.5), Context((64, 8, 8), None, 10), Random(0, "mix"))
    alone = mix.drawn == 1
    assert 16 < alone.sum() < 48
    assert torch.equal(mix.source[1][alone], mix.source[0][alone])
    assert (mix.keep[alone] == 1).all()
