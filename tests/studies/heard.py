"""heard.py: a reporter that remembers."""

from __future__ import annotations

from mixcli.engine.stopping import Stop


class Heard:
    """What a study was told to print, and every warning; asks `stop` to stop at a line that holds `at`."""

    def __init__(self, stop: Stop | None = None, at: str = ""):
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self.stop, self.at = stop, at

    def note(self, line: str) -> None:
        self.lines.append(line)
        if self.stop is not None and self.at in line:
            self.stop.deadline = 0.0

    def warn(self, subject: str, problem: str) -> None:
        self.warnings.append(f"{subject}: {problem}")
