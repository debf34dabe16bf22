"""class_blends.py: blends of a few images of one class, weighted by the function that trains with them.

`mixing/class_blend.py` blends all images of a class in a batch; a batch has few of each. Here every blend counts as a
class of its own, so that two to five images of one class are blended by the same law: normalised uniforms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mixcli.mixing import class_blend
from mixcli.mixing.class_blend import ClassBlend
from mixcli.sampling import Random

FEWEST, MOST = 2, 5  # images of a blend


@dataclass(frozen=True)
class FewBlends:
    """Drawn blends of images of one class.

    member  (M,) int64: rows of the class's images, those of the first blend first
    blend   their weights, by position in `member`
    """

    member: np.ndarray
    blend: ClassBlend

    @property
    def starts(self) -> np.ndarray:
        """(B,) where each blend begins in `member`."""
        assert self.blend.starts is not None
        return self.blend.starts.numpy()[:-1]

    @property
    def weight(self) -> np.ndarray:
        """(M,) float64, summing to 1 over a blend."""
        assert self.blend.weight is not None
        return self.blend.weight.numpy()

    def of(self, features: np.ndarray) -> np.ndarray:
        """(n, D) features of the class's images -> (B, D) blends, in the same precision."""
        return self.blend.features(torch.from_numpy(np.ascontiguousarray(features[self.member]))).numpy()

    def largest(self, values: np.ndarray) -> np.ndarray:
        """(M,) values of the members -> (B,) the largest of each blend."""
        return np.maximum.reduceat(values, self.starts)


def draw(images: int, count: int, random: Random, few: tuple[int, int] = (FEWEST, MOST)) -> FewBlends:
    """`count` blends of distinct images among `images`, each of as many as `few` allows, uniform; all where fewer."""
    least, most = (min(size, images) for size in few)
    sizes = random.host.integers(least, most + 1, count)
    ranks = random.host.random((count, images)).argsort(1)[:, :most]
    member = ranks[np.arange(most) < sizes[:, None]]
    return FewBlends(member, class_blend.draw(np.repeat(np.arange(count), sizes), count, random.child("weights")))
