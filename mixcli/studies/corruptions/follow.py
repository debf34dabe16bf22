"""follow.py: the corruption benchmark as a follow-up of a study: evaluated once per run, read from there.

Official files where they lie under the run's data directory, else generated; all images of the test set, all cells. The
results are those of eval-corruptions, in the run's own folder. Means that cannot be stated are None with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mixcli.engine.stopping import Stop
from mixcli.runs import Run
from mixcli.studies.corruptions import results as corruption_results
from mixcli.studies.corruptions.means import CALIBRATION
from mixcli.studies.follow import Headline, Reporter

SHOWN = ("mean15", "mean19", "mean14", "mean_available")


def measure(run: Run, names: Sequence[str], device: str, reporter: Reporter, stop: Stop) -> None:
    """Evaluates a finished run on the corrupted set of its data set, or goes on with it."""
    from mixcli.studies.corruptions import robustness as corruption_robustness

    result = run.finished()
    assert result is not None
    asked = corruption_robustness.Asked(f"{result['dataset']}-c", (str(run.folder),), run.folder.parent, device=device)
    corruption_robustness.evaluate(asked, _Warnings(reporter), stop)


class _Warnings:
    """The lines of each evaluation are too many for a study; its warnings are not."""

    def __init__(self, reporter: Reporter):
        self.warn = reporter.warn

    def note(self, line: str) -> None:
        return


def corruptions(run: Run) -> Headline | None:
    """Means over corruptions and families, in points."""
    found = _summary(run)
    if found is None:
        return None
    values = {f"corruptions.{mean}": _points(found[mean]) for mean in SHOWN}
    values |= {f"corruptions.{name}": _points(family["mean"]) for name, family in found["families"].items()}
    reasons = tuple(f"mean acc ({mean.removeprefix('mean')}): {found['reasons'][mean]}"
                    for mean in ("mean15", "mean19") if mean in found["reasons"])  # fmt: skip
    return Headline(values, _told(found), reasons)


def calibration(run: Run) -> Headline | None:
    """Calibration on the clean test images, and its mean over the cells of the headline."""
    found = _summary(run)
    if found is None:
        return None
    clean, corrupted = found["clean"] or {}, found["calibration"]
    values = {f"calibration.{key}": clean.get(key) for key in CALIBRATION}
    return Headline(values | {f"calibration.corrupted_{key}": corrupted[key] for key in CALIBRATION}, _told(found))


def _summary(run: Run) -> dict[str, Any] | None:
    """Of the whole benchmarks of a run's last epoch, the one with official files, then the one of most images."""
    found = [corruption_results.summary_in(folder) for folder in corruption_results.of_checkpoint(run.checkpoint)]
    whole = [one for one in found if one["checkpoint"] == run.folder.name and one[one["headline"]] is not None]
    return max(whole, key=lambda one: (one["source"] == "official", one["images"], one["source"]), default=None)


def _points(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _told(found: dict[str, Any]) -> str:
    return f"{found['dataset']}, {found['source']}, {found['images']:,} images in each cell"
