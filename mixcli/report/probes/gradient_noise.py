"""gradient_noise.py: the gradient-noise probe as tables and figures: shares, cosines by stage, the self-check of P."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mixcli.report.export import Section
from mixcli.report.probes import figures
from mixcli.report.probes.figures import names, number

TOTAL = "total"
CONTROLS = {"equal": "centroid", "single": "each image alone"}
SHARES = {"share_blends": "blends", "share_augment": "augmentation, ratio", "share_batch": "choice of batch"}


def sections(table: Any, about: Mapping[str, Any]) -> Iterator[Section]:
    """By stage: the shares of the whole noise, the noise of the blends, the cosine of the parts; the check of P."""
    shown, places = names(table), about["places"]
    lines = []
    for label, name in shown.items():
        rows = _by_place(table, label, "share")
        for key, told in SHARES.items():
            lines.append((f"{name}: {told}", *(_percent(rows, p, key) for p in places)))
            ends = ("low", "high") if key == "share_blends" and len(shown) == 1 else ()
            lines += [(f"  95 % {end}", *(_percent(rows, p, f"{key}_{end}") for p in places)) for end in ends]
    yield Section(("share of the gradient's noise", *places), tuple(lines))
    yield Section(("noise of the blends: trace / norm²", *places), _lines(table, shown, places, "noise", "noise"))
    if (table["row"] == "cosine").any():
        known = {"cosine": "intra with inter", "cosine_batches": "inter, two disjoint batches",
                 "norm_quotient": "weighted norms, intra / inter"}  # fmt: skip
        rows = [(f"{name}: {told}", *line[1:]) for label, name in shown.items() for key, told in known.items()
                for line in _lines(table, {label: name}, places, "cosine", key)]  # fmt: skip
        yield Section(("cosine of gradients", *places), tuple(rows))
    for told, column in (("mean blend", "cosine_blends"), ("inter part", "cosine")):
        rows = _controls(table, shown, places, column)
        if rows:
            yield Section((f"cosine with the {told}", *places), tuple(rows))
    check = table[table["row"] == "check"]
    if len(check):
        points = list(dict.fromkeys(check["points"].astype(int)))
        rows = [
            (shown[label], *map(number, rows["times_points"]))
            for label, rows in check.groupby("checkpoint", sort=False)
        ]
        yield Section(("self-check: P × trace, must be level", *(f"P = {p}" for p in points)), tuple(rows))


def _controls(table: Any, shown: Mapping[str, str], places: list[str], column: str) -> list[tuple[str, ...]]:
    """A row per checkpoint and control."""
    found = table[table["row"] == "control"]
    rows = []
    for (label, weights), own in found.groupby(["checkpoint", "weights"], sort=False) if len(found) else ():
        if own[column].notna().any():
            own = own.set_index("place")
            rows.append((f"{shown[label]}: {CONTROLS[weights]}", *(number(own.loc[p, column]) for p in places)))
    return rows


def _by_place(table: Any, label: str, row: str) -> Any:
    return table[(table["checkpoint"] == label) & (table["row"] == row)].set_index("place")


def _lines(
    table: Any, shown: Mapping[str, str], places: list[str], row: str, column: str
) -> tuple[tuple[str, ...], ...]:
    found = {name: _by_place(table, label, row) for label, name in shown.items()}
    return tuple((name, *(number(rows.loc[p, column]) if p in rows.index else "-" for p in places))
                 for name, rows in found.items() if len(rows))  # fmt: skip


def _percent(rows: Any, place: str, column: str) -> str:
    value = rows.loc[place, column] if place in rows.index else float("nan")
    return "-" if value != value else f"{100 * value:.1f} %" if abs(value) >= 0.001 else f"{100 * value:.3f} %"


# -------------------------------------------------------------------------------------------------------------- figures


def drawn(table: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """Left: shares, a bar per checkpoint. Middle: cosine by stage. Right: the trace over P."""
    cosines, check = (table["row"] == "cosine").any(), (table["row"] == "check").any()
    page, axes = figures.panels(1 + int(cosines) + int(check), width=4.1, height=3.0)
    shown, axes = names(table), iter(axes)
    first = next(axes)
    _shares(first, table, shown)
    if cosines:
        _cosines(next(axes), table, shown, about["places"])
    if check:
        _trace(next(axes), table, shown)
    below = f"{about['dataset']}, training images, {about['batches']} batches, {about['draws']} plans each"
    figures.titled(page, "Gradient noise: where it comes from, and where the parts of the loss point", below)
    return {"": page}


def _shares(axis: Any, table: Any, shown: Mapping[str, str]) -> None:
    """Stacked bars that add up to the whole noise of the net."""
    for y, label in enumerate(shown):
        row, left = _by_place(table, label, "share").loc[TOTAL], 0.0
        for k, (key, told) in enumerate(SHARES.items()):
            value = max(0.0, float(row[key]))
            axis.barh(y, value, left=left, height=0.5, color=figures.COLOURS[k], label=None if y else told)
            if value > 0.08:
                axis.text(
                    left + value / 2, y, f"{100 * value:.0f} %", ha="center", va="center", fontsize=8, color="white"
                )
            left += value
        blends = 100 * float(row["share_blends"])
        axis.text(0.005, y - 0.29, f"blends: {blends:.2g} %", fontsize=8, color=figures.COLOURS[0], va="bottom")
    figures.panel(axis, "shares of the whole gradient's noise", x="share of trace")
    axis.set_yticks(range(len(shown)), [figures.printable(n, limit=60).replace(", ", "\n") for n in shown.values()])
    axis.set(ylim=(len(shown) - 0.4, -0.6), xlim=(0, 1))
    axis.grid(axis="y", visible=False)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3, frameon=False, fontsize=8)


def _cosines(axis: Any, table: Any, shown: Mapping[str, str], places: list[str]) -> None:
    for k, (label, name) in enumerate(shown.items()):
        rows = _by_place(table, label, "cosine")
        if not len(rows):
            continue
        rows = rows.loc[[p for p in places if p in rows.index]]
        figures.banded(axis, range(len(rows)), rows, "cosine", k, name)
        axis.plot(range(len(rows)), rows["cosine_batches"], color=figures.COLOURS[k], linewidth=1.1,
                  linestyle=(0, (4, 2)), label="inter part, two batches" if k == 0 else None)  # fmt: skip
    axis.axhline(0, color=figures.FAINT, linewidth=1)
    figures.panel(axis, "cosine of the intra and the inter gradient")
    axis.set_xticks(range(len(places)), places, rotation=35, ha="right", rotation_mode="anchor")
    axis.set_ylim(min(-0.1, axis.get_ylim()[0]), 1.02)
    for text in axis.legend(frameon=False, fontsize=8).get_texts():
        text.set_parse_math(False)


def _trace(axis: Any, table: Any, shown: Mapping[str, str]) -> None:
    """The trace over P on double logarithmic axes, 1 / P as a line."""
    check = table[table["row"] == "check"]
    for k, (label, name) in enumerate(shown.items()):
        rows = check[check["checkpoint"] == label]
        if not len(rows) or not (rows["trace_cov"] > 0).all():
            continue
        first = rows.iloc[0]
        axis.plot(rows["points"], first["trace_cov"] * first["points"] / rows["points"], color=figures.FAINT,
                  linewidth=1, linestyle=(0, (4, 2)), label="1 / P" if k == 0 else None)  # fmt: skip
        axis.plot(rows["points"], rows["trace_cov"], figures.MARKS[k % len(figures.MARKS)], markersize=6,
                  color=figures.COLOURS[k % len(figures.COLOURS)], label=figures.printable(name, limit=50))  # fmt: skip
    axis.set(xscale="log", yscale="log")
    points = sorted({int(p) for p in check["points"]})
    traces = check.loc[check["trace_cov"] > 0, "trace_cov"]
    if len(traces):
        ends = [float(traces.max()), float(traces.min())]
        axis.set_yticks(ends, [f"{value:.2g}" for value in ends])
    axis.set_xticks(points, [str(p) for p in points])
    axis.minorticks_off()
    figures.panel(axis, "self-check: trace of the blends", x="blends per class, P")
    for text in axis.legend(frameon=False, fontsize=8).get_texts():
        text.set_parse_math(False)
