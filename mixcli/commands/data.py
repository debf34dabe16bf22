"""data.py: data: fetch a published set, or verify the one that is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixcli.commands.outcome import Debug, Json, Outcome, Quiet
from mixcli.errors import UserError, nearest

if TYPE_CHECKING:
    from mixcli.data.downloads import Published


def data(
    ctx: typer.Context,
    action: Annotated[str, typer.Argument(metavar="fetch|verify")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="a data set of list datasets, or its NAME-c")],
    data_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="where data lies; unset: MIXCLI_DATA, or data")
    ] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="a folder that holds the same files, asked first; repeatable"),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> Outcome:
    """Fetch a published data set, or compare what is there with published sums.

    A transfer that broke off or was stopped goes on where it was when the same
    command is typed again. No other command opens a connection.
    """
    if action not in ACTIONS:
        raise UserError("usage", "data", "unknown", got=action, hint=nearest(action, ACTIONS))
    sets = _sets()
    if name not in sets:
        raise UserError("usage", f"data {action}", "no such data set", got=name, hint=nearest(name, sets))
    for url in mirror or ():
        if action != "fetch" or not url.startswith(("http://", "https://")):
            problem = "not an address" if action == "fetch" else "data verify has no such option"
            raise UserError("usage", "--mirror", problem, got=url, expected="http:// or https://")
    from mixcli import options
    from mixcli.report.progress import Reporter

    place = Path(options.data_root(data_dir, os.environ) or "data")
    if name == "digits":
        return _shown(action, name, [{"file": "digits", "state": "inside scikit-learn", "told": ""}])
    if action == "verify":
        return _verify(name, sets[name], place)
    with Reporter(f"mixcli data {action}", quiet) as reporter:
        reporter.warnings = ctx.obj.warnings
        return _fetch(name, sets[name], place, mirror or [], reporter)


ACTIONS = ("fetch", "verify")


def _sets() -> dict[str, Published]:
    """Every set that has a name: data sets, and the corrupted sets that go with them."""
    from mixcli.corruptions import published
    from mixcli.data import downloads

    found = {"digits": downloads.Published(), **downloads.PUBLISHED}
    for name, known in published.PUBLISHED.items():
        url = f"https://zenodo.org/records/{known.record}/files/{known.archive}?download=1"
        files = () if known.archive is None or known.md5 is None else (
            downloads.Download(known.archive, known.md5, (url,), known.folder, known.members, known.gib),
        )  # fmt: skip
        sums = {f"{known.folder}/{file}": sum_ for file, sum_ in known.sums.items()}
        found[f"{name}-c"] = downloads.Published(files, sums, f"{known.where}, unpacked as {known.folder}/")
    return found


def _fetch(name: str, known: Published, place: Path, mirrors: list[str], reporter: Any) -> Outcome:
    from mixcli.data.fetch import fetch

    if not known.downloads:
        raise UserError("data_missing", name, "not fetched: no sum is published to check it by",
                        hint=f"By hand, into {place}/: {known.where}")  # fmt: skip
    rows = []
    for one in known.downloads:
        state = fetch(one, place, mirrors, reporter)
        there = (place / one.file).with_name(one.folder) if one.folder else place / one.file
        rows.append({"file": one.file, "state": state, "told": str(there)})
    return _shown("fetch", name, rows)


def _verify(name: str, known: Published, place: Path) -> Outcome:
    from mixcli.data.verify import MISSING, verify

    checks = verify(name, known, place)
    failed = [check for check in checks if check.failed]
    error = None
    if failed:
        kind = "data_missing" if all(check.state == MISSING for check in failed) else "data_corrupt"
        rest = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        error = UserError(
            kind, failed[0].file, failed[0].state + rest, hint=f"Remove it, and then: mixcli data fetch {name}"
        )
    return _shown("verify", name, [{"file": c.file, "state": c.state, "told": c.told} for c in checks], error)


def _shown(action: str, name: str, rows: list[dict[str, str]], error: UserError | None = None) -> Outcome:
    from mixcli.report import tables

    result = {"action": action, "name": name, "rows": rows}
    return Outcome(result, lambda: tables.files(f"data {action} {name}", rows), error)
