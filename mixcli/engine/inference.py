"""inference.py: a trained net over a whole split: which images it gets right, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mixcli import options
from mixcli.data.resident import Resident
from mixcli.engine import checkpoint
from mixcli.engine.device import Machine, prepare
from mixcli.nets.building import of_run
from mixcli.nets.staged import StagedNet
from mixcli.recipe import Train
from mixcli.sampling import Random


@dataclass(frozen=True)
class Evaluation:
    """Counts of one pass, equal for any batch size.

    correct  (N,) bool on the host, in the order of the split
    labels   (N,) int64 on the host
    nll      mean negative log-likelihood in nats
    """

    correct: Tensor
    labels: Tensor
    nll: float

    @property
    def accuracy(self) -> float:
        """Share of images whose most probable class is theirs, 0 to 1."""
        return float(self.correct.double().mean())

    @property
    def balanced_accuracy(self) -> float:
        """Mean over the classes that have images of the share that is right, 0 to 1: each class counts alike."""
        images = torch.bincount(self.labels).double()
        right = torch.bincount(self.labels, self.correct.double())
        return float((right / images)[images > 0].mean())

    def row(self) -> dict[str, float | int]:
        return {"accuracy": self.accuracy, "balanced_accuracy": self.balanced_accuracy, "nll": self.nll,
                "images": len(self.correct)}  # fmt: skip


def restore(path: Path, device: str = "auto") -> tuple[Train, Machine, StagedNet]:
    """A checkpoint ready for use: its settings, the machine, its net in eval mode, averaged weights where it has them.

    Raises UserError for a file that is missing, damaged or not a checkpoint, or a device that is not there.
    """
    content = checkpoint.load(path)
    settings = options.from_flat({**content["settings"], "device": device}, str(path), trusted=False)
    machine, classes = prepare(settings), len(content["data"]["classes"])
    data, init = content["data"], Random(settings.seed, "init")
    net = of_run(settings, data["channels"], classes, tuple(data["size"]), init)
    weights = content["net"]
    if content["ema"] is not None:
        weights = {key.removeprefix("module."): v for key, v in content["ema"].items() if key != "n_averaged"}
    net.load_state_dict(weights)
    return settings, machine, net.to(machine.device).eval()


@torch.inference_mode()
def evaluate(net: StagedNet, data: Resident, machine: Machine, batch: int = 512) -> Evaluation:
    """Runs `net` in eval mode over the clean images of `data`; its mode is set back afterwards."""
    training = net.training
    net.eval()
    labels = torch.from_numpy(data.labels).to(machine.device)
    correct, nll = [], torch.zeros((), dtype=torch.float64, device=machine.device)
    for start in range(0, len(labels), batch):
        target = labels[start : start + batch]
        with machine.autocast():
            logits = net(data.clean(start, start + batch))
        correct.append(logits.argmax(1) == target)
        nll += torch.nn.functional.cross_entropy(logits.double(), target, reduction="sum")
    net.train(training)
    return Evaluation(torch.cat(correct).cpu(), labels.cpu(), float(nll) / len(labels))
