"""synermix.py: SynerMix, intra-class feature mixing beside inter-class mixing.

Q. Xu et al., "SynerMix: Synergistic Mixup Solution for Enhanced Intra-Class Cohesion and Inter-Class Separability in
Image Classification", 2024, arXiv 2403.14137; where the text could not be read, the authors' code (wxitxy/synermix)
decides. Legend: beta = `beta`, f = `net.features`, g = `net.head`, x = the clean view, x' = `batch.images`.

    L = beta L_intra + (1 - beta) L_inter

L_intra is `_intra` over the blends of mixing/class_blend.py, L_inter the loss of the part named in `[inter]` on x' of
the same supplemented batch. As in the authors' code: supplements up to two images of each present class, originals
first, in train mode, so BatchNorm moves twice a step (`two_pass`); beta = 0 skips the clean pass. Ours: beta = 1
skips the inter pass; `joint` (one pass, one update) and `frozen` (the clean pass neither reads nor moves batch
statistics); the controls `weights = single | equal` and `clean_pass = always`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mixcli.errors import inside
from mixcli.methods import supervised
from mixcli.mix import Batch, Context, Losses, Needs, implementation
from mixcli.mixing import class_blend
from mixcli.mixing.class_blend import ClassBlend
from mixcli.nets.staged import StagedNet
from mixcli.sampling import Random
from mixcli.settings import SynerMix


@dataclass(frozen=True)
class Plan:
    """The inter part's plan, the blends, and three counts for the log."""

    inter: supervised.Plan
    blend: ClassBlend
    counts: (
        Tensor  # (3,) float32: classes present, images added, share of present classes with two images before adding
    )


def needs(settings: SynerMix) -> Needs:
    views = {} if settings.beta == 1 else dict(implementation(settings.inter).needs(settings.inter).views)
    passes = settings.beta > 0 or settings.clean_pass == "always"
    if passes and settings.intra_view != "shared":
        views["intra"] = settings.intra_degree if settings.intra_view == "augmented" else 0.0
    return Needs(views, supplement=2)


def plan(settings: SynerMix, context: Context, random: Random) -> Plan:
    if context.labels is None:
        raise ValueError("SynerMix blends by class and needs the labels of the batch")
    blend = _blends(settings, context, random)
    (counts,) = random.carry(_counts(context.labels, context.added))
    with inside("inter_"):
        inter = implementation(settings.inter).plan(settings.inter, context, random)
    return Plan(inter, blend, counts)


def _blends(settings: SynerMix, context: Context, random: Random) -> ClassBlend:
    assert context.labels is not None
    return class_blend.draw(context.labels, context.classes, random.child("intra"),
                            settings.weights, settings.interpolations, settings.singletons)  # fmt: skip


def loss(settings: SynerMix, net: StagedNet, batch: Batch, plan: Plan) -> Losses:
    clean = batch.views.get("intra", batch.images)
    if settings.beta == 0:
        if settings.clean_pass == "always":
            with torch.no_grad():
                net.features(clean)
        return _log(supervised.loss(settings.inter, net, batch, plan.inter), {}, plan)
    if settings.beta == 1:
        intra = _intra(net.head, _clean_features(settings, net, clean), batch, plan.blend)
        return _log(intra, {"intra": intra.total}, plan)
    intra, inter = _both(settings, net, clean, batch, plan)
    total = settings.beta * intra.total + (1 - settings.beta) * inter.total
    return _log(Losses(total, {**intra.parts, **inter.parts}), {"intra": intra.total, "inter": inter.total}, plan)


def parts(settings: SynerMix) -> dict[str, float]:
    """The named parts of the loss that are computed, and what each weighs in the total; for probes."""
    weights = {"intra": settings.beta, "inter": 1 - settings.beta}
    return {name: weight for name, weight in weights.items() if weight > 0}


def part(settings: SynerMix, net: StagedNet, batch: Batch, plan: Plan, name: str) -> Tensor:
    """One part of the loss, attached to the graph and not weighted; the nets' passes are those of `loss`."""
    clean = batch.views.get("intra", batch.images)
    if settings.clean_bn == "joint" and len(parts(settings)) == 2:
        intra, inter = _both(settings, net, clean, batch, plan)
        return intra.total if name == "intra" else inter.total
    if name == "inter":
        return supervised.loss(settings.inter, net, batch, plan.inter).total
    return _intra(net.head, _clean_features(settings, net, clean), batch, plan.blend).total


def redrawn(settings: SynerMix, plan: Plan, context: Context, random: Random) -> Plan:
    """The same plan with other blends: all that is random in the intra part, and nothing else."""
    return replace(plan, blend=_blends(settings, context, random))


def _both(settings: SynerMix, net: StagedNet, clean: Tensor, batch: Batch, plan: Plan) -> tuple[Losses, Losses]:
    """The two parts from two passes, originals first, or from one that they share."""
    if settings.clean_bn != "joint":
        intra = _intra(net.head, _clean_features(settings, net, clean), batch, plan.blend)
        return intra, supervised.loss(settings.inter, net, batch, plan.inter)
    features = supervised.mixed_features(net, batch, plan.inter, beside=clean)
    originals, mixed = features[: len(clean)], features[len(clean) :]
    inter = supervised.score(net.head(mixed), batch, plan.inter)
    return _intra(net.head, originals, batch, plan.blend), inter


def _clean_features(settings: SynerMix, net: StagedNet, clean: Tensor) -> Tensor:
    if settings.clean_bn != "frozen":
        return net.features(clean)
    with net.frozen_batchnorm():
        return net.features(clean)


def _intra(head: torch.nn.Module, features: Tensor, batch: Batch, blend: ClassBlend) -> Losses:
    """Mean over the present classes of the cross-entropy of their blends."""
    logits = head(blend.features(features))
    rows = torch.nn.functional.one_hot(blend.labels, batch.classes).float()
    total = (supervised.cross_entropy(logits, batch.smoothed(rows)) * blend.shares).sum()
    hit = (logits.detach().argmax(1) == blend.labels).float()
    return Losses(total, {"intra_accuracy": (hit * blend.shares).sum()})


def _log(losses: Losses, parts: dict[str, Tensor], plan: Plan) -> Losses:
    counts = dict(zip(("classes", "added", "eligible"), plan.counts, strict=True))
    named = {name: value.detach() for name, value in parts.items()}
    return Losses(losses.total, {**losses.parts, "loss": losses.total.detach(), **named, **counts})


def _counts(labels: np.ndarray, added: int) -> np.ndarray:
    drawn = np.bincount(labels[: len(labels) - added])
    present = np.count_nonzero(drawn)
    return np.array([present, added, np.count_nonzero(drawn > 1) / max(1, present)], np.float32)
