"""train.py: train: one run, from settings to result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixcli.commands.outcome import Debug, Json, Outcome, Quiet, warn
from mixcli.errors import UserError

if TYPE_CHECKING:
    from mixcli.engine.job import Job
    from mixcli.report.progress import Reporter


@dataclass(frozen=True)
class Asked:
    """What was typed after `mixcli train`, the settings aside."""

    config: str | None = None
    resume: bool = False
    resume_from: str | None = None
    extend_to: str | None = None
    allow_previous: bool = False
    overwrite: bool = False


def train(
    ctx: typer.Context,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="TOML file of settings, by option name")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue the run that these settings name")] = False,
    resume_from: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="continue another run: folder, checkpoint, start of its id, or latest"),
    ] = None,
    extend_to: Annotated[
        str | None, typer.Option(metavar="INT", help="train a run on to this many epochs, as a new run")
    ] = None,
    allow_previous: Annotated[
        bool, typer.Option("--allow-previous", help="fall back to previous.ckpt if run.ckpt is damaged")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="delete this run's files and start again")] = False,
    stop_after: Annotated[
        str | None, typer.Option(metavar="TIME", help="save and stop after 3h50m, 90s, …; exit code 75")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the complete plan and create nothing")] = False,
    track: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="tell the epochs to tensorboard or wandb too (extras); no part of the run"),
    ] = None,
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="for --dry-run: time no steps, so that no minutes are told")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    **typed: Any,
) -> Outcome:
    """Train a network with any mixing method.

    Without options: scikit-learn's digits, a small net, well under a minute. Settings come from defaults, then the
    file, then MIXCLI_ variables, then what is typed. The options of a method: mixcli train --method NAME --help
    """
    from mixcli import flags, options
    from mixcli.engine import job
    from mixcli.engine.stopping import Stop
    from mixcli.report import tables, tracking
    from mixcli.report.progress import Reporter

    if track is not None:
        tracking.check(track)
    if no_measure and not dry_run:
        raise UserError("usage", "--no-measure", "is for --dry-run")
    asked = Asked(config, resume, resume_from, extend_to, allow_previous, overwrite)
    seconds = None if stop_after is None else flags.duration(stop_after, "--stop-after")
    with Reporter("mixcli train", quiet) as reporter:
        reporter.warnings = ctx.obj.warnings
        found = _job(asked, typed, reporter)
        if dry_run:
            plan = job.plan(found, reporter, measure=not no_measure)
            return Outcome(plan, lambda: tables.plan(plan, options.to_toml(found.settings)))
        # Before torch is imported, which takes seconds: a signal meanwhile must not find a half-made run.
        with Stop(seconds).listening() as stop, tracking.tracked(reporter, track, found) as telling:
            result = job.train(found, telling, stop, job.How(asked.overwrite, asked.allow_previous))
    return Outcome(result, lambda: tables.training(result))


def _job(asked: Asked, typed: dict[str, Any], reporter: Reporter) -> Job:
    """The run that was asked for; reads files, makes nothing."""
    from mixcli import options
    from mixcli.engine import job

    named = asked.resume_from is not None
    if asked.overwrite and (asked.resume or (named and asked.extend_to is None)):
        raise UserError("usage", "--overwrite", "starts again, so it cannot be combined with resuming")
    if asked.resume_from is not None:
        if asked.config is not None:
            raise UserError("usage", "--config", "the settings come from the run of --resume-from")
        found = job.named(asked.resume_from, typed, os.environ, lambda gathered: warn(gathered, reporter))
    else:
        gathered = options.gather(typed, None if asked.config is None else Path(asked.config), os.environ)
        warn(gathered, reporter)
        found = job.new(gathered, asked.resume)
    if asked.extend_to is not None:
        found = job.extended(found, asked.extend_to, asked.resume, reporter.announce)
    reporter.epochs = found.settings.epochs
    return job.checked(found)
