"""listing.py: list: what can be named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixcli.commands.outcome import Json, Outcome
from mixcli.errors import UserError, nearest

if TYPE_CHECKING:
    pass


def list_(
    what: Annotated[str | None, typer.Argument(metavar="[methods|mixings|datasets|nets|studies|probes]")] = None,
    json: Json = False,
) -> Outcome:
    """List what can be named: methods, mixings, datasets, nets, studies, probes."""
    from mixcli.settings import DATASETS, METHODS, NETS, Mixing
    from mixcli.studies import design
    from mixcli.studies.probes.catalogue import PROBES

    known = {
        "methods": {name: cls.summary for name, cls in METHODS.items()},
        "mixings": {name: cls.summary for name, cls in METHODS.items() if issubclass(cls, Mixing)},
        "datasets": DATASETS,
        "nets": {name: summary for name, (_, summary) in NETS.items()},
        "studies": design.named(),
        "probes": {name: found.summary for name, found in PROBES.items()},
    }
    if what is not None and what not in known:
        raise UserError("usage", "list", "unknown", got=what, hint=nearest(what, known))
    chosen = known if what is None else {what: known[what]}
    return Outcome(chosen, lambda: _listings(chosen))


def _listings(chosen: dict[str, dict[str, str]]) -> Any:
    from rich.console import Group

    from mixcli.report import tables

    return Group(*(tables.listing(title, rows) for title, rows in chosen.items()))
