"""blend.py: MixUp, convex combinations of two or more images.

H. Zhang, M. Cisse, Y. Dauphin, D. Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", 2018, arXiv 1710.09412.
Legend: lambda = `keep`, alpha = `alpha`. Eq. (1), images and targets, is `Mix.images` and `Mix.targets`; `draw` is the
sampling above it. No folding of lambda to its larger half: folding changes what alpha means.
More points: weights from Dirichlet(a, ..., a), the exact generalisation of Beta(a, a); this form is ours, since the
literature's question (arXiv 2210.16413) comes without a formula that could be read.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from mixcli.mix import Context, Mix
from mixcli.mixing import masked
from mixcli.mixing.masked import Masks
from mixcli.mixing.pairing import draws, mixed_at_all, partners
from mixcli.sampling import Random, dirichlet
from mixcli.settings import Blend


def draw(settings: Blend, context: Context, random: Random) -> Mix:
    """Draws constant weights per image: Beta(alpha, alpha) for two points, Dirichlet for more."""
    if settings.points == 2:
        return masked.draw(settings, context, random, masks)
    return _many(settings, context, random)


def masks(settings: Blend, share: np.ndarray, size: tuple[int, int], random: Random) -> Masks:
    """The share itself, for every pixel; see `Masks`."""
    (keep,) = random.carry(share.astype(np.float32).reshape(-1, 1, 1, 1))
    return Masks(keep, share, "any" if np.float32(share.max()) == 1 else "partial")


def folded(mix: Mix) -> Mix:
    """The same Mix with its largest share on the image itself, exchanged with the image's own; constant weights only.

    With two points that is max(lambda, 1 - lambda). A rule of its own of some methods, never of MixUp.
    """
    if mix.weight is None:
        assert mix.keep is not None and mix.drawn is not None
        keep, drawn = torch.maximum(mix.keep, 1 - mix.keep), torch.maximum(mix.drawn, 1 - mix.drawn)
        return replace(mix, keep=keep, drawn=drawn, form="any")
    largest, at = mix.weight.max(dim=0, keepdim=True)
    weight = mix.weight.scatter(0, at, mix.weight[:1])
    return replace(mix, weight=torch.cat([largest, weight[1:]]), drawn=largest[0].flatten().double())


def _many(settings: Blend, context: Context, random: Random) -> Mix:
    batch, points, rng = context.size[0], settings.points, random.host
    mixed = mixed_at_all(settings, batch, rng)
    picked = [partners(settings, context, rng) for _ in range(points - 1)]
    each = settings.alpha if settings.concentration == "per_point" else 2 * settings.alpha / points
    weights = dirichlet(rng, np.full((draws(settings, batch), points), each))
    weights = np.broadcast_to(weights, (batch, points))
    itself = np.arange(batch)
    source = np.stack([itself] + [np.where(mixed, partner, itself) for partner, _ in picked])
    unpaired = np.any([un for _, un in picked], axis=0)
    weights = np.where(mixed[:, None], weights, np.eye(1, points)).T
    weight = weights.astype(np.float32).reshape(points, batch, 1, 1, 1)
    source, weight, drawn, unpaired = random.carry(source, weight, weights[0].copy(), unpaired)
    return Mix(source, weight=weight, drawn=drawn, notes={"unpaired": unpaired})
