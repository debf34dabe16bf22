"""ablate.py: ablate: a study of many runs, planned, run and compared."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixcli.commands.outcome import Debug, Json, Outcome, Quiet, number
from mixcli.errors import UserError

if TYPE_CHECKING:
    from mixcli.report.progress import Reporter
    from mixcli.studies.ablation import Kept, Tally
    from mixcli.studies.design import Design
    from mixcli.studies.workers import Ended, Engine


def ablate(
    ctx: typer.Context,
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="a named study or a .toml file")] = None,
    axis: Annotated[
        list[str] | None, typer.Option(metavar="KEY=V1,V2", help="values of a setting; further options are the base")
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="N|LIST", help="8 is 0 .. 7; a comma makes it a list")] = None,
    baseline: Annotated[str | None, typer.Option(metavar="ARM", help="what the others are compared with")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="base.KEY=V", help="change a setting of base or arms.NAME")
    ] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="the study's small form, for a CPU")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan, hours and power; create nothing")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="for --dry-run: time some steps where no run tells how long they take")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="how far the cells are")] = False,
    report: Annotated[bool, typer.Option("--report", help="write and print the tables again; run nothing")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="start failed cells again")] = False,
    extend: Annotated[bool, typer.Option("--extend", help="change the plan; later reports say so")] = False,
    screen: Annotated[
        bool, typer.Option("--screen", help="rank the arms by 3 short runs on validation images; no statement")
    ] = False,
    confirm: Annotated[
        str | None, typer.Option(metavar="ARM,...", help="compare these with their baseline and placebos, in full")
    ] = None,
    devices: Annotated[
        str | None, typer.Option(metavar="LIST", help="cpu:2, or cuda:0,cuda:1; unset: every GPU, or every core")
    ] = None,
    per_device: Annotated[str, typer.Option(metavar="INT", help="workers on each device")] = "1",
    engine: Annotated[str, typer.Option(metavar="local|ray", help="who runs the cells")] = "local",
    address: Annotated[str | None, typer.Option(metavar="ADDRESS", help="of a Ray cluster, or auto")] = None,
    gpus_per_run: Annotated[str, typer.Option(metavar="NUMBER", help="of Ray; parts share the GPU's memory")] = "0",
    cpus_per_run: Annotated[str, typer.Option(metavar="NUMBER", help="of Ray")] = "1",
    max_retries: Annotated[str, typer.Option(metavar="INT", help="of Ray: starts after a node was lost")] = "2",
    stop_after: Annotated[
        str | None, typer.Option(metavar="TIME", help="save and stop after 3h50m, 90s, …; exit code 75")
    ] = None,
    max_cells: Annotated[str, typer.Option(metavar="INT", help="refuse more cells than this")] = "1000",
    studies: Annotated[str, typer.Option(metavar="DIR", help="folder of plans, tables and figures")] = "studies",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    **typed: Any,
) -> Outcome:
    """Compare methods over many training runs, with statistics that hold.

    mixcli ablate quickstart, or a study file, or --axis beta=0,0.05,0.1 --seeds 8 --method synermix. Every cell is an
    ordinary run in --runs; what is done is never repeated, and the same command goes on where it was stopped. Start it
    several times, on all machines that share the folders, and they share the work.
    """
    from mixcli import flags
    from mixcli.report.progress import Reporter
    from mixcli.studies import ablation, design, follow, written

    most, per = number(max_cells, "--max-cells", "batch"), number(per_device, "--per-device", "batch")
    cluster = {"address": address, "gpus": number(gpus_per_run, "--gpus-per-run", "weight_decay"),
               "cpus": number(cpus_per_run, "--cpus-per-run", "weight_decay"),
               "max_retries": number(max_retries, "--max-retries", "seed")}  # fmt: skip
    if engine not in ("local", "ray"):
        raise UserError("usage", "--engine", "unknown", got=engine, expected="local or ray")
    if engine == "local" and address is not None:
        raise UserError("usage", "--address", "is for --engine ray")
    if measure and not dry_run:
        raise UserError("usage", "--measure", "is for --dry-run")
    seconds = None if stop_after is None else flags.duration(stop_after, "--stop-after")
    if typed.get("device") is not None:
        raise UserError("usage", "--device", "a study has several", hint="Give --devices")
    if screen and extend:
        raise UserError("usage", "--extend", "a screen compares nothing, so it has no plan")
    asked = written.Typed(study, tuple(axis or ()), tuple(set_ or ()), seeds, baseline, tiny, most, screen, confirm)
    with Reporter("mixcli ablate", quiet) as reporter:
        reporter.warnings = ctx.obj.warnings
        found = design.read(asked, typed, os.environ)
        design.check_root(found)
        folder = Path(studies) / found.name
        kept = None
        if found.timing is not None:
            _refuse_for_times(status=status, retry=retry, extend=extend, measure=measure, stop_after=stop_after,
                              engine=engine == "ray", per_device=per > 1)  # fmt: skip
        if (report or status or dry_run) and not screen:
            kept = ablation.check_plan(found, folder, extend)
        if status:
            return _status(ablation.status(found))
        from mixcli.studies import workers

        slots = workers.slots(devices, per, found.fields.threads)
        if found.timing is not None:
            return _overhead(found, slots, folder, dry_run, report, reporter)
        if dry_run:
            return _forecast(ablation.forecast(found, slots, measure, reporter.note))
        failures: list[workers.Ended] = []
        if not report:
            kept = None if screen else ablation.keep_plan(found, folder, extend)
            warn = partial(_warn_line, reporter)
            if engine == "ray":
                from mixcli.studies.ray_workers import Ray

                chosen: Engine = Ray(**cluster, warn=warn)
            else:
                chosen = workers.Local(slots, warn, found.fields.threads)
            tally = ablation.Tally(found.cells, len(slots), reporter.note)
            names = () if screen else found.fields.follow
            measure_cells = partial(follow.measure, names=names, device=slots[0], reporter=reporter)
            failures = _run_study(ctx.obj.argv, found, chosen, tally, seconds, retry, measure_cells)
        if screen:
            return _ranking(ctx.obj.argv, found, folder, failures)
        return _report(found, kept, folder, failures, reporter)


def _refuse_for_times(**typed: Any) -> None:
    for option in (name for name, value in typed.items() if value):
        problem = "a study of times is measured anew, by one process on one device, from its start to its end"
        raise UserError("usage", f"--{option.replace('_', '-')}", problem)


def _overhead(
    found: Design, slots: tuple[str, ...], folder: Path, dry_run: bool, report: bool, reporter: Reporter
) -> Outcome:
    """A study of times, on the first device alone."""
    from mixcli.report import cells
    from mixcli.studies import overhead

    if dry_run:
        plan = overhead.forecast(found, slots[0])
        return Outcome(plan, lambda: cells.timing(plan))
    if report:
        result = overhead.read(folder)
    else:
        result = overhead.measure(found, slots[0], reporter.note, reporter.warn)
        overhead.write(result, folder)
    return Outcome({**result, "folder": str(folder)}, lambda: cells.overhead(result))


def _warn_line(reporter: Reporter, line: str) -> None:
    subject, _, problem = line.partition(": ")
    reporter.warn(subject, problem)


def _run_study(
    argv: list[str], found: Design, engine: Engine, tally: Tally, seconds: float | None, retry: bool,
    measure: Callable[..., None],
) -> list[Ended]:  # fmt: skip
    """Runs what is left of a study, then measures on its finished runs what it follows; returns the cells that failed.

    Raises UserError where a stop was asked for.
    """
    from mixcli.engine.stopping import Stop
    from mixcli.studies import ablation

    with Stop(seconds).listening() as stop:
        ablation.run(found, engine, tally, stop, retry)
        tally.adopted()
        if stop.kind is not None and tally.ended < tally.total:
            where = f"stopped by {stop.cause}; {tally.ended - len(tally.failed)} of {tally.total} cells done"
            raise UserError(stop.kind, found.name, where, hint=f"Continue: mixcli {shlex.join(argv)}")
        try:
            measure(ablation.done(found), stop=stop)
        except UserError as error:
            if stop.kind is None:
                raise
            where = f"stopped by {stop.cause} while it follows up; all {tally.total} cells done"
            raise UserError(stop.kind, found.name, where, hint=f"Continue: mixcli {shlex.join(argv)}") from error
    return tally.failed


def _report(found: Design, kept: Kept | None, folder: Path, failures: list[Ended], reporter: Reporter) -> Outcome:
    """The comparison, written and shown; with exit code 5 where cells failed."""
    from mixcli.report import tables
    from mixcli.studies import ablation, comparison

    report = ablation.report(found, kept, reporter.warn)
    comparison.write(report, folder)
    result = {"study": found.name, "folder": str(folder), "cells": found.cells, "report": report.document(),
              "failed": _failed(failures)}  # fmt: skip
    return Outcome(result, lambda: tables.comparison(report), _failed_cells(found, failures))


def _ranking(argv: list[str], found: Design, folder: Path, failures: list[Ended]) -> Outcome:
    """The arms of a screen, ranked, written and shown; with exit code 5 where cells failed."""
    from mixcli.report import cells
    from mixcli.studies import screen

    ranked = screen.ranking(found)
    screen.write(ranked, folder)
    result = {**ranked, "folder": str(folder), "failed": _failed(failures)}
    command = shlex.join(["mixcli", *(word for word in argv if word not in ("--screen", "--report"))])
    return Outcome(result, lambda: cells.ranking(ranked, command), _failed_cells(found, failures))


def _failed(failures: list[Ended]) -> list[dict[str, Any]]:
    return [{"cell": e.cell.name, "kind": e.kind, "message": e.message} for e in failures]


def _failed_cells(found: Design, failures: list[Ended]) -> UserError | None:
    if not failures:
        return None
    names = ", ".join(f"{e.cell.name} ({e.kind})" for e in failures[:3]) + (", …" if len(failures) > 3 else "")
    problem = f"{len(failures)} of {found.cells} cells failed: {names}"
    return UserError("failed_cells", found.name, problem, hint="--retry starts them again")


def _status(found: dict[str, Any]) -> Outcome:
    from mixcli.report import cells

    return Outcome(found, lambda: cells.status(found))


def _forecast(found: dict[str, Any]) -> Outcome:
    from mixcli.report import cells

    return Outcome(found, lambda: cells.forecast(found))
