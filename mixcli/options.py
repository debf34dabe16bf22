"""options.py: settings out of defaults < file < environment < typed, and as plain values, as TOML and as a run's id.

The key `weight_decay` (see fields.py) is typed `--weight-decay`, written `weight_decay` in TOML and named
`MIXCLI_WEIGHT_DECAY` in the environment; in TOML, `inter_alpha` is `alpha` in the table `[inter]`, and
`candidates_cutmix_box` is `box` in the table `[candidates.cutmix]`.

What is given is first collected as text or TOML values together with where it stood (`Given`), layer over layer, and
only then turned into settings, so that every mistake is told with the option, variable or field that made it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from mixcli import own_code, toml
from mixcli.catalogue import LIBRARIES, NETS
from mixcli.errors import UserError, nearest
from mixcli.fields import (
    Given,
    aliases,
    all_fields,
    choices,
    extra,
    flag,
    holds_candidates,
    holds_method,
    is_option,
    parse,
    tables,
)
from mixcli.recipe import Facts, Train
from mixcli.settings import CANDIDATES_SHARE, METHODS, Method, NoMixing, Settings, candidates, own_candidates

VARIABLE = "MIXCLI_"
SHORT_VARIABLES = {"MIXCLI_DATA": "data_dir"}


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
    file = file_layer(toml.read(config), str(config)) if config is not None else {}
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
    return {aliases().get(k, k): Given(value, flag(k), text=True) for k, value in typed.items() if value is not None}


def continued(typed: Mapping[str, str | bool | None], file: Path, environ: Mapping[str, str]) -> Gathered:
    """The settings of a run from its settings.toml. Only what is outside its identity may be given anew."""
    table = _found_again(toml.read(file), typed)
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
    cls = class_of(given["method"]) if "method" in given else None
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
            value = _with_own(value, source) if extra(field).get("names_candidates") else value
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
        cls = None if name in METHODS else class_of(replace(given, value=name))
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
            raise UserError(source.kind, source.origin, problem, expected=choices(candidates()))
        tables.setdefault(name, {})[option] = source
    return {name: _build(candidates()[name], layer, f"{prefix}{name}_") for name, layer in tables.items()}


def _named_class(base: type[Method], named: Given) -> type[Method]:
    names = [name for name, cls in METHODS.items() if issubclass(cls, base)]
    cls = class_of(named)
    if cls is None:
        known = [*names, *own_code.offers()]
        raise UserError(named.kind, named.origin, "unknown", got=named.shown, hint=nearest(str(named.value), known))
    if not issubclass(cls, base):
        raise UserError(named.kind, named.origin, "cannot be used here", got=named.shown, expected=choices(names))
    return cls


def method(name: str, origin: str, base: type[M] = Method) -> type[M]:
    """The class of any method that can be named, typed at `origin`. Raises UserError where it is no `base`."""
    return cast(type[M], _named_class(base, Given(name, origin, text=True)))


def class_of(named: Given) -> type[Method] | None:
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
        elif not is_option(field):
            problem = "is no option: its type is none of int, float, bool, str, Literal, tuple, or None beside one"
        if problem is not None:
            raise UserError("config", origin, f"{cls.__name__}.{name} {problem}")


def _refusal(cls: type[Settings], key: str, source: Given, prefix: str) -> UserError:
    """Why `key` cannot be set for `cls`: another method has it, or nobody has."""
    own = list(cls.model_fields)
    if prefix + key in all_fields() and issubclass(cls, Method):
        kind = "mixing" if prefix else "method"
        takes = ", ".join(own) if own else "no options"
        return UserError(source.kind, source.origin, f"{kind} {cls.name} has no such option; it takes: {takes}")
    known = own if prefix else ["method", *(k for k in Train.model_fields if k != "method"), *own]
    return UserError(source.kind, source.origin, "unknown", hint=nearest(key, known))


def _renamed(error: UserError, subject: str) -> UserError:
    return UserError(error.kind, subject, error.problem, error.got, error.expected, error.hint)


def to_toml(train: Train) -> str:
    """`train` as a TOML file that reads back equal."""
    return toml.text_of(flat(train))


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
    return key not in Train.model_fields or extra(Train.model_fields[key]).get("hashed", True)


def hashed(train: Train) -> dict[str, Any]:
    """The settings that belong to a run's identity, as plain values, somebody's own code without its place."""
    return {key: _anonymous(value) for key, value in flat(train).items() if is_hashed(key)}


def _as_before(key: str, value: Any) -> bool:
    """Whether a setting that older runs did not have says what they did."""
    field = Train.model_fields.get(key)
    if field is None or not extra(field).get("later", False):
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
