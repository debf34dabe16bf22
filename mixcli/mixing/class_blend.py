"""class_blend.py: random convex combinations of the features of each class in a batch.

Q. Xu et al., "SynerMix: Synergistic Mixup Solution for Enhanced Intra-Class Cohesion and Inter-Class Separability in
Image Classification", 2024, arXiv 2403.14137; where the text could not be read, the authors' code (wxitxy/synermix)
decides. Legend: r_i = uniform draw, w_i = weight of image i in its class, z_(c,p) = p-th blend of class c, P =
`interpolations`, M = number of classes blended.

    w_i = r_i / sum_j r_j,    z_(c,p) = sum_i w_i f(x_i),    L_intra = (1 / (P M)) sum_c sum_p CE(g(z_(c,p)), c)

`draw` is the first expression, `ClassBlend.features` the second, `ClassBlend.shares` the mean of the third.
Every class weighs alike whatever its count; gradients flow through the features. `dirichlet` (uniform over the simplex;
not the law of normalised uniforms), `equal` (the class mean) and `single` (each image alone: class-balanced
cross-entropy, the control without any blend) are ours, as is P > 1 with fresh weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from mixcli.sampling import Random

Weights = Literal["uniform", "dirichlet", "equal", "single"]


@dataclass(frozen=True)
class ClassBlend:
    """Drawn blends of a batch: R rows, of static size whatever classes are present.

    member  (P*B,) int64: images, those of the first row first; None where every image is its own row
    starts  (R+1,) int64: where each row begins in `member`
    weight  (P*B,) float64: weight of each member, summing to 1 over a row
    labels  (R,) int64: the class of each row
    shares  (R,) float32: weight of each row in the loss, 0 for classes that are absent; they sum to 1, or to 0
    """

    member: Tensor | None
    starts: Tensor | None
    weight: Tensor | None
    labels: Tensor
    shares: Tensor

    def features(self, features: Tensor) -> Tensor:
        """(B, D) features -> (R, D) blends, summed in float32 at least; rows of absent classes are zero."""
        if self.member is None or self.weight is None:
            return features
        table = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
        # A bag of rows summed with weights is exactly this; it is one pass, and deterministic on a GPU, unlike
        # index_add.
        return F.embedding_bag(self.member, table, self.starts, mode="sum",
                               per_sample_weights=self.weight.to(table.dtype), include_last_offset=True)  # fmt: skip


def draw(
    labels: np.ndarray,
    classes: int,
    random: Random,
    weights: Weights = "uniform",
    interpolations: int = 1,
    singletons: Literal["plain", "skip"] = "plain",
) -> ClassBlend:
    """Draws the blends of one batch.

    labels      (B,) int64 on the host, 0 <= label < classes
    singletons  a class with one image is its own blend (`plain`), or is left out of the mean (`skip`)
    With `skip` and no class of two images all shares are 0: the loss is 0 and still attached to the graph.
    """
    counts = np.bincount(labels, minlength=classes)
    used = counts > (1 if singletons == "skip" else 0)
    share = used / max(1, int(used.sum()))
    if weights == "single":
        rows, shares = random.carry(labels, (share / np.maximum(counts, 1))[labels].astype(np.float32))
        return ClassBlend(None, None, None, rows, shares)
    points = 1 if weights == "equal" else interpolations
    order = np.argsort(labels, kind="stable")
    sizes = np.tile(counts, points)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    raw = _raw(weights, points * len(labels), random.host)
    total = np.add.reduceat(np.append(raw, 0.0), starts[:-1])
    member, starts, weight, rows, shares = random.carry(
        np.tile(order, points),
        starts,
        raw / np.repeat(total, sizes),
        np.tile(np.arange(classes), points),
        np.tile(share / points, points).astype(np.float32),
    )
    return ClassBlend(member, starts, weight, rows, shares)


def _raw(weights: Weights, size: int, rng: Generator) -> np.ndarray:
    """Positive draws, float64, that become weights when divided by their class sum."""
    if weights == "equal":
        return np.ones(size)
    if weights == "dirichlet":  # unit exponentials, normalised, are Dirichlet(1)
        return rng.standard_exponential(size)
    return 1.0 - rng.random(size)  # on (0, 1]: a class sum of zero cannot occur
