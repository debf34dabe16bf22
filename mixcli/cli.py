"""cli.py: the Typer app: parse -> one command -> print.

`main` takes the arguments and returns the exit code; every error leaves through it as one line. Heavy imports stand
inside the commands: `--help`, `--version` and `list` import neither torch nor numpy, and the options of `train` are
built from the settings only when `train` is called.
"""

from __future__ import annotations

import io
import json as jsonlib
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mixcli import __version__
from mixcli.commands import ablate, bench, check, compare, corruptions, data, doctor, listing, probe, show, train
from mixcli.commands.outcome import Outcome, with_settings
from mixcli.errors import EXIT_CODES, STOPPED, UserError, nearest, unexpected

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
        try:
            return self._resolved(ctx, args)
        except UserError:
            if not ctx.resilient_parsing:
                raise
            return super().resolve_command(ctx, args)  # a shell that completes a line is told of no mistakes in it

    def _resolved(self, ctx: Any, args: list[str]) -> Any:
        if not ctx.resilient_parsing and args[0] not in self.commands:
            raise UserError("usage", args[0], "no such command", hint=nearest(args[0], self.commands))
        if args[0] == "train":
            return "train", with_settings(train.train, args[1:]), args[1:]
        if args[0] == "ablate":
            return "ablate", with_settings(ablate.ablate, args[1:], "--axis" in args), args[1:]
        if args[0] == "probe":  # its first word is the probe
            return "probe", probe.with_options(args[1:]), args[1:]
        if args[:2] == ["show", "corruptions"]:
            return super().resolve_command(ctx, ["show-corruptions", *args[2:]])
        if args[0] in ("show", "check"):  # their first word is the method
            named = args[1:2] if args[1:] and not args[1].startswith("-") else []
            words = [*(["--method"] if named else []), *args[1:]]
            return args[0], with_settings({"show": show.show, "check": check.check}[args[0]], words), words
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="mixcli",
    cls=Commands,
    help="Train image classifiers with mixed-sample augmentation, and repeat every number.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
)
app.command("train")(train.train)
app.command("ablate")(ablate.ablate)
app.command("compare")(compare.compare)
app.command("eval-corruptions")(corruptions.eval_corruptions)
app.command("probe")(probe.probe)
app.command("show")(show.show)
app.command("check")(check.check)
app.command("show-corruptions", hidden=True)(corruptions.show_corruptions)  # typed as `show corruptions`
app.command("list")(listing.list_)
app.command("data")(data.data)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)


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


if __name__ == "__main__":
    run()
