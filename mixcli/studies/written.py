"""written.py: a study as it was written, in a file or on the command line, before it has cells.

Every value keeps the place where it stands, so that whatever is wrong with it later is told with that place, such as
`study.toml field axes.blend.alpha[2]`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mixcli import options, own_code, toml
from mixcli.errors import UserError, nearest
from mixcli.fields import Given, parse
from mixcli.options import Layer
from mixcli.recipe import Train
from mixcli.settings import Count, Seed, Settings
from mixcli.studies import follow

NAMED = Path(__file__).parent / "named"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")
ARM = re.compile(r"[^\x00-\x1f\x7f]{1,80}")
VERSUS_BASELINE = "arms-vs-baseline"
LIKE_FOR_LIKE = "like-for-like"  # each arm against the baseline's at the same values of its axes
CELLS = 1000  # at most, unless --max-cells says otherwise
SEEDS = "a count, or a comma list without repeats"
TABLES = ("base", "tiny", "arms", "axes", "choose", "contrasts", "placebos", "timing")
OF_TINY = ("arms", "axes", "choose", "placebos", "timing")  # tables inside [tiny]; all else there is laid over [base]


class Fields(Settings):
    """The plain fields of a study file."""

    study: str = ""
    question: str = ""
    metric: str = "test.top1"
    select: Literal["last", "median_last_10", "best_on_val"] = "last"
    test: Literal["welch", "paired"] = "welch"
    seeds: Annotated[tuple[Seed, ...], Field(json_schema_extra={"rule": "a list of different whole numbers"})] = (
        *range(8),
    )
    baseline: str | None = None
    family: Literal["arms-vs-baseline", "like-for-like"] | tuple[tuple[str, str], ...] = "arms-vs-baseline"
    sesoi: Annotated[float, Field(gt=0, le=100)] = 0.5
    threads: Count = 1
    follow: tuple[str, ...] = ()


class Timing(Settings):
    """A study of times in place of accuracies: how its arms are timed."""

    warm_up: Annotated[int, Field(ge=0)] = 50
    steps: Count = 200
    blocks: Count = 6
    published: dict[str, float] = {}  # arm -> ratio to the baseline that a paper reports


@dataclass(frozen=True)
class Typed:
    """What was typed after `mixcli ablate`, as far as it decides which cells there are."""

    study: str | None = None
    axis: tuple[str, ...] = ()
    set: tuple[str, ...] = ()
    seeds: str | None = None
    baseline: str | None = None
    tiny: bool = False
    max_cells: int = CELLS
    screen: bool = False
    confirm: str | None = None


@dataclass(frozen=True)
class Source:
    """A study before its cells are made: layers by arm, as they were written."""

    place: str  # what mistakes are told with
    name: str
    fields: Fields
    origins: Mapping[str, str]  # of plain fields
    base: Layer
    tiny: Mapping[str, Any] | None
    arms: Mapping[str, Layer]
    axes: Mapping[str, Layer]  # by arm; each key with the list of its values
    choose: Mapping[str, Mapping[str, Any]]
    contrasts: Mapping[str, Any]
    placebos: Mapping[str, Layer]  # laid over an arm that is confirmed
    timing: Mapping[str, Any] | None
    typed: Layer  # outside the run's identity


def named() -> dict[str, str]:
    """The studies inside the package: name -> question."""
    return {path.stem: toml.read(path).get("question", "") for path in sorted(NAMED.glob("*.toml"))}


def read(typed: Typed, train: Mapping[str, Any]) -> Source:
    """The study that was typed: a named one, a file's, or axes. Raises UserError naming the field or option at fault.

    train  options of training: the base of a study by `--axis`; otherwise only those outside a run's identity
    """
    if typed.study is None and not typed.axis:
        raise UserError("usage", "ablate", "needs a study: a name, a .toml file, or --axis KEY=V1,V2",
                        hint="See mixcli list studies")  # fmt: skip
    if typed.study is not None and typed.axis:
        raise UserError("usage", "--axis", "makes a study of its own", hint="Leave it, or the study, out")
    return _typed_axes(typed, train) if typed.study is None else _from_file(typed.study, train)


def _from_file(text: str, train: Mapping[str, Any]) -> Source:
    """A named study, or a file's."""
    path = Path(text)
    if path.suffix != ".toml":
        known = [p.stem for p in NAMED.glob("*.toml")]
        if text not in known:
            hint = nearest(text, sorted(known))
            raise UserError("usage", "ablate", "no such study, nor a .toml file", got=text, hint=hint)
        path = NAMED / f"{text}.toml"
        place = text
    else:
        place = str(path)
    table = toml.read(path)
    typed = options.typed_layer(train)
    for key, given in typed.items():
        if options.is_hashed(key):
            hint = f"Give --set base.{key}={given.value}"
            raise UserError("usage", given.origin, "the study decides it", hint=hint)
    plain = {key: value for key, value in table.items() if key not in TABLES}
    fields, origins = _fields(plain, place)
    for key in TABLES:
        if not isinstance(table.get(key, {}), dict):
            raise UserError("config", f"{place} field {key}", "is a table", got=table[key])
    arms, axes, choose = table.get("arms", {}), table.get("axes", {}), table.get("choose", {})
    if not arms:
        raise UserError("config", place, "no cells", expected="at least one table [arms.NAME]")
    tiny = table.get("tiny", {})
    inside = {f"tiny.{key}": tiny.get(key, {}) for key in ("arms", "axes", "choose")}
    _check_tiny_tables(place, table, tiny)
    for what, named in {"axes": axes, "choose": choose, **inside}.items():
        if not isinstance(named, dict):
            raise UserError("config", f"{place} field {what}", "is a table", got=named)
        for arm in named:
            if arm not in arms:
                raise UserError("config", f"{place} table {what}.{arm}", "no such arm", hint=nearest(arm, arms))
    for arm in set(axes) & set(choose):
        raise UserError("config", f"{place} table choose.{arm}", "its axes and a choice exclude each other")
    return Source(
        place, fields.study or path.stem, fields, origins,
        options.file_layer(table.get("base", {}), place, path="base."), table.get("tiny"),
        {name: arm_layer(place, "arms", name, inner) for name, inner in arms.items()},
        {name: arm_layer(place, "axes", name, inner) for name, inner in axes.items()},
        {name: as_table(place, "choose", name, inner) for name, inner in choose.items()},
        table.get("contrasts", {}),
        {name: arm_layer(place, "placebos", name, inner) for name, inner in table.get("placebos", {}).items()},
        table.get("timing"), typed,
    )  # fmt: skip


def _check_tiny_tables(place: str, table: Mapping[str, Any], tiny: Mapping[str, Any]) -> None:
    """Tables inside [tiny] that are laid over one of the whole study, which must have it."""
    for key in (key for key in ("placebos", "timing") if key in tiny):
        inner, whole = tiny[key], table.get(key, {})
        if not isinstance(inner, dict):
            raise UserError("config", f"{place} field tiny.{key}", "is a table", got=inner)
        for name in inner:
            if key not in table or (key == "placebos" and name not in whole):
                raise UserError("config", f"{place} field tiny.{key}.{name}", "is not in the whole study",
                                hint=nearest(name, whole))  # fmt: skip


def _typed_axes(typed: Typed, train: Mapping[str, Any]) -> Source:
    """A study of one arm, its axes and base typed."""
    layer = options.typed_layer(train)
    if "seed" in layer:
        raise UserError("usage", "--seed", "a study has several", hint="Give --seeds")
    axes: Layer = {}
    for text in typed.axis:
        name, equals, values = text.partition("=")
        key = name.strip().lstrip("-").replace("-", "_")
        if not equals or not key:
            raise UserError("usage", "--axis", "not an axis", got=text, expected="KEY=V1,V2")
        if key in axes:
            raise UserError("usage", f"--axis {key}", "given twice")
        axes[key] = _split(values, f"--axis {key}")
    method = layer.get("method")
    named = Train.model_fields["method"].get_default().name if method is None else str(method.value)
    [arm] = own_code.told_apart([named])
    written = json.dumps({k: str(g.value) for k, g in sorted(layer.items()) if options.is_hashed(k)})
    name = f"{arm}-by-{'-'.join(axes)}-{hashlib.sha256(written.encode()).hexdigest()[:6]}"
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-80:].lstrip("._-")
    return Source("--axis", name, Fields(), {"baseline": "--baseline"}, layer, None, {arm: {}}, {arm: axes}, {}, {}, {},
                  None, {})  # fmt: skip


def _fields(plain: Mapping[str, Any], place: str) -> tuple[Fields, dict[str, str]]:
    """The plain fields, each checked under its own name."""
    origins = {key: f"{place} field {key}" for key in Fields.model_fields}
    for key in plain:
        if key not in Fields.model_fields:
            raise UserError(
                "config", f"{place} field {key}", "unknown", hint=nearest(key, [*Fields.model_fields, *TABLES])
            )
    known = Fields.model_fields
    family = {"family": _family(origins["family"], plain["family"])} if "family" in plain else {}
    plain = {key: value for key, value in plain.items() if key != "family"}
    values = {k: parse(known[k], Given(v, origins[k], text=False)) for k, v in plain.items()}
    fields = Fields(**values, **family)
    follow.known(fields.follow, origins["follow"])
    if len(set(fields.seeds)) != len(fields.seeds):
        raise UserError("config", origins["seeds"], "repeated", got=list(fields.seeds), expected="different numbers")
    if fields.study and not NAME.fullmatch(fields.study):
        expected = "letters, digits, . _ and -"
        raise UserError("config", origins["study"], "not a name for a folder", got=fields.study, expected=expected)
    return fields, origins


def _family(origin: str, value: Any) -> Any:
    """The planned comparisons: the word for all against the baseline, or pairs of arms."""
    if value in (VERSUS_BASELINE, LIKE_FOR_LIKE):
        return value
    pairs = value if isinstance(value, list) else []
    whole = [tuple(pair) for pair in pairs if isinstance(pair, list) and [type(arm) for arm in pair] == [str, str]]
    if not whole or len(whole) < len(pairs) or len({frozenset(pair) for pair in whole}) < len(whole):
        expected = f"{VERSUS_BASELINE}, {LIKE_FOR_LIKE}, or a list of different pairs [A, B]"
        raise UserError("config", origin, "names no comparisons", got=value, expected=expected)
    return tuple(whole)


def with_axes(source: Source, typed: Typed) -> Source:
    """The study with the values that [tiny.axes] and `--set axes.KEY` give its axes."""
    tiny = source.tiny.get("axes", {}) if typed.tiny and source.tiny is not None else {}
    smaller = {name: arm_layer(source.place, "tiny.axes", name, inner) for name, inner in tiny.items()}
    sets: Layer = {}
    for where, equals, values in (text.partition("=") for text in typed.set):
        target, _, key = where.strip().rpartition(".")
        if target == "axes" and equals:
            key = key.replace("-", "_")
            if all(key not in axes for axes in source.axes.values()):
                known = {key for axes in source.axes.values() for key in axes}
                raise UserError("usage", "--set", "no arm has this axis", got=where.strip(), hint=nearest(key, known))
            sets[key] = _split(values, f"--set {where.strip()}")
    laid = {name: {**axes, **smaller.get(name, {}), **{key: given for key, given in sets.items() if key in axes}}
            for name, axes in source.axes.items()}  # fmt: skip
    return replace(source, axes=laid)


def _split(values: str, origin: str) -> Given:
    """The values of an axis that was typed, between commas, or semicolons where values have commas."""
    found = [value.strip() for value in values.split(";" if ";" in values else ",")]
    return Given([value for value in found if value], origin, text=True)


def timed(source: Source, tiny: bool, tables: Mapping[str, str]) -> Timing | None:
    """How a study of times takes them; None of another study. `tables`: arm -> name of its table."""
    if source.timing is None:
        return None
    own = source.tiny.get("timing", {}) if tiny and source.tiny is not None else {}
    table, known = {**source.timing, **own}, Timing.model_fields
    published = _published(source, table.pop("published", {}), tables)
    for key in table:
        if key not in known:
            raise UserError("config", f"{source.place} field timing.{key}", "unknown", hint=nearest(key, known))
    numbers = {k: parse(known[k], Given(v, f"{source.place} field timing.{k}", text=False))
               for k, v in table.items()}  # fmt: skip
    return Timing(**numbers, published=published)


def _published(source: Source, given: Any, tables: Mapping[str, str]) -> dict[str, float]:
    """The published ratio of each arm that has one; that of a table with axes is every arm's."""
    origin, found = f"{source.place} field timing.published", {}
    for name, ratio in as_table(source.place, "timing", "published", given).items():
        check_arm(origin, name, list(source.arms))
        number = parse(Fields.model_fields["sesoi"], Given(ratio, f"{origin}.{name}", text=False))
        found |= {arm: number for arm, table in tables.items() if table == name}
    return found


def arm_layer(place: str, what: str, name: str, inner: Any) -> Layer:
    return options.file_layer(as_table(place, what, name, inner), place, path=f"{what}.{name}.")


def as_table(place: str, what: str, name: str, inner: Any) -> dict[str, Any]:
    if not isinstance(inner, dict):
        raise UserError("config", f"{place} field {what}.{name}", "is a table", got=inner)
    if not ARM.fullmatch(name) or name != name.strip():
        raise UserError("config", f"{place} table {what}.{name}", "not a name for an arm")
    return inner


def check_arm(origin: str, name: str, names: list[str]) -> None:
    if name not in names:
        raise UserError("config", origin, "no such arm", got=name, hint=nearest(name, names))


def seeds(text: str) -> tuple[int, ...]:
    """The seeds of `--seeds`: `8` is 0 .. 7, a comma makes it a list."""
    parts = [part.strip() for part in text.split(",")]
    parts = parts[:-1] if len(parts) > 1 and not parts[-1] else parts
    if not all(re.fullmatch(r"[0-9]{1,18}", part) for part in parts):
        raise UserError("usage", "--seeds", "not seeds", got=text, expected=SEEDS)
    numbers = tuple(map(int, parts)) if "," in text else tuple(range(min(int(parts[0]), 10**6)))
    if not numbers or len(set(numbers)) != len(numbers):
        raise UserError("usage", "--seeds", "repeated" if numbers else "none", got=text, expected=SEEDS)
    return numbers


def environment(environ: Mapping[str, str]) -> Layer:
    """What MIXCLI_ variables say about the machine; a study's settings stand in the study."""
    layer = options.environment_layer(environ)
    for key, given in layer.items():
        if options.is_hashed(key):
            hint = f"Give --set base.{key}={given.value}, or unset it"
            raise UserError("usage", given.origin, "a study does not read it", hint=hint)
    return layer
