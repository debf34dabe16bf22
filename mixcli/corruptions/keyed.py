"""keyed.py: random draws of an image that depend on its key alone, never on the batch it stands in.

Words are those of SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators", 2014),
in wrapping int64 tensor arithmetic, so that every device and every batch gives the same bits. The key of a cell is the
first 8 bytes of SHA-256 over (generator version, seed, corruption, severity, name of the draw); the key of an image is
the finaliser of (cell key + index of the image in the full test set); word i of an image is the finaliser of
(image key + (i + 1) x the odd constant). Uniforms are integers times a power of two; normals are gathered from 65,536
quantiles scaled to unit variance, four to a word. `sampling.Random`, keyed by the step, would tie bytes to batches.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

GENERATOR_VERSION = 1  # raised whenever any byte of any generated image may change

_ODD = 0x9E3779B97F4A7C15 - 2**64  # constants of SplitMix64, as the signed numbers that int64 holds
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


@dataclass(frozen=True)
class Keys:
    """Whose draws: one generator seed and the images of a batch.

    seed    the generator's seed
    images  (B,) int64: the index of each image in the *full* test set; draws are made on its device
    """

    seed: int
    images: Tensor

    def stream(self, corruption: str, severity: int) -> Stream:
        """The draws of one cell for these images."""
        return Stream(self, corruption, severity)


@dataclass(frozen=True)
class Stream:
    """All draws of one (corruption, severity) for the images of `keys`; each is known by its name.

    Every method returns a tensor whose first dimension is the batch, followed by `shape`; asking again for a name
    gives the same numbers again.
    """

    keys: Keys
    corruption: str
    severity: int

    def words(self, draw: str, count: int) -> Tensor:
        """(B, count) int64: all 64 bits random."""
        name = repr((GENERATOR_VERSION, self.keys.seed, self.corruption, self.severity, draw)).encode()
        cell = int.from_bytes(hashlib.sha256(name).digest()[:8], "little", signed=True)
        images = finalised(self.keys.images.to(torch.int64) + cell)
        return splitmix(images, count)

    def uniform(self, draw: str, shape: tuple[int, ...] = (), low: float = 0.0, high: float = 1.0) -> Tensor:
        """(B, *shape) float64, uniform on [low, high): 53 random bits."""
        words = self.words(draw, prod(shape)).view(-1, *shape)
        return _shifted(words, 11).double() * 2.0**-53 * (high - low) + low

    def uniform24(self, draw: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(B, *shape) float32, uniform on [0, 1): 24 random bits, two draws to a word; for large fields."""
        halves = self._parts(draw, shape, torch.int32)
        return ((halves >> 8) & 0xFFFFFF).float() * 2.0**-24

    def integers(self, draw: str, shape: tuple[int, ...], low: int, high: int) -> Tensor:
        """(B, *shape) int64, uniform on low .. high - 1 (a bias below (high - low) / 2^32)."""
        halves = self._parts(draw, shape, torch.int32).long() & 0xFFFFFFFF
        return (halves * (high - low) >> 32) + low

    def levels(self, draw: str, shape: tuple[int, ...], bits: int) -> Tensor:
        """(B, *shape) int32, uniform on 0 .. 2^bits - 1, `bits` at most 16: four draws to a word."""
        return (self._parts(draw, shape, torch.int16).int() & 0xFFFF) >> (16 - bits)

    def normal(self, draw: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(B, *shape) float32, standard normal."""
        index = self.levels(draw, shape, 16)
        return _quantiles(index.device).index_select(0, index.view(-1)).view(index.shape)

    def _parts(self, draw: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """(B, *shape) of `dtype`: the words cut into equal parts, the lowest bits first."""
        count, per_word = prod(shape), 8 // dtype.itemsize
        parts = self.words(draw, -(-count // per_word)).view(dtype)
        return parts[:, :count].reshape(-1, *shape)


def splitmix(state: Tensor, count: int) -> Tensor:
    """(B,) int64 states -> (B, count) int64: the first `count` words of each SplitMix64 generator."""
    return finalised(state[:, None] + _counter(count, state.device))


def finalised(z: Tensor) -> Tensor:
    """The finaliser of SplitMix64 on every element of an int64 tensor."""
    z = (z ^ _shifted(z, 30)) * _FIRST
    z = (z ^ _shifted(z, 27)) * _SECOND
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: int64 would drag its sign along."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


@lru_cache(maxsize=64)
def _counter(count: int, device: torch.device) -> Tensor:
    return torch.arange(1, count + 1, device=device) * _ODD


@lru_cache(maxsize=8)
def _quantiles(device: torch.device) -> Tensor:
    """(65536,) float32 quantiles of the normal law at (k + 1/2) / 65536, scaled to unit variance."""
    quantiles = ndtri((np.arange(2**16) + 0.5) / 2**16)
    return torch.from_numpy((quantiles / quantiles.std()).astype(np.float32)).to(device)
