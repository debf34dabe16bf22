"""embedding.py: features drawn on a plane by PCA, t-SNE or UMAP, and how far such a map can be trusted.

L. van der Maaten, G. Hinton 2008 (t-SNE, scikit-learn's); L. McInnes, J. Healy, J. Melville 2018, arXiv 1802.03426
(UMAP, umap-learn's); J. Venna, S. Kaski 2001 (trustworthiness). No number is ever taken from a map but its
trustworthiness: the same features had a silhouette of 0.05 in their 512 dimensions, 0.71 in the map of t-SNE, 0.94 in
that of UMAP. Sizes, distances and gaps on a map carry no meaning. The columns of a map's table are COLUMNS, by which
`geometry` knows it and refuses to measure it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from mixcli.errors import UserError, nearest
from mixcli.report.probes import embedding as page
from mixcli.sampling import Random
from mixcli.studies.probes import class_blends
from mixcli.studies.probes.catalogue import Embed
from mixcli.studies.probes.features import Features
from mixcli.studies.probes.findings import Findings
from mixcli.studies.probes.probing import Scene
from mixcli.studies.subjects import Subject

HOW = ("tsne", "umap", "pca")
COLUMNS = ("x", "y", "index", "label", "prediction", "confidence", "kind", "checkpoint", "seed")
FIRST = 50  # principal components that t-SNE and UMAP are given
PERPLEXITY, NEIGHBOURS, DISTANCE = 30, 15, 0.1
TRUSTED = 3000  # points at most, on which trustworthiness is taken
POINTS, CLASSES = 5000, 10  # at most, unless more are asked for; CLASSES where there are more than MANY
MANY = 20
NEIGHBOURHOODS = 3  # of the perplexity's size that the points of a map hold, at least
BLENDS = 0.1  # of the points, at most

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Map:
    """Points on a plane.

    xy     (n, 2) float64
    axes   what they are, for the figure
    trust  trustworthiness with 15 neighbours, 0 to 1
    told   what a reader must know of how it was made
    """

    xy: np.ndarray
    axes: tuple[str, str]
    trust: float
    told: tuple[str, ...] = ()


def check(how: str, points: int, perplexity: float = PERPLEXITY, neighbours: int = NEIGHBOURS) -> None:
    """Refuses what cannot be drawn, before anything is computed. Raises UserError: usage."""
    if how not in HOW:
        raise UserError("usage", "--how", "unknown", got=how, hint=nearest(how, HOW))
    if how == "tsne" and not 1 <= perplexity < points:
        raise UserError("usage", "--perplexity", "out of range", perplexity, f"1 … below the {points} points")
    if how == "umap" and not 2 <= neighbours < points:
        raise UserError("usage", "--neighbors", "out of range", neighbours, f"2 … below the {points} points")
    if how == "umap":
        _umap()


def project(
    features: np.ndarray, how: str, seed: int = 0, tell: Tell = lambda _: None, *, again: bool = False,
    perplexity: float = PERPLEXITY, neighbours: int = NEIGHBOURS, random: Random | None = None,
) -> Map:  # fmt: skip
    """(n, D) features on a plane.

    seed    of t-SNE and UMAP; PCA has none
    again   a repeat: t-SNE, which no seed moves when it starts from the principal components, starts at random
    random  keyed, for the points on which trustworthiness is taken
    tell    is told what takes long
    Raises UserError: usage, or diverged where the features do not vary.
    """
    check(how, len(features), perplexity, neighbours)
    z = np.asarray(features, np.float64)
    if not np.isfinite(z).all():
        raise UserError("diverged", "pooled", f"non-finite in {int((~np.isfinite(z)).any(1).sum())} rows")
    alive = z.std(0) > 0
    if not alive.any():
        raise UserError("diverged", "pooled", "no variance, projection impossible")
    dead = int((~alive).sum())
    told = (f"{dead} dead dimension{'' if dead == 1 else 's'} removed",) if dead else ()
    z = z[:, alive]
    if how == "pca":
        xy, axes = _pca(z)
    else:
        given = _first(z)
        start = "random" if again else "pca"
        xy, more = _tsne(given, seed, perplexity, start) if how == "tsne" else _umapped(given, seed, neighbours, tell)
        axes, told = (f"{NAMES[how]} 1", f"{NAMES[how]} 2"), (*told, *more)
    return Map(xy, axes, trust(z, xy, random or Random(0, "probe/embed/trust")), told)


NAMES = {"tsne": "t-SNE", "umap": "UMAP", "pca": "PCA"}


def _pca(z: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    """The first two components, the largest loading of each positive, and their shares of the variance."""
    from sklearn.decomposition import PCA

    found = PCA(n_components=min(2, *z.shape), svd_solver="full").fit(z)
    xy = found.transform(z)
    loadings: Any = found.components_
    xy = xy * np.sign(loadings[np.arange(len(loadings)), np.abs(loadings).argmax(1)])
    shares = [*np.asarray(found.explained_variance_ratio_), 0.0][:2]
    if xy.shape[1] == 1:
        xy = np.column_stack([xy, np.zeros(len(xy))])
    first, second = (f"component {k}, {100 * share:.1f} % of variance" for k, share in enumerate(shares, 1))
    return xy, (first, second)


def _first(z: np.ndarray) -> np.ndarray:
    """The first 50 principal components; all columns where there are no more."""
    from sklearn.decomposition import PCA

    return z if z.shape[1] <= FIRST else PCA(n_components=min(FIRST, len(z)), svd_solver="full").fit_transform(z)


def _tsne(z: np.ndarray, seed: int, perplexity: float, start: str) -> tuple[np.ndarray, tuple[str, ...]]:
    from sklearn.manifold import TSNE

    z = z if z.shape[1] > 1 else np.column_stack([z, np.zeros(len(z))])  # or there are no two components to start from
    found: Any = TSNE(perplexity=perplexity, init=start, learning_rate="auto", max_iter=1000, random_state=seed)
    told = ("started at random: from its principal components t-SNE depends on no seed",) if start == "random" else ()
    return np.asarray(found.fit_transform(z), np.float64), told


def _umapped(z: np.ndarray, seed: int, neighbours: int, tell: Tell) -> tuple[np.ndarray, tuple[str, ...]]:
    """UMAP on one thread, which a seed asks for; random start where the spectral one fails."""
    umap = _umap()
    tell("umap: compiling, first run only")

    def fit(init: str) -> np.ndarray:
        made = umap.UMAP(n_neighbors=neighbours, min_dist=DISTANCE, random_state=seed, n_jobs=1, init=init)
        return np.asarray(made.fit_transform(z), np.float64)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            xy = fit("spectral")
            if np.isfinite(xy).all() and not any("pectral" in str(one.message) for one in told):
                return xy, ()
        except (ValueError, RuntimeError, TypeError, ArithmeticError):  # of ARPACK and of scikit-learn below it
            pass
        return fit("random"), ("spectral initialisation failed, random used",)


def _umap() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses a tensorflow that nothing here needs
            import umap
    except Exception as error:  # a broken numba raises many types; for a user they mean the same
        problem = f"umap cannot be imported ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        raise UserError("usage", "--how", problem, expected="--how tsne or --how pca") from error
    return umap


def trust(z: np.ndarray, xy: np.ndarray, random: Random) -> float:
    """Trustworthiness: how many neighbours on the map are neighbours in truth, 1 where all are."""
    from sklearn.manifold import trustworthiness

    rows = np.sort(random.host.permutation(len(z))[:TRUSTED])
    neighbours = min(NEIGHBOURS, (len(rows) - 1) // 2)
    return float(trustworthiness(z[rows], xy[rows], n_neighbors=neighbours)) if neighbours else float("nan")


# --------------------------------------------------------------------------------------------------- what is on the map


def shown_classes(classes: Sequence[str], chosen: str | None, random: Random) -> np.ndarray:
    """(c,) int64, ascending: those of `--classes`, by name or number; else all, or ten drawn where there are many.

    Raises UserError: usage for one that is not there, or none.
    """
    if chosen is None:
        if len(classes) <= MANY:
            return np.arange(len(classes))
        return np.sort(random.host.permutation(len(classes))[:CLASSES])
    words = [word.strip() for word in chosen.split(",") if word.strip()]
    if not words:
        raise UserError("usage", "--classes", "must not be empty", expected="names or numbers, as in 3,17")
    names = {name: place for place, name in enumerate(classes)}
    found = set()
    for word in words:
        place = names.get(word, int(word) if word.isdecimal() else -1)
        if not 0 <= place < len(classes):
            raise UserError("usage", "--classes", "no such class", got=word, hint=nearest(word, classes))
        found.add(place)
    return np.array(sorted(found))


def equal_per_class(labels: np.ndarray, classes: np.ndarray, most: int, random: Random) -> np.ndarray:
    """Rows in order, as many of each of `classes`: what the smallest has, at most `most` in all."""
    shuffled = random.host.permutation(len(labels))
    members = [shuffled[labels[shuffled] == k] for k in classes]
    each = min(min(map(len, members)), max(1, most // len(classes)))
    return np.sort(np.concatenate([rows[:each] for rows in members]))


def blended(features: np.ndarray, labels: np.ndarray, random: Random) -> tuple[np.ndarray, np.ndarray]:
    """Blends of two to five images of a class, at most a tenth of the points, and their labels: (b, D), (b,)."""
    known = np.unique(labels)
    each = max(1, int(BLENDS * len(labels)) // len(known))
    found = []
    for k in known[: max(1, int(BLENDS * len(labels)))]:
        own = features[labels == k]
        drawn = class_blends.draw(len(own), each, random.child(f"class {k}"))
        found.append((drawn.of(own), np.full(each, k)))
    rows, of = zip(*found, strict=True)
    return np.concatenate(rows), np.concatenate(of)


# ------------------------------------------------------------------------------------------------------------ the probe


def passes(scene: Scene, options: Embed) -> int:
    """Forward passes of one image: none where the features are cached."""
    check(options.how, len(_points(scene, options)[0]), options.perplexity, options.neighbors)
    if options.html:
        page.must_have_plotly()
    return sum(scene.missing(subject) for subject in scene.subjects)


def suited(scene: Scene) -> Scene:
    """With a smaller perplexity where the images are few: a third of them, as neighbours are then still a part."""
    options = scene.asked.options
    assert isinstance(options, Embed)
    points = len(_points(scene, options)[0])
    if options.how != "tsne" or points > NEIGHBOURHOODS * options.perplexity:
        return scene
    smaller = options.model_copy(update={"perplexity": max(1.0, points / NEIGHBOURHOODS)})
    scene.reporter.note(f"embed: perplexity {smaller.perplexity:g} for {points} images")
    return replace(scene, asked=replace(scene.asked, options=smaller))


def look(scene: Scene, options: Embed) -> Findings:
    """A map per subject and repeat, of the same images in the same order."""
    rows, classes = _points(scene, options)
    repeats = 1 if options.how == "pca" or scene.brief else options.repeats
    tables, maps, told = [], [], []
    for subject in scene.subjects:
        seen = scene.features(subject).take(rows)
        for repeat in range(repeats):
            found, table = _mapped(scene, options, subject, seen, scene.asked.seed + repeat, repeat > 0)
            tables.append(table)
            maps.append({"checkpoint": subject.label, "seed": scene.asked.seed + repeat, "axes": list(found.axes),
                         "trustworthiness": found.trust})  # fmt: skip
            told += [f"{subject.label}: {line}" for line in found.told]
    known = {"files": f"embed-{options.how}", "maps": maps, "points": len(rows), "versions": _versions(options.how),
             "shown_classes": [scene.classes[k] for k in classes], "name": NAMES[options.how]}  # fmt: skip
    table = pd.concat(tables, ignore_index=True)
    return Findings(table, known, page, remarks=(*dict.fromkeys(told), *_remarks(scene, options, classes)))


def _points(scene: Scene, options: Embed) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the chosen images that are shown, equal per class, and their classes."""
    classes = shown_classes(scene.classes, options.classes, scene.random("classes"))
    most = POINTS if scene.asked.images is None else scene.asked.images
    return equal_per_class(scene.chosen.labels, classes, most, scene.random("points")), classes


def _mapped(
    scene: Scene, options: Embed, subject: Subject, seen: Features, seed: int, again: bool
) -> tuple[Map, pd.DataFrame]:
    """One map and its rows: the images, and with the overlay their blends, fitted together."""
    given, kinds, labels = seen.values["pooled"], ["real"] * len(seen.labels), seen.labels
    if options.overlay == "blend":
        more, of = blended(given.astype(np.float64), labels, scene.random("overlay"))
        given, kinds = np.concatenate([given, more]), [*kinds, *["blend"] * len(of)]
        labels = np.concatenate([labels, of])
    found = project(given, options.how, seed, scene.reporter.note, again=again, perplexity=options.perplexity,
                    neighbours=options.neighbors, random=scene.random("trust"))  # fmt: skip
    real = len(seen.labels)
    logits = seen.values["logits"].astype(np.float64)
    chance = softmax(logits, axis=1)
    names = np.array(scene.classes, object)
    blank = [None] * (len(labels) - real)
    facts = scene.facts(subject)
    return found, pd.DataFrame({
        "x": found.xy[:, 0], "y": found.xy[:, 1], "index": [*seen.index.tolist(), *blank], "label": names[labels],
        "prediction": [*names[logits.argmax(1)], *blank], "confidence": [*chance.max(1).tolist(), *blank],
        "kind": kinds, "checkpoint": facts.pop("checkpoint"), "seed": seed, "trustworthiness": found.trust, **facts,
    })  # fmt: skip


def _versions(how: str) -> dict[str, str]:
    """A map repeats bit for bit on one machine with these, and on others not at all."""
    from importlib.metadata import version

    wanted = ("numpy", "scikit-learn", *(("umap-learn", "numba") if how == "umap" else ()))
    return {name: version(name) for name in wanted}


def headline(table: Any) -> dict[str, float]:
    """Trustworthiness of the first map."""
    return {"trustworthiness": float(table["trustworthiness"].iloc[0])}


def _remarks(scene: Scene, options: Embed, classes: np.ndarray) -> Iterator[str]:
    yield "sizes, distances and gaps on a map carry no meaning, and no number is taken from one: see probe geometry"
    if len(classes) < len(scene.classes):
        yield f"classes shown: {', '.join(scene.classes[k] for k in classes)}"
    if len(scene.subjects) > 1:
        yield "each panel is a fit of its own: positions cannot be compared across panels"
    if options.overlay == "blend":
        yield "a blend lies inside the hull of its images by construction: the picture proves nothing about containment"
    if options.how == "umap":
        yield "bits repeat on one machine, not on another: the coordinates are the result"
    if not page.has_parquet():
        yield "no parquet file: pyarrow is not installed (extra html)"
