"""overhead.py: what a step of each arm costs against one of the baseline, in blocks of the training loop's own steps.

Every block builds its arm anew, so that one is in memory at a time, drops warm-up steps and times the rest as a whole,
the device synchronised before each reading of the clock. The order of the arms is reversed in every second block, so
that a drift of the machine meets all alike. Medians are over blocks; the interval of a ratio resamples the blocks, the
same ones of both arms. Nothing is trained to its end and no run is made.

On CUDA these are wall times, on a CPU the seconds that it computed. They are of this machine alone: a device that
others use too gives other ratios, which is warned about where it can be seen. The training images lie on the device
("resident").
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from mixcli.engine import training
from mixcli.engine.stopping import Stop
from mixcli.engine.timing import stepping
from mixcli.errors import UserError
from mixcli.files import as_json, make_folder, write_atomic
from mixcli.report.rows import SHORT, as_csv
from mixcli.sampling import Random
from mixcli.studies.bench.benchmark import clock_of
from mixcli.studies.design import Arm, Design
from mixcli.studies.written import Timing

RESAMPLES = 10_000
IDLE = 0.5  # load per core above which a machine is called busy
OTHERS = 2**30  # bytes on a GPU, before anything of ours, above which somebody else is there


@dataclass(frozen=True)
class Block:
    """What one arm took in one block: seconds and images per step, and on CUDA the peak of memory in use."""

    arm: str
    block: int
    seconds_per_step: float
    images_per_step: float
    steps_per_epoch: int
    peak_bytes: int | None


def forecast(design: Design, device: str) -> dict[str, Any]:
    """What would be measured. Makes nothing."""
    timing = _timing(design)
    count = len(design.arms) * timing.blocks
    return {"study": design.name, "question": design.fields.question, "cells": count, "to_do": count,
            "arms": [arm.name for arm in design.arms], "timing": timing.model_dump(), "device": device}  # fmt: skip


def measure(design: Design, device: str, note: Callable[[str], None], warn: Callable[[str, str], None]) -> dict:
    """Times every arm and returns the result as plain values: its blocks, and a row per arm (see `rows`).

    Raises UserError for what would stop an arm before its first step, and for a loss that is not finite.
    """
    timing = _timing(design)
    busy = _busy(device)
    if busy:
        warn(device, f"{busy}; times of a machine that others use compare badly")
    blocks, environment = [], {}
    for number in range(timing.blocks):
        for arm in design.arms if number % 2 == 0 else reversed(design.arms):
            block, environment = _block(arm, number, timing, device)
            blocks.append(block)
            done = f"{len(blocks)}/{len(design.arms) * timing.blocks}"
            note(f"{done}  {arm.name}  {1e3 * block.seconds_per_step:.2f} ms per step")
    return {
        "study": design.name, "question": design.fields.question, "baseline": design.baseline, "data": "resident",
        "clock": "wall time" if device.startswith("cuda") else "CPU time", "timing": timing.model_dump(),
        "busy": busy, "environment": environment,
        "rows": list(rows(blocks, design.baseline, timing.published)),
        "blocks": [asdict(block) for block in blocks],
    }  # fmt: skip


def _timing(design: Design) -> Timing:
    assert design.timing is not None
    return design.timing


def _busy(device: str) -> str:
    """How it shows that somebody else uses the device; empty where it does not show."""
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(torch.device(device))
        return f"{(total - free) / 2**30:.1f} GiB in use before the start" if total - free > OTHERS else ""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    return f"load {load:.1f} on {cores} cores before the start" if load > IDLE * cores else ""


def _block(arm: Arm, number: int, timing: Timing, device: str) -> tuple[Block, dict[str, Any]]:
    """Builds an arm, makes its steps, and forgets it; also what describes the machine."""
    settings = arm.settings.model_copy(update={"device": device})
    made = training.ready(settings, arm.cells[0].job.run, training.Silent(), Stop())
    cuda, progress = made.machine.device.type == "cuda", made.state.progress
    with made.machine.session():
        made.state.net.train()
        clock, steps = clock_of(made.machine.device), stepping(made)
        list(islice(steps, timing.warm_up))
        if cuda:
            torch.cuda.reset_peak_memory_stats(made.machine.device)
        images, begun = progress.images, clock()
        list(islice(steps, timing.steps))
        seconds = (clock() - begun) / timing.steps
    peak = torch.cuda.max_memory_allocated(made.machine.device) if cuda else None
    seen = (progress.images - images) / timing.steps
    found = Block(arm.name, number, seconds, seen, made.steps, peak), made.machine.describe()
    del made, steps, progress
    gc.collect()
    return found


def rows(blocks: Sequence[Block], baseline: str, published: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """A row per arm, medians over its blocks.

    `seconds_per_step`, `seconds_per_epoch`, `seconds_per_image` (seen, supplements counted, each once), `peak_bytes`
    (CUDA; None elsewhere), `images_per_step`; `ratio` of the seconds per step to the baseline's, its 95 % bootstrap
    interval over blocks `low` .. `high`; `published` and whether that lies `inside` the interval, None where none is.
    """
    plain = _of(blocks, baseline)
    for arm in dict.fromkeys(block.arm for block in blocks):
        mine = _of(blocks, arm)
        low, high = interval([b.seconds_per_step for b in mine], [b.seconds_per_step for b in plain])
        ratio = median(b.seconds_per_step for b in mine) / median(b.seconds_per_step for b in plain)
        peaks = [block.peak_bytes for block in mine if block.peak_bytes is not None]
        known = published.get(arm)
        yield {
            "arm": arm, "seconds_per_step": median(b.seconds_per_step for b in mine),
            "seconds_per_epoch": median(b.seconds_per_step * b.steps_per_epoch for b in mine),
            "seconds_per_image": median(b.seconds_per_step / b.images_per_step for b in mine),
            "images_per_step": median(b.images_per_step for b in mine),
            "peak_bytes": median(peaks) if peaks else None, "ratio": ratio, "low": low, "high": high,
            "published": known, "inside": None if known is None else bool(low <= known <= high),
        }  # fmt: skip


def _of(blocks: Sequence[Block], arm: str) -> list[Block]:
    return sorted((block for block in blocks if block.arm == arm), key=lambda block: block.block)


def interval(times: Sequence[float], plain: Sequence[float]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the ratio of two medians; a block is drawn of both at once.

    times, plain  (blocks,) seconds, in the order of the blocks
    """
    a, b = np.array(times), np.array(plain)
    drawn = Random(0, "overhead/bootstrap").host.integers(0, len(a), (RESAMPLES, len(a)))
    low, high = np.quantile(np.median(a[drawn], axis=1) / np.median(b[drawn], axis=1), [0.025, 0.975])
    return float(low), float(high)


def write(found: Mapping[str, Any], folder: Path) -> None:
    """overhead.csv, blocks.csv and overhead.json, which holds all. Raises UserError: disk_full, io."""
    make_folder(folder)
    write_atomic(folder / "overhead.csv", as_csv(found["rows"], SHORT))
    write_atomic(folder / "blocks.csv", as_csv(found["blocks"], SHORT))
    write_atomic(folder / "overhead.json", as_json(found, indent=2))


def read(folder: Path) -> dict[str, Any]:
    """What was measured last. Raises UserError: usage where nothing was, data_corrupt for a file that is none."""
    path = folder / "overhead.json"
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError("usage", "--report", "nothing was measured yet", hint="Leave --report out") from None
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or "rows" not in found:
        raise UserError("data_corrupt", str(path), "not a measurement", hint="Measure again")
    return found
