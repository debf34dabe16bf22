"""doctor.py: doctor: whether mixcli can work here, and what a bug report needs."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mixcli.commands.outcome import Debug, Json, Outcome


def doctor(
    device: Annotated[str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:N or auto")] = None,
    threads: Annotated[str | None, typer.Option(metavar="INT", help="CPU threads; unset: as torch finds it")] = None,
    data_dir: Annotated[str | None, typer.Option(metavar="DIR", help="where data sets are looked for")] = None,
    runs: Annotated[str | None, typer.Option(metavar="DIR", help="folder of the runs")] = None,
    json: Json = False,
    debug: Debug = False,
) -> Outcome:
    """Look whether mixcli can work here: versions, device, threads, data, writing, two trainings of a second.

    Exit code 0 where nothing is broken, else 1; each finding says what to do. For a bug report: mixcli doctor --json
    """
    from mixcli import options
    from mixcli.report import tables
    from mixcli.studies import doctor as studies

    typed = {"device": device, "threads": threads, "data_dir": data_dir, "runs": runs}
    found = studies.examine(options.gather(typed, None, os.environ).train)
    document = studies.document(found)
    return Outcome(document, lambda: tables.findings(document), studies.error(found))
