"""benchmark.py: what a step costs here: ours against the usual way, measured in the same minutes on the same machine.

CPU seconds are counted, not wall time: they can be compared on a shared machine, and a second spent in a worker
process is a second. Every process computes with one thread, as the workers of a DataLoader do by themselves: threads
that wait for each other burn CPU seconds. The things compared take turns, round by round, so that a slow minute meets
all of them alike.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mixcli.data.augment import Augmentation
from mixcli.data.order import epoch
from mixcli.data.resident import Resident
from mixcli.engine.timing import Clock, wall_of
from mixcli.mixing import class_blend
from mixcli.sampling import Random

MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)  # CIFAR-100's
WORKERS = 2


def data(images: int = 4096, batch: int = 128, rounds: int = 5) -> dict[str, Any]:
    """The batched augmentation against a two-worker DataLoader with PIL transforms, in CPU seconds per image.

    Both give normalised float32 batches of 3x32x32 images, padded by 4, cropped and flipped, out of random uint8 ones.
    Of the workers, what they spend on starting is left out.
    """
    pixels = np.random.Generator(np.random.Philox(0)).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(images) % 100
    view = Augmentation(pad=4, pad_mode="zero", flip=True)
    resident = Resident(pixels, labels, MEAN, STD, view, torch.device("cpu"))
    loader = _pillow_loader(pixels, labels, batch)
    used = images // batch * batch
    measures = {"batched": lambda: _batched_seconds(resident, batch), "dataloader": lambda: _loader_seconds(loader)}
    with one_thread():
        seconds = in_turns(measures, rounds)
    return {
        "images": used, "batch": batch, "rounds": rounds, "workers": WORKERS,
        "cpu_us_per_image": {name: median * 1e6 / used for name, median in medians(seconds).items()},
        "ratio": ratio(seconds, "dataloader", "batched"),
        "cpu_seconds": seconds,
        "environment": environment(threads=1),
    }  # fmt: skip


def in_turns(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each measure returned in each round; before the first round each is called once and forgotten."""
    for measure in measures.values():
        measure()
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            seconds[name].append(measure())
    return seconds


def clock_of(device: torch.device) -> Clock:
    """CPU seconds of this process; on CUDA wall seconds after all that was asked for is done."""
    return wall_of(device) if device.type == "cuda" else time.process_time


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes with one CPU thread inside, and with as many as before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    """The median over the rounds, by name."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def ratio(seconds: dict[str, list[float]], slow: str, fast: str) -> dict[str, float]:
    """How many times as long `slow` takes as `fast`: the median of the rounds, the lowest and the highest of them."""
    of_rounds = [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]
    return {"median": statistics.median(of_rounds), "lowest": min(of_rounds), "highest": max(of_rounds)}


def environment(threads: int | None = None) -> dict[str, Any]:
    """What a measurement depends on and a reader cannot see; `threads` as now, unless the measure set its own."""
    return {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine(),
            "threads": threads or torch.get_num_threads(), "cpus": os.cpu_count()}  # fmt: skip


def _batched_seconds(resident: Resident, batch: int) -> float:
    """CPU seconds of one epoch of our pipeline, the order included."""
    start = time.process_time()
    order = epoch(resident.labels, batch, 0, Random(0, "order"))
    for k in range(len(order)):
        rows = order.step(k).rows
        resident.view(torch.from_numpy(rows), 1.0, Random(0, "augment", k))
    return time.process_time() - start


class PillowView(Dataset):
    """Images as the usual pipeline has them: one PIL image after another through torchvision's transforms."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        from torchvision import transforms

        self.images, self.labels = images, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[row])), int(self.labels[row])


def _pillow_loader(images: np.ndarray, labels: np.ndarray, batch: int) -> DataLoader:
    """A shuffling loader whose workers tell their CPU clock with every batch."""
    return DataLoader(
        PillowView(images, labels),
        batch,
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
        num_workers=WORKERS,
        drop_last=True,
        worker_init_fn=_start_clock,
        collate_fn=_collate,
    )


_clock = 0.0  # CPU seconds of this worker process when it was ready


def _start_clock(worker: int) -> None:
    global _clock
    _clock = time.process_time()


def _collate(items: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor, int, float]:
    """A batch, the worker that made it, and the CPU seconds which that worker has used since it was ready."""
    images, labels = zip(*items, strict=True)
    batch = torch.stack(images), torch.tensor(labels)
    return *batch, os.getpid(), time.process_time() - _clock


def _loader_seconds(loader: DataLoader) -> float:
    """CPU seconds of one epoch through the loader: this process and its workers, without what starting them costs."""
    batches: Iterator = iter(loader)
    start, workers = time.process_time(), {}
    for _images, _labels, worker, seconds in batches:
        workers[worker] = max(workers.get(worker, 0.0), seconds)
    return time.process_time() - start + sum(workers.values())


def synermix(
    batch: int = 128, classes: int = 100, features: int = 512, calls: int = 50, rounds: int = 9
) -> dict[str, Any]:
    """The class blend of a step, its draws included, against a loop over the classes, in CPU seconds per call.

    The loop goes over `unique(labels)`, masks, draws, normalises and sums; head and cross-entropy are on neither side.
    """
    labels = np.random.Generator(np.random.Philox(0)).integers(0, classes, batch)
    x = torch.randn(batch, features, generator=torch.Generator().manual_seed(0))
    forms = {"blend": _blended(labels, classes), "loop": _looped(torch.from_numpy(labels))}
    measures = {}
    for name, form in forms.items():
        measures[f"{name} forward"] = lambda form=form: _calls(calls, lambda step: form(x, step))
        measures[f"{name} with backward"] = lambda form=form: _calls(calls, lambda step: _with_backward(form, x, step))
    with one_thread():
        seconds = in_turns(measures, rounds)
    return {
        "batch": batch, "classes": classes, "features": features, "calls": calls, "rounds": rounds,
        "cpu_us_per_call": {name: median * 1e6 / calls for name, median in medians(seconds).items()},
        "ratio": {way: ratio(seconds, f"loop {way}", f"blend {way}") for way in ("forward", "with backward")},
        "environment": environment(threads=1),
    }  # fmt: skip


def _calls(calls: int, call: Callable[[int], object]) -> float:
    """CPU seconds of so many calls, each given its number."""
    start = time.process_time()
    for step in range(calls):
        call(step)
    return time.process_time() - start


def _with_backward(form: Callable[[torch.Tensor, int], torch.Tensor], x: torch.Tensor, step: int) -> None:
    leaf = x.detach().requires_grad_()
    z = form(leaf, step)
    z.backward(torch.ones_like(z))


def _blended(labels: np.ndarray, classes: int) -> Callable[[torch.Tensor, int], torch.Tensor]:
    return lambda x, step: class_blend.draw(labels, classes, Random(0, "mix", step)).features(x)


def _looped(labels: torch.Tensor) -> Callable[[torch.Tensor, int], torch.Tensor]:
    def blend(x: torch.Tensor, step: int) -> torch.Tensor:
        blends = []
        for c in torch.unique(labels):
            members = x[labels == c]
            drawn = torch.rand(len(members), 1)
            blends.append((drawn / drawn.sum() * members).sum(0))
        return torch.stack(blends)

    return blend
