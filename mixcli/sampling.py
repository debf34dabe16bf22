"""sampling.py: every random number of mixcli, keyed and stateless.

A `Random` is named by (seed, purpose, step[, rank]) and by nothing else: no global generator is read or moved, so a run
resumed in the middle of an epoch draws what the uninterrupted one drew, and switching one consumer off shifts no other.
Small draws (ratios, partners, boxes) come from `host`, numpy's counter-based Philox, in float64: in float32 Beta(0.2)
returns exactly 1.0 in 1.6 % of draws. Fields of noise are made by `field` on the training device under the same key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.random import Generator, Philox
from numpy.random.bit_generator import ISeedSequence


@dataclass(frozen=True)
class Random:
    """One independent stream of draws.

    seed     the run's seed, or the split's
    purpose  what is drawn: "order", "augment", "mix", ...
    step     the training step, or the epoch, or whatever counts
    rank     the process of a distributed run, where ranks must differ; None where they must agree
    device   where `field` and `carry` put their tensors
    """

    seed: int
    purpose: str
    step: int = 0
    rank: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def key(self) -> int:
        """128 bits, a stable digest of the name (never Python's `hash`, which changes between processes)."""
        return int.from_bytes(self._digest(), "little")

    def _digest(self) -> bytes:
        name = repr((self.seed, self.purpose, self.step, self.rank)).encode()
        return hashlib.blake2b(name, digest_size=16).digest()

    @cached_property
    def host(self) -> Generator:
        """The host-side generator, Philox under this key; draws continue where the last one stopped."""
        return Generator(Philox(_Words(self._digest())))  # type: ignore[arg-type]

    @cached_property
    def _generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(self.key & (2**63 - 1))

    def field(self, shape: tuple[int, ...], law: Literal["uniform", "normal"] = "uniform") -> torch.Tensor:
        """A float32 tensor of `shape` on `device`: uniform on [0, 1), or standard normal."""
        make = torch.rand if law == "uniform" else torch.randn
        return make(shape, generator=self._generator, device=self.device)

    def child(self, purpose: str) -> Random:
        """The stream of a part of this purpose, independent of its parent and of its siblings."""
        return Random(self.seed, f"{self.purpose}/{purpose}", self.step, self.rank, self.device)

    def carry(self, *arrays: np.ndarray) -> tuple[torch.Tensor, ...]:
        """The arrays on `device`, dtypes kept; to an accelerator in one pinned copy that does not block the host."""
        if self.device.type == "cpu":
            return tuple([torch.from_numpy(np.ascontiguousarray(a)) for a in arrays])
        flat = [np.ascontiguousarray(a) for a in arrays]
        starts = np.cumsum([0] + [-(-a.nbytes // 16) * 16 for a in flat])  # 16-byte boundaries suit every dtype
        packed = torch.empty(int(starts[-1]), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        bytes_ = packed.numpy()
        for a, start in zip(flat, starts[:-1], strict=True):
            bytes_[start : start + a.nbytes] = a.reshape(-1).view(np.uint8)
        moved = packed.to(self.device, non_blocking=True)
        return tuple(
            moved[start : start + a.nbytes].view(torch.from_numpy(a[..., :0]).dtype).view(a.shape)
            for a, start in zip(flat, starts[:-1], strict=True)
        )


class _Words(ISeedSequence):
    """A key as Philox asks for it. Given as its `key`, it costs three times as much: entropy is collected first."""

    def __init__(self, key: bytes):
        self.key = key

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        return np.frombuffer(self.key, "<u8")


def below(rng: Generator, bounds: Any, shape: tuple[int, ...]) -> np.ndarray:
    """int64 of `shape`, uniform on 0 .. bound - 1; `bounds` are integers that broadcast to it.

    numpy's own draws of integers take ten times as long where every one has its bound.
    """
    return (rng.random(shape) * bounds).astype(np.int64)


def beta(rng: Generator, alpha: float, size: int) -> np.ndarray:
    """`size` draws of Beta(alpha, alpha), float64; `alpha = 0` is the limit "no mixing" and returns ones.

    0 is for internal use: settings refuse alpha below 0.01, where draws pile up on 0 and 1.
    """
    return np.ones(size) if alpha == 0 else rng.beta(alpha, alpha, size)


def dirichlet(rng: Generator, concentrations: np.ndarray) -> np.ndarray:
    """One draw per row of `concentrations` (n, K), float64; rows sum to 1, entries of concentration 0 are 0.

    Below 1, Gamma(a) is Gamma(a + 1) U^(1/a), taken as a logarithm: at small concentrations gammas themselves vanish.
    """
    if not (concentrations[concentrations < 1] > 0).any():
        weights = rng.standard_gamma(concentrations)
        return weights / weights.sum(1, keepdims=True)
    with np.errstate(divide="ignore"):
        boost = np.log(rng.random(concentrations.shape)) / concentrations  # -inf where the concentration is 0
    logs = np.log(rng.standard_gamma(concentrations + 1)) + boost
    weights = np.exp(logs - logs.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)
