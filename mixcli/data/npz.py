"""npz.py: image sets in an .npz that nobody vouches for.

Keras' names (x_train, y_train, x_test, y_test, optional `classes`) or MedMNIST's (train_images, train_labels, ...; its
validation part is left aside: `--val-fraction` means the same for every set). Images (N, H, W) get a channel, labels
(N, 1) are squeezed. Every header is checked against the size of the file before anything is allocated; nothing is
unpickled.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import NoReturn

import numpy as np

from mixcli.errors import UserError

LAYOUTS = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)
EXPECTED = "(N,H,W), (N,H,W,1) or (N,H,W,3) uint8"
DEFLATE_LIMIT = 1040  # no deflated stream unpacks to more times its size
# What zipfile and numpy raise for a damaged archive or header; RuntimeError covers encryption and endless nesting.
UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, SyntaxError, TokenError)


@dataclass(frozen=True)
class Header:
    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Contents:
    """What an .npz holds, its pixels still unread.

    images   names of the training and the test images in the file
    labels   training and test labels, each (N,) int64 in 0 .. len(classes) - 1
    shape    (H, W, C) of one image
    """

    images: tuple[str, str]
    labels: tuple[np.ndarray, np.ndarray]
    shape: tuple[int, int, int]
    classes: tuple[str, ...]


def contents(path: Path) -> Contents:
    """Headers, labels and class names of the file, checked. Raises UserError where it is not such a set."""
    with _opened(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
        layout = next((layout for layout in LAYOUTS if names.issuperset(layout)), None)
        if layout is None:
            refuse(path, "", "not an image set", ", ".join(sorted(names)) or "no arrays", ", ".join(LAYOUTS[0]))
        x_train, y_train, x_test, y_test = layout
        shapes = [_image_shape(archive, path, name) for name in (x_train, x_test)]
        if shapes[0][1:] != shapes[1][1:]:
            refuse(path, x_test, "another image size than the training images", shapes[1][1:], str(shapes[0][1:]))
        raw = [_read_labels(archive, path, y, len_) for y, (len_, *_) in zip((y_train, y_test), shapes, strict=True)]
        classes = _read_classes(archive, path) if "classes" in names else None
    classes = classes or tuple(str(c) for c in range(_classes_seen(raw[0])))
    labels = [_in_range(values, len(classes), path, y) for y, values in zip((y_train, y_test), raw, strict=True)]
    if len(np.unique(labels[0])) < 2:
        refuse(path, y_train, "needs images of at least 2 classes", 1)
    _, height, width, channels = shapes[0]
    return Contents((x_train, x_test), (labels[0], labels[1]), (height, width, channels), classes)


def part(path: Path, found: Contents, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C) uint8 and labels (N,) int64 of the training (0) or the test (1) part."""
    with _opened(path) as archive:
        images = _array(archive, path, found.images[number]).reshape(-1, *found.shape)
    return np.ascontiguousarray(images), found.labels[number]


def refuse(path: Path, member: str, problem: str, got: object = None, expected: str | None = None) -> NoReturn:
    """Raise the UserError of a file that cannot be understood: exit 3."""
    raise UserError("data_corrupt", f"{path.name} {member}".strip(), problem, got=got, expected=expected)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; what is raised where it is damaged becomes a UserError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except UNREADABLE as error:
        refuse(path, "", f"not a readable .npz file ({error})")


def _header(archive: zipfile.ZipFile, path: Path, name: str) -> Header:
    """Shape and dtype that a member declares, once the file is known to be long enough for them."""
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        start = file.tell()
    if dtype.hasobject:
        refuse(path, name, "not a plain array, pickled arrays refused")
    unpacked = min(member.file_size, min(member.compress_size, path.stat().st_size) * DEFLATE_LIMIT)
    if start + math.prod(shape) * dtype.itemsize > unpacked:
        refuse(path, name, "shorter than its header says", _text(shape, dtype))
    return Header(shape, dtype)


def _array(archive: zipfile.ZipFile, path: Path, name: str) -> np.ndarray:
    """A member as an array, its header checked first."""
    _header(archive, path, name)
    with archive.open(f"{name}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _image_shape(archive: zipfile.ZipFile, path: Path, name: str) -> tuple[int, int, int, int]:
    """(N, H, W, C) of the images that `name` declares."""
    header = _header(archive, path, name)
    if header.dtype.kind == "f" and header.shape:
        _refuse_non_finite(_array(archive, path, name), path, name)
    shape = (*header.shape, 1) if len(header.shape) == 3 else header.shape
    if header.dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3):
        refuse(path, name, "not images", _text(header.shape, header.dtype), EXPECTED)
    if 0 in shape:
        refuse(path, name, "no images", _text(header.shape, header.dtype))
    return shape


def _refuse_non_finite(images: np.ndarray, path: Path, name: str) -> None:
    bad = np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(axis=1))
    if len(bad):
        refuse(path, f"{name}[{bad[0]}]", "non-finite pixel")


def _read_labels(archive: zipfile.ZipFile, path: Path, name: str, images: int) -> np.ndarray:
    """(N,) integers as stored, one per image; their range is not looked at yet."""
    labels = _array(archive, path, name)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim == 2 and labels.dtype.kind == "f":
        _refuse_soft(labels, path, name)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        refuse(path, name, "not class numbers", _text(labels.shape, labels.dtype), f"({images},) integers")
    if len(labels) != images:
        refuse(path, name, "one label per image needed", f"{len(labels)} labels", f"{images}")
    if (labels == -100).all():
        refuse(path, name, "−100 not allowed")
    return labels


def _refuse_soft(labels: np.ndarray, path: Path, name: str) -> NoReturn:
    """Soft labels are not read; where they are not even probabilities, that is what is said."""
    with np.errstate(invalid="ignore"):
        fine = (labels >= 0).all(axis=1) & (np.abs(labels.sum(axis=1) - 1) <= 1e-6)
    if not fine.all():
        refuse(path, f"{name}[{np.flatnonzero(~fine)[0]}]", "probabilities must be ≥ 0, sum 1 ± 1e-6")
    refuse(path, name, "soft labels are not read", _text(labels.shape, labels.dtype), f"({len(labels)},) integers")


def _in_range(labels: np.ndarray, classes: int, path: Path, name: str) -> np.ndarray:
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(bad):
        refuse(path, f"{name}[{bad[0]}]", f"class {labels[bad[0]]} out of range 0…{classes - 1}")
    return labels.astype(np.int64)


def _classes_seen(labels: np.ndarray) -> int:
    """The number of classes where no names say it; never more than images, so that a wild label is told as such."""
    return min(max(int(labels.max()) + 1, 2), len(labels))


def _read_classes(archive: zipfile.ZipFile, path: Path) -> tuple[str, ...]:
    names = _array(archive, path, "classes")
    if names.ndim != 1 or names.dtype.kind not in "US":
        refuse(path, "classes", "not a list of names", _text(names.shape, names.dtype), "(N,) text")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names.tolist())


def _text(shape: tuple[int, ...], dtype: np.dtype) -> str:
    return f"shape ({','.join(map(str, shape))}{',' * (len(shape) == 1)}) {dtype}"
