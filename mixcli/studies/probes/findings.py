"""findings.py: what a probe found: a long table, what must be known to read it, and its files.

    NAME.csv                 the table, each row with its data set, split, images, checkpoint and epoch
    NAME.json                `about`, the headline numbers, remarks and the table's digest
    NAME.png, NAME.pdf       the figure; further ones as NAME-WHAT.png

Equal findings give equal bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mixcli.files import as_json, make_folder, write_atomic
from mixcli.report.probes import figures
from mixcli.report.rows import as_csv

FORMAT = 1


@dataclass(frozen=True)
class Findings:
    """The result of a probe.

    table     long: a row per number or per small group of them; `checkpoint` and `epoch` say whose, `role` why
    about     plain values: probe, data set, split, images, options, the checkpoints
    page      a module of `report` with sections(table, about) and drawn(table, about) -> {what: matplotlib Figure};
              where it has further files, with files(table, about) -> {ending: bytes}
    headline  checkpoint -> {name: value}: one number per run each
    remarks   lines that must be said beside the numbers
    """

    table: pd.DataFrame
    about: Mapping[str, Any]
    page: Any
    headline: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def of(self, checkpoint: str) -> Findings:
        """The part that speaks of one checkpoint, its references among it."""
        mine = self.table[self.table["checkpoint"].isin([checkpoint]) | (self.table["role"] == "untrained")]
        headline = {checkpoint: self.headline[checkpoint]} if checkpoint in self.headline else {}
        return replace(self, table=mine.reset_index(drop=True), headline=headline)

    def rows(self) -> list[dict[str, Any]]:
        """The table as plain values, None where a number is missing."""
        return self.table.astype(object).where(self.table.notna(), None).to_dict("records")

    def document(self) -> dict[str, Any]:
        """Plain values, for --json."""
        return {**self.about, "headline": {name: dict(values) for name, values in self.headline.items()},
                "remarks": list(self.remarks), "rows": self.rows()}  # fmt: skip

    def write(self, folder: Path, name: str | None = None) -> Path:
        """Its files in `folder`, each whole or not there; returns the folder. Raises UserError: disk_full, io."""
        name = name or str(self.about.get("files", self.about["probe"]))
        make_folder(folder)
        table = as_csv(self.rows())
        write_atomic(folder / f"{name}.csv", table)
        for what, drawn in self.page.drawn(self.table, self.about).items():
            for kind, content in figures.saved(drawn).items():
                write_atomic(folder / f"{name}{'-' if what else ''}{what}.{kind}", content)
        more = self.page.files(self.table, self.about) if hasattr(self.page, "files") else {}
        for ending, content in more.items():
            write_atomic(folder / f"{name}.{ending}", content)
        said = {key: value for key, value in self.document().items() if key != "rows"}
        digest = hashlib.sha256(table).hexdigest()
        write_atomic(folder / f"{name}.json", as_json({"format": FORMAT, **said, "table_sha256": digest}, indent=1))
        return folder
