"""ict.py: ICT, consistency between the prediction on mixed images and the mixed predictions of a teacher.

V. Verma, K. Kawaguchi, A. Lamb, J. Kannala, A. Solin, Y. Bengio, D. Lopez-Paz, "Interpolation Consistency Training for
Semi-Supervised Learning", 2019, arXiv 1903.03825. Legend: f_theta = `net`, f_theta' = `teacher`, u = the images of
`batch.unlabelled`, lambda = the ratio of a Mix, w(t) = `weight`, N = number of classes.

    L       = L_S + w(t) L_US
    L_S     = soft cross-entropy on MixUp of labelled images                    `_supervised`
    L_US    = mean over images and classes of (softmax f_theta(Mix(u)) - Mix(softmax f_theta'(u)))^2    `_consistency`
    theta'  = d theta' + (1 - d) theta after update t = 1, 2, ..., d = min(1 - 1 / (t + 1), ema): the engine's State

w(t) rises from `unlabelled_weight` exp(-5) along exp(-5 (1 - t/T)^2); of which length, the settings say. Dividing by N
is part of L_US. Ours: K points (one Mix for images and predictions), `target = probabilities` (the authors mix logits),
`points = 1` (unlabelled images stay as they are), and what the paper leaves open, the teacher's BatchNorm: batch
statistics, with running ones of its own passes. In a step the student's running statistics move twice, labelled images
first, and the teacher's once (`eval`: never, they are averaged). With a weight of 0 no unlabelled image passes any net:
the step is the supervised one bit for bit, and the averaged net takes averaged statistics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mixcli.methods import supervised
from mixcli.mix import Average, Batch, Context, Losses, Mix, Needs, Unlabelled
from mixcli.mixing import blend
from mixcli.nets.staged import StagedNet
from mixcli.sampling import Random
from mixcli.settings import ICT


@dataclass(frozen=True)
class Plan:
    """The Mix of the labelled images, that of the unlabelled ones (None: they stay as they are), and w(t), (1,)."""

    mix: Mix | None
    unlabelled: Mix | None
    weight: Tensor


def needs(settings: ICT) -> Needs:
    own = settings.teacher_bn == "batch" and settings.unlabelled_weight > 0
    unlabelled = Unlabelled(settings.unlabelled, settings.unlabelled_batch)
    return Needs(unlabelled=unlabelled, average=Average(teaches=True, buffers=not own))


def plan(settings: ICT, context: Context, random: Random) -> Plan:
    """Draws the two Mixes from streams of their own: the labelled one is that of MixUp with the same key."""
    weight = settings.weight_at(context.epoch, context.epochs)
    (carried,) = random.carry(np.array([weight], np.float32))
    mix = _drawn(settings, context, random) if settings.supervised == "mixed" else None
    if settings.points == 1:
        return Plan(mix, None, carried)
    return Plan(mix, _drawn(settings, context.of(context.unlabelled), random.child("unlabelled")), carried)


def _drawn(settings: ICT, context: Context, random: Random) -> Mix:
    mix = blend.draw(settings.mixing, context, random)
    return blend.folded(mix) if settings.fold == "max" else mix


def loss(settings: ICT, net: StagedNet, batch: Batch, plan: Plan, teacher: StagedNet) -> Losses:
    labelled = supervised.loss(settings, net, batch, supervised.Plan(plan.mix))
    if settings.unlabelled_weight == 0:
        return labelled
    consistency = _consistency(settings, net, batch.unlabelled[0], plan.unlabelled, teacher)
    total = labelled.total + plan.weight[0] * consistency
    parts = {"loss": total.detach(), "supervised": labelled.total.detach(), "consistency": consistency.detach()}
    told = {} if plan.unlabelled is None else {"unlabelled_ratio": plan.unlabelled.ratio[0].mean()}
    return Losses(total, {**labelled.parts, **parts, "weight": plan.weight[0], **told})


def _consistency(settings: ICT, net: StagedNet, images: Tensor, mix: Mix | None, teacher: StagedNet) -> Tensor:
    """Mean over images and classes of the squared difference between prediction and target."""
    targets = _targets(settings, _taught(settings, images, teacher), mix)
    logits = net(images if mix is None else mix.images(images))
    return (logits.float().softmax(dim=1) - targets).square().mean()


@torch.no_grad()
def _taught(settings: ICT, images: Tensor, teacher: StagedNet) -> Tensor:
    """(U, N) logits of the teacher on unmixed images."""
    if settings.teacher_bn == "batch":
        return teacher(images).float()
    with teacher.frozen_batchnorm():
        return teacher(images).float()


def _targets(settings: ICT, logits: Tensor, mix: Mix | None) -> Tensor:
    """(U, N) rows of the teacher: mixed after softmax, or before."""
    if settings.target == "probabilities":
        rows = logits.softmax(dim=1)
        return rows if mix is None else mix.targets(rows, rows.shape[1])
    rows = logits if mix is None else mix.targets(logits, logits.shape[1])
    return rows.softmax(dim=1)
