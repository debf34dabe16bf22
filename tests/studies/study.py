"""A study of a few tiny cells, and an engine that runs them in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from mixcli.engine.stopping import Stop
from mixcli.studies import workers
from mixcli.studies.design import Cell
from mixcli.studies.workers import Ended, Queue

TINY = """
study = "small"
question = "which?"
seeds = [0, 1]
[base]
per_class = 6
batch = 20
width = 2
epochs = 2
[tiny]
epochs = 1
"""
ARMS = '[arms.none]\nmethod = "none"\n[arms.mixup]\nmethod = "mixup"\n'


def write(text: str = TINY + ARMS, name: str = "small.toml") -> str:
    Path(name).write_text(text)
    return name


class Here:
    """Runs cells one after the other in this process, as a worker would; the arguments are those of `workers.Local`."""

    ran: list[str] = []  # names of the cells, in order
    before: Callable[[Cell, Stop], None] = staticmethod(lambda cell, stop: None)

    def __init__(self, slots: Sequence[str] = ("cpu",), warn: Callable[[str], None] = print, threads: int = 1):
        self.warn = warn

    def run(self, cells: Sequence[Cell], on_end: Callable[[Ended], None], stop: Stop) -> None:
        queue = Queue(cells, on_end)
        queue.look()
        while stop.kind is None and (cell := queue.take()) is not None:
            type(self).before(cell, stop)
            Here.ran.append(cell.name)
            event = workers.cell(workers.task(cell, device="cpu"), stop)
            for line in event.pop("warnings", ()):
                self.warn(line)
            if event["state"] != "busy":
                queue.end(Ended(cell, **{**event, "last": tuple(event.get("last", ()))}))


TABLES = ("runs.csv", "results.csv", "comparisons.csv", "table.md", "table.tex", "figure.png")


def digests(folder: Path) -> dict[str, str]:
    """What must be equal, byte for byte, whenever a study is repeated."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in TABLES}
