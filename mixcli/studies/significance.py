"""significance.py: which differences between training runs may be claimed, and in which words.

The unit of analysis is the training run: every test takes one number per run, in points (percent), and speaks about new
runs. Images are units only where two files are compared, and the sentence then says so. Sources:

  `satterthwaite`         F. Satterthwaite, Biometrics Bulletin 2, 1946; of two arms: B. Welch's t, Biometrika 34, 1947
  `Comparison.g`          L. Hedges, Journal of Educational Statistics 6, 1981
  `holm`                  S. Holm, Scandinavian Journal of Statistics 6, 1979
  `equal`                 D. Schuirmann's two one-sided tests, 1987, read off the 90 % interval
  `mcnemar`               Q. McNemar, Psychometrika 12, 1947, in its exact form
  `sd_upper_factor`       R. Browne, Statistics in Medicine 14, 1995: plan with an upper bound of a pilot's SD
  `exaggeration`          A. Gelman, J. Carlin, Perspectives on Psychological Science 9, 2014 (type M error)
  "on these images"       K. Jordan, ICLR 2024, arXiv 2304.01910: run-to-run variance is largely test-set noise

Chosen: no claim below 5 runs per arm, "few runs" below 8; power at gaps fixed beforehand, never at the observed one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.random import Generator, Philox
from scipy import stats
from scipy.optimize import root_scalar
from scipy.special import gammaincinv, gammaln, ndtr, stdtr, stdtrit

from mixcli.errors import UserError, nearest

Test = Literal["welch", "paired", "contrast"]
Weights = tuple[float, ...]
Verdict = Literal["no run", "one run", "pilot", "constant", "exploratory", "above", "open"]

WEIGHTS: dict[str, Weights] = {"welch": (1.0, -1.0), "paired": (1.0,)}  # a paired test has one arm: the differences
ALPHA, POWER = 0.05, 0.8
CLAIM_RUNS, MANY_RUNS = 5, 8
GAPS = (0.63, 0.30)  # points: MiAMix over the best single mix on CIFAR-100-C (arXiv 2308.02804), and about half of it
DRAWS = 4096  # of the variances; the power of 3 + 3 runs is then known to 0.002, of 5 + 5 and more to 0.0005
FILES_ONLY = "about these two files, not the methods"


@dataclass(frozen=True, eq=False)
class Arm:
    """The finished runs of one method.

    name     how sentences call it
    points   (n,) one number per run, in points: 58.99, not 0.5899
    seeds    (n,) what names the pairs of a paired test; None where no run has a partner
    planned  runs the plan asked for; failed ones are counted in every sentence; None: all finished
    """

    name: str
    points: np.ndarray
    seeds: tuple[int, ...] | None = None
    planned: int | None = None

    def __post_init__(self) -> None:
        points = np.array(self.points, np.float64)
        if points.ndim != 1:
            raise UserError(
                "usage", self.name, "one number per training run is needed", f"shape {points.shape}", "shape (runs,)",
                "Average over images, corruptions and epochs inside each run first.",
            )  # fmt: skip
        if not np.isfinite(points).all():
            raise UserError("usage", self.name, "a value is not finite", hint="Leave out the run and say `planned`.")
        seeds = None if self.seeds is None else tuple(self.seeds)
        if seeds is not None and (len(seeds) != len(points) or len(set(seeds)) != len(seeds)):
            expected = f"{len(points)} different ones"
            raise UserError("usage", self.name, "each run needs a seed of its own", list(seeds), expected)
        if self.planned is not None and self.planned < len(points):
            raise UserError("usage", self.name, "more runs than planned", len(points), f"at most {self.planned}")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "seeds", seeds)


@dataclass(frozen=True)
class Comparison:
    """A difference between arms, in points, and what is known of it; nan where there are too few runs.

    a, b            the arms; of a contrast, the arms with positive and with negative weight
    runs, weights   runs per arm and the weights of their means; of a paired test, one entry: the pairs
    difference      a minus b
    standard_error, df, p   of the two-sided t test
    g               Hedges' g over the pooled SD of the arms; of a paired test too, so that the two can be compared
    r               correlation of the runs that share a seed, whatever the test; nan below 3 such pairs
    sd              what power is stated for: the pooled SD over runs; of a paired test, that of the differences
    unpaired        runs that a paired test leaves out
    incomplete      "NAME: 7 of 8 runs" for each arm with failed runs
    """

    a: str
    b: str
    test: Test
    runs: tuple[int, ...]
    weights: Weights
    difference: float
    standard_error: float
    df: float
    p: float
    sd: float
    g: float
    r: float
    unpaired: int
    incomplete: tuple[str, ...]

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The t interval of the difference, low and high, in points."""
        half = float(stdtrit(self.df, (1 + confidence) / 2)) * self.standard_error
        return self.difference - half, self.difference + half


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % t interval of the mean of (n,) values; nan for fewer than two."""
    n = len(values)
    if n < 2:
        return float("nan"), float("nan")
    half = float(stdtrit(n - 1, 0.975) * np.std(values, ddof=1)) / n**0.5
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def compare(a: Arm, b: Arm, test: Literal["welch", "paired"] = "welch") -> Comparison:
    """Arm `a` minus arm `b`: Welch's t test over all runs, or the paired t test over the runs that share a seed.

    The plan names the test before the first run: taking the smaller of both p-values errs in 7 % of cases, not 5 %.
    """
    if test not in WEIGHTS:
        raise UserError("usage", "test", "unknown test", test, hint=nearest(test, WEIGHTS))
    x, y = _pairs(a, b)
    if test == "welch":
        return _comparison(test, a.name, b.name, (a, b), (a.points, b.points), WEIGHTS[test], _correlation(x, y))
    if a.seeds is None or b.seeds is None:
        raise UserError("usage", "test", "pairs are formed by seed, and an arm has none", hint="Use test = welch.")
    sd = float(np.sqrt((_variance(x) + _variance(y)) / 2))
    unpaired = len(a.points) + len(b.points) - 2 * len(x)
    return _comparison(test, a.name, b.name, (a, b), (x - y,), WEIGHTS[test], _correlation(x, y), sd, unpaired)


def contrast(arms: Sequence[Arm], weights: Sequence[float]) -> Comparison:
    """The sum of weight times mean: weights 1, -1, -1, 1 of both, one, other and neither measure a synergy."""
    if len(weights) != len(arms) or abs(sum(weights)) > 1e-9 or not all(weights):
        raise UserError("usage", "weights", "one per arm is needed, none 0, with sum 0", list(weights))
    a, b = (_side(arms, np.multiply(sign, weights)) for sign in (1, -1))
    return _comparison("contrast", a, b, tuple(arms), tuple(arm.points for arm in arms), tuple(map(float, weights)))


def wilcoxon(a: Arm, b: Arm) -> float:
    """Two-sided p of the signed-rank test over runs that share a seed; refused below 6 pairs that differ."""
    x, y = _pairs(a, b)
    pairs = np.count_nonzero(x != y)
    if pairs < 6:
        raise UserError("usage", "wilcoxon", f"6 pairs needed; {pairs} cannot reach p < 0.05")
    result: Any = stats.wilcoxon(x, y)
    return float(result.pvalue)


def satterthwaite(variances: np.ndarray, runs: Sequence[int], weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """Standard error and degrees of freedom of the sum of weight times mean; variances (..., arms), not all 0."""
    n = np.asarray(runs, np.float64)
    parts = np.square(weights) * variances / n  # (..., arms)
    squared = parts.sum(-1)
    return np.sqrt(squared), squared**2 / (parts**2 / (n - 1)).sum(-1)


def p_value(t: np.ndarray | float, df: np.ndarray | float) -> np.ndarray:
    """Two-sided p of a t statistic."""
    return 2 * stdtr(df, -np.abs(t))


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjusted p-values (m,) of the m planned comparisons; nan, a comparison not possible, stays and is counted."""
    p = np.asarray(p, np.float64)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def equal(comparison: Comparison, sesoi: float) -> bool:
    """Whether the 90 % interval lies inside +-`sesoi`, the smallest gap worth a claim, in points."""
    low, high = comparison.interval(0.9)
    return -sesoi < low and high < sesoi


def _comparison(
    test: Test, a: str, b: str, arms: tuple[Arm, ...], samples: tuple[np.ndarray, ...], weights: Weights,
    r: float = math.nan, sd_of_arms: float | None = None, unpaired: int = 0,
) -> Comparison:  # fmt: skip
    runs = tuple(len(sample) for sample in samples)
    difference = sum(w * sample.mean() for w, sample in zip(weights, samples, strict=True)) if min(runs) else math.nan
    standard_error = df = p = sd = g = math.nan
    if min(runs) > 1:
        variances, freedom = np.array([_variance(sample) for sample in samples]), np.subtract(runs, 1)
        sd = float(np.sqrt(variances @ freedom / freedom.sum()))
        g = _hedges(difference, sd if sd_of_arms is None else sd_of_arms, int(freedom.sum()))
        standard_error = 0.0
        if variances.any():
            standard_error, df = map(float, satterthwaite(variances, runs, weights))
            p = float(p_value(difference / standard_error, df))
    incomplete = tuple(
        f"{arm.name}: {len(arm.points)} of {arm.planned} runs" for arm in arms if (arm.planned or 0) > len(arm.points)
    )
    difference = float(difference)
    return Comparison(a, b, test, runs, weights, difference, standard_error, df, p, sd, g, r, unpaired, incomplete)


def _pairs(a: Arm, b: Arm) -> tuple[np.ndarray, np.ndarray]:
    """The values of the runs whose seed both arms have, in the order of the seeds; empty where an arm has no seeds."""
    of_a, of_b = (dict(zip(arm.seeds or (), arm.points, strict=False)) for arm in (a, b))
    shared = sorted(of_a.keys() & of_b.keys())
    return np.array([of_a[seed] for seed in shared]), np.array([of_b[seed] for seed in shared])


def _variance(sample: np.ndarray) -> float:
    """Of one sample, n - 1 in the denominator; exactly 0 where rounding alone keeps the values apart."""
    return float(sample.var(ddof=1)) if len(sample) > 1 and np.ptp(sample) > 1e-9 else 0.0


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1]) if len(x) > 2 and _variance(x) and _variance(y) else math.nan


def _hedges(difference: float, sd: float, df: int) -> float:
    """The difference in SDs, its small-sample bias removed; nan where df < 2, or nothing varies."""
    if df < 2 or sd == 0:
        return math.nan
    return float(difference / sd * np.exp(gammaln(df / 2) - gammaln((df - 1) / 2)) / math.sqrt(df / 2))


def _side(arms: Sequence[Arm], weights: np.ndarray) -> str:
    return " + ".join(
        arm.name if w == 1 else f"{w:g} {arm.name}" for arm, w in zip(arms, weights, strict=True) if w > 0
    )


# ----------------------------------------------------------------------------------------- Power: what a design can see


@lru_cache(maxsize=1024)
def _critical(runs: tuple[int, ...], weights: Weights) -> tuple[np.ndarray, float]:
    """Differences (DRAWS,) from which simulated tests reject, and the standard deviation of a difference; SD 1.

    Only the variances are drawn, one per stratum of their law and arm: given these, the chance that the test rejects
    is a normal probability. The generator is keyed, so all gaps and SDs meet the same draws.
    """
    n = np.asarray(runs)
    strata = Generator(Philox(key=0)).permuted(np.tile(np.arange(DRAWS)[:, None], len(n)), axis=0)
    variances = gammaincinv((n - 1) / 2, (strata + 0.5) / DRAWS) * 2 / (n - 1)  # chi-square over its df, (DRAWS, arms)
    standard_error, df = satterthwaite(variances, runs, weights)
    return stdtrit(df, 1 - ALPHA / 2) * standard_error, float(np.sqrt((np.square(weights) / n).sum()))


def power(gap: float, sd: float, runs: tuple[int, ...], weights: Weights = WEIGHTS["welch"]) -> float:
    """The chance that the two-sided 5 % test sees a true `gap`; both in points, `sd` over runs, alike in all arms.

    Computed on the test itself, not on its equal-variance or normal approximation, which promise too much (n = 3 + 3).
    """
    critical, spread = _critical(runs, weights)
    above, below = ndtr((gap / sd - critical) / spread), ndtr((-gap / sd - critical) / spread)
    return float(np.mean(above + below))


def runs_for(gap: float, sd: float, weights: Weights = WEIGHTS["welch"], chance: float = POWER) -> int:
    """The smallest number of runs per arm (of pairs) that sees `gap` > 0 with at least this chance."""
    quantiles = stats.norm.ppf(1 - ALPHA / 2) + stats.norm.ppf(chance)
    n = max(2, math.ceil((quantiles * sd / gap) ** 2 * np.square(weights).sum()))  # a t test never needs fewer
    while power(gap, sd, (n,) * len(weights), weights) < chance:
        n += 1
    return n


@lru_cache(maxsize=1024)
def _visible(runs: tuple[int, ...], weights: Weights) -> float:
    high = 2.0
    while power(high, 1, runs, weights) < POWER:
        high *= 2
    return root_scalar(lambda gap: power(gap, 1, runs, weights) - POWER, bracket=(0, high)).root


def visible_gap(sd: float, runs: tuple[int, ...], weights: Weights = WEIGHTS["welch"]) -> float:
    """The gap, in points, that these runs see in 80 % of cases."""
    return sd * _visible(runs, weights)


def exaggeration(gap: float, sd: float, runs: tuple[int, ...], weights: Weights = WEIGHTS["welch"]) -> float:
    """How many times too large a true `gap` looks, on average and whatever its sign, where the test sees it."""
    critical, spread = _critical(runs, weights)
    size = 0.0
    for mean in (gap / sd, -gap / sd):  # E[D; D > critical] of a normal D
        z = (mean - critical) / spread
        size += np.mean(mean * ndtr(z) + spread * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi))
    return float(size / power(gap, sd, runs, weights) / (gap / sd))


def sd_upper_factor(df: int, confidence: float = 0.8) -> float:
    """The factor from an estimated SD to its one-sided upper bound, by the chi-square law: 1.56 for 3 + 3 runs."""
    return float(np.sqrt(df / stats.chi2.ppf(1 - confidence, df)))


# ---------------------------------------------------------------------------------------------------------------- Words


def verdict(comparison: Comparison, p_holm: float | None) -> Verdict:
    """What may be said: `p_holm` is the p adjusted over the planned family, None outside it."""
    n = min(comparison.runs)
    if n < 2:
        return "one run" if n else "no run"
    if comparison.standard_error == 0:
        return "constant"
    if n < CLAIM_RUNS:
        return "pilot"
    if p_holm is None:
        return "exploratory"
    return "above" if p_holm < ALPHA else "open"


def sentence(comparison: Comparison, p_holm: float | None, family: int = 1, images: int | None = 10_000) -> str:
    """The one sentence a report prints, its words set by the runs of the smaller arm; `family` planned comparisons."""
    counts = list(comparison.incomplete)
    if comparison.unpaired:
        counts.append(f"{_count(comparison.unpaired, 'run')} without a partner left out")
    return "; ".join([*_claim(comparison, p_holm, family, images), *counts])


def _claim(c: Comparison, p_holm: float | None, family: int, images: int | None) -> Iterator[str]:
    """The parts of the sentence, to be joined by semicolons."""
    said, n = verdict(c, p_holm), min(c.runs)
    difference, (low, high) = f"{_points(c.difference, '+')} points", c.interval()
    if said == "no run":
        yield "no runs to compare: no statement about the methods"
    elif said == "one run":
        yield "one run per method: no statement about the methods"
    elif said == "pilot":
        yield f"pilot (n = {n}): {difference}, 95 % interval {_points(low)} .. {_points(high)}"
        yield "no claim"
    elif said == "constant":
        yield f"no test: the runs do not vary, {difference}"
    elif said == "exploratory":
        yield f"exploratory: {difference} [{_points(low)}, {_points(high)}], {_evidence(c, 'unadjusted')}"
    elif said == "above":
        above, below = (c.a, c.b) if c.difference > 0 else (c.b, c.a)
        low, high = sorted((abs(low), abs(high)))
        adjusted = f"Holm {p_text(p_holm)} ({_count(family, 'comparison')})"
        yield (
            f"{above} above {below} by {_points(abs(c.difference))} points [{_points(low)}, {_points(high)}], "
            + _evidence(c, adjusted)
            + (
                ""
                if n < MANY_RUNS
                else f", for new training runs on these {'' if images is None else f'{images:,} '}images"
            )
        )
        if n < MANY_RUNS:
            yield f"{_few_runs(c)}, and one that is seen tends to look too large"
    else:
        large, small = GAPS
        chances = [f"{100 * power(gap, c.sd, c.runs, c.weights):.0f} %" for gap in GAPS]
        yield f"no difference shown: {difference} [{_points(low)}, {_points(high)}]"
        yield f"this design sees {large:.2f} points in {chances[0]} and {small:.2f} in {chances[1]} of cases"
        yield f"{runs_for(small, c.sd, c.weights)} runs per arm would see {small:.2f} in 80 %"
        if n < MANY_RUNS:
            yield _few_runs(c)


def notes(comparison: Comparison, p_holm: float | None, sesoi: float = 0.5) -> list[str]:
    """The lines below the sentence: power and planning, a pass of the test of equality, the size of lucky claims."""
    c, said, lines = comparison, verdict(comparison, p_holm), []
    if said == "one run":
        lines.append("McNemar's test compares two checkpoints: " + FILES_ONLY)
    if said in ("open", "exploratory"):
        upper = c.sd * sd_upper_factor(sum(c.runs) - len(c.runs))
        chances = ", ".join(
            f"{gap:.2f} points {100 * power(gap, c.sd, c.runs, c.weights):.0f} % "
            f"({100 * power(gap, upper, c.runs, c.weights):.0f} %)"
            for gap in dict.fromkeys((sesoi, *GAPS))
        )
        lines.append(f"power at SD {c.sd:.2f} (at its 80 % upper bound {upper:.2f}): {chances}")
        if abs(c.difference) >= 0.005:
            needed = _count(runs_for(abs(c.difference), c.sd, c.weights), "run")
            gap = _points(abs(c.difference))
            lines.append(f"planning: if the true gap were {gap}, {needed} per arm would see it in 80 % of cases")
    if said in ("open", "exploratory", "above") and equal(c, sesoi):
        low, high = c.interval(0.9)
        lines.append(f"equal within {sesoi:.2f} points: 90 % interval {_points(low)} .. {_points(high)}")
    if said == "above" and min(c.runs) < MANY_RUNS:
        large, small = (exaggeration(gap, c.sd, c.runs, c.weights) for gap in GAPS)
        lines.append(
            f"a true {GAPS[1]:.2f} that passes looks {small:.1f} times as large, {GAPS[0]:.2f} {large:.1f} times"
        )
    return lines


def rows(
    comparisons: Sequence[Comparison], planned: bool = True, images: int | None = 10_000, sesoi: float = 0.5
) -> list[dict[str, Any]]:
    """One row per comparison: numbers in points, Holm over all of them if `planned`, None in its place if not."""
    adjusted = holm([c.p for c in comparisons]).tolist() if planned else [None] * len(comparisons)
    return [
        {
            "a": c.a, "b": c.b, "difference": c.difference, "low": c.interval()[0], "high": c.interval()[1],
            "p": c.p, "p_holm": p_holm, "g": c.g, "n": _runs(c), "r": c.r, "test": c.test, "df": c.df, "sd": c.sd,
            "sentence": sentence(c, p_holm, len(comparisons), images), "notes": notes(c, p_holm, sesoi),
        }
        for c, p_holm in zip(comparisons, adjusted, strict=True)
    ]  # fmt: skip


def _evidence(c: Comparison, adjusted: str) -> str:
    if c.test == "paired":
        return f"paired t {p_text(c.p)}, r = {c.r:.2f}, {c.runs[0]} pairs, {adjusted}"
    return f"{'Welch' if c.test == 'welch' else 'Satterthwaite'} {p_text(c.p)}, {adjusted}, n = {_runs(c)}"


def _few_runs(c: Comparison) -> str:
    return f"few runs: gaps under {visible_gap(c.sd, c.runs, c.weights):.2f} points are often missed"


def _runs(c: Comparison) -> str:
    return " + ".join(map(str, c.runs))


def _points(value: float, sign: str = "") -> str:
    return f"{value:{sign}z.2f}"  # z: no "-0.00"


def p_text(p: float | None) -> str:
    """`p = 0.021`, or `p < 0.001`."""
    return "p < 0.001" if p is not None and p < 0.001 else f"p = {p:.3f}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


# ----------------------------------------------------------------------------- Two checkpoints, and the images as units


@dataclass(frozen=True)
class McNemar:
    """Two checkpoints on the same images: how many only `a`, only `b` has right, and the exact two-sided p."""

    a: str
    b: str
    only_a: int
    only_b: int
    images: int
    p: float

    @property
    def sentence(self) -> str:
        net = _points(100 * (self.only_a - self.only_b) / self.images, "+")
        return (
            f"{self.a} against {self.b}: {net} points on {self.images:,} images, {self.only_a} right in the first "
            f"only, {self.only_b} in the second only, McNemar {p_text(self.p)}; {FILES_ONLY}"
        )


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray, a: str = "A", b: str = "B") -> McNemar:
    """The exact binomial test on the images where two checkpoints disagree; both (images,) bool."""
    right_a, right_b = (right == 1 for right in _per_image(correct_a, correct_b, 1))
    if not all(set(np.unique(right)) <= {0, 1} for right in (correct_a, correct_b)):
        raise UserError("usage", "correct", "one version per image is needed, right or wrong", expected="bool")
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    disagree = only_a + only_b
    p = float(stats.binomtest(only_a, disagree).pvalue) if disagree else 1.0
    return McNemar(a, b, only_a, only_b, len(right_a), p)


@dataclass(frozen=True)
class Bootstrap:
    """A difference in points, its 95 % percentile interval, and what it speaks about."""

    difference: float
    low: float
    high: float
    scope: str

    @property
    def sentence(self) -> str:
        return f"{_points(self.difference, '+')} points [{_points(self.low)}, {_points(self.high)}], {self.scope}"


def image_bootstrap(a: np.ndarray, b: np.ndarray, rng: Generator, resamples: int = 10_000) -> Bootstrap:
    """Two checkpoints, images resampled; (images,) in 0 .. 1 each: the share of an image's cells that are right.

    An image is one cluster: its 75 corrupted versions are not 75 images, or every difference would be significant.
    """
    a, b = _per_image(a, b, 1)
    return _interval(_resampled((a - b)[None], rng, resamples)[:, 0], float(np.mean(a - b)), FILES_ONLY)


def run_and_image_bootstrap(a: np.ndarray, b: np.ndarray, rng: Generator, resamples: int = 10_000) -> Bootstrap:
    """Two methods, runs resampled within each arm and images over both; (runs, images) in 0 .. 1 each.

    A second line beside the test over runs; with fewer than 10 runs its interval is too narrow, and its scope says so.
    """
    a, b = _per_image(a, b, 2)
    runs = _resampled(np.concatenate([a, b]), rng, resamples)  # (resamples, runs of a and b)
    means = []
    for mine in (runs[:, : len(a)], runs[:, len(a) :]):
        drawn = rng.integers(0, mine.shape[1], mine.shape)
        means.append(np.take_along_axis(mine, drawn, 1).mean(1))
    scope = "also for new images" + ("" if min(len(a), len(b)) >= 10 else ", too narrow below 10 runs")
    return _interval(means[0] - means[1], float(a.mean() - b.mean()), scope)


def ratio_bootstrap(a: np.ndarray, b: np.ndarray, rng: Generator, resamples: int = 10_000) -> tuple[float, float]:
    """A 95 % percentile interval of the mean of k ratios of sums over images; of one file, images resampled.

    a  (k, images), the numerators
    b  (k, images) of the same images: both sums are then recomputed in each resample; or (k,) means that are taken as
       exact, and the interval is conditional on them
    nan where a denominator is 0 in some resample.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    means = _resampled(np.concatenate([a, b]) if b.ndim == 2 else a, rng, resamples)
    above, below = (means[:, : len(a)], means[:, len(a) :]) if b.ndim == 2 else (means, b)
    if not (below > 0).all():
        return math.nan, math.nan
    low, high = np.percentile((above / below).mean(1), [100 * ALPHA / 2, 100 - 100 * ALPHA / 2])
    return float(low), float(high)


def _resampled(correct: np.ndarray, rng: Generator, resamples: int, block: int = 200) -> np.ndarray:
    """Means (resamples, k) of the rows of `correct` (k, images) over images drawn with replacement, alike for all rows.

    Each block of resamples is one matrix product, of how often each image was drawn with what it is worth.
    """
    images, means = correct.shape[1], []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.integers(0, images, (size, images)) + images * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images)
        means.append(counts @ correct.T / images)
    return np.concatenate(means)


def _interval(differences: np.ndarray, difference: float, scope: str) -> Bootstrap:
    low, high = np.percentile(differences, [100 * ALPHA / 2, 100 - 100 * ALPHA / 2])
    return Bootstrap(100 * difference, 100 * float(low), 100 * float(high), scope)


def _per_image(a: np.ndarray, b: np.ndarray, ndim: int) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64; refused unless they have `ndim` dimensions and the same number of images, the last."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != ndim or b.ndim != ndim or a.shape[-1] != b.shape[-1] or not a.size or not b.size:
        expected = "(images,) twice" if ndim == 1 else "(runs, images) twice, the same images"
        raise UserError("usage", "correct", "not the same images", f"shapes {a.shape} and {b.shape}", expected)
    return a, b
