"""study.py: a probe of a study as tables and a figure: headline numbers by arm, differences, sentences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from mixcli.errors import printable
from mixcli.report.export import Section
from mixcli.report.probes import figures
from mixcli.report.probes.figures import number
from mixcli.report.probes.findings import table, text

FEW = 12  # sentences that are printed whatever they say
CLAIM = "above"  # the verdict of a sentence that claims a difference


def shown(found: Any) -> RenderableType:
    """Headline numbers by arm and differences; of many sentences those that claim something; remarks."""
    head = f"{found.study}: {found.probe}, {found.told}"
    parts = [part for section in sections(found) for part in (table(section), Text())]
    return Group(text(head, "bold"), Text(), *parts, *map(text, sentences(found)), Text(), *map(text, found.remarks))


def sections(found: Any) -> Iterator[Section]:
    """Per kind of number: a row per arm, then a row per pair of arms; a column per site."""
    for kind, names in kinds(found).items():
        sites = [_site(name) for name in names]
        rows = [(f"{arm} (n = {len(runs)})", *(_spread(found.runs(arm, name)) for name in names))
                for arm, runs in found.values.items()]  # fmt: skip
        yield Section((f"{kind}, mean ± SD", *sites), tuple(rows))
        of = {(f"{c['a']} - {c['b']}", c["number"]): c for c in found.comparisons}
        pairs = list(dict.fromkeys(pair for pair, name in of if name in names))
        rows = [(pair, *(_difference(of.get((pair, name))) for name in names)) for pair in pairs]
        p = "Holm p" if found.planned else "p"
        yield Section((f"{kind}, difference in hundredths, {p}", *sites), tuple(rows))


def sentences(found: Any) -> Iterator[str]:
    """All where they are few, else those that claim a difference, the others counted."""
    rows = found.comparisons
    told = [row for row in rows if len(rows) <= FEW or row["verdict"] == CLAIM]
    yield from (f"{row['a']} - {row['b']}, {row['number']}: {row['sentence']}" for row in told)
    if len(told) < len(rows):
        silent = f"{len(rows) - len(told)} of {len(rows)} comparisons claim no difference"
        yield f"{silent}: probe-{found.probe}-comparisons.csv"


def kinds(found: Any) -> dict[str, list[str]]:
    """dev_spread -> its names, one per site; a number without sites is alone."""
    known: dict[str, list[str]] = {}
    for name in found.numbers:
        known.setdefault(name.partition(".")[0], []).append(name)
    return known


def _site(name: str) -> str:
    return name.partition(".")[2] or "pooled"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = statistics.fmean(values)
    return number(mean) if len(values) < 2 else f"{number(mean)} ± {number(statistics.stdev(values))}"


def _difference(c: Mapping[str, Any] | None) -> str:
    """The difference, and p where a sentence may rest on it; its interval stands in the file."""
    if c is None or math.isnan(c["difference"]):
        return "-"
    p = c["p"] if c["p_holm"] is None else c["p_holm"]
    told = c["verdict"] in (CLAIM, "open", "exploratory")
    return f"{c['difference']:+.1f}" + (f" ({'< 0.001' if p < 0.001 else f'{p:.3f}'})" if told else "")


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
