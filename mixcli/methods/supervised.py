"""supervised.py: cross-entropy on images that a mixing made, or on plain ones.

The loss of `none`, MixUp, CutMix and every other input mixing: L = mean_i -sum_c t_ic log softmax(g(f(x~_i)))_c with
the soft rows t of the same Mix. Weight first, reduce last. Hidden mixing shares it: a plan says at which stage to mix.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mixcli.errors import inside
from mixcli.mix import Batch, Context, Losses, Mix, Needs
from mixcli.nets.staged import StagedNet
from mixcli.sampling import Random
from mixcli.settings import Method, Mixing, MixingInside, NoMixing


@dataclass(frozen=True)
class Plan:
    """One Mix, the stage whose output it mixes, and what is minimised; `mix = None` mixes nothing."""

    mix: Mix | None = None
    stage: str = "input"
    criterion: Literal["ce", "bce"] = "ce"


def needs(settings: Mixing | NoMixing) -> Needs:
    """What a mixing asks for, by a `needs` of its own; most take the batch as it is."""
    offered = getattr(import_module(settings.drawing), "needs", None) if isinstance(settings, Mixing) else None
    return Needs() if offered is None else offered(settings)


def plan(settings: Mixing | NoMixing, context: Context, random: Random) -> Plan:
    return Plan(draw(settings, context, random)) if isinstance(settings, Mixing) else Plan()


def loss(settings: Method, net: StagedNet, batch: Batch, plan: Plan) -> Losses:
    return score(net.head(mixed_features(net, batch, plan)), batch, plan)


def draw(settings: Mixing, context: Context, random: Random) -> Mix:
    """Draws the Mix of any mixing by its settings."""
    return import_module(settings.drawing).draw(settings, context, random)


def draw_inside(settings: MixingInside, context: Context, random: Random) -> Mix:
    """Draws the Mix of the mixing inside a method; a UserError names the key as it is set there."""
    with inside("" if settings.inter is None else "inter_"):
        return draw(settings.mixing, context, random)


def mixed_features(net: StagedNet, batch: Batch, plan: Plan, beside: Tensor | None = None) -> Tensor:
    """Pooled features (B, D) of images mixed at the plan's stage, where all views of the batch arrive that are mixed.

    beside  (A, C, H, W) rows that pass the net in the same batch, unmixed: BatchNorm then sees both. Their features
            come first in the result, (A + B, D).
    """
    alone = 0 if beside is None else len(beside)
    views = batch.rows if plan.mix is not None else batch.images
    rows = views if beside is None else torch.cat([beside, views])
    if plan.mix is None:
        return net.features(rows)
    hidden = net.features(rows, stop=plan.stage)
    mixed = plan.mix.images(hidden[alone:])
    return net.features(torch.cat([hidden[:alone], mixed]) if alone else mixed, start=plan.stage)


def score(logits: Tensor, batch: Batch, plan: Plan) -> Losses:
    """The criterion of (B, N) logits against the mixed labels, and the accuracy weighted by their shares."""
    targets = batch.targets(plan.mix)
    criterion = cross_entropy if plan.criterion == "ce" else binary_cross_entropy
    total = criterion(logits, batch.smoothed(targets)).mean()
    return Losses(total, {"loss": total.detach(), "accuracy": accuracy(logits, targets), **log(plan.mix)})


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Per row, (B,): soft cross-entropy, log-softmax in float32 at least."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1)


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Per row, (B,): mean over classes of the binary cross-entropy between softmax probabilities and soft targets."""
    probabilities = (logits if logits.dtype == torch.float64 else logits.float()).softmax(dim=1)
    return F.binary_cross_entropy(probabilities, targets.to(probabilities.dtype), reduction="none").mean(dim=1)


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Accuracy on mixed images: the share that the predicted class has in each image, on average."""
    return targets.gather(1, logits.detach().argmax(1, keepdim=True)).mean()


def log(mix: Mix | None) -> dict[str, Tensor]:
    """What a Mix writes to the log: the nominal and the realised share of the image itself, and its notes' means."""
    if mix is None:
        return {}
    notes = {name: note.float().mean() for name, note in mix.notes.items()}
    drawn = {} if mix.drawn is None else {"drawn": mix.drawn.mean().float()}
    return {"ratio": mix.ratio[0].mean(), **drawn, **notes}
