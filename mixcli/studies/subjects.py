"""subjects.py: the trained nets that a study looks at: which checkpoint, with which weights, made for which data.

Where none is named, the newest finished run trained on exactly that data set is taken, and said to be. The weights are
the last epoch's run.ckpt, averaged where the run has averages; best.ckpt and epochs/ are read only when typed, for an
epoch chosen on test or corrupted images would be chosen by looking at the answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mixcli import runs
from mixcli.catalogue import DATASETS
from mixcli.corruptions.published import PUBLISHED
from mixcli.engine import checkpoint, inference
from mixcli.engine.device import Machine
from mixcli.errors import UserError, nearest
from mixcli.nets.staged import StagedNet
from mixcli.recipe import Train
from mixcli.runs import Run


@dataclass(frozen=True)
class Choice:
    """A checkpoint and why it is looked at."""

    path: Path
    rule: str


@dataclass(frozen=True)
class Subject:
    """A net ready for use, in eval mode on its machine.

    label    how tables name it: the run's folder, and the file unless that is run.ckpt
    data     of the checkpoint: dataset, classes, channels, size, mean, std, digest
    weights  "EMA" or "plain"
    epoch    of the weights, and of how many
    digest   12 hex of the sha256 of the evaluated weights and the normalisation
    rule     why this checkpoint
    """

    path: Path
    label: str
    settings: Train
    machine: Machine
    net: StagedNet
    data: dict[str, Any]
    weights: str
    epoch: int
    epochs: int
    digest: str
    rule: str

    @property
    def run(self) -> Run | None:
        """The run whose folder the checkpoint lies in."""
        folder = self.path.parent.parent if self.path.parent.name == "epochs" else self.path.parent
        run = Run(folder)
        return run if run.settings.is_file() else None

    def told(self) -> str:
        """`run.ckpt, last epoch (200), EMA weights (newest of 3 runs)`."""
        which = f"last epoch ({self.epoch})" if self.epoch >= self.epochs else f"epoch {self.epoch} of {self.epochs}"
        return f"{self.path}, {which}, {self.weights} weights ({self.rule})"


# -------------------------------------------------------------------------------------------------- names of data sets


def squashed(name: str) -> str:
    """A data set's name without path, suffix, case, punctuation: cifar100 for CIFAR-100 and data/cifar100.npz."""
    last = Path(name).name.lower().replace(".npz", "")
    return "".join(c for c in last if c.isalnum())


def title(dataset: str) -> str:
    """How a squashed name is printed: tiny-imagenet for tinyimagenet, any other as it is."""
    return {squashed(known): known for known in (*DATASETS, *PUBLISHED)}.get(dataset, dataset)


def corrupted(name: str) -> str:
    """The squashed name of the data set that NAME-c belongs to. Raises UserError where `name` is no such name."""
    short = squashed(name)
    known = {squashed(known): known for known in (*DATASETS, *PUBLISHED)}
    if short.endswith("cbar"):
        raise UserError("usage", name, "a C-bar set; they are not evaluated", expected="NAME-c")
    if short in known or not short.endswith("c") or len(short) == 1:
        hint = (
            f"Did you mean {known[short]}-c?" if short in known else nearest(name, [f"{n}-c" for n in known.values()])
        )
        raise UserError("usage", name, "not the name of a corrupted set", expected="NAME-c", hint=hint)
    return short[:-1]


# ------------------------------------------------------------------------------------------------------- which of them


def choose(texts: Sequence[str], dataset: str, root: Path, name: str) -> list[Choice]:
    """The checkpoints that were typed, or the newest finished run trained on a data set.

    texts    run folders, checkpoints, starts of ids, `latest`; none: choose
    dataset  squashed
    name     as it was typed, for errors
    Raises UserError: usage for one named twice, checkpoint_missing where there is none.
    """
    if not texts:
        return [_newest(dataset, root, name)]
    found = [Choice(runs.find(text, root), "named") for text in texts]
    places = [choice.path.resolve() for choice in found]
    for place, text in zip(places, texts, strict=True):
        if places.count(place) > 1:
            raise UserError("usage", text, "named twice")
    return found


def _newest(dataset: str, root: Path, name: str) -> Choice:
    finished = list(_finished(root))
    there = [(folder, result) for folder, result in finished if _trained_on(result, dataset)]
    if not there:
        known = {squashed(n) for n in (*DATASETS, *PUBLISHED)}
        if dataset not in known and not Path(name).exists():
            names = [f"{n}-c" for n in (*DATASETS, *PUBLISHED)]
            raise UserError("usage", name, "unknown data set", hint=nearest(name, names))
        problem = f"no finished run found under {root}"
        raise UserError("checkpoint_missing", title(dataset), problem, hint="Train one first")
    typed = [one for one in there if not one[1].get("study")] or there
    folder, _ = max(typed, key=lambda one: (_ended(*one), one[0].name))
    others = "the only run" if len(there) == 1 else f"newest of {len(there)} runs"
    return Choice(runs.checkpoint_in(folder), f"{others} trained on {title(dataset)}; none was named")


def _trained_on(result: dict[str, Any], dataset: str) -> bool:
    """A known data set means exactly that one; a file goes by its name."""
    trained = str(result.get("dataset"))
    return trained == title(dataset) if title(dataset) in DATASETS else squashed(trained) == dataset


def _finished(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for folder in runs.all_runs(root):
        result = Run(folder).finished()
        if result is not None and Run(folder).checkpoint.is_file():
            yield folder, result


def _ended(folder: Path, result: dict[str, Any]) -> float:
    """When a run ended, seconds; older results do not say it, and their file's time has to do."""
    ended = result.get("ended")
    return float(ended) if isinstance(ended, int | float) else Run(folder).result.stat().st_mtime


# ------------------------------------------------------------------------------------------------------------- loading


def load(choices: Iterable[Choice], device: str, threads: int | None = None) -> list[Subject]:
    """The nets of the checkpoints. Raises UserError for a damaged one, or where they are of several data sets."""
    found = [_loaded(choice, device, threads) for choice in choices]
    first = found[0]
    for other in found[1:]:
        mine, theirs = (subject.data["dataset"] for subject in (first, other))
        if mine != theirs:
            problem = f"made for {theirs}, {first.label} for {mine}"
            raise UserError("mismatch", other.label, problem, hint="Evaluate them one after the other")
        if first.settings.split_seed != other.settings.split_seed:
            raise UserError("mismatch", other.label, "other test images than those of " + first.label,
                            other.settings.split_seed, f"split_seed {first.settings.split_seed}")  # fmt: skip
    return found


def _loaded(choice: Choice, device: str, threads: int | None) -> Subject:
    path, content = choice.path, checkpoint.load(choice.path)
    settings, machine, net = inference.restore(path, device)
    data, epochs = content["data"], settings.epochs or 0
    steps = max(1, int(data.get("images", 0)) // (settings.batch or 1))  # of an epoch
    epoch = content.get("epoch", content["step"] // steps)
    weights = "plain" if content["ema"] is None else "EMA"
    return Subject(path, label_of(path), settings, machine, net, data, weights, int(epoch), epochs,
                   digest_of(net, data), choice.rule)  # fmt: skip


def label_of(path: Path) -> str:
    """How tables name a checkpoint: its run's folder, and the file unless that is run.ckpt."""
    folder = path.absolute().parent
    if folder.name == "epochs":
        return f"{folder.parent.name}/{path.stem}"
    if not Run(folder).settings.is_file():
        return path.stem
    return folder.name if path.name == "run.ckpt" else f"{folder.name}/{path.stem}"


def digest_of(net: StagedNet, data: dict[str, Any]) -> str:
    """By content: the bytes of a checkpoint differ with what else it holds."""
    digest = hashlib.sha256(repr((list(data["mean"]), list(data["std"]))).encode())
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]
