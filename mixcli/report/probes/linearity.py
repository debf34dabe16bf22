"""linearity.py: the linearity probe as tables and figures: deviation by site, along the ratio, from stage to stage.

Shown are two images, after the non-linearity, on whole maps, over random ratios; all else stands in the table's file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mixcli.report.export import Section
from mixcli.report.probes import figures
from mixcli.report.probes.figures import names, number

GROUPS = {"different": "different classes", "same": "one class"}
KINDS = ("dev_spread", "dev_norm")
DIR1 = "dir1"


def sections(table: Any, about: Mapping[str, Any]) -> Iterator[Section]:
    """Deviation by site: a table per group; by epoch or by the site of mixing where these vary."""
    if _epochs(table):
        yield _by_epoch(table)
    else:
        yield from (_by_site(table, group, kind) for group in GROUPS for kind in KINDS)
    if table["mix_at"].nunique() > 1:
        yield _triangle(table)


def drawn(table: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """The main figure, the curve over the ratio, and the tables of sites by epoch or by site as pictures."""
    found = {"": _against_site(table, about)}
    if table["l"].nunique() > 2:
        found["curve"] = _along_ratio(table, about)
    if table["mix_at"].nunique() > 1:
        found["stages"] = _stages(table, about)
    if _epochs(table):
        found["epochs"] = _site_by_epoch(table, about)
    return found


# ------------------------------------------------------------------------------------------------------------ selecting


def _rows(table: Any, **wanted: Any) -> Any:
    """The rows of the headline numbers, unless `wanted` says otherwise."""
    choice = {"K": 2, "group": "different", "tap": "post", "reduce": "full", "mix_at": "input", "l": DIR1, **wanted}
    for name, value in choice.items():
        if value is not None:
            table = table[table[name] == value]
    return table


def _order(table: Any) -> list[str]:
    """Sites in depth order."""
    return list(dict.fromkeys(table["site"]))


def _epochs(table: Any) -> bool:
    """Whether some run is there at several epochs."""
    own = table[table["role"] != "untrained"].drop_duplicates("checkpoint")
    return bool(own.duplicated(["method", "run_seed"]).any()) and own["epoch"].nunique() > 1


def _lines(table: Any) -> dict[str, Any]:
    """The rows of each trained checkpoint, by the name it is shown by."""
    shown = names(table[table["role"] != "untrained"])
    return {shown[label]: table[table["checkpoint"] == label] for label in shown}


# --------------------------------------------------------------------------------------------------------------- tables


def _by_site(table: Any, group: str, kind: str) -> Section:
    """A row per checkpoint, its interval below where it is the only one, and the mean of the fresh nets."""
    points = int(table["K"].min())
    picked = _rows(table, group=group, K=points)
    picked = picked[picked["site"] != "input"]  # 0 by definition
    sites, lines = _order(picked), _lines(picked)
    rows = []
    for name, line in lines.items():
        rows.append((name, *map(number, line[kind])))
        if len(lines) == 1:
            rows += [(f"  95 % {end}", *map(number, line[f"{kind}_{end}"])) for end in ("low", "high")]
    fresh = picked[picked["role"] == "untrained"].groupby("site", sort=False)[kind].mean()
    if len(fresh):
        rows.append(("untrained", *map(number, fresh)))
    more = "" if points == 2 else f", {points} images"
    return Section((f"{kind}, {GROUPS[group]}{more}", *sites), tuple(rows))


def _by_epoch(table: Any) -> Section:
    lines = _lines(_rows(table))
    sites = [site for site in _order(table) if site != "input"]
    rows = [(name, *(number(line.loc[line["site"] == site, "dev_spread"].iloc[0]) for site in sites))
            for name, line in lines.items()]  # fmt: skip
    return Section(("dev_spread, different classes", *sites), tuple(rows))


def _triangle(table: Any) -> Section:
    places, sites, values = _stage_values(table)
    rows = [(f"mixed at {place}", *("" if v is None else number(v) for v in line))
            for place, line in zip(places, values, strict=True)]  # fmt: skip
    return Section(("dev_spread read at", *sites), tuple(rows))


def _stage_values(table: Any) -> tuple[list[str], list[str], list[list[float | None]]]:
    """Of the main checkpoint: sites of mixing, sites of reading, and dev_spread, None before the mixing."""
    main = table[table["role"] == "main"]
    picked = _rows(main[main["checkpoint"] == main["checkpoint"].iloc[-1]], mix_at=None)
    places, sites = list(dict.fromkeys(picked["mix_at"])), [site for site in _order(picked) if site != "input"]
    known = {(m, s): v for m, s, v in zip(picked["mix_at"], picked["site"], picked["dev_spread"], strict=True)}
    return places, sites, [[known.get((m, s)) if m != s else None for s in sites] for m in places]


# -------------------------------------------------------------------------------------------------------------- figures


def _against_site(table: Any, about: Mapping[str, Any]) -> Any:
    """A panel per number of images and group; a line per checkpoint, its interval a band."""
    kept = [(points, group) for points in sorted(table["K"].unique()) for group in GROUPS]
    picked = {(p, g): _rows(table, K=p, group=g) for p, g in kept}
    picked = {key: rows[rows["site"] != "input"] for key, rows in picked.items() if len(rows)}
    sites = _order(next(iter(picked.values())))
    page, axes = figures.panels(len(picked), width=4.1, columns=2, sharey=True, sharex=True)
    for place, (axis, ((points, group), rows)) in enumerate(zip(axes, picked.items(), strict=True)):
        lines = _lines(rows)
        for k, (name, line) in enumerate(lines.items()):
            beside = 0.07 * (k - (len(lines) - 1) / 2)  # equal values must not hide each other
            figures.banded(axis, (x + beside for x in range(len(sites))), line, "dev_spread", k, name)
        _untrained(axis, rows, sites, "site")
        title = f"{points} images, {GROUPS[group]} ({rows['tuples'].iloc[0]} tuples)"
        figures.panel(axis, title, y="" if place % 2 else "deviation / spread")
        axis.set_xticks(range(len(sites)), sites, rotation=30, ha="right", rotation_mode="anchor")
    _from_zero(axes, picked.values())
    figures.titled(page, "Deviation from linearity by depth (0: linear)", _below(about, bands=True))
    figures.legend(page, axes[0])
    return page


def _from_zero(axes: Sequence[Any], rows: Iterable[Any]) -> None:
    """Room for every line; a band that reaches further is cut."""
    top = max(float(found["dev_spread"].max()) for found in rows)
    for axis in axes:
        axis.set_ylim(0, 1.07 * top or 1)


def _untrained(axis: Any, rows: Any, keys: Sequence[Any], column: str) -> None:
    """The fresh nets as thin grey lines, one of them named."""
    fresh = rows[rows["role"] == "untrained"]
    x = range(len(keys)) if column == "site" else [float(key) for key in keys]
    for k, (_, line) in enumerate(fresh.groupby("checkpoint", sort=False)):
        values = [line.loc[line[column] == key, "dev_spread"].iloc[0] for key in keys]
        label = None if k else "untrained (3 nets)"
        axis.plot(x, values, linewidth=1, color=figures.UNTRAINED, linestyle=(0, (4, 2)), label=label)


def _along_ratio(table: Any, about: Mapping[str, Any]) -> Any:
    """A panel per site; dev_spread of two images of different classes over the weight of one of them."""
    picked = _rows(table, l=None)
    picked = picked[(picked["l"] != DIR1) & (picked["site"] != "input")]
    sites, ratios = _order(picked), list(dict.fromkeys(picked["l"]))
    page, axes = figures.panels(len(sites), width=2.4, height=2.2, columns=4, sharey=True)
    for place, (axis, site) in enumerate(zip(axes, sites, strict=True)):
        rows = picked[picked["site"] == site]
        for k, (name, line) in enumerate(_lines(rows).items()):
            figures.banded(axis, line["l"].astype(float), line, "dev_spread", k, name)
        _untrained(axis, rows, ratios, "l")
        figures.panel(axis, site, x="weight of one image", y="" if place % 4 else "deviation / spread")
        axis.set(xlim=(0, 1), xticks=(0, 0.5, 1))
    _from_zero(axes, [picked])
    title = "Deviation from linearity along the ratio, two images of different classes"
    figures.titled(page, title, _below(about, bands=True))
    figures.legend(page, axes[0])
    return page


def _stages(table: Any, about: Mapping[str, Any]) -> Any:
    places, sites, values = _stage_values(table)
    page, [axis] = figures.panels(1, width=0.75 * len(sites) + 1.6, height=0.36 * len(places) + 0.8)
    top = max(value for line in values for value in line if value is not None)
    figures.numbers(axis, values, places, sites, "read at", "mixed at", top)
    figures.titled(page, "Deviation / spread from stage to stage, two images of different classes", _below(about))
    return page


def _site_by_epoch(table: Any, about: Mapping[str, Any]) -> Any:
    """A panel per run: sites by epoch."""
    picked = _rows(table[table["role"] != "untrained"])
    picked = picked[picked["site"] != "input"]
    runs, sites = list(picked.groupby(["role", "method", "run_seed"], sort=False)), _order(picked)
    width, height = 0.65 * picked["epoch"].nunique() + 2.4, 0.36 * len(sites) + 0.7
    page, axes = figures.panels(len(runs), width=width, height=height, columns=3)
    top = float(picked["dev_spread"].max())
    for axis, ((_, method, seed), rows) in zip(axes, runs, strict=True):
        epochs = list(dict.fromkeys(rows["epoch"]))
        at = {(s, e): v for s, e, v in zip(rows["site"], rows["epoch"], rows["dev_spread"], strict=True)}
        figures.numbers(axis, [[at.get((s, e)) for e in epochs] for s in sites], sites, epochs, "epoch", "", top)
        axis.set_title(f"{method}, seed {seed}", fontsize=9.5, loc="left", color=figures.INK)
    figures.titled(page, "Deviation / spread over training", _below(about))
    return page


def _below(about: Mapping[str, Any], bands: bool = False) -> str:
    told = f"{about['dataset']}, {about['split']} split, {about['images']:,} images"
    return f"{told}; bands: 95 % over tuples, of this file alone" if bands else told
