"""comparison.py: arms of training runs, compared: means, intervals, planned tests and the sentences they allow.

A `Plan` says beforehand what is compared, by which test, and how many runs each arm was to have; `report` holds the
runs against it. One number per run enters a test (significance.py); all else stands beside it as a column. Runs named
on the command line (`of_runs`) and tables of other programs (`of_csv`) come with a plan made up for them, and their
report says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mixcli import options, runs, toml
from mixcli.engine import bits
from mixcli.errors import UserError, nearest
from mixcli.recipe import Train
from mixcli.report import export
from mixcli.runs import Run
from mixcli.studies import significance
from mixcli.studies.scores import Score, Warn, score
from mixcli.studies.scores import scores_of as scores_of
from mixcli.studies.significance import Arm
from mixcli.studies.written import VERSUS_BASELINE

Test = Literal["welch", "paired"]
Select = Literal["last", "median_last_10", "best_on_val"]
Family = Literal["arms-vs-baseline"] | tuple[tuple[str, str], ...]

TESTS = {"welch": "Welch's t test", "paired": "paired t test over runs of one seed"}
SELECTED: dict[str, tuple[str, str]] = {  # what it adds to the metric's name, and how a reader is told
    "last": ("", "last epoch"),
    "median_last_10": ("_median_last10", "median of the last ten evaluations"),
    "best_on_val": ("_best_on_val", "epoch of the best validation accuracy"),
}
ORACLES = ("oracle_test_best", "oracle", "best", "best_on_test")
NOT_POINTS = ("test.nll", "val.nll", "epochs_to_90", "early_spread", "seconds", "seconds_per_step")
COLUMNS = {  # the follow-up outcomes of every study, by the headings of their table
    "test.top1_median_last10": "median of last 10", "test.nll": "nll", "epochs_to_90": "epochs to 90 %",
    "curve_area": "curve area", "early_spread": "early spread", "gap": "train - test",
    "wrong_labels_learnt": "wrong labels learnt",
}  # fmt: skip
BALANCED = "test.balanced"
ALIKE = {"dataset": "data set", "epochs": "epochs", "batch": "batch", "per_class": "images per class",
         "val_fraction": "held out", "images_per_step": "images per step"}  # fmt: skip
FRACTION = 0.01  # by which the images per step may differ: batches are filled up by chance


@dataclass(frozen=True)
class Plan:
    """What is compared and how, fixed before the first run.

    arms       each with the seeds of its planned runs, in the order of the tables
    metric     the one number of a run that is tested, an accuracy in points
    select     the epoch it is taken from; the best test epoch is none of the choices
    baseline   the arm that others are held against
    family     the planned comparisons, over which Holm adjusts: each arm against the baseline, or (a, b) pairs: a - b
    contrasts  further planned comparisons: name -> weight of each arm, of sum 0
    sesoi      smallest gap worth a claim, in points
    images     how many test images the metric is measured on; None where unknown
    follow     further columns, after those of every study, and their headings
    unequal    arm -> what it was given more or less of than the others, where the runs themselves do not show it
    post_hoc   why the plan is not one made before the runs; empty where it is
    seeded     whether runs of one seed belong together; False: seeds only number the runs
    told       how the metric was taken, for readers, where `select` does not say it
    """

    title: str
    arms: Mapping[str, Sequence[int]]
    metric: str = "test.top1"
    select: Select = "last"
    test: Test = "welch"
    baseline: str | None = None
    family: Family = VERSUS_BASELINE
    contrasts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    sesoi: float = 0.5
    dataset: str = ""
    images: int | None = None
    follow: Mapping[str, str] = field(default_factory=dict)
    unequal: Mapping[str, str] = field(default_factory=dict)
    post_hoc: str = ""
    seeded: bool = True
    told: str = ""

    @property
    def key(self) -> str:
        """The name of the compared score. Raises UserError where it may not be compared."""
        for subject, given in (("metric", self.metric), ("select", self.select)):
            if given in ORACLES:
                problem = "the best test epoch is chosen by looking at the test images, so it is not compared"
                raise UserError("config", subject, problem, given, f"select as one of {', '.join(SELECTED)}")
        if self.select not in SELECTED:
            raise UserError("config", "select", "unknown", self.select, hint=nearest(self.select, SELECTED))
        if self.metric in NOT_POINTS:
            raise UserError("config", "metric", "not in points, so it stands beside the comparison as a column",
                            self.metric, "an accuracy such as test.top1")  # fmt: skip
        return self.metric + SELECTED[self.select][0]

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The planned differences between two arms, a - b."""
        if not isinstance(self.family, str):
            return self.family
        if self.baseline is not None:
            return tuple((arm, self.baseline) for arm in self.arms if arm != self.baseline)
        return tuple(combinations(self.arms, 2))


@dataclass(frozen=True)
class Row:
    """An arm of a report; nan where there are too few runs.

    points   (n,) the metric of each run, in the order of `seeds`
    low, high   95 % t interval of the mean
    columns  the follow-up outcomes, as means over the runs; None where a run lacks one
    missing  seed -> why this planned run has no score
    unequal  in what the arm was treated unlike the baseline; empty where in nothing
    """

    arm: str
    seeds: tuple[int, ...]
    points: tuple[float, ...]
    planned: int
    mean: float
    sd: float
    median: float
    low: float
    high: float
    columns: Mapping[str, float | None]
    missing: Mapping[int, str]
    unequal: str

    @property
    def n(self) -> str:
        """`8`, or `7 of 8` where runs are missing."""
        return str(self.planned) if len(self.points) == self.planned else f"{len(self.points)} of {self.planned}"


@dataclass(frozen=True)
class Report:
    """What tables, files and figures are made of.

    facts        what must be known to read the numbers: name, text
    rows         one per arm, in the plan's order
    comparisons  rows of significance.py with `verdict`, `planned`, `family` (its size) and `unequal`: the planned ones
                 first, Holm-adjusted; then the exploratory ones, unadjusted
    notes        further lines, such as McNemar's sentence about two files
    details      further tables, together one file more
    """

    plan: Plan
    facts: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    comparisons: tuple[Mapping[str, Any], ...]
    scores: tuple[Score, ...]
    columns: Mapping[str, str]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    details: tuple[export.Detail, ...] = ()

    def document(self) -> dict[str, Any]:
        """Plain values, for --json."""
        return {
            "title": self.plan.title,
            "facts": dict(self.facts),
            "arms": [
                {**vars(row), "n": len(row.points), "columns": dict(row.columns), "missing": dict(row.missing)}
                for row in self.rows
            ],
            "comparisons": [dict(c) for c in self.comparisons],
            "notes": list(self.notes),
            "details": {detail.name: [dict(row) for row in detail.rows] for detail in self.details},
            "warnings": list(self.warnings),
        }


def report(
    plan: Plan, scores: Iterable[Score], failed: Mapping[str, Mapping[int, str]] | None = None,
    notes: Iterable[str] = (),
) -> Report:  # fmt: skip
    """Holds finished runs against their plan.

    scores  in any order; those of arms or seeds that are not planned are refused
    failed  arm -> seed -> why this planned run has no score
    Raises UserError: config for a metric that no run has or that may not be compared, usage for a run out of plan.
    """
    scores, key = _in_order(plan, scores), plan.key
    if plan.test not in TESTS:
        raise UserError("usage", "test", "unknown", plan.test, hint=nearest(plan.test, TESTS))
    produced = {name for one in scores for name, value in one.values.items() if value is not None}
    if scores and key not in produced:
        known = sorted(produced - {*ORACLES, *NOT_POINTS})
        raise UserError("config", "metric", "not produced by these runs", key, f"one of {', '.join(known)}")
    scored = [one for one in scores if one.values.get(key) is not None]
    reasons = _reasons(scores, key, failed or {})
    unequal = _unequal(plan, scores)
    columns = _balanced(key, scores) | COLUMNS | dict(plan.follow)
    columns = {name: told for name, told in columns.items()
               if name != key and (name in produced or name in plan.follow)}  # fmt: skip
    rows = tuple(
        _row(plan, arm, [one for one in scored if one.arm == arm], key, reasons.get(arm, {}), columns, unequal)
        for arm in plan.arms
    )
    facts = (*_facts(plan, scores), *_programs(scores))
    return Report(plan, facts, rows, tuple(_compared(plan, rows)), scores, columns, tuple(notes), _warnings(scores))


def write(found: Report, folder: Path) -> None:
    """runs.csv, results.csv, comparisons.csv, table.md, table.tex, figure.png and cost.csv; all but the last repeat."""
    export.write(found, folder)


# ------------------------------------------------------------------------------------------------------ arms and tests


def _in_order(plan: Plan, scores: Iterable[Score]) -> tuple[Score, ...]:
    arms = list(plan.arms)
    scores = list(scores)
    for one in scores:
        if one.seed not in plan.arms.get(one.arm, ()):
            raise UserError("usage", f"{one.arm} seed {one.seed}", "not in the plan")
    scores = sorted(scores, key=lambda one: (arms.index(one.arm), one.seed))
    for one, following in zip(scores, scores[1:], strict=False):
        if (one.arm, one.seed) == (following.arm, following.seed):
            raise UserError("usage", f"{one.arm} seed {one.seed}", "given twice", hint="A run is one number")
    return tuple(scores)


def _reasons(scores: Iterable[Score], key: str, failed: Mapping[str, Mapping[int, str]]) -> dict[str, dict[int, str]]:
    """arm -> seed -> why a run is not counted: it failed, or lacks the compared score."""
    reasons = {arm: dict(seeds) for arm, seeds in failed.items()}
    for one in scores:
        if one.values.get(key) is None:
            reasons.setdefault(one.arm, {})[one.seed] = f"has no {key}"
    return reasons


def _row(
    plan: Plan, arm: str, scores: Sequence[Score], key: str, reasons: Mapping[int, str], columns: Mapping[str, str],
    unequal: Mapping[str, str],
) -> Row:  # fmt: skip
    points = np.array([one.values[key] for one in scores], np.float64)
    n, seeds = len(points), tuple(one.seed for one in scores)
    mean, median = (float(np.mean(points)), float(np.median(points))) if n else (math.nan, math.nan)
    sd = float(np.std(points, ddof=1)) if n > 1 else math.nan
    low, high = significance.mean_interval(points)
    means = {name: _mean([one.values.get(name) for one in scores]) for name in columns}
    missing = {seed: reasons.get(seed, "not finished") for seed in plan.arms[arm] if seed not in seeds}
    return Row(arm, seeds, tuple(points.tolist()), len(plan.arms[arm]), mean, sd, median, low, high,
               means, missing, unequal.get(arm, ""))  # fmt: skip


def _balanced(key: str, scores: Sequence[Score]) -> dict[str, str]:
    """The accuracy that stands beside the compared one, where classes of different sizes make two of them."""
    if key == BALANCED:
        return {"test.top1": "accuracy"}
    uneven = any((one.facts.get("test_class_ratio") or 1) > export.UNEVEN for one in scores)
    return {BALANCED: "balanced accuracy"} if uneven else {}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _compared(plan: Plan, rows: Sequence[Row]) -> Iterable[dict[str, Any]]:
    """The planned comparisons, then those with the baseline that nobody planned."""
    arms = {row.arm: _arm(plan, row) for row in rows}
    unequal = {row.arm for row in rows if row.unequal}
    planned = {f"{a} - {b}": (a, b) for a, b in plan.pairs}
    further = {f"{arm} - {plan.baseline}": (arm, plan.baseline) for arm in arms if plan.baseline not in (None, arm)}
    further = {name: pair for name, pair in further.items() if {*pair} not in [{*known} for known in planned.values()]}
    sums = {name: tuple(weights) for name, weights in plan.contrasts.items()}
    _refuse_unknown([*planned.values(), *further.values(), *sums.values()], arms)
    for is_planned, members in ((True, planned | sums), (False, further)):
        found = [
            significance.contrast([arms[arm] for arm in sums[name]], list(plan.contrasts[name].values()))
            if name in sums and is_planned
            else significance.compare(arms[members[name][0]], arms[members[name][1]], plan.test)
            for name in members
        ]
        values = significance.rows(found, is_planned, plan.images, plan.sesoi)
        for name, c, row in zip(members, found, values, strict=True):
            said = significance.verdict(c, row["p_holm"])
            yield {"name": name, **row, "verdict": said, "planned": is_planned, "family": len(members),
                   "unequal": bool(unequal & {*members[name]})}  # fmt: skip


def _refuse_unknown(groups: Iterable[Iterable[str | None]], arms: Mapping[str, Any]) -> None:
    for name in (name for group in groups for name in group):
        if name not in arms:
            raise UserError("config", "family", "no such arm", name, hint=nearest(str(name), arms))


def _arm(plan: Plan, row: Row) -> Arm:
    return Arm(row.arm, np.array(row.points), row.seeds if plan.seeded else None, row.planned)


# -------------------------------------------------------------------------------------------- what must stand beside it


def _unequal(plan: Plan, scores: Sequence[Score]) -> dict[str, str]:
    """arm -> in what its runs were treated unlike those that they are held against."""
    treated = {arm: _treatment([one for one in scores if one.arm == arm]) for arm in plan.arms}
    against = _held_against(plan)
    found = {arm: [*_unlike(mine, treated.get(against.get(arm, arm), {})), plan.unequal.get(arm, "")]
             for arm, mine in treated.items()}  # fmt: skip
    return {arm: ", ".join(filter(None, reasons)) for arm, reasons in found.items() if any(reasons)}


def _held_against(plan: Plan) -> dict[str, str]:
    """arm -> the baseline, or else its own partner where such are planned, or else the first arm."""
    if plan.baseline is None and not isinstance(plan.family, str):
        return dict(reversed(plan.family))
    return dict.fromkeys(plan.arms, plan.baseline or next(iter(plan.arms), ""))


def _treatment(scores: Sequence[Score]) -> dict[str, Any]:
    """The facts of an arm that must be those of the others; numbers as means over its runs."""
    known = {key: [one.facts[key] for one in scores if key in one.facts] for key in ALIKE}
    return {key: values[0] if isinstance(values[0], str) or None in values else float(np.mean(values))
            for key, values in known.items() if values}  # fmt: skip


def _unlike(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterable[str]:
    for key, word in ALIKE.items():
        if key not in mine or key not in theirs:
            continue
        one, other = mine[key], theirs[key]
        numbers = isinstance(one, float) and isinstance(other, float)
        if abs(one - other) > FRACTION * abs(other) if numbers else one != other:
            yield f"{word} {_told(one)}, not {_told(other)}"


def _told(value: float | str | None) -> str:
    return "all" if value is None else value if isinstance(value, str) else f"{value:.4g}"


def _facts(plan: Plan, scores: Sequence[Score]) -> Iterable[tuple[str, str]]:
    """What a reader of the numbers must know: how they were taken, from how many runs, and what was planned."""
    yield "metric", f"{plan.metric} in points, {plan.told or SELECTED[plan.select][1]}"
    yield "data", ", ".join(_data(plan, scores))
    yield "runs", _seeds(plan)
    epochs = {arm: sorted({one.facts["epochs"] for one in scores if one.arm == arm and "epochs" in one.facts})
              for arm in plan.arms}  # fmt: skip
    told = {arm: ", ".join(map(str, found)) for arm, found in epochs.items() if found}
    if told:
        most = max(told.values(), key=list(told.values()).count)
        yield "epochs", "; ".join([most, *(f"{arm}: {number}" for arm, number in told.items() if number != most)])
    size = len(plan.pairs) + len(plan.contrasts)
    fixed = plan.post_hoc or "fixed before the first run"
    yield "test", f"{TESTS[plan.test]}, two-sided; Holm over {size} comparison{'' if size == 1 else 's'}; {fixed}"
    yield "smallest gap worth a claim", f"{plan.sesoi:.2f} points"


def _data(plan: Plan, scores: Sequence[Score]) -> Iterable[str]:
    if plan.dataset:
        yield plan.dataset
    yield "test images not stated" if plan.images is None else f"{plan.images:,} test images"
    digests = sorted({one.facts["test_digest"] for one in scores if one.facts.get("test_digest")})
    if digests:
        yield f"sha256 {digests[0][:12]}" if len(digests) == 1 else f"{len(digests)} splits"


def _seeds(plan: Plan) -> str:
    """`8 per arm, seeds 0 .. 7`, or each arm's own."""
    each = {arm: (len(seeds), _ranges(seeds)) for arm, seeds in plan.arms.items()}
    word = "seed" if plan.seeded else "number"
    told = {arm: f"{count} per arm, {word}{'' if count == 1 else 's'} {seeds}" for arm, (count, seeds) in each.items()}
    if len(set(told.values())) == 1:
        return next(iter(told.values()))
    return "; ".join(f"{arm}: {line.replace(' per arm', '')}" for arm, line in told.items())


def _ranges(seeds: Sequence[int]) -> str:
    found = sorted(seeds)
    if len(found) > 2 and found == list(range(found[0], found[-1] + 1)):
        return f"{found[0]} .. {found[-1]}"
    return ", ".join(map(str, found)) or "none"


PROGRAMS = {"mixcli": "mixcli {}", "torch": "torch {}", "device": "{}", "threads": "{} threads"}


def _programs(scores: Sequence[Score]) -> Iterable[tuple[str, str]]:
    """Versions and machine of the runs; several of one kind stand side by side."""
    parts = [told.format(" and ".join(_kinds(scores, key))) for key, told in PROGRAMS.items() if _kinds(scores, key)]
    if parts:
        yield "programs", ", ".join(parts).replace(", 1 threads", ", 1 thread")


def _kinds(scores: Sequence[Score], key: str) -> list[str]:
    return sorted({str(one.facts[key]) for one in scores if one.facts.get(key) is not None})


def _warnings(scores: Sequence[Score]) -> tuple[str, ...]:
    what = {"mixcli": "program versions", "torch": "torch versions", "device": "devices"}
    return tuple(
        f"mixed {word}: {', '.join(_kinds(scores, key))}" for key, word in what.items() if len(_kinds(scores, key)) > 1
    )


# ------------------------------------------------------------------------------------------------ runs named one by one

NAMED = "named on the command line, so not known to be fixed before the first run"


def of_runs(
    names: Sequence[str], root: Path, *, baseline: str | None = None, test: Test = "welch", sesoi: float = 0.5,
    metric: str = "test.top1", select: Select = "last", warn: Warn | None = None,
) -> Report:  # fmt: skip
    """Finished runs, grouped into arms by their settings without the seeds; two runs are also compared as files.

    names     folders, checkpoints, names or starts of ids of runs under `root`, or `latest`
    baseline  the arm that others are held against, by the name its row has; None: all pairs
    Raises UserError: usage for a run that is not finished or given twice, mismatch where test images differ.
    """
    found = [Run(_folder(name, root)) for name in names]
    for i, run in enumerate(found):
        if run.folder in [other.folder for other in found[:i]]:
            raise UserError("usage", names[i], "given twice", hint="A run is one number")
    scores = [score(run, "", warn) for run in found]
    _refuse_other_images(found, scores)
    named = named_arms([settings_of(run) for run in found])
    scores = own_seeds([replace(one, arm=arm) for one, arm in zip(scores, named, strict=True)])
    arms = {arm: [one.seed for one in scores if one.arm == arm] for arm in dict.fromkeys(named)}
    facts = scores[0].facts
    plan = Plan(f"{metric} on {facts['dataset']}", arms, metric, select, test, known_baseline(baseline, arms),
                sesoi=sesoi, dataset=facts["dataset"], images=facts["test_images"], post_hoc=NAMED)  # fmt: skip
    return report(plan, scores, notes=_two_files(found, scores) if len(found) == 2 else ())


def _folder(name: str, root: Path) -> Path:
    """The folder of the run meant by `name`; its result is of the last epoch, so no other weights can be meant."""
    path = Path(name)
    if name and path.is_dir():
        return path.resolve()
    path = runs.find(name, root)
    if path.name != "run.ckpt":
        problem = "is not the end of a run; compare takes finished runs"
        raise UserError("usage", name, problem, hint="Give the run's folder")
    return path.resolve().parent


def settings_of(run: Run) -> tuple[str, dict[str, Any]]:
    """The label of a run's method, and all that makes its arm: what is in its identity, the seeds aside."""
    train: Train = options.from_flat(toml.read(run.settings), str(run.settings), trusted=False)
    kept = {k: v for k, v in options.hashed(train).items() if k not in ("seed", "split_seed")}
    return train.method.label(), kept | ({} if run.parent is None else {"extended": True})


def facts_of(run: Run | None) -> dict[str, Any]:
    """What runs that are compared should share, of a run; nothing is known of a loose checkpoint."""
    return {} if run is None or run.finished() is None else dict(score(run, "").facts)


def named_arms(found: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """The arm of each run: its method's label, and where arms share one, what else differs between these."""
    names = []
    for label, mine in found:
        alike = [other for name, other in found if name == label]
        keys = sorted({key for one in alike for key in {**one, **mine} if one.get(key) != mine.get(key)})
        names.append(", ".join([label, *(f"{key}={mine.get(key, 'none')}" for key in keys)]))
    return names


def own_seeds(scores: list[Score]) -> list[Score]:
    """Scores whose seeds name the pairs: the run's seed, or its place among all (split seed, seed) of these runs."""
    both = [(one.facts.get("split_seed") or 0, one.seed) for one in scores]
    if len({(one.arm, one.seed) for one in scores}) == len(scores):
        return scores
    places = {pair: place for place, pair in enumerate(sorted(set(both)))}
    return [replace(one, seed=places[pair]) for one, pair in zip(scores, both, strict=True)]


def known_baseline(name: str | None, arms: Iterable[str]) -> str | None:
    if name is not None and name not in arms:
        raise UserError("usage", "--baseline", "no such arm", got=name, hint=nearest(name, arms))
    return name


def _refuse_other_images(found: Sequence[Run], scores: Sequence[Score]) -> None:
    """Runs are compared on the same test images; those of one split seed must have the same digest."""
    first, digests = scores[0], {}
    for run, one in zip(found, scores, strict=True):
        for key, what in (("dataset", "data set"), ("test_images", "number of test images")):
            if one.facts[key] != first.facts[key]:
                raise UserError("mismatch", str(run.folder), f"another {what} than the first run's",
                                got=one.facts[key], expected=str(first.facts[key]))  # fmt: skip
        digest = one.facts.get("test_digest")
        if digest is not None and digests.setdefault(one.facts.get("split_seed"), digest) != digest:
            problem = "other test images than an earlier run of the same name and split"
            raise UserError("mismatch", str(run.folder), problem)


def _two_files(found: Sequence[Run], scores: Sequence[Score]) -> list[str]:
    """McNemar's sentence on the images that two runs got right, or why there is none."""
    try:
        (correct_a, digest_a), (correct_b, digest_b) = (bits.read(run.correct) for run in found)
    except UserError as error:
        if error.kind != "data_missing":
            raise
        return [f"McNemar's test needs the images each run gets right: {error}"]
    if digest_a != digest_b:
        return ["McNemar's test needs the same test images: these two runs have splits of their own"]
    a, b = (f"{one.arm} (seed {one.seed})" for one in scores)
    return [significance.mcnemar(correct_a, correct_b, a, b).sentence]


# ------------------------------------------------------------------------------------------------- tables of other make

INSIDE_A_RUN = ("corruption", "severity", "epoch", "step", "image", "fold")


def of_csv(
    path: Path, by: str, value: str, seed: str | None = None, *, baseline: str | None = None, test: Test = "welch",
    sesoi: float = 0.5, images: int | None = None,
) -> Report:  # fmt: skip
    """Arms from a CSV file of one row per training run.

    by      column of the arms' names
    value   column of accuracies, all shares of 1 or all points; the report says which
    seed    column that tells which runs belong together; None: the column `seed`, where there is one
    images  number of test images; None: the column `test_images`, where it has one value
    Raises UserError: data_missing, data_corrupt, usage for a column that is not there, or rows that are not runs.
    """
    table = _read_csv(path)
    seed = "seed" if seed is None and "seed" in table.columns else seed
    for option, column in (("--by", by), ("--value", value), ("--seed", seed)):
        if column is not None and column not in table.columns:
            raise UserError(
                "usage", option, "no such column", got=column, hint=nearest(column, map(str, table.columns))
            )
    names = table[by].tolist()
    points, told = _points(path, value, table[value].tolist())
    seeds = _counted(names) if seed is None else _integers(path, seed, table[seed].tolist())
    _refuse_parts_of_runs(table, names, seeds, by, seed)
    arms = {arm: [s for name, s in zip(names, seeds, strict=True) if name == arm] for arm in dict.fromkeys(names)}
    if images is None and "test_images" in table.columns and table["test_images"].nunique() == 1:
        images = _integers(path, "test_images", table["test_images"].tolist())[0]
    plan = Plan(f"{value} of {path.name}", arms, value, "last", test, known_baseline(baseline, arms), sesoi=sesoi,
                images=images, post_hoc=NAMED, seeded=seed is not None, told=told)  # fmt: skip
    scores = (Score(arm, s, {value: p}) for arm, s, p in zip(names, seeds, points, strict=True))
    return report(plan, scores)


def _read_csv(path: Path) -> Any:
    """The table, every cell as its text: "None" is a name here, and a wrong number is told with its line."""
    import pandas

    try:
        table = pandas.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError("data_missing", str(path), "not found") from None
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise UserError("data_corrupt", str(path), "cannot be read as CSV", hint=str(error).splitlines()[0]) from error
    if table.empty:
        raise UserError("data_corrupt", str(path), "no rows")
    return table


def _points(path: Path, column: str, cells: Sequence[str]) -> tuple[list[float], str]:
    """Accuracies in points, and how they were written."""
    numbers = [_number(cell) for cell in cells]
    for line, (cell, number) in enumerate(zip(cells, numbers, strict=True), 2):
        if not 0 <= number <= 100:  # nan among them
            raise UserError("data_corrupt", f"{path} line {line}", f"{column} is not an accuracy", cell or "nothing",
                            "0 .. 1, or 0 .. 100 in points")  # fmt: skip
    shares = [number for number in numbers if number <= 1]
    if shares and len(shares) < len(numbers):
        raise UserError("data_corrupt", f"{path} column {column}", "shares of 1 mixed with points",
                        f"{min(numbers):g} and {max(numbers):g}", "one unit")  # fmt: skip
    return ([100 * n for n in numbers], "written as shares of 1") if shares else (numbers, "as written")


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _integers(path: Path, column: str, cells: Sequence[str]) -> list[int]:
    for line, cell in enumerate(cells, 2):
        if not _number(cell).is_integer():
            raise UserError("data_corrupt", f"{path} line {line}", f"{column} is not an integer", cell or "nothing")
    return [int(_number(cell)) for cell in cells]


def _counted(names: Sequence[str]) -> list[int]:
    """The number of each row within its arm."""
    return [names[:i].count(name) for i, name in enumerate(names)]


def _refuse_parts_of_runs(table: Any, names: Sequence[str], seeds: Sequence[int], by: str, seed: str | None) -> None:
    """Corruptions, epochs or images of one run are not runs: counted as such, they make equal methods differ."""
    inside = [str(c) for c in table.columns if str(c).lower() in INSIDE_A_RUN and c != by and table[c].nunique() > 1]
    repeated = len(set(zip(names, seeds, strict=True))) < len(names)
    if not repeated and (seed is not None or not inside):
        return
    what = f"several rows per {by} and {seed}" if repeated else f"a column {inside[0]}"
    raise UserError("usage", "table", f"one number per training run is needed; it has {what}",
                    hint="Average over images, corruptions and epochs inside each run first")  # fmt: skip
