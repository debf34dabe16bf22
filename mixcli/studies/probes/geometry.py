"""geometry.py: how tightly a net's features gather by class, and how far the classes stand apart.

Sources: Papyan, Han, Donoho 2020, arXiv 2008.08186 (`nc1` .. `nc4`); Galanti, Gyorgy, Hutter 2021, arXiv 2112.15121
(`nc1_cdnv`); Wang, Isola 2020, arXiv 2005.10242 (`alignment`, `uniformity`); Roy, Vetterli 2007 (`effective_rank`).
Cohesion and separability are ours: the papers that claim them give no formula. Legend: z_i = features, u_i = z_i /
||z_i||, n_k = images of class k, c_k = mean of u_i, m_k = mean of z_i, m = mean of m_k, C = classes, N = images,
S_B, S_W = covariance between and within classes.

    cohesion       mean_k ||c_k||                                     grows as n_k falls
    cohesion_pair  mean_k (n_k ||c_k||^2 - 1) / (n_k - 1)             mean cosine of pairs of a class; unbiased in n_k
    separability   mean_{k<l} 1 - cos(c_k, c_l)                       centred: of u_i = (z_i - m) / ||z_i - m||
    fisher         tr S_B / tr S_W of u                               = Calinski-Harabasz (C - 1) / (N - C)
    nc1            tr(S_W pinv S_B) / C of z                          the top min(d, C - 1) directions of S_B alone
    alignment      2 - 2 cohesion_pair

Unit length, because mixing shrinks norms, and shrinkage alone would look like cohesion. Everything is float64: with
float32 and a default pseudo-inverse `nc1` reads 1.6e9 in place of 0.078. The scores of known libraries (silhouette,
Davies-Bouldin, Calinski-Harabasz, nearest neighbours, logistic regression) are scikit-learn's.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from mixcli.data.sources import Split
from mixcli.errors import UserError
from mixcli.report.probes import geometry as page
from mixcli.sampling import Random
from mixcli.studies.probes.catalogue import Geometry
from mixcli.studies.probes.features import Features
from mixcli.studies.probes.findings import Findings
from mixcli.studies.probes.linearity import BATCHNORM_IMAGES, untrained, with_clean_batchnorm
from mixcli.studies.probes.probing import Scene, computed, fresh_facts, images_of, warn_of_twins
from mixcli.studies.subjects import Subject

ROUNDING = 1e-10  # of the largest singular value: what lies below it is rounding, not a direction
SILHOUETTE = 5000  # images at most
PAIRS = 100_000  # of images, for uniformity
NEIGHBOURS = 20


@dataclass(frozen=True)
class Clusters:
    """Features that can be measured, by class.

    z         (N, D) float64
    labels    (N,) int64: places in `classes`
    classes   (C,) int64: the classes as the data set numbers them
    rows      (N,) int64: which of the given rows these are
    left_out  what is not among them, as lines for readers
    """

    z: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    rows: np.ndarray
    left_out: tuple[str, ...] = ()

    @cached_property
    def counts(self) -> np.ndarray:
        """(C,) images of each class."""
        return np.bincount(self.labels, minlength=len(self.classes))

    @cached_property
    def u(self) -> np.ndarray:
        """(N, D) features of unit length."""
        return unit(self.z)

    @cached_property
    def means(self) -> np.ndarray:
        """(C, D): m_k."""
        return self.mean(self.z)

    @cached_property
    def centres(self) -> np.ndarray:
        """(C, D): c_k."""
        return self.mean(self.u)

    def mean(self, rows: np.ndarray) -> np.ndarray:
        """(N, ...) rows -> (C, ...) their means by class."""
        order = np.argsort(self.labels, kind="stable")
        starts = np.cumsum(self.counts) - self.counts
        total = np.add.reduceat(rows[order], starts)
        return total / self.counts.reshape(-1, *[1] * (rows.ndim - 1))


def clusters(features: np.ndarray, labels: np.ndarray, site: str = "features") -> Clusters:
    """Features of unit length and at least two classes of at least two images.

    features  (N, D), or (N, D, ...) maps, which are flattened; any float
    labels    (N,) int
    Left out, and told: features of norm 0, and classes with one image, whose cohesion is undefined.
    Raises UserError: diverged where a feature is not finite or all are equal, data_missing for fewer than two classes.
    """
    z = np.asarray(features, np.float64).reshape(len(features), -1)
    bad = int((~np.isfinite(z)).any(1).sum())
    if bad:
        raise UserError("diverged", site, f"non-finite in {bad} row{'' if bad == 1 else 's'}")
    if len(z) > 1 and (z == z[0]).all():
        raise UserError("diverged", site, "no variance: all features are equal", hint="The net says nothing here")
    some = np.linalg.norm(z, axis=1) > 0
    known, place, counts = np.unique(labels[some], return_inverse=True, return_counts=True)
    kept = np.flatnonzero(some)[counts[place] > 1]
    alone = known[counts == 1]
    told = [f"{int((~some).sum())} features of norm 0, left out"] if not some.all() else []
    told += [f"class {name}: cohesion undefined (n = 1), left out" for name in alone[:3]]
    told += [f"{len(alone) - 3} more classes with one image, left out"] if len(alone) > 3 else []
    classes, of_kept = np.unique(labels[kept], return_inverse=True)
    if len(classes) < 2:
        found = f"{len(classes)} class{'' if len(classes) == 1 else 'es'} with at least two images"
        raise UserError("data_missing", site, found, expected="two or more")
    return Clusters(z[kept], of_kept, classes, kept, tuple(told))


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays one."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


# ----------------------------------------------------------------------------------------- together and apart, by angle


def cohesion(found: Clusters) -> float:
    """Mean over classes of the mean cosine between an image and its class's centre."""
    return float(np.linalg.norm(found.centres, axis=1).mean())


def cohesion_pair(found: Clusters) -> float:
    """Mean over classes of the mean cosine of two distinct images of a class."""
    n = found.counts
    return float(((n * np.square(found.centres).sum(1) - 1) / (n - 1)).mean())


def separability(found: Clusters) -> tuple[float, float]:
    """1 - cosine of the centres of two classes: mean and minimum over pairs of classes."""
    return _apart(found.centres)


def separability_centred(found: Clusters) -> tuple[float, float]:
    """The same of z less the mean of the class means, which features without negative numbers share; at most C/(C-1)
    on average."""
    return _apart(found.mean(unit(found.z - found.means.mean(0))))


def _apart(centres: np.ndarray) -> tuple[float, float]:
    values = 1 - _pairs(unit(centres) @ unit(centres).T)
    return float(values.mean()), float(values.min())


def _pairs(table: np.ndarray) -> np.ndarray:
    """(C, C) -> the entries k < l."""
    return table[np.triu_indices(len(table), 1)]


def intra(found: Clusters) -> float:
    """Mean over classes of the mean distance between an image and its class's centre, on the unit sphere."""
    return float(found.mean(np.linalg.norm(found.u - found.centres[found.labels], axis=1)).mean())


def inter(found: Clusters) -> float:
    """Mean distance of two classes' centres."""
    return float(np.sqrt(_square_distances(found.centres)).mean())


def _square_distances(rows: np.ndarray) -> np.ndarray:
    """||a_k - a_l||^2 for k < l, of rows made small first, so that little cancels."""
    centred = rows - rows.mean(0)
    norms = np.square(centred).sum(1)
    return np.maximum(_pairs(norms[:, None] + norms - 2 * centred @ centred.T), 0)


def fisher(found: Clusters, rows: np.ndarray | None = None) -> float:
    """tr S_B / tr S_W, classes weighted by their images; of u unless other `rows` (N, D) are given."""
    rows = found.u if rows is None else rows
    centres = found.mean(rows)
    within = np.square(rows - centres[found.labels]).sum()
    between = found.counts @ np.square(centres - rows.mean(0)).sum(1)
    return _quotient(between, within)


def alignment(found: Clusters) -> float:
    """Mean squared distance of two distinct images of a class, classes weighted alike."""
    return 2 - 2 * cohesion_pair(found)


def uniformity(found: Clusters, random: Random) -> float:
    """log mean exp(-2 ||u_i - u_j||^2) over fixed pairs of distinct images: about -4 on a sphere, 0 in a point."""
    n = len(found.u)
    first = random.host.integers(n, size=PAIRS)
    second = (first + random.host.integers(1, n, size=PAIRS)) % n
    cosines = np.concatenate([np.einsum("ij,ij->i", found.u[a], found.u[b]) for a, b in _in_pieces(first, second)])
    return float(np.log(np.exp(-2 * (2 - 2 * cosines)).mean()))


def _in_pieces(first: np.ndarray, second: np.ndarray, size: int = 10_000):
    """Pairs in pieces, so that a hundred thousand rows of features are never copied at once."""
    return ((first[i : i + size], second[i : i + size]) for i in range(0, len(first), size))


def effective_rank(found: Clusters) -> float:
    """exp of the entropy of the normalised singular values of the centred features: 1 .. D."""
    triangle = np.linalg.qr(found.z - found.z.mean(0), mode="r")  # has the singular values of the whole
    values = np.linalg.svd(triangle, compute_uv=False)
    share = values[values > 0] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


# ------------------------------------------------------------------------------------------------------ neural collapse


def nc1(found: Clusters) -> float:
    """tr(S_W pinv S_B) / C; class means weigh alike. Without forming either: S_B is V diag(s^2 / C) V'."""
    _, s, v = np.linalg.svd(found.means - found.means.mean(0), full_matrices=False)
    most = min(found.z.shape[1], len(found.classes) - 1)
    used = s[:most] > ROUNDING * s[0] if s[0] > 0 else np.zeros(most, bool)
    if not used.any():
        return math.nan
    along = (found.z - found.means[found.labels]) @ (v[:most][used] / s[:most][used, None]).T
    return float(np.square(along).sum() / len(found.z))


def nc1_cdnv(found: Clusters) -> float:
    """Mean over pairs of classes of their mean variance over their squared distance: 0 where classes are points."""
    variance = found.mean(np.square(found.z - found.means[found.labels]).sum(1))
    apart = _square_distances(found.means)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float((_pairs(variance[:, None] + variance) / (2 * apart)).mean())


def nc2(rows: np.ndarray) -> tuple[float, float]:
    """How far (C, D) rows, less their mean, are from a simplex: coefficient of variation of their norms, and mean
    over pairs of |cosine + 1 / (C - 1)|; 0 and 0 for a simplex."""
    centred = rows - rows.mean(0)
    norms = np.linalg.norm(centred, axis=1)
    angles = np.abs(_pairs(unit(centred) @ unit(centred).T) + 1 / (len(rows) - 1))
    return _quotient(norms.std(), norms.mean()), float(angles.mean())


def nc3(weight: np.ndarray, means: np.ndarray) -> float:
    """Distance between the (C, D) rows of a linear head and the class means, both less their mean and of norm 1."""
    head, centred = weight - weight.mean(0), means - means.mean(0)
    if not np.linalg.norm(head) or not np.linalg.norm(centred):
        return math.nan
    return float(np.linalg.norm(head / np.linalg.norm(head) - centred / np.linalg.norm(centred)))


def nc4(z: np.ndarray, answers: np.ndarray, means: np.ndarray, classes: np.ndarray) -> float:
    """Share of (N, D) features whose nearest class mean is not the net's answer (N,).

    means    (C, D) of the training images of `classes` (C,)
    """
    middle = means.mean(0)
    centred, towards = z - middle, means - middle
    nearest = (np.square(towards).sum(1) - 2 * centred @ towards.T).argmin(1)  # ||z||^2 decides nothing
    return float((classes[nearest] != answers).mean())


def _quotient(above: Any, below: Any) -> float:
    return float(above / below) if below > 0 else math.nan if above == 0 else math.inf


# -------------------------------------------------------------------------------------------------- scores of libraries


def clustering(found: Clusters, random: Random) -> dict[str, float]:
    """Silhouette by cosine on a fixed stratified sample; Davies-Bouldin and Calinski-Harabasz of all unit features."""
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

    rows = stratified(found.labels, SILHOUETTE, random)
    scores = {"davies_bouldin": davies_bouldin_score(found.u, found.labels),
              "calinski_harabasz": calinski_harabasz_score(found.u, found.labels)}  # fmt: skip
    return {"silhouette": float(silhouette_score(found.u[rows], found.labels[rows], metric="cosine")),
            **{name: float(value) for name, value in scores.items()}}  # fmt: skip


def stratified(labels: np.ndarray, most: int, random: Random) -> np.ndarray:
    """Rows in order, at most `most`, as equal per class as the classes allow: each gives its next row in turn."""
    shuffled = random.host.permutation(len(labels))
    if len(labels) <= most:
        return np.arange(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    turn = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[np.argsort(turn, kind="stable")[:most]])


def nearest_neighbours(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, labels: np.ndarray,
                       k: int = NEIGHBOURS) -> float:  # fmt: skip
    """Accuracy, 0 to 1, of the k nearest training features by cosine. Raises UserError for a k that cannot be."""
    from sklearn.neighbors import KNeighborsClassifier

    if not 1 <= k <= len(train):
        raise UserError("usage", "--k", "out of range", got=k, expected=f"1 .. {len(train)} training images")
    fitted = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(train, train_labels)
    return float((fitted.predict(test) == labels).mean())


def logistic(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, labels: np.ndarray,
             c: float = 1.0, iterations: int = 1000) -> tuple[float, bool]:  # fmt: skip
    """Accuracy, 0 to 1, of a logistic regression on standardised features, and whether it converged.

    c  the inverse of its L2 penalty. Raises UserError where it is not a number above 0.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not (c > 0 and math.isfinite(c)):
        raise UserError("usage", "--C", "out of range", got=c, expected="a number above 0")
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=iterations))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fitted.fit(train, train_labels)
    converged = not any(issubclass(one.category, ConvergenceWarning) for one in told)
    return float((fitted.predict(test) == labels).mean()), converged


# ------------------------------------------------------------------------------------------------------ the whole table


def numbers(found: Clusters, random: Random, weight: np.ndarray | None = None) -> dict[str, float]:
    """Every number of one set of features that needs no other, by name, in the order of the tables.

    weight  (classes, D) rows of the linear head that reads these features, or None where none does
    random  keyed by the probe and the data, so that all nets are measured on the same pairs and sample
    """
    apart, closest = separability(found)
    apart_centred, closest_centred = separability_centred(found)
    within, between = intra(found), inter(found)
    norm, angle = nc2(found.means)
    head = {} if weight is None else _of_head(weight.astype(np.float64), found)
    return {
        "cohesion_pair": cohesion_pair(found), "separability_centred": apart_centred, "nc1": nc1(found),
        "cohesion": cohesion(found), "separability": apart, "separability_min": closest,
        "separability_centred_min": closest_centred,
        "intra": within, "inter": between, "ratio": _quotient(within, between), "fisher": fisher(found),
        "nc1_cdnv": nc1_cdnv(found), "nc2_norm": norm, "nc2_angle": angle, **head,
        "alignment": alignment(found), "uniformity": uniformity(found, random.child("uniformity")),
        "effective_rank": effective_rank(found), **clustering(found, random.child("silhouette")),
    }  # fmt: skip


def _of_head(weight: np.ndarray, found: Clusters) -> Mapping[str, float]:
    norm, angle = nc2(weight)
    return {"nc2_norm_head": norm, "nc2_angle_head": angle, "nc3": nc3(weight[found.classes], found.means)}


# ------------------------------------------------------------------------------------------------------------------ CKA


def cka(sites: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> list[dict[str, str | float]]:
    """Linear CKA of each site of one net with each of another on the same images: a row each, `debiased` first.

    S. Kornblith et al. 2019, arXiv 1905.00414 (`biased`); L. Song et al. 2012, HSIC_1 (`debiased`): the biased one
    reads 0.84 for independent features of 512 dimensions and 100 images.
    sites, others  name -> (n, D) features
    """
    mine, theirs = ({name: _grams(rows) for name, rows in given.items()} for given in (sites, others))
    return [{"site": a, "other_site": b, "cka_debiased": _cosine(mine[a][1], theirs[b][1]),
             "cka_biased": _cosine(mine[a][0], theirs[b][0])} for a in mine for b in theirs]  # fmt: skip


def _grams(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The (n, n) products of centred rows, and the same with the diagonal set to 0 and centred without it: the inner
    product of two of the latter is n (n - 3) HSIC_1."""
    rows = np.asarray(rows, np.float64).reshape(len(rows), -1)
    centred = rows - rows.mean(0)
    gram = centred @ centred.T
    n = len(gram)
    if n < 4:
        raise UserError("data_missing", "CKA", "too few images", got=n, expected="at least 4")
    bare = gram - np.diag(np.diag(gram))
    side = bare.sum(0) / (n - 2)
    bare = bare - side - side[:, None] + bare.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(bare, 0)
    return gram, bare


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return _quotient(float(np.vdot(a, b)), float(np.linalg.norm(a) * np.linalg.norm(b)))


# ------------------------------------------------------------------------------------------------------------ the probe

UNTRAINED = 3  # fresh initialisations
ALIKE = 2000  # images at most, on which two nets are compared
TRAINING = 10_000  # training images at most: neighbours, class means, and the collapse where it is defined
HEADLINE = ("cohesion_pair", "separability_centred", "nc1")
BRIEF = (*HEADLINE, "cohesion", "separability", "separability_min", "intra", "inter", "ratio", "knn")


def passes(scene: Scene, options: Geometry) -> int:
    """Forward passes of one image: of those not cached, and of the fresh nets."""
    own = sum(scene.missing(subject) for subject in scene.subjects)
    train = sum(scene.missing(subject, "train", _training(scene, subject)) for subject in scene.subjects)
    references = len(scene.chosen) + len(_training(scene, scene.main)) + BATCHNORM_IMAGES
    fresh = 0 if scene.brief else UNTRAINED * references
    return own + train + fresh


def look(scene: Scene, options: Geometry) -> Findings:
    """Numbers of every subject and site, of fresh nets, and the likeness of the subjects to the first one."""
    warn_of_twins(scene)
    sites = _sites(scene)
    rows: list[dict[str, Any]] = []
    told: list[str] = []
    seen = [scene.features(subject) for subject in scene.subjects]
    for subject, found in zip(scene.subjects, seen, strict=True):
        rows += _of_subject(scene, options, subject, found, sites, told)
    if not scene.brief:
        rows += _of_fresh_nets(scene, options, sites)
        rows += _likeness(scene, seen)
    frame = pd.DataFrame(rows)
    return Findings(frame, {"sites": list(sites)}, page, remarks=(*dict.fromkeys(told), *_remarks(scene, frame)))


def _sites(scene: Scene) -> tuple[str, ...]:
    """`pooled`, unless others are asked for; maps are averaged over space or tokens."""
    if scene.asked.stages is None:
        return ("pooled",)
    found = tuple(site for site in scene.sites if site not in ("input", "softmax"))
    if not found:
        raise UserError("usage", "--stages", "features are measured, not images or probabilities",
                        scene.asked.stages, "stages, pooled or logits")  # fmt: skip
    return found


def _training(scene: Scene, subject: Subject) -> Split:
    return scene.some(subject, "train", TRAINING, "training")


def _of_subject(
    scene: Scene, options: Geometry, subject: Subject, seen: Features, sites: Sequence[str], told: list[str]
) -> Iterator[dict[str, Any]]:
    """A row per site and split, and a row per class of the last site."""
    facts = scene.facts(subject)
    training = _training(scene, subject)
    known = scene.features(subject, "train", training)
    answers = seen.values["logits"].argmax(1)
    for site in sites:
        own, train = (clusters(part.values[site], part.labels, site) for part in (seen, known))
        told += [f"{subject.label}, {site}: {line}" for line in own.left_out]
        head = subject.net.head.weight.detach().cpu().numpy() if site == "pooled" else None
        found = numbers(own, scene.random("numbers"), head)
        found |= _against_training(options, own, train, answers, site, told)
        yield {**facts, "row": "numbers", "site": site, "classes": len(own.classes), **_kept(found, options)}
        if options.full and scene.asked.split != "train":
            trained = numbers(train, scene.random("numbers"), head)
            yield {**facts, "split": "train", "images": len(training), "row": "numbers", "site": site,
                   "classes": len(train.classes), **_kept(trained, options)}  # fmt: skip
        if site == sites[-1] or site == "pooled":
            yield from ({**facts, "row": "class", "site": site, **one} for one in by_class(own, scene.classes))


def _against_training(
    options: Geometry, own: Clusters, train: Clusters, answers: np.ndarray, site: str, told: list[str]
) -> dict[str, Any]:
    """Accuracy of neighbours among the training images, and with --full or --linear what else rests on them."""
    names = train.classes[train.labels], own.classes[own.labels]
    found: dict[str, Any] = {"knn": nearest_neighbours(train.z, names[0], own.z, names[1], options.k)}
    if options.full and site == "pooled":
        found["nc4"] = nc4(own.z, answers[own.rows], train.means, train.classes)
    if options.linear:
        found["linear"], converged = logistic(train.z, names[0], own.z, names[1], options.C)
        if not converged:
            told.append(f"{site}: linear probe not converged after 1000 iterations; its score is marked")
        found["linear_converged"] = converged
    return found


def _kept(found: Mapping[str, Any], options: Geometry) -> dict[str, Any]:
    more = ("linear", "linear_converged")
    return {name: value for name, value in found.items() if options.full or name in BRIEF or name in more}


def _of_fresh_nets(scene: Scene, options: Geometry, sites: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The first subject's net before any training, three times; its BatchNorm knows clean training images, which are
    the neighbours too."""
    training = _training(scene, scene.main)
    images = images_of(scene.main, scene.some(scene.main, "train", BATCHNORM_IMAGES, "batchnorm"))
    for number in range(UNTRAINED):
        net = untrained(scene.main, scene.random("untrained").child(str(number)))
        fresh = replace(scene.main, net=with_clean_batchnorm(net, images))
        seen, known = computed(fresh, scene.chosen), computed(fresh, training)
        facts = scene.facts(scene.main) | fresh_facts(number)
        for site in sites:
            found = numbers(clusters(seen.values[site], seen.labels, site), scene.random("numbers"))
            found["knn"] = nearest_neighbours(known.values[site], known.labels, seen.values[site], seen.labels,
                                              options.k)  # fmt: skip
            yield {**facts, "row": "numbers", "site": site, **_kept(found, options)}


def _likeness(scene: Scene, seen: Sequence[Features]) -> Iterator[dict[str, Any]]:
    """CKA of every site of the first subject with every site of each other one."""
    rows = stratified(seen[0].labels, ALIKE, scene.random("likeness"))
    first, *others = (found.take(rows).values for found in seen)
    if scene.asked.all_epochs or len(rows) < 4:
        return
    for subject, values in zip(scene.subjects[1:], others, strict=True):
        for row in cka(first, values):
            yield {**scene.facts(subject), "images": len(rows), "row": "cka", **row}


def by_class(found: Clusters, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Of each class: its images, the mean cosine of its pairs, and the nearest other class, centred."""
    n = found.counts
    pairs = (n * np.square(found.centres).sum(1) - 1) / (n - 1)
    centres = unit(found.mean(unit(found.z - found.means.mean(0))))
    apart = 1 - centres @ centres.T + 9 * np.eye(len(n))  # never its own nearest
    nearest = apart.argmin(1)
    for k, name in enumerate(found.classes.tolist()):
        closest = int(nearest[k])
        yield {"class": names[name], "class_images": int(n[k]), "class_cohesion": float(pairs[k]),
               "class_apart": float(apart[k, closest]),
               "nearest_class": names[int(found.classes[closest])]}  # fmt: skip


def headline(table: Any) -> dict[str, float]:
    """The three numbers of `pooled`, on the images asked for."""
    rows = table[(table["row"] == "numbers") & (table["site"] == "pooled")]
    return {name: float(rows[name].iloc[0]) for name in HEADLINE} if len(rows) else {}


def _remarks(scene: Scene, table: Any) -> Iterator[str]:
    if scene.brief:
        return
    if "against" not in scene.roles:
        yield "no reference run: --against a run of the same recipe and epochs, `none` or the clean-image control"
        return
    epochs = {subject.epoch for subject in scene.subjects}
    if len(epochs) > 1 and not scene.asked.all_epochs:
        yield f"epochs differ ({', '.join(map(str, sorted(epochs)))}): longer training tightens classes by itself"
    if scene.asked.all_epochs:
        return
    first = headline(table[table["checkpoint"] == scene.main.label])
    for subject in scene.subjects[1:] if first else ():
        other = headline(table[table["checkpoint"] == subject.label])
        yield together(first, other, f"{scene.main.label} against {subject.label}")


def together(first: Mapping[str, float], other: Mapping[str, float], who: str) -> str:
    """Both headline differences in one line, so that a gain in one with a loss in the other is seen."""
    tighter, apart = (first[name] - other[name] for name in HEADLINE[:2])
    verdict = "a gain in one with a loss in the other" if tighter * apart < 0 else "both rise" if tighter > 0 else (
        "both fall" if tighter < 0 else "no change in cohesion")  # fmt: skip
    return (
        f"{who}: cohesion_pair {tighter:+.3f}, separability_centred {apart:+.3f}: {verdict}; of these two files alone"
    )
