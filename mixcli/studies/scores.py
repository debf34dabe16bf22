"""scores.py: what a finished run is worth: its scores, how it came to them, and the facts that make runs comparable.

    test.top1                 accuracy on the test images at the last epoch, in points (percent)
    test.top1_median_last10   the median of the last ten evaluations
    test.top1_best_on_val     at the epoch whose validation accuracy is best
    oracle_test_best          at the best test epoch: kept, and never compared
    test.nll, val.top1, val.nll   at the last epoch; nll in nats
    test.balanced, val.balanced   mean over the classes of their own accuracies at the last epoch, in points
    wrong_labels_learnt       share of the wrong training labels that the net predicts in the end, in points
    epochs_to_90              first evaluated epoch at 90 % of the run's own final accuracy
    curve_area                mean accuracy over the evaluated epochs, in points
    early_spread              standard deviation of the log of the training loss over the first 5 % of the steps
    gap                       accuracy on clean training images minus test, in points
    seconds, seconds_per_step     for the table of costs alone

Both curves are those of the validation images, or else of the test images. None stands for what a run does not have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixcli import options, toml
from mixcli.errors import UserError
from mixcli.runs import Run

TIMES = ("seconds", "seconds_per_step")
SCORED = ("accuracy", "nll", "images")  # of a split, in every version's log
START = 5  # a curve that begins after a fifth of the epochs does not tell how a run came to its end

Warn = Callable[[str, str], None]  # subject, problem


@dataclass(frozen=True)
class Score:
    """One finished run of an arm: `values` by name, and the `facts` that runs to be compared should share."""

    arm: str
    seed: int
    values: Mapping[str, float | None]
    facts: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""  # its id


def score(run: Run, arm: str, warn: Warn | None = None) -> Score:
    """A finished run as one of `arm`, named by its seed. Raises UserError like `scores_of`."""
    result = finished(run)
    rows = _log(run, result, warn)
    return Score(arm, result["seed"], _values(result, rows), _facts(run, result, rows), run.id)


def scores_of(run: Run, warn: Warn | None = None) -> dict[str, float | None]:
    """The scores of a finished run, by name.

    warn  told of a log whose last line was cut; the result stands in for it
    Raises UserError: usage for an unfinished run, journal_corrupt for a damaged or edited one.
    """
    result = finished(run)
    return _values(result, _log(run, result, warn))


def finished(run: Run) -> dict[str, Any]:
    """The result of a run that is done."""
    result = run.finished()
    if result is None:
        known = run.settings.is_file()
        problem, hint = ("not finished", f"Continue: mixcli train --resume-from {run.folder}") if known else (
            "no run in it", "Give a run's folder, the start of its id, or latest")  # fmt: skip
        raise UserError("usage", str(run.folder), problem, hint=hint)
    return result


def _log(run: Run, result: Mapping[str, Any], warn: Warn | None) -> list[dict[str, Any]]:
    """The rows of a run's log, checked against its result; the last one made from the result where it is cut off."""
    rows = run.rows()
    if _is_cut(run):
        if warn is not None:
            warn(f"{run.metrics} line {len(rows) + 1}", "incomplete, dropped")
    elif run.edited() or not _agree(result, rows):
        problem = "digest differs: edited after it was finished"
        raise UserError("journal_corrupt", f"run {run.id}", problem, hint="Repeat it with --overwrite")
    if not rows or rows[-1].get("epoch") != result["epochs"]:
        last = dict(zip(SCORED, _scored(result), strict=True))
        rows.append({"epoch": result["epochs"], "test": last, **({"val": result["val"]} if "val" in result else {})})
    return rows


def _agree(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a result is that of its log's last row."""
    last = rows[-1] if rows else {}
    test = last.get("test", {})
    return last.get("epoch") == result["epochs"] and tuple(test.get(key) for key in SCORED) == _scored(result)


def _scored(result: Mapping[str, Any]) -> tuple[Any, ...]:
    return result["accuracy"], result["nll"], result["test_images"]


def _is_cut(run: Run) -> bool:
    try:
        content = run.metrics.read_bytes()
    except OSError:
        return True
    return not content.endswith(b"\n")


def _values(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    tests, vals = ([(row["epoch"], row[split]) for row in rows if split in row] for split in ("test", "val"))
    curve = [(epoch, _points(found["accuracy"])) for epoch, found in vals or tests]
    known = curve[0][0] == 1 or curve[0][0] * START <= result["epochs"]
    val, clean = result.get("val", {}), result.get("clean_train", {})
    return {
        "test.top1": _points(result["accuracy"]),
        "test.top1_median_last10": _points(result["accuracy_median_last10"]),
        "test.top1_best_on_val": _best_on_val(tests, vals),
        "oracle_test_best": max(_points(found["accuracy"]) for _, found in tests),
        "test.balanced": _points_of(result, "balanced_accuracy"),
        "test.nll": result["nll"],
        "val.top1": _points(val["accuracy"]) if val else None,
        "val.balanced": _points_of(val, "balanced_accuracy"),
        "val.nll": val["nll"] if val else None,
        "wrong_labels_learnt": _points_of(result, "wrong_labels_learnt"),
        "epochs_to_90": _first_at(curve, 0.9) if known else None,
        "curve_area": sum(points for _, points in curve) / len(curve) if known else None,
        "early_spread": result.get("early_spread"),
        "gap": _points(clean["accuracy"] - result["accuracy"]) if clean else None,
        "seconds": result["seconds"],
        "seconds_per_step": result["seconds"] / result["steps"],
    }


def _first_at(curve: Sequence[tuple[int, float]], share: float) -> float:
    """The first epoch at this share of the last accuracy."""
    return float(next(epoch for epoch, points in curve if points >= share * curve[-1][1]))


def _best_on_val(
    tests: Sequence[tuple[int, Mapping[str, Any]]], vals: Sequence[tuple[int, Mapping[str, Any]]]
) -> float | None:
    """Test accuracy at the first of the epochs with the best validation accuracy, the one best.ckpt holds."""
    if not vals:
        return None
    best = max(vals, key=lambda at: at[1]["accuracy"])[0]
    return _points(dict(tests)[best]["accuracy"])


def _points(accuracy: float) -> float:
    return 100 * accuracy


def _points_of(found: Mapping[str, Any], key: str) -> float | None:
    """None where a run has none of it, as those of older versions."""
    return None if found.get(key) is None else _points(found[key])


def _facts(run: Run, result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    settings = options.flat(options.from_flat(toml.read(run.settings), str(run.settings), trusted=False))
    try:
        environment = json.loads(run.environment.read_bytes())
    except (OSError, ValueError):
        environment = {}
    images = [row["images"] for row in rows if "images" in row]
    return {
        **{key: result.get(key) for key in ("dataset", "test_images", "test_digest", "train_digest", "epochs")},
        "test_class_ratio": result.get("test_class_ratio"),
        **{key: settings.get(key) for key in ("batch", "per_class", "val_fraction", "split_seed")},
        "images_per_step": sum(images) * result["epochs"] / len(images) / result["steps"] if images else None,
        **{key: environment.get(key) for key in ("mixcli", "torch", "device", "threads")},
    }
