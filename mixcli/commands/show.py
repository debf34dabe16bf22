"""show.py: show: a contact sheet of any mixing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixcli.commands.outcome import Debug, Json, Outcome, number
from mixcli.errors import UserError

if TYPE_CHECKING:
    pass


def show(
    images: Annotated[str | None, typer.Option(metavar="INT", help="how many images; 8 unless given")] = None,
    out: Annotated[str | None, typer.Option(metavar="FILE", help="the figure: .png, .pdf or .svg")] = None,
    stats: Annotated[bool, typer.Option("--stats", help="print figures of many draws instead")] = False,
    json: Json = False,
    debug: Debug = False,
    **typed: Any,
) -> Outcome:
    """Draw what a mixing does: originals, masks and mixed images of a data set, on one sheet.

    mixcli show fmix --dataset cifar100 --out fmix.png. Ratios and masks are drawn per image unless --per is typed.
    """
    from mixcli import options
    from mixcli.engine import job

    for name, value in (("--images", images), ("--out", out)):
        if stats and value is not None:
            raise UserError("usage", name, "belongs to the sheet, and --stats draws none", got=value)
    count = number("8" if images is None else images, "--images", "batch")
    if typed.get("method") is None:
        raise UserError("usage", "show", "needs the name of a mixing", hint="See mixcli list mixings")
    gathered = options.gather(typed, None, os.environ)
    settings, _ = job.complete(gathered)
    from mixcli.report import plots, tables
    from mixcli.studies import contact_sheet

    settings = settings if typed.get("per") else contact_sheet.per_image(settings)
    try:
        if stats:
            found = contact_sheet.statistics(settings)
            title = f"{settings.method.label()} on {settings.dataset}: shares of the image itself"
            return Outcome(found, lambda: tables.measured(title, found))
        path = plots.check(Path(out or f"show-{settings.method.name}.png"))
        sheet = contact_sheet.sheet(settings, count)
        plots.contact_sheet(sheet, path)
    except UserError as error:
        raise gathered.located(error) from error
    shares = [round(float(ratio), 4) for ratio in sheet.ratio]
    result = {"file": str(path), "method": sheet.title, "dataset": settings.dataset, "ratio": shares}
    return Outcome(result, lambda: tables.measured(f"{sheet.title} on {settings.dataset}", result))
