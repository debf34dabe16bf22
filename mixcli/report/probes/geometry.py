"""geometry.py: the geometry probe as tables and figures: headline numbers, by depth, by class, net against net."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mixcli.report.export import Section
from mixcli.report.probes import figures
from mixcli.report.probes.figures import names, number

HEADINGS = {"cohesion_pair": "cohesion (pairs)", "separability_centred": "separability (centred)", "nc1": "NC1",
            "knn": "kNN accuracy", "linear": "linear probe"}  # fmt: skip
ABOUT = ("checkpoint", "role", "method", "run_seed", "digest", "weights", "epoch", "selected", "dataset", "split",
         "images", "row", "site", "classes", "linear_converged")  # fmt: skip
NAMED = 12  # classes at most, whose names fit a figure
ROOM = (60, 12)  # pixels that a name takes across and down


def sections(table: Any, about: Mapping[str, Any]) -> Iterator[Section]:
    """The headline numbers, by site where several were asked for; all others of one site; likeness, debiased first."""
    found = table[table["row"] == "numbers"]
    own = found[found["split"] == about["split"]]
    site = _one_site(about)
    if len(about["sites"]) > 1:
        yield from (_by_site(own, column, about["sites"]) for column in _filled(own))
    else:
        lines = [(name, *(_cell(row, c) for c in _filled(own))) for name, row in _each(own)]
        yield Section((f"{site}, {about['split']}", *(HEADINGS[c] for c in _filled(own))), tuple(lines))
    if "fisher" in found:
        yield _whole(found[found["site"] == site], site)
    yield from _likeness(table)


def _one_site(about: Mapping[str, Any]) -> str:
    return "pooled" if "pooled" in about["sites"] else about["sites"][-1]


def _filled(rows: Any) -> list[str]:
    return [name for name in HEADINGS if name in rows and rows[name].notna().any()]


def _by_site(rows: Any, column: str, sites: Sequence[str]) -> Section:
    """A row per checkpoint, a column per site."""
    by_site = [dict(_each(rows[rows["site"] == site])) for site in sites]
    lines = [(name, *(_cell(found[name], column) for found in by_site)) for name in by_site[0]]
    return Section((HEADINGS[column], *sites), tuple(lines))


def _each(rows: Any) -> Iterator[tuple[str, Any]]:
    """Every checkpoint's row by its name; the fresh nets as one, their mean."""
    trained, fresh = rows[rows["role"] != "untrained"], rows[rows["role"] == "untrained"]
    shown = names(trained)
    yield from ((shown[row["checkpoint"]], row) for _, row in trained.iterrows())
    if len(fresh):
        yield f"untrained ({len(fresh)} nets)", fresh.mean(numeric_only=True)


def _cell(row: Any, column: str) -> str:
    value = row.get(column)
    return number(value) + ("*" if column == "linear" and row.get("linear_converged") is False else "")


def _whole(rows: Any, site: str) -> Section:
    """A column per checkpoint and split, a row per number."""
    columns = {}
    for split, part in rows.groupby("split", sort=False):
        columns |= {f"{name}, {split}": row for name, row in _each(part)}
    left = [c for c in rows.columns if c not in (*ABOUT, *HEADINGS) and rows[c].notna().any()]
    lines = [(name.replace("_", " "), *(number(row.get(name)) for row in columns.values())) for name in left]
    return Section((f"all numbers, {site}", *columns), tuple(lines))


def _likeness(table: Any) -> Iterator[Section]:
    found = table[table["row"] == "cka"]
    for label, rows in found.groupby("checkpoint", sort=False):
        sites = list(dict.fromkeys(rows["site"]))
        same = rows[rows["site"] == rows["other_site"]].set_index("site")
        lines = [(kind, *(number(same.loc[site, f"cka_{kind}"]) for site in sites)) for kind in ("debiased", "biased")]
        name = names(table[table["checkpoint"] == label])[label]
        yield Section((f"CKA with {name}", *sites), tuple(lines))


# -------------------------------------------------------------------------------------------------------------- figures


def drawn(table: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """Together against apart; class by class; the same by depth where several sites were asked for; likeness."""
    found = {"": _planes(table, about)}
    if len(about["sites"]) > 1:
        found["depth"] = _by_depth(table, about)
    alike = table[table["row"] == "cka"]
    if len(alike) and (table["role"] == "main").any():  # or the net that all are compared with is not shown here
        found["likeness"] = _alike(table, alike, about)
    return found


def _planes(table: Any, about: Mapping[str, Any]) -> Any:
    """Left, nets: cohesion over separability. Right, the classes of each: the same, against the nearest other class."""
    page, (left, right) = figures.panels(2, width=4.4, height=3.6)
    site = _one_site(about)
    rows = table[(table["row"] == "numbers") & (table["site"] == site) & (table["split"] == about["split"])]
    trained, fresh = rows[rows["role"] != "untrained"], rows[rows["role"] == "untrained"]
    shown = names(trained)
    left.plot(fresh["separability_centred"], fresh["cohesion_pair"], "x", color=figures.UNTRAINED, markersize=6,
              linestyle="none", label=f"untrained ({len(fresh)} nets)" if len(fresh) else None)  # fmt: skip
    for place, (_, row) in enumerate(trained.iterrows()):
        left.plot(row["separability_centred"], row["cohesion_pair"], figures.MARKS[place % len(figures.MARKS)],
                  color=figures.COLOURS[place % len(figures.COLOURS)], markersize=9, linestyle="none",
                  label=figures.printable(shown[row["checkpoint"]], limit=60))  # fmt: skip
    figures.panel(left, f"nets, {site}", x="separability (centred) →", y="cohesion of pairs →")
    left.margins(0.18)
    classes = table[(table["row"] == "class") & (table["site"] == site)]
    for place, label in enumerate(shown):
        _classes(right, classes[classes["checkpoint"] == label], place)
    figures.panel(right, "their classes", x="distance to the nearest class →", y="cohesion of pairs →")
    right.margins(0.12)
    _class_names(right, classes[classes["checkpoint"] == next(iter(shown))])
    below = f"{about['dataset']}, {about['split']} split, {about['images']:,} images; upper right: tight and apart"
    figures.titled(page, "Are classes tight, and are they apart?", below)
    figures.legend(page, left)
    return page


def _classes(axis: Any, rows: Any, place: int) -> None:
    """A dot per class."""
    few = len(rows) <= NAMED
    axis.plot(rows["class_apart"], rows["class_cohesion"], figures.MARKS[place % len(figures.MARKS)], linestyle="none",
              color=figures.COLOURS[place % len(figures.COLOURS)], markersize=5.5 if few else 3.8,
              alpha=0.9 if few else 0.7)  # fmt: skip


def _class_names(axis: Any, rows: Any) -> None:
    """The names of all classes where they fit, else of the loosest and of those nearest to another.

    Of two names that would lie on each other the second is left out.
    """
    few = len(rows) <= NAMED
    told = rows if few else rows[_extreme(rows["class_cohesion"]) | _extreme(rows["class_apart"])]
    axis.autoscale_view()  # the scale is settled only when it is asked for
    written: list[Any] = []
    for _, row in told.iterrows():
        at = axis.transData.transform((row["class_apart"], row["class_cohesion"]))
        if any(abs(at[0] - x) < ROOM[0] and abs(at[1] - y) < ROOM[1] for x, y in written):
            continue
        written.append(at)
        axis.annotate(
            figures.printable(str(row["class"]), limit=18),
            (row["class_apart"], row["class_cohesion"]),
            xytext=(5, 3),
            textcoords="offset points",
            fontsize=7.5,
            color=figures.GREY,
            parse_math=False,
        )


def _extreme(values: Any) -> Any:
    return values.rank(method="first") <= 3


def _by_depth(table: Any, about: Mapping[str, Any]) -> Any:
    page, axes = figures.panels(3, width=3.5, height=2.7)
    rows = table[(table["row"] == "numbers") & (table["split"] == about["split"])]
    sites = about["sites"]
    trained, fresh = rows[rows["role"] != "untrained"], rows[rows["role"] == "untrained"]
    shown = names(trained)
    for axis, column in zip(axes, ("cohesion_pair", "separability_centred", "knn"), strict=True):
        for k, (_, line) in enumerate(fresh.groupby("checkpoint", sort=False)):
            if line[column].notna().any():
                axis.plot(range(len(sites)), line[column], linewidth=1, color=figures.UNTRAINED, linestyle=(0, (4, 2)),
                          label=None if k else "untrained (3 nets)")  # fmt: skip
        for k, (label, name) in enumerate(shown.items()):
            axis.plot(range(len(sites)), trained[trained["checkpoint"] == label][column], linewidth=1.6,
                      color=figures.COLOURS[k % len(figures.COLOURS)], marker=figures.MARKS[k % len(figures.MARKS)],
                      markersize=5, label=figures.printable(name, limit=60))  # fmt: skip
        figures.panel(axis, HEADINGS[column])
        axis.set_xticks(range(len(sites)), sites, rotation=35, ha="right", rotation_mode="anchor")
    below = f"{about['dataset']}, {about['split']} split, {about['images']:,} images"
    figures.titled(page, "Geometry by depth", below)
    figures.legend(page, axes[0])
    return page


def _alike(table: Any, alike: Any, about: Mapping[str, Any]) -> Any:
    """Debiased CKA of every pair of sites, a panel per other net."""
    labels = list(dict.fromkeys(alike["checkpoint"]))
    sites = list(dict.fromkeys(alike["site"]))
    shown = names(table[table["role"] != "untrained"])
    main = shown[table.loc[table["role"] == "main", "checkpoint"].iloc[0]]
    page, axes = figures.panels(len(labels), width=0.62 * len(sites) + 1.4, height=0.42 * len(sites) + 0.9, columns=3)
    for axis, label in zip(axes, labels, strict=True):
        rows = alike[alike["checkpoint"] == label]
        known = {(a, b): v for a, b, v in zip(rows["site"], rows["other_site"], rows["cka_debiased"], strict=True)}
        others: Sequence[str] = list(dict.fromkeys(rows["other_site"]))
        figures.numbers(
            axis, [[known[a, b] for b in others] for a in sites], sites, others, shown[label], main, top=1.0
        )
        axis.tick_params(axis="x", rotation=35)
    below = f"{about['dataset']}, {about['split']} split, {int(alike['images'].iloc[0]):,} images, debiased linear CKA"
    figures.titled(page, "How alike are the sites of two nets? (1: equal but for rotation and scale)", below)
    return page
