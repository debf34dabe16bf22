"""layouts.py: sets of image files in the layouts that they were published in, and the splits that go with them.

    food-101          meta/train.txt, meta/test.txt: CLASS/ID; images/CLASS/ID.jpg (Bossard et al. 2014): 750 and 250
                      of each of 101 classes
    oxford-iiit-pet   annotations/trainval.txt, test.txt: IMAGE CLASS-ID SPECIES BREED-ID; images/IMAGE.jpg (Parkhi
                      et al. 2012): 37 classes
    caltech-256       NNN.name/*.jpg (Griffin et al. 2007): 257 classes with clutter; of each, in the order of its
                      files, the first 60 are for training and the next 20 for the test; others are not used
    mini-imagenet     CLASS/*, or train/, val/ and test/CLASS/* of 64, 16 and 20 other classes, as few-shot learning has
                      it (Vinyals et al. 2016): 100 classes of 600; a fifth of each class is the test, drawn with seed
                      100, the same in both layouts. SynerMix's authors draw 80/20 with that seed too, by another
                      generator, and no list of theirs is published: equal shares, other images
    eurosat           CLASS/* (Helber et al. 2019), 10 classes; a fifth of each class is the test, drawn with seed 0:
                      80/20 is the split of the paper's best result, and no list of it is published
    tiny-imagenet     wnids.txt, train/WNID/images/*, val/images/*, val/val_annotations.txt (Le, Yang 2015): classes in
                      the order of wnids.txt; the published test images have no labels, so the validation images are
                      the test split

A drawn split is the same for every run, whatever its `split_seed`. Each set may also lie in class folders, as any may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mixcli.data.folders import (
    Drawn,
    Files,
    Layout,
    Reader,
    check_there,
    class_folders,
    images,
    lines,
    of_classes,
    refuse,
    subfolders,
    told,
)
from mixcli.errors import UserError

TRAINED, TESTED = 60, 20  # images of each class of Caltech-256
MINI_IMAGENET, EUROSAT = Drawn(0.2, seed=100), Drawn(0.2, seed=0)
WNIDS, ANNOTATIONS = "wnids.txt", "val/val_annotations.txt"


def reader(name: str, folder: Path) -> Reader:
    """What reads the set of this name that lies in `folder`: class folders, unless it has the set's own layout."""
    if (folder / WNIDS).is_file():
        return tiny_imagenet
    marks, read = LAYOUTS.get(name, ((), class_folders))
    official = all((folder / mark).exists() for mark in marks) and not (folder / "train").is_dir()
    return read if official or (name == "mini-imagenet" and _few_shot(folder)) else class_folders


def food_101(folder: Path) -> Layout:
    train, test = ([name.split("/") for name in lines(folder, f"meta/{part}.txt")] for part in ("train", "test"))
    for part, rows in (("train", train), ("test", test)):
        for place, row in enumerate(rows, 1):
            if len(row) != 2 or ".." in row or not all(row):
                refuse(folder, f"meta/{part}.txt", f"line {place} names no image of a class")
    classes = tuple(sorted({name for name, _ in train}))
    return _of_lists(folder, classes, [[(f"images/{name}/{id_}.jpg", name) for name, id_ in rows]
                                       for rows in (train, test)])  # fmt: skip


def oxford_iiit_pet(folder: Path) -> Layout:
    number: dict[str, int] = {}
    parts = []
    for file in ("annotations/trainval.txt", "annotations/test.txt"):
        rows = []
        for place, row in enumerate((line.split() for line in lines(folder, file)), 1):
            name = row[0].rpartition("_")[0]
            if len(row) < 2 or not row[1].isdecimal() or not name or "/" in row[0]:
                refuse(folder, file, f"line {place} names no image of a class")
            if number.setdefault(name, int(row[1])) != int(row[1]):
                refuse(folder, file, f"line {place}: {name} is class {row[1]}", f"{number[name]}, as before")
            rows.append((f"images/{row[0]}.jpg", name))
        parts.append(rows)
    if sorted(number.values()) != list(range(1, len(number) + 1)):
        refuse(folder, "annotations", f"{len(number)} classes whose numbers are not 1 … {len(number)}")
    return _of_lists(folder, tuple(sorted(number, key=number.__getitem__)), parts)


def caltech_256(folder: Path) -> Layout:
    classes = tuple(name for name in subfolders(folder, ".") if name[:3].isdecimal())
    if not classes:
        raise UserError("data_missing", told(folder, ""), "no class folders such as 001.ak47")
    found = [images(folder, name) for name in classes]
    for name, there in zip(classes, found, strict=True):
        if len(there) < TRAINED + TESTED:
            refuse(folder, name, f"{len(there)} images", f"at least {TRAINED + TESTED}")
    return Layout(classes, _each(found, 0, TRAINED), _each(found, TRAINED, TRAINED + TESTED))


def _each(found: Sequence[Sequence[str]], start: int, stop: int) -> Files:
    """The files from `start` to `stop` of each class."""
    names = tuple(name for there in found for name in there[start:stop])
    return Files(names, np.repeat(np.arange(len(found)), stop - start))


def mini_imagenet(folder: Path) -> Layout:
    if not (folder / "train").is_dir():
        return _undivided(folder, {name: name for name in subfolders(folder, ".")}, MINI_IMAGENET)
    places = {name: f"{part}/{name}" for part, names in _parts(folder).items() for name in names}
    return _undivided(folder, places, MINI_IMAGENET)


def _parts(folder: Path) -> dict[str, list[str]]:
    """The classes in each part of a set that has parts."""
    return {part: subfolders(folder, part) for part in ("train", "val", "test") if (folder / part).is_dir()}


def _few_shot(folder: Path) -> bool:
    """Whether the parts of a set have no class in common."""
    names = [name for part in _parts(folder).values() for name in part]
    return (folder / "train").is_dir() and len(set(names)) == len(names)


def eurosat(folder: Path) -> Layout:
    return _undivided(folder, {name: name for name in subfolders(folder, ".")}, EUROSAT)


def tiny_imagenet(folder: Path) -> Layout:
    classes = tuple(lines(folder, WNIDS))
    if len(classes) < 2 or len(set(classes)) < len(classes) or any("/" in name for name in classes):
        refuse(folder, WNIDS, "not a list of class names")
    train = of_classes(folder, [f"train/{name}/images" for name in classes])
    for label, name in enumerate(classes):
        boxes = f"train/{name}/{name}_boxes.txt"  # a line for each image that was published
        if (folder / boxes).is_file() and len(lines(folder, boxes)) != (got := int((train.labels == label).sum())):
            refuse(folder, f"train/{name}", f"{got} images", f"{len(lines(folder, boxes))}, by {name}_boxes.txt")
    return Layout(classes, train, _annotated(folder, classes))


def _annotated(folder: Path, classes: Sequence[str]) -> Files:
    """Tiny-ImageNet's validation images, in the order of their annotations: file, class and a box, between tabs."""
    number = {name: label for label, name in enumerate(classes)}
    rows = [line.split("\t") for line in lines(folder, ANNOTATIONS)]
    for place, row in enumerate(rows, 1):
        if len(row) < 2 or row[1] not in number or Path(row[0]).name != row[0]:
            refuse(folder, ANNOTATIONS, f"line {place} names no image of a class")
    if not rows:
        refuse(folder, ANNOTATIONS, "no images")
    names = tuple(f"val/images/{row[0]}" for row in rows)
    check_there(folder, names)
    return Files(names, np.array([number[row[1]] for row in rows]))


def _of_lists(folder: Path, classes: tuple[str, ...], parts: Sequence[Sequence[tuple[str, str]]]) -> Layout:
    """A set whose two parts are lists of (file, class)."""
    if len(classes) < 2:
        refuse(folder, "", f"{len(classes)} classes", "at least 2")
    for told_as, rows in zip(("training", "test"), parts, strict=True):
        odd = sorted(set(classes) ^ {name for _, name in rows})
        if odd:
            refuse(folder, odd[0], f"a class without {told_as if odd[0] in classes else 'training'} images")
    check_there(folder, [file for rows in parts for file, _ in rows])
    number = {name: label for label, name in enumerate(classes)}
    train, test = (Files(tuple(file for file, _ in rows), np.array([number[name] for _, name in rows], np.int64))
                   for rows in parts)  # fmt: skip
    return Layout(classes, train, test)


def _undivided(folder: Path, places: Mapping[str, str], test: Drawn) -> Layout:
    """A folder for each class, by the class's name, and no published split."""
    classes = tuple(sorted(places))
    if len(classes) < 2:
        problem = f"{len(classes)} class folders"
        raise UserError("data_missing", told(folder, ""), problem, expected="one for each class")
    files = of_classes(folder, [places[name] for name in classes])
    few = np.bincount(files.labels) * test.share < 1
    if few.any():
        name = classes[int(np.argmax(few))]
        refuse(folder, name, f"{np.bincount(files.labels)[few][0]} images", f"at least {round(1 / test.share)}")
    return Layout(classes, files, test)


# The files that tell a layout, and what reads it; the folders that sets of these names may lie in stand in sources.py.
LAYOUTS: dict[str, tuple[tuple[str, ...], Reader]] = {
    "food-101": (("meta", "images"), food_101),
    "oxford-iiit-pet": (("annotations", "images"), oxford_iiit_pet),
    "caltech-256": ((), caltech_256),
    "mini-imagenet": ((), mini_imagenet),
    "eurosat": ((), eurosat),
    "tiny-imagenet": ((WNIDS,), tiny_imagenet),
}
