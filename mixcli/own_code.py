"""own_code.py: somebody's own classes and functions, by `path.py:Name` or out of an installed package, no fork needed.

What is loaded is named by a reference that holds a digest of its source: `my_mix.py:Stripes@3f2a91c04b7d`. Without the
digest it means the file as it is now; with it, as in every settings.toml, that content and no other. The path says
where the file lies and is no part of a run's identity; the digest is. It covers one file: what that file imports has
to be installed, as for any script, and is answered for by its version.

A file is read once, and what was read is what is digested, compiled and executed, as a module of its own in
`sys.modules`; so a class in it may name that module as its implementation, as a built-in names one of ours.
Nothing is executed unless a user names it, or goes on with a run that names it: see `options.from_flat`.
Packages offer theirs as entry points in the groups of `GROUPS`; they are imported only when one of them is named.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from mixcli.errors import UserError, nearest
from mixcli.settings import METHODS, Method, Mixing

GROUPS = {"methods": "mixcli.methods", "mixings": "mixcli.mixings", "nets": "mixcli.nets"}
IN_A_FILE = re.compile(r"(?P<path>.+\.py):(?P<name>[^:/\\]*)")
PINNED = re.compile(r"(?P<target>.+)@(?P<digest>[0-9a-f]{12})")


class Own(NamedTuple):
    """A class or function that is no part of mixcli.

    reference  what names exactly this content: `path.py:Name@digest`, or `name@digest` out of a package
    module     the name in `sys.modules` of the module it was loaded from
    """

    value: Any
    reference: str
    module: str

    @property
    def digest(self) -> str:
        """12 hex digits of SHA-256 over the source file, and over the package's version if it is out of one."""
        return self.reference.rpartition("@")[2]


# --------------------------------------------------------------------------------------------------------- references


def in_a_file(text: object) -> bool:
    """Whether `text` means something in a file: `path.py:Name`, with or without a digest, or an attempt at that."""
    return isinstance(text, str) and re.fullmatch(r".+\.py(:.*)?", _split(text)[0]) is not None


def anonymous(reference: str) -> str:
    """What of a reference belongs to a run's identity: name and digest, not where the file lies."""
    target, digest = _split(reference)
    found = IN_A_FILE.fullmatch(target)
    return reference if found is None or digest is None else f"{found['name']}@{digest}"


def undated(reference: str) -> str:
    """The name alone, whatever the content."""
    return anonymous(reference).rpartition("@")[0] or reference if PINNED.fullmatch(reference) else reference


def short(reference: str) -> str:
    """What a run's folder is named after: the file's stem, or the name that a package offers."""
    found = IN_A_FILE.fullmatch(_split(reference)[0])
    return undated(reference) if found is None else Path(found["path"]).stem


def told_apart(references: Sequence[str]) -> list[str]:
    """What a table calls each of several: its name, where two are alike the name of the file too, else all of it.

    A net goes by its file's name, for a function that builds one is called `build`. What is in no file stays as it is.
    """
    forms = [_forms(reference) for reference in references]
    alone = [[form for n, form in enumerate(own) if [other[n] for other in forms].count(form) == 1] for own in forms]
    return [[*found, reference][0] for found, reference in zip(alone, references, strict=True)]


def _forms(reference: str) -> tuple[str, str]:
    """Two short names for a reference, the shorter one first."""
    found = IN_A_FILE.fullmatch(_split(reference)[0])
    if found is None:
        return reference, reference
    name, file = found["name"], Path(found["path"])
    return (file.stem if name == "build" else name), f"{file.name}:{name}"


def same(one: object, other: object) -> bool:
    """Whether two references name the same place, whatever it holds or held."""
    return _place(one) == _place(other)


def absolute(reference: str) -> str:
    """The reference from any working directory."""
    found = IN_A_FILE.fullmatch(reference)
    return reference if found is None else f"{_path(found['path']).absolute()}:{found['name']}"


def _split(text: str) -> tuple[str, str | None]:
    pinned = PINNED.fullmatch(text)
    return (pinned["target"], pinned["digest"]) if pinned else (text, None)


def _place(reference: object) -> object:
    return os.path.normpath(_split(reference)[0]) if in_a_file(reference) and isinstance(reference, str) else reference


def _path(text: str) -> Path:
    return Path(text).expanduser()


# ------------------------------------------------------------------------------------------------------------ loading


def load(reference: str, option: str) -> Own:
    """What `path.py:Name` names. A relative path begins at the working directory.

    option  where the reference was given, as mistakes are told: `--net`, `study.toml field net`
    Raises UserError: config for a file that is not there or fails, with its line; or without that name; mismatch where
    the reference's digest is another than the file's.
    """
    target, digest = _split(reference)
    found = IN_A_FILE.fullmatch(target)
    if found is None or not found["name"].isidentifier():
        raise UserError("config", option, "not a name in a file", got=reference, expected="path.py:Name")
    text = os.path.normpath(found["path"])
    source = _read(text, digest, option)
    _refuse_other(option, text, digest, _digest(source))
    module = _module(_path(text).absolute(), source, text, option)
    public = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    if found["name"] not in vars(module):
        hint = nearest(found["name"], [n for n in public if not n.startswith("_")]) if public else "It defines nothing"
        raise UserError("config", option, f"no {found['name']} in {text}", hint=hint)
    return Own(vars(module)[found["name"]], f"{text}:{found['name']}@{_digest(source)}", module.__name__)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _read(text: str, digest: str | None, option: str) -> bytes:
    try:
        return _path(text).read_bytes()
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        problem = "no such file" if missing else f"cannot be read ({getattr(error, 'strerror', None) or error})"
        where = "" if os.path.isabs(text) else f"Relative paths begin at the working directory, {Path.cwd()}"
        wanted = None if digest is None else f"the file of digest {digest}, where it lay when the run was started"
        hint = where if digest is None else "Put it back, or type its option with the path where it lies now"
        raise UserError("config", option, problem, got=text, expected=wanted, hint=hint) from error


def _refuse_other(option: str, place: str, wanted: str | None, found: str) -> None:
    if wanted is not None and wanted != found:
        hint = "Put the old content back to go on, or name it without @digest, as another run"
        raise UserError("mismatch", option, f"{place} has changed", got=f"digest {found}", expected=f"digest {wanted}",
                        hint=hint)  # fmt: skip


def _module(path: Path, source: bytes, shown: str, option: str) -> ModuleType:
    """The module of one content of one file, executed once in a process; its prints go to stderr."""
    place = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]  # two files of one content are two modules
    name = f"mixcli_own_{re.sub(r'[^0-9a-zA-Z_]', '_', path.stem)}_{_digest(source)}_{place}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # before it is executed: pydantic looks there for the types that annotations name
    try:
        with _told(shown, str(path), option):
            exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _told(shown: str, file: str | None, option: str) -> Iterator[None]:
    """Foreign code inside: what it prints goes to stderr, and what it raises is told in one line with its place."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        reason = f"{type(error).__name__}: {text or 'no message'}".splitlines()[0]
        place = _place_of(error, file)
        where = (
            shown if place is None else f"{shown} line {place[1]}" if file else f"{shown}, {place[0]} line {place[1]},"
        )
        raise UserError("config", option, f"{where} fails: {reason}", hint="Type --debug for the trace") from error


def _place_of(error: BaseException, file: str | None) -> tuple[str, int] | None:
    """Name and line of the file where the error arose, or that called what raised it: `file`, or any but Python's."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno))
    ours = (str(Path(importlib.util.__file__).parent), __file__, "<")
    found = [(name, line) for name, line in frames if line and (name == file if file else not name.startswith(ours))]
    return (Path(found[-1][0]).name, found[-1][1]) if found else None


# ----------------------------------------------------------------------------------------------------------- packages


@cache
def offered(kind: str) -> dict[str, tuple[EntryPoint, ...]]:
    """What installed packages offer as methods, mixings or nets, by name; nothing is imported."""
    from importlib.metadata import entry_points

    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in sorted(entry_points(group=GROUPS[kind]), key=lambda p: (p.name, origin(p))):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


def origin(point: EntryPoint) -> str:
    """The package an entry point is out of, and its version."""
    return "a package" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def problems(kind: str, built_in: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with offers, as far as can be seen without importing them: name, problem."""
    for name, points in offered(kind).items():
        for point in points:
            module = point.module.partition(".")[0]
            if name in built_in:
                yield name, f"of {origin(point)} is not used: the built-in one has this name"
            elif importlib.util.find_spec(module) is None:
                yield name, f"of {origin(point)} cannot be imported: there is no module {module}"
        if len(points) > 1:
            yield name, f"is offered more than once: by {' and by '.join(map(origin, points))}"


def load_offered(kinds: tuple[str, ...], reference: str, option: str) -> Own | None:
    """What a package offers under this name, imported; None where none does.

    kinds  of `GROUPS`: ("nets",), or ("methods", "mixings")
    Raises UserError: config where it is offered twice, or where it cannot be imported; mismatch where it is another
    version than the reference's digest says.
    """
    name, digest = _split(reference)
    points = [point for kind in kinds for point in offered(kind).get(name, ())]
    if not points:
        return None
    if len(points) > 1:
        problem = f"{name} is offered more than once: by {' and by '.join(map(origin, points))}"
        raise UserError("config", option, problem, hint="Uninstall all but one")
    [point] = points
    shown = f"{name} of {origin(point)}"
    with _told(shown, None, option):
        value = point.load()
    found = _digest(origin(point).encode() + _source(value))
    _refuse_other(option, shown, digest, found)
    return Own(value, f"{name}@{found}", getattr(value, "__module__", point.module))


def net(reference: str, option: str) -> Own | None:
    """The function that builds somebody's own net; None for a name that nobody offers. Raises UserError as `load`."""
    own = load(reference, option) if in_a_file(reference) else load_offered(("nets",), reference, option)
    if own is not None and not callable(own.value):
        problem = f"{_split(own.reference)[0]} cannot be called"
        raise UserError("config", option, problem, got=type(own.value).__name__, expected="build(channels, classes)")
    return own


def called(own: Own, option: str, **given: Any) -> Any:
    """What somebody's own function returns. Raises UserError: config, with the line where it failed."""
    target = _split(own.reference)[0]
    with _told(target, getattr(sys.modules[own.module], "__file__", None), option):
        return own.value(**given)


def _source(value: Any) -> bytes:
    """The file that defines `value`; empty where there is none to read, and the version has to do."""
    try:
        return Path(inspect.getsourcefile(value) or "").read_bytes()
    except (TypeError, OSError):
        return b""


# ------------------------------------------------------------------------------------------------- methods and mixings

loaded: dict[str, type[Method]] = {}  # by reference, in this process, once their fields are seen to be options


def methods() -> tuple[type[Method], ...]:
    """Every method whose options are known: the built-in ones, and those loaded so far."""
    return (*METHODS.values(), *loaded.values())


def offers() -> dict[str, tuple[EntryPoint, ...]]:
    """Methods and mixings of packages, by name."""
    methods, mixings = offered("methods"), offered("mixings")
    return {name: (*methods.get(name, ()), *mixings.get(name, ())) for name in sorted({*methods, *mixings})}


def method(reference: str, option: str) -> type[Method] | None:
    """The settings class of somebody's own method or mixing; None for a name that nobody offers.

    It is made what a built-in is: where it has no `name` and `summary` they are the class's and its docstring's first
    line, and the module it lies in offers `draw` (of a Mixing) or `needs`, `plan` and `loss`.
    Raises UserError, besides what `load` raises: config for what is no such class, or whose module lacks them.
    """
    kinds = ("methods", "mixings")
    own = load(reference, option) if in_a_file(reference) else load_offered(kinds, reference, option)
    return None if own is None else _adopted(own, option)


def _adopted(own: Own, option: str) -> type[Method]:
    """The class, named and pointing at its module as a built-in one does. Raises UserError for any other value."""
    cls, place = own.value, _split(own.reference)[0]
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        got = "a class" if isinstance(cls, type) else type(cls).__name__
        expected = "a class derived from mixcli.settings.Mixing or Method"
        raise UserError("config", option, f"{place} is no method", got=got, expected=expected)
    if cls.__module__ != own.module or cls.__module__.startswith("mixcli."):
        raise UserError("config", option, f"{place} is imported there, not defined", hint="Derive a class from it")
    cls.name = vars(cls).get("name", cls.__name__)
    if cls.name in METHODS:
        raise UserError("config", option, f"{place} is named {cls.name}, as a built-in is", hint="Give it another name")
    cls.summary = vars(cls).get("summary") or (inspect.getdoc(cls) or cls.name).splitlines()[0]
    cls.reference = own.reference
    _implement(cls, sys.modules[own.module], place, option)
    return cls


def _implement(cls: type[Method], module: ModuleType, place: str, option: str) -> None:
    """Names the class's own module as what implements it, unless it names one, or inherits one and has none there."""
    part, offers = ("drawing", ("draw",)) if issubclass(cls, Mixing) else ("implementation", ("needs", "plan", "loss"))
    lacking = [f"{name}()" for name in offers if not callable(getattr(module, name, None))]
    if part in vars(cls) or (lacking and hasattr(cls, part)):
        return
    if lacking:
        beside = f"{'A mixing' if issubclass(cls, Mixing) else 'A method'} is its class, and {', '.join(offers)} beside"
        where = place.rpartition(":")[0] or module.__name__
        raise UserError("config", option, f"{where} lacks {', '.join(lacking)}", hint=beside)
    setattr(cls, part, module.__name__)


def candidate(cls: type[Method], option: str) -> type[Mixing]:
    """Somebody's own mixing as one that MiAMix can draw masks of. Raises UserError where it has no masks of its own."""
    if issubclass(cls, Recorded):
        return cls
    if not issubclass(cls, Mixing) or cls.moves:
        problem = f"{cls.name} {'moves its source' if issubclass(cls, Mixing) else 'is no mixing'}"
        raise UserError("config", option, f"{problem} and cannot be a candidate", expected="a mixing with masks()")
    if not callable(getattr(importlib.import_module(cls.drawing), "masks", None)):
        problem = f"{_split(cls.reference)[0]} cannot be a candidate: its file lacks masks()"
        raise UserError("config", option, problem, expected="masks(settings, share, size, random) -> Masks",
                        hint="As in examples/my_mix.py")  # fmt: skip
    return cls


class Recorded(Mixing, extra="allow"):
    """Somebody's own method as a run has it in its settings, its code not executed: for whoever reads runs only."""

    def label(self) -> str:
        return self.name  # its defaults are not known


@cache
def recorded(reference: str) -> type[Recorded]:
    """The class of such settings; a Mixing, so that it may stand wherever a method may."""
    name = anonymous(reference).partition("@")[0]
    return type(name, (Recorded,), {"name": name, "summary": name, "reference": reference, "__module__": __name__})


def file_of(cls: type) -> str:
    """The file that a class was loaded from; empty where there is none."""
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or ""


def taken(name: object) -> str:
    """The packages that offer a method under the name of a built-in one; empty where none does."""
    return ", ".join(map(origin, offers().get(str(name), ()))) if name in METHODS else ""
