"""corruptions.py: eval-corruptions, and the sheet of them all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixcli.commands.outcome import Debug, Json, Outcome, Quiet, number
from mixcli.errors import UserError

if TYPE_CHECKING:
    pass


def eval_corruptions(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME-c", help="cifar100-c, digits-c, …: a data set's name and -c")],
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="run folders, checkpoints, starts of ids, latest; unset: the newest"),
    ] = None,
    runs: Annotated[str | None, typer.Option(metavar="DIR", help="where runs lie")] = None,
    data_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="where data lies; unset: where the run had it")
    ] = None,
    corruption: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="only these; every mean is then null")
    ] = None,
    severity: Annotated[str | None, typer.Option(metavar="INT,...", help="only these of 1 to 5; likewise")] = None,
    per_cell: Annotated[str | None, typer.Option(metavar="INT", help="the same so many images in every cell")] = None,
    seed: Annotated[str, typer.Option(metavar="INT", help="of the generator")] = "0",
    generate: Annotated[bool, typer.Option("--generate", help="corrupt the clean test set in any case")] = False,
    official: Annotated[bool, typer.Option("--official", help="official files or an error")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="compare the official files with their md5 sums")] = False,
    allow_unofficial: Annotated[
        bool, typer.Option("--allow-unofficial", help="go on where a sum differs, relabelled")
    ] = False,
    save: Annotated[
        str | None, typer.Option(metavar="DIR", help="keep what is generated, in the official layout")
    ] = None,
    frost_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="frost1 .. frost5, your copies of the published textures")
    ] = None,
    jpeg85: Annotated[
        bool, typer.Option("--jpeg85", help="store what is generated as JPEG 85, as published image files are")
    ] = False,
    baseline: Annotated[
        str | None, typer.Option(metavar="CSV|RUN", help="divide errors by those of this cells.csv or checkpoint")
    ] = None,
    batch_size: Annotated[
        str | None, typer.Option(metavar="INT", help="images a forward pass; counts do not change")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="fp32|bf16", help="unset: the run's own on a GPU, else fp32")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:N or auto")] = "auto",
    out: Annotated[str | None, typer.Option(metavar="DIR", help="the results; unset: in the run's folder")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace results of another evaluation")] = False,
    stop_after: Annotated[
        str | None, typer.Option(metavar="TIME", help="stop after 3h50m, 90s, …; exit code 75; type it again to go on")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> Outcome:
    """Evaluate checkpoints on 19 corruptions at 5 severities and on the clean test set.

    Official files are used where they lie under --data-dir and pass their checks (a tar is unpacked once); else the
    clean test set is corrupted in memory, and every table says so. mixcli eval-corruptions cifar100-c takes the newest
    CIFAR-100 run.
    """
    from mixcli import flags, options
    from mixcli.engine.stopping import Stop
    from mixcli.report.progress import Reporter

    def path(text: str | None) -> Path | None:
        return None if text is None else Path(text)

    numbers = {"per_cell": number(per_cell, "--per-cell", "batch"), "seed": number(seed, "--seed", "seed"),
               "batch": number(batch_size, "--batch-size", "batch")}  # fmt: skip
    seconds = None if stop_after is None else flags.duration(stop_after, "--stop-after")
    from mixcli.report import robustness
    from mixcli.studies.corruptions.robustness import Asked as What
    from mixcli.studies.corruptions.robustness import evaluate

    data = options.data_root(data_dir, os.environ)
    asked = What(
        name, tuple(checkpoints or ()), Path(options.runs_root({"runs": runs}, os.environ)), path(data), corruption,
        severity, generate=generate, official=official, verify=verify, allow_unofficial=allow_unofficial,
        save=path(save), frost_dir=path(frost_dir), jpeg85=jpeg85, baseline=baseline, precision=precision,
        device=device, out=path(out), overwrite=overwrite, **numbers,
    )  # fmt: skip
    with Reporter("mixcli eval-corruptions", quiet) as reporter:
        reporter.warnings = ctx.obj.warnings
        with Stop(seconds).listening() as stop:
            result = evaluate(asked, reporter, stop)
    return Outcome(result, lambda: robustness.shown(result))


def show_corruptions(
    dataset: Annotated[str, typer.Option(metavar="NAME", help="digits, cifar100, …, a .npz file")] = "digits",
    data_dir: Annotated[str | None, typer.Option(metavar="DIR", help="where data lies; unset: data")] = None,
    image: Annotated[str, typer.Option(metavar="INT", help="row of the test split")] = "0",
    seed: Annotated[str, typer.Option(metavar="INT", help="of the generator")] = "0",
    frost_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="frost1 .. frost5, your copies of the published textures")
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="FILE", help="the figure: .png, .pdf or .svg")] = None,
    json: Json = False,
    debug: Debug = False,
) -> Outcome:
    """Draw one test image under every corruption of its size, at severities 1 to 5."""
    from mixcli import options
    from mixcli.engine import job

    typed = {"dataset": dataset, **({"data_dir": data_dir} if data_dir else {})}
    row, key = number(image, "--image", "seed"), number(seed, "--seed", "seed")
    gathered = options.gather(typed, None, os.environ)
    settings, _ = job.complete(gathered)
    from mixcli.report import plots, tables
    from mixcli.studies import contact_sheet

    path = plots.check(Path(out or "show-corruptions.png"))
    try:
        sheet = contact_sheet.corruptions(settings, row, key, None if frost_dir is None else Path(frost_dir))
    except UserError as error:
        raise gathered.located(error) from error
    plots.corruption_sheet(sheet, path)
    result = {"file": str(path), "dataset": settings.dataset, "image": row, "corruptions": list(sheet.images)}
    return Outcome(result, lambda: tables.measured("corruptions", result))
