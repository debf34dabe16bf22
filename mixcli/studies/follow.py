"""follow.py: what a study measures on its finished runs, by name: `follow = ["corruptions"]` in a study file.

A follow-up is one entry of `FOLLOWS`: a module that offers `measure`, which makes what is missing among a run's own
results (once; other studies find it there), and a function that reads headline numbers, one per run, from what is
saved. They become columns of the study, and may be its metric. A stopped study goes on at the first missing one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Protocol

from mixcli.engine.stopping import Stop
from mixcli.errors import UserError, nearest
from mixcli.runs import Run
from mixcli.studies.probes.catalogue import PROBES
from mixcli.studies.scores import Score


class Reporter(Protocol):
    """What a follow-up tells while it goes on."""

    def note(self, line: str) -> None: ...
    def warn(self, subject: str, problem: str) -> None: ...


@dataclass(frozen=True)
class Headline:
    """The numbers of one run.

    values   by name: points, or the unit that the name says; None where the run has none
    told     of what they were measured on; runs that are compared must have the same
    reasons  why numbers are None
    """

    values: Mapping[str, float | None]
    told: str = ""
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Follow:
    """A follow-up by the names of its parts, so that nothing is imported before it is needed.

    module   offers `measure(run, names, device, reporter, stop)`, the names being those of its follow-ups that are
             wanted, and the function `headline`: run -> Headline, or None where nothing is saved
    columns  the headline numbers that every table shows, and their headings; one that ends in a dot goes on with the
             name of a site, and so does its heading
    metrics  those that a study may compare, in points
    """

    module: str
    headline: str
    columns: Mapping[str, str]
    metrics: tuple[str, ...] = ()


MEANS = ("mean15", "mean14", "mean_available")  # a study takes the first that all of its runs have
COMMON = "corruptions.mean"
PROBED = ("linearity", "geometry", "hull", "gradient-noise")  # probes whose numbers become columns
FOLLOWS = {
    "corruptions": Follow(
        "mixcli.studies.corruptions.follow", "corruptions",
        {COMMON: "mean acc, corrupted", "corruptions.mean15": "mean acc (15)", "corruptions.mean19": "mean acc (19)",
         "corruptions.noise": "noise", "corruptions.blur": "blur", "corruptions.weather": "weather",
         "corruptions.digital": "digital"},
        (COMMON,),
    ),
    "calibration": Follow(
        "mixcli.studies.corruptions.follow", "calibration",
        {"calibration.ece15": "ece15, clean", "calibration.nll": "nll, clean",
         "calibration.conf_minus_acc": "conf - acc, clean", "calibration.corrupted_ece15": "ece15, corrupted",
         "calibration.corrupted_nll": "nll, corrupted"},
    ),
    **{
        name: Follow("mixcli.studies.probes.follow", name.replace("-", "_"),
                     {f"{name}.{number}": f"{number.removesuffix('.')} " if number.endswith(".") else number
                      for number in PROBES[name].headlines})
        for name in PROBED
    },
}  # fmt: skip
METRICS = {metric: name for name, one in FOLLOWS.items() for metric in one.metrics}


def known(names: Sequence[str], origin: str) -> tuple[str, ...]:
    """The names themselves. Raises UserError for an unknown one, or one given twice."""
    for name in names:
        if name not in FOLLOWS:
            raise UserError("config", origin, "unknown", got=name, hint=nearest(name, FOLLOWS))
        if list(names).count(name) > 1:
            raise UserError("config", origin, f"{name} given twice")
    return tuple(names)


def columns(names: Sequence[str], scores: Sequence[Score]) -> dict[str, str]:
    """The headline numbers of these follow-ups and their headings, of each site that some of the runs have."""
    found: dict[str, str] = {}
    for key, heading in (column for name in names for column in FOLLOWS[name].columns.items()):
        named = [n for one in scores for n in one.values if n.startswith(key)] if key.endswith(".") else [key]
        found |= {name: heading + name.removeprefix(key) for name in named}
    return found


def measure(runs: Sequence[Run], names: Sequence[str], device: str, reporter: Reporter, stop: Stop) -> None:
    """Makes what is missing for finished runs. Raises UserError where a stop was asked for, or a net has diverged."""
    modules = list(dict.fromkeys(FOLLOWS[name].module for name in names))
    todo = [(module, run) for module in modules for run in runs if _lacks(module, names, run)]
    for done, (module, run) in enumerate(todo, 1):
        reporter.note(f"follow-up {done}/{len(todo)}  {run.folder.name}")
        wanted = [name for name in names if FOLLOWS[name].module == module]
        import_module(module).measure(run, wanted, device, reporter, stop)


def _lacks(module: str, names: Sequence[str], run: Run) -> bool:
    return any(_headline(name)(run) is None for name in names if FOLLOWS[name].module == module)


def _headline(name: str) -> Callable[[Run], Headline | None]:
    one = FOLLOWS[name]
    return getattr(import_module(one.module), one.headline)


@dataclass(frozen=True)
class Followed:
    """Scores with their headline numbers, and what must be said of these: facts by name, notes, warnings."""

    scores: list[Score]
    facts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def followed(scores: Sequence[Score], runs: Mapping[str, Run], names: Sequence[str]) -> Followed:
    """Lays what is saved of each run over its scores; measures nothing. `runs` by id."""
    found = Followed(list(scores))
    for name in names:
        heads = [_headline(name)(runs[one.run]) for one in found.scores]
        merged = [replace(one, values={**one.values, **(head.values if head else {})})
                  for one, head in zip(found.scores, heads, strict=True)]  # fmt: skip
        there = [head for head in heads if head is not None]
        missing, told = len(heads) - len(there), sorted({head.told for head in there})
        warnings = [f"{name}: missing for {missing} of {len(heads)} runs; the same command without --report makes them"]
        mixed = [f"{name}: measured on different data: {' | '.join(told)}"]
        found = Followed(
            merged, {**found.facts, **({name: told[0]} if told and told[0] not in found.facts.values() else {})},
            [*found.notes, *dict.fromkeys(reason for head in there for reason in head.reasons)],
            [*found.warnings, *(warnings if missing else []), *(mixed if len(told) > 1 else [])],
        )  # fmt: skip
    return _with_common(found) if "corruptions" in names else found


def _with_common(found: Followed) -> Followed:
    """The one mean over corruptions that all runs have, under one name for all of them."""
    there = [one for one in found.scores if any(f"corruptions.{mean}" in one.values for mean in MEANS)]
    common = [
        mean for mean in MEANS if there and all(one.values.get(f"corruptions.{mean}") is not None for one in there)
    ]
    if not common:
        return found
    scores = [replace(one, values={**one.values, COMMON: one.values.get(f"corruptions.{common[0]}")})
              for one in found.scores]  # fmt: skip
    return replace(found, scores=scores, facts={**found.facts, "mean acc, corrupted": common[0]})


def told(metric: str, facts: Mapping[str, str]) -> str:
    """How a metric that is a follow-up was taken, for the report."""
    return f"last epoch, {facts.get('mean acc, corrupted', 'the mean over corruptions')}" if metric == COMMON else ""
