"""SmoothMix, GMix and AGMix."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mixcli.errors import UserError
from mixcli.mix import Context
from mixcli.mixing import agmix, smoothmix
from mixcli.sampling import Random, below
from mixcli.settings import AGMix, GMix, SmoothMix

TABLE = [
    (0.10, 0.081, 0.066, 0.079, 0.350, 0.290),
    (0.25, 0.176, 0.146, 0.170, 0.581, 0.498),
    (0.50, 0.301, 0.251, 0.286, 0.743, 0.657),
    (0.75, 0.397, 0.329, 0.371, 0.815, 0.732),
    (0.90, 0.438, 0.368, 0.414, 0.839, 0.765),
]
COLUMNS = [
    AGMix(tilt=0, scale="gmix"),
    AGMix(scale="gmix"),
    AGMix(),
    AGMix(tilt=0, scale="sqrt_lambda_n"),
    AGMix(scale="sqrt_lambda_n"),
]


def keep(settings: GMix, share: np.ndarray, size=(32, 32)) -> torch.Tensor:
    return agmix.masks(settings, share, size, Random(0, "mix"))[0]


@pytest.mark.parametrize("column", range(5), ids=["gmix", "tilted gmix", "tilted area", "sqrt", "tilted sqrt"])
@pytest.mark.parametrize("row", TABLE, ids=lambda r: str(r[0]))
def test_mean_bump_masses_are_the_computed_ones(row, column):
    """Under the minority rule a bump has at most half of the mass; the other form has no such rule."""
    settings, s = COLUMNS[column], row[0]
    if settings.scale != "sqrt_lambda_n" and s > 0.5:
        pytest.skip("no bump of this mass under the minority rule")
    assert abs(float(1 - keep(settings, np.full(6000, 1 - s)).mean()) - row[column + 1]) < 0.006
    if settings.scale != "sqrt_lambda_n" and s < 0.5:
        assert abs(float(keep(settings, np.full(6000, s)).mean()) - row[column + 1]) < 0.006


def test_no_tilt_is_gmix_exactly():
    share = np.linspace(0.01, 0.99, 40)
    for scale in ("area", "gmix"):
        rng = Random(0, "mix").host
        y, x = below(rng, 32, (2, 40))
        s = np.minimum(share, 1 - share)
        p = np.arange(32)
        d2 = (p[None, :, None] - y[:, None, None]) ** 2 + (p[None, None, :] - x[:, None, None]) ** 2
        bump = np.exp(-math.pi * d2 / (s[:, None, None] * 1024))
        expected = np.where((share < 0.5)[:, None, None], bump, 1 - bump)
        for settings in (GMix(), AGMix(tilt=0, scale=scale)):
            assert np.allclose(keep(settings, share)[:, 0].numpy(), expected, atol=1e-5)


def test_the_inverse_covariance_is_numpys():
    rng = np.random.default_rng(0)
    q, theta = rng.uniform(-0.95, 0.95, 50), rng.uniform(0, 2 * math.pi, 50)
    for i, (xx, xy, yy) in enumerate(zip(*agmix._adjugate(q, 2 * theta) / (1 - q**2), strict=True)):
        turn = np.array([[np.cos(theta[i]), -np.sin(theta[i])], [np.sin(theta[i]), np.cos(theta[i])]])
        inverse = np.linalg.inv(turn @ np.array([[1, q[i]], [q[i], 1]]) @ turn.T)
        assert np.allclose(inverse, [[xx, xy], [xy, yy]])


@pytest.mark.parametrize("settings", COLUMNS, ids=lambda s: s.label())
def test_no_share_does_not_divide_by_zero(settings):
    whole = keep(settings, np.array([1.0]))
    assert (whole == 1).all()
    assert keep(settings, np.array([0.0])).isfinite().all()


def test_the_mean_ratio_is_one_half_by_symmetry():
    context = Context((500, 32, 32), np.zeros(500, np.int64), 10)
    found = [agmix.draw(AGMix(), context, Random(0, "mix", s)).ratio[0] for s in range(40)]
    assert abs(float(torch.cat(found).mean()) - 0.5) < 0.006


def test_ledger_6_every_option_changes_the_masks():
    share = np.full(20, 0.3)
    plain = keep(AGMix(), share)
    for changed in (AGMix(tilt=0.5), AGMix(rotate=False), AGMix(scale="gmix"), AGMix(scale="sqrt_lambda_n")):
        assert not torch.equal(plain, keep(changed, share))
    bumps = [smoothmix.masks(s, share, (8, 8), Random(0, "m"))[0] for s in (SmoothMix(), SmoothMix(spread=(0.1, 0.2)))]
    assert not torch.equal(*bumps)


def test_smoothmix_has_the_computed_mean_share_and_no_ratio_to_draw():
    context = Context((500, 32, 32), np.zeros(500, np.int64), 10)
    found = [smoothmix.draw(SmoothMix(per="sample"), context, Random(0, "mix", s)) for s in range(30)]
    assert abs(float(torch.cat([m.ratio[1] for m in found]).mean()) - 0.427) < 0.004
    assert found[0].drawn.isnan().all()


def test_smoothmix_equals_a_loop_over_pixels():
    rng = Random(0, "mix").host
    sigma = rng.uniform(0.25, 0.5, 3) * 5
    y, x = below(rng, [[5], [9]], (2, 3))
    found = smoothmix.masks(SmoothMix(), np.full(3, np.nan), (5, 9), Random(0, "mix")).keep
    for i in range(3):
        for row in range(5):
            for column in range(9):
                bump = math.exp(-((row - y[i]) ** 2 + (column - x[i]) ** 2) / (2 * sigma[i] ** 2))
                assert abs(float(found[i, 0, row, column]) - (1 - bump)) < 1e-6


def test_smoothmix_has_no_alpha_and_its_range_rises():
    assert "alpha" not in SmoothMix.model_fields
    with pytest.raises(UserError, match="above the second"):
        SmoothMix(spread=(0.5, 0.25))


@pytest.mark.parametrize("settings", [GMix(), AGMix(), AGMix(scale="gmix")], ids=lambda s: s.label())
def test_the_smallest_shares_give_finite_masks(settings):
    share = np.array([5e-324, 1e-310, 1e-300, 1e-60, 1e-30, 1e-12, 1 - 1e-16])
    keep = agmix.masks(settings, np.tile(share, 200), (8, 8), Random(0, "mix")).keep
    assert keep.isfinite().all() and keep.min() >= 0 and keep.max() <= 1


def test_bumps_that_are_not_turned_lean_to_either_side():
    bump = keep(AGMix(rotate=False), np.full(400, 0.1))[:, 0].double()
    place = torch.arange(32.0, dtype=torch.float64)
    mass = bump.sum((1, 2))
    y, x = (bump.sum(2) * place).sum(1) / mass, (bump.sum(1) * place).sum(1) / mass
    lean = ((bump @ place * place).sum(1) / mass - x * y > 0).double().mean()
    assert 0.35 < lean < 0.65
