"""robustness.py: the corruption benchmark: checkpoints on 19 corruptions x 5 severities and the clean set.

D. Hendrycks, T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019,
arXiv 1903.12261. Nets run in eval mode (statistics of a corrupted batch would be adaptation to it), on whole cells,
normalised by the checkpoint's own constants; every checkpoint sees a cell before the next one is made or read. Each
finished cell is kept at once, so that a killed command, typed again, goes on at the first missing one.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixcli import options
from mixcli.corruptions.catalogue import SEVERITIES
from mixcli.corruptions.generated import Saving, digest
from mixcli.corruptions.parameters import FAMILIES
from mixcli.corruptions.published import ALEXNET, ALEXNET_SOURCE, PUBLISHED
from mixcli.data import augment
from mixcli.engine.device import Machine
from mixcli.engine.stopping import Stop
from mixcli.errors import UserError
from mixcli.files import as_json
from mixcli.report import robustness
from mixcli.report.rows import as_csv
from mixcli.sampling import Random
from mixcli.studies import significance, subjects
from mixcli.studies.calibration import BIASED_BELOW, calibration
from mixcli.studies.corruptions import cells as cells_of
from mixcli.studies.corruptions import means as corruption_means
from mixcli.studies.corruptions import results as corruption_results
from mixcli.studies.corruptions.cells import Cells, Origin, Reporter, Wanted
from mixcli.studies.corruptions.means import Cell
from mixcli.studies.corruptions.results import CLEAN, Results
from mixcli.studies.subjects import Choice, Subject, title

BATCH = {"cpu": 512, "cuda": 2000}  # images; that of training's own evaluation on a CPU, so that its score is repeated
LEARNED = 4  # cells after the first by which the time of all is estimated
BASELINE = "baseline"  # why its checkpoint is looked at
IMAGENET, ALEXNET_NAME = "imagenet", "alexnet"
GUARD = 0.0005  # of clean accuracy that bfloat16 may cost


@dataclass(frozen=True)
class Asked(Origin):
    """What was typed after `mixcli eval-corruptions NAME-c`."""

    name: str
    checkpoints: tuple[str, ...] = ()
    runs: Path = Path("runs")
    data_dir: Path | None = None  # the checkpoint's own unless typed
    corruptions: str | None = None
    severities: str | None = None
    baseline: str | None = None
    batch: int | None = None
    precision: str | None = None
    device: str = "auto"
    out: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Tested:
    """A net under test: how it computes here, its constants (C, 1, 1) on the device, and where its results go."""

    subject: Subject
    machine: Machine
    mean: Tensor
    std: Tensor
    results: Results


@dataclass(frozen=True)
class Baseline:
    """What errors are divided by.

    cells   accuracies of the same cells
    clean   the clean one; None where unknown
    wrong   (cells, images) bool, which images it gets wrong in each cell of the panel; None where unknown
    source  of constants
    """

    name: str
    cells: Mapping[Cell, float]
    clean: float | None
    wrong: np.ndarray | None = None
    source: str = ""


def evaluate(asked: Asked, reporter: Reporter, stop: Stop | None = None) -> dict[str, Any]:
    """Evaluates the checkpoints, or reports what was evaluated before; returns what `--json` prints.

    Raises UserError: usage, mismatch, data_*, checkpoint_*, diverged for non-finite logits, and those of `stop`.
    """
    dataset = subjects.corrupted(asked.name)
    wanted = _wanted(asked, Path("data"))
    choices = subjects.choose(asked.checkpoints, dataset, asked.runs, asked.name)
    found = subjects.load(choices, asked.device)
    _check_dataset(found, dataset, asked.name)
    wanted = replace(wanted, data_dir=asked.data_dir or Path(found[0].settings.data_dir))
    cells = cells_of.open_cells(found[0], dataset, wanted, reporter)
    baseline, extra = _baseline(asked, cells, found)
    first_line = f"{title(dataset)}-c: {cells.told} | {' | '.join(subject.told() for subject in found)}"
    reporter.note(first_line)
    with found[0].machine.session(), _tested([*found, *extra], cells, asked, dataset, reporter) as tested:
        saving = _saving(asked, cells)
        _pass(tested, cells, saving, asked.batch, reporter, stop or Stop())
        if extra:
            baseline = _of_results(tested[-1], cells)
        summaries = [_finished(one, cells, dataset, baseline) for one in tested[: len(found)]]
    return _document(summaries, tested, first_line, dataset, asked)


def _wanted(asked: Asked, data_dir: Path) -> Wanted:
    """The options that say which cells, parsed and held against each other before a file is read."""
    names, severities = cells_of.corruptions(asked.corruptions), cells_of.severities(asked.severities)
    origin = {field.name: getattr(asked, field.name) for field in fields(Origin)}
    wanted = Wanted(data_dir, names, severities, **origin)
    cells_of.check_combination(wanted)
    if asked.batch is not None and asked.batch < 1:
        raise UserError("usage", "--batch-size", "must be ≥ 1", asked.batch)
    if asked.precision not in (None, "fp32", "bf16"):
        raise UserError("usage", "--precision", "unknown", asked.precision, "fp32 or bf16")
    return wanted


def _check_dataset(found: Sequence[Subject], dataset: str, name: str) -> None:
    for subject in found:
        trained = subject.data["dataset"]
        if subjects.squashed(trained) == dataset:
            continue
        classes, expected = len(subject.data["classes"]), cells_of.known_classes(dataset)
        if expected is not None and classes != expected:
            raise UserError("mismatch", subject.label, "classes", f"{classes} ({trained})", f"{expected} ({name})")
        raise UserError("mismatch", subject.label, "data set", trained, f"the one of {name}")


# ---------------------------------------------------------------------------------------------------- nets and folders


@contextmanager
def _tested(
    found: Sequence[Subject], cells: Cells, asked: Asked, dataset: str, reporter: Reporter
) -> Iterator[list[Tested]]:
    """The nets with their folders, which are locked meanwhile."""
    with ExitStack() as stack:
        tested, count = [], sum(subject.rule != BASELINE for subject in found)
        for subject in found:
            machine = _machine(subject, cells, asked, reporter)
            identity = {
                **cells_of.identity_of(cells), "dataset": f"{title(dataset)}-c", "checkpoint": subject.digest,
                "precision": "bf16" if machine.bf16 else "fp32", "evaluated_on": machine.device.type,
            }  # fmt: skip
            folder = _folder(subject, identity, asked, several=count > 1 or subject.rule == BASELINE)
            results = Results(folder, identity).open(asked.overwrite)
            stack.callback(results.close)
            tested.append(Tested(subject, machine, *_constants(subject), results))
        yield tested


def _constants(subject: Subject) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(subject.data[key], dtype=torch.float32).view(-1, 1, 1) for key in ("mean", "std"))
    return mean.to(subject.machine.device), std.to(subject.machine.device)


def _folder(subject: Subject, identity: Mapping[str, Any], asked: Asked, several: bool) -> Path:
    """`<run>/studies/corruptions/<data>-<source>-<digest>`, beside a loose checkpoint, or under --out."""
    last = f"{identity['dataset']}-{identity['source'].split(' ')[0]}-{corruption_results.digest(identity)}"
    if asked.out is not None:
        return asked.out / subject.label.replace("/", "-") if several else asked.out
    return corruption_results.home(subject.path) / last


def _machine(subject: Subject, cells: Cells, asked: Asked, reporter: Reporter) -> Machine:
    """fp32, unless the run is bf16 on a GPU or it was asked for, and it does not cost clean accuracy."""
    machine = subject.machine
    asked_for = asked.precision == "bf16" if asked.precision else machine.bf16 and machine.device.type == "cuda"
    plain, half = replace(machine, bf16=False), replace(machine, bf16=True)
    if not asked_for or cells.clean is None:
        return plain
    labels = _clean_labels(cells)
    scores = [
        float((_logits(subject, one, cells.clean, asked.batch).argmax(1).cpu() == labels).double().mean())
        for one in (plain, half)
    ]
    if abs(scores[0] - scores[1]) <= GUARD:
        return half
    reporter.warn("--precision", f"bf16 changes clean accuracy from {scores[0]:.2%} to {scores[1]:.2%}; fp32 is used")
    return plain


def _clean_labels(cells: Cells) -> Tensor:
    return torch.from_numpy(cells.labels if cells.clean_labels is None else cells.clean_labels)


# -------------------------------------------------------------------------------------------------------- the one pass


def _pass(
    tested: Sequence[Tested], cells: Cells, saving: Saving | None, batch: int | None, reporter: Reporter, stop: Stop
) -> None:
    """Evaluates every missing cell of every net, and writes the sets to be saved."""
    _clean_row(tested, cells, batch, reporter)
    todo = _todo(tested, cells, saving)
    if not todo:
        return
    count = f"{len(todo)} cells x {len(cells.index)} images x {len(tested)} checkpoint{'s' * (len(tested) > 1)}"
    reporter.note(count)
    clock = _Clock(len(todo), reporter)
    with ExitStack() as files:
        writer = _Writer(saving, files)
        for done, (cell, images) in enumerate(cells.stream(todo)):
            _raise_if_stopped(stop, tested, done, len(todo))
            pixels = images.cpu().numpy() if cells.made is not None else None
            writer.take(cell, pixels)
            seconds, sha256 = clock.since(), None if pixels is None else digest(pixels)
            for one in tested:
                if one.results.missing([cell]):
                    _evaluate(one, cell, images, torch.from_numpy(cells.labels), batch, seconds, sha256)
            clock.tick()
            _tell(tested, cell, cells, reporter)


class _Clock:
    """Seconds since the last cell, and once an estimate of what is left."""

    def __init__(self, cells: int, reporter: Reporter):
        self.cells, self.reporter = cells, reporter
        self.ends = [time.perf_counter()]

    def since(self) -> float:
        return time.perf_counter() - self.ends[-1]

    def tick(self) -> None:
        self.ends.append(time.perf_counter())
        done = len(self.ends) - 1
        if done == LEARNED + 1 < self.cells:  # the first cell has once-only costs of its own
            left = (self.ends[-1] - self.ends[1]) / LEARNED * (self.cells - done)
            self.reporter.note(f"about {left:.0f} s left, by the first cells")


class _Writer:
    """Hands cells, which come in the order of a file's rows, to the file of their corruption."""

    def __init__(self, saving: Saving | None, files: ExitStack):
        self.saving, self.files = saving, files  # leaving the stack by an error removes a file that is not complete

    def take(self, cell: Cell, pixels: np.ndarray | None) -> None:
        name, severity = cell
        if self.saving is None or pixels is None or name in self.saving:
            return
        if severity == SEVERITIES[0]:
            self.add = self.files.enter_context(self.saving.file(name))
        self.add(pixels)
        if severity == SEVERITIES[-1]:
            self.files.close()  # the file is complete, and is there from now on


def _todo(tested: Sequence[Tested], cells: Cells, saving: Saving | None) -> list[Cell]:
    """The cells that a net lacks, and all of a corruption that is to be saved and is not yet."""
    unsaved = set() if saving is None else {name for name in cells.panel.names if name not in saving}
    missing = {cell for one in tested for cell in one.results.missing(cells.panel.cells)}
    return [cell for cell in cells.panel.cells if cell in missing or cell[0] in unsaved]


def _clean_row(tested: Sequence[Tested], cells: Cells, batch: int | None, reporter: Reporter) -> None:
    if cells.clean is None:
        return
    for one in tested:
        if one.results.missing([CLEAN]):
            _evaluate(one, CLEAN, cells.clean, _clean_labels(cells), batch, 0.0, None)
            _compare_with_run(one, len(cells.index), reporter)


def _compare_with_run(one: Tested, images: int, reporter: Reporter) -> None:
    """Says so where the clean score is not the one that the run itself recorded at its last epoch."""
    run = one.subject.run
    recorded = None if run is None or one.subject.path.name != "run.ckpt" else run.finished()
    if recorded is None or recorded.get("test_images") != images:
        return
    mine = one.results.rows[CLEAN]["top1"]
    if round(mine * images) != round(recorded["accuracy"] * images):
        problem = f"clean accuracy {mine:.2%} here, {recorded['accuracy']:.2%} when it was trained"
        reporter.warn(one.subject.label, f"{problem}; another device, precision or data")


def _evaluate(
    one: Tested, cell: Cell, images: Tensor, labels: Tensor, batch: int | None, made: float, sha256: str | None
) -> None:
    began = time.perf_counter()
    logits = _logits(one.subject, one.machine, images, batch, (one.mean, one.std))
    target = labels.to(logits.device)
    try:
        scores = calibration(logits, target).row()
    except ValueError as error:
        raise UserError("diverged", corruption_results.name(cell), str(error), hint="The net has diverged") from error
    correct = (logits.argmax(1) == target).cpu().numpy()
    seconds = {"images": round(made, 4), "net": round(time.perf_counter() - began, 4)}
    one.results.add(cell, scores, correct, seconds=seconds, sha256=sha256)


@torch.inference_mode()
def _logits(
    subject: Subject,
    machine: Machine,
    images: Tensor,
    batch: int | None,
    constants: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """(n, classes) float32 of (n, H, W, C) uint8 images, batch by batch; a batch that does not fit is halved."""
    assert not any(module.training for module in subject.net.modules()), "statistics of a batch would be adaptation"
    mean, std = constants or _constants(subject)
    size = batch or BATCH.get(machine.device.type, 512)
    while True:
        try:
            found = []
            for part in images.split(size):
                with machine.autocast():
                    found.append(subject.net(augment.normalised(part.permute(0, 3, 1, 2), mean, std)).float())
            return torch.cat(found)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size //= 2


def _raise_if_stopped(stop: Stop, tested: Sequence[Tested], done: int, total: int) -> None:
    if stop.kind is not None:
        where = f"stopped by {stop.cause} after {done} of {total} cells"
        folder = str(tested[0].results.folder)
        raise UserError(stop.kind, folder, where, hint="Type the same command again to go on")


def _tell(tested: Sequence[Tested], cell: Cell, cells: Cells, reporter: Reporter) -> None:
    """A line per finished corruption: accuracies over its severities, and per net where there are several."""
    name, severity = cell
    if severity != cells.panel.severities[-1]:
        return
    for one in tested:
        rows = one.results.rows
        found = [f"{rows[name, s]['top1']:6.1%}" for s in cells.panel.severities if (name, s) in rows]
        reporter.note(f"{name:<18} {' '.join(found)}" + (f"  {one.subject.label}" if len(tested) > 1 else ""))


# -------------------------------------------------------------------------------------------------------------- saving


def _saving(asked: Asked, cells: Cells) -> Saving | None:
    if asked.save is None or cells.made is None:
        return None
    height, width, channels = cells.made.images.shape[1:]
    saving = Saving(asked.save, cells.origin, cells.labels, (height, width, channels))
    saving.begin()
    return saving


# ------------------------------------------------------------------------------------------------------------ baseline


def _baseline(asked: Asked, cells: Cells, found: Sequence[Subject]) -> tuple[Baseline | None, list[Subject]]:
    """A table of cells that was saved, or a net to be evaluated with the others."""
    if asked.baseline is None:
        return None, []
    if asked.baseline == ALEXNET_NAME:
        return _alexnet(asked, cells, found[0]), []
    if asked.baseline.endswith(".csv"):
        return _from_csv(Path(asked.baseline), cells), []
    [choice] = subjects.choose([asked.baseline], "", asked.runs, "--baseline")
    same = [subject for subject in found if subject.path.resolve() == choice.path.resolve()]
    if same:
        raise UserError("usage", "--baseline", "is one of the checkpoints", same[0].label)
    [subject] = subjects.load([Choice(choice.path, BASELINE)], asked.device)
    _check_dataset([subject], subjects.corrupted(asked.name), asked.name)
    return None, [subject]


def _alexnet(asked: Asked, cells: Cells, subject: Subject) -> Baseline:
    """Published constants, which stand for the published files and all of them. Raises UserError: usage."""
    whole = cells.panel.severities == SEVERITIES and asked.per_cell is None
    classes = len(subject.data["classes"])
    for wrong, got in (
        (subjects.corrupted(asked.name) != IMAGENET or classes != PUBLISHED[IMAGENET].classes,
         f"{asked.name}, {classes} classes"),
        (cells.kind != "official", cells.label),
        (not whole, "a part of the images or severities"),
    ):  # fmt: skip
        if wrong:
            problem = "alexnet stands for constants measured on the official ImageNet-C alone, on all of it"
            hint = "Name a checkpoint, or the cells.csv of one"
            raise UserError("usage", "--baseline", problem, got, "ImageNet-C, official files", hint)
    errors = {(name, s): 1 - error for name, error in ALEXNET.items() for s in SEVERITIES}
    return Baseline(ALEXNET_NAME, errors, None, source=ALEXNET_SOURCE)


def _of_results(one: Tested, cells: Cells) -> Baseline:
    wrong, summary = one.results.wrong(cells.panel.cells), one.results.summary
    if summary is not None:
        return replace(_of_summary(summary), wrong=wrong)
    rows = one.results.rows
    found = {cell: row["top1"] for cell, row in rows.items() if cell != CLEAN}
    return Baseline(one.subject.label, found, rows[CLEAN]["top1"] if CLEAN in rows else None, wrong)


def _of_summary(summary: Mapping[str, Any]) -> Baseline:
    clean = summary["clean"]
    return Baseline(summary["checkpoint"], _scores(summary), None if clean is None else clean["top1"])


def _scores(summary: Mapping[str, Any]) -> dict[Cell, float]:
    """Top-1 accuracy of each cell."""
    found = summary["corruptions"].items()
    return {(name, int(s)): top1 for name, of in found for s, top1 in of["severities"].items()}


def _from_csv(path: Path, cells: Cells) -> Baseline:
    """A cells.csv of another net on the same cells. Raises UserError: data_missing, data_corrupt, mismatch."""
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        found = {(row["corruption"], int(row["severity"] or 0)): row for row in rows}
        scores = {cell: int(row["correct"]) / int(row["n"]) for cell, row in found.items()}
    except FileNotFoundError:
        raise UserError("data_missing", str(path), "not found") from None
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError("data_corrupt", str(path), "not a cells.csv of eval-corruptions") from error
    for name, severity in cells.panel.cells:
        row = found.get((name, severity))
        if row is None:
            raise UserError("mismatch", str(path), f"has no cell {name}/{severity}")
        for column, expected in (("source", cells.label), ("n", str(len(cells.index)))):
            if row.get(column) != expected:
                raise UserError("mismatch", str(path), column, row.get(column), expected)
    clean = scores.pop(CLEAN, None)
    name = path.stem if path.stem != "cells" else path.parent.name
    return Baseline(name, scores, clean, _bits_beside(path, cells, scores))


def _bits_beside(path: Path, cells: Cells, scores: Mapping[Cell, float]) -> np.ndarray | None:
    """(cells, images) bool from the bits beside a table of cells, if they are those of the table."""
    try:
        saved = corruption_results.bits_in(path.parent)
        wrong = ~saved.correct[[saved.cells.index(corruption_results.name(cell)) for cell in cells.panel.cells]]
    except (UserError, ValueError):
        return None
    alike = [round(scores[cell] * len(cells.index)) for cell in cells.panel.cells] == (~wrong).sum(1).tolist()
    return wrong if alike and np.array_equal(saved.index, cells.index) else None


# ----------------------------------------------------------------------------------------------------- what is written


def _finished(one: Tested, cells: Cells, dataset: str, baseline: Baseline | None) -> dict[str, Any]:
    """The summary of a net, its files written unless they are there already."""
    results, before = one.results, one.results.summary
    if before is None:
        summary = _summary(one, cells, dataset, baseline)
        rows = list(_csv_rows(one, cells, dataset))
        paired = {cell: row for cell, row in results.rows.items() if cells.paired or cell != CLEAN}
        files = {
            corruption_results.CELLS: as_csv(rows),
            corruption_results.BITS: corruption_results.packed(paired, cells.index, cells.labels, cells.label),
            "cost.csv": as_csv(_costs(results)),
            "environment.json": as_json(one.machine.describe() | _versions(), indent=1),
        }
        return results.finish(files | robustness.files([summary]), summary)
    block = before["baseline"] if baseline is None else _relative(one, cells, before, baseline)
    if block == before["baseline"]:
        return before
    summary = {**before, "baseline": block}
    return results.finish(robustness.files([summary]), summary)


def _summary(one: Tested, cells: Cells, dataset: str, baseline: Baseline | None) -> dict[str, Any]:
    rows, settings, panel = one.results.rows, one.subject.settings, cells.panel
    ordered = {cell: rows[cell] for cell in panel.cells}
    seen = seen_in_training(options.flat(settings), panel.names)
    clean = None if CLEAN not in rows else {key: rows[CLEAN][key] for key in SCORES}
    found = {
        "dataset": f"{title(dataset)}-c", "source": cells.label, "split": "test", "images": len(cells.index),
        "checkpoint": one.subject.label, "method": settings.method.label(), "net": settings.net, "seed": settings.seed,
        "epoch": one.subject.epoch, "clean": clean, **corruption_means.means(panel, ordered),
        "families_of": {name: cells_of.family(name) for name in panel.names},
        "seen": seen, "headline_without_seen": corruption_means.mean_without(panel, ordered, seen) if seen else None,
        "baseline": None,
        "notes": _notes(cells),
        "provenance": _provenance(one, cells),
    }  # fmt: skip
    return found if baseline is None else {**found, "baseline": _relative(one, cells, found, baseline)}


SCORES = ("n", "correct", "top1", "top5", *corruption_means.CALIBRATION)


def _relative(one: Tested, cells: Cells, summary: Mapping[str, Any], baseline: Baseline) -> dict[str, Any]:
    mine = _of_summary(summary)
    found = corruption_means.relative(
        cells.panel, mine.cells, baseline.cells, (mine.clean, baseline.clean), baseline.name
    )
    interval = {} if found["mce"] is None else _interval(one.results.wrong(cells.panel.cells), cells, baseline)
    return {**found, "low": None, "high": None, "interval": None, "source": baseline.source, **interval}


def _interval(wrong: np.ndarray, cells: Cells, baseline: Baseline) -> dict[str, Any]:
    """Of the mean of the ratios: the same images of both nets drawn again, or of one where the other is constants.

    wrong  (cells, images) bool
    """
    panel, images = cells.panel, wrong.shape[1]
    over = [panel.names.index(name) for name in panel.of(panel.headline)]

    def errors(of: np.ndarray) -> np.ndarray:
        return of.reshape(len(panel.names), len(panel.severities), images).mean(1)[over]

    if baseline.wrong is not None:
        theirs, told = errors(baseline.wrong), "both nets' errors anew in each resample"
    else:
        theirs = np.array([np.mean([1 - baseline.cells[panel.names[k], s] for s in panel.severities]) for k in over])
        told = f"conditional on {baseline.name}, whose errors are taken as exact"
    host = Random(0, "eval-corruptions/baseline").host
    low, high = significance.ratio_bootstrap(errors(wrong), theirs, host)
    if not math.isfinite(low):
        return {"interval": "no interval: some resample has no error of the baseline"}
    return {
        "low": low,
        "high": high,
        "interval": f"95 % by bootstrap over {images:,} images, {told}; these files alone",
    }


def _notes(cells: Cells) -> list[str]:
    few = len(cells.index) < BIASED_BELOW
    biased = "ece15, ece_adaptive and rms_adaptive are biased upwards with fewer than 1,000 images in a cell"
    absent = cells.panel.not_applicable
    left_out = [f"not applicable at this size: {', '.join(absent)}"] if absent else []
    missing = cells.panel.not_available
    return [*cells.notes, *left_out, *([f"not available: {', '.join(missing)}"] if missing else []),
            *([biased] if few else [])]  # fmt: skip


def _provenance(one: Tested, cells: Cells) -> dict[str, Any]:
    subject, rows = one.subject, one.results.rows
    made = {corruption_results.name(c): rows[c]["sha256"] for c in cells.panel.cells if rows[c].get("sha256")}
    machine = one.machine.describe()
    return {
        **cells.identity, "kind": cells.kind, "told": cells.told, "column": cells.panel.column,
        "paired": cells.paired, "weights": subject.weights, "selection": subject.rule,
        "checkpoint_digest": subject.digest, "mean": list(subject.data["mean"]), "std": list(subject.data["std"]),
        "precision": machine["precision"], "evaluated_on": one.machine.device.type, "versions": _versions(),
        "cells_sha256": made,
    }  # fmt: skip


def _versions() -> dict[str, str]:
    """Of the libraries that make or change pixels."""
    return {name: metadata.version(name) for name in ("torch", "torchvision", "pillow", "scipy", "numpy")}


def _csv_rows(one: Tested, cells: Cells, dataset: str) -> Iterator[dict[str, Any]]:
    subject, rows = one.subject, one.results.rows
    seen = seen_in_training(options.flat(subject.settings), cells.panel.names)
    for cell in (CLEAN, *cells.panel.cells):
        if cell in rows:
            yield {
                "dataset": f"{title(dataset)}-c", "source": cells.label, "method": subject.settings.method.label(),
                "checkpoint": subject.label, "seed": subject.settings.seed, "corruption": cell[0], "severity": cell[1],
                **{key: rows[cell][key] for key in SCORES}, "seen": int(cell[0] in seen),
                "substitute": cells_of.stands_for(cell[0]),
            }  # fmt: skip


def _costs(results: Results) -> list[dict[str, Any]]:
    return [
        {"corruption": cell[0], "severity": cell[1], "images_seconds": row["seconds"]["images"],
         "net_seconds": row["seconds"]["net"]}
        for cell, row in results.rows.items()
    ]  # fmt: skip


SEEN = {"noise": FAMILIES["noise"], "blur": FAMILIES["blur"], "brightness": ("brightness",), "contrast": ("contrast",),
        "jpeg": ("jpeg_compression",), "saturat": ("saturate",), "elastic": ("elastic_transform",)}  # fmt: skip


def seen_in_training(settings: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The corruptions that a run's list of augmentations holds, by their words."""
    listed = str(settings.get("augment") or "").lower()
    found = {name for word, members in SEEN.items() if word in listed for name in members}
    return [name for name in names if name in found or name in listed]


def _document(
    summaries: Sequence[dict[str, Any]], tested: Sequence[Tested], first_line: str, dataset: str, asked: Asked
) -> dict[str, Any]:
    folders = [str(one.results.folder) for one in tested[: len(summaries)]]
    name = f"{title(dataset)}-c"
    document = {"dataset": name, "told": first_line, "checkpoints": list(summaries), "folders": folders}
    if len(summaries) > 1:
        joint = asked.out or tested[0].results.folder
        robustness.write_joint(summaries, joint)
        document["joint"] = str(joint)
    return document
