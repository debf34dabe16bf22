"""Small image sets in published layouts: class folders, those of layouts.py, and Tiny-ImageNet's corrupted set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = tuple(f"n{number:08}" for number in range(1000, 1200))  # as many as Tiny-ImageNet has, in another order below


def picture(path: Path, seed: int, side: int = 8, mode: str = "RGB", format: str = "JPEG") -> np.ndarray:
    """A picture of its own written to a file; returns its pixels as written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
    pixels = coarse.repeat(4, 0).repeat(4, 1)
    Image.fromarray(pixels).convert(mode).save(path, format)
    return pixels


def class_folders(folder: Path, classes: Sequence[str] = ("ant", "bee", "cat"), test: str = "test", train: int = 8,
                  tested: int = 4, side: int = 8, mode: str = "RGB") -> Path:  # fmt: skip
    """train/CLASS/k.png and test/CLASS/k.png."""
    for number, name in enumerate(classes):
        for part, count in (("train", train), (test, tested)):
            for k in range(count):
                picture(folder / part / name / f"{k}.png", 1000 * number + k, side, mode, "PNG")
    return folder


def tiny_imagenet(data: Path, train: int = 2, tested: int = 1) -> Path:
    """data/tiny-imagenet-200 with that many images of each of 200 classes."""
    folder = data / "tiny-imagenet-200"
    words = WNIDS[::-1]  # the order of wnids.txt is not that of a listing
    annotations = []
    for number, word in enumerate(words):
        names = [f"{word}_{k}.JPEG" for k in range(train)]
        for k, name in enumerate(names):
            picture(folder / "train" / word / "images" / name, 10 * number + k, 64)
        (folder / "train" / word / f"{word}_boxes.txt").write_text("".join(f"{name}\t0\t0\t9\t9\n" for name in names))
        for k in range(tested):
            name = f"val_{number * tested + k}.JPEG"
            picture(folder / "val" / "images" / name, 10 * number + 5 + k, 64)
            annotations.append(f"{name}\t{word}\t0\t32\t44\t62\n")
    np.random.default_rng(0).shuffle(annotations)
    (folder / "val" / "val_annotations.txt").write_text("".join(annotations))
    (folder / "wnids.txt").write_text("\n".join(words) + "\n")
    (folder / "test" / "images").mkdir(parents=True)  # the published test images have no labels
    return folder


def food_101(data: Path, classes: int = 101, train: int = 2, tested: int = 1, size: tuple[int, int] = (40, 24)) -> Path:
    """data/food-101: images of `size` (height, width) in images/, named by the lists in meta/."""
    folder = data / "food-101"
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for number in range(classes):
        name = f"dish_{number:03}"
        for k in range(train + tested):
            oblong(folder / "images" / name / f"{k}.jpg", 10 * number + k, size)
            lists["train" if k < train else "test"].append(f"{name}/{k}")
    (folder / "meta").mkdir()
    for part, names in lists.items():
        (folder / "meta" / f"{part}.txt").write_text("\n".join(names) + "\n")
    return folder


def oxford_iiit_pet(data: Path, train: int = 2, tested: int = 1) -> Path:
    """data/oxford-iiit-pet: 37 breeds whose numbers are not in the order of their names."""
    folder = data / "oxford-iiit-pet"
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for number in range(37):
        breed = f"breed_of_{'zyx'[number % 3]}_{number:02}"
        for k in range(train + tested):
            oblong(folder / "images" / f"{breed}_{k}.jpg", 10 * number + k, (24 + number, 40))
            lists["trainval" if k < train else "test"].append(f"{breed}_{k} {number + 1} 1 {number + 1}")
    (folder / "annotations").mkdir()
    for part, rows in lists.items():
        (folder / "annotations" / f"{part}.txt").write_text("\n".join(rows) + "\n")
    return folder


def numbered_folders(folder: Path, names: Iterable[str], count: int, size: tuple[int, int] = (24, 32)) -> Path:
    """CLASS/k.jpg: one picture for each class, under `count` names."""
    for number, name in enumerate(names):
        first = folder / name / f"{1:04}.jpg"
        oblong(first, number, size)
        for k in range(2, count + 1):
            os.link(first, folder / name / f"{k:04}.jpg")
    return folder


def oblong(path: Path, seed: int, size: tuple[int, int]) -> None:
    """A picture of `size` (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG")


def corrupted(folder: Path, names: Iterable[str], words: Sequence[str], severities: Iterable[int] = (1, 2, 3, 4, 5),
              count: int = 1, side: int = 64) -> Path:  # fmt: skip
    """corruption/severity/class/k.JPEG."""
    for name in names:
        for severity in severities:
            for number, word in enumerate(words):
                for k in range(count):
                    seed = 10_000 * (10 * len(name) + severity) + 10 * number + k
                    picture(folder / name / str(severity) / word / f"test_{number}_{k}.JPEG", seed, side)
    return folder
