"""features.py: what a net makes of plain images, kept beside its run and shared by the probes.

    studies/features/KEY/SITE.npy     float32 (N, D): a stage averaged over space or tokens, `pooled`, `logits`
    studies/features/KEY/labels.npy, index.npy, manifest.json

KEY is the digest of weights, normalisation, data set, split and index list, so other weights have another folder. An
entry whose manifest contradicts its key, or whose files are not those it lists, is refused and never used.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixcli.data.sources import Split, digest
from mixcli.errors import UserError
from mixcli.files import as_json, make_folder, write_atomic

FORMAT = 1
MANIFEST = "manifest.json"  # written last: where it is, all is there


@dataclass(frozen=True)
class Features:
    """Features of plain images, in the order of their split.

    values  site -> (N, D) float32
    labels  (N,) int64
    index   (N,) int64: rows of the split as published
    """

    values: Mapping[str, np.ndarray]
    labels: np.ndarray
    index: np.ndarray

    def take(self, rows: np.ndarray) -> Features:
        """Those of some of the images."""
        return Features({site: found[rows] for site, found in self.values.items()}, self.labels[rows], self.index[rows])


def identity(weights: str, dataset: str, name: str, split: Split) -> dict[str, Any]:
    """What features depend on; `weights` is a subject's digest, of its weights and its normalisation."""
    listed = hashlib.sha256(np.ascontiguousarray(split.index, "<i8").tobytes()).hexdigest()
    return {"format": FORMAT, "weights": weights, "dataset": dataset, "split": name, "index": listed,
            "pixels": digest(split)}  # fmt: skip


def key(identity: Mapping[str, Any]) -> str:
    """The name of an entry's folder, 12 hex digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def read(root: Path, identity: Mapping[str, Any]) -> Features | None:
    """The entry under `root`, or None where there is none. Raises UserError: mismatch where it is not what it says."""
    folder = root / key(identity)
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        raise _refused(folder, "its manifest cannot be read") from None
    if not isinstance(manifest, dict) or manifest.get("identity") != dict(identity):
        raise _refused(folder, "digest differs")
    files = {name: _array(folder, name, listed) for name, listed in manifest["files"].items()}
    labels, index = files.pop("labels"), files.pop("index")
    return Features(files, labels, index)


def write(root: Path, identity: Mapping[str, Any], found: Features) -> None:
    """Keeps an entry, its manifest last. Raises UserError: disk_full, io."""
    folder = root / key(identity)
    make_folder(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    digests = {}
    for name, array in {**found.values, "labels": found.labels, "index": found.index}.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        write_atomic(folder / f"{name}.npy", buffer.getvalue())
        digests[name] = hashlib.sha256(buffer.getvalue()).hexdigest()
    write_atomic(folder / MANIFEST, as_json({"identity": dict(identity), "files": digests}, indent=1))


def _array(folder: Path, name: str, listed: str) -> np.ndarray:
    try:
        content = (folder / f"{name}.npy").read_bytes()
    except OSError:
        raise _refused(folder, f"{name}.npy cannot be read") from None
    if hashlib.sha256(content).hexdigest() != listed:
        raise _refused(folder, f"{name}.npy: digest differs")
    return np.load(io.BytesIO(content), allow_pickle=False)


def _refused(folder: Path, problem: str) -> UserError:
    return UserError("mismatch", f"cache {folder}", problem, hint="Use --refresh")
