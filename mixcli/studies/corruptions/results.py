"""results.py: what a corruption benchmark leaves in a folder, and going on where a killed one stopped.

journal.jsonl           a line per finished cell while the work goes on; gone when it is done
cells.csv               a row per cell, the clean one first
per_image_correct.npz   the top-1 bit of each image in each cell, packed
summary.json            means, provenance, digests of the other files; written last, so it says that all is there
table.md, table.csv, figure.png, figure.pdf
cost.csv, environment.json   seconds and the machine: all other files have the same bytes when repeated
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixcli import runs
from mixcli.errors import UserError
from mixcli.files import append, as_json, told, write_atomic
from mixcli.runs import Run
from mixcli.studies.corruptions.means import Cell

FORMAT = 1
CLEAN: Cell = ("clean", 0)
JOURNAL, SUMMARY, CELLS, BITS = "journal.jsonl", "summary.json", "cells.csv", "per_image_correct.npz"
FILES = (JOURNAL, SUMMARY, CELLS, BITS, "table.md", "table.csv", "figure.png", "figure.pdf", "cost.csv",
         "environment.json")  # fmt: skip


@dataclass(frozen=True)
class Bits:
    """Which images a net gets right in every cell.

    cells    names: "clean" and "corruption/severity"
    correct  (cells, images) bool
    index    (images,) int64, rows in the full test set
    labels   sha256 of their labels
    source   the data source's label, with the generator's seed
    """

    cells: tuple[str, ...]
    correct: np.ndarray
    index: np.ndarray
    labels: str
    source: str


def name(cell: Cell) -> str:
    """clean, or fog/3."""
    return "clean" if cell == CLEAN else f"{cell[0]}/{cell[1]}"


def digest(identity: Mapping[str, Any]) -> str:
    """12 hex digits of what results depend on."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


class Results:
    """The results of one checkpoint in one folder; `open` takes the folder's lock and reads what is there.

    rows     what is known of each cell: its scores, `bits`, `seconds`, `sha256`
    summary  of a finished benchmark of the same identity, else None
    """

    def __init__(self, folder: Path, identity: dict[str, Any]):
        self.folder, self.identity = folder, identity
        self.rows: dict[Cell, dict[str, Any]] = {}
        self.summary: dict[str, Any] | None = None
        self._lock = Run(folder)

    def open(self, overwrite: bool = False) -> Results:
        """Raises UserError: run_locked for a live process, mismatch for results of something else."""
        with told(self.folder):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._lock.open()
        if overwrite:
            for file in FILES:
                (self.folder / file).unlink(missing_ok=True)
        try:
            self._read()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        self._lock.close()

    def _read(self) -> None:
        summary = _json(self.folder / SUMMARY)
        if summary is not None:
            self._must_be_ours(summary.get("identity"))
            self.summary = summary
        elif (self.folder / JOURNAL).is_file():
            first, *rows = runs.rows(self.folder / JOURNAL) or [{}]
            if first:
                self._must_be_ours(first.get("identity"))
            self.rows = {(row["corruption"], row["severity"]): row for row in rows}
            whole = [{"identity": self.identity}, *self.rows.values()]  # without a last line that a kill has cut
            write_atomic(self.folder / JOURNAL, b"".join(as_json(row) for row in whole))
        elif (self.folder / CELLS).exists():
            self._must_be_ours(None)

    def _must_be_ours(self, found: Any) -> None:
        if found != self.identity:
            of = found.get("checkpoint") if isinstance(found, dict) else None
            same = of == self.identity["checkpoint"]
            problem = "belongs to another evaluation" if same or of is None else f"belongs to checkpoint {of}"
            raise UserError("mismatch", str(self.folder / CELLS), problem, hint="--overwrite or --out")

    def missing(self, cells: Sequence[Cell]) -> list[Cell]:
        """The cells that are still to be evaluated."""
        return [] if self.summary is not None else [cell for cell in cells if cell not in self.rows]

    def add(self, cell: Cell, scores: Mapping[str, Any], correct: np.ndarray, **more: Any) -> None:
        """Keeps a finished cell. `correct` (n,) bool."""
        bits = base64.b64encode(np.packbits(correct).tobytes()).decode()
        row = {"corruption": cell[0], "severity": cell[1], **scores, "bits": bits, **more}
        if not (self.folder / JOURNAL).exists():
            append(self.folder / JOURNAL, as_json({"identity": self.identity}))
        append(self.folder / JOURNAL, as_json(row))
        self.rows[cell] = json.loads(as_json(row))  # as another process would find it

    def wrong(self, cells: Sequence[Cell]) -> np.ndarray:
        """(cells, images) bool: which images the net gets wrong in each of these cells."""
        if self.summary is not None:
            saved = bits_in(self.folder)
            return ~saved.correct[[saved.cells.index(name(cell)) for cell in cells]]
        rows = [self.rows[cell] for cell in cells]
        bits = [np.frombuffer(base64.b64decode(row["bits"]), np.uint8) for row in rows]
        return ~np.unpackbits(np.stack(bits), axis=1, count=rows[0]["n"]).astype(bool)

    def finish(self, files: Mapping[str, bytes], summary: Mapping[str, Any]) -> dict[str, Any]:
        """Writes the files, then the summary that lists their digests; the journal has done its work."""
        for file, content in files.items():
            write_atomic(self.folder / file, content)
        digests = {file: hashlib.sha256(c).hexdigest() for file, c in files.items() if file not in COSTS}
        others = {} if self.summary is None else self.summary["files"]
        content = as_json({**summary, "schema": FORMAT, "identity": self.identity, "files": others | digests}, indent=1)
        write_atomic(self.folder / SUMMARY, content)
        (self.folder / JOURNAL).unlink(missing_ok=True)
        self.summary = found = json.loads(content)  # as another process would find it
        return found


COSTS = ("cost.csv", "environment.json")


def packed(rows: Mapping[Cell, Mapping[str, Any]], index: np.ndarray, labels: np.ndarray, source: str) -> bytes:
    """per_image_correct.npz: equal outcomes give equal bytes. A clean row over other images is left out."""
    kept = {cell: row for cell, row in rows.items() if row["n"] == len(index)}
    bits = [np.frombuffer(base64.b64decode(row["bits"]), np.uint8) for row in kept.values()]
    content = io.BytesIO()
    np.savez(
        content, allow_pickle=False, correct=np.stack(bits), cells=np.array([name(cell) for cell in kept]),
        index=index.astype(np.int64), labels=hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest(), source=source,
    )  # fmt: skip
    return content.getvalue()


def bits_in(folder: Path) -> Bits:
    """What `packed` saved in a folder of results. Raises UserError (data_*)."""
    path = folder / BITS
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as saved:
            index, cells = saved["index"], tuple(map(str, saved["cells"]))
            correct = np.unpackbits(saved["correct"], axis=1, count=len(index)).astype(bool)
            found = Bits(cells, correct, index, str(saved["labels"]), str(saved["source"]))
        if correct.shape != (len(cells), len(index)):
            raise ValueError("its sizes contradict")
    except FileNotFoundError:
        raise UserError(
            "data_missing", str(folder), "no per-image results", hint="Run mixcli eval-corruptions"
        ) from None
    except Exception as error:  # zipfile and numpy raise many types on hostile bytes
        raise UserError("data_corrupt", str(path), "damaged, or not what eval-corruptions leaves") from error
    return found


def home(checkpoint: Path) -> Path:
    """Where the results of a checkpoint lie unless told otherwise: in its run's folder, or beside a loose one."""
    run = Run(checkpoint.parent.parent if checkpoint.parent.name == "epochs" else checkpoint.parent)
    inside = run.settings.is_file()
    studies = run.folder / "studies" if inside else checkpoint.with_name(f"{checkpoint.stem}-studies")
    return studies / "corruptions"


def of_checkpoint(checkpoint: Path) -> list[Path]:
    """The folders of finished benchmarks of a checkpoint (of a run: of any of its checkpoints), by name."""
    return sorted(path.parent for path in home(checkpoint).glob(f"*/{SUMMARY}"))


def summary_in(folder: Path) -> dict[str, Any]:
    """The summary of a folder of results. Raises UserError: data_corrupt."""
    found = _json(folder / SUMMARY)
    if found is None or found.get("schema") != FORMAT:
        raise UserError("data_corrupt", str(folder / SUMMARY), "damaged, or not what eval-corruptions leaves")
    return found


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
