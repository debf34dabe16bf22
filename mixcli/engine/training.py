"""training.py: the only training loop.

A step is: the images of the order, a plan, a batch, one forward and backward of the Learner, one update. Everything
random in it is keyed by the seed and the step's number, so a run resumed between any two steps repeats the
uninterrupted one bit for bit, and no generator state is ever saved. Sums for the log stay on the device; nothing in a
step waits for a GPU.

With `accumulate = k` a step is k batches and still one update, by the mean of their gradients. A batch stays what the
method and BatchNorm see: each has its plan, its supplements and its statistics (running ones move k times a step).
Steps, not batches, are what schedules, averages, saves, resumes and the guard count, so an epoch has a k-th of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mixcli import options
from mixcli.data import order, sources
from mixcli.data.augment import Augmentation, training_view
from mixcli.data.order import Order, Rows
from mixcli.data.resident import Resident
from mixcli.engine import bits, checkpoint, device
from mixcli.engine.device import Machine
from mixcli.engine.guard import Guard
from mixcli.engine.inference import Evaluation, evaluate
from mixcli.engine.learner import Learner, of_any_size
from mixcli.engine.state import Progress, State, mean_total
from mixcli.engine.stopping import Stop
from mixcli.errors import UserError
from mixcli.fields import flag
from mixcli.mix import Batch, Context, Losses, implementation
from mixcli.nets.building import of_run
from mixcli.nets.whitening import whitenings
from mixcli.recipe import Train, epoch_steps, kept_epochs, unlabelled_batch
from mixcli.runs import Run
from mixcli.sampling import Random

PIECE = 2048  # images looked at together
AHEAD, PLANNED = 16, 2**21  # batches whose plans are drawn together, at most; fewer where masks have more pixels
LAST = 10  # evaluations whose median is reported beside the last one


class Reporter(Protocol):
    """What a run tells while it goes on."""

    def note(self, line: str) -> None: ...
    def warn(self, subject: str, problem: str) -> None: ...
    def step(self, done: int, total: int) -> None: ...
    def epoch(self, row: dict[str, Any]) -> None: ...


class Silent:
    """A reporter that tells nothing."""

    def note(self, line: str) -> None: ...
    def warn(self, subject: str, problem: str) -> None: ...
    def step(self, done: int, total: int) -> None: ...
    def epoch(self, row: dict[str, Any]) -> None: ...


def train(
    settings: Train,
    run: Run,
    reporter: Reporter,
    stop: Stop,
    *,
    resume_from: Path | None = None,
    begin: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Trains the run of completed `settings` and writes its folder; returns what result.json holds.

    stop         looked at between steps
    resume_from  a run.ckpt whose state is gone on from
    begin        called when all is read and nothing is left to be refused, before anything is written
    Raises UserError: diverged, interrupted, terminated, requeue, and whatever data, device and checkpoint raise.
    """
    training = ready(settings, run, reporter, stop, resumed=resume_from is not None)
    with training.machine.session():
        if resume_from is not None:
            training.restore(resume_from)
        begin()
        run.describe(training.machine.describe())
        return training.go()


def ready(settings: Train, run: Run, reporter: Reporter, stop: Stop, resumed: bool = False) -> Training:
    """A run about to make its first step: data read, net built, a first plan drawn; nothing is written.

    resumed  the weights of a checkpoint come next, so published ones need not be at hand
    """
    training = Training(settings, loaded(settings), run, reporter, device.prepare(settings), stop, resumed)
    training.plan(training.order(0).step(0), 0)  # a method that cannot be drawn on this net is refused here
    for option, effect in settings.method.doubts(training.epochs):
        reporter.warn(flag(option), effect)
    return training


def loaded(settings: Train) -> sources.Source:
    """The data set of a run, with the images without labels that its method asks for."""
    needs = implementation(settings.method).needs(settings.method)
    return sources.load(settings, None if needs.unlabelled is None else needs.unlabelled.which)


class Training:
    """A run in memory: its data, its method, its Learner, and the State that updates move."""

    def __init__(
        self, settings: Train, source: sources.Source, run: Run, reporter: Reporter, machine: Machine, stop: Stop,
        resumed: bool = False,
    ):  # fmt: skip
        assert settings.net and settings.batch and settings.epochs, "settings are completed before they are trained"
        self.settings, self.source, self.run = settings, source, run
        self.reporter, self.machine, self.stop = reporter, machine, stop
        self.method = implementation(settings.method)
        self.needs = self.method.needs(settings.method)
        self.batch_size, self.epochs = settings.batch, settings.epochs
        self.unlabelled_size = unlabelled_batch(settings, source.facts)
        self.steps = epoch_steps(settings, source.facts)
        self.total = self.steps * self.epochs

        facts = source.facts
        init = Random(settings.seed, "init")
        net = of_run(settings, facts.channels, facts.classes, facts.size, init, pretrained=not resumed)
        self.stages = net.sizes(facts.channels, *facts.size)
        smallest = min(self.batch_size, self.unlabelled_size or self.batch_size)
        if smallest * min(h * w for h, w in filter(None, self.stages.values())) < 2:
            raise UserError("config", "batch", "BatchNorm needs two values per channel, this net leaves one", got=1)
        self.layout = torch.channels_last if machine.device.type == "cuda" else torch.contiguous_format
        net = net.to(machine.device).to(memory_format=self.layout)
        self.state = State(net, settings, machine, self.steps, self.needs.average)
        self.learner = Learner(net, settings.method, self.state.teacher)
        self.forward = self._compiled() if settings.compile else self.learner
        self.guard = Guard(machine.device)
        self.ahead = max(1, min(AHEAD, PLANNED // (self.batch_size * facts.size[0] * facts.size[1])))
        self.plans: dict[int, Any] = {}  # drawn ahead, by the number of their batch

    # -- the loop ---------------------------------------------------------------------------------------------------

    def go(self) -> dict[str, Any]:
        """Trains from where the run stands to its end."""
        self._open()
        self.state.net.train()
        while self.state.step < self.total:
            self._epoch(self.state.step // self.steps)
        return self.run.finish(self._result())

    def _open(self) -> None:
        lone = order.lone_classes(self.source.train.labels)
        if lone:
            cannot = ", which cannot be supplemented" if self.supplement else ""
            self.reporter.warn(self.settings.dataset, f"{lone} of the classes have a single training image{cannot}")
        if self.settings.labels is not None:
            self.run.record_labelled(self.source.train.index.tolist(), self.settings.split_seed)
        self.run.truncate_metrics(self.state.step)
        if self.state.step == 0:
            self._fit_whitening()
        else:
            self.reporter.note(f"resumed at step {self.state.step} of {self.total}")

    def _fit_whitening(self) -> None:
        """Fits the net's whitening, where it has one, to the images trained on, and gives the averaged net the same."""
        nets = [net for net in (self.state.net, self.state.ema) if net is not None]
        layers = [layer for net in nets for layer in whitenings(net)]
        if not layers:
            return
        which = None if self.needs.unlabelled is None else self.needs.unlabelled.which
        used = [*([] if which == "all" else [self.data]), *([] if which is None else [self.unlabelled])]
        layers[0].fit(data.clean(k, k + PIECE) for data in used for k in range(0, len(data), PIECE))
        for layer in layers[1:]:
            layer.load_state_dict(layers[0].state_dict())

    def _epoch(self, epoch: int) -> None:
        begun = time.perf_counter() - self.state.progress.seconds
        order = self.order(epoch)
        for k in range(self.state.step % self.steps, self.steps):
            self._check_stop()
            self.step(order, k)
            self.state.progress.seconds = time.perf_counter() - begun
            self.reporter.step(self.state.step, self.total)
            if self.settings.save_every and self.state.step % self.settings.save_every == 0 and k + 1 < self.steps:
                self._save()
        self._close_epoch(epoch + 1)

    def step(self, order: Order, k: int) -> None:
        """The update of step k of an epoch, by the mean of its batches' gradients. Nothing here waits for a GPU."""
        batches = self.batches(order, k)
        self.state.optimizer.zero_grad(set_to_none=True)
        losses = [self._backward(part, images, self.planned(order, k, part)) for part, images in enumerate(batches)]
        norm = self.state.gradient_norm()
        if self.guard.watch(self.state.step, mean_total(losses), norm, self.state.optimizer):
            self._raise_if_diverged()
        self.state.update(losses, sum(len(images.rows) + len(images.unlabelled) for images in batches), norm)

    def _backward(self, part: int, images: Rows, plan: Any) -> Losses:
        """Adds the share of one of the step's batches to the gradients."""
        batch = self.batch(images, part)
        self._seed_dropout(part)
        if self.settings.compile and self.supplement:  # supplements make batches of many sizes
            of_any_size(batch, plan)
        with self.machine.autocast():
            losses = self.forward(batch, plan)
        (losses.total / self.settings.accumulate).backward()
        return losses

    def _close_epoch(self, epoch: int) -> None:
        """Evaluates, logs and saves what the epoch asks for."""
        self._raise_if_diverged()
        state = self.state
        row: dict[str, Any] = {"epoch": epoch, "step": state.step, "lr": state.lr(state.step - 1)}
        row["images"] = state.progress.images
        row["train"] = state.progress.means()
        if epoch % self.settings.eval_every == 0 or epoch == self.epochs:
            found = {name: evaluate(state.evaluated, data, self.machine) for name, data in self.held_out.items()}
            row |= {name: evaluation.row() for name, evaluation in found.items()}
            if epoch == self.epochs:
                bits.write(self.run.correct, found["test"].correct.numpy(), self.test_digest)
        row["seconds"] = round(state.progress.seconds, 3)
        state.progress = Progress()
        better = "val" in row and (state.best is None or row["val"]["accuracy"] > state.best)
        if better:
            state.best = row["val"]["accuracy"]
        self.run.append(row)
        self.reporter.epoch(row)
        # run.ckpt last: what a kill takes from the files before it, the resumed epoch writes again.
        content = self.content()
        if better:
            checkpoint.save_best(self.run, content)
        if epoch in kept_epochs(self.settings):
            checkpoint.save_weights(self.run, epoch, content)
        checkpoint.save(self.run, content)

    # -- what a step is made of -------------------------------------------------------------------------------------

    def order(self, epoch: int) -> Order:
        """The batches of an epoch, counted from 0."""
        beside = self.source.unlabelled
        unlabelled = (0, 0) if beside is None else (len(beside), self.unlabelled_size)
        random, batches = self._random("order", epoch), self.steps * self.settings.accumulate
        return order.epoch(self.source.train.labels, self.batch_size, self.supplement, random, batches, unlabelled)

    def batches(self, order: Order, step: int) -> list[Rows]:
        """The batches of a step, counted from 0 in the epoch of `order`."""
        parts = self.settings.accumulate
        return [order.step(k) for k in range(step * parts, (step + 1) * parts)]

    def planned(self, order: Order, k: int, part: int = 0) -> Any:
        """The plan of a batch of step k of an epoch, which is the step about to be made.

        A plan rests on its number alone, so those of some batches after it are drawn with it: between two passes over
        the images the interpreter is cold, and one after the other they take half the time.
        """
        number, place = self._number(part), k * self.settings.accumulate + part
        if number not in self.plans:
            ahead = range(place, min(place + self.ahead, len(order)))
            self.plans = {n: self.plan(order.step(batch), n) for n, batch in enumerate(ahead, start=number)}
        return self.plans.pop(number)

    def plan(self, images: Rows, number: int) -> Any:
        """The method's draws for a batch, by its number in the run."""
        labels, facts = self.source.train.labels[images.rows], self.source.facts
        epoch = number // self.settings.accumulate / self.steps
        context = Context((len(labels), *facts.size), labels, facts.classes, images.added, self.stages,
                          len(images.unlabelled), epoch, self.epochs)  # fmt: skip
        return self.method.plan(self.settings.method, context, self._random("mix", number))

    def batch(self, images: Rows, part: int = 0) -> Batch:
        """The images of a batch of the step about to be made, in every view that the method needs."""
        random = self._random("augment", self._number(part))
        at, labels = random.carry(images.rows, self.source.train.labels[images.rows])
        rows, views = self.data.training_views(at, self.needs.views, random, self.layout)
        unlabelled = self._unlabelled(images, random)
        return Batch(rows, labels, self.source.facts.classes, self.settings.label_smoothing, views, unlabelled)

    def _unlabelled(self, images: Rows, random: Random) -> tuple[Tensor, ...]:
        """Every view of the step's unlabelled images."""
        if self.needs.unlabelled is None:
            return ()
        (at,) = random.carry(images.unlabelled)
        draws = [random.child(f"unlabelled/{n}") for n in range(self.needs.unlabelled.views)]
        return tuple(self.unlabelled.view(at, 1.0, draw).contiguous(memory_format=self.layout) for draw in draws)

    def _random(self, purpose: str, number: int) -> Random:
        return Random(self.settings.seed, purpose, number, device=self.machine.device)

    def _number(self, part: int) -> int:
        """Of a batch, counted through the run: the step's, where that has one batch."""
        return self.state.step * self.settings.accumulate + part

    def _seed_dropout(self, part: int) -> None:
        """Dropout alone reads torch's own generator; it is set once per batch, so no two passes share a mask."""
        seed = self._random("model", self._number(part)).key & (2**63 - 1)
        if self.machine.device.type == "cuda":
            torch.cuda.default_generators[self.machine.device.index].manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)

    @cached_property
    def data(self) -> Resident:
        """The training images, on the device."""
        return self._resident(self.source.train, training_view(self.settings))

    @cached_property
    def unlabelled(self) -> Resident:
        """The images without labels, on the device."""
        assert self.source.unlabelled is not None
        return self._resident(self.source.unlabelled, training_view(self.settings))

    @cached_property
    def held_out(self) -> dict[str, Resident]:
        """The images of the other splits by name, on the device."""
        splits = {"val": self.source.val, "test": self.source.test}
        return {name: self._resident(split, Augmentation()) for name, split in splits.items() if split is not None}

    @cached_property
    def test_digest(self) -> str:
        """Of the test images, by which runs that saw the same ones are known."""
        return sources.digest(self.source.test)

    def _resident(self, split: sources.Split, view: Augmentation) -> Resident:
        return Resident(split.images, split.labels, self.source.mean, self.source.std, view, self.machine.device)

    @property
    def supplement(self) -> int:
        """Images of each present class that a batch is filled up to: the user's word, or else the method's need."""
        return self.needs.supplement if self.settings.supplement is None else self.settings.supplement

    def _compiled(self) -> Any:
        torch._dynamo.config.recompile_limit = 4 * (len(self.stages) + 1)  # a graph per stage that may be mixed
        return torch.compile(self.learner)

    # -- reasons to end early ---------------------------------------------------------------------------------------

    def _check_stop(self) -> None:
        kind, step = self.stop.kind, self.state.step
        if kind is None:
            return
        folder = str(self.run.folder)
        if step == 0:
            raise UserError(kind, folder, "stopped before the first step", hint="Nothing was saved")
        self._save()
        where = f"stopped by {self.stop.cause} at step {step}"
        raise UserError(kind, folder, where, hint=f"Continue: mixcli train --resume-from {folder}")

    def _raise_if_diverged(self) -> None:
        """Tells the step that was not finite, its draws made again from its key."""
        bad = self.guard.first_bad()
        if bad is None:
            return
        epoch, k = divmod(bad, self.steps)
        images = self.batches(self.order(epoch), k)[0]
        self.state.step = bad
        mix = getattr(self.plan(images, self._number(0)), "mix", None)
        ratio = "" if mix is None else f", ratio {float(mix.ratio[0].mean()):.2f}"
        first = ", ".join(str(i) for i in self.source.train.index[images.rows[:4]])
        saved = self.run.checkpoint if self.run.checkpoint.exists() else "none yet"
        raise UserError(
            "diverged",
            f"step {bad + 1}",
            f"{self.guard.what} not finite (epoch {epoch + 1}, method {self.settings.method.label()}{ratio}, "
            f"lr {self.state.lr(bad):.4g}, images {first}, …); weights as of step {bad}, last good file: {saved}",
            hint="Lower --lr",
        )

    # -- what is written --------------------------------------------------------------------------------------------

    def _save(self) -> None:
        self._raise_if_diverged()
        checkpoint.save(self.run, self.content())

    def content(self) -> dict[str, Any]:
        """The run as plain values and tensors: the content of a checkpoint."""
        return {
            "settings": options.flat(self.settings),
            "id": self.run.id,
            "epoch": self.state.step // self.steps,
            "data": self.fingerprint(),
            "machine": self.machine.describe(),
            **self.state.content(),
        }

    def fingerprint(self) -> dict[str, Any]:
        """What must agree between a checkpoint and the data it meets."""
        source = self.source
        return {
            "dataset": source.name,
            "classes": list(source.classes),
            "images": len(source.train),
            "channels": source.facts.channels,
            "size": list(source.facts.size),
            "mean": [float(v) for v in source.mean],
            "std": [float(v) for v in source.std],
            "digest": source.digest,
            **({} if source.unlabelled is None else {"unlabelled": sources.digest(source.unlabelled)}),
        }

    def restore(self, path: Path) -> None:
        """Takes over the state of a checkpoint. Raises UserError where it is of another run or of other data."""
        content = checkpoint.load(path, resume=True)
        if content["id"] not in (self.run.id, self.run.parent):
            problem = "is the checkpoint of another run"
            raise UserError("mismatch", str(path), problem, got=content["id"], expected=self.run.id)
        for key, value in self.fingerprint().items():
            recorded = content["data"].get(key)
            if recorded != value:
                digests = {"digest": "pixel digest", "unlabelled": "digest of the unlabelled pixels"}
                kind, what = ("data_corrupt", digests[key]) if key in digests else ("mismatch", key)
                problem = f"{what} differs from the run's"
                raise UserError(kind, self.settings.dataset, problem, got=value, expected=str(recorded))
        try:
            self.state.restore(content)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            problem = f"its state does not fit this run ({str(error).splitlines()[0]})"
            raise UserError("checkpoint_corrupt", str(path), problem) from error
        threads = content["machine"].get("threads")
        if threads != self.machine.threads:
            self.reporter.warn("--threads", f"the run had {threads}; its bits repeat only with as many")

    def _unlabelled_told(self) -> dict[str, Any]:
        """How many images were used without labels, and which."""
        if self.source.unlabelled is None or self.needs.unlabelled is None:
            return {}
        return {"unlabelled_images": len(self.source.unlabelled), "unlabelled": self.needs.unlabelled.which}

    def _wrong_labels_learnt(self, clean: Evaluation) -> dict[str, float]:
        """The share of the wrong training labels that the net predicts, where labels were made wrong."""
        wrong = self.source.mislabelled
        return {} if wrong is None else {"wrong_labels_learnt": float(clean.correct.numpy()[wrong].mean())}

    def _result(self) -> dict[str, Any]:
        """What result.json says: the last epoch's scores, the median of the last ten beside them.

        `clean_train` is of the training images without augmentation, with the labels that they were trained on.
        """
        rows = self.run.rows()
        last, scores = rows[-1], [row["test"]["accuracy"] for row in rows if "test" in row]
        clean = evaluate(self.state.evaluated, self.data, self.machine)
        return {
            "accuracy": scores[-1],
            "balanced_accuracy": last["test"].get("balanced_accuracy"),  # rows of older versions have none
            "accuracy_median_last10": statistics.median(scores[-LAST:]),
            "evaluations": len(scores[-LAST:]),
            "nll": last["test"]["nll"],
            "dataset": self.settings.dataset,
            "split": "test",
            "test_images": last["test"]["images"],
            "test_digest": self.test_digest,
            "test_class_ratio": _ratio(self.source.test.labels),
            "train_images": len(self.source.train),
            **self._unlabelled_told(),
            "train_digest": self.source.digest,
            "early_spread": self.state.early_spread(),
            "epochs": self.epochs,
            "steps": self.total,
            "seconds": round(sum(row["seconds"] for row in rows), 1),
            "net": self.settings.net,
            "parameters": sum(p.numel() for p in self.state.net.parameters()),
            "method": self.settings.method.label(),
            "seed": self.settings.seed,
            "weights": "EMA" if self.state.ema is not None else "plain",
            "precision": self.settings.precision,
            "train": last["train"],
            "clean_train": clean.row(),
            **self._wrong_labels_learnt(clean),
            **({"val": last["val"]} if "val" in last else {}),
            "checkpoint": str(self.run.checkpoint),
        }


def _ratio(labels: np.ndarray) -> float:
    """Images of the largest class to those of the smallest, of the classes that have any."""
    sizes = np.bincount(labels)
    return float(sizes.max() / sizes[sizes > 0].min())
