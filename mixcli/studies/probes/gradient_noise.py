"""gradient_noise.py: what the random blending of features adds to the noise of the gradient, and where it points.

Claimed for blended features: their randomness is useful noise, and the two parts of the loss complement each other.
Chosen, since no paper gives a formula. Legend: G_r = gradient of a part's loss at fixed weights under the r-th draw,
R = draws, D_r = G_r - G_1, so that nothing cancels; three vectors are held, never R.

    trace_cov = (sum_r ||D_r||^2 - R ||mean D||^2) / (R - 1)        mean_sq = ||mean G||^2 - trace_cov / R
    noise     = trace_cov / mean_sq
    share     = weight^2 trace_cov(blends) / trace_cov(total loss over batches, augmentation, ratios, blends)
    cosine    of the mean gradients of two parts; beside it that of one part on two disjoint batches

A part that is the mean of P independent blends has 1 / P of the trace: a self-check, not a finding. Weights, BatchNorm
averages and gradients are left as they were found; dropout is off; BatchNorm sees the batch, as in training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from mixcli.data import order
from mixcli.data.augment import training_view
from mixcli.data.resident import Resident
from mixcli.mix import Batch, Context, implementation
from mixcli.nets.staged import StagedNet
from mixcli.report.probes import gradient_noise as page
from mixcli.sampling import Random
from mixcli.settings import Method
from mixcli.studies.probes.catalogue import GradientNoise
from mixcli.studies.probes.findings import Findings
from mixcli.studies.probes.probing import Scene, Unsuited, computed
from mixcli.studies.significance import mean_interval
from mixcli.studies.subjects import Subject

TOTAL = "total"
Places = Mapping[str, slice]  # stage, or `head`, or `total` -> where its parameters lie in a flat gradient


@dataclass(frozen=True)
class Noise:
    """Draws of one gradient, by place.

    draws      R
    mean       (n,) float32: the mean gradient
    trace_cov  trace of the covariance of the draws
    mean_sq    squared norm of the gradient's expectation, unbiased, so it can fall below 0
    """

    draws: int
    mean: Tensor
    trace_cov: dict[str, float]
    mean_sq: dict[str, float]

    @property
    def noise(self) -> dict[str, float]:
        """Trace over squared norm; nan where the draws cannot tell the norm from 0."""
        return {place: trace / self.mean_sq[place] if self.mean_sq[place] > 0 else math.nan
                for place, trace in self.trace_cov.items()}  # fmt: skip


def spread(gradients: Iterable[Tensor], places: Places) -> Noise:
    """The noise of R >= 2 flat gradients, one at a time. Raises ValueError for fewer."""
    stream = iter(gradients)
    first = next(stream)
    total = torch.zeros_like(first)
    squares, count = dict.fromkeys(places, 0.0), 1
    for gradient in stream:
        moved = gradient - first
        total += moved
        count += 1
        for place, at in places.items():
            squares[place] += _square(moved[at])
    if count < 2:
        raise ValueError("the noise of one draw is not defined")
    shift = total / count
    mean = first + shift
    trace = {p: max(0.0, squares[p] - count * _square(shift[at])) / (count - 1) for p, at in places.items()}
    norm = {p: _square(mean[at]) - trace[p] / count for p, at in places.items()}
    return Noise(count, mean, trace, norm)


def _square(values: Tensor) -> float:
    return float(values.double().square().sum())


def cosine(a: Tensor, b: Tensor, places: Places) -> dict[str, float]:
    """Cosine of two flat gradients, by place; nan where one is 0."""
    return {place: _cosine(a[at].double(), b[at].double()) for place, at in places.items()}


def _cosine(a: Tensor, b: Tensor) -> float:
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length > 0 else math.nan


# --------------------------------------------------------------------------------------------------- gradients of a net


def places(net: StagedNet) -> Places:
    """Where the parameters of each stage, of what follows them, and of the head lie in a flat gradient."""
    found, start = {}, 0
    for name, module in (*net.stages.items(), ("neck", net.neck), ("head", net.head)):
        size = sum(p.numel() for p in module.parameters())
        if size:
            found[name] = slice(start, start + size)
            start += size
    return {**found, TOTAL: slice(0, start)}


def gradient(net: StagedNet, loss: Tensor) -> Tensor:
    """(n,) float32: the gradient of a loss by all parameters, in the order of `places`; `.grad` is not touched."""
    modules = (*net.stages.values(), net.neck, net.head)
    parameters = [p for module in modules for p in module.parameters()]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, found, strict=True)]
    )


BRANCH_DROPOUT = ("StochasticDepth", "DropPath")  # torchvision's and timm's, by name: neither need be imported


@contextmanager
def undisturbed(net: StagedNet) -> Iterator[None]:
    """Inside, the net computes as in training but for dropout, with gradients; BatchNorm's averages and every mode are
    set back afterwards."""
    modes = {module: module.training for module in net.modules()}
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    net.train()
    for module in net.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__ in BRANCH_DROPOUT:
            module.training = False
    try:
        with torch.enable_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        with torch.no_grad():
            for name, buffer in net.named_buffers():
                buffer.copy_(buffers[name])


# ------------------------------------------------------------------------------------------------------------ the probe

PART, OTHER = "intra", "inter"
FEW = 4  # batches on which the self-check of P and the share of augmentation are taken
AUGMENTED = 16  # draws of augmentation and ratio on each of these
CONTROLS = ("equal", "single")
FINITE = 100  # training images whose features are looked at before any gradient is taken
PASSES = 3  # a gradient costs about as much as three forward passes


def passes(scene: Scene, options: GradientNoise) -> int:
    """Forward passes of one image, a backward pass counted as two."""
    for subject in scene.subjects:
        weights_of(subject.settings.method)
    few = min(FEW, options.batches)
    each = options.batches * (options.draws + 1) + few * (options.draws * len(options.points) + AUGMENTED)
    batch = scene.main.settings.batch or 1
    return len(scene.subjects) * (FINITE + PASSES * batch * (each if scene.brief else each + options.draws))


def weights_of(method: Method) -> Mapping[str, float]:
    """The named parts of a method's loss and their weights. Raises Unsuited where none is named intra."""
    offered = getattr(implementation(method), "parts", None)
    found = {} if offered is None else offered(method)
    if PART not in found:
        raise Unsuited("usage", method.label(), f"this method has no random part named {PART}",
                       hint="Probe a run that blends by class, with a weight above 0")  # fmt: skip
    return found


def suited(scene: Scene) -> Scene:
    """Without the references that have no random part. Raises Unsuited where the main run has none."""
    weights_of(scene.main.settings.method)
    kept = [subject for subject in scene.subjects if _suits(subject, scene)]
    roles = tuple(scene.roles[scene.subjects.index(subject)] for subject in kept)
    return replace(scene, subjects=tuple(kept), roles=roles)


def _suits(subject: Subject, scene: Scene) -> bool:
    try:
        weights_of(subject.settings.method)
    except Unsuited as error:
        scene.reporter.note(f"gradient-noise without {subject.label}: {error}")
        return False
    return True


def look(scene: Scene, options: GradientNoise) -> Findings:
    """Noise, shares and cosines of every subject.

    Raises Unsuited for a method without a part named intra, UserError: diverged for features that are not finite.
    """
    for subject in scene.subjects:
        weights_of(subject.settings.method)
        computed(subject, scene.some(subject, "train", FINITE, "finite"))
    rows: list[dict[str, Any]] = []
    for subject in scene.subjects:
        with undisturbed(subject.net):
            rows += _of_subject(scene, options, subject)
    frame = pd.DataFrame(rows)
    about = {"places": list(dict.fromkeys(frame["place"])), "draws": options.draws, "batches": options.batches}
    return Findings(frame, about, page, remarks=tuple(_remarks(scene, frame)))


class Steps:
    """Training steps of a run that are never made: its batches, plans and losses at fixed weights."""

    def __init__(self, scene: Scene, subject: Subject):
        settings, source = subject.settings, scene.source(subject)
        self.net, self.method, self.train = subject.net, settings.method, source.train
        self.module = implementation(self.method)
        self.needs = self.module.needs(self.method)
        self.smoothing, self.classes, self.size = settings.label_smoothing, source.facts.classes, source.facts.size
        self.stages = subject.net.sizes(source.facts.channels, *self.size)
        self.data = Resident(source.train.images, source.train.labels, tuple(subject.data["mean"]),
                             tuple(subject.data["std"]), training_view(settings), subject.machine.device)  # fmt: skip
        self.seed, self.device = scene.asked.seed, subject.machine.device
        assert settings.batch is not None
        self.batch_size = settings.batch
        self.supplement = self.needs.supplement if settings.supplement is None else settings.supplement

    def random(self, purpose: str, step: int) -> Random:
        return Random(self.seed, f"probe/gradient-noise/{purpose}", step, device=self.device)

    def rows(self, count: int) -> list[tuple[np.ndarray, int]]:
        """`count` batches, epoch after epoch: their rows and how many were supplemented; neighbours are disjoint."""
        found: list[tuple[np.ndarray, int]] = []
        for epoch in range(count):
            made = order.epoch(self.train.labels, self.batch_size, self.supplement, self.random("order", epoch))
            found += [made.step(k)[:2] for k in range(len(made) // 2 * 2 or len(made))]
            if len(found) >= count:
                break
        return found[:count]

    def context(self, rows: np.ndarray, added: int) -> Context:
        return Context((len(rows), *self.size), self.train.labels[rows], self.classes, added, self.stages)

    def batch(self, rows: np.ndarray, step: int) -> Batch:
        """The images of a step, in every view the method needs."""
        random = self.random("augment", step)
        at, labels = random.carry(rows, self.train.labels[rows])
        seen, views = self.data.training_views(at, self.needs.views, random, torch.contiguous_format)
        return Batch(seen, labels, self.classes, self.smoothing, views)

    def part(self, batch: Batch, plan: Any, name: str, method: Method | None = None) -> Tensor:
        """The gradient of one part of the loss."""
        return gradient(self.net, self.module.part(method or self.method, self.net, batch, plan, name))

    def blends(self, rows: np.ndarray, added: int, step: int, draws: int, method: Method) -> Iterator[Tensor]:
        """Gradients of the blended part under plans that differ in its draws alone."""
        batch, context = self.batch(rows, step), self.context(rows, added)
        plan = self.module.plan(method, context, self.random("mix", step))
        for r in range(draws):
            drawn = self.module.redrawn(method, plan, context, self.random(f"blends {step}", r))
            yield self.part(batch, drawn, PART, method)

    def control(self, rows: np.ndarray, added: int, step: int, weights: str) -> Tensor:
        """The gradient of the blended part on a step's images, its weights those of a control without chance."""
        method = self.method.model_copy(update={"weights": weights})
        plan = self.module.plan(method, self.context(rows, added), self.random("mix", step))
        return self.part(self.batch(rows, step), plan, PART, method)

    def fresh(self, rows: Sequence[tuple[np.ndarray, int]], first: int) -> Iterator[Tensor]:
        """Gradients of the whole loss, batches, augmentation, ratios and blends all drawn anew."""
        for k, (own, added) in enumerate(rows):
            plan = self.module.plan(self.method, self.context(own, added), self.random("mix", first + k))
            loss = self.module.loss(self.method, self.net, self.batch(own, first + k), plan)
            yield gradient(self.net, loss.total)

    def augmented(self, rows: np.ndarray, added: int, step: int, draws: int) -> Iterator[Tensor]:
        """Gradients of the whole loss on one batch, its augmentation and ratios drawn anew, its blends fixed."""
        context = self.context(rows, added)
        for r in range(draws):
            plan = self.module.plan(self.method, context, self.random(f"augmented mix {step}", r))
            plan = self.module.redrawn(self.method, plan, context, self.random("mix", step))
            batch = self.batch(rows, 1_000_000 + draws * step + r)
            yield gradient(self.net, self.module.loss(self.method, self.net, batch, plan).total)


def _of_subject(scene: Scene, options: GradientNoise, subject: Subject) -> Iterator[dict[str, Any]]:
    steps, cut = Steps(scene, subject), places(subject.net)
    facts = scene.facts(subject) | {"split": "train", "images": len(steps.train)}
    weights = weights_of(steps.method)
    rows = steps.rows(options.batches + options.draws)
    batches, fresh = rows[: options.batches], rows[options.batches :]
    noises, others, controls = [], [], []
    for step, (own, added) in enumerate(batches):
        noises.append(spread(steps.blends(own, added, step, options.draws, steps.method), cut))
        if OTHER in weights:
            plan = steps.module.plan(steps.method, steps.context(own, added), steps.random("mix", step))
            others.append(steps.part(steps.batch(own, step), plan, OTHER))
        if not scene.brief:
            controls.append({name: steps.control(own, added, step, name) for name in _controls(steps)})
    facts |= {"draws": options.draws, "batches": len(batches)}
    yield from ({**facts, "row": "noise", "place": place, **_noise_row(noises, place)} for place in cut)
    if OTHER in weights:
        for place in cut:
            yield {**facts, "row": "cosine", "place": place, **_cosine_row(noises, others, place, cut, weights)}
    for name in controls[0] if controls else ():
        for place in cut:
            row = _control_row(noises, others, [one[name] for one in controls], {place: cut[place]})
            yield {**facts, "row": "control", "place": place, "weights": name, **row}
    if not scene.brief:
        yield from ({**facts, "row": "check", **row} for row in _check_points(steps, options, batches[:FEW], cut))
    apart: list[dict[str, float]] = []
    total = spread(_paired(steps.fresh(fresh, len(batches)), cut, apart), cut)
    few = [spread(steps.augmented(own, added, step, AUGMENTED), cut)
           for step, (own, added) in enumerate(batches[:FEW])]  # fmt: skip
    for place in cut:
        yield {**facts, "row": "share", "place": place, **_share_row(noises, few, total, apart, place, weights[PART])}


def _noise_row(noises: Sequence[Noise], place: str) -> dict[str, float]:
    """Means over batches, the quotient of means, and its t interval over batches."""
    trace, norm = (np.array([getattr(n, name)[place] for n in noises]) for name in ("trace_cov", "mean_sq"))
    value = trace.mean() / norm.mean() if norm.mean() > 0 else math.nan
    low, high = mean_interval(trace / norm.mean()) if norm.mean() > 0 else (math.nan, math.nan)
    return {"trace_cov": float(trace.mean()), "mean_sq": float(norm.mean()), "noise": float(value), "noise_low": low,
            "noise_high": high}  # fmt: skip


def _cosine_row(
    noises: Sequence[Noise], others: Sequence[Tensor], place: str, cut: Places, weights: Mapping[str, float]
) -> dict[str, float]:
    """Cosine of the two parts over batches; beside it that of the other part on two disjoint batches."""
    at = {place: cut[place]}
    found = np.array([cosine(n.mean, other, at)[place] for n, other in zip(noises, others, strict=True)])
    floor = np.array([cosine(a, b, at)[place] for a, b in zip(others[::2], others[1::2], strict=False)])
    norms = [math.sqrt(_square(n.mean[cut[place]]) / max(_square(o[cut[place]]), 1e-300))
             for n, o in zip(noises, others, strict=True)]  # fmt: skip
    low, high = mean_interval(found)
    return {"cosine": float(found.mean()), "cosine_low": low, "cosine_high": high,
            "cosine_batches": float(floor.mean()),
            "norm_quotient": float(np.mean(norms)) * weights[PART] / weights[OTHER]}  # fmt: skip


def _controls(steps: Steps) -> tuple[str, ...]:
    """The weights without chance that a method of random ones has: the centroid, and each member alone."""
    return CONTROLS if getattr(steps.method, "weights", None) == "uniform" else ()


def _control_row(
    noises: Sequence[Noise], others: Sequence[Tensor], controls: Sequence[Tensor], at: Places
) -> dict[str, float]:
    """Cosine of a control's gradient with the mean one of the blends, and with that of the other part; means over
    batches."""
    [place] = at
    blends = [cosine(n.mean, own, at)[place] for n, own in zip(noises, controls, strict=True)]
    inter = [cosine(own, other, at)[place] for own, other in zip(controls, others, strict=False)]
    norms = [math.sqrt(_square(own[at[place]]) / max(_square(n.mean[at[place]]), 1e-300))
             for n, own in zip(noises, controls, strict=True)]  # fmt: skip
    return {"cosine_blends": float(np.mean(blends)), "cosine": float(np.mean(inter)) if inter else math.nan,
            "norm_quotient": float(np.mean(norms))}  # fmt: skip


def _paired(gradients: Iterable[Tensor], cut: Places, apart: list[dict[str, float]]) -> Iterator[Tensor]:
    """The gradients themselves; of every two half their squared distance, an unbiased trace, goes to `apart`."""
    before: Tensor | None = None
    for gradient_ in gradients:
        if before is not None:
            moved = gradient_ - before
            apart.append({place: _square(moved[at]) / 2 for place, at in cut.items()})
        before = gradient_ if before is None else None
        yield gradient_


def _check_points(
    steps: Steps, options: GradientNoise, batches: Sequence[tuple[np.ndarray, int]], cut: Places
) -> Iterator[dict[str, Any]]:
    """The trace of P blends per class, which must fall as 1 / P, where the method draws blends at all."""
    if getattr(steps.method, "weights", None) in ("equal", "single"):
        return
    total = {TOTAL: cut[TOTAL]}
    for count in options.points:
        method = steps.method.model_copy(update={"interpolations": count})
        traces = [spread(steps.blends(own, added, step, options.draws, method), total).trace_cov[TOTAL]
                  for step, (own, added) in enumerate(batches)]  # fmt: skip
        yield {"place": TOTAL, "points": count, "trace_cov": float(np.mean(traces)),
               "times_points": float(np.mean(traces) * count)}  # fmt: skip


def _share_row(
    noises: Sequence[Noise], few: Sequence[Noise], total: Noise, apart: Sequence[Mapping[str, float]], place: str,
    weight: float,
) -> dict[str, float]:  # fmt: skip
    """Shares of the whole trace: of the blends, of augmentation and ratio, and what is left to the choice of batch.

    The interval of the first is that of a quotient of two independent means, over batches and over pairs of gradients.
    """
    whole = total.trace_cov[place]
    blends = weight**2 * float(np.mean([n.trace_cov[place] for n in noises]))
    augmented = float(np.mean([n.trace_cov[place] for n in few]))
    if whole <= 0:
        return {"trace_cov": whole, "share_blends": math.nan, "share_blends_low": math.nan,
                "share_blends_high": math.nan, "share_augment": math.nan, "share_batch": math.nan}  # fmt: skip
    part, pairs = np.array([n.trace_cov[place] for n in noises]), np.array([one[place] for one in apart])
    half = blends / whole * _relative_half(part, pairs) if blends > 0 else 0.0
    return {"trace_cov": whole, "share_blends": blends / whole, "share_blends_low": max(0.0, blends / whole - half),
            "share_blends_high": blends / whole + half, "share_augment": augmented / whole,
            "share_batch": 1 - (blends + augmented) / whole}  # fmt: skip


def _relative_half(one: np.ndarray, other: np.ndarray) -> float:
    """Half the 95 % t interval of the quotient of two independent means, relative to it, by the delta method."""
    if min(len(one), len(other)) < 2:
        return math.nan
    relative = sum(float(np.var(v, ddof=1)) / len(v) / float(np.mean(v)) ** 2 for v in (one, other))
    return float(stdtrit(min(len(one), len(other)) - 1, 0.975)) * math.sqrt(relative)


def headline(table: Any) -> dict[str, float]:
    """Of the whole net: noise, share, and where there are two parts their cosine."""
    whole = table[table["place"] == TOTAL]
    found = {}
    for row, column, name in (("noise", "noise", "noise"), ("share", "share_blends", "share"),
                              ("cosine", "cosine", "cosine")):  # fmt: skip
        rows = whole[whole["row"] == row]
        if len(rows):
            found[name] = float(rows[column].iloc[0])
    return found


def _remarks(scene: Scene, table: Any) -> Iterator[str]:
    if scene.brief:
        return
    if not scene.asked.all_epochs:
        yield "late-training noise only: with --keep in training and --all-epochs here, its course is seen"
    yield "the trace falls as 1 / P by arithmetic: a self-check of the program, not a finding; the finding is the share"
    if (table["row"] == "cosine").any():
        yield "batch noise pulls every cosine to 0: read it beside that of the inter part on two disjoint batches"
