"""official.py: corrupted sets that lie on disk, checked before a net sees them and read one cell at a time.

Two layouts: `ArraySet`, a folder of NAME.npy (5 n, H, W, C) and labels.npy, rows [n (s - 1), n s) being severity s (the
CIFAR sets, and what mixcli itself saves); `FolderSet`, corruption/severity/class/image (Tiny-ImageNet-C). Headers are
read before data and held against the size of the file, nothing is unpickled, labels are held against the clean test
set, and the four noises must grow with the severity. A folder that holds our own provenance.json is generated, not
official, and says so.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mixcli import pictures
from mixcli.corruptions.catalogue import SEVERITIES, SUBSTITUTES
from mixcli.corruptions.parameters import EXTRA, FAMILIES, NAMES, STANDARD
from mixcli.corruptions.published import PUBLISHED, Published
from mixcli.corruptions.sums import md5
from mixcli.errors import UserError

PROVENANCE = "provenance.json"  # beside the arrays of a set that mixcli made
ORDER_ROWS = 200  # images of each block that the order of severities is checked on
OURS = (*NAMES, *SUBSTITUTES.values())  # the names that a set of our own may hold


@dataclass(frozen=True)
class Clean:
    """The local clean test set: images (n, H, W, C) uint8 and labels (n,) int64."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Expected:
    """What the folder of a data set should hold.

    classes  how many
    size     of one image
    images   in one cell, where the number is known without the clean set
    sums     file -> md5, where published
    """

    classes: int
    size: pictures.Size
    images: int | None = None
    sums: dict[str, str] | None = None


@dataclass(frozen=True)
class ArraySet:
    """A checked folder of arrays.

    names   the corruptions in it, in the order of the catalogue
    labels  (n,) int64, of every cell
    paired  whether row i of every cell is row i of the clean test set
    origin  the content of provenance.json where mixcli made the set, else None
    """

    folder: Path
    names: tuple[str, ...]
    labels: np.ndarray
    size: pictures.Size
    paired: bool
    origin: dict[str, Any] | None
    sums: str = "md5 not checked"

    def into(self, out: np.ndarray, name: str, severity: int, rows: np.ndarray | None = None) -> None:
        """Fills `out` (n, H, W, C) uint8 with a cell, or with those of its `rows`."""
        n = len(self.labels)
        block = _mapped(self.folder, f"{name}.npy")[n * (severity - 1) : n * severity]
        np.copyto(out, block if rows is None else block[rows])


@dataclass(frozen=True)
class FolderSet:
    """A checked folder of image files.

    files   (n) class/file of each image, the classes in the order of the clean set; the same in every cell
    labels  (n,) int64
    """

    folder: Path
    names: tuple[str, ...]
    files: tuple[str, ...]
    labels: np.ndarray
    size: pictures.Size
    paired: bool = False  # the published images are not the validation images
    origin: dict[str, Any] | None = None
    sums: str = "md5 not checked"

    def into(self, out: np.ndarray, name: str, severity: int, rows: np.ndarray | None = None) -> None:
        """Fills `out` (n, H, W, 3) uint8 with a cell, or with those of its `rows`, decoded."""
        chosen = self.files if rows is None else [self.files[row] for row in rows]
        pictures.read_into(out, self.folder, [f"{name}/{severity}/{file}" for file in chosen])


def locate(data_dir: Path, dataset: str) -> Path | None:
    """The folder of the corrupted set that belongs to `dataset`, or else the tar in its place, or None.

    Published sets go by their published name; of any other data set only a folder NAME-c that mixcli saved counts.
    """
    known = PUBLISHED.get(dataset)
    folder = data_dir / (known.folder if known else f"{Path(dataset).name.removesuffix('.npz')}-c")
    if known is not None and not folder.is_dir():
        return known.tar(folder)
    return folder if folder.is_dir() and (known or (folder / PROVENANCE).is_file()) else None


def absent(data_dir: Path, dataset: str) -> UserError:
    """The error where an official set is asked for and is not there."""
    known = PUBLISHED.get(dataset)
    if known is None:
        return UserError("usage", "--official", f"no official set exists for {dataset}", hint="Omit --official")
    hint = f"mixcli data fetch {dataset}-c ({known.where}), or omit --official"
    return UserError("data_missing", known.folder, f"not found under {data_dir}", hint=hint)


# ------------------------------------------------------------------------------------------------------ arrays on disk


def open_arrays(folder: Path, expected: Expected, clean: Clean | None, only: Sequence[str] | None = None) -> ArraySet:
    """The arrays in `folder`, checked; no image is read but a few of each noise.

    clean  the local clean test set, None where it is not there
    only   the corruptions wanted; None: all, and then all must be there
    Raises UserError: data_missing, data_corrupt.
    """
    origin = _origin(folder)
    names = _names(folder, only, origin)
    labels, paired = _labels(folder, expected, clean)
    for name in names:
        _check_array(folder, f"{name}.npy", (5 * len(labels), *expected.size))
    found = ArraySet(folder, names, labels, expected.size, paired, origin)
    for name in names:
        if name in FAMILIES["noise"]:
            _check_order(found, name, clean if paired else None)
    return found


def _origin(folder: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((folder / PROVENANCE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        _refuse(folder, PROVENANCE, "not readable")
    valid = isinstance(content, dict) and isinstance(content.get("files"), dict) and "generator" in content
    return content if valid else _refuse(folder, PROVENANCE, "not written by mixcli")


def _names(folder: Path, only: Sequence[str] | None, origin: dict[str, Any] | None) -> tuple[str, ...]:
    """The corruptions to be read; all 19 or the standard 15 must be there, of a saved set those it says it has."""
    if origin is not None:
        present = wanted = tuple(name for name in OURS if name in origin["files"])
    else:
        present = tuple(name for name in NAMES if (folder / f"{name}.npy").is_file())
        wanted = NAMES if set(present) & set(EXTRA) else STANDARD
    wanted = wanted if only is None else tuple(only)
    for name in wanted:
        if name not in present or not (folder / f"{name}.npy").is_file():
            found = f"{len(present)} of {len(NAMES)} found" if origin is None else "the set was saved without it"
            raise UserError("data_missing", f"{folder.name}/{name}.npy", f"missing; {found}")
    return wanted


def _labels(folder: Path, expected: Expected, clean: Clean | None) -> tuple[np.ndarray, bool]:
    """(n,) int64 labels of a cell, and whether they are those of the clean set in its order."""
    file, n = "labels.npy", expected.images if clean is None else len(clean.labels)
    header = _header(folder, file)
    if len(header.shape) != 1:
        _refuse(folder, file, f"shape {_text(header.shape)}", f"({5 * n if n else 'N'},)")
    if header.dtype.kind not in "iu":
        _refuse(folder, file, f"dtype {header.dtype}", "integers")
    length = header.shape[0]
    if length not in (n, 5 * n) if n else length % 5:
        _refuse(folder, file, f"length {length}", f"{n} or {5 * n}" if n else "5 times the images")
    labels = np.array(_mapped(folder, file)).astype(np.int64)
    outside = np.flatnonzero((labels < 0) | (labels >= expected.classes))
    if len(outside):
        _refuse(folder, f"{file}[{outside[0]}]", str(labels[outside[0]]), f"0..{expected.classes - 1}")
    n = n or length // 5
    _check_repeats(folder, file, labels, n)
    return labels[:n], clean is not None and _same_order(folder, file, labels[:n], clean.labels)


def _check_repeats(folder: Path, file: str, labels: np.ndarray, n: int) -> None:
    wrong = np.flatnonzero(labels != np.resize(labels[:n], len(labels)))
    if len(wrong):
        row = wrong[0]
        _refuse(folder, f"{file}[{row}]", str(labels[row]), f"{labels[row % n]} (= row {row % n})")


def _same_order(folder: Path, file: str, labels: np.ndarray, clean: np.ndarray) -> bool:
    if np.array_equal(labels, clean):
        return True
    if not np.array_equal(np.sort(labels), np.sort(clean)):
        row = int(np.argmax(labels != clean))
        _refuse(folder, f"{file}[{row}]", str(labels[row]), f"{clean[row]}, the label of the clean test image")
    return False


def _check_array(folder: Path, file: str, shape: tuple[int, ...]) -> None:
    """Raises UserError unless the header promises (5 n, H, W, C) uint8 in C order and the file keeps it."""
    header = _header(folder, file)
    if header.dtype != np.uint8:
        _refuse(folder, file, f"dtype {header.dtype}", "uint8")
    if len(header.shape) == 4 and header.shape[1:] == shape[1:] and header.shape != shape:
        _refuse(folder, file, f"{header.shape[0]} rows", str(shape[0]))
    if header.shape != shape:
        _refuse(folder, file, f"shape {_text(header.shape)}", _text(shape))
    if header.fortran:
        _refuse(folder, file, "Fortran order", "C order")


def _check_order(found: ArraySet, name: str, clean: Clean | None) -> None:
    """Raises UserError unless a noise grows from each block of rows to the next.

    With the clean images: the mean distance to them; without: the mean difference of neighbouring pixels.
    """
    n = len(found.labels)
    images = _mapped(found.folder, f"{name}.npy")
    rows = min(n, ORDER_ROWS)
    sizes = []
    for severity in SEVERITIES:
        block = images[n * (severity - 1) :][:rows].astype(np.int16)
        changes = np.diff(block, axis=2) if clean is None else block - clean.images[:rows]
        sizes.append(float(np.abs(changes).mean()))
    for severity, (before, after) in enumerate(zip(sizes, sizes[1:], strict=False), 2):
        if after <= before:
            nearer = "smoother than" if clean is None else "nearer to clean than"
            _refuse(found.folder, f"{name}.npy", f"block {severity} {nearer} block {severity - 1}",
                    "rows sorted by severity")  # fmt: skip


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    start: int  # byte of the first number


def _header(folder: Path, file: str) -> _Header:
    """Shape and dtype of a .npy file whose length agrees with them. Raises UserError for anything else."""
    path = folder / file
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
            start = stream.tell()
        length = path.stat().st_size
    except OSError as error:
        raise UserError("data_missing", f"{folder.name}/{file}", f"cannot be read ({error.strerror})") from None
    except (ValueError, SyntaxError, EOFError, TypeError, RecursionError):
        _refuse(folder, file, "not a plain array")
    if dtype.hasobject:
        _refuse(folder, file, "pickled arrays refused")
    promised = start + math.prod(shape) * dtype.itemsize
    if length != promised:
        _refuse(folder, file, "shorter than its header says" if length < promised else "longer than its header says")
    return _Header(shape, dtype, fortran, start)


def _mapped(folder: Path, file: str) -> np.ndarray:
    """The array in a .npy file, mapped, not read."""
    header = _header(folder, file)
    return np.memmap(folder / file, header.dtype, "r", header.start, header.shape)


def _refuse(folder: Path, file: str, problem: str, expected: str | None = None) -> NoReturn:
    raise UserError("data_corrupt", f"{folder.name}/{file}", problem, expected=expected)


def _text(shape: tuple[int, ...]) -> str:
    return f"({','.join(map(str, shape))}{',' * (len(shape) == 1)})"


# ------------------------------------------------------------------------------------------------------------ md5 sums


def differing(found: ArraySet | FolderSet, known: Published) -> list[str] | None:
    """The files whose md5 is not the published one: those of a set of arrays, and the tar where it lies beside.

    None where no sum is known of anything that is there.
    """
    tar = known.tar(found.folder)
    expected = {found.folder / f"{name}.npy": known.sums.get(f"{name}.npy") for name in (*found.names, "labels")}
    checked: dict[Path, str | None] = expected if isinstance(found, ArraySet) and known.sums else {}
    checked |= {tar: known.md5} if known.md5 is not None and tar is not None else {}
    if not checked:
        return None
    sums = md5(list(checked), memory(found.folder))
    return [path.name for (path, sum_), got in zip(checked.items(), sums, strict=True) if got != sum_]


def memory(folder: Path) -> Path:
    """Where the sums of a set's files are remembered."""
    return folder.with_name(f"{folder.name}.md5.json")


# --------------------------------------------------------------------------------------------------- folders of images


def open_folders(
    folder: Path,
    classes: Sequence[str],
    size: pictures.Size,
    only: Sequence[str] | None = None,
    severities: Iterable[int] = (),
) -> tuple[FolderSet, dict[str, int]]:
    """The image files in corruption/severity/class, listed and not decoded; and the class folders that are surplus.

    classes     the folder names of the classes in the order of the clean set: a listing never assigns class numbers
    severities  those wanted; none: all
    Raises UserError: data_missing for corruptions, classes or files that are not there.
    """
    present = tuple(name for name in NAMES if (folder / name).is_dir())
    names = (NAMES if set(present) & set(EXTRA) else STANDARD) if only is None else tuple(only)
    files: tuple[str, ...] | None = None
    surplus: dict[str, int] = {}
    for name in names:
        if name not in present:
            raise UserError("data_missing", f"{folder.name}/{name}", f"missing; {len(present)} of {len(NAMES)} found")
        for severity in tuple(severities) or SEVERITIES:
            listed, others = _listed(folder, f"{name}/{severity}", classes)
            if others:
                surplus[name] = max(others, surplus.get(name, 0))
            files = listed if files is None else files
            _same_files(folder, f"{name}/{severity}", files, listed)
    assert files is not None
    number = {word: place for place, word in enumerate(classes)}
    labels = np.array([number[file.split("/")[0]] for file in files], dtype=np.int64)
    return FolderSet(folder, names, files, labels, size), surplus


def _listed(folder: Path, cell: str, classes: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """class/file of every image of a cell, and the number of class folders that no class has."""
    try:
        there = {entry.name for entry in (folder / cell).iterdir() if entry.is_dir()}
    except OSError as error:
        raise UserError("data_missing", f"{folder.name}/{cell}", f"cannot be read ({error.strerror})") from None
    missing = [word for word in classes if word not in there]
    if missing:
        problem = f"{len(missing)} of {len(classes)} class folders missing"
        raise UserError("data_missing", f"{folder.name}/{cell}", problem, hint=f"First: {missing[0]}")
    listed = tuple(f"{word}/{name}" for word in classes for name in sorted(_images(folder / cell / word)))
    return listed, len(there - set(classes))


def _images(place: Path) -> list[str]:
    return [n for n in os.listdir(place) if n.lower().endswith(pictures.SUFFIXES) and not n.startswith(".")]


def _same_files(folder: Path, cell: str, files: tuple[str, ...], listed: tuple[str, ...]) -> None:
    if files != listed:
        other = sorted(set(files) ^ set(listed))
        problem = f"{len(other)} images that other cells do not share"
        raise UserError("data_missing", f"{folder.name}/{cell}", problem, hint=f"First: {other[0]}")
    if not files:
        raise UserError("data_missing", f"{folder.name}/{cell}", "no images")
