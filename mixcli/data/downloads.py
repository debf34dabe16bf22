"""downloads.py: where published sets lie on the network, the sums of their files, and which are not fetched.

An address stands here only beside the sum of what it gives. Sources of both: torchvision 0.29's `datasets` for CIFAR,
SVHN, Food-101, Oxford-IIIT Pet, Caltech-256 and EuroSAT, the package medmnist 3.0.2 for MedMNIST.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mixcli.catalogue import MEDMNIST
from mixcli.data import cifar, svhn


@dataclass(frozen=True)
class Download:
    """One published file.

    file          where it is put, below the data directory
    md5           of the file
    urls          where it lies, in the order in which they are asked
    folder        what it unpacks to, beside itself; empty: it is used as it is
    members, gib  it unpacks to, at most; the file itself is no larger
    """

    file: str
    md5: str
    urls: tuple[str, ...]
    folder: str = ""
    members: int = 100
    gib: int = 4


@dataclass(frozen=True)
class Published:
    """A set as it was published.

    downloads  its files on the network
    sums       md5 of the files that it is used from, by their paths below the data directory, where known
    where      for people, where it is not fetched: what to get, and where to put it
    """

    downloads: tuple[Download, ...] = ()
    sums: Mapping[str, str] = field(default_factory=dict)
    where: str = ""


def _cifar(name: str, file: str, md5: str) -> Published:
    layout = cifar.LAYOUTS[name]
    sums = {f"{layout.folder}/{part}": sum_ for part, sum_ in (layout.train | layout.test | layout.names).items()}
    url = f"https://www.cs.toronto.edu/~kriz/{file}"
    return Published((Download(file, md5, (url,), layout.folder, gib=1),), sums)


def _svhn() -> Published:
    files = {f"{svhn.FOLDER}/{file}": (file, md5) for file, md5 in svhn.SUMS.items()}
    return Published(tuple(Download(place, md5, (f"http://ufldl.stanford.edu/housenumbers/{file}",), gib=1)
                           for place, (file, md5) in files.items()),
                     {place: md5 for place, (_, md5) in files.items()})  # fmt: skip


def _pet() -> Published:
    folder, address = "oxford-iiit-pet", "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
    sums = {"images": "5c4f3ee8e5d25df40f4fd59a7f44e54c", "annotations": "95a8c909bbe2e81eed6a22bccdf3f68f"}
    return Published(tuple(
        Download(f"{folder}/{part}.tar.gz", md5, (f"{address}/{part}.tar.gz",), part, members=50_000, gib=2)
        for part, md5 in sums.items()
    ))  # fmt: skip


def _medmnist(name: str, md5: str) -> Published:
    url = f"https://zenodo.org/records/10519652/files/{name}.npz?download=1"
    return Published((Download(f"{name}.npz", md5, (url,), gib=1),), {f"{name}.npz": md5})


_MEDMNIST_SUMS = {
    "pathmnist": "a8b06965200029087d5bd730944a56c1",
    "dermamnist": "0744692d530f8e62ec473284d019b0c7",
    "octmnist": "c68d92d5b585d8d81f7112f81e2d0842",
    "pneumoniamnist": "28209eda62fecd6e6a2d98b1501bb15f",
    "retinamnist": "bd4c0672f1bba3e3a89f0e4e876791e4",
    "breastmnist": "750601b1f35ba3300ea97c75c52ff8f6",
    "bloodmnist": "7053d0359d879ad8a5505303e11de1dc",
    "tissuemnist": "ebe78ee8b05294063de985d821c1c34b",
    "organamnist": "68e3f8846a6bd62f0c9bf841c0d9eacc",
    "organcmnist": "b9ceb9546e10131b32923c5bbeaea2b1",
    "organsmnist": "9ab87b696fb54e2a387ebe992d6ed5f1",
}

PUBLISHED = {
    "cifar10": _cifar("cifar10", "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
    "cifar100": _cifar("cifar100", "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
    "svhn": _svhn(),
    "tiny-imagenet": Published(
        where="http://cs231n.stanford.edu/tiny-imagenet-200.zip, unpacked as tiny-imagenet-200/"
    ),
    "mini-imagenet": Published(
        where="the images of ImageNet on the lists of S. Ravi and H. Larochelle (twitter-research/meta-learning-lstm), "
        "each of the 100 classes in mini-imagenet/CLASS/"
    ),
    "food-101": Published((
        Download("food-101.tar.gz", "85eeb15f3717b99a5da872d97d918f87",
                 ("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",), "food-101", members=110_000, gib=8),
    )),
    "oxford-iiit-pet": _pet(),
    "caltech-256": Published((
        Download("256_ObjectCategories.tar", "67b4f42ca05d46448c6bb8ecd2220f6d",
                 ("https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar",),
                 "256_ObjectCategories", members=40_000),
    )),
    "eurosat": Published((
        Download("eurosat/EuroSAT.zip", "c8fa014336c82ac7804f0398fcb19387",
                 ("https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
                  "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",), "2750", members=30_000, gib=1),
    )),
    **{name: _medmnist(name, _MEDMNIST_SUMS[name]) for name in MEDMNIST},
}  # fmt: skip
