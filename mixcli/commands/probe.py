"""probe.py: probe: inside a trained network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixcli.commands.outcome import Debug, Json, Outcome, Quiet, number, with_parameters
from mixcli.errors import UserError

if TYPE_CHECKING:
    from mixcli.report.progress import Reporter
    from mixcli.studies.probes import probing


def probe(
    ctx: typer.Context,
    what: Annotated[
        str, typer.Argument(metavar="PROBE", help="which probe; its own options: mixcli probe PROBE --help")
    ],
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="run folder, checkpoint, start of an id; unset: latest")
    ] = None,
    against: Annotated[
        list[str] | None, typer.Option(metavar="RUN", help="a reference on the same images; may be repeated")
    ] = None,
    study: Annotated[
        str | None, typer.Option(metavar="STUDY", help="headline numbers of its finished runs, compared as methods")
    ] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="the study's small form")] = False,
    split: Annotated[str, typer.Option(metavar="train|val|test", help="whose images")] = "test",
    images: Annotated[str | None, typer.Option(metavar="INT", help="only so many, stratified; unset: all")] = None,
    stages: Annotated[
        str | None, typer.Option(metavar="NAME,...|all", help="sites to show; unset: the probe's")
    ] = None,
    seed: Annotated[str, typer.Option(metavar="INT", help="of the choice of images and tuples")] = "0",
    all_epochs: Annotated[bool, typer.Option("--all-epochs", help="at every epoch that the run kept")] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="compute cached features again")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the cost and write nothing")] = False,
    runs: Annotated[str | None, typer.Option(metavar="DIR", help="where runs lie")] = None,
    data_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="where data lies; unset: where the run had it")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:N or auto")] = "auto",
    out: Annotated[str | None, typer.Option(metavar="DIR", help="the results; unset: in the run's folder")] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    **typed: Any,
) -> Outcome:
    """Look inside a trained network: mixcli probe linearity RUN; the others: mixcli list probes.

    One checkpoint describes one file; only --study leads to sentences about methods.
    """
    from mixcli import flags, options
    from mixcli.report.progress import Reporter
    from mixcli.studies.probes import catalogue as probes

    own = probes.NoOptions() if what == "all" else flags.own(probes.named(what).options, typed)
    data = options.data_root(data_dir, os.environ)
    numbers = {"images": number(images, "--images", "batch"), "seed": number(seed, "--seed", "seed")}
    if study is not None and (run is not None or against):
        raise UserError("usage", "--study", "names the runs, so none is given beside it")
    if study is not None and what == "all":
        raise UserError("usage", "--study", "compares the numbers of one probe", expected="one of mixcli list probes")
    from mixcli.report.probes import findings as page
    from mixcli.studies.probes import probing

    asked = probing.Asked(
        what, run or "latest", tuple(against or ()), own, split, stages=stages, all_epochs=all_epochs, refresh=refresh,
        dry_run=dry_run, runs=Path(options.runs_root({"runs": runs}, os.environ)),
        data_dir=None if data is None else Path(data), device=device, out=None if out is None else Path(out), **numbers,
    )  # fmt: skip
    with Reporter(f"mixcli probe {what}", quiet) as reporter:
        reporter.warnings = ctx.obj.warnings
        if study is not None:
            return _probe_study(study, tiny, asked, reporter)
        if what == "all":
            return _probe_all(asked, reporter)
        found = probing.run(asked, reporter)
    if found.findings is None:
        return Outcome(found.document, lambda: page.planned(found.document))
    return Outcome(found.document, lambda: page.shown(found.findings, found.folders))


def _probe_all(asked: probing.Asked, reporter: Reporter) -> Outcome:
    """Every probe in one folder, with its report."""
    from mixcli.report.probes import findings as page
    from mixcli.studies.probes import overview

    found = overview.run(asked, reporter)
    return Outcome(found.document(), lambda: page.overview(found))


def _probe_study(name: str, tiny: bool, asked: probing.Asked, reporter: Reporter) -> Outcome:
    """The headline numbers of a study's finished runs, compared, written beside its tables and shown."""
    from mixcli.report.probes import study as page
    from mixcli.studies import design, written
    from mixcli.studies.probes import study as probed_study

    found = design.read(written.Typed(name, tiny=tiny), {"runs": str(asked.runs)}, os.environ)
    folder = Path("studies") / found.name
    if asked.all_epochs:
        course = probed_study.course(found, asked, reporter)
        probed_study.write_course(course, asked.out or folder)
        document = [{"epoch": epoch, **one.document()} for epoch, one in course.items()]
        return Outcome({"epochs": document}, lambda: page.course(course))
    probed = probed_study.over(found, asked, reporter, probed_study.is_planned(found, asked, folder))
    probed_study.write(probed, asked.out or folder)
    return Outcome(probed.document(), lambda: page.shown(probed))


def with_options(argv: list[str]) -> Any:
    """`probe` with the options of the probe that its first word names."""
    from mixcli import flags
    from mixcli.studies.probes.catalogue import PROBES

    chosen = PROBES.get(argv[0]) if argv else None
    settings = [] if chosen is None else flags.own_parameters(chosen.options, argv[0].capitalize())
    return with_parameters(probe, settings)
