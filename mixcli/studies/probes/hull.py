"""hull.py: how far images of a class lie from the convex hull of its training features, beside what chance gives.

A blend is inside by construction, and a real point of 16 dimensions or more is practically never, so yes or no says
nothing. Reported is a distance, and beside it the same distance of training images that were held back:

    distance = min ||H w - q||, w >= 0, sum w = 1;    rel = distance / ||q - centroid||, 0 to 1
    gap_test = median rel(test) - median rel(held back)

H = reference points of a class about their centroid, in the first principal directions of the reference alone. The
minimum is found by scipy's `nnls` with one more row, `RHO` times the radius, that asks for sum w = 1, and certified by
the optimality of w. A hull says nothing about the density inside it; `density` does, beside a Gaussian of the class's
mean and covariance: a blend leaves any distribution inwards, so the finding is the difference from that row. Chosen:
everything but the standard solver; no paper gives a formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls
from scipy.spatial.distance import cdist

from mixcli.data.augment import training_view
from mixcli.data.resident import Resident
from mixcli.data.sources import Split
from mixcli.errors import UserError
from mixcli.report.probes import hull as page
from mixcli.sampling import Random
from mixcli.studies.probes import class_blends
from mixcli.studies.probes.catalogue import Hull
from mixcli.studies.probes.class_blends import FewBlends
from mixcli.studies.probes.findings import Findings
from mixcli.studies.probes.probing import Scene, warn_of_twins
from mixcli.studies.subjects import Subject

RHO = 1000  # times the radius: the error against the limit is below 2e-12 of it; at 1 it would be up to 7 %
CERTIFIED = 1e-5  # of the squared distance
INSIDE = 1e-6  # of the distance to the centroid
RESAMPLES = 2000


@dataclass(frozen=True)
class Reference:
    """The points whose hull is meant, and the subspace it is measured in.

    centroid  (D,)
    axes      (d, D) orthonormal rows
    points    (n, d) about the centroid
    """

    centroid: np.ndarray
    axes: np.ndarray
    points: np.ndarray

    @property
    def radius(self) -> float:
        """Root of the mean squared distance from the centroid."""
        return float(np.sqrt(np.square(self.points).sum(1).mean()))

    def seen(self, features: np.ndarray) -> np.ndarray:
        """(m, D) features -> (m, d) where they stand in the subspace, about the centroid."""
        return (features - self.centroid) @ self.axes.T

    def outside(self, features: np.ndarray) -> np.ndarray:
        """(m,) share of the squared distance to the centroid that the subspace does not see, 0 to 1."""
        whole = np.square(features - self.centroid).sum(1)
        left = whole - np.square(self.seen(features)).sum(1)
        return np.divide(left, whole, out=np.zeros(len(whole)), where=whole > 0).clip(0, 1)


def reference(features: np.ndarray, dims: int) -> Reference:
    """The first `dims` principal directions of (n, D) features, or all they have.

    Raises UserError: diverged where the features are all equal.
    """
    features = np.asarray(features, np.float64)
    centroid = features.mean(0)
    centred = features - centroid
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    if values[0] <= 1e-12 * np.linalg.norm(features):
        raise UserError("diverged", "hull", "no variance: all features of a class are equal")
    kept = axes[:dims][values[:dims] > 1e-10 * values[0]]
    return Reference(centroid, kept, centred @ kept.T)


@dataclass(frozen=True)
class Distances:
    """Distances of (m,) queries from a hull.

    distance   in units of the features
    rel        of the distance to the centroid, 0 to 1
    uncertain  how many were not certified as the minimum; they are still among the others
    """

    distance: np.ndarray
    rel: np.ndarray
    uncertain: int


def distances(points: np.ndarray, queries: np.ndarray) -> Distances:
    """Distances of (m, d) queries from the hull of (n, d) points about their centroid."""
    rho = RHO * np.sqrt(np.square(points).sum(1).mean())
    table = np.vstack([points.T, np.full(len(points), rho)])
    found = [_nearest_in_hull(points, table, query, rho) for query in queries]
    distance = np.array([value for value, _ in found])
    length = np.linalg.norm(queries, axis=1)
    rel = np.divide(distance, length, out=np.zeros(len(length)), where=length > 0).clip(0, 1)
    certified = np.array([good for _, good in found], bool) | (rel < INSIDE)
    return Distances(distance, rel, int((~certified).sum()))


def _nearest_in_hull(points: np.ndarray, table: np.ndarray, query: np.ndarray, rho: float) -> tuple[float, bool]:
    """The distance, and whether the gradient proves it: no point lies further along the way than the weights do."""
    try:
        weights, _ = nnls(table, np.append(query, rho))
        weights /= weights.sum()
    except RuntimeError:  # too many iterations: the nearest point is an upper bound
        weights = np.eye(len(points))[np.square(points - query).sum(1).argmin()]
    rest = weights @ points - query
    gradient, square = points @ rest, rest @ rest
    return float(np.sqrt(square)), bool(weights @ gradient - gradient.min() <= CERTIFIED * square)


def gap(held: Sequence[np.ndarray], test: Sequence[np.ndarray], random: Random) -> tuple[float, float, float]:
    """Mean over classes of median rel(test) - median rel(held back), and its 95 % bootstrap interval over images.

    held, test  per class the `rel` of its images
    """

    def medians(rows: np.ndarray) -> np.ndarray:
        return np.median(rows[random.host.integers(len(rows), size=(RESAMPLES, len(rows)))], axis=1)

    value = np.mean([np.median(t) - np.median(h) for h, t in zip(held, test, strict=True)])
    draws = np.mean([medians(t) - medians(h) for h, t in zip(held, test, strict=True)], axis=0)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(value), float(low), float(high)


# -------------------------------------------------------------------------------------------------------------- density


@dataclass(frozen=True)
class Law:
    """Where the reference points of a class are, and how they scatter.

    points   (n, d)
    mean     (d,)
    whiten   (d, d): (q - mean) @ whiten has the Mahalanobis distance as its length
    root     (d, d): normal rows @ root have the covariance
    """

    points: np.ndarray
    mean: np.ndarray
    whiten: np.ndarray
    root: np.ndarray

    def near(self, queries: np.ndarray) -> np.ndarray:
        """(m,) distance to the nearest reference point."""
        return cdist(queries, self.points).min(1)

    def maha(self, queries: np.ndarray) -> np.ndarray:
        """(m,) Mahalanobis distance to the reference."""
        return np.linalg.norm((queries - self.mean) @ self.whiten, axis=1)

    def drawn(self, count: int, random: Random) -> np.ndarray:
        """(count, d) points of a Gaussian with this mean and covariance."""
        return self.mean + random.host.normal(size=(count, len(self.mean))) @ self.root


def law(points: np.ndarray) -> Law:
    """Mean and Ledoit-Wolf covariance of (n, d) points."""
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(points)
    values, axes = np.linalg.eigh(covariance)
    scale = np.sqrt(np.maximum(values, 1e-12 * values[-1]))
    return Law(points, points.mean(0), axes / scale, (axes * scale).T)


def member(blended: np.ndarray, points: np.ndarray, drawn: FewBlends) -> np.ndarray:
    """(B,) cosine about the centroid between a blend and the nearest of its members; near 1 it adds nothing.

    blended  (B, d)
    points   (n, d) of the class's images, the members among them
    """
    sizes = np.diff(np.append(drawn.starts, len(drawn.member)))
    own = np.repeat(blended, sizes, axis=0)
    members = points[drawn.member]
    apart = np.linalg.norm(members - own, axis=1)
    nearest = apart <= -drawn.largest(-apart).repeat(sizes)
    norms = np.linalg.norm(members, axis=1) * np.linalg.norm(own, axis=1)
    dots = np.einsum("ij,ij->i", members, own)
    cosine = np.divide(dots, norms, out=np.zeros(len(norms)), where=norms > 0)
    return drawn.largest(np.where(nearest, cosine, -1.0))


def density(points: np.ndarray, held: np.ndarray, test: np.ndarray, random: Random) -> dict[str, dict[str, float]]:
    """Of one class: how typical its test images and the blends of its held-back images are, `class` beside `gaussian`.

    points, held, test  (n, d) in the subspace of the reference
    near, maha          medians over the queries, divided by that of held-back images
    below, above        share of blends beyond the 2.5 % and 97.5 % quantiles of the held-back Mahalanobis distance
    member              median over blends
    """
    found, drawn = law(points), class_blends.draw(len(held), len(held), random.child("blends"))
    fake = random.child("gaussian")
    of_law, fake_held, fake_test = (found.drawn(len(rows), fake) for rows in (points, held, test))
    return {"class": _typical(found, held, test, drawn),
            "gaussian": _typical(law(of_law), fake_held, fake_test, drawn)}  # fmt: skip


def _typical(found: Law, held: np.ndarray, test: np.ndarray, drawn: FewBlends) -> dict[str, float]:
    blended = drawn.of(held)
    near, maha = (np.median(measure(held)) for measure in (found.near, found.maha))
    low, high = np.quantile(found.maha(held), [0.025, 0.975])
    of_blends = found.maha(blended)
    return {
        "near_blend": float(np.median(found.near(blended)) / near), "maha_blend": float(np.median(of_blends) / maha),
        "near_test": float(np.median(found.near(test)) / near), "maha_test": float(np.median(found.maha(test)) / maha),
        "below": float((of_blends < low).mean()), "above": float((of_blends > high).mean()),
        "member": float(np.median(member(blended, held, drawn))),
    }  # fmt: skip


def mean_row(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean over classes of each number."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


# ------------------------------------------------------------------------------------------------------------ the probe

REFERENCE, HELD, SHARE = 400, 100, 0.8  # images of a class at most, and the reference's share of the training images
QUERIES = 100  # of a kind and class, at most
VIEWS, DEGREES = 20, (0.0, 0.25, 0.5, 0.75, 1.0)  # reference images of a class that are augmented, and how strongly
HEADLINE = 16  # dimensions of the headline number, where they are among those asked for
FEWEST = 4  # training images of a class that can be measured


@dataclass(frozen=True)
class Lists:
    """Rows of one class: of its training images, those whose hull is meant and those held back; and of the chosen."""

    number: int
    reference: np.ndarray
    held: np.ndarray
    test: np.ndarray


def lists(scene: Scene, subject: Subject) -> list[Lists]:
    """Of each class with four training images or more; as many images as every subject has."""
    counts = np.min([_counts(scene, one) for one in scene.subjects], axis=0)
    train = scene.split(subject, "train").labels
    found = []
    for k in np.flatnonzero(counts >= FEWEST):
        rng = scene.random(f"class {k}").host
        rows = rng.permutation(np.flatnonzero(train == k))[: min(counts[k], REFERENCE + HELD)]
        kept = min(REFERENCE, max(FEWEST - 1, round(SHARE * len(rows))))
        test = rng.permutation(np.flatnonzero(scene.chosen.labels == k))[:QUERIES]
        found.append(Lists(int(k), rows[:kept], rows[kept : kept + HELD], test))
    if len(found) < 2:
        raise UserError(
            "data_missing", "hull", f"{len(found)} classes with {FEWEST} training images", hint="Train on more"
        )
    return found


def _counts(scene: Scene, subject: Subject) -> np.ndarray:
    return np.bincount(scene.split(subject, "train").labels, minlength=len(scene.classes))


def _needed(scene: Scene, subject: Subject) -> tuple[Split, np.ndarray]:
    """The training images that the lists name, and their rows in the split, ascending."""
    rows = np.sort(np.concatenate([np.concatenate([one.reference, one.held]) for one in lists(scene, subject)]))
    return scene.split(subject, "train").take(rows), rows


def passes(scene: Scene, options: Hull) -> int:
    """Forward passes of one image: of those not cached, and of augmented views."""
    own = sum(scene.missing(one) + scene.missing(one, "train", _needed(scene, one)[0]) for one in scene.subjects)
    return own + (0 if scene.brief else len(scene.subjects) * (len(DEGREES) - 1) * VIEWS * len(scene.classes))


def look(scene: Scene, options: Hull) -> Findings:
    """Distances of every kind of query from each class's hull, the gap, and the density rows."""
    warn_of_twins(scene)
    rows: list[dict[str, Any]] = []
    for subject in scene.subjects:
        rows += _of_subject(scene, options, subject)
    frame = pd.DataFrame(rows)
    return Findings(frame, {"dims": list(options.dims), "main_dims": main_dims(options.dims)}, page,
                    remarks=tuple(_remarks(scene, frame)))  # fmt: skip


def main_dims(dims: Sequence[int]) -> int:
    return HEADLINE if HEADLINE in dims else dims[0]


def _of_subject(scene: Scene, options: Hull, subject: Subject) -> Iterator[dict[str, Any]]:
    split, rows = _needed(scene, subject)
    train = scene.features(subject, "train", split).values["pooled"].astype(np.float64)
    test = scene.features(subject).values["pooled"].astype(np.float64)
    named = [
        (one, np.searchsorted(rows, one.reference), np.searchsorted(rows, one.held)) for one in lists(scene, subject)
    ]
    views = {} if scene.brief else _views(scene, subject, split, {one.number: at[:VIEWS] for one, at, _ in named})
    centres = np.stack([train[at].mean(0) for _, at, _ in named])
    facts, gaps = scene.facts(subject), {dims: ([], []) for dims in options.dims}
    typical: dict[str, list[dict[str, float]]] = {"class": [], "gaussian": []}
    for place, (one, reference_rows, held_rows) in enumerate(named):
        other = named[_nearest_other(centres, place)][0]
        points, held, own = train[reference_rows], train[held_rows], test[one.test]
        random = scene.random(f"blends {one.number}")
        queries = _queries(points, held, own, test[other.test], views.get(one.number, {}), random)
        for dims in options.dims:
            found = reference(points, dims)
            seen = {name: distances(found.points, found.seen(rows)) for name, rows in queries.items() if len(rows)}
            _self_check(seen, scene.classes[one.number])
            gaps[dims][0].append(seen["held back"].rel)
            gaps[dims][1].append(seen["test"].rel)
            same = {**facts, "row": "class", "dims": dims, "class": scene.classes[one.number], "reference": len(points)}
            yield from (same | _row(found, queries[name], name, distance) for name, distance in seen.items())
        if not scene.brief and len(held) > 1:
            found = reference(points, main_dims(options.dims))
            for kind, row in density(found.points, found.seen(held), found.seen(own), random.child("density")).items():
                typical[kind].append(row)
    for dims, (held_rel, test_rel) in gaps.items():
        value, low, high = gap(held_rel, test_rel, scene.random(f"gap {dims}"))
        yield {
            **facts,
            "row": "gap",
            "dims": dims,
            "query": "test",
            "gap_test": value,
            "gap_low": low,
            "gap_high": high,
        }
    for kind, found_rows in typical.items():
        if found_rows:
            yield {**facts, "row": "density", "dims": main_dims(options.dims), "law": kind, **mean_row(found_rows)}


def _row(found: Reference, queries: np.ndarray, name: str, distance: Distances) -> dict[str, Any]:
    return {"query": name, "used_dims": len(found.axes), "queries": len(queries), "rel": float(np.median(distance.rel)),
            "over_radius": float(np.median(distance.distance) / found.radius),
            "outside": float(np.median(found.outside(queries))), "uncertain": distance.uncertain}  # fmt: skip


def _nearest_other(centres: np.ndarray, place: int) -> int:
    apart = np.square(centres - centres[place]).sum(1)
    apart[place] = np.inf
    return int(apart.argmin())


def _queries(
    points: np.ndarray, held: np.ndarray, own: np.ndarray, other: np.ndarray, views: Mapping[str, np.ndarray],
    random: Random,
) -> dict[str, np.ndarray]:  # fmt: skip
    """What is held against the hull of one class, by name."""
    blends = {"blends of reference": points, "blends of test": own}
    drawn = {name: class_blends.draw(len(rows), min(QUERIES, len(rows)), random.child(name)).of(rows)
             for name, rows in blends.items() if len(rows) > 1}  # fmt: skip
    return {"held back": held, "test": own, **drawn, **views, "nearest other class": other}


def _self_check(seen: Mapping[str, Distances], name: str) -> None:
    check = seen["blends of reference"].rel.max()
    if check > INSIDE:
        raise UserError(
            "diverged", f"class {name}", f"a blend of its own images lies outside its hull, rel {check:.1e}"
        )


def _views(
    scene: Scene, subject: Subject, split: Split, rows: Mapping[int, np.ndarray]
) -> dict[int, dict[str, np.ndarray]]:
    """class -> degree -> (VIEWS, D) features of augmented reference images, by the run's own augmentation."""
    data = Resident(split.images, split.labels, tuple(subject.data["mean"]), tuple(subject.data["std"]),
                    training_view(subject.settings), subject.machine.device)  # fmt: skip
    flat = np.concatenate(list(rows.values()))
    ends = np.cumsum([len(at) for at in rows.values()])[:-1]
    found: dict[int, dict[str, np.ndarray]] = {k: {} for k in rows}
    for degree in DEGREES[1:]:
        parts = []
        for step, start in enumerate(range(0, len(flat), PASS)):
            random = Random(scene.asked.seed, f"probe/hull/views/{degree}", step, device=subject.machine.device)
            (at,) = random.carry(flat[start : start + PASS])
            parts.append(subject.net.features(data.view(at, degree, random)).double().cpu().numpy())
        for k, own in zip(rows, np.split(np.concatenate(parts), ends), strict=True):
            found[k][f"augmented {degree:g}"] = own
    return found


PASS = 256  # images in a pass


def headline(table: Any) -> dict[str, float]:
    """The gap between test and held-back images, in 16 dimensions."""
    rows = table[table["row"] == "gap"]
    main = rows[rows["dims"] == main_dims(list(rows["dims"]))]
    return {"gap_test": float(main["gap_test"].iloc[0])}


def _remarks(scene: Scene, table: Any) -> Iterator[str]:
    if scene.brief:
        return
    yield "held-back training images are the control; never compare across dimensions or numbers of images"
    yield "blends lie in their own hull and leave any distribution inwards: read them beside the Gaussian"
    left = len(scene.classes) - table.loc[table["row"] == "class", "class"].nunique()
    if left:
        yield f"{left} classes with fewer than {FEWEST} training images left out"
    uncertain = int(table["uncertain"].sum())
    if uncertain:
        yield f"{uncertain} distances without certificate; they are among the others"
    used = table["used_dims"].min()
    if used < max(table["dims"]):
        yield f"classes of few images span fewer dimensions: {int(used)} at least"
