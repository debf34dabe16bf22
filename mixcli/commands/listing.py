"""listing.py: list: what can be named."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mixcli.commands.outcome import Json, Outcome
from mixcli.errors import UserError, nearest


def list_(
    ctx: typer.Context,
    what: Annotated[
        str | None, typer.Argument(metavar="[methods|mixings|datasets|nets|corruptions|studies|probes]")
    ] = None,
    json: Json = False,
) -> Outcome:
    """List what can be named: methods, mixings, datasets, nets, corruptions, studies, probes."""
    from mixcli import own_code
    from mixcli.report.progress import Reporter
    from mixcli.settings import DATASETS, METHODS, NETS, Mixing
    from mixcli.studies import design
    from mixcli.studies.probes.catalogue import PROBES

    known = {
        "methods": {name: cls.summary for name, cls in METHODS.items()},
        "mixings": {name: cls.summary for name, cls in METHODS.items() if issubclass(cls, Mixing)},
        "datasets": DATASETS,
        "nets": {name: summary for name, (_, summary) in NETS.items()},
        "corruptions": _corruptions(),
        "studies": design.named(),
        "probes": {name: found.summary for name, found in PROBES.items()},
    }
    if what is not None and what not in known:
        raise UserError("usage", "list", "unknown", got=what, hint=nearest(what, known))
    reporter = Reporter("mixcli list")
    reporter.warnings = ctx.obj.warnings
    for kind in own_code.GROUPS:
        for name, problem in own_code.problems(kind, known[kind]):
            reporter.warn(name, problem)
        for name, points in own_code.offered(kind).items():
            known[kind].setdefault(name, f"from {' and '.join(map(own_code.origin, points))}")
    chosen = known if what is None else {what: known[what]}
    return Outcome(chosen, lambda: _listings(chosen))


def _corruptions() -> dict[str, str]:
    """Family, and where a corruption applies."""
    from mixcli.corruptions.parameters import FAMILIES, NAMES, PARAMETERS, STANDARD

    family = {name: family for family, names in FAMILIES.items() for name in names}
    return {name: f"{family[name]}, {'of the standard 15' if name in STANDARD else 'of the extra 4'}, images from "
                  f"{8 if 'tiny' in PARAMETERS[name] else 16} px" for name in NAMES}  # fmt: skip


def _listings(chosen: dict[str, dict[str, str]]) -> Any:
    from rich.console import Group

    from mixcli.report import tables

    return Group(*(tables.listing(title, rows) for title, rows in chosen.items()))
