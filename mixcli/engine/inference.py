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
from mixcli.nets.staged import StagedNet, build
from mixcli.sampling import Random
from mixcli.settings import Train


@dataclass(frozen=True)
class Evaluation:
    """Counts of one pass, equal for any batch size.

    correct  (N,) bool on the host, in the order of the split
    nll      mean negative log-likelihood in nats
    """

    correct: Tensor
    nll: float

    @property
    def accuracy(self) -> float:
        """Share of images whose most probable class is theirs, 0 to 1."""
        return float(self.correct.double().mean())

    def row(self) -> dict[str, float | int]:
        return {"accuracy": self.accuracy, "nll": self.nll, "images": len(self.correct)}


def restore(path: Path, device: str = "auto") -> tuple[Train, Machine, StagedNet]:
    """A checkpoint ready for use: its settings, the machine, its net in eval mode, averaged weights where it has them.

    Raises UserError for a file that is missing, damaged or not a checkpoint, or a device that is not there.
    """
    content = checkpoint.load(path)
    settings = options.from_flat({**content["settings"], "device": device}, str(path), trusted=False)
    machine, classes = prepare(settings), len(content["data"]["classes"])
    assert settings.net is not None
    data, whitened = content["data"], tuple(content["data"]["size"]) if settings.zca else None
    net = build(settings.net, data["channels"], classes, settings.width, Random(settings.seed, "init"), whitened)
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
    return Evaluation(torch.cat(correct).cpu(), float(nll) / len(labels))
