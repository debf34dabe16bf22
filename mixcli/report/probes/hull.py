"""hull.py: the hull probe as tables and figures: distances by kind of image beside their control, and density."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mixcli.report.export import Section
from mixcli.report.probes import figures
from mixcli.report.probes.figures import names, number

KINDS = ("blends of reference", "held back", "blends of test", "test", "nearest other class")
DENSITY = {"near_test": "near, test images", "maha_test": "maha, test images", "near_blend": "near, blends",
           "maha_blend": "maha, blends", "below": "share of blends below the 2.5 % quantile",
           "above": "share of blends above the 97.5 % quantile",
           "member": "cosine of a blend with a member"}  # fmt: skip
ROUNDING = 1e-9


def sections(table: Any, about: Mapping[str, Any]) -> Iterator[Section]:
    """Means over classes of the medians, a table per checkpoint; the gap with its interval; density."""
    shown, dims = names(table), about["main_dims"]
    classes = table[(table["row"] == "class") & (table["dims"] == dims)]
    for label, name in shown.items():
        yield _distances(classes[classes["checkpoint"] == label], f"{name}, {dims} dimensions")
    gaps = table[table["row"] == "gap"]
    rows = [(f"{shown[row['checkpoint']]}, {row['dims']} dimensions", f"{row['gap_test']:+.3f}",
             f"{row['gap_low']:+.3f} … {row['gap_high']:+.3f}") for _, row in gaps.iterrows()]  # fmt: skip
    yield Section(("gap_test: rel of test images - of those held back", "gap", "95 % over images"), tuple(rows))
    if (table["row"] == "density").any():
        yield _density(table[table["row"] == "density"], shown)


def _distances(classes: Any, title: str) -> Section:
    known = list(dict.fromkeys(classes["query"]))
    queries = [q for q in (*KINDS, *(q for q in known if q.startswith("augmented"))) if q in known]
    means = classes.groupby("query")[["rel", "over_radius", "outside"]].mean()
    rows = [(query, *(_seen(value) for value in means.loc[query])) for query in queries]
    return Section((title, "rel", "distance / radius", "outside the subspace"), tuple(rows))


def _seen(value: float) -> str:
    return "0" if value < ROUNDING else number(value)


def _density(found: Any, shown: Mapping[str, str]) -> Section:
    """A row per number, and for each checkpoint its classes beside Gaussians of their mean and covariance."""
    laws = {"class": "classes", "gaussian": "Gaussians"}
    headings = [f"{shown[row['checkpoint']]}: {laws[row['law']]}" for _, row in found.iterrows()]
    rows = [(told, *map(number, found[name])) for name, told in DENSITY.items()]
    return Section(("density, held-back images = 1", *headings), tuple(rows))


# -------------------------------------------------------------------------------------------------------------- figures


def drawn(table: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """Distances class by class and over the strength of augmentation; over dimensions where there are several."""
    found = {"": _main(table, about)}
    if len(about["dims"]) > 1:
        found["dims"] = _over_dims(table, about)
    return found


def _main(table: Any, about: Mapping[str, Any]) -> Any:
    page, (left, right) = figures.panels(2, width=4.8, height=3.4)
    shown, dims = names(table), about["main_dims"]
    classes = table[(table["row"] == "class") & (table["dims"] == dims)]
    for place, (label, name) in enumerate(shown.items()):
        rows = classes[classes["checkpoint"] == label]
        _kinds(left, rows, place, len(shown), name)
        _degrees(right, rows, place, name)
    figures.panel(left, "kinds of images, a dot per class", y="distance / distance to the centroid")
    labels = [kind.replace("blends of ", "blends of\n").replace("nearest other ", "nearest\nother ") for kind in KINDS]
    left.set_xticks(range(len(KINDS)), labels, fontsize=7.5)
    left.set_ylim(-0.03, 1.03)
    figures.panel(right, "augmented training images", x="strength of the augmentation", y="")
    right.set_ylim(-0.03, 1.03)
    sizes = classes["reference"]
    each = f"{sizes.min():.0f}" if sizes.min() == sizes.max() else f"{sizes.min():.0f} to {sizes.max():.0f}"
    below = f"{about['dataset']}, {dims} dimensions, {each} reference images per class; control: held back"
    figures.titled(page, "How far from the hull of a class's training features?", below)
    figures.legend(page, right)
    return page


def _kinds(axis: Any, rows: Any, place: int, count: int, name: str) -> None:
    """A dot per class beside its kind, and the mean as a bar."""
    colour = figures.COLOURS[place % len(figures.COLOURS)]
    width = 0.7 / count
    for x, kind in enumerate(KINDS):
        values = rows[rows["query"] == kind]["rel"].to_numpy()
        if not len(values):
            continue
        middle = x + (place - (count - 1) / 2) * width
        shift = [
            ((k * 0.618) % 1 - 0.5) * 0.7 * width for k in range(len(values))
        ]  # spread evenly, the same every time
        axis.plot([middle + s for s in shift], values, "o", color=colour, markersize=3.4, alpha=0.5, linestyle="none",
                  markeredgewidth=0)  # fmt: skip
        axis.plot([middle - 0.42 * width, middle + 0.42 * width], [values.mean()] * 2, color=figures.INK, linewidth=1.8)


def _degrees(axis: Any, rows: Any, place: int, name: str) -> None:
    """rel over the strength of augmentation; test images as a dashed line, the control as a dotted one."""
    colour = figures.COLOURS[place % len(figures.COLOURS)]
    means = rows.groupby("query", sort=False)["rel"].mean()
    views = [(float(query.split()[1]), value) for query, value in means.items() if query.startswith("augmented")]
    if views:
        x, y = zip(*sorted([(0.0, 0.0), *views]), strict=True)  # an image that is a corner of the hull is in it
        axis.plot(x, y, color=colour, marker=figures.MARKS[place % len(figures.MARKS)], markersize=5, linewidth=1.6,
                  label=figures.printable(name, limit=50))  # fmt: skip
    axis.axhline(means["test"], color=colour, linewidth=1.1, linestyle=(0, (5, 3)),
                 label=None if place else "test images")  # fmt: skip
    axis.axhline(means["held back"], color=colour, linewidth=1.1, linestyle=(0, (1, 2)),
                 label=None if place else "held back (control)")  # fmt: skip


def _over_dims(table: Any, about: Mapping[str, Any]) -> Any:
    shown = names(table)
    page, axes = figures.panels(len(shown), width=3.6, height=2.8, columns=3, sharey=True)
    classes = table[table["row"] == "class"]
    for axis, (label, name) in zip(axes, shown.items(), strict=True):
        means = classes[classes["checkpoint"] == label].groupby(["query", "dims"])["rel"].mean()
        for k, kind in enumerate(("held back", "test", "nearest other class")):
            line = means.loc[kind].sort_index()
            axis.plot(line.index, line, color=figures.COLOURS[k], marker=figures.MARKS[k], markersize=5, linewidth=1.6,
                      label=kind)  # fmt: skip
        figures.panel(axis, name, x="dimensions", y="distance / distance to the centroid" if axis is axes[0] else "")
        axis.set_xscale("log", base=2)
        axis.set_xticks(about["dims"], [str(d) for d in about["dims"]])
        axis.set_ylim(0, 1.03)
    figures.titled(page, "The more dimensions, the further out: compare at one number of them", str(about["dataset"]))
    figures.legend(page, axes[0])
    return page
