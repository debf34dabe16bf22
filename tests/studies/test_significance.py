"""The tests of training runs against scipy, against slow loops, against what they promise, and word by word."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.random import Generator, Philox
from scipy import stats

from mixcli.errors import UserError
from mixcli.studies import significance
from mixcli.studies.significance import Arm, compare, contrast, holm, power, runs_for, satterthwaite, sentence

DRAWS = 20_000


def generator(key: int = 0) -> Generator:
    return Generator(Philox(key=key))


def exact(name: str, n: int, mean: float = 50.0, sd: float = 0.4, **fields) -> Arm:
    """An arm of n runs whose mean and SD are these to the last bit or two."""
    shape = np.linspace(-1, 1, n)
    return Arm(name, mean + sd * shape / shape.std(ddof=1) if n > 1 else [mean], **fields)


def pairs(n: int, gap: float, r: float, sd: float = 0.4) -> tuple[Arm, Arm]:
    """Two arms with shared seeds and sample correlation r; the SD of their differences is sd sqrt(2 - 2 r)."""
    x = np.linspace(-1, 1, n)
    y = x**2 - np.mean(x**2)  # uncorrelated with x
    x, y = x / x.std(ddof=1), y / y.std(ddof=1)
    seeds = tuple(range(n))
    return Arm("A", 50 + gap + sd * x, seeds), Arm("B", 50 + sd * (r * x + math.sqrt(1 - r * r) * y), seeds)


def files(only_a: int, disagree: int) -> tuple[np.ndarray, np.ndarray]:
    """Two files on 10,000 images: they differ on `disagree`, of which the first has `only_a` right."""
    image = np.arange(10_000)
    return image < only_a, (image >= only_a) & (image < disagree)


def welch_p(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Our Welch p of many studies at once: x (studies, n), y (studies, m)."""
    variances = np.stack([x.var(1, ddof=1), y.var(1, ddof=1)], 1)
    error, df = satterthwaite(variances, (x.shape[1], y.shape[1]), (1.0, -1.0))
    return significance.p_value((x.mean(1) - y.mean(1)) / error, df)


def paired_p(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    d = x - y
    error, df = satterthwaite(d.var(1, ddof=1)[:, None], (d.shape[1],), (1.0,))
    return significance.p_value(d.mean(1) / error, df)


# ------------------------------------------------------------------------------------------------ tests against scipy


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 5), (8, 8), (12, 4)])
def test_welch_equals_scipy(n, m):
    rng = generator()
    for _ in range(20):
        x, y = rng.normal(50, 0.4, n), rng.normal(50.5, 1.2, m)
        ours, theirs = compare(Arm("A", x), Arm("B", y)), stats.ttest_ind(x, y, equal_var=False)
        interval = theirs.confidence_interval(0.95)
        assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9) and ours.df == pytest.approx(theirs.df, rel=1e-9)
        assert ours.interval() == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-9)
        assert welch_p(x[None], y[None])[0] == ours.p


@pytest.mark.parametrize("n", [2, 3, 8])
def test_paired_equals_scipy_and_pairs_by_seed_not_by_place(n):
    rng = generator()
    for _ in range(20):
        x, y, order = rng.normal(50, 0.4, n), rng.normal(50.5, 1.2, n), rng.permutation(n)
        a, b = Arm("A", x, tuple(range(n))), Arm("B", y[order], tuple(order))
        ours, theirs = compare(a, b, "paired"), stats.ttest_rel(x, y)
        interval = theirs.confidence_interval(0.95)
        assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9) and ours.df == pytest.approx(theirs.df)
        assert ours.interval() == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-9)
        assert n < 3 or compare(a, b).r == ours.r == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_a_contrast_of_two_arms_is_welch_and_of_four_is_the_written_formula():
    rng = generator()
    arms = [
        Arm(name, rng.normal(50, sd, n)) for name, sd, n in zip("ABCD", (0.2, 0.4, 0.8, 0.4), (5, 6, 7, 8), strict=True)
    ]
    assert contrast(arms[:2], (1, -1)).p == compare(*arms[:2]).p
    synergy = contrast(arms, (1, -1, -1, 1))
    parts = [np.var(arm.points, ddof=1) / len(arm.points) for arm in arms]
    df = sum(parts) ** 2 / sum(part**2 / (len(arm.points) - 1) for part, arm in zip(parts, arms, strict=True))
    a, b, c, d = (arm.points.mean() for arm in arms)
    assert synergy.difference == pytest.approx((a - b) - (c - d)) and synergy.df == pytest.approx(df)
    assert synergy.p == pytest.approx(2 * stats.t.sf(abs(synergy.difference) / math.sqrt(sum(parts)), df))
    assert (synergy.a, synergy.b) == ("A + D", "B + C")


def test_mcnemar_equals_the_binomial_test_on_images_where_the_files_disagree():
    rng = generator()
    a, b = rng.random(2000) < 0.6, rng.random(2000) < 0.57
    ours = significance.mcnemar(a, b)
    only_a, only_b = sum(a & ~b), sum(b & ~a)
    assert (ours.only_a, ours.only_b) == (only_a, only_b)
    assert ours.p == stats.binomtest(only_a, only_a + only_b, 0.5).pvalue
    assert significance.mcnemar(a, a).p == 1
    assert "about these two files, not the methods" in ours.sentence


@pytest.mark.parametrize(("disagree", "p"), [(0.10, 0.05), (0.15, 0.11), (0.20, 0.17), (0.25, 0.22)])
def test_a_net_gap_of_63_images_has_the_stated_mcnemar_p(disagree, p):
    only_a = int(disagree * 5000 + 32)  # of 10,000 images; the net gap is 64, an even number, or with one fewer 62
    found = [significance.mcnemar(*files(k, int(disagree * 10_000))).p for k in (only_a, only_a - 1)]
    assert found[0] - 0.005 <= p <= found[1] + 0.005


def test_wilcoxon_equals_scipy_and_is_refused_below_6_pairs():
    a, b = (Arm(name, generator(key).normal(50, 0.4, 8), tuple(range(8))) for key, name in enumerate("AB"))
    assert significance.wilcoxon(a, b) == stats.wilcoxon(a.points, b.points, method="exact").pvalue
    five = Arm("B", b.points[:5], tuple(range(5)))
    with pytest.raises(UserError, match="6 pairs needed; 5 cannot reach p < 0.05"):
        significance.wilcoxon(a, five)


def test_hedges_g_equals_the_textbook_and_pooled_sds_agree():
    a, b = Arm("A", generator(0).normal(50, 0.4, 5)), Arm("B", generator(1).normal(50, 0.4, 9))
    pooled = math.sqrt((4 * np.var(a.points, ddof=1) + 8 * np.var(b.points, ddof=1)) / 12)
    found = compare(a, b)
    assert found.sd == pytest.approx(pooled)
    assert found.g == pytest.approx(found.difference / pooled * (1 - 3 / (4 * 12 - 1)), rel=1e-3)
    found = compare(*pairs(12, 0.63, r=0.9), "paired")  # over the SD of the arms, not of the differences
    assert found.g == pytest.approx(0.63 / 0.4 * (1 - 3 / (4 * 11 - 1)), rel=2e-3)
    assert found.sd == pytest.approx(0.4 * math.sqrt(0.2))


def test_swapping_the_arms_flips_the_sign_and_keeps_p_and_the_claim():
    for key in range(50):
        x, y = generator(key).normal((50, 50.5), 0.4, (8, 2)).T
        a, b = Arm("A", x, tuple(range(8))), Arm("B", y, tuple(range(8)))
        for test in ("welch", "paired"):
            one, other = compare(a, b, test), compare(b, a, test)
            assert one.difference == -other.difference and one.p == other.p
            assert (one.g, one.r) == pytest.approx((-other.g, other.r))
            assert one.interval() == pytest.approx(tuple(-end for end in reversed(other.interval())))
            if one.p < 0.05:
                assert sentence(one, one.p) == sentence(other, other.p)
                assert sentence(one, one.p).startswith("A above B" if x.mean() > y.mean() else "B above A")


# ------------------------------------------------------------------------------------------------------------- refusals


def test_an_array_with_one_column_per_corruption_is_refused():
    with pytest.raises(UserError, match=r"one number per training run is needed; got shape \(5, 15\)"):
        Arm("A", generator().normal(50, 1, (5, 15)))
    with pytest.raises(UserError, match="each run needs a seed of its own"):
        Arm("A", generator().normal(50, 1, (5, 15)).ravel(), tuple(range(5)))


def test_a_diverged_value_a_repeated_seed_and_a_run_too_many_are_refused():
    with pytest.raises(UserError, match="not finite"):
        Arm("A", [50.0, math.nan])
    with pytest.raises(UserError, match="seed of its own"):
        Arm("A", [50.0, 51.0], (1, 1))
    with pytest.raises(UserError, match="more runs than planned"):
        Arm("A", [50.0, 51.0], planned=1)


def test_a_paired_test_needs_seeds_and_a_contrast_weights_of_sum_0():
    a = exact("A", 5)
    with pytest.raises(UserError, match="pairs are formed by seed"):
        compare(a, a, "paired")
    with pytest.raises(UserError, match="with sum 0"):
        contrast([a, a], (1, 1))
    with pytest.raises(UserError, match="welch"):
        compare(a, a, "welsh")


def test_mcnemar_refuses_corrupted_versions_as_images():
    with pytest.raises(UserError, match="not the same images"):
        significance.mcnemar(np.ones((100, 75), bool), np.ones((100, 75), bool))
    with pytest.raises(UserError, match="one version per image"):
        significance.mcnemar(np.full(100, 0.5), np.ones(100))


# ----------------------------------------------------------------------------------------------------------------- holm


def slow_holm(p: list[float]) -> list[float]:
    """Holm's steps as written: the k-th smallest p times m - k + 1, never below an earlier one, at most 1."""
    adjusted = []
    for mine in p:
        adjusted.append(min(1.0, max(other * sum(x >= other for x in p) for other in p if other <= mine)))
    return adjusted


def test_holm_equals_a_slow_loop_on_1000_vectors():
    rng = generator()
    for _ in range(1000):
        p = rng.random(rng.integers(1, 9)) ** 3
        assert holm(p) == pytest.approx(slow_holm(p.tolist()), abs=1e-12)


def test_holm_equals_statsmodels_on_1000_vectors():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = generator()
    for _ in range(1000):
        p = rng.random(rng.integers(1, 9)) ** 3
        assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1], abs=1e-12)


def test_holm_counts_a_planned_comparison_that_could_not_be_made():
    assert holm([0.01, math.nan, 0.04]) == pytest.approx([0.03, math.nan, 0.08], nan_ok=True)
    assert holm([]).shape == (0,)


# ---------------------------------------------------------------------------------------------------------------- power

TABLE = {  # SD: power of Welch's test for a gap of 0.63 at n = 3, 5, 8, 10; runs for 80 % at 0.63 and at 0.30
    0.2: ((0.72, 0.99, 1.00, 1.00), 4, 9),
    0.3: ((0.40, 0.80, 0.97, 0.99), 5, 17),
    0.4: ((0.24, 0.56, 0.83, 0.91), 8, 29),
    0.5: ((0.17, 0.39, 0.64, 0.75), 12, 45),
}


@pytest.mark.parametrize("sd", TABLE)
def test_the_power_table(sd):
    chances, for_large, for_small = TABLE[sd]
    assert [power(0.63, sd, (n, n)) for n in (3, 5, 8, 10)] == pytest.approx(chances, abs=0.01)
    assert (runs_for(0.63, sd), runs_for(0.30, sd)) == (for_large, for_small)


@pytest.mark.parametrize("n", [(3, 3), (3, 8), (5, 5), (8, 8)])
def test_power_is_the_rate_at_which_the_test_rejects(n):
    rng = generator(1)
    x, y = rng.normal(0.63, 0.4, (DRAWS, n[0])), rng.normal(0, 0.4, (DRAWS, n[1]))
    assert power(0.63, 0.4, n) == pytest.approx(np.mean(welch_p(x, y) < 0.05), abs=0.01)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_power_of_the_paired_test_is_that_of_the_noncentral_t(n):
    shift, bound = 0.63 / 0.4 * math.sqrt(n), stats.t.ppf(0.975, n - 1)
    theirs = stats.nct.sf(bound, n - 1, shift) + stats.nct.cdf(-bound, n - 1, shift)
    assert power(0.63, 0.4, (n,), (1.0,)) == pytest.approx(theirs, abs=0.001)


def test_power_depends_on_the_gap_in_sds_and_starts_at_the_false_positives():
    assert power(0.63, 0.4, (5, 5)) == pytest.approx(power(6.3, 4.0, (5, 5)), rel=1e-12)
    assert power(1e-9, 0.4, (8, 8)) == pytest.approx(0.048, abs=0.003)
    assert power(0.3, 0.4, (8, 8)) < power(0.3, 0.4, (9, 9)) < power(0.4, 0.4, (9, 9))


def test_the_gap_seen_in_80_percent():
    found = [significance.visible_gap(0.4, (n, n)) for n in (3, 5, 6, 7, 8, 10)]
    assert found == pytest.approx([1.40, 0.83, 0.73, 0.66, 0.61, 0.53], abs=0.01)
    assert power(found[4], 0.4, (8, 8)) == pytest.approx(0.8, abs=1e-6)


def test_runs_for_is_the_first_number_that_suffices():
    for gap, sd in ((1.16, 0.4), (0.3, 0.1), (0.1, 0.4), (5, 0.1)):
        n = runs_for(gap, sd)
        assert power(gap, sd, (n, n)) >= 0.8 and (n == 2 or power(gap, sd, (n - 1, n - 1)) < 0.8)


def test_a_synergy_needs_more_runs_than_a_gap():
    found = [(runs_for(gap, 0.4, (1, -1, -1, 1)), runs_for(gap, 0.4)) for gap in (1.16, 0.63, 0.30)]
    assert found == [(5, 4), (14, 8), (57, 29)]


def test_the_upper_bound_of_the_sd_by_chi_square():
    factors = [significance.sd_upper_factor(2 * n - 2) for n in (3, 5, 8, 10)]
    assert factors == pytest.approx([1.56, 1.32, 1.22, 1.18], abs=0.005)
    sds = generator().normal(0, 0.4, (DRAWS, 9)).std(1, ddof=1)
    assert np.mean(sds * significance.sd_upper_factor(8) > 0.4) == pytest.approx(0.8, abs=0.01)


def test_how_much_too_large_a_lucky_claim_looks():
    assert significance.exaggeration(0.30, 0.4, (5, 5)) == pytest.approx(2.1, abs=0.05)
    assert significance.exaggeration(0.63, 0.4, (5, 5)) == pytest.approx(1.2, abs=0.05)
    rng = generator()
    x, y = rng.normal(0.3, 0.4, (DRAWS, 5)), rng.normal(0, 0.4, (DRAWS, 5))
    seen = np.abs(x.mean(1) - y.mean(1))[welch_p(x, y) < 0.05]
    assert significance.exaggeration(0.30, 0.4, (5, 5)) == pytest.approx(seen.mean() / 0.3, abs=0.05)


@pytest.mark.parametrize(("n", "sesoi"), [(12, 0.5), (30, 0.3)])
def test_equality_is_shown_in_80_percent_of_cases(n, sesoi):
    x, y = generator().normal(50, 0.4, (2, 2000, n))
    shown = [significance.equal(compare(Arm("A", a), Arm("B", b)), sesoi) for a, b in zip(x, y, strict=True)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.04)


# --------------------------------------------------------------------------------------- rates of error and of coverage


@pytest.mark.parametrize(
    ("n", "ratio", "rate"),
    [(3, 1, 3.4), (5, 1, 4.4), (8, 1, 4.8), (10, 1, 4.9), (3, 3, 5.0), (5, 3, 5.4), (8, 3, 5.1), (10, 3, 5.4)],
)
def test_false_positives_of_welch_in_percent(n, ratio, rate):
    x, y = generator(7).normal(50, 0.4, (2, DRAWS, n))
    assert 100 * np.mean(welch_p(x, 50 + ratio * (y - 50)) < 0.05) == pytest.approx(rate, abs=0.6)


@pytest.mark.parametrize(("test", "n"), [("welch", 8), ("welch", 10), ("paired", 3), ("paired", 5), ("paired", 8)])
def test_the_t_interval_covers_95_percent(test, n):
    """Of 5 + 5 runs of equal SD, Welch's interval covers 95.6 %: it errs to the safe side."""
    rng, seeds = generator(3), tuple(range(n))
    x, y = rng.normal(50.3, 0.4, (5 * DRAWS, n)), rng.normal(50, 0.4, (5 * DRAWS, n))
    covered = (welch_p if test == "welch" else paired_p)(x - 0.3, y) > 0.05
    for a, b, inside in zip(x[:500], y[:500], covered[:500], strict=True):
        low, high = compare(Arm("A", a, seeds), Arm("B", b, seeds), test).interval()
        assert (low < 0.3 < high) == inside
    assert 100 * covered.mean() == pytest.approx(95, abs=0.5)


def test_pairing_costs_power_where_seeds_share_nothing():
    rng = generator()
    x, y = rng.normal(0.63, 0.2, (DRAWS, 3)), rng.normal(0, 0.2, (DRAWS, 3))
    assert 100 * np.mean(paired_p(x, y) < 0.05) == pytest.approx(54, abs=0.6)
    assert 100 * np.mean(welch_p(x, y) < 0.05) == pytest.approx(72, abs=0.6)


@pytest.mark.parametrize("n", [5, 8, 10])
def test_the_smaller_of_both_p_values_errs_too_often(n):
    x, y = generator().normal(50, 0.4, (2, DRAWS, n))
    rate = 100 * np.mean(np.minimum(welch_p(x, y), paired_p(x, y)) < 0.05)
    assert 6.5 - 0.6 < rate < 7.1 + 0.6


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_best_of_eight_useless_settings_is_found_without_holm_and_not_with_it(n):
    rng = generator()
    baseline, settings = rng.normal(50, 0.4, (DRAWS, n)), rng.normal(50, 0.4, (8, DRAWS, n))
    p = np.stack([welch_p(x, baseline) for x in settings], 1)
    assert 19 - 0.6 < 100 * np.mean(p.min(1) < 0.05) < 24 + 0.6
    assert 2 - 0.6 < 100 * np.mean([holm(row).min() < 0.05 for row in p[:5000]]) < 4 + 0.6
    best = np.mean(settings.mean(2).max(0) - baseline.mean(1))
    assert best == pytest.approx({3: 0.33, 5: 0.26, 10: 0.18}[n], abs=0.01)


@pytest.mark.parametrize("n", [5, 8, 10])
def test_rule_13_the_printed_sentence_claims_in_5_percent_of_null_studies(n):
    """One arm against one, and three against one baseline with Holm; counted on what is printed."""
    single = any_of_three = 0
    for values in generator(n).normal(50, 0.4, (2000, 4, n)):
        baseline, *arms = (Arm(name, points) for name, points in zip("BCDE", values, strict=True))
        found = [compare(arm, baseline) for arm in arms]
        single += " above " in sentence(found[0], found[0].p)
        p = holm([c.p for c in found])
        any_of_three += any(" above " in sentence(c, q, 3) for c, q in zip(found, p, strict=True))
    assert 100 * single / 2000 == pytest.approx(5, abs=1.5)
    assert 100 * any_of_three / 2000 <= 5.5


# --------------------------------------------------------------------------------------------------------------- words


def three(comparison) -> str:
    """The sentence within a family of three whose smallest p this is."""
    return sentence(comparison, min(1, 3 * comparison.p), 3)


@pytest.mark.parametrize(
    ("n", "gap", "text"),
    [
        (1, 0.63, "one run per method: no statement about the methods"),
        (2, 1.10, "pilot (n = 2): +1.10 points, 95 % interval -0.62 .. 2.82; no claim"),
        (3, 0.63, "pilot (n = 3): +0.63 points, 95 % interval -0.28 .. 1.54; no claim"),
        (3, 1.10, "pilot (n = 3): +1.10 points, 95 % interval 0.19 .. 2.01; no claim"),
        (4, 3.00, "pilot (n = 4): +3.00 points, 95 % interval 2.31 .. 3.69; no claim"),
        (5, 1.10, "A above B by 1.10 points [0.52, 1.68], Welch p = 0.002, Holm p = 0.007 (3 comparisons), n = 5 + 5; "
                  "few runs: gaps under 0.83 points are often missed, and one that is seen tends to look too large"),
        (7, 1.10, "A above B by 1.10 points [0.63, 1.57], Welch p < 0.001, Holm p < 0.001 (3 comparisons), n = 7 + 7; "
                  "few runs: gaps under 0.66 points are often missed, and one that is seen tends to look too large"),
        (8, 0.63, "A above B by 0.63 points [0.20, 1.06], Welch p = 0.007, Holm p = 0.021 (3 comparisons), n = 8 + 8, "
                  "for new training runs on these 10,000 images"),
        (8, -0.63, "B above A by 0.63 points [0.20, 1.06], Welch p = 0.007, Holm p = 0.021 (3 comparisons), n = 8 + 8, "
                   "for new training runs on these 10,000 images"),
        (8, 0.31, "no difference shown: +0.31 points [-0.12, 0.74]; this design sees 0.63 points in 83 % and 0.30 in "
                  "28 % of cases; 29 runs per arm would see 0.30 in 80 %"),
        (8, 0.45, "no difference shown: +0.45 points [0.02, 0.88]; this design sees 0.63 points in 83 % and 0.30 in "
                  "28 % of cases; 29 runs per arm would see 0.30 in 80 %"),  # p = 0.04, Holm p = 0.12
        (5, -0.31, "no difference shown: -0.31 points [-0.89, 0.27]; this design sees 0.63 points in 56 % and 0.30 in "
                   "17 % of cases; 29 runs per arm would see 0.30 in 80 %; few runs: gaps under 0.83 points are often "
                   "missed"),
    ],
)  # fmt: skip
def test_the_words_of_a_welch_test(n, gap, text):
    assert three(compare(exact("A", n, 50 + gap), exact("B", n))) == text


def test_the_smaller_arm_sets_the_words():
    assert three(compare(exact("A", 8, 51), exact("B", 1))) == "one run per method: no statement about the methods"
    assert three(compare(exact("A", 8, 53), exact("B", 3))).startswith("pilot (n = 3): +3.00 points")
    assert "n = 8 + 5; few runs: gaps under" in three(compare(exact("A", 8, 53), exact("B", 5)))
    assert three(compare(exact("A", 8), Arm("B", []))) == "no runs to compare: no statement about the methods"


@pytest.mark.parametrize(
    ("n", "gap", "text"),
    [
        (8, 0.63, "A above B by 0.63 points [0.34, 0.92], paired t p = 0.001, r = 0.62, 8 pairs, Holm p = 0.004 "
                  "(3 comparisons), for new training runs on these 10,000 images"),
        (5, 1.10, "A above B by 1.10 points [0.67, 1.53], paired t p = 0.002, r = 0.62, 5 pairs, Holm p = 0.006 "
                  "(3 comparisons); few runs: gaps under 0.59 points are often missed, and one that is seen tends to "
                  "look too large"),
        (8, 0.20, "no difference shown: +0.20 points [-0.09, 0.49]; this design sees 0.63 points in 99 % and 0.30 in "
                  "55 % of cases; 13 runs per arm would see 0.30 in 80 %"),
        (3, 0.63, "pilot (n = 3): +0.63 points, 95 % interval -0.24 .. 1.50; no claim"),
    ],
)  # fmt: skip
def test_the_words_of_a_paired_test(n, gap, text):
    assert three(compare(*pairs(n, gap, r=0.62), "paired")) == text


def test_failed_runs_and_lost_partners_are_counted_in_every_sentence():
    a = exact("A", 7, 50.9, seeds=(0, 1, 2, 3, 4, 5, 6), planned=8)
    b = exact("B", 8, seeds=tuple(range(8)), planned=8)
    assert three(compare(a, b)).endswith("look too large; A: 7 of 8 runs")
    assert three(compare(a, b, "paired")).endswith("; A: 7 of 8 runs; 1 run without a partner left out")
    assert three(compare(exact("A", 3, planned=8), b)).endswith("no claim; A: 3 of 8 runs")
    assert three(compare(exact("A", 1, planned=8), b)).endswith("about the methods; A: 1 of 8 runs")
    assert three(compare(Arm("A", [], planned=8), b)).endswith("about the methods; A: 0 of 8 runs")
    assert three(compare(exact("A", 8, planned=10), b)).endswith(
        "of cases; 29 runs per arm would see 0.30 in 80 %; A: 8 of 10 runs"
    )
    assert "of 8 runs" not in three(compare(b, b))


def test_outside_the_planned_family_nothing_is_claimed():
    found = compare(exact("A", 8, 50.63), exact("B", 8))
    assert sentence(found, None) == "exploratory: +0.63 points [0.20, 1.06], Welch p = 0.007, unadjusted, n = 8 + 8"


def test_a_contrast_is_told_as_the_sums_of_its_sides():
    both, inter, intra, none = (exact(name, 8, mean) for name, mean in zip("BEAN", (52, 50, 50, 50), strict=True))
    found = contrast((both, inter, intra, none), (1, -1, -1, 1))
    assert sentence(found, found.p) == (
        "B + N above E + A by 2.00 points [1.42, 2.58], Satterthwaite p < 0.001, Holm p < 0.001 (1 comparison), "
        "n = 8 + 8 + 8 + 8, for new training runs on these 10,000 images"
    )


def test_runs_that_do_not_vary_are_not_tested():
    shifted = Arm("A", np.linspace(10, 90, 8) + 0.1, tuple(range(8))), Arm("B", np.linspace(10, 90, 8), tuple(range(8)))
    assert np.ptp(shifted[0].points - shifted[1].points) > 0  # by rounding
    for found, gap in (
        (compare(Arm("A", [0.1 + 0.2] * 8), Arm("B", [0.3] * 8)), "+0.00"),
        (compare(Arm("A", [98.5] * 3), Arm("B", [99.0] * 3)), "-0.50"),
        (compare(*shifted, "paired"), "+0.10"),
    ):
        assert math.isnan(found.p) and sentence(found, found.p) == f"no test: the runs do not vary, {gap} points"


def test_a_difference_that_rounds_to_0_has_no_minus_sign():
    text = three(compare(exact("A", 3, 49.999), exact("B", 3)))
    assert text == "pilot (n = 3): +0.00 points, 95 % interval -0.91 .. 0.91; no claim"


def test_the_notes_give_power_planning_equality_and_inflation():
    open_ = compare(exact("A", 8, 50.31), exact("B", 8))
    assert significance.notes(open_, open_.p) == [
        "power at SD 0.40 (at its 80 % upper bound 0.49): 0.50 points 63 % (47 %), 0.63 points 83 % (66 %), "
        "0.30 points 28 % (20 %)",
        "planning: if the true gap were 0.31, 28 runs per arm would see it in 80 % of cases",
    ]
    few = compare(exact("A", 5, 51.1), exact("B", 5))
    inflated = "a true 0.30 that passes looks 2.1 times as large, 0.63 1.2 times"
    assert significance.notes(few, few.p) == [inflated]
    same = compare(exact("A", 12, 50.01), exact("B", 12))
    assert significance.notes(same, same.p)[-1] == "equal within 0.50 points: 90 % interval -0.27 .. 0.29"
    pilot = compare(exact("A", 3), exact("B", 3))
    assert significance.notes(pilot, pilot.p, sesoi=99) == []


def test_rows_adjust_the_planned_family_and_leave_the_rest_unadjusted():
    baseline = exact("B", 8)
    found = [compare(exact(name, 8, 50 + gap), baseline) for name, gap in (("A", 0.63), ("C", 0.1), ("D", 1.1))]
    planned, loose = significance.rows(found), significance.rows(found, planned=False)
    assert [row["p_holm"] for row in planned] == pytest.approx(holm([c.p for c in found]))
    assert "Holm p = 0.014 (3 comparisons)" in planned[0]["sentence"]
    assert all(row["p_holm"] is None and row["sentence"].startswith("exploratory") for row in loose)
    assert (planned[0]["low"], planned[0]["high"], planned[0]["n"]) == (*found[0].interval(), "8 + 8")


# -------------------------------------------------------------------------------------------------------------- images


def test_the_image_bootstrap_has_the_width_of_the_paired_standard_error_over_images():
    rng = generator()
    hard = rng.random((2000, 1)) * 0.8
    a, b = ((rng.random((2000, 75)) > hard + shift).mean(1) for shift in (0.0, 0.01))
    found = significance.image_bootstrap(a, b, rng)
    half = 100 * 1.96 * np.std(a - b, ddof=1) / math.sqrt(2000)
    assert found.difference == pytest.approx(100 * (a.mean() - b.mean()))
    assert (found.high - found.difference, found.difference - found.low) == pytest.approx((half, half), rel=0.05)
    assert found.sentence.endswith("about these two files, not the methods")


def test_resampled_means_equal_a_loop_over_the_drawn_images():
    correct = generator(1).random((3, 40))
    found = significance._resampled(correct, generator(2), resamples=5, block=2)
    rng, at = generator(2), 0
    for size in (2, 2, 1):
        for images in rng.integers(0, 40, (size, 40)):
            assert found[at] == pytest.approx(correct[:, images].mean(1))
            at += 1


def test_a_ratio_of_errors_is_recomputed_in_each_resample_and_narrower_paired_than_against_constants():
    rng = generator()
    hard = rng.random((1, 2000)) * 0.8
    a, b = (rng.binomial(5, 0.1 + hard * level, (15, 2000)) / 5 for level in (0.9, 1.0))
    low, high = significance.ratio_bootstrap(a, b, generator(1), 2000)
    mean = np.mean(a.mean(1) / b.mean(1))
    influence = (a / b.mean(1)[:, None] - b * (a.mean(1) / b.mean(1) ** 2)[:, None]).mean(0)  # the delta method's
    half = 1.96 * influence.std(ddof=1) / math.sqrt(2000)
    assert (high - mean, mean - low) == pytest.approx((half, half), rel=0.1)
    fixed = significance.ratio_bootstrap(a, b.mean(1), generator(1), 2000)
    half = 1.96 * (a / b.mean(1)[:, None]).mean(0).std(ddof=1) / math.sqrt(2000)
    assert (fixed[1] - mean, mean - fixed[0]) == pytest.approx((half, half), rel=0.1)
    assert fixed[1] - fixed[0] > 2 * (high - low)  # images that are hard for one net are so for the other
    assert all(map(math.isnan, significance.ratio_bootstrap(a, b * (np.arange(2000) < 1), generator(1), 50)))


def test_two_levels_give_the_run_and_the_image_variance_and_warn_below_10_runs():
    rng = generator()
    image, run = rng.random(1000) * 0.5, rng.normal(0, 0.02, (20, 1))
    correct = rng.random((20, 1000)) < 0.3 + image + run
    a, b = correct[:10], correct[10:]
    both = significance.run_and_image_bootstrap(a, b, rng, 2000)
    assert both.difference == pytest.approx(100 * (a.mean() - b.mean()))
    runs = compare(Arm("A", 100 * a.mean(1)), Arm("B", 100 * b.mean(1)))
    assert both.high - both.low > 2 * 1.96 * runs.standard_error * 0.9
    shared = significance.run_and_image_bootstrap(a, a[::-1], rng, 2000)  # the same images for both arms
    assert shared.high - shared.low < 2 * 1.96 * runs.standard_error * 1.2
    assert both.scope == "also for new images"
    assert (
        significance.run_and_image_bootstrap(a[:9], b, rng, 10).scope == "also for new images, too narrow below 10 runs"
    )


# ----------------------------------------------------------------------------------------------------------------- long


@pytest.mark.stress
def test_the_image_bootstrap_covers_95_percent_of_image_samples():
    rng, covered, trials, images = generator(), 0, 2000, 400
    for _ in range(trials):
        hard = rng.random(images) * 0.8
        a, b = (rng.binomial(75, 1 - hard - shift) / 75 for shift in (0.0, 0.02))
        found = significance.image_bootstrap(a, b, rng, 1000)
        covered += found.low < 2.0 < found.high
    assert 100 * covered / trials == pytest.approx(95, abs=2)


@pytest.mark.parametrize(("disagree", "rate"), [(0.10, 27), (0.15, 18), (0.20, 12), (0.25, 8)])
def test_mcnemar_used_for_methods_would_condemn_equal_ones(disagree, rate):
    """Two files of one method differ by the SD over runs, 0.4 points, times sqrt 2, on the one test set there is."""
    total = int(disagree * 10_000)
    net = generator().normal(0, 100 * 0.4 * math.sqrt(2), DRAWS)
    only_a = np.rint((total + net) / 2).astype(int)
    rejected = np.array([significance.mcnemar(*files(total // 2 + k, total)).p < 0.05 for k in range(300)])
    assert 100 * rejected[np.abs(only_a - total // 2)].mean() == pytest.approx(rate, abs=1)


@pytest.mark.stress
@pytest.mark.parametrize("sd", TABLE)
def test_the_power_table_by_brute_force(sd):
    rng, draws = generator(5), 200_000
    for n, chance in zip((3, 5, 8, 10), TABLE[sd][0], strict=True):
        x, y = rng.normal(0.63, sd, (draws, n)), rng.normal(0, sd, (draws, n))
        rate = np.mean(stats.ttest_ind(x, y, axis=1, equal_var=False).pvalue < 0.05)
        assert rate == pytest.approx(chance, abs=0.01) and rate == pytest.approx(power(0.63, sd, (n, n)), abs=0.005)
