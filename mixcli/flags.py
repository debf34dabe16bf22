"""flags.py: settings as the options of a command: one flag per key, with its help.

Those of the method that is typed are shown; those of every other method are known too, so that one in the wrong place
is told by name.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from mixcli import toml
from mixcli.errors import UserError
from mixcli.fields import Given, aliases, all_fields, extra, flag, holds_candidates, parse, shape
from mixcli.options import VARIABLE, class_of, file_layer, typed_layer
from mixcli.recipe import DIGITS_RECIPE, Train
from mixcli.settings import METHODS, Method, NoMixing, Settings


def parameters(argv: list[str]) -> list[inspect.Parameter]:
    """One Typer option per flat key. Those of methods that `argv` does not choose are accepted but not shown."""
    _load_own(argv)
    shown = _fields_of_chosen(argv)
    options = [_parameter("method", Train.model_fields["method"], "Method")]
    for key, (field, panel) in shown.items():
        options.append(_parameter(key, field, panel))
    for key, field in all_fields().items():
        if key in Train.model_fields and key != "method":
            options.append(_parameter(key, field, extra(field)["panel"]))
        elif key not in shown and key != "method":
            options.append(_parameter(key, field, None))
    return [*options, *(_parameter(alias, all_fields()[key], None) for alias, key in aliases().items())]


def own_parameters(cls: type[Settings], panel: str) -> list[inspect.Parameter]:
    """One Typer option per field of a class that is no part of training."""
    return [_parameter(key, field, panel) for key, field in cls.model_fields.items()]


def own(cls: type[Settings], typed: Mapping[str, str | bool | None]) -> Settings:
    """An instance of such a class from what was typed for its fields. Raises UserError naming the option."""
    return cls(**{key: parse(cls.model_fields[key], given) for key, given in typed_layer(typed).items()})


def duration(text: str, origin: str) -> float:
    """Seconds in `3h50m`, `90s` or `1h`; raises UserError naming `origin`."""
    parts = re.fullmatch(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", text)
    hours, minutes, seconds = (int(p or 0) for p in parts.groups()) if parts else (0, 0, 0)
    total = 3600.0 * hours + 60 * minutes + seconds
    if total == 0:
        raise UserError("usage", origin, "not a duration", got=text, expected="a time above 0 such as 3h50m or 90s")
    return total


def _fields_of_chosen(argv: list[str]) -> dict[str, tuple[FieldInfo, str]]:
    """The fields of the method typed in `argv` and of the mixing inside it, each with its help panel."""
    fields: dict[str, tuple[FieldInfo, str]] = {}
    key, prefix, cls = "method", "", _chosen_in(argv, "--method", NoMixing)
    while cls is not None:
        panel = f"{key.capitalize()} {cls.name}"
        fields |= {prefix + n: (f, panel) for n, f in cls.model_fields.items() if not holds_candidates(f)}
        part = cls.model_fields.get("inter")
        key, prefix = f"{prefix}inter", f"{prefix}inter_"
        default = None if part is None or part.get_default() is None else type(part.get_default())
        cls = _chosen_in(argv, flag(key), default) if part is not None else None
    return fields


def _chosen_in(argv: list[str], option: str, default: type[Method] | None) -> type[Method] | None:
    """The class that is typed for `option`; the default where none is, or none that is known, which is told later."""
    typed = _value_in(argv, option)
    return default if typed is None else class_of(Given(typed, option, text=True)) or default


def _load_own(argv: list[str]) -> None:
    """Loads what file and environment name and is not built in: its options are to be known before they are parsed."""
    config, named = _value_in(argv, "--config"), {}
    with suppress(UserError):  # a damaged file is told by whoever needs it
        named = {} if config is None else file_layer(toml.read(Path(config)), config)
    for key in ("method", "inter"):
        variable = VARIABLE + key.upper()
        named |= {key: Given(os.environ[variable], variable, text=True)} if os.environ.get(variable) else {}
        if key in named:
            class_of(named[key])


def _value_in(argv: list[str], option: str) -> str | None:
    """The value last given for an option, found before the arguments are parsed."""
    found = None
    for word, following in zip_longest(argv, argv[1:]):
        if word == option:
            found = following
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def _parameter(key: str, field: FieldInfo, panel: str | None) -> inspect.Parameter:
    """A Typer option for one field; `panel` None hides it."""
    import typer

    leaf, _ = shape(field)
    info = typer.Option(
        f"{flag(key)}/--no-{flag(key)[2:]}" if leaf is bool else flag(key),
        help=_help(key, field),
        metavar={int: "INT", float: "NUMBER", str: "TEXT", bool: ""}.get(leaf, "NAME"),
        show_default=False,
        rich_help_panel=panel,
        hidden=panel is None,
    )
    annotation = Annotated[(bool if leaf is bool else str) | None, info]
    return inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _help(key: str, field: FieldInfo) -> str:
    """A field's description, its choices and its default, as rich markup."""
    from rich.markup import escape

    leaf, _ = shape(field)
    names = [*METHODS, "path.py:Name"] if key == "method" else get_args(leaf) if get_origin(leaf) is Literal else ()
    text = "; one of ".join(filter(None, [field.description, ", ".join(names)]))
    default = _default_text(key, field)
    return escape(text) + (f" [dim]({escape(default)})[/dim]" if default else "")


def _default_text(key: str, field: FieldInfo) -> str:
    value = field.get_default()
    if value is None:
        return "recipe's" if key in DIGITS_RECIPE or key == "precision" else ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
    return value.name if isinstance(value, Method) else str(value)
