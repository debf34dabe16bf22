"""training.py: the only training loop.

A step is: rows of the order, a plan, a batch, one forward and backward of the Learner, one update. Everything random
in it is keyed by the seed and the step's number, so a run resumed between any two steps repeats the uninterrupted one
bit for bit, and no generator state is ever saved. Sums for the log stay on the device; a GPU is asked for a number at
the end of an epoch and every `READ_EVERY` steps. A non-finite loss or gradient stops the run before it reaches the
weights or a file.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mixcli import options
from mixcli.data import order, sources
from mixcli.data.augment import Augmentation
from mixcli.data.resident import Resident
from mixcli.engine import checkpoint, device, schedule
from mixcli.engine.device import Machine
from mixcli.engine.inference import evaluate
from mixcli.engine.learner import Learner
from mixcli.engine.stopping import Stop
from mixcli.errors import UserError
from mixcli.mix import Batch, Context, Losses, Needs, implementation
from mixcli.nets.staged import StagedNet, build
from mixcli.runs import Run
from mixcli.sampling import Random
from mixcli.settings import Facts, Train, kept_epochs

READ_EVERY = 50  # steps between two looks at a GPU's flag for non-finite losses
LAST = 10  # evaluations whose median is reported beside the last one


class Reporter(Protocol):
    """What a run tells while it goes on."""

    def note(self, line: str) -> None: ...
    def warn(self, subject: str, problem: str) -> None: ...
    def step(self, done: int, total: int) -> None: ...
    def epoch(self, row: dict[str, Any]) -> None: ...


def train(
    settings: Train,
    facts: Facts,
    run: Run,
    reporter: Reporter,
    *,
    resume_from: Path | None = None,
    stop_after: float | None = None,
) -> dict[str, Any]:
    """Trains the run of completed `settings` and writes its folder; returns what result.json holds.

    resume_from  a run.ckpt whose state is gone on from
    stop_after   seconds after which the run saves and stops
    Raises UserError: diverged, interrupted, terminated, requeue, and whatever data, device and checkpoint raise.
    """
    machine = device.prepare(settings)
    with machine.session(), Stop(stop_after).listening() as stop:
        source = sources.load(settings)
        training = Training(settings, source, run, reporter, machine, stop)
        run.describe(machine.describe())
        if resume_from is not None:
            training.restore(resume_from)
        return training.go()


@dataclass
class Progress:
    """Sums over the steps of the running epoch, on the device; saved too, so that a resumed log line is exact."""

    names: list[str] = field(default_factory=list)
    sums: Tensor | None = None
    steps: int = 0
    images: int = 0
    seconds: float = 0.0

    def add(self, losses: Losses, images: int) -> None:
        values = torch.stack([value.double() for value in losses.parts.values()])
        self.names = list(losses.parts)
        self.sums = values if self.sums is None else self.sums + values
        self.steps += 1
        self.images += images

    def means(self) -> dict[str, float]:
        if self.sums is None:
            return {}
        return dict(zip(self.names, (self.sums / self.steps).tolist(), strict=True))


class Training:
    """A run in memory: the Learner, what updates it, and where it stands (`step` updates done)."""

    def __init__(
        self, settings: Train, source: sources.Source, run: Run, reporter: Reporter, machine: Machine, stop: Stop
    ):
        self.settings, self.source, self.run = settings, source, run
        self.reporter, self.machine, self.stop = reporter, machine, stop
        self.method = implementation(settings.method)
        self.needs: Needs = self.method.needs(settings.method)
        facts, labels = source.facts, source.train.labels
        self.classes = facts.classes
        self.steps = len(labels) // settings.batch  # per epoch
        self.total = self.steps * settings.epochs

        net = build(settings.net, facts.channels, self.classes, settings.width, Random(settings.seed, "init"))
        self.stages = net.sizes(facts.channels, *facts.size)
        memory = torch.channels_last if machine.device.type == "cuda" else torch.contiguous_format
        self.memory_format = memory
        self.learner = Learner(net.to(machine.device, memory_format=memory), settings.method)
        self.forward = self._compiled() if settings.compile else self.learner
        self.ema = None
        if settings.ema > 0:
            self.ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
        self.optimizer = torch.optim.SGD(
            self.net.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
            fused=machine.device.type == "cuda",
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, schedule.factor(settings, self.steps))
        self.step = 0
        self.progress = Progress()
        self.best: float | None = None
        self.bad_step = torch.full((), -1, device=machine.device)  # the first step that was not finite

    @property
    def net(self) -> StagedNet:
        return self.learner.net

    @property
    def evaluated(self) -> StagedNet:
        """The weights that are evaluated: averaged ones where the run has them."""
        return self.ema.module if self.ema is not None else self.net

    # -- the loop ---------------------------------------------------------------------------------------------------

    def go(self) -> dict[str, Any]:
        """Trains from where the run stands to its end."""
        self.net.train()
        self._open()
        while self.step < self.total:
            self._check_stop()
            self._epoch(self.step // self.steps)
        return self._finish()

    def _epoch(self, epoch: int) -> None:
        begun = time.perf_counter() - self.progress.seconds
        steps = order.epoch(
            self.source.train.labels, self.settings.batch, self.supplement, self._random("order", epoch)
        )
        for k in range(self.step % self.steps, self.steps):
            self._check_stop()
            rows, added = steps.step(k)
            self._step(rows, added)
            self.progress.seconds = time.perf_counter() - begun
            self.reporter.step(self.step, self.total)
            if self.settings.save_every and self.step % self.settings.save_every == 0 and k + 1 < self.steps:
                self._save()
        self._close_epoch(epoch + 1)

    def _step(self, rows: np.ndarray, added: int) -> None:
        """One update. Nothing here waits for a GPU."""
        plan = self.plan(rows, added)
        batch = self.batch(rows)
        self._seed_dropout()
        with self.machine.autocast():
            losses = self.forward(batch, plan)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self._guard(losses.total, rows, added)
        self.optimizer.step()
        self.scheduler.step()
        if self.ema is not None:
            self.ema.update_parameters(self.net)
        self.progress.add(losses, len(rows))
        self.step += 1

    def plan(self, rows: np.ndarray, added: int) -> Any:
        """The method's draws for the step about to be made."""
        labels = self.source.train.labels[rows]
        context = Context((len(rows), *self.source.facts.size), labels, self.classes, added, self.stages)
        return self.method.plan(self.settings.method, context, self._random("mix", self.step))

    def batch(self, rows: np.ndarray) -> Batch:
        """The images of the step about to be made, in every view that the method needs."""
        random = self._random("augment", self.step)
        at, labels = random.carry(rows, self.source.train.labels[rows])
        images = self._view(at, 1.0, random)
        views = {name: self._view(at, degree, random.child(name)) for name, degree in self.needs.views.items()}
        return Batch(images, labels, self.classes, self.settings.label_smoothing, views)

    def _view(self, rows: Tensor, degree: float, random: Random) -> Tensor:
        return self.data.view(rows, degree, random).contiguous(memory_format=self.memory_format)

    def _random(self, purpose: str, step: int) -> Random:
        return Random(self.settings.seed, purpose, step, device=self.machine.device)

    def _seed_dropout(self) -> None:
        """Dropout alone reads torch's own generator; it is set once per step, so no two passes share a mask."""
        seed = self._random("model", self.step).key & (2**63 - 1)
        if self.machine.device.type == "cuda":
            torch.cuda.default_generators[self.machine.device.index].manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)

    @cached_property
    def data(self) -> Resident:
        s = self.settings
        view = Augmentation(s.pad or 0, s.pad_mode or "zero", bool(s.flip), s.cutout)
        return self._resident(self.source.train, view)

    @cached_property
    def held_out(self) -> dict[str, Resident]:
        splits = {"val": self.source.val, "test": self.source.test}
        return {name: self._resident(split, Augmentation()) for name, split in splits.items() if split is not None}

    def _resident(self, split: sources.Split, view: Augmentation) -> Resident:
        return Resident(split.images, split.labels, self.source.mean, self.source.std, view, self.machine.device)

    @property
    def supplement(self) -> int:
        """Images of each present class that a batch is filled up to: the user's word, or else the method's need."""
        return self.needs.supplement if self.settings.supplement is None else self.settings.supplement

    def _compiled(self) -> Any:
        torch._dynamo.config.recompile_limit = 4 * (len(self.stages) + 1)  # a graph per stage that may be mixed
        return torch.compile(self.learner, dynamic=True if self.supplement else None)

    # -- what can go wrong ------------------------------------------------------------------------------------------

    def _guard(self, total: Tensor, rows: np.ndarray, added: int) -> None:
        """Keeps a non-finite loss or gradient from the weights: at once on a CPU, by the fused optimizer on a GPU."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.net.parameters() if p.grad is not None])
        finite = total.detach().isfinite() & norm.isfinite()
        self.bad_step = torch.where((self.bad_step < 0) & ~finite, self.step, self.bad_step)
        if self.machine.device.type == "cpu":
            self._raise_if_diverged("loss" if not total.isfinite() else "gradient")
            return
        self.optimizer.found_inf = (self.bad_step >= 0).float()
        self.optimizer.grad_scale = None
        if self.step % READ_EVERY == 0:
            self._raise_if_diverged()

    def _raise_if_diverged(self, what: str = "loss or gradient") -> None:
        bad = int(self.bad_step)
        if bad < 0:
            return
        epoch, k = divmod(bad, self.steps)
        steps = order.epoch(
            self.source.train.labels, self.settings.batch, self.supplement, self._random("order", epoch)
        )
        rows, added = steps.step(k)
        self.step = bad
        mix = getattr(self.plan(rows, added), "mix", None)
        ratio = "" if mix is None else f", ratio {float(mix.ratio[0].mean()):.2f}"
        images = ", ".join(str(i) for i in self.source.train.index[rows[:4]])
        saved = f"{self.run.checkpoint}" if self.run.checkpoint.exists() else "none yet"
        raise UserError(
            "diverged",
            f"step {bad + 1}",
            f"{what} not finite (epoch {epoch + 1}, method {self.settings.method.label()}{ratio}, lr {self.lr:.4g}, "
            f"images {images}, …); weights as of step {bad}, last good file: {saved}",
            hint="Lower --lr",
        )

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _check_stop(self) -> None:
        kind = self.stop.kind
        if kind is None:
            return
        if self.step:
            self._save()
        where = f"stopped by {self.stop.cause} at step {self.step}" if self.step else "stopped before the first step"
        hint = f"Continue: mixcli train --resume-from {self.run.folder}" if self.step else "Nothing was saved"
        raise UserError(kind, str(self.run.folder), where, hint=hint)

    # -- what is written --------------------------------------------------------------------------------------------

    def _open(self) -> None:
        lone = order.lone_classes(self.source.train.labels)
        if self.supplement and lone:
            self.reporter.warn("supplement", f"{lone} classes have a single image and cannot be supplemented")
        self.run.truncate_metrics(self.step)
        if self.step:
            self.reporter.note(f"resumed at step {self.step} of {self.total}")

    def _close_epoch(self, epoch: int) -> None:
        """Evaluates, logs and saves what the epoch asks for."""
        self._raise_if_diverged()
        row: dict[str, Any] = {"epoch": epoch, "step": self.step, "lr": self.lr, "images": self.progress.images,
                               "train": self.progress.means()}  # fmt: skip
        if epoch % self.settings.eval_every == 0 or epoch == self.settings.epochs:
            row |= {name: evaluate(self.evaluated, data, self.machine).row() for name, data in self.held_out.items()}
        row["seconds"] = round(self.progress.seconds, 3)
        self.progress = Progress()
        self.run.append(row)
        self.reporter.epoch(row)
        self._save()
        if epoch in kept_epochs(self.settings):
            checkpoint.save_weights(self.run, epoch, self.state())
        if "val" in row and (self.best is None or row["val"]["accuracy"] > self.best):
            self.best = row["val"]["accuracy"]
            checkpoint.save_best(self.run, self.state())

    def _save(self) -> None:
        self._raise_if_diverged()
        checkpoint.save(self.run, self.state())

    def _finish(self) -> dict[str, Any]:
        rows = self.run.rows()
        scores = [row["test"]["accuracy"] for row in rows if "test" in row]
        last = rows[-1]
        result = {
            "accuracy": scores[-1],
            "accuracy_median_last10": statistics.median(scores[-LAST:]),
            "evaluations": len(scores[-LAST:]),
            "nll": last["test"]["nll"],
            "dataset": self.settings.dataset,
            "split": "test",
            "test_images": last["test"]["images"],
            "train_images": len(self.source.train.labels),
            "epochs": self.settings.epochs,
            "steps": self.total,
            "seconds": round(sum(row["seconds"] for row in rows), 1),
            "net": self.settings.net,
            "parameters": sum(p.numel() for p in self.net.parameters()),
            "method": self.settings.method.label(),
            "seed": self.settings.seed,
            "weights": "EMA" if self.ema is not None else "plain",
            "precision": self.settings.precision,
            "train": last["train"],
            **({"val": last["val"]} if "val" in last else {}),
            "checkpoint": str(self.run.checkpoint),
        }
        return self.run.finish(result)

    def state(self) -> dict[str, Any]:
        """The run as plain values and tensors: the content of a checkpoint."""
        p = self.progress
        return {
            "settings": options.flat(self.settings),
            "id": self.run.id,
            "data": self.fingerprint(),
            "step": self.step,
            "net": self.net.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": {"last_epoch": self.scheduler.last_epoch},
            "progress": {"names": p.names, "sums": p.sums, "steps": p.steps, "images": p.images, "seconds": p.seconds},
            "best": self.best,
            "machine": {**self.machine.describe(), "torch": str(torch.__version__)},
        }

    def fingerprint(self) -> dict[str, Any]:
        """What must agree between a checkpoint and the data it meets."""
        source = self.source
        return {
            "dataset": source.name,
            "classes": list(source.classes),
            "images": len(source.train.labels),
            "channels": source.facts.channels,
            "size": list(source.facts.size),
            "mean": [float(v) for v in source.mean],
            "std": [float(v) for v in source.std],
            "digest": source.digest,
        }

    def restore(self, path: Path) -> None:
        """Takes over the state of a checkpoint. Raises UserError where it was made from other data."""
        content = checkpoint.load(path, resume=True)
        for key, value in self.fingerprint().items():
            if content["data"].get(key) != value:
                kind, what = ("data_corrupt", "pixel digest") if key == "digest" else ("mismatch", key)
                raise UserError(kind, self.settings.dataset, f"{what} differs from the run's",
                                got=value, expected=str(content["data"].get(key)))  # fmt: skip
        self.net.load_state_dict(content["net"])
        if self.ema is not None:
            self.ema.load_state_dict(content["ema"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.step = content["step"]
        self._set_lr(content["scheduler"]["last_epoch"])
        p = content["progress"]
        sums = None if p["sums"] is None else p["sums"].to(self.machine.device)
        self.progress = Progress(p["names"], sums, p["steps"], p["images"], p["seconds"])
        self.best = content["best"]
        threads = content["machine"]["threads"]
        if threads != self.machine.threads:
            self.reporter.warn("--threads", f"the run had {threads}; its bits repeat only with as many")

    def _set_lr(self, step: int) -> None:
        """Puts the schedule at `step`; the optimizer's own lr was written under the schedule of the checkpoint."""
        self.scheduler.last_epoch = step
        for group, base, factor in zip(
            self.optimizer.param_groups, self.scheduler.base_lrs, self.scheduler.lr_lambdas, strict=True
        ):
            group["lr"] = base * factor(step)
