"""What tests of studies share: cells that run in this process, and figures left out, which take most of a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixcli.report import robustness
from mixcli.report.probes import figures
from mixcli.studies import workers
from tests.studies.study import Here


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the test's own, where the cells of a study run in this process."""
    monkeypatch.setattr(workers, "Local", Here)
    monkeypatch.setattr(Here, "ran", [])
    monkeypatch.setattr(Here, "before", staticmethod(lambda cell, stop: None))


@pytest.fixture
def undrawn_corruptions(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Evaluations under corruption without their figures. Returns the function that draws them."""
    draw = robustness.figure
    monkeypatch.setattr(robustness, "figure", lambda summaries: {"figure.png": b"", "figure.pdf": b""})
    return draw


@pytest.fixture
def undrawn_probes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Probes without their figures. Returns the function that saves them."""
    saved = figures.saved
    monkeypatch.setattr(figures, "saved", lambda drawn: {"png": b"", "pdf": b""})
    return saved
