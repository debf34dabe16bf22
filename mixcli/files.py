"""files.py: files that are whole or not there: atomic replacement, append, JSON without surprises.

What the operating system refuses is told in one line that names the file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from mixcli.errors import UserError

TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.mixcli-tmp")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UMASK = os.umask(0o077)
os.umask(UMASK)


def write_atomic(path: Path, content: bytes) -> None:
    """Replaces `path` as a whole: after a kill or on a full disk the old file is there, whole. Raises UserError."""
    spare = temporary(path)
    with told(path):
        try:
            with open(os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), 0o666 & ~UMASK)
                os.fsync(file.fileno())
            os.replace(spare, path)
        except BaseException:
            spare.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Makes a folder and those above it, unless they are there. Raises UserError: disk_full, io."""
    with told(path):
        path.mkdir(parents=True, exist_ok=True)


def temporary(path: Path) -> Path:
    """A random name beside `path`; files of this pattern are removed when a run is opened."""
    return path.with_name(f".{secrets.token_hex(8)}.mixcli-tmp")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        left = [e.path for e in entries if TEMPORARY.fullmatch(e.name) and e.is_file(follow_symlinks=False)]
    for path in left:
        os.unlink(path)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Tells what the operating system refuses in one line that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise UserError("disk_full", str(path), "no space left; previous files kept") from error
        raise UserError("io", str(path), f"cannot be written ({error.strerror})") from error


def md5_of(stream: BufferedReader) -> str:
    """The md5 of an open file, in hex; read piece by piece."""
    return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def append(path: Path, line: bytes) -> None:
    """Adds a line in one write call, so that a kill cuts at most that line."""
    with told(path):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            if os.write(file, line) < len(line):
                raise OSError(errno.ENOSPC, "short write")
        finally:
            os.close(file)


def plain(value: Any) -> Any:
    """`value` for JSON: tuples as lists, and null for numbers that JSON has not, such as NaN."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_json(value: Any, indent: int | None = None) -> bytes:
    return (json.dumps(plain(value), allow_nan=False, indent=indent) + "\n").encode()
