"""cli.py: the Typer app: parse -> one library call -> print.

`main` takes the arguments and returns the exit code; every error leaves through it as one line. Heavy imports stand
inside the commands: `--help`, `--version` and `list` import neither torch nor numpy, and the options of `train` are
built from the settings only when `train` is called.
"""

from __future__ import annotations

import inspect
import io
import json as jsonlib
import os
import shlex
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mixcli import __version__
from mixcli.errors import EXIT_CODES, STOPPED, UserError, nearest, unexpected

if TYPE_CHECKING:
    from mixcli.engine.job import Job
    from mixcli.options import Gathered
    from mixcli.report.progress import Reporter
    from mixcli.studies.ablation import Kept, Tally
    from mixcli.studies.design import Design
    from mixcli.studies.probes import probing
    from mixcli.studies.workers import Ended, Engine

SCHEMA = 1  # version of the `--json` envelope


@dataclass
class Call:
    """One invocation: how its output is wanted, and the warnings on its way."""

    argv: list[str]
    warnings: list[str] = field(default_factory=list)

    @property
    def command(self) -> str:
        known = {command.name for command in app.registered_commands}
        return next((word for word in self.argv if word in known), "")

    @property
    def speaker(self) -> str:
        """What a line on stderr begins with."""
        return f"mixcli {self.command}".strip()

    @property
    def json(self) -> bool:
        return "--json" in self.argv

    @property
    def debug(self) -> bool:
        return "--debug" in self.argv


@dataclass(frozen=True)
class Outcome:
    """What a command found: a document for `--json`, how people see it, and what went wrong all the same."""

    result: dict[str, Any]
    table: Callable[[], Any]
    error: UserError | None = None


# --------------------------------------------------------------------------------------------------------- top level


def run() -> None:
    """The console script."""
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()  # None where closed by `>&-`
    if "_MIXCLI_COMPLETE" in os.environ:
        typer.main.get_command(app)(prog_name="mixcli")
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a terminal that cannot show a character gets its escape
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    # Threads that wait for one whose core is taken would spin and take the other cores too: on a shared machine a step
    # was four to eight times slower. OpenMP reads this when torch is imported; an idle machine is as fast as before.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    sys.exit(main(sys.argv[1:]))


def main(argv: list[str]) -> int:
    """Runs the command that `argv` types and returns its exit code. Nothing is raised."""
    call = Call(argv)
    try:
        outcome = _invoke(call)
        shown = _write(call, lambda: _show(call, outcome))
        if outcome is None or outcome.error is None:
            return shown
        _print_error(f"{call.speaker}: error: {outcome.error}")
        return outcome.error.exit_code
    except BaseException as error:
        told = _told(error)
        if told is None:
            return _write(call, lambda: None)
        return _fail(call, told, error)


def _invoke(call: Call) -> Outcome | None:
    """Parses and calls; Typer's own `main` would print its errors and end the process."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("mixcli", list(call.argv) or ["--help"], obj=call) as context:
            return command.invoke(context)
    except typer.Exit:  # --help and --version have printed
        return None


def _told(error: BaseException) -> UserError | None:
    """Any exception as an error to be told in one line; None where the reader of our output has just gone away."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, typer.TyperException):
        return _usage_error(error)
    if isinstance(error, KeyboardInterrupt):
        return UserError("interrupted", "Ctrl-C", "stopped")
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):  # rich's way out of `| head`
        return None
    return unexpected(error, "Type --debug for the trace")


def _usage_error(error: typer.TyperException) -> UserError:
    """Typer's parse errors in our words."""
    option = getattr(error, "option_name", None)
    if option is None:
        return UserError("usage", "arguments", error.format_message().rstrip("."))
    if hasattr(error, "possibilities"):
        close = getattr(error, "possibilities", None)
        return UserError("usage", option, "no such option", hint=f"Did you mean {close[0]}?" if close else "See --help")
    takes_none = "does not take" in error.message
    return UserError("usage", option, "takes no value" if takes_none else "needs a value")


def _fail(call: Call, told: UserError, error: BaseException) -> int:
    """One line on stderr, the envelope on stdout where it was asked for, and the exit code."""
    if call.debug:
        _print_error("".join(traceback.format_exception(error)).rstrip())
    _print_error(f"{call.speaker}: {'' if told.kind in STOPPED else 'error: '}{told}")
    if call.json:
        _write(call, lambda: _print_envelope(call, None, told))
    return told.exit_code


def _show(call: Call, outcome: Outcome | None) -> None:
    if outcome is None:
        return
    if call.json:
        _print_envelope(call, outcome.result, outcome.error)
    else:
        from mixcli.report import tables

        tables.show(outcome.table())


def _print_envelope(call: Call, result: dict[str, Any] | None, error: UserError | None) -> None:
    from mixcli.files import plain

    envelope = {
        "schema": SCHEMA,
        "command": call.command,
        "ok": error is None,
        "exit_code": 0 if error is None else error.exit_code,
        "result": plain(result),
        "error": None if error is None else error.document(),
        "warnings": call.warnings,
    }
    print(jsonlib.dumps(envelope, allow_nan=False))


def _write(call: Call, show: Callable[[], None]) -> int:
    """Writes to stdout. A reader that closed it (`| head`) is no error; a full device is."""
    try:
        show()
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
    except OSError as error:
        _forget_stdout()
        _print_error(f"{call.speaker}: error: stdout: {error.strerror}")
        return EXIT_CODES["io"]
    return 0


def _forget_stdout() -> None:
    """What is still buffered goes nowhere, so that the interpreter does not complain when it ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # not a real file, as in a test
        return


def _print_error(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):  # a broken stderr never stops the work
        return


# ----------------------------------------------------------------------------------------------------------- the app


class Commands(TyperGroup):
    """Knows every command's help at once, and the many options of `train` only when it is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if not ctx.resilient_parsing and args[0] not in self.commands:
            raise UserError("usage", args[0], "no such command", hint=nearest(args[0], self.commands))
        if args[0] == "train":
            return "train", _with_settings(train, args[1:]), args[1:]
        if args[0] == "ablate":
            return "ablate", _with_settings(ablate, args[1:], "--axis" in args), args[1:]
        if args[0] == "probe":  # its first word is the probe
            return "probe", _with_probe(args[1:]), args[1:]
        if args[:2] == ["show", "corruptions"]:
            return super().resolve_command(ctx, ["show-corruptions", *args[2:]])
        if args[0] == "show":  # its first word is the method
            named = args[1:2] if args[1:] and not args[1].startswith("-") else []
            words = [*(["--method"] if named else []), *args[1:]]
            return "show", _with_settings(show, words), words
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="mixcli",
    cls=Commands,
    help="Train image classifiers with mixed-sample augmentation, and repeat every number.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
)

Json = Annotated[bool, typer.Option("--json", help="print one JSON document on stdout, also for an error")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress and no notes on stderr")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]


def _print_version(asked: bool) -> None:
    if asked:
        _write(Call([]), lambda: print(f"mixcli {__version__}"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


# --------------------------------------------------------------------------------------------------------- mixcli train


@dataclass(frozen=True)
class Asked:
    """What was typed after `mixcli train`, the settings aside."""

    config: str | None = None
    resume: bool = False
    resume_from: str | None = None
    extend_to: str | None = None
    allow_previous: bool = False
    overwrite: bool = False


@app.command("train")
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
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    **typed: Any,
) -> Outcome:
    """Train a network with any mixing method.

    Without options: scikit-learn's digits, a small net, well under a minute. Settings come from defaults, then the
    file, then MIXCLI_ variables, then what is typed. The options of a method: mixcli train --method NAME --help
    """
    from mixcli import options
    from mixcli.engine import job
    from mixcli.engine.stopping import Stop
    from mixcli.report import tables
    from mixcli.report.progress import Reporter

    asked = Asked(config, resume, resume_from, extend_to, allow_previous, overwrite)
    seconds = None if stop_after is None else options.duration(stop_after, "--stop-after")
    with Reporter("mixcli train", quiet) as reporter:
        reporter.warnings = ctx.obj.warnings
        found = _job(asked, typed, reporter)
        if dry_run:
            plan = job.plan(found, reporter)
            return Outcome(plan, lambda: tables.plan(plan, options.to_toml(found.settings)))
        # Before torch is imported, which takes seconds: a signal meanwhile must not find a half-made run.
        with Stop(seconds).listening() as stop:
            result = job.train(found, reporter, stop, job.How(asked.overwrite, asked.allow_previous))
    return Outcome(result, lambda: tables.training(result))


def _with_settings(function: Callable[..., Outcome], argv: list[str], shown: bool = True) -> Any:
    """A command with one option per setting beside its own; `shown` says whether help tells of them."""
    from mixcli import options

    return _with_parameters(function, options.parameters(argv), shown)


def _with_parameters(function: Callable[..., Outcome], settings: list[inspect.Parameter], shown: bool = True) -> Any:
    """A command with further options beside its own."""
    own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]

    def command(**values: Any) -> Outcome:
        return function(**values)

    for parameter in () if shown else settings:
        parameter.annotation.__metadata__[0].hidden = True
    command.__signature__ = inspect.Signature([*own, *settings])  # pyright: ignore[reportFunctionMemberAccess]
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    alone.command(function.__name__, help="\n\n".join(" ".join(p.split()) for p in paragraphs))(command)
    return typer.main.get_command(alone)


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
        found = job.named(asked.resume_from, typed, os.environ, lambda gathered: _warn(gathered, reporter))
    else:
        gathered = options.gather(typed, None if asked.config is None else Path(asked.config), os.environ)
        _warn(gathered, reporter)
        found = job.new(gathered, asked.resume)
    if asked.extend_to is not None:
        found = job.extended(found, asked.extend_to, asked.resume, reporter.announce)
    reporter.epochs = found.settings.epochs
    return job.checked(found)


def _number(text: str | None, option: str, like: str) -> Any:
    """What was typed for an option of a command, by the rule of the setting `like`; None where nothing was."""
    from mixcli import options
    from mixcli.settings import Train

    return None if text is None else options.parse(Train.model_fields[like], options.Given(text, option, text=True))


def _warn(gathered: Gathered, reporter: Reporter) -> None:
    for subject, problem in gathered.warnings:
        reporter.warn(subject, problem)


# ------------------------------------------------------------------------------------------------------- mixcli ablate


@app.command("ablate")
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
    from mixcli import options
    from mixcli.report.progress import Reporter
    from mixcli.studies import ablation, design, follow

    most, per = _number(max_cells, "--max-cells", "batch"), _number(per_device, "--per-device", "batch")
    cluster = {"address": address, "gpus": _number(gpus_per_run, "--gpus-per-run", "weight_decay"),
               "cpus": _number(cpus_per_run, "--cpus-per-run", "weight_decay"),
               "max_retries": _number(max_retries, "--max-retries", "seed")}  # fmt: skip
    if engine not in ("local", "ray"):
        raise UserError("usage", "--engine", "unknown", got=engine, expected="local or ray")
    if engine == "local" and address is not None:
        raise UserError("usage", "--address", "is for --engine ray")
    if measure and not dry_run:
        raise UserError("usage", "--measure", "is for --dry-run")
    seconds = None if stop_after is None else options.duration(stop_after, "--stop-after")
    if typed.get("device") is not None:
        raise UserError("usage", "--device", "a study has several", hint="Give --devices")
    if screen and extend:
        raise UserError("usage", "--extend", "a screen compares nothing, so it has no plan")
    asked = design.Typed(study, tuple(axis or ()), tuple(set_ or ()), seeds, baseline, tiny, most, screen, confirm)
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
            failures = _run_study(ctx.obj, found, chosen, tally, seconds, retry, measure_cells)
        if screen:
            return _ranking(ctx.obj, found, folder, failures)
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
    call: Call, found: Design, engine: Engine, tally: Tally, seconds: float | None, retry: bool,
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
            raise UserError(stop.kind, found.name, where, hint=f"Continue: mixcli {shlex.join(call.argv)}")
        try:
            measure(ablation.done(found), stop=stop)
        except UserError as error:
            if stop.kind is None:
                raise
            where = f"stopped by {stop.cause} while it follows up; all {tally.total} cells done"
            raise UserError(stop.kind, found.name, where, hint=f"Continue: mixcli {shlex.join(call.argv)}") from error
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


def _ranking(call: Call, found: Design, folder: Path, failures: list[Ended]) -> Outcome:
    """The arms of a screen, ranked, written and shown; with exit code 5 where cells failed."""
    from mixcli.report import cells
    from mixcli.studies import screen

    ranked = screen.ranking(found)
    screen.write(ranked, folder)
    result = {**ranked, "folder": str(folder), "failed": _failed(failures)}
    command = shlex.join(["mixcli", *(word for word in call.argv if word not in ("--screen", "--report"))])
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


# ------------------------------------------------------------------------------------------------------ mixcli compare


@app.command("compare")
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
    from mixcli.report import tables
    from mixcli.report.progress import Reporter
    from mixcli.studies import comparison, design

    known = design.Fields.model_fields
    gap = options.parse(known["sesoi"], options.Given(sesoi, "--sesoi", text=True))
    if test == "corruptions":
        from mixcli.studies.corruptions import comparison as corruption_comparison

        raise corruption_comparison.refused()
    chosen = options.parse(known["test"], options.Given(test, "--test", text=True))
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
            picked = options.parse(known["select"], options.Given(select or "last", "--select", text=True))
            found = comparison.of_runs(what, folder, baseline=baseline, test=chosen, sesoi=gap,
                                       metric=metric or "test.top1", select=picked, warn=reporter.warn)  # fmt: skip
        if out is not None:
            comparison.write(found, Path(out))
    return Outcome(found.document(), lambda: tables.comparison(found))


# ---------------------------------------------------------------------------------------------- mixcli eval-corruptions


@app.command("eval-corruptions")
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
    from mixcli import options
    from mixcli.engine.stopping import Stop
    from mixcli.report.progress import Reporter

    def path(text: str | None) -> Path | None:
        return None if text is None else Path(text)

    numbers = {"per_cell": _number(per_cell, "--per-cell", "batch"), "seed": _number(seed, "--seed", "seed"),
               "batch": _number(batch_size, "--batch-size", "batch")}  # fmt: skip
    seconds = None if stop_after is None else options.duration(stop_after, "--stop-after")
    from mixcli.report import robustness
    from mixcli.studies.corruptions.robustness import Asked as What
    from mixcli.studies.corruptions.robustness import evaluate

    data = data_dir or os.environ.get("MIXCLI_DATA_DIR") or os.environ.get("MIXCLI_DATA")
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


# -------------------------------------------------------------------------------------------------------- mixcli probe


@app.command("probe")
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
    from mixcli import options
    from mixcli.report.progress import Reporter
    from mixcli.studies.probes import catalogue as probes

    own = probes.NoOptions() if what == "all" else options.own(probes.named(what).options, typed)
    data = data_dir or os.environ.get("MIXCLI_DATA_DIR") or os.environ.get("MIXCLI_DATA")
    numbers = {"images": _number(images, "--images", "batch"), "seed": _number(seed, "--seed", "seed")}
    if study is not None and (run is not None or against or all_epochs):
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
    from mixcli.studies import design
    from mixcli.studies.probes import study as probed_study

    found = design.read(design.Typed(name, tiny=tiny), {"runs": str(asked.runs)}, os.environ)
    folder = Path("studies") / found.name
    probed = probed_study.over(found, asked, reporter, probed_study.is_planned(found, asked, folder))
    probed_study.write(probed, asked.out or folder)
    return Outcome(probed.document(), lambda: page.shown(probed))


def _with_probe(argv: list[str]) -> Any:
    """`probe` with the options of the probe that its first word names."""
    from mixcli import options
    from mixcli.studies.probes.catalogue import PROBES

    chosen = PROBES.get(argv[0]) if argv else None
    settings = [] if chosen is None else options.own_parameters(chosen.options, argv[0].capitalize())
    return _with_parameters(probe, settings)


# --------------------------------------------------------------------------------------------------------- mixcli show


@app.command("show")
def show(
    images: Annotated[str, typer.Option(metavar="INT", help="how many images")] = "8",
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

    count = _number(images, "--images", "batch")
    if typed.get("method") is None:
        raise UserError("usage", "show", "needs the name of a mixing", hint="See mixcli list mixings")
    if not typed.get("per"):
        typed["per"] = "sample"
    gathered = options.gather(typed, None, os.environ)
    settings, _ = job.complete(gathered)
    from mixcli.report import plots, tables
    from mixcli.studies import contact_sheet

    try:
        if stats:
            found = contact_sheet.statistics(settings)
            return Outcome(found, lambda: tables.measured(f"{settings.method.label()} on {settings.dataset}", found))
        path = plots.check(Path(out or f"show-{settings.method.name}.png"))
        sheet = contact_sheet.sheet(settings, count)
        plots.contact_sheet(sheet, path)
    except UserError as error:
        raise gathered.located(error) from error
    shares = [round(float(ratio), 4) for ratio in sheet.ratio]
    result = {"file": str(path), "method": sheet.title, "dataset": settings.dataset, "ratio": shares}
    return Outcome(result, lambda: tables.measured(f"{sheet.title} on {settings.dataset}", result))


@app.command("show-corruptions", hidden=True)  # typed as `show corruptions`
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
    row, key = _number(image, "--image", "seed"), _number(seed, "--seed", "seed")
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


# --------------------------------------------------------------------------------------------------- mixcli list, bench


@app.command("list")
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


@app.command("bench")
def bench(
    what: Annotated[str, typer.Argument(metavar="mixing|step|data|synermix|corruptions|false-positives")],
    net: Annotated[str | None, typer.Option(metavar="NAME", help="of the step; small unless named")] = None,
    names: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="mixings, methods or corruptions; unset: all")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="cpu, cuda or cuda:N; of mixing and step")] = None,
    data_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="where corruptions look for CIFAR-100; else random pictures")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> Outcome:
    """Measure what a step costs here, against the usual way."""
    if what not in BENCHES:
        raise UserError("usage", "bench", "unknown", got=what, hint=nearest(what, BENCHES))
    given = {"net": net, "names": names.split(",") if names else None, "device": device, "data_dir": data_dir}
    for key, of in (("net", ("step",)), ("names", ("step", "mixing", "corruptions")), ("device", ("step", "mixing")),
                    ("data_dir", ("corruptions",))):  # fmt: skip
        option = f"--{key.replace('_', '-')}"
        if given[key] is not None and what not in of:
            raise UserError("usage", option, f"bench {what} has no such option")
    from importlib import import_module

    from mixcli.report import tables

    module, columns = BENCHES[what]
    measure = getattr(import_module(module), what.replace("-", "_"))
    result = measure(**{key: value for key, value in given.items() if value is not None})
    title = f"bench {what}"
    return Outcome(result, lambda: tables.rows(title, result, columns) if columns else tables.measured(title, result))


BENCHES: dict[str, tuple[str, dict[str, str]]] = {  # where, and the columns of its table, if it has one
    "mixing": (
        "mixcli.studies.bench.mixing_cost",
        {"mixing": "mixing", "per": "per", "pixels": "px", "batch": "batch", "masks_us": "masks", "us": "all",
         "times_naive_masks": "x loop", "times_naive": "x loop all", "times_timm": "x timm",
         "times_torchvision": "x tv"},
    ),
    "step": (
        "mixcli.studies.bench.step_cost",
        {"method": "method", "data_ms": "data", "plan_ms": "plan", "mix_ms": "mix", "forward_ms": "fwd",
         "backward_ms": "bwd", "optimizer_ms": "update", "step_ms": "step", "unbroken_ms": "whole",
         "ratio": "/none", "mixing_share": "share"},
    ),
    "corruptions": (
        "mixcli.studies.bench.corruption_cost",
        {"corruption": "corruption", "us": "ours", "loop_us": "loop", "times": "times", "goal": "goal",
         "loop_images": "images of the loop"},
    ),
    "false-positives": (
        "mixcli.studies.bench.false_positives",
        {"seeds": "seeds", "noise": "noise of a corruption", "paired_t": "paired t", "wilcoxon": "Wilcoxon",
         "welch": "Welch over runs"},
    ),
    "data": ("mixcli.studies.bench.benchmark", {}),
    "synermix": ("mixcli.studies.bench.benchmark", {}),
}  # fmt: skip


if __name__ == "__main__":
    run()
