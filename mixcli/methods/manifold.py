"""manifold.py: Manifold MixUp, mixing the features of a randomly drawn stage.

V. Verma et al., "Manifold Mixup: Better Representations by Interpolating Hidden States", 2019, arXiv 1806.05236.
Legend: lambda = `keep`, k = `stage`, g_k = `net.features(x, stop=stage)`. Eq. (1)-(3) are `plan` and `loss`: one stage,
one ratio and one permutation per batch. Stages as in the authors' code: the input, after layer1, after layer2; of a net
without layers of these names, the input and its first two stages, a stem (patch embedding) and what follows it.
The authors train with binary cross-entropy between softmax probabilities and soft labels (`loss = bce`);
cross-entropy is the default, and an alpha tuned for one does not carry over to the other. A mask is drawn at the
stage's own size; where a stage hands over no maps but tokens, all of an image's, a class token among them, take one
weight, and a mixing by masks is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from mixcli.errors import UserError
from mixcli.methods import supervised
from mixcli.methods.supervised import Plan
from mixcli.mix import Batch, Context, Losses, Needs
from mixcli.nets.staged import StagedNet
from mixcli.sampling import Random
from mixcli.settings import Manifold


def needs(settings: Manifold) -> Needs:
    return supervised.needs(settings.mixing)


def plan(settings: Manifold, context: Context, random: Random) -> Plan:
    """Draws the stage, equal on all ranks, and the Mix at that stage's size."""
    names = stages(settings, context)
    shared = Random(random.seed, f"{random.purpose}/stage", random.step)
    stage = names[int(shared.host.integers(len(names)))]
    mix = supervised.draw_inside(settings, context.at(context.stages[stage]), random)
    return Plan(mix, stage, settings.loss)


def loss(settings: Manifold, net: StagedNet, batch: Batch, plan: Plan) -> Losses:
    return supervised.loss(settings, net, batch, plan)


def stages(settings: Manifold, context: Context) -> Sequence[str]:
    """The stages drawn from, each alike: those that were named, or the input and two more.

    Raises UserError for a stage that is not there, or one without maps where the mixing draws masks.
    """
    known = list(context.stages)
    layers = ["layer1", "layer2"] if {"layer1", "layer2"} <= set(known) else known[1:3]
    names = settings.stages or [known[0], *layers]
    for name in names:
        if name not in known:
            raise UserError("config", "stages", "no such stage in this net", got=name, expected=", ".join(known))
        if context.stages[name] is None and settings.mixing.masks:
            problem = f"{name} hands over no maps, and {settings.mixing.name} mixes by masks"
            raise UserError("config", "stages", problem, got=name, hint="Name other stages, or mix by mixup")
    return names
