"""cifar.py: CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in their official python layout.

The files are pickles. Each is compared with its published sum before it is opened, and opened by an unpickler that
can make dicts, lists, numbers, texts and arrays and nothing else: a forged file runs no code either way.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixcli.errors import UserError
from mixcli.files import md5_of


@dataclass(frozen=True)
class Layout:
    """One set's folder: files with their published md5, and the keys inside them."""

    folder: str
    train: dict[str, str]
    test: dict[str, str]
    names: dict[str, str]
    label_key: str
    name_key: str


LAYOUTS = {
    "cifar10": Layout(
        folder="cifar-10-batches-py",
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
        names={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
        label_key="labels",
        name_key="label_names",
    ),
    "cifar100": Layout(
        folder="cifar-100-python",
        train={"train": "16019d7e3df5f24257cddd939b257f8d"},
        test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        names={"meta": "7973b15100ade9c7d40fb424638fde48"},
        label_key="fine_labels",
        name_key="fine_label_names",
    ),
}


def verify(name: str, folder: Path) -> None:
    """Raises UserError unless every file of the set `name` is in `folder` and has its published sum."""
    layout = LAYOUTS[name]
    for file, published in (layout.train | layout.test | layout.names).items():
        with _opened(folder, file) as stream:
            _compare(file, md5_of(stream), published)


def part(name: str, folder: Path, files: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) int64 of `files`, in their order."""
    batches = [_contents(folder, file, md5) for file, md5 in files.items()]
    planes = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([batch[LAYOUTS[name].label_key] for batch in batches])
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels.astype(np.int64)


def classes(name: str, folder: Path) -> tuple[str, ...]:
    """The class names in label order."""
    layout = LAYOUTS[name]
    [(file, md5)] = layout.names.items()
    return tuple(_contents(folder, file, md5)[layout.name_key])


def _contents(folder: Path, file: str, md5: str) -> dict[str, Any]:
    """The dict in one pickle. What is unpickled are the very bytes whose sum was compared."""
    with _opened(folder, file) as stream:
        content = stream.read()
    _compare(file, hashlib.md5(content, usedforsecurity=False).hexdigest(), md5)
    try:
        return _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError("data_corrupt", file, f"not a batch of plain arrays ({error})") from None


def _opened(folder: Path, file: str) -> io.BufferedReader:
    try:
        return (folder / file).open("rb")
    except OSError as error:
        reason = error.strerror or "not readable"
        raise UserError("data_missing", file, f"cannot be read in {folder.name} ({reason.lower()})") from None


def _compare(file: str, got: str, md5: str) -> None:
    if got != md5:
        raise UserError("data_corrupt", file, "not the published file", got=f"md5 {got}", expected=md5,
                        hint="Fetch and unpack the archive again")  # fmt: skip


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that knows numpy's arrays and no other class or function."""

    _array = np.empty(0).__reduce__()[0]  # what array pickles call; numpy 2 moved its home and warns at the old one
    _known = {
        ("numpy.core.multiarray", "_reconstruct"): _array,
        ("numpy._core.multiarray", "_reconstruct"): _array,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return self._known[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"object type {module_name}.{global_name} refused") from None
