"""comparison.py: checkpoints and methods compared on saved cells of the corruption benchmark.

Nothing is evaluated: what eval-corruptions left is read. Two checkpoints are compared image by image: of each image the
share of its cells that are right, the paired difference, an interval by a bootstrap over images (its 75 versions are
one cluster, not 75 images), and each cell by McNemar's exact test with Holm over all, which says where, not whether.
Methods are compared by one number per run, the headline mean; families (Holm over 4) and corruptions (Holm over 15)
stand beside it, descriptive. Corruptions are a fixed panel, not replicates: a test over them is refused (`refused`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from mixcli import runs
from mixcli.corruptions.catalogue import SEVERITIES
from mixcli.corruptions.parameters import FAMILIES
from mixcli.errors import UserError
from mixcli.report.export import Detail, Section
from mixcli.runs import Run
from mixcli.sampling import Random
from mixcli.studies import comparison, significance, subjects
from mixcli.studies.comparison import Plan, Report, Test
from mixcli.studies.corruptions import results as corruption_results
from mixcli.studies.corruptions.results import Bits
from mixcli.studies.scores import Score
from mixcli.studies.significance import Arm

SCOPE = "these two files, these images; says nothing about the methods"
WHERE = "where, not whether"
GAIN, SPREAD = 0.63, 0.4  # points, for which power is told


@dataclass(frozen=True)
class Saved:
    """What eval-corruptions left of one checkpoint.

    name     as it was typed
    summary  of summary.json
    bits     which images are right in which cell
    run      whose checkpoint it is; None for a loose one
    """

    name: str
    summary: Mapping[str, Any]
    bits: Bits
    run: Run | None

    @property
    def headline(self) -> str:
        return self.summary["headline"]

    def correct(self, names: Iterable[str]) -> np.ndarray:
        """(cells, images) bool of these corruptions at all severities."""
        wanted = [f"{name}/{severity}" for name in names for severity in SEVERITIES]
        return self.bits.correct[[self.bits.cells.index(cell) for cell in wanted]]

    @property
    def over(self) -> list[str]:
        """The corruptions that the headline is the mean of."""
        if self.headline == "mean_available":
            return list(self.summary["corruptions"])
        standard = [name for family in self.summary["families"].values() for name in family["standard"]]
        return [name for name in standard if self.headline != "mean14" or name != "frost"]


def of_saved(
    names: Sequence[str], root: Path, on: str, *, baseline: str | None = None, test: Test = "welch",
    sesoi: float = 0.5,
) -> Report:  # fmt: skip
    """Compares saved results on the data set `on` (cifar100-c), by headline mean; of two checkpoints also as files.

    names     run folders, starts of ids, `latest`, checkpoints, or folders of results
    baseline  the arm that others are held against; None: all pairs
    Raises UserError: data_missing where nothing was saved, mismatch for other images, source or generator seed.
    """
    found = _alike([_candidates(name, root, on) for name in names], names)
    first = found[0]
    if first.summary[first.headline] is None:
        raise UserError("usage", on, "these results have no mean", first.summary["reasons"][first.headline],
                        hint="Evaluate all corruptions and severities")  # fmt: skip
    scores = _scores(found)
    arms = {arm: [one.seed for one in scores if one.arm == arm] for arm in dict.fromkeys(s.arm for s in scores)}
    plan = Plan(f"{on}: {first.summary['headline_told']}", arms, first.headline, "last", test,
                comparison.known_baseline(baseline, arms), sesoi=sesoi, dataset=_source(first),
                images=first.summary["images"], post_hoc=comparison.NAMED, follow={"clean": "clean"},
                told=f"top-1 accuracy, mean of {len(first.over)} corruptions x 5 severities")  # fmt: skip
    report = comparison.report(plan, scores)
    if len(found) == 2:
        a, b = found
        return replace(report, notes=tuple(_two_files(a, b, scores)), details=(_where(a, b),))
    groups = {arm: [one for one, score in zip(found, scores, strict=True) if score.arm == arm] for arm in arms}
    pairs = [(a, b) for a, b in plan.pairs if min(len(groups[a]), len(groups[b])) > 1]
    notes = (*_hierarchical(groups, pairs), *_powers(groups, pairs))
    return replace(report, notes=notes, details=tuple(_descriptive(groups, pairs, test)))


def refused() -> UserError:
    """Why there is no test over corruption types."""
    problem = (
        "corruptions are a fixed panel, not replicates: a paired t or Wilcoxon test over 15 of them finds a difference "
        "between equal methods in 27-58 % of cases with one seed, in 15-45 % after averaging five"
    )
    hint = "Take welch or paired, over runs; mixcli bench false-positives shows the rates"
    return UserError("usage", "--test corruptions", problem, hint=hint)


# --------------------------------------------------------------------------------------------------- what was saved


def _candidates(name: str, root: Path, on: str) -> list[Saved]:
    """All results of a checkpoint on this data set; of a folder of results, these."""
    path = Path(name)
    if (path / corruption_results.SUMMARY).is_file():
        folders, run, label = [path], None, None
    else:
        checkpoint = runs.find(name, root)
        run = Run(checkpoint.parent) if Run(checkpoint.parent).settings.is_file() else None
        folders, label = corruption_results.of_checkpoint(checkpoint), subjects.label_of(checkpoint)
    dataset, found = subjects.corrupted(on), []
    for folder in folders:
        summary = corruption_results.summary_in(folder)
        mine = label is None or summary["checkpoint"] == label
        if mine and subjects.squashed(summary["dataset"]).removesuffix("c") == dataset:
            found.append(Saved(name, summary, corruption_results.bits_in(folder), run or _run_of(folder)))
    if not found:
        raise UserError("data_missing", name, "no per-image results", hint=f"Run mixcli eval-corruptions {on} {name}")
    return found


def _run_of(folder: Path) -> Run | None:
    """The run in whose studies a folder of results lies."""
    run = Run(folder.absolute().parents[2]) if len(folder.absolute().parents) > 2 else None
    return run if run is not None and run.settings.is_file() else None


def _alike(candidates: Sequence[Sequence[Saved]], names: Sequence[str]) -> list[Saved]:
    """One of each, all of the same cells: images, source, generator seed. Of several the one of most images."""
    shared = set.intersection(*({_cells_key(one) for one in each} for each in candidates))
    if not shared:
        first = candidates[0][0]
        other = next((one for each in candidates[1:] for one in each if _cells_key(one) != _cells_key(first)), first)
        raise UserError("mismatch", other.name, "other cells, images, source or generator seed", _told(other),
                        f"{_told(first)} of {first.name}")  # fmt: skip
    key = max(shared, key=lambda key: (len(key[2]), key[1], key[0] == "official", key))
    found = [next(one for one in each if _cells_key(one) == key) for each in candidates]
    digests = [one.summary["provenance"]["checkpoint_digest"] for one in found]
    for place, digest in enumerate(digests):
        if digest in digests[:place]:
            raise UserError("usage", names[place], "given twice", hint="A checkpoint is one number")
    return found


def _cells_key(one: Saved) -> tuple[Any, ...]:
    return one.bits.source, len(one.bits.index), one.bits.cells, one.bits.index.tobytes(), one.bits.labels


def _told(one: Saved) -> str:
    return f"{one.summary['source']}, {len(one.bits.cells)} cells of {len(one.bits.index):,} images"


def _source(one: Saved) -> str:
    return f"{one.summary['dataset']}, {one.summary['source']}"


def _scores(found: Sequence[Saved]) -> list[Score]:
    """One number per checkpoint, its arm named by the settings of its run."""
    settings = [comparison.settings_of(one.run) if one.run else (one.summary["method"], {}) for one in found]
    scores = []
    for one, arm in zip(found, comparison.named_arms(settings), strict=True):
        values = {mean: _points(one.summary[mean]) for mean in ("mean15", "mean19", "mean14", "mean_available")}
        clean = one.summary["clean"]
        values |= {"clean": None if clean is None else _points(clean["top1"])}
        facts = {"split_seed": 0} | comparison.facts_of(one.run)
        scores.append(Score(arm, one.summary["seed"], values, facts, one.run.id if one.run else one.name))
    return comparison.own_seeds(scores)


def _points(share: float | None) -> float | None:
    return None if share is None else 100 * share


# ------------------------------------------------------------------------------------------------------ two checkpoints


def _two_files(a: Saved, b: Saved, scores: Sequence[Score]) -> Iterator[str]:
    over = a.over
    found = significance.image_bootstrap(a.correct(over).mean(0), b.correct(over).mean(0), _random("image").host)
    first, second = (f"{one.arm} (seed {one.seed})" for one in scores)
    yield (
        f"{first} against {second}: {found.difference:+.2f} points [{found.low:.2f}, {found.high:.2f}], mean of "
        f"{len(over) * len(SEVERITIES)} cells, 95 % by bootstrap over {len(a.bits.index):,} images; {SCOPE}"
    )
    yield from _same_generator([a, b])


def _where(a: Saved, b: Saved) -> Detail:
    """Every corrupted cell by McNemar's exact test, Holm over all of them."""
    names = list(a.summary["corruptions"])
    pairs = [(name, severity) for name in names for severity in SEVERITIES]
    tests = [significance.mcnemar(x, y) for x, y in zip(a.correct(names), b.correct(names), strict=True)]
    adjusted = significance.holm([test.p for test in tests])
    rows = [
        {"corruption": name, "severity": severity, "only_a": test.only_a, "only_b": test.only_b, "images": test.images,
         "difference": 100 * (test.only_a - test.only_b) / test.images, "p": test.p, "p_holm": float(p)}
        for (name, severity), test, p in zip(pairs, tests, adjusted, strict=True)
    ]  # fmt: skip
    table = tuple(
        (name, *(f"{row['difference']:+z.2f}{'*' if row['p_holm'] < significance.ALPHA else ''}" for row in of_name))
        for name, of_name in groupby(rows, key=lambda row: row["corruption"])
    )
    title = f"{WHERE}: points (* exact McNemar, Holm over {len(rows)})"
    return Detail("cells", Section((title, *(f"s{s}" for s in SEVERITIES)), table), tuple(rows))


# ---------------------------------------------------------------------------------------------------------- two methods


def _descriptive(
    groups: Mapping[str, Sequence[Saved]], pairs: Sequence[tuple[str, str]], test: Test
) -> Iterator[Detail]:
    """Families, Holm over 4, and corruptions, Holm over all of the headline: one number per run each."""
    for a, b in pairs:
        over = groups[a][0].over
        families = {family: [n for n in over if n in members] for family, members in FAMILIES.items()}
        for what, parts in (
            ("family", {f: m for f, m in families.items() if m}),
            ("corruption", {n: [n] for n in over}),
        ):
            yield _detail(what, a, b, groups, parts, test)


def _detail(
    what: str, a: str, b: str, groups: Mapping[str, Sequence[Saved]], parts: Mapping[str, Sequence[str]], test: Test
) -> Detail:
    found = []
    for members in parts.values():
        first, second = (
            Arm(arm, np.array([100 * one.correct(members).mean() for one in groups[arm]]), _seeds(groups[arm]))
            for arm in (a, b)
        )
        found.append(significance.compare(first, second, "paired" if test == "paired" else "welch"))
    adjusted = significance.holm([one.p for one in found])
    rows = [
        {"what": what, "name": name, "a": a, "b": b, "difference": one.difference, "low": one.interval()[0],
         "high": one.interval()[1], "p": one.p, "p_holm": float(p)}
        for name, one, p in zip(parts, found, adjusted, strict=True)
    ]  # fmt: skip
    enough = min(len(groups[a]), len(groups[b])) >= significance.CLAIM_RUNS
    table = tuple(
        (row["name"], f"{row['difference']:+z.2f} [{row['low']:z.2f}, {row['high']:z.2f}]",
         significance.p_text(row["p_holm"]) if enough else "–")
        for row in rows
    )  # fmt: skip
    heading = f"by {what}, descriptive: {a} - {b}"
    return Detail(
        f"{what} {a} - {b}", Section((heading, "points [95 %]", f"p, Holm over {len(rows)}"), table), tuple(rows)
    )


def _seeds(group: Sequence[Saved]) -> tuple[int, ...] | None:
    seeds = tuple(one.summary["seed"] for one in group)
    return seeds if len(set(seeds)) == len(seeds) else None


def _hierarchical(groups: Mapping[str, Sequence[Saved]], pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """The second line: runs resampled, and the same images for both methods."""
    for a, b in pairs:
        over = groups[a][0].over
        first, second = (np.stack([one.correct(over).mean(0) for one in groups[arm]]) for arm in (a, b))
        found = significance.run_and_image_bootstrap(first, second, _random(f"{a} - {b}").host)
        yield f"{a} - {b}, hierarchical bootstrap (runs, then images): {found.sentence}"
    yield from _same_generator([one for group in groups.values() for one in group])


def _powers(groups: Mapping[str, Sequence[Saved]], pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """How often so many runs would see a gain, at a spread fixed beforehand: five are a coin flip."""
    usual = ", ".join(f"{100 * significance.power(GAIN, SPREAD, (n, n)):.0f} % with {n}" for n in (3, 5, 10))
    for a, b in pairs:
        runs = (len(groups[a]), len(groups[b]))
        chance = significance.power(GAIN, SPREAD, runs)
        yield (
            f"{a} - {b}, power: where runs spread by SD {SPREAD:.2f} points, {runs[0]} + {runs[1]} of them see a true "
            f"gain of {GAIN:.2f} in {100 * chance:.0f} % of cases by Welch's test ({usual} per arm)"
        )


def _same_generator(found: Sequence[Saved]) -> Iterator[str]:
    if "generator" in found[0].summary["source"]:
        yield "generated images, the same generator seed for all; repeat once with two further seeds (--seed)"


def _random(name: str) -> Random:
    return Random(0, f"compare/corruptions/{name}")
