"""study.py: a probe of a study as tables and a figure: headline numbers by arm, differences, sentences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from mixcli.errors import printable
from mixcli.report import tables
from mixcli.report.export import Section
from mixcli.report.probes import figures
from mixcli.report.probes.figures import number
from mixcli.report.probes.findings import text

FEW = 15  # sentences that are printed; of more a line counts them, since the tables say as much
FEW_EPOCHS = 6  # that are ticks of their own
CLAIM = "above"  # the verdict of a sentence that claims a difference


def shown(found: Any) -> RenderableType:
    """Headline numbers by arm and differences, sentences where they are few, remarks."""
    counts = {len(runs) for runs in found.values.values()}
    each = f", {counts.pop()} runs of each arm" if len(counts) == 1 else ""
    head = f"{found.study}: {found.probe}, {found.told}{each}"
    parts = [part for section in sections(found) for part in (tables.section(section), Text())]
    return Group(text(head, "bold"), Text(), *parts, *map(text, sentences(found)), Text(), *map(text, found.remarks))


def sections(found: Any) -> Iterator[Section]:
    """Numbers without a site together, a column each; of others a table per kind, a column per site."""
    grouped = kinds(found)
    alone = {name: name for names in grouped.values() if len(names) == 1 for name in names}
    tables = {kind: {name: _site(name) for name in names} for kind, names in grouped.items() if len(names) > 1}
    for title, columns in {**({"": alone} if alone else {}), **tables}.items():
        yield _means(found, title, columns)
        if found.comparisons:
            yield _differences(found, columns)


def _means(found: Any, title: str, columns: Mapping[str, str]) -> Section:
    """A row per arm; with the SD where there is room for it."""
    unequal = len({len(runs) for runs in found.values.values()}) > 1
    rows = [
        (f"{arm} (n = {len(runs)})" if unequal else arm,
         *(_spread(found.runs(arm, name), not title) for name in columns))
        for arm, runs in found.values.items()
    ]  # fmt: skip
    return Section((f"{title}, mean" if title else "mean ± SD", *columns.values()), tuple(rows))


def _differences(found: Any, columns: Mapping[str, str]) -> Section:
    """Two rows per pair of arms: the difference, and p where a sentence may rest on it; intervals are in the file."""
    of = {(f"{c['a']} - {c['b']}", c["number"]): c for c in found.comparisons}
    rows = []
    for pair in dict.fromkeys(pair for pair, name in of if name in columns):
        known = [of.get((pair, name)) for name in columns]
        rows += [(pair, *map(_difference, known)),
                 ("  Holm p" if found.planned else "  p", *map(_evidence, known))]  # fmt: skip
    return Section(("difference, hundredths", *columns.values()), tuple(rows))


def sentences(found: Any) -> Iterator[str]:
    """All where they are few, else how many claim a difference."""
    rows, claims = found.comparisons, sum(row["verdict"] == CLAIM for row in found.comparisons)
    if len(rows) > FEW:
        yield f"{claims} of {len(rows)} comparisons claim a difference: probe-{found.probe}-comparisons.csv"
    else:
        yield from (f"{row['a']} - {row['b']}, {row['number']}: {row['sentence']}" for row in rows)


def kinds(found: Any) -> dict[str, list[str]]:
    """dev_spread -> its names, one per site; a number without sites is alone."""
    known: dict[str, list[str]] = {}
    for name in found.numbers:
        known.setdefault(name.partition(".")[0], []).append(name)
    return known


def _site(name: str) -> str:
    return name.partition(".")[2] or "pooled"


def _spread(values: Sequence[float], sd: bool) -> str:
    if not values:
        return "-"
    mean = number(statistics.fmean(values))
    return f"{mean} ± {number(statistics.stdev(values))}" if sd and len(values) > 1 else mean


def _difference(c: Mapping[str, Any] | None) -> str:
    return "-" if c is None or math.isnan(c["difference"]) else f"{c['difference']:+z.1f}"


def _evidence(c: Mapping[str, Any] | None) -> str:
    if c is None or c["verdict"] not in (CLAIM, "open", "exploratory"):
        return "-"
    p = c["p"] if c["p_holm"] is None else c["p_holm"]
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def course(found: Mapping[int, Any]) -> RenderableType:
    """Of every kind of number a table: a row per arm and kept epoch, a column per site."""
    last = found[max(found)]
    head = f"{last.study}: {last.probe} at kept epochs, {last.told}"
    parts = [
        part for kind, names in kinds(last).items() for part in (tables.section(_course(found, kind, names)), Text())
    ]
    more = f"means over runs; intervals and differences: probe-{last.probe}-epochs*.csv and the figure"
    return Group(text(head, "bold"), Text(), *parts, text(more))


def _course(found: Mapping[int, Any], kind: str, names: Sequence[str]) -> Section:
    rows = [(f"{arm}, {epoch}", *(_spread(one.runs(arm, name), False) for name in names))
            for arm in found[max(found)].values for epoch, one in found.items()]  # fmt: skip
    return Section((f"{kind}, epoch", *map(_site, names)), tuple(rows))


# --------------------------------------------------------------------------------------------------------------- figure


def drawn(found: Any) -> Any:
    """A panel per number: a dot per run, the mean of each arm and its 95 % t interval; sites side by side."""
    grouped, arms = kinds(found), list(found.values)
    sites = max(len(names) for names in grouped.values())
    if sites == 1:
        page, axes = figures.panels(len(grouped), width=3.4, height=0.36 * len(arms) + 1.0, columns=3, sharey=True)
    else:
        page, axes = figures.panels(len(grouped), width=0.24 * sites * len(arms) + 1.4, height=3.0, columns=1)
    for axis, (kind, names) in zip(axes, grouped.items(), strict=True):
        (_across if sites == 1 else _by_site)(axis, found, names, arms)
        figures.panel(axis, kind)
        axis.grid(axis="y" if sites == 1 else "x", visible=False)
    runs = sum(len(one) for one in found.values.values())
    below = f"{found.told}; {runs} runs, a dot each; mean of an arm and its 95 % t interval"
    figures.titled(page, f"{found.study}: {found.probe}", below)
    if sites > 1:
        figures.legend(page, axes[0], columns=len(arms))
    return page


def course_drawn(found: Mapping[int, Any]) -> Any:
    """A panel per number: the mean of each arm over the kept epochs, its 95 % t interval a band."""
    last, epochs = found[max(found)], list(found)
    page, axes = figures.panels(len(last.numbers), width=2.7, height=2.3, columns=4)
    for axis, name in zip(axes, last.numbers, strict=True):
        for k, arm in enumerate(last.values):
            mean, low, high = np.array([one.mean(arm, name) for one in found.values()]).T
            figures.banded(axis, epochs, {"m": mean, "m_low": low, "m_high": high}, "m", k, arm)
        kind, _, site = name.partition(".")
        figures.panel(axis, f"{kind}, {site}" if site else kind, x="epoch")
        if len(epochs) <= FEW_EPOCHS:
            axis.set_xticks(epochs)
    below = f"{last.told}; mean of an arm and its 95 % t interval"
    figures.titled(page, f"{last.study}: {last.probe} over training", below)
    figures.legend(page, axes[0], columns=7)
    return page


def _across(axis: Any, found: Any, names: Sequence[str], arms: Sequence[str]) -> None:
    """A row per arm."""
    for k, arm in enumerate(arms):
        values = found.runs(arm, names[0])
        mean, low, high = found.mean(arm, names[0])
        style = {"color": figures.COLOURS[k % len(figures.COLOURS)]}
        axis.plot(values, [k] * len(values), "o", markersize=4, alpha=0.35, markeredgewidth=0, **style)
        axis.plot([low, high], [k + 0.3] * 2, linewidth=1.6, **style)
        axis.plot([mean], [k + 0.3], figures.MARKS[k % len(figures.MARKS)], markersize=5, **style)
    axis.set_yticks(range(len(arms)), [printable(arm, limit=30) for arm in arms])
    axis.set_ylim(len(arms) - 0.4, -0.5)


def _by_site(axis: Any, found: Any, names: Sequence[str], arms: Sequence[str]) -> None:
    """The arms of a site side by side."""
    step = 0.8 / len(arms)
    for k, arm in enumerate(arms):
        style = {"color": figures.COLOURS[k % len(figures.COLOURS)]}
        for x, name in enumerate(names):
            at = x + step * (k - (len(arms) - 1) / 2)
            values = found.runs(arm, name)
            mean, low, high = found.mean(arm, name)
            axis.plot([at] * len(values), values, "o", markersize=3, alpha=0.3, markeredgewidth=0, **style)
            axis.plot([at + 0.25 * step] * 2, [low, high], linewidth=1.6, **style)
            axis.plot([at + 0.25 * step], [mean], figures.MARKS[k % len(figures.MARKS)], markersize=4,
                      label=None if x else printable(arm, limit=30), **style)  # fmt: skip
    axis.set_xticks(range(len(names)), [_site(name) for name in names])
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.set_ylim(bottom=0)
