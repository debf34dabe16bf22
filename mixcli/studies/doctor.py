"""doctor.py: whether mixcli can work here, and what a bug report has to say of a machine.

Each part looks at one thing and ends in findings: fine, a note, a warning, or broken with what to do. One that fails by
itself is a finding too, and the others go on. Nothing here names a host or a user; the home folder is shown as ~.
"""

from __future__ import annotations

import fcntl
import math
import os
import platform
import secrets
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

import torch

from mixcli import __version__, own_code, runs
from mixcli.catalogue import DATASETS
from mixcli.data import sources
from mixcli.engine import device, job
from mixcli.engine.stopping import Stop
from mixcli.errors import UserError
from mixcli.files import write_atomic
from mixcli.options import Gathered
from mixcli.recipe import Train

State = Literal["fine", "note", "warning", "broken"]
OLDEST = (3, 11, 4)  # Python before it unpacks archives unsafely
SMALL = 1e9  # bytes free, below which a run of a large net may not fit
SMOKE = {"dataset": "digits", "epochs": 2, "epoch_steps": 12, "seed": 0}


@dataclass(frozen=True)
class Finding:
    """What was seen of one thing, and what to do where it is not fine."""

    part: str
    name: str
    state: State
    told: str
    advice: str = ""


def examine(train: Train) -> tuple[Finding, ...]:
    """Looks at everything; `train` says the device, the folders of data and runs, and the threads."""
    found: list[Finding] = []
    for name, look in PARTS.items():
        try:
            found += look(train)
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error}".splitlines()[0] + f" ({Path(at.filename).name} line {at.lineno})"
            found.append(Finding(name, name, "broken", text, "Report it with this page"))
    return tuple(Finding(f.part, f.name, f.state, without_home(f.told), without_home(f.advice)) for f in found)


def document(found: Iterable[Finding]) -> dict[str, Any]:
    """All of it as plain values, for a bug report."""
    found = list(found)
    return {"healthy": all(f.state != "broken" for f in found), "findings": [asdict(f) for f in found]}


def error(found: Iterable[Finding]) -> UserError | None:
    """What `doctor` ends with where something is broken."""
    broken = [f for f in found if f.state == "broken"]
    if not broken:
        return None
    return UserError("unhealthy", "doctor", f"{len(broken)} broken: {', '.join(f.name for f in broken)}",
                     hint=broken[0].advice)  # fmt: skip


def without_home(text: str) -> str:
    """The text with the home folder as ~."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


# ------------------------------------------------------------------------------------------------------------ versions


def _versions(train: Train) -> Iterator[Finding]:
    old = sys.version_info[:3] < OLDEST
    python, advice = f"{platform.python_version()}, {platform.platform()}", "Install Python 3.11.4 or newer"
    yield Finding("versions", "python", "broken" if old else "fine", python, advice if old else "")
    yield Finding("versions", "mixcli", "fine", __version__)
    try:
        asked = requires("mixcli") or []
    except PackageNotFoundError:
        yield Finding("versions", "requirements", "note", "mixcli is not installed as a package, so none are known")
        return
    for requirement in asked:
        yield from _version_of(requirement)


def _version_of(requirement: str) -> Iterator[Finding]:
    """The version of a package that mixcli names; one that only an extra asks for may be absent."""
    from packaging.requirements import Requirement

    asked = Requirement(requirement)
    extra = asked.marker is not None and "extra" in str(asked.marker)
    try:
        found = version(asked.name)
    except PackageNotFoundError:
        if not extra:
            yield Finding(
                "versions", asked.name, "broken", "not installed", f"pip install '{asked.name}{asked.specifier}'"
            )
        return
    fits = asked.specifier.contains(found, prereleases=True)
    yield Finding("versions", asked.name, "fine" if fits else "warning" if extra else "broken", found,
                  "" if fits else f"pip install '{asked.name}{asked.specifier}'")  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- machine


def _device(train: Train) -> Iterator[Finding]:
    machine = device.prepare(train)
    if machine.device.type == "cuda":
        about = torch.cuda.get_device_properties(machine.device)
        half = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
        yield Finding("machine", "device", "fine", f"{about.name}, {about.total_memory / 1e9:.0f} GB, {half}")
    else:
        why = "torch is built without CUDA" if torch.version.cuda is None else "torch finds no CUDA device"
        yield Finding("machine", "device", "note", f"cpu; {why}", "Training runs on the CPU")
    yield _threads(machine)


def _threads(machine: device.Machine) -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = f"{machine.threads} on {cores} cores"
    if machine.threads > cores:
        return Finding("machine", "threads", "warning", told, f"They wait for each other; give --threads {cores}")
    return Finding("machine", "threads", "fine", told)


# ---------------------------------------------------------------------------------------------------------------- data


def _data(train: Train) -> Iterator[Finding]:
    for name in DATASETS:
        try:
            facts = sources.look(Train.model_validate({"dataset": name, "data_dir": train.data_dir}))
        except UserError as problem:
            absent = problem.kind == "data_missing"
            state: State = "note" if absent else "warning" if problem.kind == "out_of_memory" else "broken"
            told = problem.problem if absent else f"{problem.subject}: {problem.problem}"
            yield Finding("data", name, state, told, problem.hint or "Fetch it again")
        else:
            size = f"{facts.size[0]} x {facts.size[1]} px"
            yield Finding("data", name, "fine", f"{facts.images} training images, {facts.classes} classes, {size}")


# -------------------------------------------------------------------------------------------------------------- writing


def _writing(train: Train) -> Iterator[Finding]:
    root = Path(train.runs)
    there = next(folder for folder in (root, *root.absolute().parents) if folder.is_dir())
    probe = there / f".mixcli-doctor-{secrets.token_hex(4)}"
    try:
        runs.check_root(root)
        write_atomic(probe, b"mixcli")
        locks = _locks(probe)
    except (UserError, OSError) as problem:
        yield Finding("writing", "runs", "broken", str(problem), "Give --runs a folder that can be written to")
        return
    finally:
        with suppress(OSError):  # not there, or on a file system that is read-only
            probe.unlink()
    told = f"{root} can be written to" if there == root else f"{root} can be made in {there}"
    yield Finding("writing", "runs", "fine", told)
    yield Finding("writing", "locks", "fine" if locks else "warning", "kernel locks" if locks else "no kernel locks",
                  "" if locks else "Claim files are used; several machines must agree on the time")  # fmt: skip
    free = shutil.disk_usage(there).free
    yield Finding("writing", "disk", "fine" if free > SMALL else "warning", f"{free / 1e9:.1f} GB free",
                  "" if free > SMALL else "Free some, or give --runs another disk")  # fmt: skip


def _locks(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


# ------------------------------------------------------------------------------------------------------------- packages


def _packages(train: Train) -> Iterator[Finding]:
    """What installed packages offer, imported: the one place where all of them are."""
    from mixcli.catalogue import NETS
    from mixcli.settings import METHODS

    for kind, built_in in (("methods", METHODS), ("mixings", METHODS), ("nets", NETS)):
        told = dict(own_code.problems(kind, built_in))
        for name, points in own_code.offered(kind).items():
            package = ", ".join(map(own_code.origin, points))
            problem = told.get(name) or _import_problem(kind, name)
            state: State = "fine" if problem is None else "broken"
            advice = "" if problem is None else f"Mend, update or uninstall {package}"
            yield Finding("packages", name, state, problem or f"{kind[:-1]} of {package}", advice)


def _import_problem(kind: str, name: str) -> str | None:
    try:
        if kind == "nets":
            own_code.load_offered((kind,), name, name)
        else:
            own_code.method(name, name)
    except UserError as problem:
        return problem.problem
    return None


# ------------------------------------------------------------------------------------------------------------- training


class _Silent:
    """A reporter that keeps the rows of the log."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def note(self, line: str) -> None: ...

    def announce(self, line: str) -> None: ...

    def warn(self, subject: str, problem: str) -> None: ...

    def step(self, done: int, total: int) -> None: ...

    def epoch(self, row: dict[str, Any]) -> None:
        self.rows.append(row)


def _training(train: Train) -> Iterator[Finding]:
    """Two trainings of seconds under one seed: they run, learn, and end with the same bits."""
    one, other = _smoke(train), _smoke(train)
    losses = [row["train"]["loss"] for row in one["rows"]]
    learns = all(map(math.isfinite, losses)) and losses[-1] < losses[0]
    told = f"{one['steps']} steps on digits in {one['seconds']:.1f} s, loss {losses[0]:.2f} to {losses[-1]:.2f}"
    yield Finding("training", "smoke train", "fine" if learns else "broken", told,
                  "" if learns else "Report it with this page")  # fmt: skip
    same = all(torch.equal(one["net"][key], other["net"][key]) for key in one["net"])
    promised = device.prepare(train).deterministic
    state: State = "fine" if same else "broken" if promised else "note"
    told = "two trainings end with the same bits" if same else "two trainings end with other bits"
    yield Finding(
        "training", "determinism", state, told, "" if same else "Train with --deterministic; on a CPU, report it"
    )


def _smoke(train: Train) -> dict[str, Any]:
    """A training of seconds in a folder that is then gone: its log, weights, steps and seconds."""
    from mixcli.engine import checkpoint

    reporter, start = _Silent(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        here = {key: getattr(train, key) for key in ("device", "threads", "deterministic")}
        chosen = Train.model_validate({**SMOKE, **here, "runs": folder})
        made = job.new(Gathered(chosen, [], {}))
        result = job.train(made, reporter, Stop(), job.How(latest=False))
        weights = checkpoint.load(made.run.checkpoint)["net"]
    return {"rows": reporter.rows, "net": weights, "steps": result["steps"], "seconds": time.perf_counter() - start}


PARTS: dict[str, Callable[[Train], Iterator[Finding]]] = {
    "versions": _versions,
    "machine": _device,
    "data": _data,
    "writing": _writing,
    "packages": _packages,
    "training": _training,
}
