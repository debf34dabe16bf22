"""stopping.py: asked to stop, by a signal or by the clock: the step ends, the run is saved, one line is printed.

A handler only sets a flag; the loop looks at it between steps. A second signal exits at once, saving nothing.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mixcli.errors import EXIT_CODES

KINDS = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted", signal.SIGUSR1: "requeue"}


class Stop:
    """`kind` is None until a stop is asked for, then the error kind whose exit code the process returns."""

    def __init__(self, after: float | None = None):
        """after: seconds from now until the clock asks to stop."""
        self.deadline = None if after is None else time.monotonic() + after
        self.signal: signal.Signals | None = None

    @property
    def kind(self) -> str | None:
        if self.signal is not None:
            return KINDS[self.signal]
        return "requeue" if self.deadline is not None and time.monotonic() >= self.deadline else None

    @property
    def cause(self) -> str:
        return self.signal.name if self.signal is not None else "--stop-after"

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Installs the handlers in the main thread, and puts the former ones back."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._handle) for number in KINDS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(EXIT_CODES[KINDS[signal.Signals(number)]])
        self.signal = signal.Signals(number)
