"""mixmatch.py: MixMatch, guessed labels sharpened and mixed with true ones.

D. Berthelot, N. Carlini, I. Goodfellow, N. Papernot, A. Oliver, C. Raffel, "MixMatch: A Holistic Approach to
Semi-Supervised Learning", 2019, arXiv 1905.02249. Legend: A = number of views `batch.unlabelled`, T = `temperature`,
W = all rows, labelled ones and then A blocks of unlabelled ones, paired by one Mix, lambda_U = `weight`.

    q       = mean over the A views of softmax of the net, no gradient          `_guessed`, eq. (6)
    p       = q^(1/T) / sum over classes                                        `sharpened`, eq. (7)
    rows    = Mix of every row with rows of W, its own share the largest        `plan`, eq. (8) - (11)
    L       = CE(labelled rows) + lambda_U mean over rows and classes of (softmax - mixed p)^2      eq. (2) - (5)

BatchNorm: the guess uses the statistics of its batch and moves nothing. Then `bn = joint`, ours: one pass of all rows,
one move; `interleave`, as the authors' code: A + 1 blocks of equal make-up, of which the first alone moves the running
statistics. Evaluated is a moving average of the weights; ours warms up, so that short runs forget the first weights.
Ours too: K points, the largest weight exchanged with the row's own; `points = 1` leaves unlabelled rows as they are and
mixes labelled ones by twos with rows of W.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mixcli.methods import supervised
from mixcli.mix import Average, Batch, Context, Losses, Mix, Needs, Unlabelled
from mixcli.mixing import blend
from mixcli.nets.staged import StagedNet
from mixcli.sampling import Random
from mixcli.settings import MixMatch


@dataclass(frozen=True)
class Plan:
    """The Mix of all rows, labelled and then every view of the unlabelled, and the weight of their loss, (1,)."""

    mix: Mix
    weight: Tensor


def needs(settings: MixMatch) -> Needs:
    unlabelled = Unlabelled(settings.unlabelled, settings.unlabelled_batch, settings.augmentations)
    return Needs(unlabelled=unlabelled, average=Average())


def plan(settings: MixMatch, context: Context, random: Random) -> Plan:
    labelled = context.size[0]
    rows = labelled + settings.augmentations * context.unlabelled
    mix = blend.folded(blend.draw(settings.mixing, context.of(rows), random))
    weight = settings.weight_at(context.epoch, context.epochs)
    carried, kept = random.carry(np.array([weight], np.float32), np.arange(rows) >= labelled)
    return Plan(_kept(mix, kept) if settings.points == 1 else mix, carried)


def _kept(mix: Mix, rows: Tensor) -> Mix:
    """A Mix of pairs with some rows (R,) bool left as they are."""
    assert mix.keep is not None and mix.drawn is not None
    keep = torch.where(rows.view(-1, 1, 1, 1), torch.ones_like(mix.keep), mix.keep)
    return replace(mix, keep=keep, drawn=torch.where(rows, torch.ones_like(mix.drawn), mix.drawn))


def loss(settings: MixMatch, net: StagedNet, batch: Batch, plan: Plan) -> Losses:
    views, labelled = list(batch.unlabelled), len(batch.images)
    guess = sharpened(_guessed(net, views), settings.temperature)
    targets = plan.mix.targets(torch.cat([batch.targets(), *[guess] * len(views)]), batch.classes)
    mixed = plan.mix.images(torch.cat([batch.images, *views]))
    logits = net(mixed) if settings.bn == "joint" else _interleaved(net, mixed, [labelled, *map(len, views)])
    supervised_loss = supervised.cross_entropy(logits[:labelled], batch.smoothed(targets[:labelled])).mean()
    guessed_loss = (logits[labelled:].float().softmax(dim=1) - targets[labelled:]).square().mean()
    total = supervised_loss + plan.weight[0] * guessed_loss
    parts = {"loss": total, "supervised": supervised_loss, "consistency": guessed_loss, "weight": plan.weight[0],
             "accuracy": supervised.accuracy(logits[:labelled], targets[:labelled]),
             "confidence": guess.max(dim=1).values.mean()}  # fmt: skip
    return Losses(total, {**supervised.log(plan.mix), **{name: value.detach() for name, value in parts.items()}})


@torch.no_grad()
def _guessed(net: StagedNet, views: list[Tensor]) -> Tensor:
    """(U, N) probabilities, the mean over the views; running statistics stay."""
    with net.still_batchnorm():
        logits = net(torch.cat(views)).float()
    return torch.stack(logits.softmax(dim=1).chunk(len(views))).mean(dim=0)


def sharpened(probabilities: Tensor, temperature: float) -> Tensor:
    """Rows (U, N) raised to 1 / temperature and scaled to sum 1; a temperature of 1 keeps them."""
    powers = probabilities ** (1 / temperature)
    return powers / powers.sum(dim=1, keepdim=True)


def _interleaved(net: StagedNet, rows: Tensor, sizes: list[int]) -> Tensor:
    """(R, N) logits of blocks of `sizes`, each cut into as many slices as there are blocks; pass k takes slices k."""
    slices = [block.tensor_split(len(sizes)) for block in rows.split(sizes)]
    passes = []
    for k in range(len(sizes)):
        part = [block[k] for block in slices]
        with nullcontext() if k == 0 else net.still_batchnorm():
            passes.append(net(torch.cat(part)).split([len(own) for own in part]))
    return torch.cat([passes[k][block] for block in range(len(sizes)) for k in range(len(sizes))])
