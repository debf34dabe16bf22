"""study.py: from a probe to sentences about methods: its headline numbers over the finished runs of a study.

One number per run enters each comparison (significance.py), in hundredths, so `points` in a sentence are hundredths of
the number. A study that did not plan the probe before its first run gets exploratory sentences, unadjusted; of one that
did, all comparisons of one number over its sites are the family of Holm's correction.

    studies/NAME/probe-PROBE.csv               a row per run and number
    studies/NAME/probe-PROBE-comparisons.csv   a row per comparison
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mixcli.errors import UserError
from mixcli.files import told, write_atomic
from mixcli.report import robustness
from mixcli.studies import ablation, significance
from mixcli.studies.design import Design
from mixcli.studies.probes import catalogue as probes
from mixcli.studies.probes import probing
from mixcli.studies.probes.probing import Asked, Reporter
from mixcli.studies.significance import Arm

HUNDREDTHS = 100.0


@dataclass(frozen=True)
class Probed:
    """What a probe says of a study.

    values       arm -> seed -> {headline number: value}, of its finished runs
    missing      arm -> seeds without a finished run
    comparisons  rows of significance.py, each with `number` and `verdict`
    """

    study: str
    probe: str
    baseline: str
    planned: bool
    values: Mapping[str, Mapping[int, Mapping[str, float]]]
    missing: Mapping[str, Sequence[int]]
    comparisons: tuple[Mapping[str, Any], ...]
    remarks: tuple[str, ...]

    @property
    def numbers(self) -> list[str]:
        """The headline numbers, in the order of their probe."""
        return list(dict.fromkeys(name for runs in self.values.values() for found in runs.values() for name in found))

    def document(self) -> dict[str, Any]:
        """Plain values, for --json."""
        return {"study": self.study, "probe": self.probe, "baseline": self.baseline, "planned": self.planned,
                "unit": "hundredths, in comparisons", "values": self.values, "missing": self.missing,
                "comparisons": [dict(row) for row in self.comparisons], "remarks": list(self.remarks)}  # fmt: skip


def over(design: Design, asked: Asked, reporter: Reporter, planned: bool = False) -> Probed:
    """The headline numbers of every finished cell of a study, and its arms compared.

    planned  whether the study named the probe before its first run
    Raises UserError: failed_cells where no run is finished, and whatever the probe raises.
    """
    arms = ablation.final_arms(design)
    values: dict[str, dict[int, dict[str, float]]] = {arm.name: {} for arm in arms}
    missing: dict[str, list[int]] = {arm.name: [] for arm in arms}
    for cell in (cell for arm in arms for cell in arm.cells):
        run = cell.job.run
        if run.finished() is None:
            missing[cell.arm].append(cell.seed)
            continue
        reporter.note(f"{cell.name}: {run.folder.name}")
        values[cell.arm][cell.seed] = probing.headlines(asked, run, reporter)
    if not any(values.values()):
        raise UserError("failed_cells", design.name, "no run is finished, so there is nothing to probe",
                        hint=f"Run mixcli ablate {design.name}")  # fmt: skip
    rows = tuple(_compared(design, values, planned))
    remarks = tuple(_remarks(design, asked.probe, values, missing, planned))
    return Probed(design.name, asked.probe, design.baseline, planned, values, missing, rows, remarks)


def _compared(
    design: Design, values: Mapping[str, Mapping[int, Mapping[str, float]]], planned: bool
) -> Iterator[dict[str, Any]]:
    """Every arm against the baseline, number by number; a number over its sites is one family."""
    numbers = list(dict.fromkeys(name for runs in values.values() for found in runs.values() for name in found))
    kinds = dict.fromkeys(name.partition(".")[0] for name in numbers)
    others = [arm for arm in values if arm != design.baseline]
    for kind in kinds:
        members = [(name, arm) for name in numbers if name.partition(".")[0] == kind for arm in others]
        found = [
            significance.compare(_arm(design, values, arm, name), _arm(design, values, design.baseline, name),
                                 design.fields.test)
            for name, arm in members
        ]  # fmt: skip
        for (name, _), row, c in zip(members, significance.rows(found, planned, None), found, strict=True):
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
    for arm in values:
        both = sorted(set(values[arm]) & set(values[design.baseline]))
        if direction is not None and arm != design.baseline and both:
            pairs = [(values[arm][seed], values[design.baseline][seed]) for seed in both]
            yield from direction(f"{arm} against {design.baseline}", pairs)


def write(found: Probed, folder: Path) -> None:
    """The two tables. Raises UserError: disk_full, io."""
    rows = [
        {"arm": arm, "seed": seed, "number": name, "value": value}
        for arm, runs in found.values.items()
        for seed, numbers in runs.items()
        for name, value in numbers.items()
    ]
    comparisons = [{k: v for k, v in row.items() if k != "notes"} for row in found.comparisons]
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"probe-{found.probe}.csv", robustness.csv(rows))
    write_atomic(folder / f"probe-{found.probe}-comparisons.csv", robustness.csv(comparisons))
