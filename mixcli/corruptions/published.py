"""published.py: the corrupted sets that others published: where they lie, what they hold, and the sums of their files.

CIFAR-10-C, CIFAR-100-C, Tiny-ImageNet-C and ImageNet-C: D. Hendrycks, T. Dietterich, "Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations", 2019, arXiv 1903.12261, on Zenodo. The md5 of the unpacked files
are those that the package torch-uncertainty checks (its `cifar_c.py`); those of the archives are Zenodo's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mixcli.corruptions.parameters import STANDARD


@dataclass(frozen=True)
class Published:
    """One set.

    folder    its unpacked folder under the data directory
    record    number on Zenodo
    archive   the file there, and its md5 where known; None: several, which are unpacked into the folder by hand
    layout    "arrays": NAME.npy and labels.npy; "folders": corruption/severity/class/image
    images    in one cell; None: as many as there are
    classes   how many
    side      of an image, px
    members   in the archive at most, files and folders
    gib       unpacked at most
    sums      md5 of each unpacked file
    """

    folder: str
    record: int
    archive: str | None
    md5: str | None
    layout: str
    images: int | None
    classes: int
    side: int
    members: int = 100
    gib: int = 4
    sums: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """For a hint: record, file, sum."""
        facts = [f"Zenodo {self.record}", self.archive, f"md5 {self.md5}" if self.md5 else None]
        return ", ".join(fact for fact in facts if fact)

    def tar(self, folder: Path) -> Path | None:
        """The archive beside the set's folder, if it lies there."""
        path = None if self.archive is None else folder.with_name(self.archive)
        return path if path is not None and path.is_file() else None


_CIFAR10_SUMS = {
    "gaussian_noise.npy": "ecaf8b9a2399ffeda7680934c33405fd",
    "shot_noise.npy": "3a7239bb118894f013d9bf1984be7f11",
    "impulse_noise.npy": "2090e01c83519ec51427e65116af6b1a",
    "defocus_blur.npy": "7d1322666342a0702b1957e92f6254bc",
    "glass_blur.npy": "7361fb4019269e02dbf6925f083e8629",
    "motion_blur.npy": "fffa5f852ff7ad299cfe8a7643f090f4",
    "zoom_blur.npy": "6ea8e63f1c5cdee1517533840641641b",
    "snow.npy": "bb238de8555123da9c282dea23bd6e55",
    "frost.npy": "31f6ab3bce1d9934abfb0cc13656f141",
    "fog.npy": "7b397314b5670f825465fbcd1f6e9ccd",
    "brightness.npy": "0a81ef75e0b523c3383219c330a85d48",
    "contrast.npy": "3c8262171c51307f916c30a3308235a8",
    "elastic_transform.npy": "9421657c6cd452429cf6ce96cc412b5f",
    "pixelate.npy": "0f14f7e2db14288304e1de10df16832f",
    "jpeg_compression.npy": "2b9cc4c864e0193bb64db8d7728f8187",
    "speckle_noise.npy": "ef00b87611792b00df09c0b0237a1e30",
    "gaussian_blur.npy": "c33370155bc9b055fb4a89113d3c559d",
    "spatter.npy": "8a5a3903a7f8f65b59501a6093b4311e",
    "saturate.npy": "1cfae0964219c5102abbb883e538cc56",
    "labels.npy": "c439b113295ed5254878798ffe28fd54",
}
_CIFAR100_SUMS = {
    "gaussian_noise.npy": "ecc4d366eac432bdf25c024086f5e97d",
    "shot_noise.npy": "b0a1fa6e1e465a747c1b204b1914048a",
    "impulse_noise.npy": "3b3c210ddfa0b5cb918ff4537a429fef",
    "defocus_blur.npy": "d923e3d9c585a27f0956e2f2ad832564",
    "glass_blur.npy": "0bf384f38e5ccbf8dd479d9059b913e1",
    "motion_blur.npy": "732a7e2e54152ff97c742d4c388c5516",
    "zoom_blur.npy": "0204613400c034a81c4830d5df81cb82",
    "snow.npy": "0237be164583af146b7b144e73b43465",
    "frost.npy": "3a39c6823bdfaa0bf8b12fe7004b8117",
    "fog.npy": "4efc7ebd5e82b028bdbe13048e3ea564",
    "brightness.npy": "f22d7195aecd6abb541e27fca230c171",
    "contrast.npy": "322bb385f1d05154ee197ca16535f71e",
    "elastic_transform.npy": "a0792bd6581f6810878be71acedfc65a",
    "pixelate.npy": "96c00c60f144539e14cffb02ddbd0640",
    "jpeg_compression.npy": "c851b7f1324e1d2ffddeb76920576d11",
    "speckle_noise.npy": "e3f215b1a0f9fd9fd6f0d1cf94a7ce99",
    "gaussian_blur.npy": "5204ba0d557839772ef5a4196a052c3e",
    "spatter.npy": "12ccf41d62564d36e1f6a6ada5022728",
    "saturate.npy": "c0697e9fdd646916a61e9c312c77bf6b",
    "labels.npy": "bb4026e9ce52996b95f439544568cdb2",
}

PUBLISHED = {
    "cifar10": Published("CIFAR-10-C", 2535967, "CIFAR-10-C.tar", "56bf5dcef84df0e2308c6dcbcbbd8499", "arrays",
                         10_000, 10, 32, sums=_CIFAR10_SUMS),
    "cifar100": Published("CIFAR-100-C", 3555552, "CIFAR-100-C.tar", "11f0ed0f1191edbf9fa23466ae6021d3", "arrays",
                          10_000, 100, 32, sums=_CIFAR100_SUMS),
    "tiny-imagenet": Published("Tiny-ImageNet-C", 2536630, "Tiny-ImageNet-C.tar", None, "folders", None, 200, 64,
                               members=2_000_000, gib=16),
    "imagenet": Published("ImageNet-C", 2235448, None, None, "folders", None, 1000, 224),
}  # fmt: skip

ALEXNET = dict(zip(STANDARD, (
    0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572, 0.819324, 0.564592,
    0.853204, 0.646056, 0.717840, 0.606500,
), strict=True))  # fmt: skip
"""AlexNet's error on each corruption of ImageNet-C, mean of 5 severities: what published mCE are divided by."""
ALEXNET_SOURCE = "the constants in the code of AugMix (google-research/augmix); which AlexNet gave them is not known"
