"""screen.py: arms ranked by few short runs on validation images: what to look at next, and no statement about it.

The runs of a screen have seeds, epochs and images of their own (design.py), so none of them enters a comparison. What
it suggests is confirmed by a study of its own, whose comparisons are fixed before its first run.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixcli.errors import UserError
from mixcli.files import make_folder, write_atomic
from mixcli.report.rows import SHORT, as_csv
from mixcli.studies.design import Arm, Design

HEAD = "screen: no statement"


def ranking(design: Design) -> dict[str, Any]:
    """The arms of a screen by falling mean validation accuracy, in points; those that lack a run come last, unranked.

    Raises UserError: failed_cells where no run is done.
    """
    found = [_row(arm) for arm in design.arms]
    whole = sorted((row for row in found if row["runs"] == row["planned"]), key=lambda row: -row["val.top1"])
    ranked = [{"rank": place, **row} for place, row in enumerate(whole, 1)]
    rest = [{"rank": None, **row} for row in found if row["runs"] < row["planned"]]
    if not any(row["runs"] for row in found):
        raise UserError("failed_cells", design.name, "no run is done, so there is nothing to rank", hint="See --status")
    return {"study": design.name, "head": HEAD, "question": design.fields.question, "seeds": list(design.fields.seeds),
            "rows": [*ranked, *rest]}  # fmt: skip


def _row(arm: Arm) -> dict[str, Any]:
    results = [cell.job.run.finished() for cell in arm.cells]
    points = [100 * result["val"]["accuracy"] for result in results if result is not None]
    return {
        "arm": arm.name, "runs": len(points), "planned": len(arm.cells),
        "val.top1": statistics.fmean(points) if points else None,
        "lowest": min(points, default=None), "highest": max(points, default=None), "epochs": arm.settings.epochs,
    }  # fmt: skip


def write(found: Mapping[str, Any], folder: Path) -> None:
    """ranking.csv. Raises UserError: disk_full, io."""
    make_folder(folder)
    write_atomic(folder / "ranking.csv", as_csv(found["rows"], SHORT))
