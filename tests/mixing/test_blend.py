from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from mixcli.mix import Context, Mix
from mixcli.mixing import blend
from mixcli.sampling import Random, beta, dirichlet
from mixcli.settings import MixUp


def many(settings: MixUp, batches: int = 200, batch: int = 100) -> list[Mix]:
    context = Context((batch, 2, 2), np.zeros(batch, np.int64), 10)
    return [blend.draw(settings, context, Random(0, "mix", step)) for step in range(batches)]


@pytest.mark.parametrize(("alpha", "variance"), [(0.2, 0.179), (1.0, 0.083), (2.0, 0.050), (5.0, 0.023)])
def test_ledger_5_and_9_ratios_follow_beta_of_alpha_unfolded(alpha, variance):
    mixes = many(MixUp(alpha=alpha, per="sample"))
    ratio = torch.cat([m.drawn for m in mixes]).numpy()
    assert np.allclose(torch.cat([m.ratio[0] for m in mixes]).numpy(), ratio, atol=1e-7)  # what is used
    assert stats.kstest(ratio, stats.beta(alpha, alpha).cdf).pvalue > 1e-4
    assert stats.kstest(ratio, stats.beta(alpha * 1.3, alpha * 1.3).cdf).pvalue < 1e-6
    assert abs(ratio.var() - variance) < 0.004 and abs(ratio.mean() - 0.5) < 0.01


def test_ledger_8_float64_draws_pass_where_the_same_draws_in_float32_fail():
    draws = beta(Random(0, "beta").host, 0.2, 20_000)
    law = stats.beta(0.2, 0.2).cdf
    assert stats.kstest(draws, law).pvalue > 1e-3
    assert stats.kstest(draws.astype(np.float32).astype(np.float64), law).pvalue < 1e-3


def test_ledger_8_dirichlet_shares_pass_too_where_the_same_shares_in_float32_fail():
    shares = dirichlet(Random(0, "dirichlet").host, np.full((20_000, 2), 0.2))[:, 0]
    law = stats.beta(0.2, 0.2).cdf
    assert stats.kstest(shares, law).pvalue > 1e-3
    assert stats.kstest(shares.astype(np.float32).astype(np.float64), law).pvalue < 1e-3


def test_ledger_14_alpha_zero_is_the_identity_inside_the_package():
    assert (beta(Random(0, "x").host, 0, 5) == 1).all()


@pytest.mark.parametrize("points", [3, 4, 8])
@pytest.mark.parametrize("concentration", ["per_point", "total"])
def test_k_points_have_the_moments_of_the_dirichlet(points, concentration):
    settings = MixUp(points=points, alpha=0.7, concentration=concentration, per="sample")
    ratio = torch.cat([m.ratio for m in many(settings)], dim=1).double()
    a = 0.7 if concentration == "per_point" else 1.4 / points
    assert (ratio.mean(1) - 1 / points).abs().max() < 0.006
    assert (ratio.var(1) - (points - 1) / (points**2 * (points * a + 1))).abs().max() < 0.006
    assert (ratio.sum(0) - 1).abs().max() < 2.4e-7


def test_targets_and_pixels_of_a_pair_by_hand():
    mix = Mix(torch.tensor([[0, 1], [1, 0]]), keep=torch.tensor([0.25, 0.75]).view(2, 1, 1, 1))
    x = torch.tensor([0.0, 8.0]).view(2, 1, 1, 1)
    assert mix.images(x).flatten().tolist() == [6.0, 6.0]
    assert mix.targets(torch.tensor([2, 0]), 3).tolist() == [[0.75, 0.0, 0.25], [0.75, 0.0, 0.25]]


def test_one_point_weighs_everything_is_the_identity():
    x = torch.randn(3, 1, 2, 2)
    whole = torch.zeros(3, 3, 1, 1, 1)
    whole[0] = 1
    assert torch.equal(Mix(torch.tensor([[0, 1, 2], [1, 2, 0], [2, 0, 1]]), weight=whole).images(x), x)


def test_ledger_10_three_points_with_no_weight_on_the_first_stay_in_range():
    a, b = torch.randn(20_000, 1), torch.randn(20_000, 1)
    rows = torch.stack([a, b], 1).view(-1, 1)  # rows 2i and 2i + 1
    n = len(rows)
    other = torch.arange(n) ^ 1
    share = torch.rand(n)
    weight = torch.stack([torch.zeros(n), share, 1 - share]).view(3, n, 1, 1, 1)
    mixed = Mix(torch.stack([torch.arange(n), other, other]), weight=weight).images(rows)
    low, high = torch.minimum(rows, rows[other]), torch.maximum(rows, rows[other])
    assert (mixed >= low).all() and (mixed <= high).all()
    loose = rows + share[:, None] * (rows[other] - rows) + (1 - share[:, None]) * (rows[other] - rows)
    assert ((loose < low) | (loose > high)).any()  # what the clamp is for


def test_ledger_12_ids_and_targets_stay_exact_beside_bfloat16_images():
    classes = 1200
    labels = torch.tensor([257, 1199, 3])
    mix = Mix(torch.tensor([[0, 1, 2], [1, 2, 0]]), keep=torch.full((3, 1, 1, 1), 0.3))
    rows = mix.targets(labels, classes)
    assert mix.images(torch.zeros(3, 1, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert rows.dtype == torch.float32
    assert rows[0].nonzero().flatten().tolist() == [257, 1199] and rows[0, 257] == torch.tensor(0.3)


def test_stacked_views_bring_the_partner_from_the_second_view():
    mix = Mix(torch.tensor([[0, 1], [3, 2]]), keep=torch.zeros(2, 1, 1, 1))
    rows = torch.arange(4.0).view(4, 1, 1, 1)
    assert mix.images(rows).flatten().tolist() == [3.0, 2.0]
    assert mix.targets(torch.tensor([0, 1]), 2).tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_unmet_sources_of_many_points_are_the_image_itself():
    context = Context((3, 2, 2), np.array([0, 1, 1]), 2)
    mix = blend.draw(MixUp(points=3, pairing="same-class"), context, Random(0, "mix"))
    assert mix.source[:, 0].tolist() == [0, 0, 0] and mix.notes["unpaired"].tolist() == [True, False, False]
    assert mix.source[1, 1] == 2 and mix.source[1, 2] == 1
