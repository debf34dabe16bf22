"""folders.py: image sets that are folders of files: every file named, its size known, and its pixels read.

    train/CLASS/*, test/CLASS/* (or val/CLASS/*)                         any set; classes in alphabetical order

Sets with a layout of their own stand in layouts.py. `listed` names every file and reads no pixels; `part` decodes those
of one split. The images of a set have one size, or are resized to one, and stay in memory as uint8. A set is known by
the names and lengths of its files; its pixels' digest is taken where they are read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from mixcli import pictures
from mixcli.errors import UserError
from mixcli.pictures import Size

TESTS = ("test", "val")  # the first of these that is there
RESIZE = "Give --resize N to make them one size"
COPIES = 3  # of the pixels: as read, and with the border that random crops take from


@dataclass(frozen=True)
class Files:
    """One part of a set.

    names   (N) paths below the set's folder, with slashes
    labels  (N,) int64
    """

    names: tuple[str, ...]
    labels: np.ndarray


@dataclass(frozen=True)
class Drawn:
    """A test split that nobody published: this share of every class, drawn with a seed of its own."""

    share: float
    seed: int


@dataclass(frozen=True)
class Layout:
    """What the files of a set are: its classes in label order, its training and its test files.

    test  the files; or how they are drawn from among `train`, which then holds all
    """

    classes: tuple[str, ...]
    train: Files
    test: Files | Drawn


Reader = Callable[[Path], Layout]  # raises UserError (data_missing, data_corrupt)


@dataclass(frozen=True)
class Listing(Layout):
    """The files of a set, none decoded.

    size      height, width, channels of every image; by the first image of each class
    resized   files of another size are resized when they are read
    identity  sha256 of the files' names and lengths
    """

    folder: Path
    size: Size
    resized: bool
    identity: str


def listed(folder: Path, reader: Reader | None = None, side: int | None = None) -> Listing:
    """The files of the set in `folder`. Raises UserError (data_missing, data_corrupt, out_of_memory).

    reader  of the set's own layout; None: class folders
    side    that images are resized to; None: they have one size
    """
    found = (reader or class_folders)(folder)
    names = (*found.train.names, *(found.test.names if isinstance(found.test, Files) else ()))
    size = _size(folder, found.train, side)
    _check_memory(folder, len(names), size)
    return Listing(found.classes, found.train, found.test, folder, size, side is not None, _identity(folder, names))


def part(listing: Listing, files: Files) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C) uint8 and labels (N,) int64 of one part, in its order. Raises UserError (data_*)."""
    images = np.empty((len(files.names), *listing.size), np.uint8)
    pictures.read_into(images, listing.folder, files.names, listing.resized, RESIZE)
    return images, files.labels


# ------------------------------------------------------------------------------------------------------------- layouts


def class_folders(folder: Path) -> Layout:
    """Any set: a folder for each class in train/, and the same ones in test/ or val/."""
    parts = ("train", next((part for part in TESTS if (folder / part).is_dir()), TESTS[0]))
    for part in parts:
        if not (folder / part).is_dir():
            wanted = "train/ and test/ or val/, a folder for each class in them"
            raise UserError("data_missing", told(folder, part), "no such folder", expected=wanted)
    classes = tuple(subfolders(folder, "train"))
    if len(classes) < 2:
        refuse(folder, "train", f"{len(classes)} class folders", "at least 2")
    _check_classes(folder, parts[1], classes, subfolders(folder, parts[1]))
    train, test = (of_classes(folder, [f"{part}/{name}" for name in classes]) for part in parts)
    return Layout(classes, train, test)


def _check_classes(folder: Path, part: str, classes: Sequence[str], there: Sequence[str]) -> None:
    missing, others = [n for n in classes if n not in there], [n for n in there if n not in classes]
    if missing:
        problem = f"{len(missing)} of {len(classes)} class folders missing"
        raise UserError("data_missing", told(folder, part), problem, hint=f"First: {missing[0]}")
    if others:
        refuse(folder, f"{part}/{others[0]}", "a class that train/ does not have")


def of_classes(folder: Path, places: Sequence[str]) -> Files:
    """The images in one folder for each class, in the order of the classes, by name within each."""
    found = [images(folder, place) for place in places]
    for place, names in zip(places, found, strict=True):
        if not names:
            refuse(folder, place, "no images")
    labels = np.repeat(np.arange(len(found)), [len(names) for names in found])
    return Files(tuple(name for names in found for name in names), labels)


def images(folder: Path, place: str) -> list[str]:
    """The image files in a folder below the set's, as paths below the set's, sorted."""
    return [f"{place}/{name}" for name in _entries(folder, place) if name.lower().endswith(pictures.SUFFIXES)]


def subfolders(folder: Path, place: str) -> list[str]:
    """The names of the folders in a folder below the set's, sorted."""
    return [name for name in _entries(folder, place) if (folder / place / name).is_dir()]


def _entries(folder: Path, place: str) -> list[str]:
    """The names in a folder below the set's, sorted; hidden ones are nobody's images."""
    try:
        return sorted(name for name in os.listdir(folder / place) if not name.startswith("."))
    except OSError as error:
        raise UserError("data_missing", told(folder, place), f"cannot be read ({error.strerror})") from None


def lines(folder: Path, file: str) -> list[str]:
    """The lines of a text file of the set, without those that hold nothing."""
    try:
        return [line.strip() for line in (folder / file).read_text().splitlines() if line.strip()]
    except OSError as error:
        raise UserError("data_missing", told(folder, file), f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        refuse(folder, file, "not a text file")


def check_there(folder: Path, names: Iterable[str]) -> None:
    """Raises UserError unless each of these files is there; the folders that they lie in are listed once."""
    names = tuple(names)
    there = {name for place in dict.fromkeys(_parent(name) for name in names) for name in images(folder, place)}
    missing = [name for name in names if name not in there]
    if missing:
        problem = f"{len(missing)} of {len(names)} images missing"
        place, _, first = missing[0].rpartition("/")
        raise UserError("data_missing", told(folder, place), problem, hint=f"First: {first}")


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


# -------------------------------------------------------------------------------------------------------------- checks


def _size(folder: Path, train: Files, side: int | None) -> Size:
    """Of the first image of each class, which agree unless there is a side; grey where all of them are."""
    firsts = np.unique(train.labels, return_index=True)[1]
    sizes = [pictures.header(folder / train.names[k], told(folder, train.names[k])) for k in firsts]
    height, width, _ = sizes[0]
    channels = max(channels for *_, channels in sizes)
    if side is not None:
        return side, side, channels
    for k, (other, across, _) in zip(firsts, sizes, strict=True):
        if (other, across) != (height, width):
            problem = f"size {across}x{other}, another than that of {train.names[firsts[0]]}"
            refuse(folder, train.names[k], problem, f"{width}x{height}", RESIZE)
    return height, width, channels


def _check_memory(folder: Path, images: int, size: Size) -> None:
    needed = COPIES * images * size[0] * size[1] * size[2]
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        problem = (f"{images} images of {size[1]}x{size[0]} need {needed / 2**30:.0f} GiB of memory, and this machine "
                   f"has {there / 2**30:.0f}")  # fmt: skip
        raise UserError("out_of_memory", folder.name, problem, hint="Give a smaller --resize, or a set of fewer images")


def _identity(folder: Path, names: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0{(folder / name).stat().st_size}\n".encode(errors="surrogateescape"))
    return f"folder:{digest.hexdigest()}"


def told(folder: Path, name: str) -> str:
    """How errors name a file or folder of the set."""
    return f"{folder.name}/{name}" if name else folder.name


def refuse(folder: Path, name: str, problem: str, expected: str | None = None, hint: str = "") -> NoReturn:
    """Raises the UserError of a set that is not what it should be: exit 3."""
    raise UserError("data_corrupt", told(folder, name), problem, expected=expected, hint=hint)
