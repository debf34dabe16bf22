"""MiAMix against its closed forms, an independent simulation's figures, and slow versions of its parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from mixcli.errors import UserError
from mixcli.methods.supervised import draw
from mixcli.mix import Context, implementation
from mixcli.mixing import miamix
from mixcli.sampling import Random
from mixcli.settings import CutMix, FMix, MiAMix
from tests import fakes


def drawn(settings: MiAMix, batch: int = 8, size: tuple[int, int] = (8, 8), step: int = 0):
    labels = np.arange(batch) % 10
    return miamix.draw(settings, Context((batch, *size), labels, 10), Random(0, "mix", step))


def fixed(layers: int, **changes) -> MiAMix:
    return MiAMix(p_self=0, layers=layers, layers_law="fixed", **changes)


# ----------------------------------------------------------------------------------------------- oracle 1: closed forms

LAWS = ["balanced", "flat", "simplex"]


def product_mean(k: int, alpha: float, law: str) -> float:
    """E prod_j (1 - share_j), by the moments of the Dirichlet law."""
    total = {"balanced": 2 * k, "flat": k + 1, "simplex": max(k, 2)}[law] * alpha
    rising = [math.prod(total + i for i in range(s)) for s in range(k + 1)]
    return sum((-1) ** s * math.comb(k, s) * alpha**s / rising[s] for s in range(k + 1))


def average_mean(k: int, law: str) -> float:
    return 1 - {"balanced": 1 / (2 * k), "flat": 1 / (k + 1), "simplex": 1 / max(k, 2)}[law]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_oracle_1_constant_masks_have_the_mean_of_the_closed_form(k, law, alpha):
    for merge, expected in [("product", product_mean(k, alpha, law)), ("average", average_mean(k, law))]:
        mix = drawn(fixed(k, methods=("mixup",), ratio_law=law, merge=merge, alpha=alpha), 40_000, (1, 1))
        assert abs(float(mix.ratio[0].mean()) - expected) < 0.006
        assert torch.allclose(mix.ratio[0].double(), mix.drawn, atol=1e-6)


@pytest.mark.parametrize(("law", "k", "published"), [("balanced", 2, 0.55), ("balanced", 3, 0.5685),
                                                     ("balanced", 4, 0.5779), ("flat", 2, 0.4167),
                                                     ("flat", 4, 0.3815), ("simplex", 2, 0.1667)])  # fmt: skip
def test_the_closed_form_is_the_tabled_one(law, k, published):
    assert abs(product_mean(k, 1.0, law) - published) < 1e-4


def test_ledger_24_masks_of_opposite_orientation_are_not_multiplied():
    """With the shares themselves as keep-masks two layers would leave 5 % of the image."""
    layers = miamix._layers(fixed(2), 40_000, Random(0, "mix").host)
    assert abs(layers.share.prod(1).mean() - 0.05) < 0.003
    assert abs(float(drawn(fixed(2, methods=("mixup",)), 40_000, (1, 1)).ratio[0].mean()) - 0.55) < 0.006


def test_ledger_24_masks_of_every_candidate_are_partner_weights_of_their_share():
    for name in ("mixup", "fmix", "cutmix"):
        share = np.full(4000, 0.3)
        keep = miamix._drawn_by(fakes.METHODS[name](), 1 - share, (32, 32), Random(0, "mix"))
        lost = 0.12 if name == "cutmix" else 0.003  # borders cut boxes
        assert 0 <= 0.3 - float(1 - keep.mean()) + 0.001 < lost


@pytest.mark.parametrize("name", ["mixup", "cutmix", "fmix", "gridmix", "agmix"])
def test_ledger_24_an_image_keeps_more_where_more_of_it_is_nominal(name):
    mix = drawn(fixed(1, methods=(name,)), 500, (16, 16))
    assert np.corrcoef(mix.drawn, mix.ratio[0])[0, 1] > 0.7


@pytest.mark.parametrize("merge", ["product", "average"])
def test_layers_that_an_image_lacks_change_nothing(merge):
    mix = drawn(MiAMix(p_self=0, layers=3, methods=("mixup",), merge=merge), 200)
    assert set(mix.notes["layers"].tolist()) == {1, 2, 3}
    assert torch.allclose(mix.keep.mean((1, 2, 3)).double(), mix.drawn, atol=1e-6)


def test_a_mask_is_smoothed_and_then_rotated():
    hole, angle, slant = torch.ones(1, 1, 9, 9), np.array([0.3]), np.array([0.1])
    hole[:, :, 2:6, 3:8] = 0
    changes = miamix.Changes(np.array([0]), 1, np.array([0]), angle, slant)
    masks = torch.cat([hole, torch.empty(2, 1, 9, 9)])
    assert changes.apply(masks, 1, Random(0, "mix")).tolist() == [2]
    assert torch.equal(masks[2:], miamix.rotated(miamix.smoothed(hole, 1), angle, slant, Random(0, "mix")))


def test_masks_are_changed_by_laws_that_do_not_hang_together():
    n, settings = 40_000, MiAMix(p_smooth=0.5, p_affine=0.25, rotation=15, shear=10)
    changes = miamix._changes(settings, np.arange(n), Random(0, "mix").host)
    angle, slant, bent = np.degrees(changes.angle), np.degrees(changes.slant), np.zeros(n, bool)
    bent[changes.bent] = True
    assert stats.kstest(angle, stats.uniform(-15, 30).cdf).pvalue > 0.01
    assert stats.kstest(slant, stats.uniform(-10, 20).cdf).pvalue > 0.01
    assert abs(np.corrcoef(angle, slant)[0, 1]) < 0.03
    shares = len(changes.blunt) / n, changes.wide / len(changes.blunt), bent.mean(), bent[changes.blunt].mean()
    assert np.allclose(shares, (0.5, 0.5, 0.25, 0.25), atol=0.015)
    assert abs(bent[changes.blunt[: changes.wide]].mean() - 0.25) < 0.02


@pytest.mark.parametrize("law", LAWS)
def test_one_layer_has_the_share_of_a_beta_law(law):
    share = miamix._layers(fixed(1, ratio_law=law, alpha=0.2), 20_000, Random(0, "mix").host).share[:, 0]
    assert stats.kstest(share, stats.beta(0.2, 0.2).cdf).pvalue > 0.01


# --------------------------------------------------------------------------------- oracle 2: an independent simulation


@pytest.mark.parametrize(
    ("k", "mean", "deviation", "minority"),
    [(1, 0.552, 0.286, 0.41), (2, 0.600, 0.195, 0.30), (3, 0.617, 0.149, 0.21), (4, 0.625, 0.122, 0.16)],
)
def test_oracle_2_all_defaults_at_32_pixels(k, mean, deviation, minority):
    ratio = torch.cat([drawn(fixed(k), 2000, (32, 32), step).ratio[0] for step in range(6)]).double()
    assert abs(float(ratio.mean()) - mean) < 0.01 and abs(float(ratio.std()) - deviation) < 0.01
    assert abs(float((ratio < 0.5).double().mean()) - minority) < 0.02


def test_oracle_2_two_averaged_layers():
    ratio = torch.cat([drawn(fixed(2, merge="average"), 2000, (32, 32), step).ratio[0] for step in range(4)])
    assert abs(float(ratio.mean()) - 0.780) < 0.01


# -------------------------------------------------------------------------------------------------- who with whom


def test_the_self_mixed_share_is_p_and_the_fixed_points_of_the_rest():
    mixes = [drawn(MiAMix(p_self=0.2), 16, (1, 1), step) for step in range(1500)]
    share = torch.stack([m.notes["self_mixed"] for m in mixes]).double().mean()
    assert abs(float(share) - (0.2 + 0.8 / 16)) < 0.01
    assert all((m.source[1] % 16 == torch.arange(16))[m.notes["self_mixed"]].all() for m in mixes[:20])


def test_every_partner_comes_from_the_second_view_or_only_an_image_s_own():
    always = drawn(MiAMix(p_self=0.5), 64)
    assert (always.source[1] >= 64).all() and (always.source[0] < 64).all()
    own = drawn(MiAMix(p_self=0.5, second_view="self", pairing="derangement"), 64)
    assert torch.equal(own.source[1] >= 64, own.notes["self_mixed"]) and 10 < own.notes["self_mixed"].sum() < 54


def test_the_second_view_is_asked_for_where_it_is_used():
    assert dict(implementation(MiAMix()).needs(MiAMix()).views) == {"second": 1.0}
    alone = MiAMix(p_self=0, second_view="self")
    assert not implementation(alone).needs(alone).views


def test_a_self_mixed_image_keeps_its_label_whatever_the_ratio():
    mix = drawn(MiAMix(p_self=1), 32)
    labels = torch.arange(32) % 10
    assert torch.allclose(mix.targets(labels, 10), torch.nn.functional.one_hot(labels, 10).float())
    assert (mix.ratio[0] < 0.9).any()


def test_who_has_no_partner_may_still_be_mixed_with_itself():
    labels = np.zeros(64, int)
    settings = MiAMix(p_self=0.5, pairing="different-class")
    mix = miamix.draw(settings, Context((64, 4, 4), labels, 2), Random(0, "mix"))
    assert torch.equal(mix.notes["unpaired"], ~mix.notes["self_mixed"])
    assert torch.equal(mix.notes["layers"] == 0, mix.notes["unpaired"])
    assert (mix.keep[mix.notes["unpaired"]] == 1).all()


# ------------------------------------------------------------------------------------------ layers and candidates


def test_layers_are_uniform_or_fixed():
    counts = np.bincount(drawn(MiAMix(layers=4), 20_000, (1, 1)).notes["layers"], minlength=5)[1:]
    assert stats.chisquare(counts).pvalue > 0.01
    assert (drawn(fixed(3), 50).notes["layers"] == 3).all()


@pytest.mark.parametrize("weights", [None, (1, 0, 3, 1, 0)])
def test_candidates_come_by_their_weights(weights):
    settings = MiAMix(method_weights=weights)
    method = miamix._methods(settings, 20_000, Random(0, "mix").host).ravel()
    expected = np.array(settings.weights) / sum(settings.weights) * method.size
    counts = np.bincount(method, minlength=5)
    assert (counts[expected == 0] == 0).all()
    assert stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 0.01


def test_distinct_layers_never_repeat_a_candidate_and_follow_the_weights():
    settings = MiAMix(distinct=True, layers=3, method_weights=(4, 1, 1, 1, 0))
    method = miamix._methods(settings, 20_000, Random(0, "mix").host)
    assert all(len(set(row)) == 3 for row in method[:500].tolist()) and method.max() == 3
    assert abs((method[:, 0] == 0).mean() - 4 / 7) < 0.01
    assert abs((method[:, 1] == 0).mean() - 3 / 7 * 4 / 6) < 0.01  # after another one was drawn first


def test_a_layer_s_mask_is_that_of_the_candidate_alone():
    settings = fixed(1, methods=("fmix",), p_smooth=0, p_affine=0, candidates={"fmix": FMix(decay=1.5)})
    keep = drawn(settings, 500, (16, 16)).keep
    plain = drawn(fixed(1, methods=("fmix",), p_smooth=0, p_affine=0), 500, (16, 16)).keep
    ragged, smooth = ((m[..., 1:] != m[..., :-1]).float().mean() for m in (keep, plain))
    assert ragged > 1.3 * smooth and ((keep == 0) | (keep == 1)).all()


def test_a_candidate_that_cannot_be_drawn_is_named_with_its_key():
    with pytest.raises(UserError, match="candidates_fmix_variant"):
        drawn(MiAMix(methods=("fmix",), candidates={"fmix": FMix(variant="reference")}), 4, (5, 9))


def test_ledger_6_every_option_changes_the_draws():
    plain = drawn(MiAMix(), 200)
    changes = [
        dict(alpha=0.2),
        dict(methods=("mixup", "cutmix")),
        dict(method_weights=(1, 1, 1, 1, 5)),
        dict(p_self=0.6),
        dict(second_view="self"),
        dict(layers=4),
        dict(layers_law="fixed"),
        dict(distinct=True),
        dict(ratio_law="flat"),
        dict(ratio_law="simplex"),
        dict(merge="average"),
        dict(augmented=("cutmix",)),
        dict(p_smooth=0),
        dict(p_affine=0),
        dict(p_affine=1, rotation=90),
        dict(p_affine=1, shear=40),
        dict(tilt=0.1),
        dict(rotate=False),
        dict(scale="gmix"),
        dict(per="batch"),
        dict(pairing="derangement"),
        dict(probability=0.5),
        dict(candidates={"cutmix": CutMix(box="inside")}),
    ]
    for change in changes:  # fmt: skip
        other = drawn(MiAMix(**change), 200)
        assert not (torch.equal(plain.keep, other.keep) and torch.equal(plain.source, other.source)), change


# ------------------------------------------------------------------------------------------- augmentation of masks


@pytest.mark.parametrize("size", [(9, 5), (1, 7), (2, 2), (1, 1)], ids=str)
@pytest.mark.parametrize("wide", [0, 1, 3])
def test_smoothing_is_the_mean_of_the_pixels_that_exist(size, wide):
    masks = torch.rand(3, 1, *size, generator=torch.Generator().manual_seed(0))
    five, three = (torch.nn.functional.avg_pool2d(masks, s, 1, s // 2, count_include_pad=False) for s in (5, 3))
    expected = torch.cat([five[:wide], three[wide:]])
    assert torch.allclose(miamix.smoothed(masks, wide), expected, atol=1e-6)


def by_pixel(mask: np.ndarray, angle: float, slant: float) -> np.ndarray:
    """Each pixel looked up where it comes from, bilinearly, with the nearest edge outside."""
    height, width = mask.shape
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1, np.tan(slant)], [0, 1]])
    found = np.empty_like(mask)
    for y in range(height):
        for x in range(width):
            dx, dy = matrix @ [x - (width - 1) / 2, y - (height - 1) / 2]
            sx = min(max(dx + (width - 1) / 2, 0), width - 1)
            sy = min(max(dy + (height - 1) / 2, 0), height - 1)
            left, top = int(sx), int(sy)
            right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
            a, b = sx - left, sy - top
            upper = (1 - a) * mask[top, left] + a * mask[top, right]
            lower = (1 - a) * mask[bottom, left] + a * mask[bottom, right]
            found[y, x] = (1 - b) * upper + b * lower
    return found


@pytest.mark.parametrize("size", [(9, 5), (6, 12), (1, 7), (7, 1), (1, 1)], ids=str)
def test_rotation_and_shear_look_each_pixel_up_where_it_comes_from(size):
    masks = torch.rand(4, 1, *size, generator=torch.Generator().manual_seed(0))
    angle, slant = np.array([0.3, -1.2, 0.0, 3.1]), np.array([0.2, 0.0, -0.7, 0.1])
    found = miamix.rotated(masks, angle, slant, Random(0, "mix"))
    for i in range(4):
        expected = by_pixel(masks[i, 0].numpy().astype(np.float64), angle[i], slant[i])
        assert np.abs(found[i, 0].numpy() - expected).max() < 1e-5


def test_constant_masks_stay_themselves():
    for value in (0.0, 0.3, 1.0):
        masks = torch.full((5, 1, 7, 9), value)
        turned = miamix.rotated(masks, np.linspace(-1, 1, 5), np.linspace(-0.5, 0.5, 5), Random(0, "mix"))
        for found in (miamix.smoothed(masks, 2), turned):
            assert torch.allclose(found, masks, atol=1e-6)
            assert value == 0.3 or torch.equal(found, masks) or found.sub(masks).abs().max() < 1e-6


def test_the_masks_of_hard_edges_are_augmented_as_often_as_asked():
    share = {}
    for name in ("cutmix", "gridmix", "fmix"):
        settings = fixed(1, methods=(name,), p_smooth=0.5, p_affine=0.25, rotation=15, shear=10)
        keep = drawn(settings, 4000, (16, 16)).keep
        share[name] = float(((keep > 0) & (keep < 1)).flatten(1).any(1).double().mean())
    assert all(0.5 < s < 0.64 for s in share.values())  # 1 - 0.5 * 0.75 = 0.625, less masks without an edge


def test_a_blur_is_of_side_three_or_five_with_equal_odds(monkeypatch):
    smoothed, counts = miamix.smoothed, {3: 0, 5: 0}

    def counted(masks, wide):
        counts[3], counts[5] = len(masks) - wide, wide
        return smoothed(masks, wide)

    monkeypatch.setattr(miamix, "smoothed", counted)
    drawn(fixed(1, methods=("cutmix",), p_smooth=0.5), 4000, (4, 4))
    assert stats.chisquare([*counts.values(), 4000 - sum(counts.values())], [1000, 1000, 2000]).pvalue > 0.01


def test_masks_of_candidates_that_are_not_named_keep_their_edges():
    settings = fixed(1, methods=("cutmix", "fmix"), augmented=("fmix",), method_weights=(1, 0), p_smooth=1, p_affine=1)
    keep = drawn(settings, 500, (16, 16)).keep
    assert ((keep == 0) | (keep == 1)).all()


# --------------------------------------------------------------------------------------------------- everywhere else


def test_one_draw_per_batch_gives_one_mask_and_partners_of_their_own():
    mix = drawn(MiAMix(per="batch"), 32)
    assert (mix.keep == mix.keep[:1]).all() and len(mix.source[1].unique()) > 16


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2), (5, 9)], ids=str)
def test_ledger_17_any_size_and_every_augmentation(size):
    mix = drawn(MiAMix(p_smooth=1, p_affine=1, layers=4), 64, size)
    assert mix.keep.isfinite().all() and draw(MiAMix(), fakes.context(3, *size), Random(0, "mix")) is not None


@pytest.mark.parametrize(("pairing", "labels"), [("same-class", np.arange(8)), ("different-class", np.zeros(8, int))])
def test_who_is_not_drawn_to_be_mixed_is_not_mixed_with_itself_either(pairing, labels):
    settings = MiAMix(probability=0, pairing=pairing, p_self=1)
    mix = miamix.draw(settings, Context((8, 6, 6), labels, 8), Random(0, "mix"))
    assert (mix.keep == 1).all() and (mix.notes["layers"] == 0).all()


def test_its_masks_tell_rows_from_columns_where_those_of_a_candidate_do():
    assert MiAMix(methods=("mixup", "fmix", "agmix")).symmetric
    assert not MiAMix(methods=("mixup", "gridmix")).symmetric
    assert not MiAMix(methods=("fmix",), candidates={"fmix": FMix(variant="reference")}).symmetric


def test_a_second_view_that_is_missing_is_told():
    with pytest.raises(ValueError, match="8 rows: is a second view missing"):
        drawn(MiAMix(per="sample")).images(torch.rand(8, 3, 8, 8))
