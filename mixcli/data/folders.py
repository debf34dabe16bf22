"""folders.py: image sets that are folders of files: a folder for each class, and Tiny-ImageNet as it is published.

    train/CLASS/*, test/CLASS/* (or val/CLASS/*)                         any set; classes in alphabetical order
    wnids.txt, train/WNID/images/*, val/images/*, val/val_annotations.txt
                                     Tiny-ImageNet (Y. Le, X. Yang 2015): classes in the order of wnids.txt; the
                                     published test images have no labels, so the validation images are the test split

`listed` names every file and reads no pixels; `part` decodes those of one split. The images of a set have one size, and
stay in memory as uint8. A set is known by the names and lengths of its files; its pixels' digest is taken where they
are read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from mixcli import pictures
from mixcli.errors import UserError
from mixcli.pictures import Size

TESTS = ("test", "val")  # the first of these that is there
WNIDS, ANNOTATIONS = "wnids.txt", "val/val_annotations.txt"
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
class Listing:
    """The files of a set, none decoded.

    size      height, width, channels of every image; by the first image of each class
    identity  sha256 of the files' names and lengths
    """

    folder: Path
    classes: tuple[str, ...]
    train: Files
    test: Files
    size: Size
    identity: str


def listed(folder: Path) -> Listing:
    """The files of the set in `folder`. Raises UserError (data_missing, data_corrupt, out_of_memory)."""
    published = (folder / WNIDS).is_file()
    classes, train, test = _tiny_imagenet(folder) if published else _class_folders(folder)
    size = _size(folder, train)
    _check_memory(folder, len(train.names) + len(test.names), size)
    return Listing(folder, classes, train, test, size, _identity(folder, (*train.names, *test.names)))


def part(listing: Listing, files: Files) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C) uint8 and labels (N,) int64 of one part, in its order. Raises UserError (data_*)."""
    images = np.empty((len(files.names), *listing.size), np.uint8)
    pictures.read_into(images, listing.folder, files.names)
    return images, files.labels


# ------------------------------------------------------------------------------------------------------------- layouts


def _class_folders(folder: Path) -> tuple[tuple[str, ...], Files, Files]:
    parts = ("train", next((part for part in TESTS if (folder / part).is_dir()), TESTS[0]))
    for part in parts:
        if not (folder / part).is_dir():
            wanted = "train/ and test/ or val/, a folder for each class in them"
            raise UserError("data_missing", _told(folder, part), "no such folder", expected=wanted)
    classes = tuple(_folders(folder, "train"))
    if len(classes) < 2:
        _refuse(folder, "train", f"{len(classes)} class folders", "at least 2")
    _check_classes(folder, parts[1], classes, _folders(folder, parts[1]))
    train, test = (_of_classes(folder, [f"{part}/{name}" for name in classes]) for part in parts)
    return classes, train, test


def _check_classes(folder: Path, part: str, classes: Sequence[str], there: Sequence[str]) -> None:
    missing, others = [n for n in classes if n not in there], [n for n in there if n not in classes]
    if missing:
        problem = f"{len(missing)} of {len(classes)} class folders missing"
        raise UserError("data_missing", _told(folder, part), problem, hint=f"First: {missing[0]}")
    if others:
        _refuse(folder, f"{part}/{others[0]}", "a class that train/ does not have")


def _tiny_imagenet(folder: Path) -> tuple[tuple[str, ...], Files, Files]:
    classes = tuple(_lines(folder, WNIDS))
    if len(classes) < 2 or len(set(classes)) < len(classes) or any("/" in name for name in classes):
        _refuse(folder, WNIDS, "not a list of class names")
    train = _of_classes(folder, [f"train/{name}/images" for name in classes])
    for label, name in enumerate(classes):
        boxes = f"train/{name}/{name}_boxes.txt"  # a line for each image that was published
        if (folder / boxes).is_file() and len(_lines(folder, boxes)) != (got := int((train.labels == label).sum())):
            _refuse(folder, f"train/{name}", f"{got} images", f"{len(_lines(folder, boxes))}, by {name}_boxes.txt")
    return classes, train, _annotated(folder, classes)


def _annotated(folder: Path, classes: Sequence[str]) -> Files:
    """The validation images, in the order of their annotations: file, class and a box, between tabs."""
    number = {name: label for label, name in enumerate(classes)}
    rows = [line.split("\t") for line in _lines(folder, ANNOTATIONS)]
    for place, row in enumerate(rows, 1):
        if len(row) < 2 or row[1] not in number or Path(row[0]).name != row[0]:
            _refuse(folder, ANNOTATIONS, f"line {place} names no image of a class")
    there = set(_images(folder, "val/images"))
    missing = [row[0] for row in rows if f"val/images/{row[0]}" not in there]
    if missing:
        problem = f"{len(missing)} of {len(rows)} images missing"
        raise UserError("data_missing", _told(folder, "val/images"), problem, hint=f"First: {missing[0]}")
    if not rows:
        _refuse(folder, ANNOTATIONS, "no images")
    return Files(tuple(f"val/images/{row[0]}" for row in rows), np.array([number[row[1]] for row in rows]))


def _of_classes(folder: Path, places: Sequence[str]) -> Files:
    """The images in one folder for each class, in the order of the classes, by name within each."""
    found = [_images(folder, place) for place in places]
    for place, names in zip(places, found, strict=True):
        if not names:
            _refuse(folder, place, "no images")
    labels = np.repeat(np.arange(len(found)), [len(names) for names in found])
    return Files(tuple(name for names in found for name in names), labels)


def _images(folder: Path, place: str) -> list[str]:
    return [f"{place}/{name}" for name in _entries(folder, place) if name.lower().endswith(pictures.SUFFIXES)]


def _folders(folder: Path, place: str) -> list[str]:
    return [name for name in _entries(folder, place) if (folder / place / name).is_dir()]


def _entries(folder: Path, place: str) -> list[str]:
    """The names in a folder below the set's, sorted; hidden ones are nobody's images."""
    try:
        return sorted(name for name in os.listdir(folder / place) if not name.startswith("."))
    except OSError as error:
        raise UserError("data_missing", _told(folder, place), f"cannot be read ({error.strerror})") from None


def _lines(folder: Path, file: str) -> list[str]:
    try:
        return [line.strip() for line in (folder / file).read_text().splitlines() if line.strip()]
    except OSError as error:
        raise UserError("data_missing", _told(folder, file), f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        _refuse(folder, file, "not a text file")


# -------------------------------------------------------------------------------------------------------------- checks


def _size(folder: Path, train: Files) -> Size:
    """Of the first image of each class: they agree, or they are refused; grey where all of them are."""
    firsts = np.searchsorted(train.labels, np.unique(train.labels))
    sizes = [pictures.header(folder / train.names[k], _told(folder, train.names[k])) for k in firsts]
    height, width, _ = sizes[0]
    for k, (other, across, _) in zip(firsts, sizes, strict=True):
        if (other, across) != (height, width):
            problem = f"size {across}x{other}, another than that of {train.names[0]}"
            _refuse(folder, train.names[k], problem, f"{width}x{height}")
    return height, width, max(channels for *_, channels in sizes)


def _check_memory(folder: Path, images: int, size: Size) -> None:
    needed = COPIES * images * size[0] * size[1] * size[2]
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        problem = f"{images} images need {needed / 2**30:.0f} GiB of memory, and this machine has {there / 2**30:.0f}"
        raise UserError("out_of_memory", folder.name, problem, hint="Make the images smaller, or take fewer")


def _identity(folder: Path, names: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0{(folder / name).stat().st_size}\n".encode(errors="surrogateescape"))
    return f"folder:{digest.hexdigest()}"


def _told(folder: Path, name: str) -> str:
    return f"{folder.name}/{name}"


def _refuse(folder: Path, name: str, problem: str, expected: str | None = None) -> NoReturn:
    raise UserError("data_corrupt", _told(folder, name), problem, expected=expected)
