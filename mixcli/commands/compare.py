"""compare.py: compare: finished runs, their saved results, or a table of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixcli.commands.outcome import Debug, Json, Outcome, Quiet
from mixcli.errors import UserError

if TYPE_CHECKING:
    pass


def compare(
    ctx: typer.Context,
    what: Annotated[
        list[str], typer.Argument(metavar="RUN... | TABLE.csv", help="finished runs, or one table of them")
    ],
    on: Annotated[
        str | None, typer.Option(metavar="NAME-c", help="compare what eval-corruptions saved of them")
    ] = None,
    by: Annotated[str | None, typer.Option(metavar="COLUMN", help="of a table: the arms' names")] = None,
    value: Annotated[str | None, typer.Option(metavar="COLUMN", help="of a table: one accuracy per run")] = None,
    seed: Annotated[str | None, typer.Option(metavar="COLUMN", help="of a table: which runs belong together")] = None,
    baseline: Annotated[str | None, typer.Option(metavar="ARM", help="what the others are compared with")] = None,
    test: Annotated[str, typer.Option(metavar="welch|paired", help="paired: by seed, planned beforehand")] = "welch",
    metric: Annotated[str | None, typer.Option(metavar="NAME", help="of runs; unset: test.top1")] = None,
    select: Annotated[str | None, typer.Option(metavar="NAME", help="last, median_last_10 or best_on_val")] = None,
    sesoi: Annotated[str, typer.Option(metavar="POINTS", help="the smallest gap worth a claim")] = "0.5",
    out: Annotated[str | None, typer.Option(metavar="DIR", help="write tables and figure there")] = None,
    root: Annotated[str | None, typer.Option("--runs", metavar="DIR", help="folder of the runs")] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> Outcome:
    """Compare finished runs: mixcli compare RUN RUN ..., or one CSV: table.csv --by method --value accuracy.

    With --on cifar100-c their saved corruption results are compared, by the mean over corruptions; none is made.
    """
    from mixcli import options
    from mixcli.fields import Given, parse
    from mixcli.report import tables
    from mixcli.report.progress import Reporter
    from mixcli.studies import comparison, written

    known = written.Fields.model_fields
    gap = parse(known["sesoi"], Given(sesoi, "--sesoi", text=True))
    if test == "corruptions":
        from mixcli.studies.corruptions import comparison as corruption_comparison

        raise corruption_comparison.refused()
    chosen = parse(known["test"], Given(test, "--test", text=True))
    is_table = len(what) == 1 and what[0].endswith(".csv")
    for option, given in (("--by", by), ("--value", value), ("--seed", seed)):
        if given is not None and not is_table:
            raise UserError("usage", option, "is for a CSV file")
        if given is None and is_table and option != "--seed":
            raise UserError("usage", option, "needs the name of a column")
    for option, given in (("--metric", metric), ("--select", select)):
        if given is not None and on is not None:
            raise UserError("usage", option, "does not go with --on, which compares the mean over corruptions")
    with Reporter("mixcli compare", quiet) as reporter:
        reporter.warnings = ctx.obj.warnings
        if on is not None:
            from mixcli.studies.corruptions import comparison as corruption_comparison

            folder = Path(options.runs_root({"runs": root}, os.environ))
            found = corruption_comparison.of_saved(what, folder, on, baseline=baseline, test=chosen, sesoi=gap)
        elif is_table:
            assert by is not None and value is not None
            found = comparison.of_csv(Path(what[0]), by, value, seed, baseline=baseline, test=chosen, sesoi=gap)
        else:
            folder = Path(options.runs_root({"runs": root}, os.environ))
            picked = parse(known["select"], Given(select or "last", "--select", text=True))
            found = comparison.of_runs(what, folder, baseline=baseline, test=chosen, sesoi=gap,
                                       metric=metric or "test.top1", select=picked, warn=reporter.warn)  # fmt: skip
        if out is not None:
            comparison.write(found, Path(out))
    return Outcome(found.document(), lambda: tables.comparison(found))
