"""progress.py: what a run tells while it goes on: notes, warnings, and a bar on a terminal or else a line per epoch.

A transfer of bytes has a bar too, or else a line for every tenth. Everything goes to stderr; a broken stderr never
stops the work.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from mixcli.errors import printable

LINE = 400  # characters of a note; longer ones are cut
REFRESH = 0.1  # seconds between two drawings of the bar


class Reporter:
    """Prints for people and collects the warnings for `--json`."""

    def __init__(self, command: str = "mixcli", quiet: bool = False):
        self.command, self.quiet = command, quiet
        self.warnings: list[str] = []
        self.epochs: int | None = None  # how many the run has, where known
        self.console = Console(file=cast(TextIO, _Unbreakable(sys.stderr)), highlight=False, soft_wrap=True)
        self._held: list[str] = []
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._drawn = 0.0
        self._tenths = 0  # of a transfer, told so far

    def note(self, line: str) -> None:
        if not self.quiet:
            self._begin()
            self._print(line)

    def announce(self, line: str) -> None:
        """A note held back until the work has begun, so that an error before it stays the only line."""
        self._held.append(line)

    def warn(self, subject: str, problem: str) -> None:
        line = f"{printable(subject)}: {printable(problem, limit=300)}"
        self.warnings.append(line)
        self._print(f"{self.command}: warning: {line}", style="yellow")

    def epoch(self, row: dict[str, Any]) -> None:
        """One line of the log: `epoch  3/20  loss 0.512  test accuracy 91.20 %  lr 0.08  1.2 s`."""
        if not self.quiet:
            self._begin()
            self._print("  ".join(_words(row, self.epochs)))

    def step(self, done: int, total: int) -> None:
        """Moves the bar, which only a terminal has."""
        if self.quiet:
            return
        self._begin()
        if self._on_terminal:
            self._draw("training", _steps, done, total)

    def transfer(self, name: str, done: int, total: int | None) -> None:
        """Moves the bar of a file; without a terminal, a line for every tenth of it."""
        if self.quiet:
            return
        if self._on_terminal:
            self._draw(name, _bytes, done, total)
            if done == total:
                self.close()
        elif total and (tenths := 10 * done // total) != self._tenths:
            self._tenths = tenths
            self._print(f"{name}  {10 * tenths} %  {done / 1e6:.1f} of {total / 1e6:.1f} MB")

    @property
    def _on_terminal(self) -> bool:
        return self.console.is_terminal and not self.console.is_dumb_terminal

    def _draw(self, what: str, columns: Callable[[], tuple[ProgressColumn, ...]], done: int, total: int | None) -> None:
        if self._bar is None:
            self._bar = _bar(self.console, columns())
            self._task = self._bar.add_task(what, total=total, completed=done)
            self._bar.start()
        now = time.monotonic()
        if done == total or now - self._drawn >= REFRESH:
            self._drawn = now
            self._bar.update(self._task, completed=done, total=total, refresh=True)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        held, self._held = self._held, []
        for line in held:
            self._print(line)

    def _print(self, line: str, style: str = "") -> None:
        self.console.print(Text(printable(line, limit=LINE), style=style))


def _words(row: dict[str, Any], epochs: int | None) -> Iterator[str]:
    of = "" if epochs is None else f"/{epochs}"
    yield f"epoch {row.get('epoch', '?'):>{max(1, len(of) - 1)}}{of}"
    train = row.get("train", {})
    if "loss" in train:
        yield f"loss {train['loss']:.3f}"
    for split in ("val", "test"):
        if split in row:
            yield f"{split} accuracy {row[split]['accuracy']:7.2%}"
    if "lr" in row:
        yield f"lr {row['lr']:.4g}"
    if "seconds" in row:
        yield f"{row['seconds']:.1f} s"


def _bar(console: Console, columns: tuple[ProgressColumn, ...]) -> Progress:
    """Drawn by our own calls: no thread of its own that could outlive or fork badly."""
    return Progress(*columns, console=console, auto_refresh=False, transient=True)


def _steps() -> tuple[ProgressColumn, ...]:
    return (TextColumn("{task.description}"), BarColumn(), TextColumn("step {task.completed}/{task.total}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())  # fmt: skip


def _bytes() -> tuple[ProgressColumn, ...]:
    return (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TextColumn("left"),
            TimeRemainingColumn())  # fmt: skip


class _Unbreakable:
    """A text stream that forgets what it cannot write."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
