"""outcome.py: what every command is given and gives back: its options by their kind, and an Outcome."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixcli.errors import UserError

if TYPE_CHECKING:
    from mixcli.options import Gathered
    from mixcli.report.progress import Reporter

Json = Annotated[bool, typer.Option("--json", help="print one JSON document on stdout, also for an error")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress and no notes on stderr")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]


@dataclass(frozen=True)
class Outcome:
    """What a command found: a document for `--json`, how people see it, and what went wrong all the same."""

    result: dict[str, Any]
    table: Callable[[], Any]
    error: UserError | None = None


def with_settings(function: Callable[..., Outcome], argv: list[str], shown: bool = True) -> Any:
    """A command with one option per setting beside its own; `shown` says whether help tells of them."""
    from mixcli import flags

    return with_parameters(function, flags.parameters(argv), shown)


def with_parameters(function: Callable[..., Outcome], settings: list[inspect.Parameter], shown: bool = True) -> Any:
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


def number(text: str | None, option: str, like: str) -> Any:
    """What was typed for an option of a command, by the rule of the setting `like`; None where nothing was."""
    from mixcli.fields import Given, parse
    from mixcli.recipe import Train

    return None if text is None else parse(Train.model_fields[like], Given(text, option, text=True))


def warn(gathered: Gathered, reporter: Reporter) -> None:
    for subject, problem in gathered.warnings:
        reporter.warn(subject, problem)
