"""test_rows.py: a CSV file keeps what programs need of its numbers, and none of its texts is a formula."""

from __future__ import annotations

import csv
import io
import math

import pytest

from mixcli.report.rows import SHORT, as_csv

ROWS = [
    {"name": "=cmd()", "share": 1 / 3, "n": -2, "p": None},
    {"name": "a\nb", "share": math.nan, "n": True, "p": 0.5, "later": "@x"},
]


def cells(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode())))


@pytest.mark.parametrize(("digits", "third", "missing"), [(SHORT, "0.3333333333", ""), (None, repr(1 / 3), "nan")])
def test_numbers_have_so_many_digits_or_all_and_no_text_is_a_formula_or_a_second_line(digits, third, missing):
    assert cells(as_csv(ROWS, digits)) == [
        ["name", "share", "n", "p", "later"],
        ["'=cmd()", third, "-2", "", ""],
        ["a\\nb", missing, "True", "0.5", "'@x"],
    ]


def test_a_table_without_rows_is_an_empty_line():
    assert as_csv([]) == b"\n"
