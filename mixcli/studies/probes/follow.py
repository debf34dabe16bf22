"""follow.py: headline numbers of probes as columns of a study: made once per run, kept in its own folder.

    runs/ID/studies/headlines/PROBE-KEY.json    the numbers of one checkpoint; the key is made of all they rest on

The probe's defaults are what a study follows. A run that the probe cannot be made of (a loss without random parts) has
no numbers, and why is kept in their place.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mixcli import __version__, options
from mixcli.engine.stopping import Stop
from mixcli.errors import UserError
from mixcli.files import as_json, make_folder, write_atomic
from mixcli.runs import Run
from mixcli.studies.follow import Headline, Reporter
from mixcli.studies.probes import catalogue as probes
from mixcli.studies.probes import probing
from mixcli.studies.probes.probing import Asked, Unsuited


def standard(probe: str) -> Asked:
    """The probe as a study follows it: its defaults, all test images."""
    return Asked(probe, options=probes.named(probe).options())


def is_standard(asked: Asked) -> bool:
    """Whether what was typed makes the numbers that a study follows."""
    return _wanted(asked) == _wanted(standard(asked.probe))


def measure(run: Run, names: Sequence[str], device: str, reporter: Reporter, stop: Stop) -> None:
    """Makes what is missing of these probes for a finished run. Raises UserError where a stop was asked for."""
    for probe in names:
        if stop.kind is not None:
            raise UserError(stop.kind, run.folder.name, f"stopped before its {probe}")
        headlines(replace(standard(probe), device=device), run, reporter)


def headlines(asked: Asked, run: Run, reporter: Reporter, checkpoint: Path | None = None) -> Headline:
    """The numbers of a finished run, made where they are not kept already; `--refresh` makes them anew.

    checkpoint  one of the run's kept epochs; None for its last epoch
    Raises UserError like `probing.headlines`, but for what this run's method does not have.
    """
    at = checkpoint or run.checkpoint
    kept = None if asked.refresh else _read(asked, run, at)
    if kept is not None:
        return kept
    reason, values = "", {}
    try:
        values = {name: value if math.isfinite(value) else None
                  for name, value in probing.headlines(asked, at, reporter).items()}  # fmt: skip
    except Unsuited as error:
        reason = str(error)
    path = _path(asked, run, at)
    make_folder(path.parent)
    write_atomic(path, as_json({**_identity(asked, run, at), "values": values, "reason": reason}, indent=1))
    return Headline(values, _told(asked, run), _reasons(asked, reason))


def _headline(probe: str, run: Run) -> Headline | None:
    """What is kept of a run, its names those of a study's columns."""
    found = _read(standard(probe), run, run.checkpoint)
    return found and replace(found, values={f"{probe}.{name}": value for name, value in found.values.items()})


linearity, geometry, hull, gradient_noise = (
    partial(_headline, name) for name in ("linearity", "geometry", "hull", "gradient-noise")
)


# ----------------------------------------------------------------------------------------------------------- its files


def _wanted(asked: Asked) -> dict[str, Any]:
    return {"probe": asked.probe, "options": options.flat(asked.options), "split": asked.split,
            "images": asked.images, "stages": asked.stages, "seed": asked.seed}  # fmt: skip


def _identity(asked: Asked, run: Run, checkpoint: Path) -> dict[str, Any]:
    """All that the numbers rest on. A run that was made again has another result, if only by its seconds."""
    result = hashlib.sha256(run.result.read_bytes()).hexdigest()
    return {**_wanted(asked), "checkpoint": checkpoint.name, "result": result, "program": __version__}


def _path(asked: Asked, run: Run, checkpoint: Path) -> Path:
    key = hashlib.sha256(json.dumps(_identity(asked, run, checkpoint), sort_keys=True).encode()).hexdigest()[:12]
    return run.folder / "studies" / "headlines" / f"{asked.probe}-{key}.json"


def _read(asked: Asked, run: Run, checkpoint: Path) -> Headline | None:
    """What is kept, or None: a file that is no longer whole is made anew."""
    try:
        kept = json.loads(_path(asked, run, checkpoint).read_bytes())
        values, reason = dict(kept["values"]), str(kept["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Headline(values, _told(asked, run), _reasons(asked, reason))


def _reasons(asked: Asked, reason: str) -> tuple[str, ...]:
    return (f"{asked.probe}: {reason}",) if reason else ()


def _told(asked: Asked, run: Run) -> str:
    """Of what the numbers were taken."""
    result: Mapping[str, Any] = run.finished() or {}
    if probes.named(asked.probe).training:
        return f"{result['dataset']}, training batches"
    images = result["test_images"] if asked.split == "test" and asked.images is None else asked.images
    return f"{result['dataset']}, {asked.split} split{'' if images is None else f', {images:,} images'}"
