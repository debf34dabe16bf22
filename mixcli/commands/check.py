"""check.py: check: a mixing or method, built in or one's own, put through every law."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from mixcli.commands.outcome import Debug, Json, Outcome, Quiet, number, warn
from mixcli.errors import UserError


def check(
    ctx: typer.Context,
    images: Annotated[str, typer.Option(metavar="INT", help="how many images the contact sheet shows")] = "8",
    out: Annotated[str, typer.Option(metavar="DIR", help="folder of the card: check-NAME.md and .png")] = ".",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    **typed: Any,
) -> Outcome:
    """Put a mixing or method through every law, measure it beside MixUp, and draw it: a certificate on one page.

    mixcli check my_mix.py:Stripes, or a built-in such as mixcli check cutmix --box inside. Exit code 0 where every law
    that applies holds, 5 where one is broken.
    """
    from mixcli import options
    from mixcli.engine import job
    from mixcli.files import write_atomic
    from mixcli.report import certificate as cards
    from mixcli.report import plots
    from mixcli.report.progress import Reporter

    if typed.get("method") is None:
        raise UserError("usage", "check", "needs the name of a method", hint="See mixcli list methods, or path.py:Name")
    count = number(images, "--images", "batch")
    gathered = options.gather(typed, None, os.environ)
    settings, _ = job.complete(gathered)
    card = _folder(out) / f"check-{settings.method.name}.md"
    picture = card.with_suffix(".png")
    with Reporter("mixcli check", quiet) as reporter:
        reporter.warnings = ctx.obj.warnings
        warn(gathered, reporter)
        from mixcli.studies import certificate

        found = certificate.certify(settings, count, reporter.step)
    document, drawn = found.document(), found.sheet is not None
    if drawn:
        plots.contact_sheet(found.sheet, picture)
    write_atomic(card, cards.markdown(document, picture.name if drawn else None).encode())
    document |= {"files": [str(path) for path in ([card, picture] if drawn else [card])]}
    return Outcome(document, lambda: cards.table(document), found.error())


def _folder(out: str) -> Path:
    """The folder of the card. Raises UserError where it is a file, is not there, or cannot be written to."""
    folder = Path(out)
    if folder.is_file():
        raise UserError("config", "--out", "is a file", got=out, expected="a folder, for check-NAME.md and .png")
    if not folder.is_dir():
        raise UserError("config", "--out", "no such folder", got=out, expected="a folder, for check-NAME.md and .png",
                        hint="Make it, or leave --out away for the working directory")  # fmt: skip
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError("config", "--out", "a folder that cannot be written to", got=out)
    return folder
