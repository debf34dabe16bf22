"""Calibration against plain loops, predictors whose errors are known in closed form, and PyTorch's cross-entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mixcli.sampling import Random
from mixcli.studies.calibration import adaptive_gaps, calibration, ece15, floor, reliability, temperature


def drawn(n: int = 1234, classes: int = 7, scale: float = 2.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]  # labels from the probabilities


def by_loops(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Every score image by image and bin by bin."""
    rows, brier, nll, top5 = [], 0.0, 0.0, 0
    for i, (row, label) in enumerate(zip(logits.double(), labels.tolist(), strict=True)):
        p = torch.exp(row - row.max()) / torch.exp(row - row.max()).sum()
        best = int(p.argmax())
        rows.append((float(p[best]), i, best == label))
        brier += sum((float(p[c]) - (c == label)) ** 2 for c in range(len(p)))
        nll -= math.log(float(p[label]))
        top5 += label in p.argsort(descending=True)[:5].tolist()
    n = len(rows)
    wide = 0.0
    for k in range(15):
        inside = [(c, r) for c, _, r in rows if k / 15 < c <= (k + 1) / 15]
        wide += abs(sum(r for _, r in inside) - sum(c for c, _ in inside)) / n
    rows.sort()
    bins = [rows[100 * k : 100 * (k + 1)] for k in range(max(1, n // 100))]
    bins[-1] = rows[100 * (len(bins) - 1) :]
    gaps = [(len(b), sum(r for *_, r in b) / len(b) - sum(c for c, *_ in b) / len(b)) for b in bins]
    assert sum(size for size, _ in gaps) == n
    return {"nll": nll / n, "brier": brier / n, "ece15": wide, "top5": top5 / n,
            "ece_adaptive": sum(size / n * abs(g) for size, g in gaps),
            "rms_adaptive": math.sqrt(sum(size / n * g * g for size, g in gaps)),
            "conf_minus_acc": sum(c for c, *_ in rows) / n - sum(r for *_, r in rows) / n}  # fmt: skip


@pytest.mark.parametrize("n", [1234, 100, 57, 1])
@pytest.mark.parametrize("classes", [7, 3])
def test_every_score_equals_a_plain_loop(n, classes):
    logits, labels = drawn(n, classes)
    found = calibration(logits, labels).row()
    for name, value in by_loops(logits, labels).items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    assert found["correct"] == int((logits.argmax(1) == labels).sum()) == round(found["top1"] * n)


def test_four_images_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]], dtype=torch.float64)
    found = calibration(p.log(), torch.tensor([0, 1, 1, 1]))
    assert found.top1 == 0.75 and found.conf_minus_acc == pytest.approx(0.0)
    assert found.brier == pytest.approx((0.02 + 0.72 + 0.18 + 0.08) / 4)
    assert found.ece15 == pytest.approx((0.1 + 0.6 + 0.3 + 0.2) / 4)
    assert found.ece_adaptive == pytest.approx(0.0) and found.top5 == 1


def test_a_sure_net_is_right_by_nothing_or_wrong_by_all():
    logits = 2000 * torch.eye(4)[[0, 1, 2, 3] * 50]
    right, wrong = torch.tensor([0, 1, 2, 3] * 50), torch.tensor([1, 2, 3, 0] * 50)
    found = calibration(logits, right)
    assert (found.top1, found.nll, found.brier, found.ece15, found.ece_adaptive) == (1, 0, 0, 0, 0)
    found = calibration(logits, wrong)
    assert (found.top1, found.brier, found.ece15, found.rms_adaptive, found.conf_minus_acc) == (0, 2, 1, 1, 1)


def test_a_confidence_of_one_lies_in_the_last_bin_and_all_bins_are_counted():
    sure = np.array([1.0, 1.0, 14 / 15, 1 / 15, 1e-9])
    counts, _, _ = reliability(sure, np.ones(5, bool))
    assert counts.sum() == 5 and counts[14] == 2 and counts[13] == 1 and counts[0] == 2 and len(counts) == 15
    gaps, weights = adaptive_gaps(np.linspace(0.1, 1, 399), np.zeros(399))
    assert len(gaps) == 3 and weights[-1] == pytest.approx(199 / 399) and weights.sum() == pytest.approx(1)


def test_constant_confidence_that_equals_the_accuracy_is_no_error():
    right = np.arange(1000) % 10 < 7
    assert ece15(np.full(1000, 0.7), right) == pytest.approx(0, abs=1e-12)
    assert ece15(np.full(1000, 0.9), right) == pytest.approx(0.2)


def test_a_reliability_diagram_holds_what_the_error_is_made_of():
    logits, labels = drawn()
    p = logits.softmax(1).max(1).values.numpy()
    counts, sure, accuracy = reliability(p, (logits.argmax(1) == labels).numpy())
    filled = counts > 0
    error = (counts[filled] / counts.sum() * np.abs(accuracy - sure)[filled]).sum()
    assert error == pytest.approx(calibration(logits, labels).ece15)


def test_nll_is_torchs_cross_entropy_and_row_order_is_irrelevant():
    logits, labels = drawn()
    found, order = calibration(logits, labels), torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    assert found.nll == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), abs=1e-12)
    shuffled = calibration(logits[order], labels[order]).row()
    assert all(shuffled[name] == pytest.approx(value, abs=1e-12) for name, value in found.row().items())


def test_float32_logits_beyond_its_saturation_keep_their_order():
    logits = torch.tensor([[20.0, 0.0], [30.0, 0.0]])
    assert (logits.softmax(1)[:, 0] == 1).all()
    confidence = logits.double().softmax(1)[:, 0]
    assert confidence[0] < confidence[1] < 1 and calibration(logits, torch.tensor([0, 0])).nll > 0


@pytest.mark.parametrize(("n", "mean", "points"), [(10_000, 0.8, 0.9), (1000, 0.8, 2.9), (360, 0.8, 4.8),
                                                   (10_000, 0.92, 0.5), (360, 0.92, 2.5)])  # fmt: skip
def test_the_floor_of_a_perfectly_calibrated_net_is_the_computed_one(n, mean, points):
    sure = np.random.default_rng(0).beta(6 * mean, 6 * (1 - mean), n)
    found, low, high = floor(sure, Random(0, "calibration/floor"))
    assert 100 * found == pytest.approx(points, rel=0.35) and low < found < high


def test_labels_drawn_from_the_probabilities_fall_within_the_floors_band():
    inside = 0
    for seed in range(40):
        logits, labels = drawn(800, seed=seed)
        sure = logits.softmax(1).max(1).values.numpy()
        _, low, high = floor(sure, Random(seed, "calibration/floor"))
        inside += low <= calibration(logits, labels).ece15 <= high
    assert inside >= 34


def test_the_temperature_undoes_a_factor_and_changes_no_accuracy():
    logits, labels = drawn(20_000, seed=3)
    assert temperature(3 * logits, labels) == pytest.approx(3, rel=0.05)
    t = temperature(logits / 4, labels)
    before, after = calibration(logits / 4, labels), calibration(logits / 4 / t, labels)
    assert after.top1 == before.top1 and after.nll < before.nll and after.ece15 < before.ece15


def test_a_logit_that_is_not_finite_is_counted_and_refused():
    logits, labels = drawn(10)
    logits[3, 2], logits[7] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="non-finite logits in 2 images"):
        calibration(logits, labels)
