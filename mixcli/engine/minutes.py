"""minutes.py: the minutes that a run of each method takes here, measured once and remembered.

What was measured lies in `minutes.json` among the runs, an entry per data set and net, and is read without torch. It is
a note and no result: a damaged one is measured again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixcli import options
from mixcli.engine import job, timing
from mixcli.engine.stopping import Stop
from mixcli.errors import UserError
from mixcli.files import as_json, write_atomic
from mixcli.options import Gathered
from mixcli.recipe import epoch_steps, recipe_of
from mixcli.settings import METHODS

if TYPE_CHECKING:
    from mixcli.data.sources import Source
    from mixcli.engine.device import Machine

FILE = "minutes.json"
PATIENCE = 4.0  # seconds that the steps of one method may take, about


def remembered(typed: Mapping[str, str | bool | None], environ: Mapping[str, str]) -> dict[str, Any] | None:
    """The entry for the data set and the net of what was typed, as for `measure`; None where there is none.

    An entry holds `dataset`, `net`, `device` and `methods`: by name the `minutes` of a run by its recipe, the
    `seconds_per_step` and over how many `steps` they were measured; None for a method that cannot be trained there.
    """
    base = options.gather(typed, None, environ).train
    return _entries(Path(base.runs)).get(_key(base.dataset, base.net))


def measure(
    typed: Mapping[str, str | bool | None], environ: Mapping[str, str], note: Callable[[str], None]
) -> dict[str, Any]:
    """Times some steps of every method and remembers them; an entry as above. Raises UserError where none can start.

    typed  for the settings `dataset`, `net`, `device`, `data_dir` and `runs`, as text
    """
    from mixcli.engine import device

    base = options.gather(typed, None, environ).train
    machine, sources, found = device.prepare(base), {}, {}
    for name in METHODS:
        note(f"{name}: up to {timing.TIMED} steps")
        try:
            found[name] = _paced(options.gather({**typed, "method": name}, None, environ), machine, sources)
        except UserError as error:
            if error.kind not in ("config", "diverged"):
                raise
            note(f"{name}: {error}")
            found[name] = None
    entry = {"dataset": base.dataset, "net": base.net or recipe_of(base.dataset)["net"],
             "device": machine.describe()["device"], "methods": found}  # fmt: skip
    root = Path(base.runs)
    root.mkdir(parents=True, exist_ok=True)
    write_atomic(root / FILE, as_json({**_entries(root), _key(base.dataset, base.net): entry}, indent=1))
    return entry


def _paced(gathered: Gathered, machine: Machine, sources: dict[int | None, Source]) -> dict[str, Any]:
    """What is remembered of one method; `sources` are the data sets read so far, by the number of their labels."""
    from mixcli.engine import training

    made = job.new(gathered)
    train, labels = made.settings, made.settings.labels
    if labels not in sources:
        sources[labels] = training.loaded(train)
    run = training.Training(train, sources[labels], made.run, training.Silent(), machine, Stop())
    pace, steps = timing.pace(run, PATIENCE), epoch_steps(train, made.facts) * (train.epochs or 0)
    return {"minutes": pace.seconds * steps / 60, "seconds_per_step": pace.seconds, "steps": pace.steps}


def _key(dataset: str, net: str | None) -> str:
    return f"{dataset} {net or recipe_of(dataset)['net']}"


def _entries(root: Path) -> dict[str, Any]:
    try:
        found = json.loads((root / FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
