"""overview.py: every probe of a checkpoint in one folder, with a report that reads in order.

    report.md, report.html    the same chapters; the page holds its figures and needs no other file
    NAME.csv, .json, .png …   what each probe writes

What cannot be made is left out, and why is told: a probe that does not fit these runs (a loss without random parts,
too few images), and a reference that a probe does not fit. A probe's module may offer `suited`: scene -> the part of it
that it can be made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from mixcli.errors import UserError
from mixcli.files import write_atomic
from mixcli.report.probes import page
from mixcli.studies.probes import catalogue as probes
from mixcli.studies.probes import probing
from mixcli.studies.probes.findings import Findings
from mixcli.studies.probes.probing import Asked, Reporter, Scene

ORDER = ("linearity", "geometry", "embed", "hull", "gradient-noise", "calibration")
OPTIONS: Mapping[str, Mapping[str, Any]] = {"geometry": {"full": True}, "embed": {"overlay": "blend"}}
SKIPPED = ("usage", "data_missing")  # kinds of errors that say that a probe does not fit these runs


@dataclass(frozen=True)
class Overview:
    """What all probes found.

    found     probe -> its findings, in the order of the report
    left_out  probe -> why it was not made
    """

    found: Mapping[str, Findings]
    left_out: Mapping[str, str]
    told: str
    folder: Path

    def document(self) -> dict[str, Any]:
        """Plain values, for --json."""
        return {"told": self.told, "folder": str(self.folder), "left_out": dict(self.left_out),
                "probes": {name: one.document() for name, one in self.found.items()}}  # fmt: skip


def run(asked: Asked, reporter: Reporter) -> Overview:
    """Makes every probe of the checkpoints and writes them and their report. With `dry_run` it ends after the costs.

    Raises UserError: what probes raise of damaged files, diverged nets or a folder that cannot be written.
    """
    found: dict[str, Findings] = {}
    left_out: dict[str, str] = {}
    folder, told = asked.out, ""
    for name in ORDER:
        scene = probing.scene_of(_asked(asked, name), reporter)
        folder = folder or probing.home(scene.main) / "all"
        told = told or probing.first_line(scene).partition(": ")[2]
        try:
            one = _one(_suited(scene))
        except UserError as error:
            if error.kind not in SKIPPED:
                raise
            left_out[name] = str(error)
            reporter.note(f"{name} left out: {error}")
            continue
        if one is not None:
            found[name] = one
            one.write(folder, str(one.about.get("files", name)))
    assert folder is not None
    overview = Overview(found, left_out, told, folder)
    if not asked.dry_run:
        _write(overview)
    return overview


def _asked(asked: Asked, name: str) -> Asked:
    stages = "all" if name == "geometry" and asked.stages is None else asked.stages
    return replace(asked, probe=name, options=probes.named(name).options(**OPTIONS.get(name, {})), stages=stages)


def _suited(scene: Scene) -> Scene:
    offered = getattr(import_module(probes.named(scene.asked.probe).module), "suited", None)
    return scene if offered is None else offered(scene)


def _one(scene: Scene) -> Findings | None:
    """One probe; None after its cost where nothing is to be started."""
    module = import_module(probes.named(scene.asked.probe).module)
    with probing.exact(scene.main):
        scene.reporter.note(f"{scene.asked.probe}: {probing.cost(scene, module.passes(scene, scene.asked.options))}")
        return None if scene.asked.dry_run else probing.look(scene, probing.first_line(scene))


def _write(overview: Overview) -> None:
    chapters = [page.Chapter(name, probes.named(name).summary, one, str(one.about.get("files", name)))
                for name, one in overview.found.items()]  # fmt: skip
    write_atomic(overview.folder / "report.md", page.markdown(overview.told, chapters, overview.left_out).encode())
    write_atomic(overview.folder / "report.html", page.html(overview.told, chapters, overview.left_out).encode())
