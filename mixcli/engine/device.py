"""device.py: where a run computes: device, precision, threads, determinism, and a record of the machine.

Equal bits are promised per device type and thread count. Global switches are set for the time of a run and set back.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mixcli import __version__
from mixcli.errors import UserError
from mixcli.recipe import Train


@dataclass(frozen=True)
class Machine:
    """The device of a run and how it computes there."""

    device: torch.device
    threads: int
    deterministic: bool
    bf16: bool

    def autocast(self) -> AbstractContextManager:
        """Around forward passes: bfloat16 where the run asks for it."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    @contextmanager
    def session(self) -> Iterator[None]:
        """Sets threads and determinism, and leaves them and torch's CPU generator as they were found."""
        before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state()
        memory: Any = torch.utils.deterministic
        filled = memory.fill_uninitialized_memory
        torch.set_num_threads(self.threads)
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats its sums only with this
        torch.use_deterministic_algorithms(self.deterministic)
        memory.fill_uninitialized_memory = False  # writes every new tensor twice; nothing reads one
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(before[1])
            memory.fill_uninitialized_memory = filled
            torch.set_rng_state(before[2])

    def describe(self) -> dict[str, object]:
        """What a reader of the numbers must know of the machine; by whitelist, no secrets of the environment."""
        cuda = self.device.type == "cuda"
        return {
            "mixcli": __version__, "python": platform.python_version(), "torch": str(torch.__version__),
            "numpy": np.__version__, "platform": platform.platform(), "cpu_count": os.cpu_count(),
            "device": torch.cuda.get_device_name(self.device) if cuda else "cpu",
            "threads": self.threads, "deterministic": self.deterministic,
            "precision": "bf16" if self.bf16 else "fp32",
        }  # fmt: skip


def prepare(settings: Train) -> Machine:
    """The machine that the settings ask for. Raises UserError for a device that is not there."""
    device = _device(settings.device)
    bf16 = settings.precision == "bf16"
    if bf16 and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("config", "precision", "this GPU has no bfloat16", got="bf16", expected="fp32")
    deterministic = device.type == "cpu" if settings.deterministic is None else settings.deterministic
    return Machine(device, settings.threads or torch.get_num_threads(), deterministic, bf16)


def _device(name: str) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda", 0) if count else torch.device("cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or (name != "cuda" and not number.isdecimal()):
        raise UserError("config", "device", "unknown device", got=name or "''", expected="cpu, cuda, cuda:N or auto")
    if not count:
        raise UserError("config", "device", "CUDA not available", got=name, expected="cpu")
    if int(number or 0) >= count:
        raise UserError("config", "device", "no such GPU", got=name, expected=f"cuda:N with N < {count}")
    return torch.device("cuda", int(number or 0))
