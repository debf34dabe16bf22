"""design.py: a study as cells: what is compared with what, and checked before the first run.

A study is arms x axes x seeds; every cell is one ordinary run, named by its settings. `choose` makes an arm of two
stages: a value is picked on validation images with seeds of its own, then trained on the full training set. A screen is
the same arms, shorter, on validation images, with seeds of its own; to confirm arms is a study of these, their baseline
and their placebos alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice, product
from pathlib import Path
from typing import Any

from mixcli import options, own_code, runs
from mixcli.engine import job
from mixcli.engine.job import Job
from mixcli.errors import UserError, nearest
from mixcli.fields import Given, parse
from mixcli.options import Layer
from mixcli.recipe import Facts, Train
from mixcli.studies import follow, written
from mixcli.studies.written import Fields, Source, Timing, Typed

FORMAT = 1  # of plan.json
METRICS = ("test.top1", "val.top1", "test.balanced", "val.balanced", "curve_area", "gap", *follow.METRICS)  # in points
SCREEN_RUNS, SCREEN_FROM = 3, 1000  # runs per arm of a screen, and the first of its seeds
SCREEN_SHARE, SCREEN_HELD_OUT = 4, 0.1  # it trains for a fourth of the epochs; images held out where a study holds none


@dataclass(frozen=True)
class Cell:
    """One run of an arm; `chooses` where it only helps to pick a value."""

    arm: str
    seed: int
    job: Job
    chooses: bool = False

    @property
    def name(self) -> str:
        return f"{self.arm} seed={self.seed}"


@dataclass(frozen=True)
class Arm:
    """One line of the comparison. `settings` are complete but for the seed."""

    name: str
    settings: Train
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Option:
    """A value that may be chosen: its runs on validation, and the arm that it would become."""

    value: str
    trial: Arm
    final: Arm


@dataclass(frozen=True)
class Choice:
    """An arm whose value is picked first: the mean validation accuracy of each option decides."""

    arm: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Design:
    """A study whose every cell is known and valid.

    alike      arms are held against those with the same values of their axes, and others against none
    timing     how its arms are timed, in a study of times in place of accuracies
    screen     it ranks arms and compares nothing
    confirmed  the arms that were picked to be confirmed
    """

    name: str
    fields: Fields
    baseline: str
    arms: tuple[Arm, ...]
    choices: tuple[Choice, ...]
    contrasts: Mapping[str, Mapping[str, float]]
    tiny: bool
    alike: bool = False
    timing: Timing | None = None
    screen: bool = False
    confirmed: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The arms that are compared, those to be chosen at the end."""
        return [arm.name for arm in self.arms] + [choice.arm for choice in self.choices]

    @property
    def cells(self) -> int:
        """How many runs the study takes, both stages of its choices among them."""
        return len(self.first_cells()) + len(self.choices) * len(self.fields.seeds)

    def first_cells(self) -> list[Cell]:
        """The cells that need no choice, seed by seed, so that a study cut short is balanced."""
        arms = [*self.arms, *(option.trial for choice in self.choices for option in choice.options)]
        return _by_seed(arms)

    def document(self) -> dict[str, Any]:
        """The plan as plain values, with its digest: what is fixed before the first run. What is followed may grow
        later, so it is outside the digest; only numbers that it named before the first run are planned ones."""
        fields = self.fields
        content = {
            "comparison": {"metric": fields.metric, "select": fields.select, "test": fields.test,
                           "baseline": self.baseline, "family": _listed(fields.family), "sesoi": fields.sesoi,
                           "contrasts": {name: dict(weights) for name, weights in self.contrasts.items()}},
            "arms": {arm.name: _arm_document(arm) for arm in self.arms},
            "choices": {choice.arm: {option.value: {"trial": _arm_document(option.trial),
                                                    "final": _arm_document(option.final)}
                                     for option in choice.options} for choice in self.choices},
        }  # fmt: skip
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        return {"format": FORMAT, "study": self.name, "question": fields.question, "follow": list(fields.follow),
                "digest": digest, **content}  # fmt: skip


def _listed(family: str | tuple[tuple[str, str], ...]) -> str | list[list[str]]:
    return family if isinstance(family, str) else [list(pair) for pair in family]


def _by_seed(arms: Sequence[Arm]) -> list[Cell]:
    longest = max((len(arm.cells) for arm in arms), default=0)
    return [arm.cells[k] for k in range(longest) for arm in arms if k < len(arm.cells)]


def _arm_document(arm: Arm) -> dict[str, Any]:
    values = options.flat(arm.settings)
    shared = {k: v for k, v in values.items() if options.is_hashed(k) and k != "seed"}
    return {
        "settings": shared,
        "threads": arm.settings.threads,
        "cells": {str(cell.seed): cell.job.run.id for cell in arm.cells},
    }


# ----------------------------------------------------------------------------------------------------- making the cells


def read(typed: Typed, train: Mapping[str, Any], environ: Mapping[str, str]) -> Design:
    """The study that was typed, complete and valid. Makes nothing.

    train  options of training: the base of a study by `--axis`; otherwise only those outside a run's identity
    Raises UserError naming the field, option or cell at fault.
    """
    source = written.with_axes(written.read(typed, train), typed)
    fields = source.fields
    if typed.seeds is not None:
        fields = fields.model_copy(update={"seeds": written.seeds(typed.seeds)})
    fields = _other_form(source, typed, fields)
    maker = _Maker(source, typed, fields, written.environment(environ))
    _refuse_too_many(source, fields, typed.max_cells)
    if typed.tiny and source.tiny is None:
        raise UserError("usage", "--tiny", "the study has no table [tiny]")
    arms = [arm for name in source.arms if name not in source.choose for arm in maker.arms(name)]
    choices = tuple(maker.choice(name, table) for name, table in source.choose.items())
    names = [arm.name for arm in arms] + [choice.arm for choice in choices]
    alike = fields.family == written.LIKE_FOR_LIKE
    if alike:
        fields = fields.model_copy(update={"family": _like_for_like(source, typed, maker)})
    baseline = fields.family[0][1] if alike else _baseline(source, typed, fields, names)
    contrasts = {} if typed.screen else _contrasts(source, names)
    for pair in fields.family if not isinstance(fields.family, str) else ():
        for name in pair:
            written.check_arm(f"{source.place} field family", name, names)
    _refuse_duplicates(source, [*arms, *(option.final for choice in choices for option in choice.options)])
    every = [*arms, *(option.final for choice in choices for option in choice.options)]
    _check_metric(source, fields, every)
    name = f"{source.name}-tiny" if typed.tiny else source.name
    timing = written.timed(source, typed.tiny, {arm: table for arm, (table, _) in maker.points.items()})
    design = Design(name, fields, baseline, tuple(arms), choices, contrasts, typed.tiny, alike, timing)
    if typed.screen:
        return replace(design, name=f"{name}-screen", screen=True)
    return design if typed.confirm is None else _confirming(design, typed.confirm, maker)


def _other_form(source: Source, typed: Typed, fields: Fields) -> Fields:
    """The fields of a screen, which ranks arms on validation images; or of a confirmation, which reads the test."""
    if typed.screen and typed.confirm is not None:
        raise UserError("usage", "--screen", "comes before --confirm", hint="Type one of them")
    if (typed.screen or typed.confirm is not None) and source.timing is not None:
        option = "--screen" if typed.screen else "--confirm"
        raise UserError("usage", option, "the study compares times, not accuracies")
    if typed.screen and source.fields.family == written.LIKE_FOR_LIKE:
        problem = "ranks all arms, and the study compares like with like"
        raise UserError("usage", "--screen", problem, hint="Run it without")
    if typed.screen and source.choose:
        problem = "the study picks its values on validation images itself"
        raise UserError("usage", "--screen", problem, hint="Run it without")
    if typed.screen:
        free = (seed for seed in count(SCREEN_FROM) if seed not in fields.seeds)
        own = {"seeds": tuple(islice(free, SCREEN_RUNS)), "metric": "val.top1", "select": "last"}
        return fields.model_copy(update=own | {"family": written.VERSUS_BASELINE})
    if typed.confirm is not None and fields.metric.startswith("val."):
        return fields.model_copy(update={"metric": "test.top1"})
    return fields


def _confirming(design: Design, text: str, maker: _Maker) -> Design:
    """The picked arms, their baseline and their placebos, in full: they are the family, and nothing else."""
    picked = tuple(_named("--confirm", word.strip(), design.names) for word in text.split(";" if ";" in text else ","))
    if len(set(picked)) < len(picked):
        raise UserError("usage", "--confirm", "repeated", got=text)
    pairs = [pair for arm in picked for pair in _pairs_of(design, arm)]
    if not pairs:
        raise UserError("usage", "--confirm", "is the baseline", got=text, hint="Name an arm to hold against it")
    arms = {arm.cells[0].job.run.id: arm for arm in design.arms}
    for arm in picked:
        for placebo in maker.placebos(arm):
            known = arms.setdefault(placebo.cells[0].job.run.id, placebo)
            pairs += [(arm, known.name)] if known.name != arm else []
    family = tuple(dict.fromkeys(pairs))
    needed = {name for pair in family for name in pair}
    partner = next(name for name in family[0] if name != picked[0])
    return replace(
        design, name=f"{design.name}-confirm", baseline=design.baseline if design.baseline in needed else partner,
        fields=design.fields.model_copy(update={"family": family}),
        arms=tuple(arm for arm in arms.values() if arm.name in needed), contrasts={}, confirmed=picked,
        choices=tuple(choice for choice in design.choices if choice.arm in needed),
    )  # fmt: skip


def _pairs_of(design: Design, arm: str) -> list[tuple[str, str]]:
    """The planned comparisons of an arm; one with the baseline where none is planned."""
    family = design.fields.family
    planned = [] if isinstance(family, str) else [pair for pair in family if arm in pair]
    return planned or ([(arm, design.baseline)] if arm != design.baseline else [])


def _refuse_too_many(source: Source, fields: Fields, limit: int) -> None:
    """Counted before anything is built: a mistyped axis has millions."""
    total = 0
    for name in source.arms:
        if name in source.choose:
            lists = [v for k, v in source.choose[name].items() if isinstance(v, list) and k != "seeds"]
            trial_seeds = source.choose[name].get("seeds", fields.seeds)
            count = math.prod(map(len, lists)) * (len(trial_seeds) if isinstance(trial_seeds, list | tuple) else 1)
            total += count + len(fields.seeds)
        else:
            axes = source.axes.get(name, {}).values()
            total += math.prod(len(g.value) if isinstance(g.value, list) else 1 for g in axes) * len(fields.seeds)
    if total > limit:
        raise UserError("usage", "study", f"{total} cells, limit {limit}", hint="Use --max-cells")


@dataclass(frozen=True)
class _Maker:
    """Builds the arms of a study, layer over layer."""

    source: Source
    typed: Typed
    fields: Fields
    environment: Layer
    looks: dict[tuple[Any, ...], Facts] = field(default_factory=dict)
    points: dict[str, tuple[str, Layer]] = field(default_factory=dict)  # of the arms: table and values

    def arms(self, name: str) -> Iterator[Arm]:
        """An arm, or one for every combination of its axes' values."""
        axes = {key: _values(given) for key, given in self._axes(name).items()}
        for key, values in axes.items():
            self._check_axis(name, key, values)
        made: dict[str, tuple[Arm, tuple[Given, ...]]] = {}
        for at, value in _points(axes):
            point = tuple(at.values())
            arm = self._arm(f"{name} {value}".strip(), name, at)
            self.points[arm.name] = name, at
            twin = made.get(arm.cells[0].job.run.id)
            if twin is not None:
                raise self._same(axes, point, twin[1])
            made[arm.cells[0].job.run.id] = arm, point
            yield arm

    def choice(self, name: str, table: Mapping[str, Any]) -> Choice:
        """The two stages of an arm whose value is chosen."""
        if self.typed.tiny and isinstance(self.source.tiny, Mapping):
            table = {**table, **self.source.tiny.get("choose", {}).get(name, {})}
        place = f"{self.source.place} field choose.{name}"
        share = Given(table.get("val_fraction", 0.0), f"{place}.val_fraction", text=False)
        if not parse(Train.model_fields["val_fraction"], share):
            raise UserError("config", share.origin, "a value is chosen on validation images, never on the test",
                            got=share.value, expected="a share above 0")  # fmt: skip
        given = Given(table.get("seeds", []), f"{place}.seeds", text=False)
        trial_seeds = parse(Fields.model_fields["seeds"], given)
        if set(trial_seeds) & set(self.fields.seeds) or len(set(trial_seeds)) != len(trial_seeds):
            raise UserError(
                "config", given.origin, "are different ones, and none of the study's", got=list(trial_seeds)
            )
        plain = {key: value for key, value in table.items() if key not in ("val_fraction", "seeds")}
        keys = options.file_layer(plain, self.source.place, path=f"choose.{name}.")
        if not keys:
            raise UserError("config", place, "nothing to choose", expected="KEY = [V1, V2]")
        axes = {key: _values(g) for key, g in keys.items()}
        for key, values in axes.items():
            self._check_axis(name, key, values)
        found: dict[str, Option] = {}
        for at, value in _points(axes):
            trial = self._arm(f"{name} {value}", name, {**at, "val_fraction": share}, trial_seeds)
            if value in found:
                raise UserError("config", place, f"{value} stands twice")
            found[value] = Option(value, trial, replace(self._arm(name, name, at), name=name))
        return Choice(name, tuple(found.values()))

    def placebos(self, arm: str) -> Iterator[Arm]:
        """What takes away from an arm what it is credited for, and leaves all else as it is there."""
        for name, layer in self.source.placebos.items():
            if arm not in self.points:
                raise UserError("usage", "--confirm", "the placebos of a value yet to be chosen are not known", got=arm)
            own, at = self.points[arm]
            tiny = self.source.tiny.get("placebos", {}) if self.typed.tiny and self.source.tiny else {}
            smaller = written.arm_layer(self.source.place, "tiny.placebos", name, tiny.get(name, {}))
            yield self._arm(f"{name} of {arm}", own, {**at, **layer, **smaller})

    def _axes(self, name: str) -> Layer:
        return self.source.axes.get(name, {})

    def _check_axis(self, name: str, key: str, values: list[Given]) -> None:
        where = values[0].origin.rpartition("[")[0]
        if key in ("seed", "split_seed"):
            raise UserError("config", where, "is no axis", hint="Give seeds")
        if not options.is_hashed(key):
            raise UserError("usage", where, "has no effect on the result")

    def _same(self, axes: Mapping[str, list[Given]], one: tuple[Given, ...], two: tuple[Given, ...]) -> UserError:
        """Two points of the axes that are one cell: a value given twice, or a setting that does nothing there."""
        for a, b in zip(two, one, strict=True):
            if a is not b:
                where, same = b.origin.rpartition("[")[0], f"{_shown(a)} and {_shown(b)} are the same cell"
                return UserError("config", where, same)
        return UserError("config", self.source.place, "the same cell twice")

    def _arm(self, label: str, name: str, at: Layer, seeds: Sequence[int] | None = None) -> Arm:
        """The arm `name` with these values laid over it; every seed a cell."""
        layers, follows = self._layers(name, at)
        gathered = options.combined(layers)
        completed, facts = job.complete(gathered, self._look)
        changes = self._changes(completed)
        if changes:
            gathered = gathered._replace(train=gathered.train.model_copy(update=changes))
            completed, facts = job.complete(gathered, self._look)
        threads = completed.threads or self.fields.threads
        completed = completed.model_copy(update={"threads": threads})
        seeds = self.fields.seeds if seeds is None else seeds
        cells = []
        for seed in seeds:
            own = completed.model_copy(update={"seed": seed, **({"split_seed": seed} if follows else {})})
            made = Job(gathered, own, facts, job.located(own, facts), resume=True)
            cells.append(Cell(label, seed, job.checked(made), chooses=self.typed.screen or "val_fraction" in at))
        return Arm(label, completed, tuple(cells))

    def _changes(self, full: Train) -> dict[str, Any]:
        """What a screen, or a confirmation of what validation images picked, changes in an arm's settings."""
        if self.typed.confirm is not None and self.source.fields.metric.startswith("val."):
            return {"val_fraction": 0.0}
        if not self.typed.screen:
            return {}
        assert full.epochs is not None
        shorter = {"epochs": math.ceil(full.epochs / SCREEN_SHARE), "keep": None}
        if full.schedule == "step":
            shorter["step_every"] = math.ceil(full.step_every / SCREEN_SHARE)
        return shorter | {"val_fraction": full.val_fraction or SCREEN_HELD_OUT}

    def _look(self, train: Train) -> Facts:
        """What is known of the data; a file is read once, not once for every arm."""
        from mixcli.data import sources

        key = train.dataset, train.data_dir, train.normalise, train.resize
        if key not in self.looks:
            self.looks[key] = sources.look(train)
        return self.looks[key]

    def _layers(self, name: str, at: Layer) -> tuple[list[Layer], bool]:
        """Base, tiny, arm, `--set`, the point of the axes, the machine; and whether the split follows the seed."""
        tiny: Layer = {}
        own_tiny: Layer = {}
        if self.typed.tiny:
            tiny, own_tiny = self._tiny(name)
        sets = self._sets()
        below = {**self.source.base, **tiny, **sets.get("base", {})}
        split = below.get("split_seed")
        follows = split is not None and split.value == "seed"
        below = {key: given for key, given in below.items() if not (follows and key == "split_seed")}
        if "seed" in below:
            raise UserError("config", below["seed"].origin, "a study has several", hint="Give seeds")
        own = {**self.source.arms[name], **own_tiny, **sets.get(name, {})}
        return [below, own, at, self.environment, self.source.typed], follows

    def _tiny(self, name: str) -> tuple[Layer, Layer]:
        place, tiny = self.source.place, self.source.tiny
        assert tiny is not None
        arms = tiny.get("arms", {})
        base = options.file_layer({k: v for k, v in tiny.items() if k not in written.OF_TINY}, place, path="tiny.")
        return base, written.arm_layer(place, "tiny.arms", name, arms[name]) if name in arms else {}

    def _sets(self) -> dict[str, Layer]:
        """What `--set` says, by arm and for the base."""
        found: dict[str, Layer] = {}
        for text in self.typed.set:
            where, equals, value = text.partition("=")
            target, _, key = where.strip().rpartition(".")
            if target == "axes" and equals:  # laid over the study before
                continue
            arm = target.removeprefix("arms.")
            if not equals or not (target == "base" or (target.startswith("arms.") and arm in self.source.arms)):
                expected = "base.KEY=VALUE, arms.NAME.KEY=VALUE or axes.KEY=V1,V2"
                raise UserError("usage", "--set", "names no setting of the study", got=text, expected=expected)
            given = Given(value, f"--set {where.strip()}", text=True)
            found.setdefault(target if target == "base" else arm, {})[key.replace("-", "_")] = given
        return found


def _values(given: Given) -> list[Given]:
    """The values of an axis, each with its place."""
    if not isinstance(given.value, list) or not given.value:
        raise UserError(given.kind, given.origin, "no values", expected="a list of them")
    return [Given(value, f"{given.origin}[{k}]", given.text) for k, value in enumerate(given.value)]


def _points(axes: Mapping[str, list[Given]]) -> Iterator[tuple[Layer, str]]:
    """Every combination of the axes' values, and what it is called: `alpha=0.2, inter=Stripes`."""
    told = {key: own_code.told_apart([_shown(given) for given in values]) for key, values in axes.items()}
    for places in product(*(range(len(values)) for values in axes.values())):
        at = dict(zip(axes, places, strict=True))
        yield {key: axes[key][n] for key, n in at.items()}, ", ".join(f"{key}={told[key][n]}" for key, n in at.items())


def _shown(given: Given) -> str:
    if isinstance(given.value, bool):
        return str(given.value).lower()
    return "/".join(map(str, given.value)) if isinstance(given.value, list) else str(given.value)


# --------------------------------------------------------------------------------------------------------------- checks


def _baseline(source: Source, typed: Typed, fields: Fields, names: list[str]) -> str:
    """The arm that the others are compared with: the one named, or the first."""
    text = typed.baseline or fields.baseline
    if text is None:
        return names[0]
    return _named("--baseline" if typed.baseline else source.origins["baseline"], text, names)


def _like_for_like(source: Source, typed: Typed, maker: _Maker) -> tuple[tuple[str, str], ...]:
    """Each arm with that of the baseline's table which has the same values of the baseline's axes."""
    origin = "--baseline" if typed.baseline else source.origins["baseline"]
    name = typed.baseline or source.fields.baseline or next(iter(source.arms))
    written.check_arm(origin, name, list(source.arms))
    keys = source.axes.get(name, {})
    at = {arm: (table, tuple((k, _shown(g)) for k, g in sorted(point.items()) if k in keys))
          for arm, (table, point) in maker.points.items()}  # fmt: skip
    own = {point: arm for arm, (table, point) in at.items() if table == name}
    pairs = tuple((arm, own[point]) for arm, (table, point) in at.items() if table != name and point in own)
    if not pairs:
        raise UserError("config", source.origins["family"], f"no arm has the axes of {name}")
    return pairs


def _named(origin: str, text: str, names: list[str]) -> str:
    """The arm of this name, or the one that ends in it: `beta=0.1` for `synermix beta=0.1`."""
    found = [name for name in names if name == text] or [name for name in names if name.endswith(f" {text}")]
    if len(found) != 1:
        raise UserError("config", origin, "no such arm", got=text, hint=nearest(text, names))
    return found[0]


def _contrasts(source: Source, names: list[str]) -> dict[str, dict[str, float]]:
    """Further planned comparisons: the weight of each arm, of sum 0."""
    found: dict[str, dict[str, float]] = {}
    for name, weights in source.contrasts.items():
        origin = f"{source.place} table contrasts.{name}"
        inner = written.as_table(source.place, "contrasts", name, weights)
        for arm in inner:
            written.check_arm(origin, arm, names)
        numbers = [w for w in inner.values() if isinstance(w, int | float) and not isinstance(w, bool)]
        if len(numbers) < max(2, len(inner)) or abs(sum(numbers)) > 1e-9 or not any(numbers):
            raise UserError("config", origin, "no contrast", got=inner, expected="a weight for each arm, of sum 0")
        found[name] = {arm: float(weight) for arm, weight in inner.items()}
    return found


def _refuse_duplicates(source: Source, arms: Sequence[Arm]) -> None:
    """Two arms of one name, or with one run in common, which would be counted twice."""
    owners: dict[str, str] = {}
    for arm in arms:
        for cell in arm.cells:
            other = owners.setdefault(cell.job.run.id, arm.name)
            if other != arm.name:
                raise UserError("config", f"{source.place} table arms.{arm.name}", f"has the same cells as {other}")


def _check_metric(source: Source, fields: Fields, arms: Sequence[Arm]) -> None:
    """A metric that every run has; never the best epoch on the test."""
    where = source.origins.get("metric", "metric")
    if fields.metric == "oracle_test_best":
        raise UserError("config", where, "the best test epoch is no metric: it is chosen on the test images")
    if fields.metric not in METRICS:
        raise UserError("config", where, "not produced", got=fields.metric, hint=nearest(fields.metric, METRICS))
    needed = follow.METRICS.get(fields.metric)
    if needed is not None and needed not in fields.follow:
        raise UserError("config", where, f"is measured by {needed}", hint=f'Set follow = ["{needed}"]')
    needs_val = fields.metric.startswith("val.") or fields.select == "best_on_val"
    for arm in arms:
        if needs_val and not arm.settings.val_fraction:
            key = "select" if fields.select == "best_on_val" else "metric"
            problem = f"needs validation images, and arm {arm.name} has none"
            raise UserError("config", source.origins.get(key, key), problem, hint="Set val_fraction in [base]")
    if fields.select != "last" and fields.metric != "test.top1":
        raise UserError("config", source.origins.get("select", "select"), "is for test.top1 alone", got=fields.select)


def check_root(design: Design) -> None:
    """Raises UserError where the runs of the study could not be made."""
    for arm in [*design.arms, *(option.final for choice in design.choices for option in choice.options)]:
        runs.check_root(Path(arm.settings.runs))
