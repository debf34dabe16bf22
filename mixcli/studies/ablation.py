"""ablation.py: a study run and reported: its plan kept, its cells' states, what is left to do, and the comparison.

    studies/NAME/plan.json    what is compared and which runs that takes; made once, before the first run
    studies/NAME/runs.csv ..  tables and the figure of comparison.py, rewritten whole by whoever finishes

The run folders hold the truth: a cell is done if and only if its run is, whoever made it. The plan is fixed at the
first start; another one is refused unless it is to extend it, and one that was changed after results were there marks
every report as post hoc.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixcli import runs
from mixcli.engine.stopping import Stop
from mixcli.errors import UserError
from mixcli.files import as_json, make_folder, temporary, write_atomic
from mixcli.runs import Run
from mixcli.studies import budget
from mixcli.studies.design import FORMAT, Arm, Cell, Choice, Design, Option
from mixcli.studies.workers import Ended, Engine

if TYPE_CHECKING:
    from mixcli.studies.comparison import Report

STATES = ("done", "running", "incomplete", "failed", "missing", "edited")
TIES = 1e-12  # of mean validation accuracies; the option that stands first is chosen

Warn = Callable[[str, str], None]  # subject, problem


# --------------------------------------------------------------------------------------------------------------- states


def state(cell: Cell) -> str:
    """done, running, incomplete (killed or stopped), failed, missing, or edited after it was done."""
    run = cell.job.run
    if run.finished() is not None:
        return "edited" if run.edited() else "done"
    if run.busy():
        return "running"
    if run.failure() is not None:
        return "failed"
    return "incomplete" if run.settings.is_file() else "missing"


def status(design: Design) -> dict[str, Any]:
    """How far a study is, by arm; reads the run folders and changes nothing."""
    arms = {arm.name: _states(arm.cells) for arm in _all_arms(design)}
    total = Counter(state for found in arms.values() for state in found.values())
    failed = [
        _failure(cell) for arm in _all_arms(design) for cell in arm.cells if arms[arm.name][cell.seed] == "failed"
    ]
    return {
        "study": design.name,
        "question": design.fields.question,
        "cells": sum(total.values()),
        "states": {state: total[state] for state in STATES},
        "arms": [
            {"arm": name, **{state: list(found.values()).count(state) for state in STATES}}
            for name, found in arms.items()
        ],
        "failed": failed,
    }


def _states(cells: Sequence[Cell]) -> dict[int, str]:
    return {cell.seed: state(cell) for cell in cells}


def _failure(cell: Cell) -> dict[str, Any]:
    found = cell.job.run.failure() or {}
    return {"cell": cell.name, "arm": cell.arm, "seed": cell.seed, "run": str(cell.job.run.folder),
            "kind": found.get("kind"), "message": found.get("message"), "last": found.get("last", [])}  # fmt: skip


def _all_arms(design: Design) -> list[Arm]:
    """Fixed arms, the trials of choices, and the chosen ones as far as they are known."""
    trials = [option.trial for choice in design.choices for option in choice.options]
    known = [(choice, chosen(choice)) for choice in design.choices]
    return [*design.arms, *trials, *(option.final for _, option in known if option is not None)]


# -------------------------------------------------------------------------------------------------------------- choices


def chosen(choice: Choice) -> Option | None:
    """The option of the best mean validation accuracy; None before all its trials have ended.

    An option of which a trial failed is out of the running. Raises UserError: failed_cells where all are.
    """
    means: list[tuple[float, Option]] = []
    for option in choice.options:
        results = [cell.job.run.finished() for cell in option.trial.cells]
        failures = [cell.job.run.failure() for cell in option.trial.cells]
        if any(r is None and f is None for r, f in zip(results, failures, strict=True)):
            return None
        found = [result["val"]["accuracy"] for result in results if result is not None and "val" in result]
        if len(found) == len(results):
            means.append((statistics.fmean(found), option))
    if not means:
        raise UserError("failed_cells", choice.arm, "every option of its choice failed", hint="See --status")
    best = max(mean for mean, _ in means)
    return next(option for mean, option in means if mean >= best - TIES)


def _choices_told(design: Design) -> list[str]:
    """What was chosen, for the report."""
    lines = []
    for choice in design.choices:
        try:
            option = chosen(choice)
        except UserError as error:
            lines.append(str(error))
            continue
        if option is not None:
            seeds = len(option.trial.cells)
            lines.append(f"{choice.arm}: {option.value}, chosen among {len(choice.options)} on validation images, "
                         f"{seeds} runs each")  # fmt: skip
    return lines


# ----------------------------------------------------------------------------------------------------------------- plan


@dataclass(frozen=True)
class Kept:
    """The plan as the study's folder has it; `post_hoc` says why it is not the one made before the runs."""

    document: Mapping[str, Any]
    post_hoc: str


def check_plan(design: Design, folder: Path, extend: bool = False) -> Kept | None:
    """The plan in the study's folder; None where there is none, or another that is to be extended. Writes nothing.

    Raises UserError: mismatch for another plan without `extend`, data_corrupt for a file that is no plan.
    """
    before, document = read_plan(folder), design.document()
    if before is None or (extend and before["digest"] != document["digest"]):
        return None
    if before["digest"] != document["digest"]:
        hint = "Use --extend, or a study of another name"
        raise UserError("mismatch", f"plan of {design.name}", _difference(before, document), hint=hint)
    return Kept(before, _post_hoc(before))


def keep_plan(design: Design, folder: Path, extend: bool = False) -> Kept:
    """Writes the plan once, or compares it with the one there. Raises UserError like `check_plan`."""
    path, document = folder / "plan.json", design.document()
    content: dict[str, Any] = {**document, "changes": [], "late": _ended_before(design)}
    if read_plan(folder) is None and _create(path, as_json(content, indent=2)):
        return Kept(content, _post_hoc(content))
    kept, before = check_plan(design, folder, extend), read_plan(folder)
    if kept is not None or before is None:
        return kept or Kept(content, _post_hoc(content))
    seen = any(Run(f).finished() for f in runs.all_runs(_root(design)) if f.name[-12:] in _ids(before))
    changes = [*before.get("changes", []), *([_difference(before, document)] if seen else [])]
    content = {**document, "changes": changes, "late": before.get("late", [])}
    write_atomic(path, as_json(content, indent=2))
    return Kept(content, _post_hoc(content))


def read_plan(folder: Path) -> dict[str, Any] | None:
    """The plan in a study's folder. Raises UserError: data_corrupt for a file that is none."""
    path = folder / "plan.json"
    try:
        plan = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        raise UserError("data_corrupt", str(path), "not a plan", hint="Remove it to plan anew") from None
    if not isinstance(plan, dict) or not isinstance(plan.get("format"), int):
        raise UserError("data_corrupt", str(path), "not a plan", hint="Remove it to plan anew")
    if plan["format"] != FORMAT:
        raise UserError("data_corrupt", str(path), "of another format", got=plan["format"], expected=str(FORMAT))
    if not {"digest", "comparison", "arms", "choices"} <= plan.keys():
        raise UserError("data_corrupt", str(path), "not a whole plan", hint="Remove it to plan anew")
    return plan


def _create(path: Path, content: bytes) -> bool:
    """Makes the file whole and exclusively; False where it is there."""
    make_folder(path.parent)
    spare = temporary(path)
    write_atomic(spare, content)
    try:
        os.link(spare, path)  # as a whole or not at all, and never over another's
        return True
    except FileExistsError:
        return False
    except OSError as error:
        raise UserError("io", str(path), f"cannot be written ({error.strerror})") from error
    finally:
        spare.unlink(missing_ok=True)


def _ended_before(design: Design) -> list[str]:
    """Arms picked to be confirmed of which a run had ended already: they may have been picked by looking at it."""
    cells = [cell for arm in _all_arms(design) for cell in arm.cells if not cell.chooses]
    return [arm for arm in design.confirmed if any(c.arm == arm and c.job.run.finished() for c in cells)]


def _ids(plan: Mapping[str, Any]) -> set[str]:
    return {id for arm in plan["arms"].values() for id in arm["cells"].values()}


def _root(design: Design) -> Path:
    return Path(_all_arms(design)[0].settings.runs)


def _post_hoc(plan: Mapping[str, Any]) -> str:
    late, changes = plan.get("late", []), plan.get("changes", [])
    told = [f"runs of {', '.join(late)} had ended before the plan was made"] if late else []
    told += [f"the plan was changed after runs had ended ({'; then '.join(changes)})"] if changes else []
    return f"post hoc: {'; '.join(told)}" if told else ""


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The first thing in which two plans differ: `seeds of none [0, 1] vs [0, 1, 2]`."""
    for key, value in after["comparison"].items():
        if before["comparison"].get(key) != value:
            return f"{key} {before['comparison'].get(key)} vs {value}"
    for what in ("arms", "choices"):
        old, new = list(before[what]), list(after[what])
        if old != new:
            return f"{what} {', '.join(old) or 'none'} vs {', '.join(new) or 'none'}"
    for name, arm in after["arms"].items():
        other = before["arms"][name]
        for key in {**other["settings"], **arm["settings"]}:
            old, new = other["settings"].get(key), arm["settings"].get(key)
            if old != new:
                return f"{key} of {name} {old} vs {new}"
        if list(other["cells"]) != list(arm["cells"]):
            return f"seeds of {name} {', '.join(other['cells'])} vs {', '.join(arm['cells'])}"
    return "other data, or another choice"


# ------------------------------------------------------------------------------------------------------------- dry run


def forecast(
    design: Design, slots: Sequence[str], measure: bool = False, note: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """What a start would do: cells by arm, done and to do, hours, disk, power of the planned test. Writes nothing.

    measure  cells like which no run has ended are timed on the first slot's device, and weighed
    Raises UserError for a cell that could not start, where it is measured.
    """
    known = budget.of_runs(_root(design))
    left = {arm.name: [cell for cell in arm.cells if state(cell) != "done"] for arm in _all_arms(design)}
    todo = [cell for cells in left.values() for cell in cells]
    if measure:
        known.measure(todo, slots[0], note)
    arms = [
        {"arm": arm.name, "method": arm.settings.method.label(), "cells": len(arm.cells),
         "done": len(arm.cells) - len(left[arm.name]), "to_do": len(left[arm.name]),
         "hours": _hours(known, left[arm.name])}
        for arm in _all_arms(design)
    ]  # fmt: skip
    later = [choice.arm for choice in design.choices if chosen(choice) is None]
    total = _hours(known, todo)
    return {
        "study": design.name,
        "question": design.fields.question,
        "cells": sum(arm["cells"] for arm in arms),
        "done": sum(arm["done"] for arm in arms),
        "to_do": len(todo),
        "arms": arms,
        "chosen_later": {"arms": later, "cells": len(later) * len(design.fields.seeds)},
        "devices": list(slots),
        "hours": total,
        "wall_hours": None if total is None else total / max(1, len(slots)),
        "bytes": budget.total([known.bytes(cell) for cell in todo]),
        "measured": [cell.name for cell in known.measured],
        "power": budget.power(design),
        "screen": design.screen,
        "epochs": sorted({arm.settings.epochs or 0 for arm in design.arms}),
        "comparison": design.document()["comparison"],
        "digest": design.document()["digest"],
        "seeds": list(design.fields.seeds),
    }


def _hours(known: budget.Budget, cells: Sequence[Cell]) -> float | None:
    seconds = budget.total([known.seconds(cell) for cell in cells])
    return None if seconds is None else seconds / 3600


def longest_first(cells: Sequence[Cell], root: Path) -> list[Cell]:
    """The cells by falling time, where all times are known; else by the images that they see."""
    taken = budget.of_runs(root)
    known = [taken.seconds(cell) for cell in cells]
    if all(s is not None for s in known):
        # Times that hardly differ keep the order by seed, so that a study cut short is balanced.
        times = {id(cell): round((s or 0.0) / max(1e-9, max(k or 0.0 for k in known)), 1)
                 for cell, s in zip(cells, known, strict=True)}  # fmt: skip
        return sorted(cells, key=lambda cell: -times[id(cell)])
    return sorted(cells, key=lambda cell: -budget.steps(cell) * (cell.job.settings.batch or 1))


# -------------------------------------------------------------------------------------------------------------- running


class Tally:
    """What a study tells while it runs: a line for every cell that ends."""

    def __init__(self, total: int, slots: int, note: Callable[[str], None]):
        self.total, self._slots, self._note = total, slots, note
        self.ended = 0
        self.failed: list[Ended] = []
        self.stopped = 0
        self._adopted = 0
        self._held: set[str] = set()  # cells that another process was seen to hold
        self._seconds: list[float] = []
        self._begun = time.monotonic()

    def end(self, ended: Ended) -> None:
        """Counts a cell and tells it; those that were done before are told together, by `adopted`."""
        if ended.state == "stopped":
            self.stopped += 1
            return
        if ended.state == "busy":
            self.adopted()
            self._held.add(ended.cell.name)
            self._note(f"{ended.cell.name}  busy in another process, skipped, looked at again at the end")
            return
        self.ended += 1
        elsewhere = ended.adopted and ended.cell.name in self._held
        if ended.adopted and ended.state == "done" and not elsewhere:
            self._adopted += 1
            return
        self.adopted()
        words = [f"{self.ended:>{len(str(self.total))}}/{self.total}", ended.cell.name]
        if ended.state == "done":
            if not elsewhere:
                self._seconds.append(ended.seconds)
            result = ended.cell.job.run.finished() or {}
            split = "val" if ended.cell.chooses else "test"
            score = result.get("val", {}).get("accuracy") if ended.cell.chooses else result.get("accuracy")
            words += [f"{split} {100 * score:.2f} %" if score is not None else "",
                      "done by another process" if elsewhere else f"{ended.seconds:.1f} s"]  # fmt: skip
        else:
            self.failed.append(ended)
            words += [f"failed ({ended.kind}): {ended.message}"]
        self._note("  ".join([*filter(None, words), *self._left()]))
        for line in ended.last if ended.state == "failed" else ():
            self._note(f"    {line}")

    def adopted(self) -> None:
        """Tells once what was done before."""
        if self._adopted:
            self._note(f"{self._adopted} of {self.total} cells were done before")
            self._adopted = 0

    def _left(self) -> list[str]:
        left = self.total - self.ended
        if not left or not self._seconds:
            return []
        return [f"about {_duration(statistics.median(self._seconds) * left / self._slots)} left"]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def run(design: Design, engine: Engine, tally: Tally, stop: Stop, retry: bool = False) -> None:
    """Runs every cell that is not done: those that need no choice, then those whose value was chosen.

    retry  failed cells are started again
    """
    if retry:
        for cell in design.first_cells():
            forgive(cell)
    root = _root(design)
    engine.run(longest_first(design.first_cells(), root), tally.end, stop)
    if not design.choices or stop.kind is not None:
        return
    final: list[Cell] = []
    for choice in design.choices:
        try:
            option = chosen(choice)
        except UserError:  # its trials failed, which the table of the rest tells
            continue
        final += option.final.cells if option is not None else ()
    for cell in final if retry else ():
        forgive(cell)
    engine.run(longest_first(final, root), tally.end, stop)


def forgive(cell: Cell) -> None:
    """Lets a failed cell start again."""
    if cell.job.run.failure() is not None and not cell.job.run.busy():
        cell.job.run.error.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------------------ reporting


def report(design: Design, kept: Kept | None, warn: Warn) -> Report:
    """The comparison of what is done, with what is missing counted.

    Raises UserError: journal_corrupt for a run whose log was edited; failed_cells where no run is done.
    """
    from mixcli.studies import comparison, follow, scores

    arms = final_arms(design)
    found: list[scores.Score] = []
    missing: dict[str, dict[int, str]] = {}
    images: set[int] = set()
    for arm in arms:
        for cell in arm.cells:
            result = cell.job.run.finished()
            if result is None:
                missing.setdefault(arm.name, {})[cell.seed] = _reason(cell)
                continue
            images.add(result["test_images"])
            found.append(scores.score(cell.job.run, arm.name, warn))
    if not found:
        raise UserError(
            "failed_cells", design.name, "no run is done, so there is nothing to compare", hint="See --status"
        )
    fields = design.fields
    assert fields.family != "like-for-like"  # by now the pairs themselves
    measured = follow.followed(found, {run.id: run for run in done(design)}, fields.follow)
    planned = {arm.name: list(fields.seeds) for arm in arms}
    planned |= {choice.arm: list(fields.seeds) for choice in design.choices}
    datasets = dict.fromkeys(arm.settings.dataset for arm in arms)
    plan = comparison.Plan(
        fields.question or design.name, planned, fields.metric, fields.select, fields.test,
        None if design.alike else design.baseline, fields.family, design.contrasts,
        sesoi=fields.sesoi, dataset=" and ".join(datasets), images=images.pop() if len(images) == 1 else None,
        post_hoc="" if kept is None else kept.post_hoc, follow=follow.columns(fields.follow, measured.scores),
        told=follow.told(fields.metric, measured.facts),
    )  # fmt: skip
    report = comparison.report(plan, measured.scores, missing, [*_choices_told(design), *measured.notes])
    return replace(report, facts=(*report.facts, *measured.facts.items()),
                   warnings=(*report.warnings, *measured.warnings))  # fmt: skip


def done(design: Design) -> list[Run]:
    """The finished runs of the arms that are compared."""
    cells = [cell for arm in final_arms(design) for cell in arm.cells]
    return [cell.job.run for cell in cells if cell.job.run.finished() is not None]


def final_arms(design: Design) -> list[Arm]:
    """The arms that are compared, as far as their value is chosen."""
    arms = list(design.arms)
    for choice in design.choices:
        try:
            option = chosen(choice)
        except UserError:
            continue
        arms += [option.final] if option is not None else []
    return arms


def _reason(cell: Cell) -> str:
    """Why a cell has no score: `failed (diverged)`, `not finished`."""
    failure = cell.job.run.failure()
    return "not finished" if failure is None else f"failed ({failure['kind']})"
