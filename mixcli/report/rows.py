"""rows.py: rows of plain values as a CSV file, in which no text can pass for a formula."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from typing import Any

from mixcli.errors import printable

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet runs a cell that begins with one of these
SHORT = 10  # digits of a table to look at
LONG = 40_000  # characters of a cell


def as_csv(rows: Iterable[Mapping[str, Any]], digits: int | None = None) -> bytes:
    """A header and rows that may differ in their columns; one that the first has comes first.

    digits  of numbers with a fraction; those that are not finite are then empty cells. None: every number exactly.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_cell(name, digits) for name in columns)
    writer.writerows([_cell(row.get(name), digits) for name in columns] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any, digits: int | None) -> str:
    """An empty cell for none, a number, or text, with an apostrophe where it could pass for a formula."""
    if value is None:
        return ""
    if isinstance(value, float) and digits is not None:
        return f"{value:.{digits}g}" if math.isfinite(value) else ""
    if not isinstance(value, str):
        return str(value)
    text = printable(value, limit=LONG)
    return f"'{text}" if value.startswith(FORMULA) else text
