"""study.py: from a probe to sentences about methods: its headline numbers over the finished runs of a study.

One number per run enters each comparison (significance.py), in hundredths, so `points` in a sentence are hundredths of
the number. Compared is what the study compares. A probe that the plan names in `follow`, fixed before the first run, is
planned: all comparisons of one number over its sites are the family of Holm's correction. Any other gets exploratory
sentences, unadjusted.

    studies/NAME/probe-PROBE.csv               a row per run and number
    studies/NAME/probe-PROBE-comparisons.csv   a row per comparison
    studies/NAME/probe-PROBE.png, .pdf         a dot per run, the mean of an arm and its interval
    studies/NAME/probe-PROBE-epochs...         the same at every kept epoch; the figure follows the means of the arms
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mixcli.errors import UserError
from mixcli.files import make_folder, write_atomic
from mixcli.report.probes import figures
from mixcli.report.probes import study as page
from mixcli.report.rows import as_csv
from mixcli.studies import ablation, significance
from mixcli.studies.design import Design
from mixcli.studies.follow import Headline
from mixcli.studies.probes import catalogue as probes
from mixcli.studies.probes import follow
from mixcli.studies.probes.probing import Asked, Reporter
from mixcli.studies.significance import Arm

HUNDREDTHS = 100.0


@dataclass(frozen=True)
class Probed:
    """What a probe says of a study.

    values       arm -> seed -> {headline number: value}, of its finished runs; a number that a run lacks is left out
    missing      arm -> seeds without a finished run
    comparisons  rows of significance.py, each with `number` and `verdict`
    told         of what the numbers were taken
    """

    study: str
    probe: str
    baseline: str
    planned: bool
    values: Mapping[str, Mapping[int, Mapping[str, float]]]
    missing: Mapping[str, Sequence[int]]
    comparisons: tuple[Mapping[str, Any], ...]
    remarks: tuple[str, ...]
    told: str = ""

    @property
    def numbers(self) -> list[str]:
        """The headline numbers, in the order of their probe."""
        return list(dict.fromkeys(name for runs in self.values.values() for found in runs.values() for name in found))

    def runs(self, arm: str, number: str) -> list[float]:
        """One number of each run of an arm, in the order of its seeds."""
        return [found[number] for _, found in sorted(self.values[arm].items()) if number in found]

    def mean(self, arm: str, number: str) -> tuple[float, float, float]:
        """The mean over the runs of an arm, and its 95 % t interval; nan where there are too few."""
        found = np.array(self.runs(arm, number), np.float64)
        return (float(found.mean()) if len(found) else math.nan, *significance.mean_interval(found))

    def document(self) -> dict[str, Any]:
        """Plain values, for --json."""
        return {"study": self.study, "probe": self.probe, "baseline": self.baseline, "planned": self.planned,
                "unit": "hundredths, in comparisons", "values": self.values, "missing": self.missing,
                "comparisons": [dict(row) for row in self.comparisons], "remarks": list(self.remarks)}  # fmt: skip


def is_planned(design: Design, asked: Asked, folder: Path) -> bool:
    """Whether the plan in the study's folder, made before its first run, names the probe as it is asked for.

    Raises UserError: mismatch, data_corrupt, as `ablation.check_plan`.
    """
    kept = ablation.check_plan(design, folder)
    named = kept is not None and not kept.post_hoc and asked.probe in kept.document.get("follow", ())
    return named and follow.is_standard(asked)


def over(
    design: Design, asked: Asked, reporter: Reporter, planned: bool = False, epoch: int | None = None
) -> Probed:  # fmt: skip
    """The headline numbers of every finished cell of a study, made where they are not kept, and its arms compared.

    planned  whether the study named the probe before its first run
    epoch    one that every finished run kept; None for the last
    Raises UserError: failed_cells where no run is finished, and whatever the probe raises of all runs.
    """
    arms = ablation.final_arms(design)
    values: dict[str, dict[int, dict[str, float]]] = {arm.name: {} for arm in arms}
    missing: dict[str, list[int]] = {arm.name: [] for arm in arms}
    heads: list[Headline] = []
    for cell in (cell for arm in arms for cell in arm.cells):
        run = cell.job.run
        if run.finished() is None:
            missing[cell.arm].append(cell.seed)
            continue
        reporter.note(f"{cell.name}: {run.folder.name}")
        found = follow.headlines(asked, run, reporter, None if epoch is None else run.kept()[epoch])
        heads.append(found)
        values[cell.arm][cell.seed] = {name: value for name, value in found.values.items() if value is not None}
    if not heads:
        raise UserError("failed_cells", design.name, "no run is finished, so there is nothing to probe",
                        hint=f"Run mixcli ablate {design.name}")  # fmt: skip
    rows = tuple(_compared(design, values, planned))
    reasons = dict.fromkeys(reason for head in heads for reason in head.reasons)
    remarks = (*_remarks(design, asked.probe, values, missing, planned), *reasons)
    told = " | ".join(dict.fromkeys(head.told for head in heads))
    return Probed(design.name, asked.probe, design.baseline, planned, values, missing, rows, remarks, told)


def course(design: Design, asked: Asked, reporter: Reporter) -> dict[int, Probed]:
    """What `over` finds at every epoch that all finished runs kept, ascending; no comparison in it is planned.

    Raises UserError: usage where there is no such epoch, and whatever `over` raises.
    """
    jobs = [cell.job.run for arm in ablation.final_arms(design) for cell in arm.cells]
    kept = [set(run.kept()) for run in jobs if run.finished() is not None]
    epochs = sorted(set.intersection(*kept)) if kept else []
    if kept and not epochs:
        problem = f"the runs of {design.name} kept no epoch in common"
        raise UserError("usage", "--all-epochs", problem, hint='Set keep = "every:10" in [base]')
    return {epoch: over(design, asked, reporter, epoch=epoch) for epoch in epochs} or {0: over(design, asked, reporter)}


def pairs(design: Design, arms: Iterable[str]) -> list[tuple[str, str]]:
    """What the study compares, as far as its arms are there: a - b."""
    if isinstance(design.fields.family, str):
        return [(arm, design.baseline) for arm in arms if arm != design.baseline]
    return [(a, b) for a, b in design.fields.family if {a, b} <= {*arms}]


def _compared(
    design: Design, values: Mapping[str, Mapping[int, Mapping[str, float]]], planned: bool
) -> Iterator[dict[str, Any]]:
    """Pair by pair of arms, number by number; a number over its sites is one family. Pairs without runs that have it
    are left out."""
    numbers = list(dict.fromkeys(name for runs in values.values() for found in runs.values() for name in found))
    kinds = dict.fromkeys(name.partition(".")[0] for name in numbers)
    compared = pairs(design, values)
    for kind in kinds:
        members = [(name, a, b) for name in numbers if name.partition(".")[0] == kind for a, b in compared
                   if all(any(name in one for one in values[arm].values()) for arm in (a, b))]  # fmt: skip
        found = [
            significance.compare(_arm(design, values, a, name), _arm(design, values, b, name), design.fields.test)
            for name, a, b in members
        ]
        for (name, _, _), row, c in zip(members, significance.rows(found, planned, None), found, strict=True):
            yield {"number": name, **row, "verdict": significance.verdict(c, row["p_holm"])}


def _arm(design: Design, values: Mapping[str, Mapping[int, Mapping[str, float]]], arm: str, number: str) -> Arm:
    found = {seed: one[number] for seed, one in values[arm].items() if number in one}
    points = HUNDREDTHS * np.array(list(found.values()), np.float64)
    return Arm(arm, points, tuple(found), len(design.fields.seeds))


def _remarks(
    design: Design, probe: str, values: Mapping[str, Mapping[int, Mapping[str, float]]],
    missing: Mapping[str, Sequence[int]], planned: bool,
) -> Iterator[str]:  # fmt: skip
    yield "points are hundredths of the number"
    if not planned:
        yield "exploratory: the study did not plan this probe before its first run, so p is unadjusted"
    for arm, seeds in missing.items():
        if seeds:
            yield f"{arm}: {len(values[arm])} of {len(values[arm]) + len(seeds)} runs"
    direction = getattr(import_module(probes.named(probe).module), "direction", None)
    for a, b in pairs(design, values):
        both = sorted(set(values[a]) & set(values[b]))
        if direction is not None and both:
            yield from direction(f"{a} against {b}", [(values[a][seed], values[b][seed]) for seed in both])


def write(found: Probed, folder: Path) -> None:
    """The two tables and the figure. Raises UserError: disk_full, io."""
    _write(folder, f"probe-{found.probe}", _values(found), _differences(found), page.drawn(found))


def write_course(found: Mapping[int, Probed], folder: Path) -> None:
    """The same over the kept epochs. Raises UserError: disk_full, io."""
    values = [{"epoch": epoch, **row} for epoch, one in found.items() for row in _values(one)]
    differences = [{"epoch": epoch, **row} for epoch, one in found.items() for row in _differences(one)]
    name = f"probe-{next(iter(found.values())).probe}-epochs"
    _write(folder, name, values, differences, page.course_drawn(found))


def _values(found: Probed) -> Iterator[dict[str, Any]]:
    for arm, runs in found.values.items():
        for seed, numbers in runs.items():
            for name, value in numbers.items():
                yield {"arm": arm, "seed": seed, "number": name, "value": value}


def _differences(found: Probed) -> Iterator[dict[str, Any]]:
    return ({k: v for k, v in row.items() if k != "notes"} for row in found.comparisons)


def _write(
    folder: Path, name: str, values: Iterable[dict[str, Any]], differences: Iterable[dict[str, Any]], drawn: Any
) -> None:  # fmt: skip
    make_folder(folder)
    write_atomic(folder / f"{name}.csv", as_csv(values))
    write_atomic(folder / f"{name}-comparisons.csv", as_csv(differences))
    for kind, content in figures.saved(drawn).items():
        write_atomic(folder / f"{name}.{kind}", content)
