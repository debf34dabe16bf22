"""probing.py: from what was typed after `mixcli probe` to what a probe is given, and from what it finds to files.

Nets are rebuilt from their checkpoints, never compiled, in eval mode, in float32 without autocast and TF32, whose
rounding alone would look like non-linearity; a probe leaves them as they were. Images are chosen by (seed, probe, data
set) and never by the checkpoint, so several checkpoints see the same ones. One checkpoint describes one file; the way
from a probe to a sentence about methods is `mixcli probe NAME --study STUDY` (study.py).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mixcli import options, runs
from mixcli.data import augment, sources
from mixcli.data.sources import Source, Split
from mixcli.errors import UserError
from mixcli.runs import Run
from mixcli.sampling import Random
from mixcli.settings import Settings
from mixcli.studies import subjects
from mixcli.studies.probes import catalogue as probes
from mixcli.studies.probes import features, sites
from mixcli.studies.probes.features import Features
from mixcli.studies.probes.findings import Findings
from mixcli.studies.subjects import Choice, Subject

BATCH = {"cpu": 256, "cuda": 1000}  # images in a pass over plain images
LIMIT = 8 * 2**30  # bytes of features that are held at once
TABLES = (".csv", ".parquet", ".html")
SPLITS = ("train", "val", "test")


class Reporter(Protocol):
    """What a probe tells while it goes on."""

    def note(self, line: str) -> None: ...
    def warn(self, subject: str, problem: str) -> None: ...


class Unsuited(UserError):
    """A run of a method that the probe cannot be made of, whatever is typed."""


@dataclass(frozen=True)
class Asked:
    """What was typed after `mixcli probe NAME`, a study aside."""

    probe: str
    run: str = "latest"
    against: tuple[str, ...] = ()
    options: Settings = field(default_factory=probes.NoOptions)
    split: str = "test"
    images: int | None = None
    stages: str | None = None
    seed: int = 0
    all_epochs: bool = False
    refresh: bool = False
    dry_run: bool = False
    runs: Path = Path("runs")
    data_dir: Path | None = None  # the checkpoint's own unless typed
    device: str = "auto"
    out: Path | None = None


@dataclass(frozen=True)
class Scene:
    """What a probe is given.

    subjects  nets in eval mode, the main one first
    roles     of each: main, or against
    chosen    the images that were asked for, the same for every subject
    sites     the sites asked for, in depth order
    brief     only the headline numbers are wanted, so no references and no curves
    """

    asked: Asked
    subjects: tuple[Subject, ...]
    roles: tuple[str, ...]
    chosen: Split
    sites: tuple[str, ...]
    reporter: Reporter
    brief: bool = False
    loaded: dict[Any, Source] = field(default_factory=dict)

    @property
    def main(self) -> Subject:
        return self.subjects[0]

    @property
    def classes(self) -> list[str]:
        """The names of the classes."""
        return list(self.main.data["classes"])

    def random(self, purpose: str) -> Random:
        """Draws keyed by (seed, probe and data set), so the same for every checkpoint."""
        return _random(self.asked, self.main, purpose)

    def source(self, subject: Subject) -> Source:
        """The data set as the subject's run used it. Raises UserError where it is not that any more."""
        return _source(subject, self.asked, self.loaded)

    def split(self, subject: Subject, name: str) -> Split:
        """A whole split of the subject's run. Raises UserError where it has none."""
        return _split(self.source(subject), name)

    def some(self, subject: Subject, name: str, count: int, purpose: str) -> Split:
        """`count` images of a split, stratified; all where there are no more."""
        split = self.split(subject, name)
        return split if count >= len(split) else split.take(stratified(split.labels, count, self.random(purpose)))

    def facts(self, subject: Subject) -> dict[str, Any]:
        """The columns with which every row of a table begins."""
        role = self.roles[self.subjects.index(subject)]
        return _facts(subject, role) | {"dataset": subject.data["dataset"], "split": self.asked.split,
                                        "images": len(self.chosen)}  # fmt: skip

    def features(self, subject: Subject, split: str | None = None, some: Split | None = None) -> Features:
        """Features of the chosen images, or of a split, whole unless `some` of it are given; cached."""
        name = split or self.asked.split
        whole = self.split(subject, name)
        wanted = some or (self.chosen if split is None else whole)
        root = home(subject) / "features"
        for images in (whole, wanted):
            known = features.identity(subject.digest, self.main.data["dataset"], name, images)
            found = None if self.asked.refresh else features.read(root, known)
            if found is not None:
                return found if images is wanted else found.take(np.searchsorted(found.index, wanted.index))
        found = computed(subject, wanted)
        features.write(root, known, found)
        return found

    def missing(self, subject: Subject, split: str | None = None, some: Split | None = None) -> int:
        """Forward passes of one image that `features` would make: 0 where all are cached."""
        root, name = home(subject) / "features", split or self.asked.split
        whole = self.split(subject, name)
        wanted = some or (self.chosen if split is None else whole)
        keys = [features.key(features.identity(subject.digest, self.main.data["dataset"], name, images))
                for images in (wanted, whole)]  # fmt: skip
        there = not self.asked.refresh and any((root / key / features.MANIFEST).is_file() for key in keys)
        return 0 if there else len(wanted)


# ---------------------------------------------------------------------------------------------------------- the one way


@dataclass(frozen=True)
class Probed:
    """What a command found: findings and the folders of their files, or what it would have done."""

    findings: Findings | None
    folders: tuple[str, ...]
    document: dict[str, Any]


def run(asked: Asked, reporter: Reporter) -> Probed:
    """Probes the checkpoints and writes what is found; with `dry_run` it ends after the cost is told.

    Raises UserError: usage, mismatch, data_*, checkpoint_*, diverged.
    """
    scene = scene_of(asked, reporter)
    module = import_module(probes.named(asked.probe).module)
    told = first_line(scene)
    reporter.note(told)
    with exact(scene.main):
        price = cost(scene, module.passes(scene, asked.options))
        reporter.note(price)
        if asked.dry_run:
            return Probed(None, (), {**about(scene), "told": told, "cost": price, "sites": list(scene.sites)})
        found = look(scene, told)
    folders = write(found, scene)
    return Probed(found, tuple(map(str, folders)), {**found.document(), "folders": [str(f) for f in folders]})


def look(scene: Scene, told: str) -> Findings:
    """What the probe finds; the nets are as they were before."""
    module = import_module(probes.named(scene.asked.probe).module)
    found = module.look(scene, scene.asked.options)
    for subject in scene.subjects:
        assert subjects.digest_of(subject.net, subject.data) == subject.digest, "a probe changed the net"
    named = {name: dict(module.headline(rows)) for name, rows in found.table.groupby("checkpoint", sort=False)
             if name in {subject.label for subject in scene.subjects}}  # fmt: skip
    return replace(found, about={**about(scene), "told": told, **found.about}, headline=named)


def headlines(asked: Asked, checkpoint: Path, reporter: Reporter) -> dict[str, float]:
    """The headline numbers of a checkpoint, by name; leaves nothing but the feature cache.

    asked  which probe and how; the run that it names is of no matter
    Raises UserError like `run`.
    """
    alone = replace(asked, run=str(checkpoint), against=(), all_epochs=False)
    scene = replace(scene_of(alone, reporter), brief=True)
    with exact(scene.main):
        return dict(look(scene, "").headline[scene.main.label])


@contextmanager
def exact(subject: Subject) -> Iterator[None]:
    """The subject's threads and determinism, no gradients, and float32 that is float32."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with subject.machine.session(), torch.no_grad():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


# ------------------------------------------------------------------------------------------------------- what is probed


def scene_of(asked: Asked, reporter: Reporter) -> Scene:
    """Nets and images as they were asked for; nothing is written."""
    if asked.split not in SPLITS:
        raise UserError("usage", "--split", "unknown", asked.split, "train, val or test")
    _check_out(asked.out)
    for text in (asked.run, *asked.against):
        if Path(text).suffix in TABLES:
            problem = "is a table, as of a map, and no net: numbers are taken from a net's features alone"
            raise UserError("usage", text, problem, expected="a checkpoint")
    choices, roles = _choices(asked)
    found = [replace(one, machine=replace(one.machine, bf16=False)) for one in subjects.load(choices, asked.device)]
    named = sites.chosen(found[0].net, asked.stages)
    loaded: dict[Any, Source] = {}
    splits = [_split(_source(subject, asked, loaded), asked.split) for subject in found]
    for subject, split in zip(found[1:], splits[1:], strict=True):
        if split is not splits[0] and sources.digest(split) != sources.digest(splits[0]):
            problem = f"its {asked.split} images are not those of {found[0].label}"
            raise UserError("mismatch", subject.label, problem, hint="Compare runs on the same images only")
    chosen = _chosen(asked, found[0], splits[0])
    return Scene(asked, tuple(found), roles, chosen, named, reporter, loaded=loaded)


def _choices(asked: Asked) -> tuple[list[Choice], tuple[str, ...]]:
    """The checkpoints and their roles; with --all-epochs those that their runs kept, in order of epochs."""
    named = subjects.choose([asked.run, *asked.against], "", asked.runs, "probe")
    if not asked.all_epochs:
        return named, tuple(["main", *["against"] * len(asked.against)])
    found: list[Choice] = []
    roles: list[str] = []
    for place, choice in enumerate(named):
        kept = _epochs(choice.path)
        found += kept
        roles += ["against" if place else "main"] * len(kept)
    return found, tuple(roles)


def _epochs(path: Path) -> list[Choice]:
    """The kept epochs of the run of a checkpoint, and its last one unless it is among them."""
    run = Run(path.parent.parent if path.parent.name == "epochs" else path.parent)
    kept = run.kept()
    if not kept:
        raise UserError("usage", "--all-epochs", f"{run.folder} kept no epochs", hint="Train with --keep every:10")
    found = [Choice(one, "kept epoch") for one in kept.values()]
    last = (run.finished() or {}).get("epochs")
    return found if last in kept else [*found, Choice(runs.checkpoint_in(run.folder), "last epoch")]


def _check_out(out: Path | None) -> None:
    if out is not None and ((out.suffix and not out.is_dir()) or out.is_file()):
        raise UserError("usage", "--out", "suffix" if out.suffix else "is a file", out.name, "the name of a folder")


def _random(asked: Asked, subject: Subject, purpose: str) -> Random:
    return Random(asked.seed, f"probe/{asked.probe}/{subject.data['dataset']}/{purpose}")


def _source(subject: Subject, asked: Asked, loaded: dict[Any, Source]) -> Source:
    """The data of a subject's run, read once for runs that share it."""
    place = str(asked.data_dir or subject.settings.data_dir)
    settings = subject.settings.model_copy(update={"data_dir": place})
    names = ("dataset", "data_dir", "per_class", "split_seed", "val_fraction", "label_noise", "noise_kind", "normalise")
    key = tuple(getattr(settings, name) for name in names)
    if key not in loaded:
        loaded[key] = sources.load(settings)
    source = loaded[key]
    if source.digest != subject.data["digest"]:
        raise UserError("data_corrupt", source.name, f"pixel digest differs from that of {subject.label}",
                        source.digest[:12], str(subject.data["digest"])[:12])  # fmt: skip
    return source


def _split(source: Source, name: str) -> Split:
    found = {"train": source.train, "val": source.val, "test": source.test}[name]
    if found is None:
        raise UserError("usage", "--split", "the run held no validation images out", name, "train or test",
                        hint="Train with --val-fraction 0.1")  # fmt: skip
    return found


def _chosen(asked: Asked, subject: Subject, split: Split) -> Split:
    """The images of `--images`, stratified. Raises UserError: usage out of range, data_missing for an absent class."""
    classes = subject.data["classes"]
    if asked.images is not None:
        if not 1 <= asked.images <= len(split):
            raise UserError("usage", "--images", "out of range", asked.images, f"1 … {len(split)}")
        split = split.take(stratified(split.labels, asked.images, _random(asked, subject, f"images/{asked.split}")))
    counts = np.bincount(split.labels, minlength=len(classes))
    if len(split) < len(classes):
        raise UserError("data_missing", "--images", f"{len(split)} images of {len(classes)} classes", hint="Take more")
    if len(classes) < 2:
        raise UserError("data_missing", str(subject.data["dataset"]), "one class; a probe needs two")
    if (counts == 0).any():
        absent = classes[int(np.argmax(counts == 0))]
        raise UserError("data_missing", f"class {absent}", f"absent in {asked.split} split")
    return split


def stratified(labels: np.ndarray, count: int, random: Random) -> np.ndarray:
    """`count` rows, ascending, each class in proportion (largest remainder); (n,) int64."""
    keep = sources.rank(labels, random) < sources.shares(np.bincount(labels), count)[labels]
    return np.flatnonzero(keep)


def warn_of_twins(scene: Scene) -> None:
    """Says how many images stand, pixel by pixel, among the training images too: neighbours and distances see them."""
    train = scene.split(scene.main, "train")
    count = 0 if scene.asked.split == "train" else len(_pixels(train) & _pixels(scene.chosen))
    if count and not scene.brief:
        groups = f"{count} group{'' if count == 1 else 's'} of equal pixels across train and {scene.asked.split}"
        scene.reporter.warn("split", groups)


def _pixels(split: Split) -> set[bytes]:
    return {hashlib.blake2b(image, digest_size=16).digest() for image in split.images}


# ------------------------------------------------------------------------------------------------------ plain features


def images_of(subject: Subject, split: Split) -> Tensor:
    """Images on the subject's device as its net wants them: (n, C, H, W) float32, unaugmented, normalised."""
    mean, std = (torch.tensor(subject.data[k], dtype=torch.float32).view(-1, 1, 1) for k in ("mean", "std"))
    pixels = torch.from_numpy(split.images).to(subject.machine.device).permute(0, 3, 1, 2)
    return augment.normalised(pixels, mean.to(pixels.device), std.to(pixels.device))


@torch.no_grad()
def computed(subject: Subject, split: Split) -> Features:
    """One pass over plain images: every stage averaged over space or tokens, pooled, logits.

    Raises UserError: diverged naming a site, usage where they would not fit in memory.
    """
    size = BATCH.get(subject.machine.device.type, 256)
    found: dict[str, list[np.ndarray]] = {}
    with sites.taps(subject.net, images_of(subject, split.take(np.arange(1)))) as read:
        for start in range(0, len(split), size):
            part = split.take(np.arange(start, min(start + size, len(split))))
            for site, tap, values in read(images_of(subject, part)):
                if tap == "post" and site not in ("input", "softmax"):
                    sites.must_be_finite(site, values)
                    found.setdefault(site, []).append(sites.reduced(values).flatten(1).float().cpu().numpy())
            if start == 0:
                _check_memory(sum(parts[0].nbytes for parts in found.values()) // len(part) * len(split))
    values = {site: np.concatenate(parts) for site, parts in found.items()}
    return Features(values, split.labels, split.index)


def _check_memory(needed: int) -> None:
    if needed > LIMIT:
        raise UserError("usage", "features", f"need {needed / 2**30:.0f} GiB, limit {LIMIT / 2**30:.0f}",
                        hint="Use --images")  # fmt: skip


# ------------------------------------------------------------------------------------------------------- what is told


def about(scene: Scene) -> dict[str, Any]:
    """What must be known to read the numbers, as plain values."""
    return {
        "probe": scene.asked.probe, "dataset": scene.main.data["dataset"], "split": scene.asked.split,
        "images": len(scene.chosen), "seed": scene.asked.seed, "options": options.flat(scene.asked.options),
        "checkpoints": [_facts(s, role) for s, role in zip(scene.subjects, scene.roles, strict=True)],
    }  # fmt: skip


def _facts(subject: Subject, role: str) -> dict[str, Any]:
    return {"checkpoint": subject.label, "role": role, "method": subject.settings.method.label(),
            "run_seed": subject.settings.seed, "digest": subject.digest, "weights": subject.weights,
            "epoch": subject.epoch, "selected": _selected(subject)}  # fmt: skip


def fresh_facts(number: int) -> dict[str, Any]:
    """What tells the rows of a net that was never trained, the `number`-th from 0, from those of the main one."""
    return {"checkpoint": f"untrained {number + 1}", "role": "untrained", "digest": "", "run_seed": number, "epoch": 0,
            "selected": "never trained", "weights": "fresh"}  # fmt: skip


def _selected(subject: Subject) -> str:
    """How the epoch was chosen."""
    return "last epoch" if subject.epoch >= subject.epochs else f"epoch {subject.epoch} of {subject.epochs}"


def _told(subject: Subject) -> str:
    which = f"last epoch ({subject.epoch})" if subject.epoch >= subject.epochs else _selected(subject)
    return f"{subject.label}: {which}, {subject.weights} weights"


def first_line(scene: Scene) -> str:
    """Which images, and which weights of which checkpoints."""
    images = f"{scene.asked.split} split, {len(scene.chosen):,} images"
    if probes.named(scene.asked.probe).training:
        images = f"training batches, {len(scene.split(scene.main, 'train')):,} images"
    told = " | ".join(_told(subject) for subject in scene.subjects)
    return f"{scene.asked.probe}: {scene.main.data['dataset']}, {images} | {told}"


def cost(scene: Scene, passes: int) -> str:
    """Forward passes, and from one timed batch how long they take."""
    if passes == 0:
        return "no forward passes: the features are cached"
    batch = images_of(scene.main, scene.chosen.take(np.arange(min(128, len(scene.chosen)))))
    scene.main.net(batch[:2])  # once-only costs
    began = time.perf_counter()
    float(scene.main.net(batch).sum())  # waits for a GPU
    seconds = (time.perf_counter() - began) / len(batch) * passes
    return f"{passes:,} forward passes, about {max(1, round(seconds)):,} s"


# ------------------------------------------------------------------------------------------------------------ its files


def home(subject: Subject) -> Path:
    """Where what is found of a checkpoint goes: its run's studies/, or STEM-studies/ beside a loose file."""
    run = subject.run
    if run is None:
        return subject.path.with_name(f"{subject.path.stem}-studies")
    return run.folder / "studies" if subject.path.name == "run.ckpt" else run.folder / "studies" / subject.path.stem


def write(found: Findings, scene: Scene) -> list[Path]:
    """Each checkpoint's own files, and the joint ones of several; returns the folders."""
    asked, name = scene.asked, str(found.about.get("files", scene.asked.probe))
    if len(scene.subjects) == 1:
        return [found.write(asked.out or home(scene.main))]
    if asked.all_epochs:
        last = [s for s, role in zip(scene.subjects, scene.roles, strict=True) if role == "main"][-1]
        run = last.run
        return [found.write(asked.out or (home(last) if run is None else run.folder / "studies"), f"{name}-epochs")]
    folders = [found.of(subject.label).write(home(subject)) for subject in scene.subjects]
    return [found.write(asked.out or home(scene.main), f"{name}-joint"), *folders]
