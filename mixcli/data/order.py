"""order.py: which images a step trains on, supplements and unlabelled images included.

Supplementation is that of SynerMix (Xu et al. 2024, arXiv 2403.14137), where it sits in the sampler:

    order = permutation of the N training images, keyed (seed, "order", epoch)
    step k takes order[k B : (k + 1) B]; the remainder of the epoch is dropped
    a class with 1 .. n - 1 images in the batch gets images of its own, uniform among those not in the batch,
    until it has n or all of the class; they come last and are ordinary members of the batch

Extras last is ours, and so is n: the authors add one image to a class that has one, which is n = 2. An extra may occur
again elsewhere in the epoch. An epoch of more steps than a pass goes on with another permutation. Images without labels
have permutations of their own, and their own number in a step. The whole epoch is laid out at once, without a loop over
steps, images or classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mixcli.sampling import Random


class Rows(NamedTuple):
    """The images of one step.

    rows        (B,) int64
    added       how many of them, the last ones, are supplements
    unlabelled  (U,) int64, in the numbering of the unlabelled images
    """

    rows: np.ndarray
    added: int
    unlabelled: np.ndarray


@dataclass(frozen=True)
class Order:
    """The batches of one epoch.

    rows        int64, flat: the rows of step k are rows[starts[k] : starts[k + 1]]
    starts      (steps + 1,) int64
    added       (steps,) int64: how many of a step's rows, the last ones, are supplements
    unlabelled  (steps, U) int64: the rows of the unlabelled images of each step, in their own numbering
    """

    rows: np.ndarray
    starts: np.ndarray
    added: np.ndarray
    unlabelled: np.ndarray

    def __len__(self) -> int:
        return len(self.added)

    def step(self, k: int) -> Rows:
        """The images of step `k`."""
        if not 0 <= k < len(self):
            raise IndexError(f"step {k} of {len(self)}")
        return Rows(self.rows[self.starts[k] : self.starts[k + 1]], int(self.added[k]), self.unlabelled[k])


def epoch(
    labels: np.ndarray,
    batch: int,
    supplement: int,
    random: Random,
    steps: int | None = None,
    unlabelled: tuple[int, int] = (0, 0),
) -> Order:
    """The order of one epoch over `labels` (N,) int64: steps of `batch` images and their supplements.

    supplement  n: fill every class present up to n images, or to all it has; 0 and 1 add nothing
    random      keyed (seed, "order", epoch)
    steps       None: one pass, N // batch
    unlabelled  how many images there are without labels, and how many of them a step takes
    """
    steps = len(labels) // batch if steps is None else steps
    drawn = _passes(len(labels), batch, steps, random)
    step, extra = _extras(labels, drawn, supplement, random)
    added = np.bincount(step, minlength=steps)
    starts = np.concatenate([[0], np.cumsum(batch + added)])
    rows = np.empty(starts[-1], dtype=np.int64)
    own = np.zeros(len(rows), dtype=bool)
    own[starts[:-1, None] + np.arange(batch)] = True
    rows[own] = drawn.ravel()
    rows[~own] = extra[np.argsort(step, kind="stable")]
    return Order(rows, starts, added, _passes(*unlabelled, steps, random.child("unlabelled")))


def _passes(images: int, batch: int, steps: int, random: Random) -> np.ndarray:
    """(steps, batch) int64: as many permutations of the images as it takes, the remainder of each dropped."""
    if batch == 0 or steps == 0:
        return np.empty((steps, batch), np.int64)
    whole = images // batch
    passes = [random.host.permutation(images)[: whole * batch] for _ in range(-(-steps // whole))]
    return np.concatenate(passes).reshape(-1, batch)[:steps]


def lone_classes(labels: np.ndarray) -> int:
    """How many classes have a single image: no batch can hold two of them, whatever is supplemented."""
    return int((np.bincount(labels) == 1).sum())


def _extras(labels: np.ndarray, drawn: np.ndarray, supplement: int, random: Random) -> tuple[np.ndarray, np.ndarray]:
    """The supplements of all batches `drawn` (steps, batch): the step of each, and its row; int64, unsorted.

    A cell is one class in one batch. Images are named by their rank within their class, so that "uniform among those
    not in the batch" is one integer: a free rank, stepped over the ranks that the cell already holds.
    """
    members, first, size, rank = _by_class(labels)
    classes = len(size)
    cell = np.arange(len(drawn))[:, None] * classes + labels[drawn]  # (steps, batch)
    count = np.bincount(cell.ravel(), minlength=len(drawn) * classes)
    short = np.flatnonzero((count > 0) & (count < np.minimum(supplement, np.tile(size, len(drawn)))))
    of_step, of_class = short // classes, short % classes
    held = count[short]
    taken = _ranks_held(short, cell.ravel(), rank[drawn.ravel()], supplement)
    steps, rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for have in range(1, supplement):
        grows = np.flatnonzero((held == have) & (size[of_class] > have))
        free = random.host.integers(size[of_class[grows]] - have)
        chosen = _step_over(taken[grows], free)
        taken[grows, have] = chosen
        held[grows] += 1
        steps.append(of_step[grows])
        rows.append(members[first[of_class[grows]] + chosen])
    return np.concatenate(steps), np.concatenate(rows)


def _by_class(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows sorted by class; per class where it starts among them and its size; per row its rank within its class."""
    members = np.argsort(labels, kind="stable")
    size = np.bincount(labels)
    first = np.cumsum(size) - size
    rank = np.empty_like(members)
    rank[members] = np.arange(len(members)) - first[labels[members]]
    return members, first, size, rank


FREE = np.iinfo(np.int64).max // 2  # in place of a rank: larger than every rank, so that it is never stepped over


def _ranks_held(short: np.ndarray, cell: np.ndarray, rank: np.ndarray, width: int) -> np.ndarray:
    """(cells, width) int64: the ranks that each cell of `short` (sorted) holds, then FREE.

    cell, rank  (steps * batch,) of every image drawn
    """
    taken = np.full((len(short), max(width, 1)), FREE)
    if len(short) == 0:
        return taken
    at = np.searchsorted(short, cell)
    inside = np.flatnonzero(short[np.minimum(at, len(short) - 1)] == cell)
    inside = inside[np.argsort(cell[inside], kind="stable")]
    line = at[inside]
    column = np.arange(len(line)) - np.searchsorted(line, line)  # position among the images of the same cell
    taken[line, column] = rank[inside]
    return taken


def _step_over(taken: np.ndarray, free: np.ndarray) -> np.ndarray:
    """The `free`-th rank (counted from 0) that is not among `taken` (cells, width), for each cell."""
    passed = np.sort(taken, axis=1) - np.arange(taken.shape[1])  # free ranks below each taken one
    return free + (passed <= free[:, None]).sum(axis=1)
