"""sources.py: from the name of a data set to checked uint8 images, labels, subsets and constants.

`look` says what is known before pixels are read; `load` reads them. Images stay uint8 (N, H, W, C), a grey image has
one channel. What is chosen by chance (splits, subsets, wrong labels) is keyed by `split_seed`, never by the run's seed:

    digits                        1,437 training and 360 test images, stratified
    val_fraction                  stratified by largest remainder, taken from the training images
    per_class                     the same number of each class, of what is left; fewer are a subset of more
    labels                        the same number of each class again; the labels of the others are hidden from training
    label_noise, noise_kind       an exact share of the training labels made wrong; validation and test stay true

No module of torch's is needed to look.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from mixcli.catalogue import DATASETS, MEDMNIST
from mixcli.data import cifar, folders, layouts, npz, svhn
from mixcli.data.folders import Drawn, Files, Listing
from mixcli.errors import UserError, nearest
from mixcli.recipe import Facts, Train, stored_side

if TYPE_CHECKING:
    from mixcli.sampling import Random

HIDDEN = -1  # in place of a label that training must not know
DIGITS = Facts("digits", images=1437, test_images=360, classes=10, channels=1, size=(8, 8))
CIFAR = {
    "cifar10": Facts("cifar10", images=50_000, test_images=10_000, classes=10, channels=3, size=(32, 32)),
    "cifar100": Facts("cifar100", images=50_000, test_images=10_000, classes=100, channels=3, size=(32, 32)),
}
TINY_IMAGENET = "tiny-imagenet"
SVHN = Facts("svhn", images=73_257, test_images=26_032, classes=10, channels=3, size=(32, 32))
KNOWN = CIFAR | {
    "svhn": SVHN,
    TINY_IMAGENET: Facts(TINY_IMAGENET, images=100_000, test_images=10_000, classes=200, channels=3, size=(64, 64)),
    "mini-imagenet": Facts("mini-imagenet", images=48_000, test_images=12_000, classes=100, channels=3, size=(84, 84)),
    "food-101": Facts("food-101", images=75_750, test_images=25_250, classes=101, channels=3, size=(224, 224)),
    "oxford-iiit-pet": Facts("oxford-iiit-pet", images=3_680, test_images=3_669, classes=37, channels=3,
                             size=(224, 224)),
    "caltech-256": Facts("caltech-256", images=15_420, test_images=5_140, classes=257, channels=3, size=(224, 224)),
    "eurosat": Facts("eurosat", images=21_600, test_images=5_400, classes=10, channels=3, size=(64, 64)),
} | {
    name: Facts(name, images, test_images, classes, channels, size=(28, 28))
    for name, (images, test_images, classes, channels, _) in MEDMNIST.items()
}  # fmt: skip
# Below the data directory, the first that is there. Archives unpack into these, or torchvision leaves them there.
FOLDERS: dict[str, tuple[str, ...]] = {
    TINY_IMAGENET: ("tiny-imagenet-200",),
    "svhn": (svhn.FOLDER,),
    "food-101": ("food-101",),
    "oxford-iiit-pet": ("oxford-iiit-pet",),
    "caltech-256": ("256_ObjectCategories", "caltech256/256_ObjectCategories", "caltech-256"),
    "mini-imagenet": ("mini-imagenet",),
    "eurosat": ("eurosat/2750", "EuroSAT_RGB", "eurosat"),
} | {name: (layout.folder,) for name, layout in cifar.LAYOUTS.items()}
# Mean and deviation of training pixels in [0, 1], as published. OpenMixup's are CIFAR-10's on every set, and its
# deviation is not the per-pixel one. The larger sets are used with ImageNet's, mini-ImageNet with 0.5.
SHARED = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "openmixup": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}
OWN = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    **dict.fromkeys((TINY_IMAGENET, "food-101", "oxford-iiit-pet", "caltech-256"), SHARED["imagenet"]),
    "mini-imagenet": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
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

    facts       of the whole set, before validation and subsets
    train       after validation, subset and label noise; `digest` is the sha256 of its pixels and labels
    mean, std   per channel, of pixels in [0, 1]
    unlabelled  training images for a method that learns without labels; theirs are all HIDDEN
    mislabelled  (n,) rows of the training images whose label was made wrong; None where none was
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
    unlabelled: Split | None = None
    mislabelled: np.ndarray | None = None


def look(train: Train) -> Facts:
    """What headers, labels and sums tell of the data set. Raises UserError where it is absent, damaged or unfit."""
    path = locate(train)
    if path is None:
        facts = DIGITS
    elif path.is_dir() and train.dataset in CIFAR:
        cifar.verify(train.dataset, path)
        facts = CIFAR[train.dataset]
    elif path.is_dir() and train.dataset == "svhn":
        svhn.verify(path)
        facts = SVHN
    else:
        facts = _folder_facts(_listed(path, train)) if path.is_dir() else _npz_facts(path)
        _refuse_other_set(train, path, facts)
    side = stored_side(train)
    if side is not None and facts.size != (side, side):
        problem = f"{facts.size[1]}x{facts.size[0]} images in arrays stay as they are; only image files are resized"
        raise UserError("config", "resize", problem, got=side)
    if facts.channels == 1 and train.normalise in SHARED:
        raise UserError("config", "normalise", f"{train.normalise} has constants for colour images, this set is grey",
                        got=train.normalise, expected="own or half")  # fmt: skip
    return facts


def load(train: Train, unlabelled: Literal["rest", "all"] | None = None) -> Source:
    """The data set of these settings, read, split, subset and with its label noise. Raises UserError like `look`.

    unlabelled  which images are given without labels: those outside the labelled subset, or all of them
    """
    from mixcli.sampling import Random  # it imports torch, which `look` must not wait for

    facts = look(train)
    parts = _opened(train)
    classes, whole, test = parts.classes, parts.train(), parts.test()
    mean, std = _constants(train, facts, whole.images)
    kept, val = whole, None
    if train.val_fraction > 0:
        kept, val = _hold_out(whole, train, classes, Random(train.split_seed, "val"))
    if train.per_class is not None:
        kept = _per_class(kept, train.per_class, classes, Random(train.split_seed, "per-class"))
    beside = kept if unlabelled == "all" else None
    if train.labels is not None:
        chosen = rank(kept.labels, Random(train.split_seed, "labels")) < train.labels // len(classes)
        beside = kept.take(~chosen) if unlabelled == "rest" else beside
        kept = kept.take(chosen)
        _refuse_unbalanced(kept, train.labels, classes)
    given = kept.labels
    if train.label_noise > 0:
        kept = _mislabel(kept, train, len(classes), Random(train.split_seed, "label-noise"))
    wrong = np.flatnonzero(kept.labels != given)
    beside = None if beside is None else replace(beside, labels=np.full(len(beside), HIDDEN))
    return Source(train.dataset, facts, classes, kept, val, test, mean, std, digest(kept), beside,
                  wrong if len(wrong) else None)  # fmt: skip


def load_test(train: Train) -> tuple[Facts, tuple[str, ...], Split]:
    """Facts, class names and the test images alone; no training image is decoded for them."""
    facts, parts = look(train), _opened(train)
    return facts, parts.classes, parts.test()


def locate(train: Train) -> Path | None:
    """The file or the folder of the data set; None for what comes with scikit-learn."""
    name = train.dataset
    if name == "digits":
        return None
    if name.endswith(".npz"):
        places = [Path(name)]
    elif name in KNOWN:
        places = [Path(train.data_dir, place) for place in (*FOLDERS.get(name, ()), f"{name}.npz")]
    elif Path(name).is_dir() or "/" in name:
        places = [Path(name)]
    else:
        raise UserError("config", "dataset", "unknown; neither a known name nor a .npz file nor a folder", got=name,
                        hint=nearest(name, DATASETS))  # fmt: skip
    for place in places:
        if place.is_file() if place.suffix == ".npz" else place.is_dir():
            return place
    hint = f"mixcli data fetch {name}, or name its folder with --data-dir" if name in KNOWN else ""
    told = f"not found as {' or '.join(map(str, places))}" if name in KNOWN else "not found"
    raise UserError("data_missing", name, told, hint=hint)


def _npz_facts(path: Path) -> Facts:
    found = npz.contents(path)
    with path.open("rb") as file:
        identity = f"npz:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    train, test = (len(labels) for labels in found.labels)
    height, width, channels = found.shape
    return Facts(identity, train, test, len(found.classes), channels, (height, width))


def _listed(path: Path, train: Train) -> Listing:
    return folders.listed(path, layouts.reader(train.dataset, path), stored_side(train))


def _folder_facts(found: Listing) -> Facts:
    height, width, channels = found.size
    train, test = len(found.train.names), found.test
    tested = round(test.share * train) if isinstance(test, Drawn) else len(test.names)
    train -= tested if isinstance(test, Drawn) else 0
    return Facts(found.identity, train, tested, len(found.classes), channels, (height, width))


def _refuse_other_set(train: Train, path: Path, facts: Facts) -> None:
    """What goes by a known name has that set's classes and image size; it may hold fewer images."""
    if train.dataset not in KNOWN:
        return
    known = KNOWN[train.dataset]
    known = known if stored_side(train) is None else replace(known, size=facts.size)
    got, expected = (f"{f.classes} classes of {f.size[0]}x{f.size[1]}x{f.channels}" for f in (facts, known))
    if got != expected:
        npz.refuse(path, "", f"not {train.dataset}", got, expected)


@dataclass(frozen=True)
class Parts:
    """The parts of a set as published, each read when it is called for."""

    classes: tuple[str, ...]
    train: Callable[[], Split]
    test: Callable[[], Split]


def _opened(train: Train) -> Parts:
    """The parts of the data set; `split_seed` splits what has no published split."""
    from mixcli.sampling import Random

    path, name = locate(train), train.dataset
    if path is None:
        whole, test = _digits(Random(train.split_seed, "test"))
        return Parts(tuple(str(digit) for digit in range(10)), lambda: whole, lambda: test)
    if path.is_dir() and name in CIFAR:
        layout = cifar.LAYOUTS[name]
        files = (layout.train, layout.test)
        classes, reads = cifar.classes(name, path), [partial(_split, cifar.part, name, path, part) for part in files]
    elif path.is_dir() and name == "svhn":
        classes, reads = svhn.CLASSES, [partial(_split, svhn.part, path, file) for file in (svhn.TRAIN, svhn.TEST)]
    elif path.is_dir():
        found = _listed(path, train)
        classes, reads = found.classes, [partial(_split, folders.part, found, files) for files in _divided(found)]
    else:
        held = npz.contents(path)
        classes, reads = held.classes, [partial(_split, npz.part, path, held, part) for part in (0, 1)]
    return Parts(classes, *reads)


def _divided(found: Listing) -> tuple[Files, Files]:
    """The training and the test files; a drawn split is the same for every run."""
    from mixcli.sampling import Random

    if isinstance(found.test, Files):
        return found.train, found.test
    names, labels = np.array(found.train.names), found.train.labels
    held = shares(np.bincount(labels), round(found.test.share * len(labels)))
    test = rank(labels, Random(found.test.seed, "test")) < held[labels]
    train, tested = (Files(tuple(names[rows].tolist()), labels[rows]) for rows in (~test, test))
    return train, tested


def _split(read: Callable[..., tuple[np.ndarray, np.ndarray]], *of: object) -> Split:
    images, labels = read(*of)
    return Split(images, labels, np.arange(len(labels)))


def _digits(random: Random) -> tuple[Split, Split]:
    """scikit-learn's 8x8 digits; their grey values 0 .. 16 become 0 .. 255."""
    from sklearn.datasets import load_digits

    pixels, labels = (np.asarray(array) for array in load_digits(return_X_y=True))
    images = np.round(pixels * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    every = Split(images, labels.astype(np.int64), np.arange(len(labels)))
    test = rank(every.labels, random) < shares(np.bincount(every.labels), DIGITS.test_images)[every.labels]
    return every.take(~test), every.take(test)


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


def _refuse_unbalanced(split: Split, labels: int, classes: tuple[str, ...]) -> None:
    """Raises UserError where a class had too few images for its share of the labels."""
    sizes = np.bincount(split.labels, minlength=len(classes))
    if len(split) < labels:
        smallest = int(np.argmin(sizes))
        raise UserError("config", "labels", f"class '{classes[smallest]}' has {sizes[smallest]} images", got=labels)


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
