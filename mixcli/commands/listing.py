"""listing.py: list: what can be named."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixcli.commands.outcome import Json, Outcome, Quiet
from mixcli.errors import UserError, nearest

if TYPE_CHECKING:
    from mixcli.report.progress import Reporter


def list_(
    ctx: typer.Context,
    what: Annotated[
        str | None, typer.Argument(metavar="[methods|mixings|datasets|nets|corruptions|studies|probes]")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="time some steps of every method here, and tell the time a run takes")
    ] = False,
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="of the times told (digits)")] = None,
    net: Annotated[str | None, typer.Option(metavar="NAME", help="of the times told (the recipe's)")] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="for --measure")] = None,
    data_dir: Annotated[str | None, typer.Option(metavar="DIR", help="for --measure: where data sets lie")] = None,
    runs: Annotated[str | None, typer.Option(metavar="DIR", help="where the times are kept (runs)")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """List what can be named: methods, mixings, datasets, nets, corruptions, studies, probes.

    Beside the methods stands the time that a run takes here, once --measure has timed some steps of each.
    """
    from mixcli import own_code
    from mixcli.catalogue import BORROWED, DATASETS, NETS
    from mixcli.report.progress import Reporter
    from mixcli.settings import METHODS, Mixing
    from mixcli.studies import written
    from mixcli.studies.probes.catalogue import PROBES

    known = {
        "methods": {name: cls.summary for name, cls in METHODS.items()},
        "mixings": {name: cls.summary for name, cls in METHODS.items() if issubclass(cls, Mixing)},
        "datasets": DATASETS,
        "nets": {name: summary for name, (_, summary) in NETS.items()} | BORROWED,
        "corruptions": _corruptions(),
        "studies": written.named(),
        "probes": {name: found.summary for name, found in PROBES.items()},
    }
    if what is not None and what not in known:
        raise UserError("usage", "list", "unknown", got=what, hint=nearest(what, known))
    if measure and what != "methods":
        raise UserError("usage", "--measure", "times methods", got=what or "all lists", expected="list methods")
    reporter = Reporter("mixcli list", quiet)
    reporter.warnings = ctx.obj.warnings
    for kind in own_code.GROUPS:
        for name, problem in own_code.problems(kind, known[kind]):
            reporter.warn(name, problem)
        for name, points in own_code.offered(kind).items():
            known[kind].setdefault(name, f"from {' and '.join(map(own_code.origin, points))}")
    chosen = known if what is None else {what: known[what]}
    typed = {"dataset": dataset, "net": net, "device": device, "data_dir": data_dir, "runs": runs}
    here = _times(typed, measure, reporter) if "methods" in chosen else None
    told = chosen if here is None else {**chosen, "times": here}
    return Outcome(told, lambda: _listings(chosen, here))


def _times(typed: dict[str, str | None], measure: bool, reporter: Reporter) -> dict[str, Any] | None:
    """What a run of each method takes here: measured now, or remembered, or None."""
    from mixcli.engine import minutes

    if not measure:
        return minutes.remembered(typed, os.environ)
    with reporter:
        return minutes.measure(typed, os.environ, reporter.note)


def _corruptions() -> dict[str, str]:
    """Family, and where a corruption applies."""
    from mixcli.corruptions.parameters import FAMILIES, NAMES, PARAMETERS, STANDARD

    family = {name: family for family, names in FAMILIES.items() for name in names}
    return {name: f"{family[name]}, {'of the standard 15' if name in STANDARD else 'of the extra 4'}, images from "
                  f"{8 if 'tiny' in PARAMETERS[name] else 16} px" for name in NAMES}  # fmt: skip


def _listings(chosen: dict[str, dict[str, str]], here: dict[str, Any] | None) -> Any:
    from rich.console import Group

    from mixcli.report import tables

    return Group(*(tables.listing(title, rows, here if title == "methods" else None) for title, rows in chosen.items()))
