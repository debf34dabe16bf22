"""cli.py: the Typer app: parse -> one library call -> print.

`main` takes the arguments and returns the exit code; every error leaves through it as one line. Heavy imports stand
inside the commands: `--help`, `--version` and `list` import neither torch nor numpy, and the options of `train` are
built from the settings only when `train` is called.
"""

from __future__ import annotations

import errno
import inspect
import io
import json as jsonlib
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mixcli import __version__
from mixcli.errors import EXIT_CODES, UserError, nearest

if TYPE_CHECKING:
    from mixcli.engine.stopping import Stop
    from mixcli.options import Gathered
    from mixcli.report.progress import Reporter
    from mixcli.runs import Run
    from mixcli.settings import Facts, Train

SCHEMA = 1  # version of the `--json` envelope
STOPPED = ("requeue", "interrupted", "terminated")  # asked for by the user, so not called an error


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
    """What a command found: a document for `--json`, and how people see it."""

    result: dict[str, Any]
    table: Callable[[], Any]


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
        return _write(call, lambda: _show(call, outcome))
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
    return _unexpected(error, "Type --debug for the trace")


def _unexpected(error: BaseException, hint: str) -> UserError:
    """An exception that nobody turned into an error for users; `hint` says where its trace is."""
    text = str(error).strip() or "no message"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return UserError("disk_full", str(error.filename or "disk"), "no space left", hint=hint)
    if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
        return UserError("out_of_memory", "--batch-size", "out of memory; a smaller one needs less", hint=hint)
    return UserError("internal", type(error).__name__, text, hint=hint)


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
        _print_envelope(call, outcome.result, None)
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


@dataclass(frozen=True)
class Job:
    """A run that could be started: `source` is the checkpoint of another run, or the one named, to go on from."""

    gathered: Gathered
    settings: Train
    facts: Facts
    run: Run
    source: Path | None = None
    resume: bool = False


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
    from mixcli.engine.stopping import Stop
    from mixcli.report import tables
    from mixcli.report.progress import Reporter

    asked = Asked(config, resume, resume_from, extend_to, allow_previous, overwrite)
    seconds = None if stop_after is None else options.duration(stop_after, "--stop-after")
    with Reporter("mixcli train", quiet) as reporter:
        reporter.warnings = ctx.obj.warnings
        job = _job(asked, typed, reporter)
        if dry_run:
            plan = _plan(job, reporter)
            return Outcome(plan, lambda: tables.plan(plan, options.to_toml(job.settings)))
        # Before torch is imported, which takes seconds: a signal meanwhile must not find a half-made run.
        with Stop(seconds).listening() as stop:
            result = _train(job, asked, reporter, stop)
    return Outcome(result, lambda: tables.training(result))


def _with_settings(function: Callable[..., Outcome], argv: list[str]) -> Any:
    """A command with one option per setting beside its own."""
    from mixcli import options

    own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]

    def command(**values: Any) -> Outcome:
        return function(**values)

    command.__signature__ = inspect.Signature([*own, *options.parameters(argv)])  # pyright: ignore[reportFunctionMemberAccess]
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    alone.command(function.__name__, help="\n\n".join(" ".join(p.split()) for p in paragraphs))(command)
    return typer.main.get_command(alone)


def _job(asked: Asked, typed: dict[str, Any], reporter: Reporter) -> Job:
    """The run that was asked for; reads files, makes nothing."""
    from mixcli import settings

    named = asked.resume_from is not None
    if asked.overwrite and (asked.resume or (named and asked.extend_to is None)):
        raise UserError("usage", "--overwrite", "starts again, so it cannot be combined with resuming")
    job = _named_job(asked, typed, reporter) if named else _new_job(asked, typed, reporter)
    if asked.extend_to is not None:
        job = _extended(job, asked, reporter)
    try:
        settings.kept_epochs(job.settings)
    except UserError as error:
        raise job.gathered.located(error) from error
    reporter.epochs = job.settings.epochs
    return job


def _new_job(asked: Asked, typed: dict[str, Any], reporter: Reporter) -> Job:
    """The run that the settings name."""
    from mixcli import options, runs

    gathered = options.gather(typed, None if asked.config is None else Path(asked.config), os.environ)
    _warn(gathered, reporter)
    runs.check_root(Path(gathered.train.runs))
    settings, facts = _completed(gathered)
    run = runs.locate(settings, options.identity(settings, facts))
    return Job(gathered, settings, facts, run, resume=asked.resume)


def _named_job(asked: Asked, typed: dict[str, Any], reporter: Reporter) -> Job:
    """The run of `--resume-from`: its settings come from its folder, and what is typed must agree."""
    from mixcli import options, runs

    assert asked.resume_from is not None
    if asked.config is not None:
        raise UserError("usage", "--config", "the settings come from the run of --resume-from")
    source = runs.find(asked.resume_from, Path(options.runs_root(typed, os.environ)))
    if source.parent.name == "epochs":
        raise UserError("mismatch", str(source), "weights only, not a resume source", hint="Give the run folder")
    folder = source.parent
    run = runs.Run(folder if runs.NAME.fullmatch(folder.name) else folder.resolve())  # `.` has no id in its name
    source = run.folder / source.name
    gathered = options.continued(typed, run.settings, os.environ)
    gathered = gathered._replace(train=gathered.train.model_copy(update={"runs": str(run.folder.parent)}))
    _warn(gathered, reporter)
    runs.check_root(run.folder.parent)
    settings, facts = _completed(gathered)
    if options.identity(settings, facts, run.parent) != run.id:
        raise UserError("data_corrupt", str(run.folder), "settings or data differ from those the run was started with")
    return Job(gathered, settings, facts, run, source, resume=True)


def _extended(job: Job, asked: Asked, reporter: Reporter) -> Job:
    """A new run that goes on from the end of `job`'s to more epochs."""
    from mixcli import options, runs
    from mixcli.settings import Train

    assert asked.extend_to is not None and job.settings.epochs is not None
    field = Train.model_fields["epochs"]
    epochs = options.parse(field, options.Given(asked.extend_to, "--extend-to", text=True))
    if epochs <= job.settings.epochs:
        problem = f"the run has {job.settings.epochs} epochs"
        raise UserError("config", "--extend-to", problem, got=epochs, expected="more")
    source = job.source or runs.checkpoint_in(job.run.folder)
    settings = job.settings.model_copy(update={"epochs": epochs})
    run = runs.locate(settings, options.identity(settings, job.facts, job.run.id))
    run.extends = job.run
    effect = f"the learning-rate schedule is computed anew for {epochs} epochs"
    reporter.announce(f"extends run {job.run.id} of {job.settings.epochs} epochs; {effect}")
    return Job(job.gathered, settings, job.facts, run, source, asked.resume)


def _completed(gathered: Gathered) -> tuple[Train, Facts]:
    """The settings with the recipe's values in open places, and what is known of the data."""
    from mixcli import settings
    from mixcli.data import sources

    try:
        facts = sources.look(gathered.train)
        return settings.complete(gathered.train, facts), facts
    except UserError as error:
        raise gathered.located(error) from error


def _warn(gathered: Gathered, reporter: Reporter) -> None:
    for subject, problem in gathered.warnings:
        reporter.warn(subject, problem)


def _plan(job: Job, reporter: Reporter) -> dict[str, Any]:
    """What would be started; all that `train` refuses before its first step is refused here too."""
    from mixcli import options, settings
    from mixcli.engine.stopping import Stop

    _engine(job, lambda training: training.ready(job.settings, job.run, reporter, Stop()))
    images, batch, epochs = settings.training_images(job.settings, job.facts), job.settings.batch, job.settings.epochs
    assert batch is not None and epochs is not None
    return {
        "run": str(job.run.folder), "id": job.run.id, "state": job.run.state,
        "resume_from": str(job.source) if job.source else None, "parent": job.run.parent,
        "dataset": job.settings.dataset, "images": images, "test_images": job.facts.test_images,
        "classes": job.facts.classes, "batch": batch, "steps_per_epoch": images // batch, "epochs": epochs,
        "steps": images // batch * epochs, "settings": options.flat(job.settings),
    }  # fmt: skip


def _train(job: Job, asked: Asked, reporter: Reporter, stop: Stop) -> dict[str, Any]:
    """Trains under the run's lock, or reports the run where it is finished already."""
    from mixcli import options

    result = None if asked.overwrite else job.run.finished()
    if result is not None:
        return _report_finished(job, result, reporter)
    with job.run.open() as run:
        result = None if asked.overwrite else run.finished()  # another process may have ended it a moment ago
        if result is not None:
            return _report_finished(job, result, reporter)
        if run.state == "unfinished" and not job.resume and not asked.overwrite:
            raise UserError("run_exists", str(run.folder), "unfinished", hint="Use --resume or --overwrite")
        start = job.source if asked.overwrite else _start(job)

        def begin() -> None:
            if asked.overwrite:
                run.clear()
            if run.state == "absent":
                run.begin(options.to_toml(job.settings))
            run.become_latest()
            at_zero = start is None and job.resume
            reporter.announce(f"run {run.folder}" + (", starts at step 0" if at_zero else ""))

        def train(training: Any, start: Path | None) -> dict[str, Any]:
            return training.train(job.settings, run, reporter, stop, resume_from=start, begin=begin)

        try:
            return _engine(job, lambda training: train(training, start))
        except UserError as error:
            damaged = error.kind == "checkpoint_corrupt" and start == run.checkpoint
            if not (asked.allow_previous and damaged and run.previous.exists()):
                raise
            reporter.warn(str(start), f"{error.problem}; going on from previous.ckpt")
            return _engine(job, lambda training: train(training, run.previous))


def _start(job: Job) -> Path | None:
    """The checkpoint to go on from: the one that was named, or the run's own before that of the run it extends."""
    own = job.run.checkpoint
    named = job.source is not None and job.source.parent == job.run.folder
    return own if own.is_file() and not named else job.source


def _report_finished(job: Job, result: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    reporter.note(f"run {job.run.folder} finished at epoch {result.get('epochs')}; nothing to do")
    return result


def _engine(job: Job, call: Callable[[Any], Any]) -> Any:
    """A library call. An exception that is nobody's mistake leaves its trace in the run folder, where there is one."""
    try:
        from mixcli.engine import training

        return call(training)
    except UserError as error:
        raise job.gathered.located(error) from error
    except Exception as error:
        from mixcli.files import write_atomic

        if not job.run.settings.is_file():
            raise
        with suppress(UserError):  # on a full disk the line itself has to do
            write_atomic(job.run.log, traceback.format_exc().encode(errors="backslashreplace"))
        raise _unexpected(error, f"Trace: {job.run.log}") from error


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
    from mixcli.settings import Train

    count = options.parse(Train.model_fields["batch"], options.Given(images, "--images", text=True))
    if typed.get("method") is None:
        raise UserError("usage", "show", "needs the name of a mixing", hint="See mixcli list mixings")
    if not typed.get("per"):
        typed["per"] = "sample"
    gathered = options.gather(typed, None, os.environ)
    settings, _ = _completed(gathered)
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


# --------------------------------------------------------------------------------------------------- mixcli list, bench


@app.command("list")
def list_(
    what: Annotated[str | None, typer.Argument(metavar="[methods|mixings|datasets|nets]")] = None, json: Json = False
) -> Outcome:
    """List what can be named: methods, mixings, datasets, nets."""
    from mixcli.settings import DATASETS, METHODS, NETS, Mixing

    known = {
        "methods": {name: cls.summary for name, cls in METHODS.items()},
        "mixings": {name: cls.summary for name, cls in METHODS.items() if issubclass(cls, Mixing)},
        "datasets": DATASETS,
        "nets": {name: summary for name, (_, summary) in NETS.items()},
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
    what: Annotated[str, typer.Argument(metavar="mixing|step|data|synermix")],
    net: Annotated[str | None, typer.Option(metavar="NAME", help="of the step; small unless named")] = None,
    names: Annotated[str | None, typer.Option(metavar="NAME,...", help="mixings or methods; unset: all")] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda or cuda:N; of mixing and step")] = "cpu",
    json: Json = False,
    debug: Debug = False,
) -> Outcome:
    """Measure what a step costs here, against the usual way."""
    if what not in BENCHES:
        raise UserError("usage", "bench", "unknown", got=what, hint=nearest(what, BENCHES))
    for option, value, of in (("--net", net, ("step",)), ("--names", names, ("step", "mixing"))):
        if value is not None and what not in of:
            raise UserError("usage", option, f"bench {what} has no such option")
    from importlib import import_module

    from mixcli.report import tables

    module, columns = BENCHES[what]
    chosen = {"names": names.split(",") if names else None, "device": device} if columns else {}
    result = getattr(import_module(module), what)(**chosen, **({"net": net} if net else {}))
    title = f"bench {what}"
    return Outcome(result, lambda: tables.rows(title, result, columns) if columns else tables.measured(title, result))


BENCHES: dict[str, tuple[str, dict[str, str]]] = {  # where, and the columns of its table, if it has one
    "mixing": (
        "mixcli.studies.mixing_cost",
        {"mixing": "mixing", "per": "per", "pixels": "px", "batch": "batch", "masks_us": "masks", "us": "all",
         "times_naive_masks": "loop", "times_naive": "loop, all", "times_timm": "timm",
         "times_torchvision": "tv"},
    ),
    "step": (
        "mixcli.studies.step_cost",
        {"method": "method", "data_ms": "data", "plan_ms": "plan", "forward_ms": "forward", "backward_ms": "backward",
         "optimizer_ms": "update", "step_ms": "step", "unbroken_ms": "unbroken", "ratio": "/none",
         "images_per_second": "images/s", "mix_ms": "mixing", "mixing_share": "share of none"},
    ),
    "data": ("mixcli.studies.benchmark", {}),
    "synermix": ("mixcli.studies.benchmark", {}),
}  # fmt: skip


if __name__ == "__main__":
    run()
