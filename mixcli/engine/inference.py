"""inference.py: a trained net over a whole split: which images it gets right, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mixcli.data.resident import Resident
from mixcli.engine.device import Machine
from mixcli.nets.staged import StagedNet


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
