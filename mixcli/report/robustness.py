"""robustness.py: the corruption benchmark as tables and a figure, from the summaries of its checkpoints.

Accuracies are printed in percent; a mean that cannot be stated is a dash, and its reason stands below. Equal summaries
give equal bytes.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mixcli.errors import printable
from mixcli.files import write_atomic
from mixcli.report.export import Section, in_markdown, table_in_markdown
from mixcli.report.rows import as_csv
from mixcli.report.tables import whole

Summary = Mapping[str, Any]
FAMILIES = ("noise", "blur", "weather", "digital")
SEVERITIES = ("1", "2", "3", "4", "5")
CALIBRATION = ("nll", "brier", "ece15", "ece_adaptive", "rms_adaptive", "conf_minus_acc")
COLOURS = ("#4477aa", "#cc6677", "#228833", "#aa8800", "#66aacc", "#aa3377", "#8c8c8c")
MARKS = "osD^vP*X"
INK, FAINT = "#1a1a1a", "#8c8c8c"
MCE = {"mce": "mce", "mce_low": "low", "mce_high": "high"}
NONE = "-"


def sections(summaries: Sequence[Summary]) -> Iterator[Section]:
    """The tables: a row per checkpoint, a row per corruption, calibration, and ratios where a baseline was named."""
    yield _overview(summaries)
    yield _by_severity(summaries[0]) if len(summaries) == 1 else _by_corruption(summaries)
    yield _calibration(summaries)
    if any(summary["baseline"] for summary in summaries):
        yield _ratios(summaries)


def remarks(summaries: Sequence[Summary]) -> Iterator[str]:
    """What must be said below the tables: why a mean is missing, what weather is the mean of, notes."""
    first = summaries[0]
    yield f"{first['dataset']}: {first['source']}; {first['images']:,} test images in each cell; accuracies in percent"
    titles = {"mean15": "mean acc (15)", "mean19": "mean acc (19)", first["headline"]: first["headline_told"]}
    for mean, title in titles.items():
        if mean in first["reasons"]:
            yield f"{title}: {first['reasons'][mean]}"
    short = [f"{name} of {f['of']}" for name, f in first["families"].items() if f["of"] != _usual(name) and f["mean"]]
    if short:
        yield f"families are means of fewer corruptions than usual: {', '.join(short)}"
    for summary in summaries:
        if summary["seen"]:
            without = _percent(summary["headline_without_seen"])
            seen = ", ".join(summary["seen"])
            yield f"{summary['checkpoint']}: seen in training: {seen}; {first['headline_told']} without them {without}"
    blocks = [summary["baseline"] for summary in summaries if summary["baseline"]]
    told = (f"{b['told']}: {b[key]}" for b in blocks for key in ("interval", "source") if b[key])
    yield from dict.fromkeys(told)
    yield from first["notes"]


def shown(document: Mapping[str, Any]) -> RenderableType:
    """What eval-corruptions prints: the first line, the tables, and what must be said of them."""
    summaries = _shortened(document["checkpoints"])
    overview, cells, calibration, *others = sections(summaries)
    if len(summaries) == 1:
        calibration = calibration.turned()
    ordered = (overview.turned(), cells, calibration, *others)
    parts = [part for section in ordered for part in (_table(section), Text())]
    return Group(whole(document["told"], "bold"), Text(), *parts,
                 *(Text(printable(line, limit=2000)) for line in remarks(summaries)),
                 *(whole(f"files: {folder}") for folder in document["folders"]))  # fmt: skip


def _shortened(summaries: Sequence[Summary]) -> list[Summary]:
    """Several checkpoints by what tells them apart, for a column of a terminal; the first line has their full names."""
    full = [summary["checkpoint"] for summary in summaries]
    short = [re.sub(r"-[0-9a-f]{12}$", "", name) for name in full]
    common = os.path.commonprefix(short).rpartition("-")[0]
    short = [name.removeprefix(f"{common}-") if common else name for name in short]
    if len(full) == 1 or len(set(short)) < len(full):
        return list(summaries)
    return [{**summary, "checkpoint": name} for summary, name in zip(summaries, short, strict=True)]


def _table(section: Section) -> Table:
    table = Table(box=box.HORIZONTALS, pad_edge=False, padding=(0, 1), border_style="dim")
    for place, heading in enumerate(section.headings):
        table.add_column(Text(printable(heading)), justify="right" if place else "left", overflow="fold")
    for row in section.rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _usual(family: str) -> int:
    return 3 if family == "noise" else 4


def _overview(summaries: Sequence[Summary]) -> Section:
    first, several = summaries[0], len(summaries) > 1
    own = _own_means(first)
    headings = ["checkpoint", "clean", *own.values(), "mean acc (15)", "mean acc (19)",
                *FAMILIES, *(f"s{s}" for s in SEVERITIES), *(["drop"] if several else [])]  # fmt: skip
    rows = []
    for summary in summaries:
        clean = None if summary["clean"] is None else summary["clean"]["top1"]
        headline = summary[first["headline"]]
        values = [clean, *(summary[mean] for mean in own), summary["mean15"], summary["mean19"],
                  *(summary["families"][family]["mean"] for family in FAMILIES),
                  *(summary["severities"][s] for s in SEVERITIES)]  # fmt: skip
        if several:
            values.append(None if clean is None or headline is None else clean - headline)
        rows.append((summary["checkpoint"], *map(_percent, values)))
    return Section(tuple(headings), tuple(rows))


def _own_means(summary: Summary) -> dict[str, str]:
    """The means beside those over 15 and 19 that these cells need, by what people call them."""
    shown = {summary["headline"]: summary["headline_told"]}
    if summary["headline"] != "mean_available" and summary["reasons"].keys() & {"mean19"}:
        shown["mean_available"] = summary["available_told"]
    return {mean: told for mean, told in shown.items() if mean not in ("mean15", "mean19")}


def _by_severity(summary: Summary) -> Section:
    rows = []
    for name, found in summary["corruptions"].items():
        values = (*(found["severities"].get(s) for s in SEVERITIES), found["mean"])
        rows.append((name, *map(_percent, values)))
    return Section(("corruption", *(f"s{s}" for s in SEVERITIES), "mean"), tuple(rows))


def _by_corruption(summaries: Sequence[Summary]) -> Section:
    rows = []
    for name in summaries[0]["corruptions"]:
        rows.append((name, *(_percent(summary["corruptions"][name]["mean"]) for summary in summaries)))
    return Section(("corruption, mean of 5", *(summary["checkpoint"] for summary in summaries)), tuple(rows))


def _calibration(summaries: Sequence[Summary]) -> Section:
    rows = []
    for summary in summaries:
        parts = {"clean": summary["clean"], "mean of cells": summary["calibration"]}
        for part, found in parts.items():
            if found is not None:
                name = part if len(summaries) == 1 else f"{summary['checkpoint']}, {part}"
                rows.append((name, *(_number(found[key]) for key in CALIBRATION)))
    return Section(("calibration", "nll", "brier (0..2)", *CALIBRATION[2:]), tuple(rows))


def _ratios(summaries: Sequence[Summary]) -> Section:
    blocks = {s["checkpoint"]: s["baseline"] for s in summaries if s["baseline"]}
    block = next(iter(blocks.values()))
    rows = [(block["told"], *map(_with_interval, blocks.values())),
            ("relative", *(_percent(b["relative_mce"]) for b in blocks.values()))]  # fmt: skip
    rows += [(name, *(_percent(b["ce"][name]) for b in blocks.values())) for name in block["ce"]]
    return Section((f"error as percent of {block['baseline']}'s", *blocks), tuple(rows))


def _with_interval(block: Mapping[str, Any]) -> str:
    ends = "" if block["low"] is None else f" [{_percent(block['low'])}, {_percent(block['high'])}]"
    return _percent(block["mce"]) + ends


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.2f}"


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.4f}"


# --------------------------------------------------------------------------------------------------------------- files


def files(summaries: Sequence[Summary]) -> dict[str, bytes]:
    """table.md, table.csv, figure.png and figure.pdf."""
    return {
        "table.md": ("\n".join(_markdown(summaries)) + "\n").encode(),
        "table.csv": as_csv([_wide(summary) for summary in summaries]),
        **figure(summaries),
    }


def write_joint(summaries: Sequence[Summary], folder: Path) -> None:
    """The same files of several checkpoints together, joint-table.md and so on. Raises UserError: disk_full, io.

    Beside them joint-clean.png and .pdf: effective robustness, accuracy under corruption against clean accuracy.
    """
    for name, content in (files(summaries) | against_clean(summaries)).items():
        write_atomic(folder / f"joint-{name}", content)


def _wide(summary: Summary) -> dict[str, Any]:
    clean = summary["clean"] or {}
    return {
        **{key: summary[key] for key in ("dataset", "source", "checkpoint", "method", "seed", "images")},
        "clean": clean.get("top1"),
        **{key: summary[key] for key in ("mean15", "mean19", "mean14", "mean_available", "headline")},
        **{family: summary["families"][family]["mean"] for family in FAMILIES},
        **{f"s{s}": summary["severities"][s] for s in SEVERITIES},
        **{f"clean_{key}": clean.get(key) for key in CALIBRATION},
        **{f"mean_{key}": summary["calibration"][key] for key in CALIBRATION},
        **{name: found["mean"] for name, found in summary["corruptions"].items()},
        "baseline": (summary["baseline"] or {}).get("baseline"),
        **{name: (summary["baseline"] or {}).get(key) for name, key in MCE.items()},
    }


def _markdown(summaries: Sequence[Summary]) -> Iterator[str]:
    yield f"### {summaries[0]['dataset']}"
    for section in sections(summaries):
        yield from table_in_markdown(section)
    yield ""
    yield from (f"- {in_markdown(line)}" for line in remarks(summaries))


# -------------------------------------------------------------------------------------------------------------- figure


def figure(summaries: Sequence[Summary]) -> dict[str, bytes]:
    """figure.png and figure.pdf.

    Left: accuracy against severity, a panel per family of the standard 15; right: a row per corruption.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.style import context

    with context("default"):
        drawn = Figure(figsize=(11, 6.2), layout="constrained", facecolor="white")
        FigureCanvasAgg(drawn)
        halves: Any = drawn.subfigures(1, 2, width_ratios=(1, 1.05))
        left, right = halves
        panels = left.subplots(2, 2, sharex=True, sharey=True)
        for axis, family in zip(panels.flat, FAMILIES, strict=True):
            _against_severity(axis, family, summaries)
        for axis in panels[:, 0]:
            axis.set_ylabel("top-1 accuracy, %", fontsize=8.5)
        for axis in panels[1]:
            axis.set_xlabel("severity (0: clean)", fontsize=8.5)
        _per_corruption(right.subplots(), summaries)
        first = summaries[0]
        drawn.suptitle(f"{first['dataset']}: {first['source']} · {first['images']:,} test images in each cell",
                       fontsize=9.5, x=0.01, ha="left", parse_math=False)  # fmt: skip
        return {"figure.png": _saved(drawn, "png"), "figure.pdf": _saved(drawn, "pdf")}


def against_clean(summaries: Sequence[Summary]) -> dict[str, bytes]:
    """clean.png and clean.pdf: a mark per checkpoint, one kind per method; empty where a mean cannot be stated.

    After R. Taori et al. 2020, arXiv 2007.00644: what a method gains beyond the clean accuracy of its nets lies above
    the others' trend. On a dashed line lie the points that lose equally much.
    """
    shown = [s for s in summaries if s["clean"] is not None and s[s["headline"]] is not None]
    if len(shown) < 2:
        return {}
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.style import context

    with context("default"):
        drawn = Figure(figsize=(6.2, 5.2), layout="constrained", facecolor="white")
        FigureCanvasAgg(drawn)
        axis = drawn.subplots()
        methods = list(dict.fromkeys(summary["method"] for summary in shown))
        for place, method in enumerate(methods):
            own = [s for s in shown if s["method"] == method]
            axis.plot([100 * s["clean"]["top1"] for s in own], [100 * s[s["headline"]] for s in own],
                      MARKS[place % len(MARKS)], color=COLOURS[place % len(COLOURS)], markersize=7,
                      markeredgecolor="white", label=printable(method, limit=60))  # fmt: skip
        drops = [100 * (s["clean"]["top1"] - s[s["headline"]]) for s in shown]
        middle = 50 * (min(s["clean"]["top1"] for s in shown) + max(s["clean"]["top1"] for s in shown))
        for drop in sorted({round(min(drops), 1), round(max(drops), 1)}):
            axis.axline((middle, middle - drop), slope=1, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0,
                        label=f"{drop:.1f} points lost")  # fmt: skip
        for text in axis.legend(fontsize=8, frameon=False).get_texts():
            text.set_parse_math(False)
        axis.margins(0.12)
        axis.autoscale_view()
        axis.set_xlabel("clean top-1 accuracy, %", fontsize=8.5)
        axis.set_ylabel(f"{shown[0]['headline_told']}, corrupted, %", fontsize=8.5)
        _plain(axis)
        drawn.suptitle(f"{shown[0]['dataset']}: {shown[0]['source']}", fontsize=9, x=0.01, ha="left", parse_math=False)
        return {"clean.png": _saved(drawn, "png"), "clean.pdf": _saved(drawn, "pdf")}


def _saved(drawn: Any, kind: str) -> bytes:
    picture = io.BytesIO()
    # Neither the program's version nor a date: equal summaries have equal bytes.
    drawn.savefig(
        picture, format=kind, dpi=160, metadata={"png": {"Software": None}, "pdf": {"CreationDate": None}}[kind]
    )
    return picture.getvalue()


def _against_severity(axis: Any, family: str, summaries: Sequence[Summary]) -> None:
    for place, summary in enumerate(summaries):
        points = [] if summary["clean"] is None else [(0, 100 * summary["clean"]["top1"])]
        members = [summary["corruptions"][name] for name in summary["families"][family]["standard"]]
        for s in SEVERITIES:
            found = [member["severities"][s] for member in members if s in member["severities"]]
            if found:
                points.append((int(s), 100 * sum(found) / len(found)))
        axis.plot(*zip(*points, strict=True) if points else ([], []), marker=MARKS[place % len(MARKS)], markersize=4,
                  linewidth=1.4, color=COLOURS[place % len(COLOURS)])  # fmt: skip
    axis.set_title(family, fontsize=9, loc="left", color=INK)
    axis.set_xticks(range(6))
    _plain(axis)


def _per_corruption(axis: Any, summaries: Sequence[Summary]) -> None:
    """Rows grouped by family; a mark per checkpoint at the mean over the severities evaluated."""
    first, rows = summaries[0], []
    for family in FAMILIES:
        rows += [name for name in first["corruptions"] if _family_of(name, first) == family] + [None]
    rows = rows[:-1]
    for place, summary in enumerate(summaries):
        at = [(_mean(summary["corruptions"][name]), y) for y, name in enumerate(rows) if name is not None]
        name = printable(summary["checkpoint"], limit=60)
        axis.plot(*zip(*at, strict=True), MARKS[place % len(MARKS)], color=COLOURS[place % len(COLOURS)], label=name,
                  markersize=6, markeredgecolor="white", markeredgewidth=0.6)  # fmt: skip
    axis.set_yticks([y for y, name in enumerate(rows) if name], [name for name in rows if name], fontsize=8.5)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlabel("top-1 accuracy, %, mean over severities", fontsize=8.5)
    legend = axis.legend(fontsize=7.5, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    for text in legend.get_texts():
        text.set_parse_math(False)
    _plain(axis)


def _mean(found: Mapping[str, Any]) -> float:
    values = list(found["severities"].values())
    return 100 * sum(values) / len(values)


def _family_of(name: str, summary: Summary) -> str:
    return summary["families_of"][name]


def _plain(axis: Any) -> None:
    for side in ("right", "top"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(FAINT)
    axis.tick_params(labelsize=8, color=FAINT)
    axis.grid(color="#e6e6e6", linewidth=0.8)
    axis.set_axisbelow(True)
