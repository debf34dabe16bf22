"""embedding.py: maps as figures that stay readable at a hundred classes, as one page to turn over, and as a table.

Up to ten classes have a colour each and are named in the legend; more share ten colours and are named where they lie,
the tightest first, as far as there is room. Wrong answers are ringed unless there are too many to see anything else.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from mixcli.errors import UserError, printable
from mixcli.report.export import Section
from mixcli.report.probes import figures
from mixcli.report.probes.figures import names, number

TEN = ("#4477aa", "#ee6677", "#228833", "#ccaa22", "#66ccee", "#aa3377", "#ee8833", "#666666", "#44bb99", "#8855cc")
WEBGL = 10_000  # points above which a page is drawn by the graphics card
RINGED = 0.3  # share of wrong answers up to which they are ringed
LETTER, LINE = 0.0092, 0.02  # of an axis: the width and height of a letter of a class's name
CAPTION = "Sizes, distances and gaps on a map carry no meaning; no number is taken from it but its trustworthiness."
BLENDED = "A blend (diamond) lies inside the hull of its images by construction: containment is not shown."


def sections(table: Any, about: Mapping[str, Any]) -> Iterator[Section]:
    """Trustworthiness of every map; nothing else can be said in numbers."""
    shown = names(table)
    rows = tuple((f"{shown[one['checkpoint']]}, map seed {one['seed']}", number(one["trustworthiness"]), str(points))
                 for one, points in _maps(table, about))  # fmt: skip
    yield Section((f"{about['name']} of pooled features", "trustworthiness", "points"), rows)


def _maps(table: Any, about: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], int]]:
    """The maps that this table holds, and their points."""
    counts = table.groupby(["checkpoint", "seed"], sort=False).size()
    yield from ((one, int(counts[one["checkpoint"], one["seed"]])) for one in about["maps"]
                if (one["checkpoint"], one["seed"]) in counts.index)  # fmt: skip


def drawn(table: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """A panel per checkpoint and repeat; the same colours in all."""
    maps = [one for one, _ in _maps(table, about)]
    classes, shown = about["shown_classes"], names(table)
    crowded = len(classes) > len(TEN)
    width = 7.0 if crowded else 5.2 if len(maps) == 1 else 4.2
    page, axes = figures.panels(len(maps), width=width, height=6.2 if crowded else 4.2, columns=2 if crowded else 3)
    real = table[table["kind"] == "real"]
    ringed = bool((real["prediction"] != real["label"]).mean() <= RINGED)
    for axis, one in zip(axes, maps, strict=True):
        rows = table[(table["checkpoint"] == one["checkpoint"]) & (table["seed"] == one["seed"])]
        _map(axis, rows, classes, ringed)
        again = f", map seed {one['seed']}" if len(maps) > len(shown) else ""
        told = f"{shown[one['checkpoint']]}{again}"
        axis.set_title(f"{printable(told, limit=60)}\ntrustworthiness {one['trustworthiness']:.3f}", fontsize=9,
                       loc="left", color=figures.INK, parse_math=False)  # fmt: skip
        axis.set_xlabel(one["axes"][0] if about["name"] == "PCA" else "", fontsize=8.5, color=figures.GREY)
        axis.set_ylabel(one["axes"][1] if about["name"] == "PCA" else "", fontsize=8.5, color=figures.GREY)
    blends = bool((table["kind"] == "blend").any())
    where = f"{about['dataset']}, {about['split']} split, {about['points']:,} images"
    lines = [f"{about['name']} of pooled features, {where}", CAPTION, *([BLENDED] if blends else [])]
    lines = [part for line in lines for part in textwrap.wrap(line, int(14.5 * page.get_figwidth()))]
    page.suptitle("\n".join(lines), fontsize=9, x=0.01, ha="left", color=figures.INK, parse_math=False)
    _legend(page, classes, blends, ringed)
    return {"": page}


def _map(axis: Any, rows: Any, classes: list[str], ringed: bool) -> None:
    """Points small where there are many, wrong answers ringed, blends as diamonds; no ticks, which would say a lot."""
    real, blend = rows[rows["kind"] == "real"], rows[rows["kind"] == "blend"]
    size = 26 if len(real) < 500 else 12 if len(real) < 2000 else 5
    place = {name: k for k, name in enumerate(classes)}
    colours = [TEN[place[name] % len(TEN)] for name in real["label"]]
    wrong = (real["prediction"] != real["label"]).to_numpy() & ringed
    axis.scatter(real["x"], real["y"], s=size, c=colours, alpha=0.8, linewidths=0, rasterized=len(real) > 2000)
    axis.scatter(real["x"][wrong], real["y"][wrong], s=1.9 * size, facecolors="none", edgecolors=figures.INK,
                 linewidths=0.5, alpha=0.75)  # fmt: skip
    if len(blend):
        axis.scatter(blend["x"], blend["y"], s=1.3 * size, c=[TEN[place[n] % len(TEN)] for n in blend["label"]],
                     marker="D", edgecolors=figures.INK, linewidths=0.6)  # fmt: skip
    axis.set(xticks=(), yticks=())
    axis.margins(0.05)
    if len(classes) > len(TEN):
        _named_where_they_lie(axis, real)
    for spine in axis.spines.values():
        spine.set_color("#d0d0d0")


def _named_where_they_lie(axis: Any, real: Any) -> None:
    """Names at the medians of their classes, the tightest class first; one that would cover another is not written."""
    from matplotlib.patheffects import withStroke

    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    places = []
    for name, rows in real.groupby("label", sort=False):
        x, y = (rows["x"].median() - left) / (right - left), (rows["y"].median() - low) / (high - low)
        loose = (rows["x"] - rows["x"].median()).abs().median() + (rows["y"] - rows["y"].median()).abs().median()
        places.append((loose, printable(str(name), limit=16), x, y))
    written: list[tuple[str, float, float]] = []
    for _, name, x, y in sorted(places):
        if all(abs(x - u) > LETTER * (len(name) + len(other)) / 2 or abs(y - v) > LINE for other, u, v in written):
            written.append((name, x, y))
            axis.text(x, y, name, transform=axis.transAxes, fontsize=6.5, ha="center", va="center", color=figures.INK,
                      parse_math=False, path_effects=[withStroke(linewidth=2, foreground="white")])  # fmt: skip


def _legend(page: Any, classes: list[str], blends: bool, ringed: bool) -> None:
    from matplotlib.lines import Line2D

    def mark(label: str, kind: str, colour: str, edge: str = "none") -> Any:
        return Line2D([], [], linestyle="none", marker=kind, markersize=6, markerfacecolor=colour, markeredgecolor=edge,
                      label=label)  # fmt: skip

    named = classes if len(classes) <= len(TEN) else []
    handles = [mark(printable(name, limit=24), "o", TEN[k]) for k, name in enumerate(named)]
    handles += [mark("answered wrongly", "o", "none", figures.INK)] if ringed else []
    if blends:
        handles.append(mark("blend of images of a class", "D", "#bbbbbb", figures.INK))
    if not handles:
        return
    found = page.legend(handles=handles, loc="outside lower left", ncols=6, frameon=False, fontsize=8)
    for text in found.get_texts():
        text.set_parse_math(False)


# -------------------------------------------------------------------------------------------------------- further files


def has_parquet() -> bool:
    return find_spec("pyarrow") is not None


def must_have_plotly() -> None:
    """Raises UserError: usage where the page cannot be made."""
    if find_spec("plotly") is None:
        raise UserError("usage", "--html", "needs plotly", hint='pip install "mixcli[html]"')


def files(table: Any, about: Mapping[str, Any]) -> dict[str, bytes]:
    """The table as parquet, where pyarrow is there; the page, where it was asked for."""
    found = {}
    if has_parquet():
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        found["parquet"] = buffer.getvalue()
    if about["options"]["html"]:
        found["html"] = _page(table, about).encode()
    return found


def _page(table: Any, about: Mapping[str, Any]) -> str:
    """One self-contained page, plotly inside it; every point tells what it is."""
    import plotly.graph_objects as go  # type: ignore[import-not-found]
    from plotly.subplots import make_subplots  # type: ignore[import-not-found]

    maps, shown, classes = [one for one, _ in _maps(table, about)], names(table), about["shown_classes"]
    titles = [f"{shown[one['checkpoint']]}, seed {one['seed']}: trustworthiness {one['trustworthiness']:.3f}"
              for one in maps]  # fmt: skip
    drawn = make_subplots(1, len(maps), subplot_titles=titles, horizontal_spacing=0.02)
    kind = go.Scattergl if len(table) > WEBGL else go.Scatter
    for column, one in enumerate(maps, 1):
        rows = table[(table["checkpoint"] == one["checkpoint"]) & (table["seed"] == one["seed"])]
        for k, name in enumerate(classes):
            for what in ("real", "blend"):
                part = rows[(rows["label"] == name) & (rows["kind"] == what)]
                if len(part):
                    text = [_hover(point) for point in part.to_dict("records")]
                    drawn.add_trace(
                        kind(x=part["x"], y=part["y"], mode="markers", name=name, legendgroup=name, hovertext=text,
                             hoverinfo="text", showlegend=column == 1 and what == "real",
                             marker={"size": 6, "color": TEN[k % len(TEN)], "symbol": SYMBOLS[what]}),
                        row=1, col=column)  # fmt: skip
    drawn.update_xaxes(showticklabels=False, showgrid=False, zeroline=False)
    drawn.update_yaxes(showticklabels=False, showgrid=False, zeroline=False)
    where = f"{about['dataset']}, {about['split']} split, {about['points']:,} images"
    drawn.update_layout(title={"text": f"{about['name']} of pooled features, {where}<br><sub>{CAPTION}</sub>"},
                        template="plotly_white", height=720)  # fmt: skip
    return drawn.to_html(include_plotlyjs=True, full_html=True, div_id="map")


SYMBOLS = {"real": "circle", "blend": "diamond-open"}


def _hover(point: Mapping[str, Any]) -> str:
    from html import escape

    if point["kind"] == "blend":
        return f"blend of {escape(str(point['label']))}"
    told = f"{escape(str(point['label']))}, answered {escape(str(point['prediction']))}"
    return f"{told} ({point['confidence']:.2f}), image {int(point['index'])}"
