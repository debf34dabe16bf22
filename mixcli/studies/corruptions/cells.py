"""cells.py: where the cells of a corruption benchmark come from: official files, a saved set, or generated.

Official files are taken where they lie under the data directory and pass their checks; else the clean test set is
corrupted in memory, and every table says `generated`. Nothing is ever downloaded here. All checkpoints see a cell
before the next one is read or made, and reading goes on in a thread meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mixcli import archive
from mixcli.corruptions import official, sums
from mixcli.corruptions.catalogue import SEVERITIES, SUBSTITUTES
from mixcli.corruptions.generated import Generated, Offer, digest, offer, textures
from mixcli.corruptions.keyed import GENERATOR_VERSION
from mixcli.corruptions.official import ArraySet, Clean, FolderSet
from mixcli.corruptions.parameters import EXTRA, FAMILIES, NAMES, STANDARD
from mixcli.corruptions.published import PUBLISHED, Published
from mixcli.data import sources
from mixcli.errors import UserError, nearest
from mixcli.sampling import Random
from mixcli.studies.corruptions.means import Cell, Panel
from mixcli.studies.subjects import Subject, squashed


class Reporter(Protocol):
    """What the benchmark tells while it goes on."""

    def note(self, line: str) -> None: ...
    def warn(self, subject: str, problem: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where corrupted images come from, and how many of them are looked at; None: all, or whichever is there."""

    per_cell: int | None = None
    seed: int | None = None
    generate: bool = False
    official: bool = False
    verify: bool = False
    allow_unofficial: bool = False
    save: Path | None = None
    frost_dir: Path | None = None
    jpeg85: bool = False


@dataclass(frozen=True)
class Wanted(Origin):
    """Which cells of which folder; None: all."""

    data_dir: Path
    corruptions: tuple[str, ...] | None = None
    severities: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Cells:
    """The cells of one benchmark.

    kind      "official", "generated" or "unofficial folder"
    label     the same with version and seed: stands in every table and file
    told      for the first line
    labels    (n,) int64 of the images evaluated
    index     (n,) int64, their rows in the full test set
    clean     (n, H, W, C) uint8 on the device; None where the clean set is not there
    paired    whether image i of every cell is clean image i; else the clean images have labels of their own
    identity  what the images of every cell depend on
    made      makes a cell; None for files
    files     the folder; None where cells are made
    """

    kind: str
    label: str
    told: str
    panel: Panel
    labels: np.ndarray
    index: np.ndarray
    clean: Tensor | None
    device: torch.device
    identity: dict[str, Any]
    notes: tuple[str, ...] = ()
    made: Generated | None = None
    files: ArraySet | FolderSet | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    clean_labels: np.ndarray | None = None
    paired: bool = True

    def stream(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Tensor]]:
        """Each cell with its images, (n, H, W, C) uint8 on the device; valid until the next one is asked for."""
        if self.made is not None:
            yield from ((cell, self.made.cell(*cell)) for cell in cells)
        elif cells:
            yield from self._read(cells)

    def _read(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Tensor]]:
        """Into two buffers in turn, the next cell while this one is evaluated."""
        files, whole = self.files, len(self.index)
        assert files is not None
        rows = None if whole == len(files.labels) else self.index
        pinned = self.device.type == "cuda"
        buffers = [torch.empty((whole, *files.size), dtype=torch.uint8, pin_memory=pinned) for _ in range(2)]

        def fill(k: int) -> Tensor:
            files.into(buffers[k % 2].numpy(), *cells[k], rows)
            return buffers[k % 2]

        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(fill, 0)
            for k, cell in enumerate(cells):
                slab = ahead.result()
                if k + 1 < len(cells):
                    ahead = reader.submit(fill, k + 1)
                yield cell, slab.to(self.device, non_blocking=True)


# ------------------------------------------------------------------------------------------------------------- opening


def open_cells(subject: Subject, dataset: str, wanted: Wanted, reporter: Reporter) -> Cells:
    """The cells for nets trained like `subject`; everything is checked that needs no net.

    dataset  squashed name of the clean set
    Raises UserError: usage, data_missing, data_corrupt.
    """
    known = {squashed(name): name for name in PUBLISHED}.get(dataset, subject.settings.dataset)
    folder = None if wanted.generate else official.locate(wanted.data_dir, known)
    if folder is not None and wanted.official and (folder / official.PROVENANCE).exists():
        folder = None
    if folder is None and wanted.official:
        raise official.absent(wanted.data_dir, known)
    for option, typed in _of_generating(wanted).items():
        if typed and folder is not None:
            raise UserError("usage", option, "nothing is generated", hint="Add --generate")
    clean = _clean(subject, wanted, needed=folder is None)
    if folder is None:
        assert clean is not None
        return _generated(subject, clean, wanted)
    published = PUBLISHED.get(known)
    if published is not None and not folder.is_dir():
        folder = _unpacked(folder, published, wanted, reporter)
    return _on_disk(folder, subject, clean, published, wanted, reporter)


def _of_generating(wanted: Wanted) -> dict[str, bool]:
    """The options that only make sense where cells are made, and whether they were typed."""
    return {"--save": wanted.save is not None, "--frost-dir": wanted.frost_dir is not None, "--jpeg85": wanted.jpeg85}


def _unpacked(tar: Path, known: Published, wanted: Wanted, reporter: Reporter) -> Path:
    """The folder made of a published tar; with --verify its sum is looked at first."""
    if wanted.verify and known.md5 is not None and not wanted.allow_unofficial:
        [found] = sums.md5([tar], official.memory(tar.with_name(known.folder)))
        if found != known.md5:
            raise _differs(tar.name)
    reporter.note(f"{tar}: unpacked once, beside itself")
    return archive.unpacked(tar, known)


def check_combination(wanted: Wanted) -> None:
    """Raises UserError for options that contradict each other."""
    given = {"--generate": wanted.generate, **_of_generating(wanted)}
    for option in (option for option, typed in given.items() if typed and wanted.official):
        raise UserError("usage", option, "contradicts --official, which takes the official files or none")
    if wanted.save is not None and (wanted.per_cell is not None or wanted.severities is not None):
        option = "--per-cell" if wanted.per_cell is not None else "--severity"
        raise UserError("usage", "--save", f"saves all images at all severities, so it does not go with {option}")


def _clean(subject: Subject, wanted: Wanted, needed: bool) -> sources.Split | None:
    """The test images of the checkpoint's data set; None where they are not there and not needed."""
    whole = {"data_dir": str(wanted.data_dir), "per_class": None, "val_fraction": 0.0, "label_noise": 0.0}
    train = subject.settings.model_copy(update=whole)
    try:
        facts, classes, test = sources.load_test(train)
    except UserError as error:
        if needed or error.kind != "data_missing":
            raise
        return None
    for what, got, expected in (
        ("classes", len(subject.data["classes"]), facts.classes),
        ("channels", subject.data["channels"], facts.channels),
        ("size", tuple(subject.data["size"]), facts.size),
        ("class names", list(subject.data["classes"]), list(classes)),
    ):
        if got != expected:
            raise UserError("mismatch", subject.label, what, got, str(expected))
    return test


# ----------------------------------------------------------------------------------------------------------- generated


def _generated(subject: Subject, test: sources.Split, wanted: Wanted) -> Cells:
    device, seed = subject.machine.device, wanted.seed or 0
    height, width, channels = test.images.shape[1:]
    frost, pictures = (None, None) if wanted.frost_dir is None else textures(wanted.frost_dir)
    offered = offer((height, width, channels), frost is not None)
    names = _chosen(wanted.corruptions, offered, (height, width, channels))
    index = chosen_images(test.labels, wanted.per_cell, seed)
    images = torch.from_numpy(np.ascontiguousarray(test.images[index])).to(device)
    panel = Panel(names, wanted.severities or SEVERITIES, offered.names, offered.column, channels,
                  offered.not_available, offered.not_applicable)  # fmt: skip
    origin = {
        "format": 1, "generator": GENERATOR_VERSION, "seed": seed, "dataset": subject.data["dataset"],
        "column": offered.column, "reference_parameters": offered.published, "device": device.type,
        "frost_sha256": pictures, "images_sha256": digest(test.images), "labels_sha256": digest(test.labels),
        **({"jpeg85": True} if wanted.jpeg85 else {}),
    }  # fmt: skip
    label = _label(origin)
    made = Generated(images, torch.from_numpy(index).to(device), seed, frost, wanted.jpeg85)
    notes = (*_frost_notes(names), *_column_notes(offered, subject.data["dataset"]), *_stored_notes(origin))
    return Cells("generated", label, f"{label}, {_count(panel)}", panel, test.labels[index], index, images, device,
                 origin, notes, made=made, origin=origin)  # fmt: skip


def _label(origin: dict[str, Any]) -> str:
    """How a set that mixcli made is called wherever its numbers stand."""
    stored = ", stored as JPEG 85" if origin.get("jpeg85") else ""
    return f"generated (not the official files), generator v{origin['generator']}, seed {origin.get('seed')}{stored}"


def _chosen(typed: tuple[str, ...] | None, offered: Offer, size: tuple[int, int, int]) -> tuple[str, ...]:
    """The corruptions that were typed, in the order of the catalogue; all where none was."""
    if typed is None:
        return offered.names
    for name in typed:
        if name in offered.names:
            continue
        hint = f"Available: {', '.join(offered.names)}"
        if name in offered.not_available:
            raise UserError("usage", "--corruption", f"{name} not available", hint=hint)
        if SUBSTITUTES.get(name) in offered.names:
            hint = f"Give --frost-dir, or take {SUBSTITUTES[name]}, which stands in its place"
            raise UserError("usage", "--corruption", f"{name} needs its published textures", hint=hint)
        where = f"{size[0]}x{size[1]}" + (" with 1 channel" if size[2] == 1 else "")
        raise UserError("usage", "--corruption", f"{name} not applicable at {where}", hint=hint)
    return tuple(name for name in offered.names if name in typed)


def chosen_images(labels: np.ndarray, count: int | None, seed: int) -> np.ndarray:
    """Rows (count,) int64, ascending, of a choice with the classes in proportion; more images include fewer.

    Every image gets its place in a random order of its class, as a share; those with the least shares are taken.
    """
    n = len(labels)
    if count is None or count == n:
        return np.arange(n)
    if not 1 <= count <= n:
        raise UserError("usage", "--per-cell", "not a number of images", count, f"1..{n}")
    shuffled = Random(seed, "per-cell").host.permutation(n)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.bincount(labels)
    place = np.empty(n)
    place[by_class] = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    share = (place + 0.5) / sizes[labels]
    rank = np.empty(n)
    rank[shuffled] = np.arange(n)
    return np.sort(np.lexsort((rank, share))[:count])


def _frost_notes(names: Sequence[str]) -> tuple[str, ...]:
    if SUBSTITUTES["frost"] not in names:
        return ()
    return ("frost is substituted: neither mean belongs beside a published mean over 15",)


def _column_notes(offered: Offer, dataset: str) -> tuple[str, ...]:
    name = squashed(dataset)
    if name == "digits":
        return ("digits-c: demonstration, comparable with no published table",)
    if name == "mnist":
        return ("mnist-c: not the published MNIST-C, which is another set of corruptions",)
    kind = "reference parameters" if offered.published else "a size without published parameters"
    return (f"parameters: column {offered.column} ({kind})",)


def _stored_notes(origin: dict[str, Any]) -> tuple[str, ...]:
    """The published sets of these two columns are JPEG files, which costs a net something more."""
    if origin.get("jpeg85"):
        return ("every corrupted image went through a JPEG file of quality 85, as the published image files did",)
    if origin["column"] in ("64", "224"):
        return ("without the JPEG 85 that the published sets with these parameters went through; --jpeg85 adds it",)
    return ()


# ------------------------------------------------------------------------------------------------------- files on disk


def _on_disk(
    folder: Path, subject: Subject, clean: sources.Split | None, known: Published | None, wanted: Wanted,
    reporter: Reporter,
) -> Cells:  # fmt: skip
    found, notes = _opened(folder, subject, clean, known, wanted, reporter)
    kind, sums = _vouched(found, known, wanted)
    index = chosen_images(found.labels, wanted.per_cell, wanted.seed or 0)
    device, origin = subject.machine.device, found.origin
    images, clean_labels = None, None
    if clean is not None:
        rows = index if found.paired else chosen_images(clean.labels, wanted.per_cell, wanted.seed or 0)
        images = torch.from_numpy(np.ascontiguousarray(clean.images[rows])).to(device)
        clean_labels = clean.labels[rows]
    whole = found.names if origin is not None else NAMES if set(found.names) & set(EXTRA) else STANDARD
    offered = NAMES if wanted.corruptions is not None and origin is None else tuple(whole)
    panel = Panel(found.names, wanted.severities or SEVERITIES, offered, offer(found.size).column, found.size[2])
    label = kind if origin is None else _label(origin)
    lying = f"5 x {len(found.labels)} rows, sorted by severity" if isinstance(found, ArraySet) else "image files"
    told = f"{'official files' if label == 'official' else label}, {_count(panel)}, {lying}, {sums}"
    identity = {"kind": kind, "folder": folder.name, "md5": sums, "labels_sha256": digest(found.labels)}
    return Cells(kind, label, told, panel, found.labels[index], index, images, device, identity | (origin or {}),
                 tuple(notes), files=found, clean_labels=clean_labels, paired=found.paired)  # fmt: skip


def _opened(
    folder: Path, subject: Subject, clean: sources.Split | None, known: Published | None, wanted: Wanted,
    reporter: Reporter,
) -> tuple[ArraySet | FolderSet, list[str]]:  # fmt: skip
    """The folder, checked, and what must be said of it."""
    height, width = subject.data["size"]
    size, classes = (height, width, subject.data["channels"]), subject.data["classes"]
    only = wanted.corruptions
    ours = (folder / official.PROVENANCE).is_file()  # what mixcli saves are arrays, whatever the published layout
    if known is not None and known.layout == "folders" and not ours:
        found, surplus = official.open_folders(folder, classes, size, only, wanted.severities or ())
        for name, count in surplus.items():
            problem = f"{count} class folder{'s' * (count > 1)} that the clean set does not have, ignored"
            reporter.warn(f"{folder.name}/{name}", problem)
        return found, _folder_notes(folder, known)
    expected = official.Expected(len(classes), size, known.images if known else None)
    held = None if clean is None else Clean(clean.images, clean.labels)
    found = official.open_arrays(folder, expected, held, only)
    notes = []
    if clean is None:
        notes.append("the clean test set is not there: no clean accuracy, nothing relative to it")
    elif not found.paired:
        problem = "clean test set in another order; nothing is paired with clean images"
        reporter.warn(f"{folder.name}/labels.npy", problem)
    return found, notes


def _folder_notes(folder: Path, known: Published) -> list[str]:
    crops = "in the published files the crops differ between corruptions"
    if known is not PUBLISHED["tiny-imagenet"]:
        return [crops]
    return [
        f"{folder.name}: its images are not the validation images; no corrupted image is paired with a clean one",
        "clean accuracy, and all that is relative to it, is that of other images",
        crops,
    ]


def _vouched(found: ArraySet | FolderSet, known: Published | None, wanted: Wanted) -> tuple[str, str]:
    """What kind of source it is, and the state of its sums. Raises UserError where a sum differs."""
    if found.origin is not None:
        return "generated", "no published sums"
    if known is None or not wanted.verify:
        return "official", "md5 not checked"
    differing = official.differing(found, known)
    if differing is None:
        return "official", "md5 not checked (none is known)"
    if not differing:
        return "official", "md5 ok"
    if wanted.allow_unofficial:
        return "unofficial folder", f"md5 of {len(differing)} file{'s' * (len(differing) > 1)} differ"
    raise _differs(differing[0] if differing[0] == known.archive else f"{found.folder.name}/{differing[0]}")


def _differs(file: str) -> UserError:
    return UserError("data_corrupt", file, "md5 differs from the recorded one",
                     hint="--allow-unofficial to go on, relabelled")  # fmt: skip


def _count(panel: Panel) -> str:
    return f"{len(panel.names)} of {len(panel.offered) if panel.column == 'tiny' else len(NAMES)}"


# ------------------------------------------------------------------------------------------------------------- options


def corruptions(text: str | None) -> tuple[str, ...] | None:
    """A list of corruptions as typed. Raises UserError for an unknown name or one given twice."""
    if text is None:
        return None
    names, known = tuple(word.strip() for word in text.split(",")), (*NAMES, *SUBSTITUTES.values())
    for name in names:
        if name not in known:
            raise UserError("usage", "--corruption", f"unknown '{name}'", hint=nearest(name, known))
        if names.count(name) > 1:
            raise UserError("usage", "--corruption", f"{name} given twice")
    return names


def severities(text: str | None) -> tuple[int, ...] | None:
    """A list of severities as typed, ascending."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in map(str, SEVERITIES):
            raise UserError("usage", "--severity", "not a severity", word or "''", "integer 1..5")
        if words.count(word) > 1:
            raise UserError("usage", "--severity", f"{word} given twice")
    return tuple(sorted(map(int, words)))


def known_classes(dataset: str) -> int | None:
    """How many classes a data set of that squashed name has, where that is known without its file."""
    known = {squashed(name): published.classes for name, published in PUBLISHED.items()}
    return {"digits": sources.DIGITS.classes, **known}.get(dataset)


def stands_for(name: str) -> str:
    """The corruption whose place a substitute takes; empty for any other."""
    return next((original for original, substitute in SUBSTITUTES.items() if substitute == name), "")


def family(name: str) -> str:
    """noise, blur, weather or digital; a substitute's is that of what it stands for."""
    original = stands_for(name) or name
    return next(family for family, members in FAMILIES.items() if original in members)


def identity_of(cells: Cells) -> dict[str, Any]:
    """All that the images of the cells depend on, as plain values."""
    return {
        **cells.identity, "source": cells.label, "corruptions": list(cells.panel.names),
        "severities": list(cells.panel.severities), "images": len(cells.index),
        "index_sha256": hashlib.sha256(cells.index.astype("<i8").tobytes()).hexdigest(),
    }  # fmt: skip
