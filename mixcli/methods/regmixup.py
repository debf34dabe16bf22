"""regmixup.py: RegMixup, the mixed loss added to the plain one.

F. Pinto et al., "RegMixup: Mixup as a Regularizer Can Surprisingly Improve Accuracy and Out Distribution Robustness",
2022, arXiv 2206.14502. Legend: eta = `eta`. Eq. (4) is `loss`: both parts from one pass over 2B rows, so that
BatchNorm sees them together and moves once. The authors' code averages over the 2B rows (`reduction = mean` divides
by 1 + eta); any input mixing may stand for MixUp.
"""

from __future__ import annotations

from mixcli.methods import supervised
from mixcli.methods.supervised import Plan
from mixcli.mix import Batch, Context, Losses, Needs
from mixcli.nets.staged import StagedNet
from mixcli.sampling import Random
from mixcli.settings import RegMixUp


def needs(settings: RegMixUp) -> Needs:
    return supervised.needs(settings.mixing)


def plan(settings: RegMixUp, context: Context, random: Random) -> Plan:
    return Plan(supervised.draw_inside(settings, context, random))


def loss(settings: RegMixUp, net: StagedNet, batch: Batch, plan: Plan) -> Losses:
    both = net.head(supervised.mixed_features(net, batch, plan, beside=batch.images))
    plain_logits, mixed_logits = both.chunk(2)
    plain = supervised.score(plain_logits, batch, Plan())
    mixed = supervised.score(mixed_logits, batch, plan)
    total = plain.total + settings.eta * mixed.total
    if settings.reduction == "mean":
        total = total / (1 + settings.eta)
    parts = {"loss": total.detach(), "plain": plain.parts["loss"], "mixed": mixed.parts["loss"]}
    return Losses(total, {**mixed.parts, **parts, "accuracy": plain.parts["accuracy"]})
