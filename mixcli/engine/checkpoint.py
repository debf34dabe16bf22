"""checkpoint.py: run.ckpt, its replacement without a moment's gap, and reading it without trust.

A checkpoint is one self-contained file of tensors and plain values: serialised to memory, written under a random name,
synchronised, renamed. The zip archive's CRCs, which torch writes and never checks, are checked before loading: of 400
single flipped bits 398 would otherwise load silently. Reading is `weights_only=True`, always.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import zipfile
from pathlib import Path
from typing import Any

import torch

from mixcli.errors import UserError
from mixcli.files import temporary, told, write_atomic
from mixcli.runs import Run

FORMAT = 1
WEIGHTS = {"kind": str, "settings": dict, "id": str, "data": dict, "step": int, "net": dict, "ema": dict | None}
RESUME = {**WEIGHTS, "optimizer": dict, "scheduler": dict, "progress": dict, "machine": dict, "best": float | None}


def save(run: Run, content: dict[str, Any]) -> None:
    """Makes `content` the run's newest checkpoint; the one before it stays as previous.ckpt."""
    data = serialise({"format": FORMAT, "kind": "run", **content})
    if run.checkpoint.exists():
        spare = temporary(run.previous)
        with told(run.previous):
            os.link(run.checkpoint, spare)
            os.replace(spare, run.previous)
            spare.unlink(missing_ok=True)  # a rename between two names of one file, left by a kill, does nothing
    write_atomic(run.checkpoint, data)  # the rename inside is the commit point


def save_best(run: Run, content: dict[str, Any]) -> None:
    """Keeps the checkpoint of the best validation accuracy so far; no study reads it unless it is named."""
    write_atomic(run.best, serialise({"format": FORMAT, "kind": "run", **content}))


def save_weights(run: Run, epoch: int, content: dict[str, Any]) -> None:
    """Leaves the weights of an epoch for studies: epochs/epoch-0010.ckpt, never a source to resume from."""
    run.epochs.mkdir(exist_ok=True)
    path = run.epochs / f"epoch-{epoch:04d}.ckpt"
    write_atomic(path, serialise({"format": FORMAT, "kind": "weights", "epoch": epoch, **weights(content)}))


def weights(content: dict[str, Any]) -> dict[str, Any]:
    """What of a run's content suffices to use its net."""
    return {key: content[key] for key in WEIGHTS if key != "kind"}


def serialise(content: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def load(path: Path, *, resume: bool = False) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU.

    resume  also require what a resumed run needs
    Raises UserError: checkpoint_missing, checkpoint_corrupt, refused_unsafe; config for weights where a run is needed.
    """
    try:
        content = read(path)
        require(path, content, resume)
    except UserError as error:
        error.hint = error.hint or _next_step(path, error.kind, resume)
        raise
    return content


def read(path: Path) -> dict[str, Any]:
    """CRC of every member, then the restricted loader."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError("checkpoint_missing", str(path), "not found") from None
    except IsADirectoryError:
        raise UserError("checkpoint_missing", str(path), "is a directory") from None
    except OSError as error:
        raise UserError("checkpoint_corrupt", str(path), f"cannot be read ({error.strerror})",
                        hint="See who may read it, and whether the disk is in order") from None  # fmt: skip
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()
    except Exception:  # zipfile raises many types on hostile bytes; all of them mean the same to the user
        raise UserError("checkpoint_corrupt", str(path), "damaged, or not a checkpoint") from None
    if damaged is not None:
        raise UserError("checkpoint_corrupt", str(path), f"damaged (CRC of {damaged})")
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign:
            problem = f"object type '{foreign.group(1)}' refused"
            raise UserError(
                "refused_unsafe", str(path), problem, hint="Only tensors and plain values are read"
            ) from None
        raise UserError("checkpoint_corrupt", str(path), "damaged, or not a checkpoint") from None
    if not isinstance(content, dict):
        raise UserError("checkpoint_corrupt", str(path), "not a mixcli checkpoint")
    return content


def require(path: Path, content: dict[str, Any], resume: bool) -> None:
    """Format and fields, before anything is used."""
    version = content.get("format")
    if not isinstance(version, int):
        raise UserError("checkpoint_corrupt", str(path), "field format missing")
    if version > FORMAT:
        raise UserError("checkpoint_corrupt", str(path), f"format {version} newer than {FORMAT}", hint="Update mixcli")
    if resume and content.get("kind") == "weights":
        raise UserError("config", str(path), "weights only, not a resume source", hint="Give the run folder")
    for key, kind in (RESUME if resume else WEIGHTS).items():
        if key not in content:
            raise UserError("checkpoint_corrupt", str(path), f"field {key} missing")
        if not isinstance(content[key], kind):
            raise UserError("checkpoint_corrupt", str(path), f"field {key} has a wrong type", got=content[key])
    if "mean" not in content["data"] or "std" not in content["data"]:
        raise UserError("checkpoint_corrupt", str(path), "field normalisation missing")


def _next_step(path: Path, kind: str, resume: bool) -> str:
    """What to do about a checkpoint that cannot be used: take another of its run, or train the run again."""
    run = Run(path.parent.parent if path.parent.name == "epochs" else path.parent)
    for other in (run.checkpoint, run.previous):
        step = _intact(other) if other != path else None
        if step is not None:
            allowed = resume and path == run.checkpoint
            return f"{other.name} (step {step}) is intact, {'use --allow-previous' if allowed else f'give {other}'}"
    if kind != "checkpoint_corrupt":
        return ""
    if not run.settings.is_file():
        return "Give another checkpoint, or a whole copy of this one"
    if run.parent is not None:
        return f"No other is intact; extend run {run.parent} again, with --overwrite"
    return f"No other is intact; train it again: mixcli train --config {shlex.quote(str(run.settings))} --overwrite"


def _intact(path: Path) -> int | None:
    """The step of a checkpoint that a run can go on from; None where there is none."""
    if not path.exists():
        return None
    try:
        content = read(path)
        require(path, content, resume=True)
    except UserError:
        return None
    return content["step"]
