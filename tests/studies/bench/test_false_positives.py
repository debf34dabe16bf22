"""The simulation behind the refusal of tests over corruption types."""

import pytest

from mixcli.studies.bench.false_positives import false_positives


def test_corruptions_as_replicates_call_equal_methods_different_and_runs_do_not():
    rows = false_positives()["rows"]
    for test in ("paired_t", "wilcoxon"):
        of_one, of_five = ([row[test] for row in rows if row["seeds"] == seeds] for seeds in (1, 5))
        assert min(of_one) == pytest.approx(27, abs=3) and max(of_one) == pytest.approx(58, abs=3)
        assert min(of_five) == pytest.approx(15, abs=3) and max(of_five) == pytest.approx(45, abs=3.5)
    welch = [row["welch"] for row in rows if row["welch"] is not None]
    assert len(welch) == 4 and max(welch) <= 6
    assert all(row["welch"] is None for row in rows if row["seeds"] == 1)
