"""step_cost.py: what a training step of each method costs against one of plain training, part by part.

The parts are those of the training loop itself, run on random pixels with random labels, so that nothing is downloaded
and nothing written:

    data       the rows of the order, with their part of laying out the epoch; the batch in every view
    plan       the method's draws
    forward    mixing, net and loss
    backward   gradients
    optimizer  the guard, the update, the log's sums

The methods take turns, round by round, so that a slow minute meets all of them alike. On a CPU its seconds are counted,
of one thread; on CUDA it is wall time, with the device synchronised between the parts, and once more whole steps
without that. Where a net is so slow that not every method can be stepped in time, only plain training is, and of the
others the parts before the net are measured.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mixcli import options
from mixcli.data.order import Order
from mixcli.data.sources import Source, Split
from mixcli.engine import device as devices
from mixcli.engine.stopping import Stop
from mixcli.engine.timing import Clock
from mixcli.engine.training import Silent, Training
from mixcli.mix import Batch, implementation
from mixcli.recipe import Facts, Train, complete
from mixcli.runs import Run
from mixcli.sampling import Random
from mixcli.settings import METHODS, Method, Mixing, NoMixing
from mixcli.studies.bench.benchmark import clock_of, environment, ratio

PARTS = ("data", "plan", "forward", "backward", "optimizer")
ROUNDS = 3  # turns that a method has at least, where the time runs out
CALLS = 5  # of what happens before the net, in a turn without steps
TURN, MOST = 0.1, 10  # seconds that fast steps are taken for in a turn, and how many of them at most


def step(
    net: str = "small",
    pixels: int = 32,
    batch: int = 128,
    classes: int = 100,
    images: int = 4096,
    names: Collection[str] | None = None,
    rounds: int = 7,
    seconds: float = 50.0,
    device: str = "cpu",
    **changes: Any,
) -> dict[str, Any]:
    """One step of `none` and of every other method with its defaults, in milliseconds and as ratios.

    pixels   side of the square images, which have three channels
    images   in the epoch that is laid out
    names    of methods beside `none`; None for all
    rounds   turns of each method, whose medians are given
    seconds  that the rounds may take, about: if three rounds of steps do not fit, only `none` makes them
    changes  further settings of training, such as `precision` or `compile`

    A row of `rows` is one method, of plain numbers (None: not measured): `data_ms` and so on, the medians of the parts;
    `step_ms`, that of their sum; `ratio`, of that sum to the one of `none` in the same round: the median, the lowest
    and the highest; `images_per_second`, supplements not counted; `unbroken_ms`, on CUDA, of steps with no waiting
    between their parts. For mixings of images `mix_ms` is what applying takes, images and targets, a part of forward,
    and `mixing_share` is (plan + mix) / step of `none`; what a second view costs is in neither, but in `data_ms`.
    Raises UserError for unknown names and settings.
    """
    methods = _chosen(names)
    base = {"net": net, "batch": batch, "device": device, "threads": 1, "dataset": "random pixels", **changes}
    facts = Facts("random pixels", images, 0, classes, channels=3, size=(pixels, pixels))
    source = _source(facts)
    benches = [Bench(_training(method, base, source)) for method in methods]
    machine = benches[0].training.machine
    clock = clock_of(machine.device)
    with machine.session():
        whole = _warm_up(benches, rounds, seconds, clock)
        end = time.perf_counter() + seconds
        for number in range(rounds):
            if number >= ROUNDS and time.perf_counter() > end:
                break
            for k in Random(0, "bench/turns", number).host.permutation(len(benches)):  # nobody always follows the same
                benches[k].turn(clock)
    kind = "wall time" if machine.device.type == "cuda" else "CPU time of one thread"
    return {
        "unit": f"milliseconds per step, {kind}", "net": net, "pixels": pixels, "batch": batch, "classes": classes,
        "rounds": len(benches[0].turns), "every_method_stepped": whole,
        "rows": [bench.row(benches[0]) for bench in benches],
        "environment": {**environment(threads=1), **machine.describe()},
    }  # fmt: skip


def _chosen(names: Collection[str] | None) -> list[Method]:
    """The methods that take turns, plain training first."""
    others = METHODS.values() if names is None else [options.method(name, "--names") for name in dict.fromkeys(names)]
    return [NoMixing(), *(cls() for cls in others if cls is not NoMixing)]


def _source(facts: Facts) -> Source:
    """Random pixels with labels 0, 1, 2, ... around and around."""
    rng, labels = Random(0, "bench/pixels").host, np.arange(facts.images) % facts.classes
    pixels = rng.integers(0, 256, (facts.images, *facts.size, facts.channels), dtype=np.uint8)
    train = Split(pixels, labels, np.arange(facts.images))
    half = (0.5,) * facts.channels
    names = tuple(map(str, range(facts.classes)))
    return Source(facts.identity, facts, names, train, None, train.take(np.arange(0)), half, half, digest="")


def _training(method: Method, base: dict[str, Any], source: Source) -> Training:
    """A run about to make its first step, whose folder is never made; of two halves, where one needs no labels."""
    if implementation(method).needs(method).unlabelled is not None:
        labels = max(1, source.facts.images // 2 // source.facts.classes) * source.facts.classes
        halves = np.split(np.arange(source.facts.images), [labels])
        source = replace(source, train=source.train.take(halves[0]), unlabelled=source.train.take(halves[1]))
        base = {**base, "labels": labels}
    train = complete(Train.model_validate({**base, "method": method}), source.facts)
    training = Training(train, source, Run(Path("bench")), Silent(), devices.prepare(train), Stop())
    training.state.net.train()
    return training


def _warm_up(benches: list[Bench], rounds: int, seconds: float, clock: Clock) -> bool:
    """Steps each method once, unless the first, plain step tells that this would take too long; says which it was."""
    first = benches[0]
    order = first.training.order(0)
    first.training.batch(order.step(0))  # the data set goes to its device
    start = clock()
    made_step(first.training, order, clock)
    cost = clock() - start
    whole = cost * len(benches) * min(rounds, ROUNDS) <= seconds
    for bench in benches:
        bench.steps = max(1, min(MOST, int(TURN / cost))) if whole or bench is first else 0
        if bench is not first or whole:
            bench.turn(clock)
            bench.turns.clear()
    return whole


# ------------------------------------------------------------------------------------------------------- one method


@dataclass
class Bench:
    """A method's training and what its turns took.

    steps  in a turn; 0 for one whose steps take too long
    turns  seconds per step by part; also `mix`, and `unbroken` on CUDA
    """

    training: Training
    steps: int = 1
    turns: list[dict[str, float]] = field(default_factory=list)

    def turn(self, clock: Clock) -> None:
        """Lays out an epoch and makes some steps of it, or what of them happens before the net."""
        training = self.training
        start = clock()
        order = training.order(0)
        layout = (clock() - start) / training.steps
        make = made_step if self.steps else made_batch
        made = [make(training, order, clock) for _ in range(self.steps or CALLS)]
        mean = {part: sum(one[part] for one in made) / len(made) for part in made[0]}
        mean["data"] += layout
        if self.steps and training.machine.device.type == "cuda":
            mean["unbroken"] = self.unbroken(order, clock) + layout
        self.turns.append(mean)

    def unbroken(self, order: Order, clock: Clock) -> float:
        """Seconds of a step of the loop's own; `made_step` mixes once more."""
        training, start = self.training, clock()
        for _ in range(self.steps):
            training.step(order, training.state.step % training.steps)
        return (clock() - start) / self.steps

    def row(self, plain: Bench) -> dict[str, Any]:
        """The medians over the turns; see `step`."""
        settings = self.training.settings
        of_part = {part: [turn[part] for turn in self.turns] for part in self.turns[0]}
        steps, plain_steps = self.sums(), plain.sums()
        found = ratio({"this": steps, "plain": plain_steps}, "this", "plain") if steps else {}
        mixing = [plan + mix for plan, mix in zip(of_part["plan"], of_part["mix"], strict=True)]
        share = [part / step for part, step in zip(mixing, plain_steps, strict=True)]
        mixes = isinstance(settings.method, Mixing)
        return {
            "method": settings.method.label(),
            **{f"{part}_ms": _ms(of_part.get(part)) for part in PARTS}, "step_ms": _ms(steps),
            "ratio": found.get("median"), "ratio_lowest": found.get("lowest"), "ratio_highest": found.get("highest"),
            "images_per_second": self.training.batch_size / median(steps) if steps else None,
            "unbroken_ms": _ms(of_part.get("unbroken")),
            "mix_ms": _ms(of_part["mix"]) if mixes else None, "mixing_share": median(share) if mixes else None,
        }  # fmt: skip

    def sums(self) -> list[float]:
        """Seconds of a whole step, by turn; empty where none was made."""
        return [sum(turn[part] for part in PARTS) for turn in self.turns] if self.steps else []


def made_step(training: Training, order: Order, clock: Clock) -> dict[str, float]:
    """Makes the training's next step, as its own loop does, and tells the seconds of each part, and of `mix`.

    Left out is only the seed of dropout, which no net here has; `mix` is done once more, after the step.
    """
    state, at = training.state, [clock()]
    k = state.step % training.steps
    images = order.step(k)
    batch = training.batch(images)
    at.append(clock())
    plan, together = _planned(training, order, k)
    at.append(clock())
    with training.machine.autocast():
        losses = training.forward(batch, plan)
    at.append(clock())
    state.optimizer.zero_grad(set_to_none=True)
    losses.total.backward()
    at.append(clock())
    norm = state.gradient_norm()
    if training.guard.watch(state.step, losses.total, norm, state.optimizer):
        training.guard.first_bad()
    state.update([losses], len(images.rows) + len(images.unlabelled), norm)
    at.append(clock())
    parts = dict(zip(PARTS, np.diff(at).tolist(), strict=True))
    parts["plan"] /= together
    return {**parts, "mix": _mixed(training.settings.method, batch, plan, clock)}


def _planned(training: Training, order: Order, k: int) -> tuple[Any, int]:
    """The plan of step k, and with how many it was drawn: always anew, or one turn in many would pay for all."""
    training.plans.clear()
    plan = training.planned(order, k)
    return plan, 1 + len(training.plans)


def made_batch(training: Training, order: Order, clock: Clock) -> dict[str, float]:
    """What of the next step happens before the net, in seconds; the step is passed over."""
    start = clock()
    k = training.state.step % training.steps
    images = order.step(k)
    batch = training.batch(images)
    data = clock()
    plan, together = _planned(training, order, k)
    drawn = clock()
    training.state.step += 1
    mix = _mixed(training.settings.method, batch, plan, clock)
    return {"data": data - start, "plan": (drawn - data) / together, "mix": mix}


def _mixed(method: Method, batch: Batch, plan: Any, clock: Clock) -> float:
    """Seconds of applying a mixing to its images and labels; of another method 0."""
    if not isinstance(method, Mixing):
        return 0.0
    start = clock()
    plan.mix.images(batch.rows)
    batch.targets(plan.mix)
    return clock() - start


def _ms(seconds: list[float] | None) -> float | None:
    return 1e3 * median(seconds) if seconds else None
