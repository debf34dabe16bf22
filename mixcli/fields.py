"""fields.py: the fields of settings: which keys there are, what each accepts, and a written value as its value.

Every setting has one flat key: the fields of `Train`, `method`, the fields of the chosen method, and for a mixing
inside a method `inter` and `inter_` before that mixing's fields; `candidates_cutmix_box` is the `box` of MiAMix's
candidate.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from mixcli import own_code
from mixcli.errors import UserError, nearest
from mixcli.recipe import Train
from mixcli.settings import CANDIDATES_SHARE, Method, candidates

INTEGER_LIMIT = 2**63  # TOML promises 64 bits; tomllib takes any


@dataclass(frozen=True)
class Given:
    """A value as it was written. `origin` names the place: `--lr`, `MIXCLI_LR`, `cfg.toml field lr`."""

    value: Any
    origin: str
    text: bool  # flags and variables are text to be parsed, TOML values have their type
    trusted: bool = True  # somebody's own code that it names may be executed

    @property
    def kind(self) -> str:
        """The kind of a mistake in it."""
        return "usage" if self.text else "config"

    @property
    def shown(self) -> str:
        """The value as a mistake shows it: as typed, or with its type."""
        if self.text:
            return str(self.value)
        written = f'"{self.value}"' if isinstance(self.value, str) else str(self.value).lower()
        return f"{type(self.value).__name__} {written}"


def flag(key: str) -> str:
    """The option of a flat key."""
    return "--" + key.replace("_", "-")


def all_fields(prefix: str = "", depth: int = 2) -> dict[str, FieldInfo]:
    """Every flat key with its field, those of all methods included."""
    found = {} if prefix else {**Train.model_fields}
    for cls in own_code.methods():
        for name, field in cls.model_fields.items():
            if holds_candidates(field):
                found |= _candidate_fields(f"{prefix}{name}_")
                continue
            found.setdefault(prefix + name, field)
            if holds_method(field) and depth:
                found = all_fields(f"{prefix}{name}_", depth - 1) | found
    return found


def _candidate_fields(prefix: str) -> dict[str, FieldInfo]:
    """The own options of every candidate, but for those that they share."""
    return {
        f"{prefix}{name}_{option}": field
        for name, cls in candidates().items()
        for option, field in cls.model_fields.items()
        if option not in CANDIDATES_SHARE
    }


def aliases() -> dict[str, str]:
    """Further flags of settings, as keys: `batch_size` is `batch`."""
    fields = Train.model_fields.items()
    return {alias[2:].replace("-", "_"): key for key, field in fields for alias in extra(field).get("flags", ())}


def tables(prefix: str = "", depth: int = 2) -> set[str]:
    """The keys that are tables in TOML, `inter` and `candidates_cutmix` among them."""
    found: set[str] = set()
    for name, field in ((n, f) for cls in own_code.methods() for n, f in cls.model_fields.items()):
        if holds_candidates(field):
            found |= {prefix + name, *(f"{prefix}{name}_{candidate}" for candidate in candidates())}
        elif holds_method(field) and depth and prefix + name not in found:
            found |= {prefix + name, *tables(f"{prefix}{name}_", depth - 1)}
    return found


def parse(field: FieldInfo, given: Given) -> Any:
    """The value of one setting: text is parsed, a TOML value must have the right type. Raises UserError."""
    value, (leaf, _) = given.value, shape(field)
    if get_origin(leaf) is tuple:
        value = [v.strip() for v in value.split(",") if v.strip()] if isinstance(value, str) and given.text else value
        value = tuple(value) if isinstance(value, list) else value
    problem = "must not be empty" if value == () else _beyond_types(leaf, value, given.text)
    if problem is None:
        try:
            return _adapter(field).validate_python(value, strict=not given.text)
        except ValidationError as error:
            problem = _problem(leaf, value, error.errors(include_url=False)[0]["type"])
    hint = nearest(str(value), map(str, get_args(leaf))) if problem == "unknown" else extra(field).get("hint", "")
    hint = "" if hint.startswith("Known") else hint
    raise UserError(given.kind, given.origin, problem, got=given.shown, expected=rule(field), hint=hint)


def _beyond_types(leaf: Any, value: Any, text: bool) -> str | None:
    """What pydantic would let through, or would call by another name."""
    if isinstance(value, str) and leaf is str:
        if not value:
            return "must not be empty"
        return "not text" if re.search("[\0\ud800-\udfff]", value) else None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= INTEGER_LIMIT:
        return "beyond 64 bits"
    if leaf in (int, float) and (text or isinstance(value, float)):
        try:
            return None if math.isfinite(float(value)) else "must be finite"
        except (ValueError, OverflowError):
            return None
    return None


def _problem(leaf: Any, value: Any, error_type: str) -> str:
    if error_type.startswith(("greater_than", "less_than")) or error_type == "int_parsing_size":
        return "out of range"
    if get_origin(leaf) is Literal and isinstance(value, str):
        return "unknown"
    if get_origin(leaf) is tuple:
        return "does not fit"
    return {int: "not an integer", float: "not a number", bool: "not true or false"}.get(leaf, "not text")


def _adapter(field: FieldInfo) -> TypeAdapter[Any]:
    annotation: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))


def rule(field: FieldInfo) -> str:
    """What a field accepts, in words: `integer ≥ 1`, `number 0 … 1`, `one of batch, sample`."""
    leaf, bounds = shape(field)
    if get_origin(leaf) is Literal:
        return choices(get_args(leaf))
    if get_origin(leaf) is tuple:
        if get_args(leaf)[-1] is Ellipsis:
            return extra(field).get("rule", "names")
        return f"{len(get_args(leaf))} numbers"
    if leaf not in (int, float):
        return "true or false" if leaf is bool else "text"
    noun = "integer" if leaf is int else "number"
    if bounds.keys() == {"ge", "le"}:
        return f"{noun} {bounds['ge']} … {bounds['le']}"
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    return f"{noun} {' and '.join(f'{signs[k]} {v}' for k, v in bounds.items())}".strip()


def choices(names: Iterable[Any]) -> str:
    """What must be one of these, in words."""
    return "one of " + ", ".join(map(str, names))


def extra(field: FieldInfo) -> dict[str, Any]:
    """What a field says of itself beside its type: `panel`, `hashed`, `flags`, `later`, `rule`, `hint`, and
    `names_candidates`, where somebody's own mixings are loaded by name.
    """
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def shape(field: FieldInfo) -> tuple[Any, dict[str, float]]:
    """The one type of a field, `None` aside, and its bounds by pydantic's names."""
    marks = list(field.metadata)

    def leaves(annotation: Any) -> Iterator[Any]:
        if get_origin(annotation) is Annotated:
            inner, *more = get_args(annotation)
            marks.extend(m for mark in more for m in (mark.metadata if isinstance(mark, FieldInfo) else [mark]))
            yield from leaves(inner)
        elif get_origin(annotation) in (Union, UnionType):
            for member in get_args(annotation):
                yield from leaves(member)
        elif annotation is not NoneType:
            yield annotation

    [leaf] = leaves(field.annotation)
    return leaf, {k: getattr(mark, k) for mark in marks for k in ("gt", "ge", "lt", "le") if hasattr(mark, k)}


def holds_method(field: FieldInfo) -> type[Method] | None:
    """The class whose descendants a field holds, or None for a field with a plain value."""
    leaf, _ = shape(field)
    return leaf if isinstance(leaf, type) and issubclass(leaf, Method) else None


def holds_candidates(field: FieldInfo) -> bool:
    """Whether a field holds tables of candidates' options."""
    return get_origin(shape(field)[0]) is dict


def is_option(field: FieldInfo) -> bool:
    """Whether a field of somebody's own class can be an option."""
    try:
        leaf, _ = shape(field)
    except ValueError:  # more types than one
        return False
    return leaf in (int, float, bool, str) or get_origin(leaf) in (Literal, tuple) or holds_method(field) is not None
