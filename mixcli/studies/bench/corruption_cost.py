"""corruption_cost.py: what generating a corrupted set costs: ours against a loop over the images, cell by cell.

Ours makes every image of the set once, in as many rounds as there are; in each round the loops of corruption_loops.py
take their turn on the first images of the same slice, fewer where they are dear (a row says how many). CPU seconds of
one thread, draws included; what either makes once and keeps (tables, kernels) is made before the clock starts. All
forms take turns, so that a slow minute meets all of them alike; a ratio is the median of the rounds.

Beside each ratio stands the goal that was set for it. No test passes or fails on a time.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from PIL import Image

from mixcli.corruptions import catalogue, frost_pictures
from mixcli.corruptions.catalogue import SEVERITIES, SUBSTITUTES
from mixcli.corruptions.generated import Generated
from mixcli.corruptions.parameters import NAMES
from mixcli.data import sources
from mixcli.errors import UserError, nearest
from mixcli.recipe import Train
from mixcli.sampling import Random
from mixcli.studies.bench import corruption_loops
from mixcli.studies.bench.benchmark import environment, one_thread

IMAGES, ROUNDS = 10_000, 10
TURN = 0.1  # seconds that a loop's turn lasts, about
FEWEST = 2  # images of a loop's turn, whatever they cost
GOALS = {  # how many times as long the published generator takes as ours is to take
    "gaussian_noise": 1.5, "shot_noise": 1.2, "impulse_noise": 1.5, "defocus_blur": 1.2, "glass_blur": 40,
    "motion_blur": 4, "zoom_blur": 25, "snow": 7, "frost": 80, "fog": 8, "brightness": 10, "contrast": 3,
    "elastic_transform": 2, "pixelate": 0.83, "jpeg_compression": 0.83, "speckle_noise": 1.5, "gaussian_blur": 3,
    "spatter": 1, "saturate": 6,
}  # fmt: skip
GOAL_OF_ALL = 10
DEAREST = ("glass_blur", "zoom_blur", "frost_procedural")  # most of the published time; the total is also given without


def corruptions(
    names: Collection[str] | None = None, data_dir: str = "data", images: int = IMAGES, rounds: int = ROUNDS,
    turn: float = TURN,
) -> dict[str, Any]:  # fmt: skip
    """Every corruption at every severity on `images` images of 32 x 32 px, ours and a loop over the images.

    names     of corruptions; None for all
    data_dir  where CIFAR-100 is looked for; its test images, else random smooth pictures
    rounds    slices in which ours makes the images, at least as many as there are severities' medians worth having
    turn      seconds that a loop's turn lasts, about

    A row of `rows` is one corruption: `us` and `loop_us` per image, the mean over severities; `times` their ratio, and
    its `lowest` and `highest` severity; `goal`; `loop_images` in all rounds of a severity; of a loop that hands images
    over as PNG files in memory, `times_direct` without that. The last two rows are totals over all, and without glass
    blur, zoom blur and frost. `cells` has the figures of each severity. Raises UserError for an unknown name.
    """
    chosen = _chosen(names)
    pixels, told = _pictures(data_dir, images)
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        loops = {**corruption_loops.LOOPS, SUBSTITUTES["frost"]: corruption_loops.frost(_frost_files(Path(folder)))}
        cells = [_cell(name, s, loops[name], pixels, rounds, turn) for name in chosen for s in SEVERITIES]
    rows = [_row([cell for cell in cells if cell["corruption"] == name], name) for name in chosen]
    totals = {"all": chosen, "all but glass, zoom, frost": [name for name in chosen if name not in DEAREST]}
    rows += [_total(title, [row for row in rows if row["corruption"] in some])
             for title, some in totals.items() if len(some) > 1]  # fmt: skip
    versions = {name: metadata.version(name) for name in ("numpy", "scipy", "pillow")}
    return {
        "unit": f"microseconds per image, CPU time of one thread; {images:,} images of 32 x 32 px ({told}) in "
                f"{rounds} rounds; of a loop in turns with ours{_files_told(rows)}",
        "rows": rows, "cells": cells,
        "environment": {**environment(threads=1), **versions, "device": "cpu"},
    }  # fmt: skip


def _files_told(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which ratios are mostly those of a detour that published scripts make."""
    names = [row["corruption"] for row in rows if row["corruption"] in corruption_loops.WITHOUT_FILES]
    if not names:
        return ""
    return (
        f"; the loop of {' and '.join(names)} hands each image over as a PNG in memory and takes it back so, as "
        "scripts that call ImageMagick do, which is most of its time: `no PNG` is the ratio without that"
    )


def _chosen(names: Collection[str] | None) -> list[str]:
    """The corruptions by the names they run under; frost is the one whose pictures are at hand."""
    known = [SUBSTITUTES.get(name, name) for name in NAMES]
    wanted = None if names is None else {SUBSTITUTES.get(name, name) for name in names}
    for name in wanted or ():
        if name not in known:
            raise UserError("usage", "bench", "unknown corruption", got=name, hint=nearest(name, known))
    return [name for name in known if wanted is None or name in wanted]


def _pictures(data_dir: str, images: int) -> tuple[np.ndarray, str]:
    """(images, 32, 32, 3) uint8 and what they are."""
    try:
        found = sources.load(Train.model_validate({"dataset": "cifar100", "data_dir": data_dir})).test.images
    except UserError as error:
        if error.kind != "data_missing":
            raise
        return smooth(images), "random smooth pictures"
    if images > len(found):
        raise UserError("usage", "images", "more than CIFAR-100's test split has", images, f"1..{len(found)}")
    return found[:images], "CIFAR-100 test images"


def smooth(images: int, side: int = 32) -> np.ndarray:
    """(images, side, side, 3) uint8: filtered noise with the fall of natural images' spectra, an eighth of it grey."""
    noise = frost_pictures.filtered_noise(Random(0, "bench/corruptions").host.standard_normal((images, 3, side, side)))
    noise[::8] = noise[::8, :1]
    return np.clip(128 + 60 * noise, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1).copy()


def _frost_files(folder: Path) -> Path:
    """Our own pictures as files, lossless and JPEG as the published ones are."""
    for number, picture in enumerate(frost_pictures.drawn(), 1):
        Image.fromarray(picture.numpy()).save(folder / f"frost{number}.{'png' if number <= 3 else 'jpg'}")
    return folder


def _cell(
    name: str, severity: int, loop: corruption_loops.Loop, pixels: np.ndarray, rounds: int, turn: float
) -> dict[str, Any]:
    """One cell, ours and the loop in turns."""
    parameters, rng = catalogue.parameters(name, severity, pixels.shape[1:]), RandomState(severity)
    _ours(name, severity, pixels[:2], 0)  # makes the tables
    _looped(loop, parameters, pixels[:FEWEST], rng)
    cost = _looped(loop, parameters, pixels[:FEWEST], rng) / FEWEST
    direct = corruption_loops.WITHOUT_FILES.get(name)
    ours, theirs, others = [], [], []
    for part in np.array_split(np.arange(len(pixels)), rounds):
        count = min(len(part), max(FEWEST, round(turn / cost)))
        ours.append(_ours(name, severity, pixels[part], int(part[0])) / len(part))
        theirs.append(_looped(loop, parameters, pixels[part[:count]], rng) / count)
        others.append(_looped(direct, parameters, pixels[part[:count]], rng) / count if direct else theirs[-1])
    return {
        "corruption": name, "severity": severity, "images": len(pixels), "loop_images": count * rounds,
        "us": statistics.median(ours) * 1e6, "loop_us": statistics.median(theirs) * 1e6,
        "direct_us": statistics.median(others) * 1e6,
        "times": statistics.median(slow / fast for slow, fast in zip(theirs, ours, strict=True)),
    }  # fmt: skip


def _ours(name: str, severity: int, pixels: np.ndarray, first: int) -> float:
    """CPU seconds of one slice, as eval-corruptions makes it."""
    made = Generated(torch.from_numpy(pixels), torch.arange(first, first + len(pixels)), seed=0)
    start = time.process_time()
    made.cell(name, severity)
    return time.process_time() - start


def _looped(loop: corruption_loops.Loop, parameters: Any, pixels: np.ndarray, rng: RandomState) -> float:
    start = time.process_time()
    np.stack([loop(image, parameters, rng) for image in pixels])
    return time.process_time() - start


def _row(cells: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    original = {substitute: known for known, substitute in SUBSTITUTES.items()}.get(name, name)
    us, loop_us, direct_us = (statistics.fmean(cell[key] for cell in cells) for key in ("us", "loop_us", "direct_us"))
    return {
        "corruption": name, "loop_images": min(cell["loop_images"] for cell in cells), "us": us, "loop_us": loop_us,
        "times": loop_us / us, "lowest": min(cell["times"] for cell in cells),
        "highest": max(cell["times"] for cell in cells), "goal": float(GOALS[original]), "direct_us": direct_us,
        "times_direct": direct_us / us if name in corruption_loops.WITHOUT_FILES else None,
    }  # fmt: skip


def _total(title: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    us, loop_us, direct_us = (sum(row[key] for row in rows) for key in ("us", "loop_us", "direct_us"))
    goal = float(GOAL_OF_ALL) if title == "all" else None
    return {"corruption": title, "loop_images": None, "us": us, "loop_us": loop_us, "times": loop_us / us,
            "lowest": None, "highest": None, "goal": goal, "direct_us": direct_us,
            "times_direct": direct_us / us if direct_us != loop_us else None}  # fmt: skip
