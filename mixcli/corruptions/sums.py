"""sums.py: md5 of large files, each read once and then remembered by its path, size and time of change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mixcli.errors import UserError
from mixcli.files import as_json, md5_of, write_atomic


def md5(files: Sequence[Path], memory: Path) -> list[str]:
    """The md5 of each file, in hex; `memory` is the JSON file that remembers them."""
    remembered = _remembered(memory)
    sums = [_sum(path, remembered) for path in files]
    with suppress(UserError):  # where the data may not be written to, the next time takes as long as this one
        write_atomic(memory, as_json(remembered, indent=1))
    return sums


def _remembered(memory: Path) -> dict[str, Any]:
    try:
        content = json.loads(memory.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _sum(path: Path, remembered: dict[str, Any]) -> str:
    state = path.stat()
    key, stamp = str(path.absolute()), [state.st_size, state.st_mtime_ns]
    entry = remembered.get(key)
    if not (isinstance(entry, list) and entry[:2] == stamp and len(entry) == 3):
        with path.open("rb") as stream:
            found = md5_of(stream)
        remembered[key] = entry = [*stamp, found]
    return str(entry[2])
