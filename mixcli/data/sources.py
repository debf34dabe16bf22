"""sources.py: from the name of a data set to checked uint8 images, labels, subsets and constants.

`look` says what is known before pixels are read; `load` reads them. Images stay uint8 (N, H, W, C), a grey image has
one channel. What is chosen by chance (splits, subsets, wrong labels) is keyed by `split_seed`, never by the run's seed:

    digits                        1,437 training and 360 test images, stratified
    val_fraction                  stratified by largest remainder, taken from the training images
    per_class                     the same number of each class, of what is left; fewer are a subset of more
    label_noise, noise_kind       an exact share of the training labels made wrong; validation and test stay true

No module of torch's is needed to look.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixcli.data import cifar, npz
from mixcli.errors import UserError, nearest
from mixcli.settings import DATASETS, Facts, Train

if TYPE_CHECKING:
    from mixcli.sampling import Random

DIGITS = Facts("digits", images=1437, test_images=360, classes=10, channels=1, size=(8, 8))
CIFAR = {
    "cifar10": Facts("cifar10", images=50_000, test_images=10_000, classes=10, channels=3, size=(32, 32)),
    "cifar100": Facts("cifar100", images=50_000, test_images=10_000, classes=100, channels=3, size=(32, 32)),
}
# Mean and deviation of training pixels in [0, 1], as published. OpenMixup's are CIFAR-10's on every set, and its
# deviation is not the per-pixel one.
OWN = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
SHARED = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "openmixup": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}


@dataclass(frozen=True)
class Split:
    """Images of one part of a data set.

    images  (N, H, W, C) uint8, C-contiguous
    labels  (N,) int64
    index   (N,) int64: row in the split as published (digits: in scikit-learn's whole set)
    """

    images: np.ndarray
    labels: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> Split:
        """The images of `rows`, numbers or a mask, in that order."""
        return Split(self.images[rows], self.labels[rows], self.index[rows])


@dataclass(frozen=True)
class Source:
    """A data set as a run uses it.

    facts      of the whole set, before validation and subsets
    train      after validation, subset and label noise; `digest` is the sha256 of its pixels and labels
    mean, std  per channel, of pixels in [0, 1]
    """

    name: str
    facts: Facts
    classes: tuple[str, ...]
    train: Split
    val: Split | None
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str


def look(train: Train) -> Facts:
    """What headers, labels and sums tell of the data set. Raises UserError where it is absent, damaged or unfit."""
    path = _locate(train)
    if path is None:
        facts = DIGITS
    elif path.is_dir():
        cifar.verify(train.dataset, path)
        facts = CIFAR[train.dataset]
    else:
        facts = _npz_facts(path)
        _refuse_other_set(train.dataset, path, facts)
    if facts.channels == 1 and train.normalise in SHARED:
        raise UserError("config", "normalise", f"{train.normalise} has constants for colour images, this set is grey",
                        got=train.normalise, expected="own or half")  # fmt: skip
    return facts


def load(train: Train) -> Source:
    """The data set of these settings, read, split, subset and with its label noise. Raises UserError like `look`."""
    from mixcli.sampling import Random  # it imports torch, which `look` must not wait for

    facts, path = look(train), _locate(train)
    classes, whole, test = _read(train, path, Random(train.split_seed, "test"))
    mean, std = _constants(train, facts, whole.images)
    kept, val = whole, None
    if train.val_fraction > 0:
        kept, val = _hold_out(whole, train, classes, Random(train.split_seed, "val"))
    if train.per_class is not None:
        kept = _per_class(kept, train.per_class, classes, Random(train.split_seed, "per-class"))
    if train.label_noise > 0:
        kept = _mislabel(kept, train, len(classes), Random(train.split_seed, "label-noise"))
    return Source(train.dataset, facts, classes, kept, val, test, mean, std, digest(kept))


def _locate(train: Train) -> Path | None:
    """The file or the folder of the data set; None for what comes with scikit-learn."""
    name = train.dataset
    if name == "digits":
        return None
    if name.endswith(".npz"):
        places = [Path(name)]
    elif name in CIFAR:
        places = [Path(train.data_dir, cifar.LAYOUTS[name].folder), Path(train.data_dir, f"{name}.npz")]
    else:
        raise UserError("config", "dataset", "unknown; neither a known name nor a .npz file", got=name,
                        hint=nearest(name, DATASETS))  # fmt: skip
    for place in places:
        if place.is_file() if place.suffix == ".npz" else place.is_dir():
            return place
    hint = "" if name.endswith(".npz") else "Put it there, or name its folder with --data-dir"
    raise UserError("data_missing", name, f"not found as {' or '.join(map(str, places))}", hint=hint)


def _npz_facts(path: Path) -> Facts:
    found = npz.contents(path)
    with path.open("rb") as file:
        identity = f"npz:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    train, test = (len(labels) for labels in found.labels)
    height, width, channels = found.shape
    return Facts(identity, train, test, len(found.classes), channels, (height, width))


def _refuse_other_set(name: str, path: Path, facts: Facts) -> None:
    """A file that goes by a known name has that set's classes and image size; it may hold fewer images."""
    if name not in CIFAR:
        return
    got, expected = (f"{f.classes} classes of {f.size[0]}x{f.size[1]}x{f.channels}" for f in (facts, CIFAR[name]))
    if got != expected:
        npz.refuse(path, "", f"not {name}", got, expected)


def _read(train: Train, path: Path | None, random: Random) -> tuple[tuple[str, ...], Split, Split]:
    """Class names, the training and the test images as published; `random` splits what has no published split."""
    if path is None:
        return _digits(random)
    if path.is_dir():
        layout = cifar.LAYOUTS[train.dataset]
        classes = cifar.classes(train.dataset, path)
        parts = [cifar.part(train.dataset, path, files) for files in (layout.train, layout.test)]
    else:
        found = npz.contents(path)
        classes, parts = found.classes, list(zip(npz.pixels(path, found), found.labels, strict=True))
    whole, test = (Split(images, labels, np.arange(len(labels))) for images, labels in parts)
    return classes, whole, test


def _digits(random: Random) -> tuple[tuple[str, ...], Split, Split]:
    """scikit-learn's 8x8 digits; their grey values 0 .. 16 become 0 .. 255."""
    from sklearn.datasets import load_digits

    pixels, labels = (np.asarray(array) for array in load_digits(return_X_y=True))
    images = np.round(pixels * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    every = Split(images, labels.astype(np.int64), np.arange(len(labels)))
    test = rank(every.labels, random) < shares(np.bincount(every.labels), DIGITS.test_images)[every.labels]
    return tuple(str(digit) for digit in range(10)), every.take(~test), every.take(test)


def _hold_out(whole: Split, train: Train, classes: tuple[str, ...], random: Random) -> tuple[Split, Split]:
    """The training images that stay, and the stratified validation images, in their old order."""
    sizes = np.bincount(whole.labels, minlength=len(classes))
    if (sizes == 1).any():
        lone = classes[int(np.argmax(sizes == 1))]
        raise UserError("data_corrupt", Path(train.dataset).name, f"class '{lone}': 1 sample, split needs 2")
    fraction = train.val_fraction
    held = shares(sizes, len(whole) - round(len(whole) * (1 - fraction)))
    if held.sum() == 0 or (held[sizes > 0] == sizes[sizes > 0]).any():
        raise UserError("config", "val_fraction", "leaves validation or a training class without images", got=fraction)
    val = rank(whole.labels, random) < held[whole.labels]
    return whole.take(~val), whole.take(val)


def _per_class(split: Split, count: int, classes: tuple[str, ...], random: Random) -> Split:
    """`count` images of each class, in their old order; a smaller count's choice lies within a larger one's."""
    sizes = np.bincount(split.labels, minlength=len(classes))
    if sizes.min() < count:
        smallest = int(np.argmin(sizes))
        raise UserError("config", "per_class", f"class '{classes[smallest]}' has {sizes[smallest]} images", got=count)
    return split.take(rank(split.labels, random) < count)


def _mislabel(split: Split, train: Train, classes: int, random: Random) -> Split:
    """Exactly round(share N) labels made wrong: any other class alike (symmetric), or the next one (pair)."""
    wrong = random.host.permutation(len(split))[: round(train.label_noise * len(split))]
    step = 1 if train.noise_kind == "pair" else random.host.integers(1, classes, len(wrong))
    labels = split.labels.copy()
    labels[wrong] = (labels[wrong] + step) % classes
    return replace(split, labels=labels)


def rank(labels: np.ndarray, random: Random) -> np.ndarray:
    """(N,) int64: the place of each image among those of its class, in random order."""
    shuffled = random.host.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.bincount(labels)
    rank = np.empty(len(labels), dtype=np.int64)
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rank


def shares(sizes: np.ndarray, total: int) -> np.ndarray:
    """`total` divided among classes in proportion to `sizes`, by largest remainder (ties: the first class); int64."""
    exact = total * sizes
    shares = exact // sizes.sum()
    most_left = np.argsort(-(exact % sizes.sum()), kind="stable")
    shares[most_left[: total - shares.sum()]] += 1
    return shares


def _constants(train: Train, facts: Facts, images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel; `images` is the whole training split."""
    if train.normalise == "half":
        return (0.5,) * facts.channels, (0.5,) * facts.channels
    if train.normalise in SHARED:
        return SHARED[train.normalise]
    return OWN[train.dataset] if train.dataset in OWN else _measured(images)


def _measured(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel's pixels in [0, 1]; the deviation of a constant channel counts as 1."""
    # Counted a thousand images at a time: bincount turns its bytes into 64-bit numbers.
    counts = np.zeros((images.shape[3], 256), dtype=np.int64)
    for start in range(0, len(images), 1000):
        for channel, count in enumerate(counts):
            count += np.bincount(images[start : start + 1000, ..., channel].ravel(), minlength=256)
    values, weights = np.arange(256) / 255, counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def digest(split: Split) -> str:
    """sha256 of a split's pixels and labels, in their order."""
    found = hashlib.sha256(repr(split.images.shape).encode())
    found.update(np.ascontiguousarray(split.images).data)
    found.update(np.ascontiguousarray(split.labels).data)
    return found.hexdigest()
