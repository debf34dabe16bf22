"""errors.py: one kind of error for users, its one line, and the exit codes.

Every mistake a user can make becomes a `UserError`; `cli.main` prints its line on stderr and returns its code.
"""

from __future__ import annotations

import difflib
import errno
import unicodedata
from collections.abc import Iterable

EXIT_CODES = {
    "internal": 1, "disk_full": 1, "out_of_memory": 1, "worker_died": 1, "distributed": 1, "io": 1,
    "unhealthy": 1,
    "usage": 2, "config": 2, "mismatch": 2, "run_exists": 2, "run_locked": 2,
    "data_missing": 3, "data_corrupt": 3, "checkpoint_missing": 3, "checkpoint_corrupt": 3,
    "journal_corrupt": 3, "refused_unsafe": 3,
    "diverged": 4,
    "failed_cells": 5, "broken_laws": 5,
    "requeue": 75, "interrupted": 130, "terminated": 143,
}  # fmt: skip
STOPPED = ("requeue", "interrupted", "terminated")  # asked for by the user, so not called an error


class UserError(Exception):
    """A problem to be told in one line: what was given, what was expected, what to do next.

    kind     key of `EXIT_CODES`
    subject  the option, file or field at fault
    """

    def __init__(
        self, kind: str, subject: str, problem: str, got: object = None, expected: str | None = None, hint: str = ""
    ):
        super().__init__(subject, problem)
        self.kind, self.subject, self.problem = kind, subject, problem
        self.got, self.expected, self.hint = got, expected, hint

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.kind]

    def __str__(self) -> str:
        line = f"{printable(self.subject, limit=300)}: {printable(self.problem, limit=300)}"
        facts = [f"got {printable(self.got)}"] if self.got is not None else []
        facts += [f"expected {printable(self.expected, limit=300)}"] if self.expected is not None else []
        line += "; " + ", ".join(facts) if facts else ""
        return f"{line}. {printable(self.hint, limit=300)}" if self.hint else line

    def document(self) -> dict[str, str | None]:
        """The error as the plain values of the `--json` envelope."""
        got = None if self.got is None else printable(self.got)
        return {"kind": self.kind, "subject": printable(self.subject, limit=300), "problem": self.problem,
                "got": got, "expected": self.expected, "hint": self.hint or None}  # fmt: skip


class inside:
    """As a context: a part's UserError names its key as it is set in the whole, `alpha` as `inter_alpha`."""

    def __init__(self, prefix: str):
        self.prefix = prefix

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UserError):
            error.subject = self.prefix + error.subject


def unexpected(error: BaseException, hint: str) -> UserError:
    """An exception that nobody turned into an error for users; `hint` says where its trace is."""
    text = str(error).strip() or "no message"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return UserError("disk_full", str(error.filename or "disk"), "no space left", hint=hint)
    if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
        return UserError("out_of_memory", "--batch-size", "out of memory; a smaller one needs less", hint=hint)
    return UserError("internal", type(error).__name__, text, hint=hint)


def first_line(error: BaseException, otherwise: str | None = None) -> str:
    """The first line of what an exception says; of a silent one `otherwise`, or the name of its class."""
    return (str(error).strip().splitlines() or [otherwise or type(error).__name__])[0]


def printable(value: object, limit: int = 80) -> str:
    """`value` as text safe for a terminal: control and bidirectional characters escaped, at most `limit` characters."""
    text = "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c
        for c in str(value)[: limit + 1]
    )
    return text if len(text) <= limit else text[: limit - 1] + "…"


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint naming the known name closest to `name`, or all names when none is close."""
    names = list(names)
    close = difflib.get_close_matches(name, names, 1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(names)}"
