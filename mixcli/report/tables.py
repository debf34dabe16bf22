"""tables.py: the tables on stdout: the end of a training run, its plan, the lists.

Every score stands beside its data set, split, number of images and checkpoint. Foreign text is printed as text, never
as markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mixcli.errors import printable
from mixcli.report import export

NARROWEST = 72  # columns that a table takes where its title is long: beyond, the title is folded
LONG = 2000  # characters of a cell; paths must not be cut
WHOLE = 12  # characters of a word in an arm's name that are not broken
OWN_ROWS = {"loss", "accuracy"}  # of the training part, shown apart from the parts of the loss


def show(table: RenderableType) -> None:
    """Prints on stdout, coloured only where that is a terminal. What is wider than that is not cut."""
    _Console(highlight=False).print(table, crop=False)


def whole(line: str, style: str = "") -> Text:
    """One line however long, for what holds a path: the terminal wraps it, and what is copied is whole."""
    return Text(printable(line, limit=LONG), style=style, no_wrap=True, overflow="ignore")


class _Console(Console):
    """Leaves a closed stdout to the caller; rich would end the process."""

    def on_broken_pipe(self) -> None:
        raise


def training(result: Mapping[str, Any]) -> RenderableType:
    """The end of a training run, from its result."""
    get = result.get
    table = _facts(f"{get('method')} on {get('dataset')}")
    beside = f" with labels, {_count(get('unlabelled_images'))} without" if "unlabelled" in result else ""
    which = f" ({get('unlabelled')})" if beside else ""
    _row(table, "data", f"{get('dataset')}, {_count(get('train_images'))} training images{beside}{which}")
    _row(table, "net", f"{get('net')}, {_count(get('parameters'))} parameters, {get('precision')}")
    steps = f" ({_count(get('steps'))} steps)" if get("steps") else ""
    _row(table, "training", f"{_times(get('epochs'), 'epoch')}{steps}, seed {get('seed')}, {_seconds(get('seconds'))}")
    table.add_section()
    images = f"{get('split', 'test')} split, {_count(get('test_images'))} images"
    averaged = ", averaged weights (EMA)" if get("weights") == "EMA" else ""
    _row(table, "accuracy", _percent(get("accuracy")), f"last epoch, {images}{averaged}", "bold green")
    last = get("evaluations", 10)
    _row(table, "", _percent(get("accuracy_median_last10")), f"median of the last {_times(last, 'evaluation')}")
    if (get("test_class_ratio") or 1) > export.UNEVEN:
        _row(table, "", _percent(get("balanced_accuracy")), "balanced: mean of the classes' own accuracies, last epoch")
    _row(table, "nll", _number(get("nll")), "nats per image, last epoch")
    if "val" in result:
        val = result["val"]
        held_out = f"last epoch, validation split, {_count(val.get('images'))} images"
        _row(table, "val accuracy", _percent(val.get("accuracy")), held_out)
    table.add_section()
    train = get("train") or {}
    _row(table, "training loss", _number(train.get("loss")), "mean of the last epoch")
    parts = [f"{name.replace('_', ' ')} {_short(v)}" for name, v in train.items() if name not in OWN_ROWS and v != 0]
    if parts:
        _row(table, "", " · ".join(parts))
    return Group(table, whole(f"checkpoint: {get('checkpoint')}"))


def plan(document: Mapping[str, Any], toml: str) -> RenderableType:
    """What `--dry-run` would start."""
    table = _facts("plan, nothing was started")
    for key in ("state", "dataset", "images", "unlabelled_images", "test_images", "classes",
                "batch", "unlabelled_batch", "steps_per_epoch", "epochs", "steps"):  # fmt: skip
        if document.get(key) is not None:
            value = document[key]
            _row(table, key.replace("_", " "), _count(value) if isinstance(value, int) else str(value))
    if document.get("minutes") is not None:
        each, measured = 1000 * document["seconds_per_step"], document["measured_steps"]
        told = f"{each:.3g} ms a step, mean of {measured} on this machine; evaluations come on top"
        _row(table, "time here", _seconds(60 * document["minutes"]), told)
    paths = [whole(f"{key.replace('_', ' ')}: {document[key]}") for key in ("run", "resume_from") if document.get(key)]
    return Group(table, *paths, Text(), Text(printable_block(toml), no_wrap=True, overflow="ignore"))


def listing(title: str, rows: Mapping[str, str], here: Mapping[str, Any] | None = None) -> RenderableType:
    """Names, each with what it is, and with the time that a run of it takes here, where that was measured."""
    table = Table(title=Text(title, style="bold"), title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True, min_width=18)
    if here is not None:
        table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for name, summary in rows.items():
        taken = [] if here is None else [_text(_taken(here["methods"].get(name)))]
        table.add_row(_text(name), *taken, _text(summary))
    if here is None:
        return Group(table, Text())
    told = f"of a run by its recipe on {here['dataset']} with {here['net']}, on this machine's {here['device']}"
    return Group(table, _text(f"times: {told}; by steps measured, evaluations aside", "dim"), Text())


def _taken(pace: Mapping[str, Any] | None) -> str:
    return "–" if pace is None else _seconds(60 * pace["minutes"])


STATES = {"fine": ("ok", "green"), "note": ("-", "dim"), "warning": ("!", "yellow"), "broken": ("BROKEN", "bold red")}


def findings(document: Mapping[str, Any]) -> RenderableType:
    """A line for each finding, part by part: its mark, what was seen, what to do."""
    grid = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for column in ("part", "name", "state"):
        grid.add_column(column, no_wrap=True, style="cyan" if column == "name" else "")
    grid.add_column("told", overflow="fold")
    before = None
    for found in _gathered(document["findings"]):
        mark, style = STATES[found["state"]]
        told = _text(found["told"])
        told.append(f". {printable(found['advice'], 300)}" if found["advice"] else "", style="dim")
        grid.add_row(_text("" if found["part"] == before else found["part"], "bold"), _text(found["name"]),
                     _text(mark, style), told)  # fmt: skip
        before = found["part"]
    return Group(grid, Text("nothing is broken" if document["healthy"] else "", style="green"))


def _gathered(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One line for all data sets that are not here; with --json each has its own."""
    absent = [one for one in found if one["part"] == "data" and one["state"] == "note"]
    if len(absent) < 2:
        return list(found)
    names = ", ".join(one["name"] for one in absent)
    line = {**absent[0], "name": "others", "told": f"not found: {names}",
            "advice": "mixcli data fetch NAME, or name their folder with --data-dir"}  # fmt: skip
    place = found.index(absent[-1])
    return [line if at == place else one for at, one in enumerate(found) if at == place or one not in absent]


def measured(title: str, document: Mapping[str, Any]) -> RenderableType:
    """Any document of measurements, one row per number; inner names follow outer ones, and the file is named below."""
    table = _facts(title)
    for name, value in _leaves({key: value for key, value in document.items() if key != "file"}):
        _row(table, name, _number(value) if isinstance(value, float | None) else str(value))
    return Group(table, whole(f"file: {document['file']}")) if "file" in document else table


def rows(title: str, document: Mapping[str, Any], columns: Mapping[str, str]) -> RenderableType:
    """A document's `rows`, one line each; `columns` key -> heading; a column that no row fills is left out."""
    found = document["rows"]
    shown = {key: heading for key, heading in columns.items() if any(row[key] is not None for row in found)}
    table = Table(title=_text(title, "bold"), title_justify="left", box=box.HORIZONTALS, pad_edge=False,
                  border_style="dim", collapse_padding=True)  # fmt: skip
    for key, heading in shown.items():
        table.add_column(_text(heading), justify="left" if isinstance(found[0][key], str) else "right", no_wrap=True)
    for row in found:
        table.add_row(*(_cell(row[key]) for key in shown))
    return Group(table, _text(f"{document['unit']}; {document['environment']['device']}", "dim"))


def files(title: str, found: Sequence[Mapping[str, str]]) -> RenderableType:
    """Files of a data set: each with its state, and what there is to say of it."""
    table = Table(title=_text(title, "bold"), title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column(overflow="fold")
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    for row in found:
        table.add_row(*(_text(row[key]) for key in ("file", "state", "told")))
    return table


def section(section: export.Section) -> Table:
    """A table of names and numbers; headings are wrapped, numbers are not, and no word of a name is cut."""
    table = Table(box=box.HORIZONTALS, pad_edge=False, padding=(0, 1), border_style="dim")
    name, *numbers = section.headings
    longest = max((len(word) for row in section.rows for word in row[0].split()), default=0)
    table.add_column(_text(name), style="cyan", overflow="fold", min_width=min(longest, WHOLE))
    for place, heading in enumerate(numbers, 1):
        widest = max((len(row[place]) for row in section.rows), default=0)
        table.add_column(_text(heading), justify="right", min_width=widest)
    for row in section.rows:
        table.add_row(*map(_text, row))
    return table


def comparison(report: Any) -> RenderableType:
    """Arms and their comparisons, the sentences these allow, and how the numbers came about."""
    parts: list[RenderableType] = [_text(report.plan.title, "bold")]
    parts += [_text(f"{name}: {told}", "dim") for name, told in report.facts]
    parts += [section(one) for one in export.sections(report)]
    for name, sentence, notes in export.sentences(report):
        parts.append(Padding(_text(f"{name}: ", "cyan").append(_text(sentence, "default")), (1, 0, 0, 0)))
        parts += [Padding(_text(note, "dim"), (0, 0, 0, 2)) for note in notes]
    remarks = [_text(line) for line in export.remarks(report)]
    return Group(*parts, *([Text()] if remarks else []), *remarks)


def _cell(value: Any) -> Text:
    if isinstance(value, float):
        return _text(f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 4}f}")
    return _text("–" if value is None else str(value))


def printable_block(text: str) -> str:
    """Several lines, each safe for a terminal."""
    return "\n".join(printable(line, limit=LONG) for line in text.splitlines())


def _facts(title: str) -> Table:
    heading = _text(title, "bold")
    table = Table(title=heading, title_justify="left", box=box.HORIZONTALS, show_header=False, pad_edge=False,
                  border_style="dim", min_width=min(heading.cell_len, NARROWEST))  # fmt: skip
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _row(table: Table, name: str, value: str, note: str = "", style: str = "") -> None:
    cell = _text(value, style)
    if note:
        cell.append("  " + printable(note, limit=LONG), style="not bold dim")
    table.add_row(_text(name), cell)


def _text(value: str, style: str = "") -> Text:
    return Text(printable(value, limit=LONG), style=style)


def _leaves(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        inner = ((f"{name} {key}".strip().replace("_", " "), v) for key, v in value.items())
        return [leaf for full, v in inner for leaf in _leaves(v, full)]
    if isinstance(value, list | tuple):
        return [(name, ", ".join(_number(v) if isinstance(v, float) else str(v) for v in value))]
    return [(name, value)]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}".replace("%", " %")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.3g}"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:_}".replace("_", " ")


def _times(value: Any, noun: str) -> str:
    return f"{value} {noun}{'' if value == 1 else 's'}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    minutes, seconds = divmod(value, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds:.0f} s" if minutes else f"{seconds:.1f} s"
