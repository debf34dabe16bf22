"""certificate.py: the card of a checked method: a table for the terminal, one page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mixcli.errors import printable
from mixcli.report.tables import whole

MARKS = {"holds": ("pass", "green"), "broken": ("FAIL", "bold red"), "not applicable": ("n/a", "dim")}


def table(document: Mapping[str, Any]) -> RenderableType:
    """A line for each law with its evidence, those that are broken last, where they are seen."""
    grid = Table(box=None, pad_edge=False, show_header=False, title=Text(_title(document), style="bold"),
                 title_justify="left", padding=(0, 1))  # fmt: skip
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    for law in sorted(document["laws"], key=lambda law: law["verdict"] == "broken"):
        mark, style = MARKS[law["verdict"]]
        told = Text(printable(law["claim"], 300).rstrip("."))
        told.append(f" · {printable(law['evidence'], 300)}", style="dim" if law["verdict"] != "broken" else "red")
        grid.add_row(Text(mark, style=style), told)
    cost = [Text(_cost(document["cost"]), style="dim")] if document["cost"] else []
    return Group(grid, *cost, *(whole(f"file: {path}", "dim") for path in document.get("files", ())))


def markdown(document: Mapping[str, Any], picture: str | None) -> str:
    """The card; `picture` is the contact sheet's file beside it."""
    environment = document["environment"]
    lines = [
        f"# {_title(document)}", "", _cell(document["summary"]).rstrip(".") + ".", "",
        f"`mixcli check {_cell(document['reference'])}`: {_count(document)}. {_cost(document['cost'])}", "",
        "| | law | evidence | source |", "|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {MARKS[law['verdict']][0]} | {_cell(law['claim'])} | {_cell(law['evidence'])} | {_cell(law['row'])} |"
        for law in document["laws"]
    ]
    lines += ["", f"![Originals, partners, masks, mixed images]({picture})"] if picture else []
    versions = ", ".join(f"{key} {environment[key]}" for key in ("mixcli", "torch") if key in environment)
    lines += ["", f"Sources are sections of the methods' definitions and rows of their ledger of mistakes. {versions}."]
    return "\n".join(lines) + "\n"


def _title(document: Mapping[str, Any]) -> str:
    return f"{printable(document['method'], 200)}: {_count(document)}"


def _count(document: Mapping[str, Any]) -> str:
    broken = document["broken"]
    held = f"{document['holds']} laws hold"
    excused = f", {document['not applicable']} not applicable" if document["not applicable"] else ""
    return f"{held}, {broken} broken{excused}" if broken else f"{held}, none broken{excused}"


def _cost(cost: Mapping[str, Any] | None) -> str:
    if cost is None:
        return ""
    spread = f"{cost['lowest']:.2g} to {cost['highest']:.2g}"
    where = f"{cost['pixels']} px, batch {cost['batch']}, one thread"
    told = f"Drawn and applied at {where}: {cost['us']:.3g} us per image, {cost['times']:.2g} times MixUp's ({spread})"
    return told + (f"; its adapter calls the library {cost['calls']} times, so this is no cost of the library."
                   if cost["calls"] else ".")  # fmt: skip


def _cell(text: str) -> str:
    return printable(text, 300).replace("|", "\\|")
