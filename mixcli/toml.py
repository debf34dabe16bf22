"""toml.py: TOML files, read within limits and written.

Whatever a file holds, reading it ends soon: its size and its nesting are limited before anything is parsed.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mixcli.errors import UserError

BYTES, LEVELS = 2**20, 64
# One pass over strings, comments and the characters that nest; an unclosed string takes the rest, so it is linear.
TOKEN = re.compile(
    r'"""(?:[^\\"]|\\.|"(?!""))*+(?:"{3,5}|\Z)|\'\'\'(?:[^\']|\'(?!\'\'))*+(?:\'{3,5}|\Z)'
    r'|"(?:[^"\\\n]|\\.)*+"?|\'[^\'\n]*+\'?|#[^\n]*+|[][{}.=,\n]',
    re.DOTALL,
)


def read(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises UserError; size and nesting are limited before anything is parsed."""
    text = _limited(path)
    if _levels(text) > LEVELS:
        raise UserError("config", str(path), "too deep", expected=f"at most {LEVELS} levels")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise UserError("config", str(path), "too deep", expected=f"at most {LEVELS} levels") from None
    except ValueError as error:  # also a number of more digits than Python converts
        reason, _, place = str(error).partition(" (at ")
        where = f"{path} {place.rstrip(')').replace(',', '')}" if place.startswith("line") else str(path)
        raise UserError("config", where, "cannot parse as TOML", hint=reason) from error


def _limited(path: Path) -> str:
    def refused(problem: str) -> UserError:
        return UserError("config", str(path), problem, expected="a readable TOML file")

    if "\0" in str(path) or not path.exists():
        raise refused("not found")
    if not path.is_file():
        raise refused("is a directory" if path.is_dir() else "not a file")
    try:
        with path.open("rb") as file:
            content = file.read(BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise refused(error.strerror or "cannot be read") from error
    except UnicodeDecodeError as error:
        raise refused("not UTF-8 text") from error
    if len(content) > BYTES:
        raise UserError("config", str(path), "too large", expected="at most 1 MiB")
    if text.startswith("\ufeff"):
        raise refused("starts with a byte-order mark")
    if not text.strip():
        raise refused("empty")
    return text


def _levels(text: str) -> int:
    """How deep the text nests: brackets and braces open at once, or parts of one dotted key."""
    depth = deepest = parts = 0
    for token in TOKEN.finditer(text):
        match token.group()[0]:
            case "[" | "{":
                depth, parts = depth + 1, 0
            case "]" | "}":
                depth, parts = depth - 1, 0
            case ".":
                parts += 1
            case "=" | "," | "\n":
                parts = 0
        deepest = max(deepest, depth, parts + 1)
    return deepest


def text_of(table: Mapping[str, Any]) -> str:
    """A TOML file that reads back as `table`, its own values before its tables."""
    return "\n".join(_lines(table)) + "\n"


def _lines(table: Mapping[str, Any], path: str = "") -> Iterator[str]:
    yield from (f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict))
    for key, value in table.items():
        if isinstance(value, dict):
            only_tables = all(isinstance(inner, dict) for inner in value.values())
            yield from () if only_tables else ("", f"[{path}{key}]")
            yield from _lines(value, f"{path}{key}.")


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):  # JSON's escapes are TOML's, but JSON leaves the delete character raw
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
