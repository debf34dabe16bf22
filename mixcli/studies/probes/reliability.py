"""reliability.py: the calibration probe: scores of confidence beside their floor, a temperature, reliability diagrams.

The numbers are those of calibration.py, shared with eval-corruptions. Only here they stand again after temperature
scaling (C. Guo et al., "On Calibration of Modern Neural Networks", 2017, arXiv 1706.04599), T fitted on validation
images alone: a run without a validation split has no scaled rows. nll and brier are proper scores and rank methods;
ece describes, and a perfectly calibrated net has an ece above 0 too, which `ece_floor` tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from mixcli.errors import UserError
from mixcli.report.probes import reliability as page
from mixcli.settings import Settings
from mixcli.studies import calibration
from mixcli.studies.probes.findings import Findings
from mixcli.studies.probes.probing import Scene
from mixcli.studies.subjects import Subject


def passes(scene: Scene, options: Settings) -> int:
    """Forward passes of one image: none where the features are cached."""
    return sum(scene.missing(subject) for subject in scene.subjects)


def look(scene: Scene, options: Settings) -> Findings:
    """Scores and bins of every subject, plain and, where it held images out, at the temperature fitted on them."""
    rows: list[dict[str, Any]] = []
    for subject in scene.subjects:
        found = scene.features(subject)
        logits, labels = torch.from_numpy(found.values["logits"]).double(), torch.from_numpy(found.labels)
        facts = scene.facts(subject)
        rows += _rows(facts | {"scaling": "none", "temperature": 1.0}, logits, labels, scene)
        t = None if scene.brief else fitted(scene, subject)
        if t is not None:
            rows += _rows(facts | {"scaling": "temperature", "temperature": t}, logits / t, labels, scene)
    return Findings(pd.DataFrame(rows), {}, page, remarks=tuple(_remarks(scene, rows)))


def fitted(scene: Scene, subject: Subject) -> float | None:
    """The temperature of least nll on the run's validation images; None where it held none out, or all are right."""
    if scene.source(subject).val is None or scene.asked.split == "val":
        return None  # on `val` it would be judged on the images that it was fitted on
    held = scene.features(subject, "val")
    if (held.values["logits"].argmax(1) == held.labels).all():
        return None  # the lower, the better, without end
    return calibration.temperature(torch.from_numpy(held.values["logits"]), torch.from_numpy(held.labels))


def _rows(facts: Mapping[str, Any], logits: Tensor, labels: Tensor, scene: Scene) -> Iterator[dict[str, Any]]:
    """One row of scores, one per bin of equal width."""
    try:
        scores = calibration.calibration(logits, labels).row()
    except ValueError as error:
        raise UserError("diverged", "logits", str(error), hint="The net has diverged") from error
    confidence, predicted = (values.numpy() for values in logits.softmax(1).max(1))
    correct = predicted == labels.numpy()
    mean, low, high = calibration.floor(confidence, scene.random("floor"))
    yield {**facts, "row": "scores", **scores, "ece_floor": mean, "ece_floor_low": low, "ece_floor_high": high}
    for place, (n, sure, right) in enumerate(zip(*calibration.reliability(confidence, correct), strict=True)):
        yield {**facts, "row": "bin", "n": int(n), "bin": place + 1, "confidence": sure, "accuracy": right}


def headline(table: pd.DataFrame) -> dict[str, float]:
    """nll and brier as trained."""
    row = table[(table["row"] == "scores") & (table["scaling"] == "none")].iloc[0]
    return {name: float(row[name]) for name in ("nll", "brier")}


def _remarks(scene: Scene, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "nll and brier are proper scores and rank methods; ece describes, and only against its floor"
    if len(scene.chosen) < calibration.BIASED_BELOW:
        yield "ece15, ece_adaptive and rms_adaptive are biased upwards with fewer than 1,000 images"
    scaled = {row["checkpoint"] for row in rows if row["scaling"] != "none"}
    for subject in scene.subjects:
        if subject.label in scaled or scene.brief or scene.asked.split == "val":
            continue
        held = scene.source(subject).val
        why = "held no validation images out (train with --val-fraction 0.1)" if held is None else (
            f"gets all {len(held)} validation images right, which no temperature fits best")  # fmt: skip
        yield f"no temperature: {subject.label} {why}"
    if len({subject.epoch for subject in scene.subjects}) > 1 and not scene.asked.all_epochs:
        yield "epochs differ: less confident nets look better calibrated; read the accuracy in the same row"
