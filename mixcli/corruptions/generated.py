"""generated.py: corrupted sets of our own making: a clean test set in memory, one cell at a time, and kept if wanted.

Each image has its own key, its row in the full test set, so a cell has the same bytes for any batch and any choice of
images. What is saved has the layout of the published sets, and a provenance.json that says it is not one of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixcli import pictures
from mixcli.corruptions import digital, weather
from mixcli.corruptions.catalogue import CORRUPTIONS, SEVERITIES, SUBSTITUTES, corrupt, draws, profile
from mixcli.corruptions.keyed import Keys
from mixcli.corruptions.official import PROVENANCE
from mixcli.corruptions.parameters import NAMES, PARAMETERS
from mixcli.corruptions.pixels import Corruption, Size
from mixcli.errors import UserError
from mixcli.files import as_json, make_folder, remove_temporaries, temporary, told, write_atomic

BATCH = {"cpu": 128, "cuda": 1000}  # images corrupted at once; on a CPU as many as its caches hold
STORED = 85  # quality of the published image files
FROST = tuple(f"frost{number}" for number in range(1, 6))  # the sixth published picture is never used
KINDS = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Offer:
    """What can be generated for images of one size.

    names           in the order of the catalogue, substitutes in the place of what they stand for
    not_available   applicable, and neither built nor substituted
    not_applicable  left out at this size or number of channels
    column          of the parameters
    published       whether that column was published for exactly this size
    """

    names: tuple[str, ...]
    not_available: tuple[str, ...]
    not_applicable: tuple[str, ...]
    column: str
    published: bool


def offer(size: Size, frost: bool = False) -> Offer:
    """The corruptions for (height, width, channels). Raises UserError where the images are too small.

    frost  whether the published textures are at hand
    """
    found = profile(size)
    names, absent = [], []
    for name in found.names:
        built = next((n for n in (name, SUBSTITUTES.get(name)) if n in CORRUPTIONS or (n == "frost" and frost)), None)
        (absent if built is None else names).append(built or name)
    others = tuple(name for name in NAMES if name not in found.names)
    return Offer(tuple(names), tuple(absent), others, found.column, found.published)


@dataclass(frozen=True)
class Generated:
    """Corrupts one clean set.

    images  (n, H, W, C) uint8, on the device where cells are made
    index   (n,) int64 on the same device: the row of each in the full test set
    seed    of the generator
    frost   with the textures of `textures`; None: no cell is asked for by that name
    stored  as JPEG files of quality 85, as Tiny-ImageNet-C and ImageNet-C are
    """

    images: Tensor
    index: Tensor
    seed: int
    frost: Corruption | None = None
    stored: bool = False

    def cell(self, name: str, severity: int) -> Tensor:
        """The images under one corruption, (n, H, W, C) uint8."""
        size = BATCH.get(self.images.device.type, 128)
        parts = zip(self.images.split(size), self.index.split(size), strict=True)
        made = torch.cat([self._part(name, severity, images, Keys(self.seed, index)) for images, index in parts])
        return digital.jpeg(made, STORED, {}) if self.stored else made

    def _part(self, name: str, severity: int, images: Tensor, keys: Keys) -> Tensor:
        height, width, channels = images.shape[1:]
        size = (height, width, channels)
        if name != "frost" or self.frost is None:
            return corrupt(name, images, severity, draws(name, severity, size, keys))
        chosen = PARAMETERS[name][profile(size).column][severity - 1]
        return self.frost.apply(images, chosen, self.frost.draw(chosen, size, keys.stream(name, severity)))


def textures(folder: Path) -> tuple[Corruption, list[str]]:
    """Frost with the user's copies of its five published pictures, and the sha256 of each file.

    Raises UserError: data_missing, data_corrupt.
    """
    found, digests = [], []
    for stem in FROST:
        path = next((p for kind in KINDS if (p := folder / f"{stem}{kind}").is_file()), None)
        if path is None:
            problem = f"{stem} missing; {FROST[0]}..{FROST[-1]} expected"
            raise UserError("data_missing", "--frost-dir", problem, hint="png or jpg")
        found.append(torch.from_numpy(pictures.decoded(path, f"--frost-dir: {path.name}").copy()))
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    return weather.frost(lambda: found), digests


def digest(pixels: np.ndarray) -> str:
    """sha256 of an array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


class Saving:
    """Writes generated cells as NAME.npy, labels.npy and provenance.json; a file is there once all of it is.

    folder  empty, not there yet, or begun by the same command
    origin  what the set is made of; must agree with the provenance.json that is there
    Raises UserError: usage where the folder is not ours, disk_full.
    """

    def __init__(self, folder: Path, origin: Mapping[str, Any], labels: np.ndarray, size: Size):
        self.folder, self.origin, self.size, self.labels = folder, dict(origin), size, labels
        self.files: dict[str, list[str]] = _begun(folder, self.origin)

    def __contains__(self, name: object) -> bool:
        return name in self.files

    def begin(self) -> None:
        """Makes the folder, the labels and a provenance that names no corruption yet."""
        make_folder(self.folder)
        remove_temporaries(self.folder)
        with self._written("labels.npy", self.labels.dtype, (5 * len(self.labels),)) as append:
            for _ in SEVERITIES:
                append(self.labels)
        self._record()

    @contextmanager
    def file(self, name: str) -> Iterator[Callable[[np.ndarray], None]]:
        """A function that takes the five cells of a corruption, severity 1 first; then the file is complete."""
        digests: list[str] = []
        with self._written(f"{name}.npy", np.dtype(np.uint8), (5 * len(self.labels), *self.size)) as append:

            def add(cell: np.ndarray) -> None:
                append(cell)
                digests.append(digest(cell))

            yield add
        self.files[name] = digests
        self._record()

    @contextmanager
    def _written(self, file: str, dtype: np.dtype, shape: tuple[int, ...]) -> Iterator[Callable[[np.ndarray], None]]:
        path = self.folder / file
        spare = temporary(path)
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        with told(path):
            try:
                with spare.open("xb") as stream:
                    np.lib.format.write_array_header_1_0(stream, header)
                    yield lambda cell: _write_all(stream, cell)
                spare.replace(path)
            except BaseException:
                spare.unlink(missing_ok=True)
                raise

    def _record(self) -> None:
        content = {**self.origin, "files": {name: self.files[name] for name in sorted(self.files)}}
        write_atomic(self.folder / PROVENANCE, as_json(content, indent=1))


def _write_all(stream: Any, cell: np.ndarray) -> None:
    stream.write(np.ascontiguousarray(cell).data)


def _begun(folder: Path, origin: dict[str, Any]) -> dict[str, list[str]]:
    """The corruptions that an earlier call of the same command completed."""
    if not folder.exists():
        return {}
    if not folder.is_dir():
        raise UserError("usage", "--save", f"{folder} is not a folder")
    try:
        content = json.loads((folder / PROVENANCE).read_bytes())
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        if any(folder.iterdir()):
            raise UserError("usage", "--save", f"{folder} is not empty", hint="Name a new folder")
        return {}
    there = {key: value for key, value in content.items() if key != "files"}
    if there != origin:
        other = next(key for key in (*origin, *there) if there.get(key) != origin.get(key))
        raise UserError("usage", "--save", f"{folder} holds another set ({other})", there.get(other),
                        str(origin.get(other)))  # fmt: skip
    return {name: cells for name, cells in content["files"].items() if (folder / f"{name}.npy").is_file()}
