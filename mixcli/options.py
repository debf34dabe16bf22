"""options.py: settings classes -> Typer options; TOML in and out; defaults < file < environment < typed.

Every setting has one flat key: the fields of `Train`, `method`, the fields of the chosen method, and for a mixing
inside a method `inter` and `inter_` before that mixing's fields. The key `weight_decay` is typed `--weight-decay`,
written `weight_decay` in TOML and named `MIXCLI_WEIGHT_DECAY` in the environment; in TOML, `inter_alpha` is `alpha` in
the table `[inter]`, and `candidates_cutmix_box` is `box` in the table `[candidates.cutmix]`.

What is given is first collected as text or TOML values together with where it stood (`Given`), layer over layer, and
only then turned into settings, so that every mistake is told with the option, variable or field that made it.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from mixcli import own_code
from mixcli.errors import UserError, nearest
from mixcli.settings import (
    CANDIDATES_SHARE,
    DIGITS_RECIPE,
    LIBRARIES,
    METHODS,
    NETS,
    Facts,
    Method,
    NoMixing,
    Settings,
    Train,
    candidates,
    own_candidates,
)

TOML_BYTES, TOML_LEVELS = 2**20, 64
INTEGER_LIMIT = 2**63  # TOML promises 64 bits; tomllib takes any
VARIABLE = "MIXCLI_"
SHORT_VARIABLES = {"MIXCLI_DATA": "data_dir"}


@dataclass(frozen=True)
class Given:
    """A value as it was written. `origin` names the place: `--lr`, `MIXCLI_LR`, `cfg.toml field lr`."""

    value: Any
    origin: str
    text: bool  # flags and variables are text to be parsed, TOML values have their type
    trusted: bool = True  # somebody's own code that it names may be executed


Layer = dict[str, Given]  # by flat key
M = TypeVar("M", bound=Method)


class Gathered(NamedTuple):
    train: Train
    warnings: list[tuple[str, str]]  # subject, problem
    origins: dict[str, str]  # flat key -> where its value was given

    def located(self, error: UserError) -> UserError:
        """`error` about a bare key, told with the place where that key was given."""
        return _renamed(error, self.origins[error.subject]) if error.subject in self.origins else located(error)


def located(error: UserError) -> UserError:
    """`error` about a bare key, told with the option that sets it."""
    return _renamed(error, flag(error.subject)) if error.subject in all_fields() else error


# -------------------------------------------------------------------------------------------------- from all sources


def gather(typed: Mapping[str, str | bool | None], config: Path | None, environ: Mapping[str, str]) -> Gathered:
    """The settings that file, environment and command line make together. Raises UserError naming who is at fault."""
    file = file_layer(read_toml(config), str(config)) if config is not None else {}
    return combined([file, environment_layer(environ), typed_layer(typed)])


def combined(layers: Iterable[Layer]) -> Gathered:
    """The settings that layers make together, later ones over earlier ones. Raises UserError naming who is at fault."""
    given: Layer = {}
    warnings: list[tuple[str, str]] = []
    for layer in layers:
        below = _stages_of_the_net(given) if "method" in given else given  # before its method is replaced
        given = _without_replaced_methods(below, layer, warnings) | layer
    given = _stages_of_the_net(given)
    train = cast(Train, _build(Train, given))
    for named in (given[key] for key in ("method", "inter", "inter_inter") if key in given):
        if packages := own_code.taken(named.value):
            warnings.append((named.origin, f"the built-in {named.value} is used; {packages} offers one too"))
    return Gathered(train, warnings, {key: value.origin for key, value in given.items()})


def typed_layer(typed: Mapping[str, str | bool | None]) -> Layer:
    """What was typed, by key; None stands for what was not."""
    return {_aliases().get(k, k): Given(value, flag(k), text=True) for k, value in typed.items() if value is not None}


def continued(typed: Mapping[str, str | bool | None], file: Path, environ: Mapping[str, str]) -> Gathered:
    """The settings of a run from its settings.toml. Only what is outside its identity may be given anew."""
    table = _found_again(read_toml(file), typed)
    run = from_flat(table, str(file))
    gathered = combined([file_layer(table, str(file)), environment_layer(environ), typed_layer(typed)])
    before, after = flat(run), flat(gathered.train)
    for key in {**before, **after}:
        if is_hashed(key) and _anonymous(before.get(key)) != _anonymous(after.get(key)):
            hint = "Use --extend-to" if key == "epochs" else "Leave it out, or start a new run"
            raise UserError("mismatch", gathered.origins.get(key, flag(key)), f"run has {_brief(before.get(key))}",
                            got=_brief(after.get(key)), hint=hint)  # fmt: skip
    return gathered


def _found_again(table: dict[str, Any], typed: Mapping[str, str | bool | None], prefix: str = "") -> dict[str, Any]:
    """The settings of a run whose own code lies in files, where it is typed to lie now if the content is the same."""
    inside = {k: _found_again(v, typed, f"{prefix}{k}_") for k, v in table.items() if isinstance(v, dict)}
    found = {**table, **inside}
    for name in ("method", "net", "methods"):
        key = prefix.removesuffix("_") if prefix and name == "method" else prefix + name
        words = [word.strip() for word in str(typed.get(key) or "").split(",")]
        now = [own_code.load(word, flag(key)).reference for word in words if own_code.in_a_file(word)]
        places = {own_code.anonymous(reference): reference for reference in now}
        if isinstance(found.get(name), list):
            found[name] = [places.get(own_code.anonymous(str(one)), one) for one in found[name]]
        elif name in found:
            found[name] = places.get(own_code.anonymous(str(found[name])), found[name])
    return found


def _brief(value: Any) -> Any:
    if isinstance(value, dict):
        return value.get("method", ", ".join(value))
    return "none" if value is None else value


def data_root(typed: str | None, environ: Mapping[str, str]) -> str | None:
    """The folder of the data sets as typed or as a variable has it, before any settings are known; None for neither."""
    return typed or environ.get("MIXCLI_DATA_DIR") or environ.get("MIXCLI_DATA")


def runs_root(typed: Mapping[str, str | bool | None], environ: Mapping[str, str]) -> str:
    """The folder of the runs before any settings are known."""
    return str(typed.get("runs") or environ.get("MIXCLI_RUNS") or Train.model_fields["runs"].get_default())


def _without_replaced_methods(below: Layer, above: Layer, warnings: list[tuple[str, str]]) -> Layer:
    """The lower layer without the keys of a method that the upper layer replaces by another."""
    kept = dict(below)
    for key in ("method", "inter", "inter_inter"):
        if key not in kept or key not in above or own_code.same(kept[key].value, above[key].value):
            continue
        old, own = kept[key], {"method", *Train.model_fields} if key == "method" else set()
        dropped = [k for k in kept if (k not in own if key == "method" else k.startswith(f"{key}_"))]
        kept = {k: v for k, v in kept.items() if k not in dropped}
        warnings.append((old.origin, f"{above[key].value} is used instead; the keys of {old.value} are dropped"))
    return kept


def _stages_of_the_net(given: Layer) -> Layer:
    """`stages` are those at which the net is cut, unless the method has stages of its own."""
    if "stages" not in given:
        return given
    cls = _class_of(given["method"]) if "method" in given else None
    if "stages" in (cls or NoMixing).model_fields:
        return given
    return {"cut" if key == "stages" else key: value for key, value in given.items()}


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """What MIXCLI_ variables set."""
    known = {VARIABLE + key.upper(): key for key in all_fields()} | SHORT_VARIABLES
    layer: Layer = {}
    for name in sorted(n for n in environ if n.startswith(VARIABLE)):
        if name not in known:
            raise UserError("usage", name, "no such setting", hint=nearest(name, known))
        if environ[name]:  # set but empty means unset, as everywhere
            layer[known[name]] = Given(environ[name], name, text=True)
    return layer


def file_layer(table: Mapping[str, Any], file: str, prefix: str = "", path: str = "", trusted: bool = True) -> Layer:
    """What a table sets; `path` stands before its keys where a mistake is told, `prefix` before its flat keys."""
    layer: Layer = {}
    for name, value in table.items():
        key = prefix.removesuffix("_") if prefix and name == "method" else prefix + name
        if not isinstance(value, dict):
            layer[key] = Given(value, f"{file} field {path}{name}", text=False, trusted=trusted)
        elif key in tables():
            layer |= file_layer(value, file, f"{key}_", f"{path}{name}.", trusted)
        else:
            problem = "unknown; keys are flat, the tables are [inter] and miamix's [candidates.NAME]"
            raise UserError("config", f"{file} table {path}{name}", problem)
    return layer


# ---------------------------------------------------------------------------------------------- given -> settings


def _build(cls: type[Settings], given: Layer, prefix: str = "") -> Settings:
    """`cls` from the keys given for it, `prefix` being what stands before them in flat keys."""
    rest, values = dict(given), {}
    for name, field in cls.model_fields.items():
        base = holds_method(field)
        if base is not None:
            before = "" if name == "method" else f"{name}_"
            own = Train.model_fields if name == "method" else ()
            inside = {k: rest.pop(k) for k in list(rest) if k == name or (k not in own and k.startswith(before))}
            chosen = _build_method(base, field, name, inside, prefix)
            values |= {} if chosen is None else {name: chosen}
        elif holds_candidates(field):
            inside = {k: rest.pop(k) for k in list(rest) if k.startswith(f"{name}_")}
            values |= {name: _build_candidates(inside, f"{prefix}{name}_", len(name) + 1)} if inside else {}
        elif name in rest:
            source = rest.pop(name)
            value: Any = parse(field, source)
            value = _pinned(value, source) if cls is Train and name == "net" else value
            value = _with_own(value, source) if _extra(field).get("names_candidates") else value
            # A file that spells a default out, as every settings.toml does, has not chosen it.
            values |= {} if not source.text and value == field.get_default() else {name: value}
    for key, source in rest.items():
        raise _refusal(cls, key, source, prefix)
    try:
        return cls(**values)
    except UserError as error:
        origin = given[error.subject].origin if error.subject in given else flag(prefix + error.subject)
        raise _renamed(error, origin) from error
    except ValidationError as error:  # of somebody's own validator
        told = error.errors(include_url=False)[0]
        raise UserError("config", flag(prefix + "_".join(map(str, told["loc"]))) if told["loc"] else cls.__name__,
                        told["msg"]) from error  # fmt: skip


def _pinned(net: str | None, given: Given) -> str | None:
    """The name of a net, somebody's own one with the digest of its source; not executed where that is not trusted."""
    if net is None or not given.trusted or net in NETS or net.partition(":")[0] in LIBRARIES:
        return net
    own = own_code.net(net, given.origin)
    return net if own is None else own.reference


def _with_own(names: tuple[str, ...], given: Given) -> tuple[str, ...]:
    """The names of candidates, somebody's own ones loaded and with the digest of their source."""
    found = []
    for name in names:
        cls = None if name in METHODS else _class_of(replace(given, value=name))
        if cls is not None:
            made = own_code.candidate(cls, given.origin)
            if given.trusted or made.reference not in own_candidates:  # what can be drawn is not given up for a record
                own_candidates[made.reference] = made
        found.append(name if cls is None else cls.reference)
    return tuple(found)


def _build_method(base: type[Method], field: FieldInfo, name: str, inside: Layer, prefix: str) -> Method | None:
    """The method that `inside` names under `name`, with its keys; None where nothing is given and the default holds."""
    if not inside:
        return None
    default, named = field.get_default(), inside.pop(name, None)
    if named is not None:
        cls = _named_class(base, named)
    elif default is not None:
        cls = type(default)
    else:
        source = next(iter(inside.values()))
        raise UserError("config", source.origin, "belongs to a mixing that is not named", hint=f"Give {flag(name)} too")
    before = "" if name == "method" else f"{name}_"
    if issubclass(cls, own_code.Recorded):
        return cls(**{k.removeprefix(before): v.value for k, v in inside.items()})
    return cast(Method, _build(cls, {k.removeprefix(before): v for k, v in inside.items()}, prefix + before))


def _build_candidates(inside: Layer, prefix: str, before: int) -> dict[str, Settings]:
    """The candidates' settings by name, from flat keys of which the first `before` characters name the table."""
    tables: dict[str, Layer] = {}
    for key, source in inside.items():
        name, _, option = key[before:].partition("_")
        if name not in candidates() or not option:
            problem = "not a candidate, or no option of one"
            raise UserError(_kind(source), source.origin, problem, expected=_choices(candidates()))
        tables.setdefault(name, {})[option] = source
    return {name: _build(candidates()[name], layer, f"{prefix}{name}_") for name, layer in tables.items()}


def _named_class(base: type[Method], named: Given) -> type[Method]:
    names = [name for name, cls in METHODS.items() if issubclass(cls, base)]
    cls = _class_of(named)
    if cls is None:
        known = [*names, *own_code.offers()]
        raise UserError(_kind(named), named.origin, "unknown", got=_shown(named), hint=nearest(str(named.value), known))
    if not issubclass(cls, base):
        raise UserError(_kind(named), named.origin, "cannot be used here", got=_shown(named), expected=_choices(names))
    return cls


def method(name: str, origin: str, base: type[M] = Method) -> type[M]:
    """The class of any method that can be named, typed at `origin`. Raises UserError where it is no `base`."""
    return cast(type[M], _named_class(base, Given(name, origin, text=True)))


def _class_of(named: Given) -> type[Method] | None:
    """The class of a method that is built in, lies in a file or comes with a package; None where there is none."""
    if not isinstance(named.value, str):
        return None
    if named.value in METHODS:
        return METHODS[named.value]
    if not named.trusted:
        return own_code.recorded(named.value)
    cls = own_code.method(named.value, named.origin)
    if cls is not None:
        _refuse_fields(cls, named.origin)
        own_code.loaded[cls.reference] = cls
    return cls


def _refuse_fields(cls: type[Method], origin: str) -> None:
    """Raises UserError where a field of somebody's own class cannot be an option."""
    for name, field in cls.model_fields.items():
        problem = None
        if name in Train.model_fields:
            problem = "is a setting of training already; take another name"
        elif field.is_required():
            problem = "has no default"
        elif not _is_option(field):
            problem = "is no option: its type is none of int, float, bool, str, Literal, tuple, or None beside one"
        if problem is not None:
            raise UserError("config", origin, f"{cls.__name__}.{name} {problem}")


def _is_option(field: FieldInfo) -> bool:
    try:
        leaf, _ = _shape(field)
    except ValueError:  # more types than one
        return False
    return leaf in (int, float, bool, str) or get_origin(leaf) in (Literal, tuple) or holds_method(field) is not None


def _refusal(cls: type[Settings], key: str, source: Given, prefix: str) -> UserError:
    """Why `key` cannot be set for `cls`: another method has it, or nobody has."""
    own = list(cls.model_fields)
    if prefix + key in all_fields() and issubclass(cls, Method):
        kind = "mixing" if prefix else "method"
        takes = ", ".join(own) if own else "no options"
        return UserError(_kind(source), source.origin, f"{kind} {cls.name} has no such option; it takes: {takes}")
    known = own if prefix else ["method", *(k for k in Train.model_fields if k != "method"), *own]
    return UserError(_kind(source), source.origin, "unknown", hint=nearest(key, known))


def parse(field: FieldInfo, given: Given) -> Any:
    """The value of one setting: text is parsed, a TOML value must have the right type. Raises UserError."""
    value, (leaf, _) = given.value, _shape(field)
    if get_origin(leaf) is tuple:
        value = [v.strip() for v in value.split(",") if v.strip()] if isinstance(value, str) and given.text else value
        value = tuple(value) if isinstance(value, list) else value
    problem = "must not be empty" if value == () else _beyond_types(leaf, value, given.text)
    if problem is None:
        try:
            return _adapter(field).validate_python(value, strict=not given.text)
        except ValidationError as error:
            problem = _problem(leaf, value, error.errors(include_url=False)[0]["type"])
    hint = nearest(str(value), map(str, get_args(leaf))) if problem == "unknown" else _extra(field).get("hint", "")
    hint = "" if hint.startswith("Known") else hint
    raise UserError(_kind(given), given.origin, problem, got=_shown(given), expected=rule(field), hint=hint)


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


def rule(field: FieldInfo) -> str:
    """What a field accepts, in words: `integer ≥ 1`, `number 0 … 1`, `one of batch, sample`."""
    leaf, bounds = _shape(field)
    if get_origin(leaf) is Literal:
        return _choices(get_args(leaf))
    if get_origin(leaf) is tuple:
        if get_args(leaf)[-1] is Ellipsis:
            return _extra(field).get("rule", "names")
        return f"{len(get_args(leaf))} numbers"
    if leaf not in (int, float):
        return "true or false" if leaf is bool else "text"
    noun = "integer" if leaf is int else "number"
    if bounds.keys() == {"ge", "le"}:
        return f"{noun} {bounds['ge']} … {bounds['le']}"
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    return f"{noun} {' and '.join(f'{signs[k]} {v}' for k, v in bounds.items())}".strip()


def flag(key: str) -> str:
    """The option of a flat key."""
    return "--" + key.replace("_", "-")


def _kind(given: Given) -> str:
    return "usage" if given.text else "config"


def _shown(given: Given) -> str:
    if given.text:
        return str(given.value)
    written = f'"{given.value}"' if isinstance(given.value, str) else str(given.value).lower()
    return f"{type(given.value).__name__} {written}"


def _choices(names: Iterable[Any]) -> str:
    return "one of " + ", ".join(map(str, names))


def _renamed(error: UserError, subject: str) -> UserError:
    return UserError(error.kind, subject, error.problem, error.got, error.expected, error.hint)


# ----------------------------------------------------------------------------------------------------- reading fields


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


def tables(prefix: str = "", depth: int = 2) -> set[str]:
    """The keys that are tables in TOML, `inter` and `candidates_cutmix` among them."""
    found: set[str] = set()
    for name, field in ((n, f) for cls in own_code.methods() for n, f in cls.model_fields.items()):
        if holds_candidates(field):
            found |= {prefix + name, *(f"{prefix}{name}_{candidate}" for candidate in candidates())}
        elif holds_method(field) and depth and prefix + name not in found:
            found |= {prefix + name, *tables(f"{prefix}{name}_", depth - 1)}
    return found


def holds_method(field: FieldInfo) -> type[Method] | None:
    """The class whose descendants a field holds, or None for a field with a plain value."""
    leaf, _ = _shape(field)
    return leaf if isinstance(leaf, type) and issubclass(leaf, Method) else None


def holds_candidates(field: FieldInfo) -> bool:
    """Whether a field holds tables of candidates' options."""
    return get_origin(_shape(field)[0]) is dict


def _shape(field: FieldInfo) -> tuple[Any, dict[str, float]]:
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


def _aliases() -> dict[str, str]:
    """Further flags of settings, as keys: `batch_size` is `batch`."""
    fields = Train.model_fields.items()
    return {alias[2:].replace("-", "_"): key for key, field in fields for alias in _extra(field).get("flags", ())}


def _adapter(field: FieldInfo) -> TypeAdapter[Any]:
    annotation: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


# ---------------------------------------------------------------------------------------------------------------- TOML

# One pass over strings, comments and the characters that nest; an unclosed string takes the rest, so it is linear.
TOKEN = re.compile(
    r'"""(?:[^\\"]|\\.|"(?!""))*+(?:"{3,5}|\Z)|\'\'\'(?:[^\']|\'(?!\'\'))*+(?:\'{3,5}|\Z)'
    r'|"(?:[^"\\\n]|\\.)*+"?|\'[^\'\n]*+\'?|#[^\n]*+|[][{}.=,\n]',
    re.DOTALL,
)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises UserError; size and nesting are limited before anything is parsed."""
    text = _toml_text(path)
    if _levels(text) > TOML_LEVELS:
        raise UserError("config", str(path), "too deep", expected=f"at most {TOML_LEVELS} levels")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise UserError("config", str(path), "too deep", expected=f"at most {TOML_LEVELS} levels") from None
    except ValueError as error:  # also a number of more digits than Python converts
        reason, _, place = str(error).partition(" (at ")
        where = f"{path} {place.rstrip(')').replace(',', '')}" if place.startswith("line") else str(path)
        raise UserError("config", where, "cannot parse as TOML", hint=reason) from error


def _toml_text(path: Path) -> str:
    def refused(problem: str) -> UserError:
        return UserError("config", str(path), problem, expected="a readable TOML file")

    if "\0" in str(path) or not path.exists():
        raise refused("not found")
    if not path.is_file():
        raise refused("is a directory" if path.is_dir() else "not a file")
    try:
        with path.open("rb") as file:
            content = file.read(TOML_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise refused(error.strerror or "cannot be read") from error
    except UnicodeDecodeError as error:
        raise refused("not UTF-8 text") from error
    if len(content) > TOML_BYTES:
        raise UserError("config", str(path), "too large", expected="at most 1 MiB")
    if text.startswith("\ufeff"):
        raise refused("starts with a byte-order mark")
    if not text.strip():
        raise refused("empty")
    return text


def _levels(text: str) -> int:
    """How deep the text nests: brackets and braces open at once, or parts of one dotted key."""
    depth = deepest = parts = 0
    for token in TOKEN.finditer(text):
        match token.group()[0]:
            case "[" | "{":
                depth, parts = depth + 1, 0
            case "]" | "}":
                depth, parts = depth - 1, 0
            case ".":
                parts += 1
            case "=" | "," | "\n":
                parts = 0
        deepest = max(deepest, depth, parts + 1)
    return deepest


def to_toml(train: Train) -> str:
    """`train` as a TOML file that reads back equal."""
    return "\n".join(_toml_lines(flat(train))) + "\n"


def _toml_lines(table: dict[str, Any], path: str = "") -> Iterator[str]:
    yield from (f"{key} = {_toml_value(value)}" for key, value in table.items() if not isinstance(value, dict))
    for key, value in table.items():
        if isinstance(value, dict):
            only_tables = all(isinstance(inner, dict) for inner in value.values())
            yield from () if only_tables else ("", f"[{path}{key}]")
            yield from _toml_lines(value, f"{path}{key}.")


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, str):  # JSON's escapes are TOML's, but JSON leaves the delete character raw
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


# ------------------------------------------------------------------------------------------- plain values, identity


def flat(settings: Settings) -> dict[str, Any]:
    """The settings as plain values, every default spelled out, open ones (None) left out, `inter` a table."""
    values: dict[str, Any] = {}
    for name, value in settings:
        if isinstance(value, Method):
            inside = {"method": value.reference or value.name, **flat(value)}
            values |= inside if name == "method" else {name: inside}
        elif isinstance(value, dict):
            values |= {name: {k: _own_options(v) for k, v in value.items()}} if value else {}
        elif value is not None:
            values[name] = list(value) if isinstance(value, tuple) else value
    return values


def _own_options(candidate: Settings) -> dict[str, Any]:
    return {key: value for key, value in flat(candidate).items() if key not in CANDIDATES_SHARE}


def from_flat(values: Mapping[str, Any], source: str = "settings", trusted: bool = True) -> Train:
    """The exact inverse of `flat`. Raises UserError naming `source`.

    trusted  somebody's own code is executed where the settings name it. Whoever only reads a run says False: its net
             and scores need none, and the file may have gone or be a stranger's. Such a method is then `Recorded`.
    """
    return cast(Train, _build(Train, file_layer(values, source, trusted=trusted)))


def _anonymous(value: Any, told: Callable[[str], str] = own_code.anonymous) -> Any:
    """A flat value without the places of somebody's own code."""
    if isinstance(value, dict):
        return {key: _anonymous(inner, told) for key, inner in value.items()}
    if isinstance(value, list):
        return [_anonymous(inner, told) for inner in value]
    return told(value) if isinstance(value, str) else value


def other_code(train: Train, recorded: Mapping[str, Any]) -> UserError | None:
    """Why settings are not those that a run has recorded, if all that differs is the content of somebody's own code."""
    mine, theirs = ({k: v for k, v in values.items() if is_hashed(k)} for values in (flat(train), recorded))
    if _anonymous(mine, own_code.undated) != _anonymous(theirs, own_code.undated):
        return None
    for key in mine:
        now, before = (value.get("method") if isinstance(value, dict) else value for value in (mine[key], theirs[key]))
        if _anonymous(now) != _anonymous(before):
            hint = "Put the old content back to go on, or start the new run without --resume"
            return UserError("mismatch", key, f"run has {_anonymous(before)}", got=_anonymous(now), hint=hint)
    return None


def is_hashed(key: str) -> bool:
    """Whether a top-level key belongs to the run's identity; a method's own keys do."""
    return key not in Train.model_fields or _extra(Train.model_fields[key]).get("hashed", True)


def hashed(train: Train) -> dict[str, Any]:
    """The settings that belong to a run's identity, as plain values, somebody's own code without its place."""
    return {key: _anonymous(value) for key, value in flat(train).items() if is_hashed(key)}


def _as_before(key: str, value: Any) -> bool:
    """Whether a setting that older runs did not have says what they did."""
    field = Train.model_fields.get(key)
    if field is None or not _extra(field).get("later", False):
        return False
    default = field.get_default()
    return value == (list(default) if isinstance(default, tuple) else default)


def identity(train: Train, facts: Facts, parent: str | None = None) -> str:
    """The id of a run: 12 hex of SHA-256 over hashed settings and data, and the id of the run it extends."""
    told = {k: v for k, v in hashed(train).items() if not _as_before(k, v)}
    content: dict[str, Any] = {"settings": told, "data": facts.identity}
    content |= {} if parent is None else {"parent": parent}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


# ----------------------------------------------------------------------------------------------------- Typer options


def parameters(argv: list[str]) -> list[inspect.Parameter]:
    """One Typer option per flat key. Those of methods that `argv` does not choose are accepted but not shown."""
    _load_own(argv)
    shown = _fields_of_chosen(argv)
    options = [_parameter("method", Train.model_fields["method"], "Method")]
    for key, (field, panel) in shown.items():
        options.append(_parameter(key, field, panel))
    for key, field in all_fields().items():
        if key in Train.model_fields and key != "method":
            options.append(_parameter(key, field, _extra(field)["panel"]))
        elif key not in shown and key != "method":
            options.append(_parameter(key, field, None))
    return [*options, *(_parameter(alias, all_fields()[key], None) for alias, key in _aliases().items())]


def own_parameters(cls: type[Settings], panel: str) -> list[inspect.Parameter]:
    """One Typer option per field of a class that is no part of training."""
    return [_parameter(key, field, panel) for key, field in cls.model_fields.items()]


def own(cls: type[Settings], typed: Mapping[str, str | bool | None]) -> Settings:
    """An instance of such a class from what was typed for its fields. Raises UserError naming the option."""
    return cls(**{key: parse(cls.model_fields[key], given) for key, given in typed_layer(typed).items()})


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
    return default if typed is None else _class_of(Given(typed, option, text=True)) or default


def _load_own(argv: list[str]) -> None:
    """Loads what file and environment name and is not built in: its options are to be known before they are parsed."""
    config, named = _value_in(argv, "--config"), {}
    with suppress(UserError):  # a damaged file is told by whoever needs it
        named = {} if config is None else file_layer(read_toml(Path(config)), config)
    for key in ("method", "inter"):
        variable = VARIABLE + key.upper()
        named |= {key: Given(os.environ[variable], variable, text=True)} if os.environ.get(variable) else {}
        if key in named:
            _class_of(named[key])


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

    leaf, _ = _shape(field)
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

    leaf, _ = _shape(field)
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


def duration(text: str, origin: str) -> float:
    """Seconds in `3h50m`, `90s` or `1h`; raises UserError naming `origin`."""
    parts = re.fullmatch(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", text)
    hours, minutes, seconds = (int(p or 0) for p in parts.groups()) if parts else (0, 0, 0)
    total = 3600.0 * hours + 60 * minutes + seconds
    if total == 0:
        raise UserError("usage", origin, "not a duration", got=text, expected="a time above 0 such as 3h50m or 90s")
    return total
