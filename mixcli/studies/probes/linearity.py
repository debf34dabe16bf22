"""linearity.py: how far the map from input to stage is from linear between images, stage by stage.

Chosen, since only the abstract of "When does mixup promote local linearity in learned representations?" (2022, arXiv
2210.16413) could be read; no maintained package measures this. A tuple is K images x_1 .. x_K with weights l of sum 1;
h is the map to a site, hbar = sum_k l_k h(x_k). Over tuples t (`Sums`, `ratios`):

    numerator_t = || h(sum_k l_k x_k) - hbar ||
    dev_norm    = mean_t numerator_t / mean_t || hbar ||
    dev_spread  = mean_t numerator_t / mean_t sqrt(sum_k l_k || h(x_k) - hbar ||^2)

Ratios of means: in a mean of ratios one collapsed pair would dominate. Both ignore scale and rotation of h, dev_spread
also a constant offset; mixup changes norms, so a finding counts only if both agree in sign. The spread is taken from
the distances between the points, sum_k l_k || h_k - hbar ||^2 = sum_{j<k} l_j l_k || h_j - h_k ||^2, without
cancellation. No image is used twice in a list of tuples, so tuples are independent given the net.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from mixcli.errors import UserError
from mixcli.nets.building import of_run
from mixcli.nets.staged import StagedNet
from mixcli.nets.whitening import whitenings
from mixcli.report.probes import linearity as page
from mixcli.sampling import Random, dirichlet
from mixcli.studies.probes import sites
from mixcli.studies.probes.catalogue import Linearity
from mixcli.studies.probes.findings import Findings
from mixcli.studies.probes.probing import Scene, fresh_facts, images_of
from mixcli.studies.subjects import Subject

GROUPS = ("same", "different")
CURVE = tuple(k / 10 for k in range(1, 10))  # the weight of the first of two images; 0 and 1 are known zeros
DRAWS = 4  # of Dir(1) per tuple, averaged inside it first
DIR1 = "dir1"
TUPLES, TUPLES_CPU = 2000, 500  # per group, at most; on a CPU unless --images is typed
RESAMPLES, FEWEST = 2000, 30  # of the bootstrap; no interval for fewer tuples
PIXELS = 2**17  # of the images in a forward pass: 128 of 32 x 32
UNTRAINED = 3  # fresh initialisations
BATCHNORM_IMAGES = 2000  # clean training images on which statistics are estimated
REDUCES = ("full", "pool")
SEEDS = 3  # that must agree before a direction is said to be seen
NOT_INTERMEDIATE = ("input", "stem", *sites.ENDS)

Key = tuple[str, str, str, str]  # mix_at, site, tap, reduce


# --------------------------------------------------------------------------------------------------------------- tuples


def tuples(labels: np.ndarray, points: int, group: str, random: Random) -> np.ndarray:
    """Rows of images mixed with each other, (T, K) int64, at most TUPLES; no row stands twice.

    group  `same`: all of one class, classes in turn; `different`: K distinct classes
    """
    rng = random.host
    classes = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    return _same(classes, points, rng) if group == "same" else _different(classes, points, rng)


def _same(classes: Sequence[np.ndarray], points: int, rng: np.random.Generator) -> np.ndarray:
    """Round by round one tuple of every class that has one left, in random order."""
    blocks = [rows[: len(rows) // points * points].reshape(-1, points) for rows in classes]
    found: list[np.ndarray] = []
    for turn in range(max(map(len, blocks), default=0)):
        there = [block[turn] for block in blocks if turn < len(block)]
        found += [there[i] for i in rng.permutation(len(there))]
    return np.array(found[:TUPLES], np.int64).reshape(-1, points)


def _different(classes: Sequence[np.ndarray], points: int, rng: np.random.Generator) -> np.ndarray:
    """Tuple by tuple K classes, drawn by what they have left; one that would be left over otherwise must come in."""
    left = np.array([len(rows) for rows in classes])
    count = _feasible(left, points)
    found = np.empty((min(count, TUPLES), points), np.int64)
    for t in range(len(found)):
        usable = np.minimum(left, count - t)
        due = rng.permutation(np.flatnonzero((usable == count - t) & (usable > 0)))[:points]
        weights = usable.astype(float)
        weights[due] = 0
        taken = [due]
        if len(due) < points:
            taken.append(rng.choice(len(left), points - len(due), replace=False, p=weights / weights.sum()))
        for place, c in enumerate(rng.permutation(np.concatenate(taken))):
            left[c] -= 1
            found[t, place] = classes[c][left[c]]
    return found


def _feasible(sizes: np.ndarray, points: int) -> int:
    """The most tuples of distinct classes: the largest T with sum_c min(n_c, T) >= K T."""
    count = int(sizes.sum()) // points
    while count > 0 and np.minimum(sizes, count).sum() < points * count:
        count -= 1
    return count


@dataclass(frozen=True)
class Weights:
    """The weights of a list of tuples.

    values  (T, W, K) float64, rows of sum 1
    names   (W,) the name of each: a number of the curve, or dir1, which stands DRAWS times
    """

    values: np.ndarray
    names: tuple[str, ...]


def weights(count: int, points: int, random: Random, curve: Sequence[float] = CURVE) -> Weights:
    """Those of the curve, for two points alone, and DRAWS of Dir(1)."""
    drawn = dirichlet(random.host, np.ones((count * DRAWS, points))).reshape(count, DRAWS, points)
    along = [(first, 1 - first) for first in curve] if points == 2 else []
    fixed = np.broadcast_to(np.array(along).reshape(1, len(along), points), (count, len(along), points))
    return Weights(
        np.concatenate([fixed, drawn], 1), (*(f"{first:g}" for first in curve[: len(along)]), *[DIR1] * DRAWS)
    )


# ------------------------------------------------------------------------------------------------------------ deviation


def deviations(mixed: Tensor, plain: Tensor, weights: Tensor) -> Tensor:
    """Of tuples: numerator, || hbar || and spread, (3, W, B) float64.

    mixed    (W, B, ...) values at mixed images
    plain    (K, B, ...) values at their images
    weights  (W, K, B) float64, sum over K is 1
    """
    mixed, plain = (values.flatten(2).double() for values in (mixed, plain))
    points = len(plain)
    squared = torch.zeros(weights.shape[0], weights.shape[2], dtype=torch.float64, device=plain.device)  # (W, B)
    for j in range(points):
        for k in range(j + 1, points):
            squared += weights[:, j] * weights[:, k] * (plain[j] - plain[k]).square().sum(-1)
    found = torch.empty(3, *squared.shape, dtype=torch.float64, device=plain.device)
    for w, values in enumerate(mixed):  # one at a time: full maps are large
        mean = (weights[w, :, :, None] * plain).sum(0)
        found[0, w], found[1, w] = (values - mean).norm(dim=-1), mean.norm(dim=-1)
    found[2] = squared.sqrt()
    return found


@dataclass(frozen=True)
class Sums:
    """What one net does to one list of tuples: (mix_at, site, tap, reduce) -> (3, W, T) float64, see `deviations`."""

    values: Mapping[Key, np.ndarray]
    names: tuple[str, ...]

    def named(self, key: Key, name: str) -> np.ndarray:
        """(3, T): those of one row of the table, draws averaged inside each tuple."""
        return self.values[key][:, [n == name for n in self.names]].mean(1)


def measured(
    net: StagedNet, images: Tensor, rows: np.ndarray, weights: Weights, mix_sites: Sequence[str],
    shown: Sequence[str], reduces: Sequence[str] = REDUCES,
) -> Sums:  # fmt: skip
    """Mixes tuples at every site of `mix_sites` and reads all sites from there on that are `shown`.

    images  (n, C, H, W), normalised, on the net's device, of its dtype; rows (T, K) of them
    Raises UserError: diverged where a value is not finite.
    """
    found: dict[Key, list[Tensor]] = {}
    at_once = PIXELS // (images.shape[2] * images.shape[3])
    count = max(1, at_once // max(weights.values.shape[1], rows.shape[1]))
    with sites.taps(net, images[:1]) as read:
        for start in range(0, len(rows), count):
            part = torch.from_numpy(rows[start : start + count]).to(images.device)
            ratio = (
                torch.from_numpy(weights.values[start : start + count]).to(images.device).permute(1, 2, 0)
            )  # (W, K, B)
            for key, values in _batch(read, images[part.T.flatten()], ratio, mix_sites, shown, reduces):
                found.setdefault(key, []).append(values.cpu())
    return Sums({key: torch.cat(parts, 2).numpy() for key, parts in found.items()}, weights.names)


def _batch(
    read: Any, images: Tensor, ratio: Tensor, mix_sites: Sequence[str], shown: Sequence[str], reduces: Sequence[str]
) -> Iterator[tuple[Key, Tensor]]:
    """(3, W, B) of every key, for images (K B, ...)."""
    points = ratio.shape[1]
    plain: dict[tuple[str, str], Tensor] = {}
    for site, tap, values in read(images):
        sites.must_be_finite(site, values)
        plain[site, tap] = values.reshape(points, -1, *values.shape[1:]).clone()
    for start in mix_sites:
        ends = plain[start, "post"]
        mixed = torch.einsum("wkb,kb...->wb...", ratio.to(ends.dtype), ends)  # (W, B, ...)
        for site, tap, values in read(mixed.flatten(0, 1), start):
            sites.must_be_finite(site, values)
            if site not in shown:
                continue
            both = values.reshape(*mixed.shape[:2], *values.shape[1:]), plain[site, tap]
            for reduce in reduces if values.ndim > 2 else reduces[:1]:
                ours, theirs = both if reduce == "full" else map(_pooled, both)
                yield (start, site, tap, reduce), deviations(ours, theirs, ratio)


def _pooled(values: Tensor) -> Tensor:
    """(A, B, ...) maps as (A, B, C)."""
    return sites.reduced(values.flatten(0, 1)).unflatten(0, values.shape[:2])


# ---------------------------------------------------------------------------------------------------- ratios, intervals


def ratios(sums: np.ndarray) -> tuple[float, float]:
    """dev_norm and dev_spread of (3, T) sums; nan where the denominator is 0."""
    numerator, norm, spread = sums.mean(1)
    return float(numerator / norm) if norm > 0 else np.nan, float(numerator / spread) if spread > 0 else np.nan


def resamples(count: int, random: Random) -> np.ndarray | None:
    """How often each of `count` tuples stands in each resample, (RESAMPLES, T) float64; None below FEWEST."""
    if count < FEWEST:
        return None
    return random.host.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float64)


def intervals(sums: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """95 % percentile intervals of `ratios`, (R, 3, T) -> (R, (norm, spread), (low, high)); nan where there is none."""
    if counts is None:
        return np.full((len(sums), 2, 2), np.nan)
    flat = torch.from_numpy(np.ascontiguousarray(sums.reshape(-1, sums.shape[-1]).T))
    totals = (torch.from_numpy(counts) @ flat).numpy().reshape(len(counts), *sums.shape[:2])  # on the probe's threads
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.moveaxis(np.quantile(totals[..., :1] / totals[..., 1:], [0.025, 0.975], axis=0), 0, -1)


# ----------------------------------------------------------------------------------------------------------- references


def untrained(subject: Subject, random: Random) -> StagedNet:
    """The subject's net before any training, its weights drawn from `random`; a whitening of images is no training."""
    data = subject.data
    net = of_run(subject.settings, data["channels"], len(data["classes"]), tuple(data["size"]), random)
    for layer, fitted in zip(whitenings(net), whitenings(subject.net), strict=True):
        layer.load_state_dict(fitted.state_dict())
    return net.to(subject.machine.device).eval()


def with_clean_batchnorm(net: StagedNet, images: Tensor, batch: int = 250) -> StagedNet:
    """A copy of the net whose BatchNorm statistics are the averages over `images` (n, C, H, W)."""
    net = copy.deepcopy(net)
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.train()
    parts = -(-len(images) // batch)
    for part in images.chunk(parts):
        net(part)
    return net.eval()


# ------------------------------------------------------------------------------------------------------------ the probe


@dataclass(frozen=True)
class List:
    """Tuples of one group and number of points, with their weights and resamples."""

    group: str
    rows: np.ndarray
    weights: Weights
    counts: np.ndarray | None

    @property
    def points(self) -> int:
        return self.rows.shape[1]


def lists(scene: Scene, options: Linearity) -> list[List]:
    """The tuples that every net is shown.

    Raises UserError: data_missing where there is no tuple of a group, mismatch for a net of other stages.
    """
    for other in scene.subjects[1:]:
        if sites.sites(other.net) != sites.sites(scene.main.net):
            raise UserError("mismatch", other.label, "has other stages", ", ".join(other.net.stages),
                            ", ".join(scene.main.net.stages))  # fmt: skip
    curve = () if scene.brief else (0.5,) if options.mix_at == "every" else CURVE
    limit = TUPLES if scene.main.machine.device.type != "cpu" or scene.asked.images is not None else TUPLES_CPU
    found = []
    for points in sorted(set((2,) if scene.brief else options.points)):
        for group in ("different",) if scene.brief else GROUPS:
            random = scene.random(f"{group}-{points}")
            rows = tuples(scene.chosen.labels, points, group, random.child("tuples"))
            drawn = weights(len(rows), points, random.child("weights"), curve)
            if not len(rows):
                what = f"{points} images of one class" if group == "same" else f"{points} classes"
                raise UserError("data_missing", "--images", f"no tuple of {what}", len(scene.chosen), "more images")
            # The first of the same lists, so that fewer tuples are a part of more.
            kept = Weights(drawn.values[:limit], drawn.names)
            found.append(List(group, rows[:limit], kept, resamples(len(rows[:limit]), random.child("resamples"))))
    return found


def mix_sites(net: StagedNet, options: Linearity) -> tuple[str, ...]:
    """Where images or features are mixed."""
    return ("input",) if options.mix_at == "input" else sites.sites(net)[:-1]


def passes(scene: Scene, options: Linearity) -> int:
    """Forward passes of one image, parts of a net counted as whole ones."""
    each = sum(one.rows.size + one.weights.values[..., 0].size * len(mix_sites(scene.main.net, options))
               for one in lists(scene, options))  # fmt: skip
    nets = len(scene.subjects) + (0 if scene.brief else UNTRAINED)
    return each * nets + BATCHNORM_IMAGES * (0 if scene.brief else UNTRAINED)


def look(scene: Scene, options: Linearity) -> Findings:
    """Deviation of every subject and of untrained references."""
    shared = lists(scene, options)
    chosen = images_of(scene.main, scene.chosen)
    rows: list[dict[str, Any]] = []
    for subject in scene.subjects:
        net = subject.net
        if options.bn == "clean":
            net = with_clean_batchnorm(net, _clean(scene, subject))
        images = chosen if subject is scene.main else images_of(subject, scene.chosen)
        rows += _rows(net, images, shared, scene, options, scene.facts(subject))
    for number in range(0 if scene.brief else UNTRAINED):
        fresh = untrained(scene.main, scene.random("untrained").child(str(number)))
        net = with_clean_batchnorm(fresh, _clean(scene, scene.main))
        rows += _rows(net, chosen, shared, scene, options, scene.facts(scene.main) | fresh_facts(number))
    table = pd.DataFrame(rows)
    return Findings(table, {"sites": list(scene.sites)}, page, remarks=tuple(_remarks(scene, options, table)))


def _clean(scene: Scene, subject: Subject) -> Tensor:
    """Clean training images for BatchNorm statistics."""
    return images_of(subject, scene.some(subject, "train", BATCHNORM_IMAGES, "batchnorm"))


def _rows(
    net: StagedNet, images: Tensor, shared: Sequence[List], scene: Scene, options: Linearity, facts: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    for one in shared:
        places = mix_sites(net, options)
        found = measured(
            net, images, one.rows, one.weights, places, scene.sites, REDUCES[:1] if scene.brief else REDUCES
        )
        rows = [(key, name) for key in found.values for name in dict.fromkeys(found.names)]
        sums = np.stack([found.named(*row) for row in rows])
        for ((mix_at, site, tap, reduce), name), own, ends in zip(rows, sums, intervals(sums, one.counts), strict=True):
            norm, spread = ratios(own)
            yield {
                **facts, "site": site, "tap": tap, "reduce": reduce, "mix_at": mix_at, "bn": options.bn,
                "K": one.points, "group": one.group, "l": name, "tuples": len(one.rows),
                "dev_norm": norm, "dev_norm_low": ends[0, 0], "dev_norm_high": ends[0, 1],
                "dev_spread": spread, "dev_spread_low": ends[1, 0], "dev_spread_high": ends[1, 1],
            }  # fmt: skip


def headline(table: pd.DataFrame) -> dict[str, float]:
    """dev_spread and dev_norm of each site: two points of different classes, after the non-linearity, whole maps."""
    wanted = {"K": 2, "group": "different", "tap": "post", "reduce": "full", "l": DIR1, "mix_at": "input"}
    rows = table[np.logical_and.reduce([table[name] == value for name, value in wanted.items()])]
    shown = rows[rows["site"] != "input"]  # 0 by definition
    return {f"{name}.{site}": float(value) for name in ("dev_spread", "dev_norm")
            for site, value in zip(shown["site"], shown[name], strict=True)}  # fmt: skip


# ----------------------------------------------------------------------------------------------------- what may be said


def _remarks(scene: Scene, options: Linearity, table: pd.DataFrame) -> Iterator[str]:
    if scene.brief:
        return
    yield "shown: after each closing non-linearity, on whole maps, over random ratios; all else is in the csv"
    if options.bn == "stored":
        yield "BatchNorm statistics as stored; a run that mixes stores those of mixed images: see also --bn clean"
    if "against" not in scene.roles:
        hint = "--against a run trained without mixing, same recipe and epochs"
        yield f"no reference run: direction cannot be read ({hint})"
        return
    epochs = {subject.epoch for subject in scene.subjects}
    if len(epochs) > 1 and not scene.asked.all_epochs:
        yield f"epochs differ ({', '.join(map(str, sorted(epochs)))}): training longer changes these numbers by itself"
    if not scene.asked.all_epochs:
        yield from directions(scene, table)


def directions(scene: Scene, table: pd.DataFrame) -> Iterator[str]:
    """Per method of an --against run: where the main method's runs differ from it in one direction, seed by seed."""
    found = {label: headline(rows) for label, rows in table.groupby("checkpoint", sort=False)}
    methods: dict[str, dict[int, dict[str, float]]] = {}
    for subject in scene.subjects:
        methods.setdefault(subject.settings.method.label(), {})[subject.settings.seed] = found[subject.label]
    main = scene.main.settings.method.label()
    for other, runs in methods.items():
        both = sorted(set(methods[main]) & set(runs))
        if other != main and both:
            pairs = [(methods[main][s], runs[s]) for s in both]
            yield from direction(f"{main} against {other}", pairs)
            yield from _no_test(pairs)


def verdict(pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> dict[str, int]:
    """site -> +1 less linear, -1 more linear, 0 no one direction: in every pair of runs, by both normalisations.

    pairs  headline numbers of a run of each method, of one seed
    """
    sites_ = [name.removeprefix("dev_spread.") for name in pairs[0][0] if name.startswith("dev_spread.")]
    found = {}
    for site in sites_:
        signs = {
            np.sign(a[f"{kind}.{site}"] - b[f"{kind}.{site}"]) for a, b in pairs for kind in ("dev_spread", "dev_norm")
        }
        found[site] = int(signs.pop()) if len(signs) == 1 and not np.isnan([*signs]).any() else 0
    return found


def direction(who: str, pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> Iterator[str]:
    """The verdict in words; a pair holds the headline numbers of two runs of one seed."""
    signs, seeds = verdict(pairs), len(pairs)
    found = [(f"{word} linear at", _listed(signs, sign)) for word, sign in (("less", 1), ("more", -1))]
    told = "; ".join(" ".join(part) for part in found if part[1]) or "no site differs in one direction"
    yield f"{who}, both normalisations, every seed: {told}"
    if seeds < SEEDS:
        yield f"no verdict from {seeds} seed{'' if seeds == 1 else 's'}, {SEEDS} are needed"
        return
    less = [site for site, sign in signs.items() if site not in NOT_INTERMEDIATE and sign > 0]
    everywhere = all(sign < 0 for sign in signs.values())
    yield (f"(i) intermediate stages less linear: {'direction seen at ' + ', '.join(less) if less else 'not seen'}; "
           f"(ii) every site more linear: {'direction seen' if everywhere else 'not seen'}")  # fmt: skip


def _no_test(pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> Iterator[str]:
    """Why a verdict on single files is none."""
    seeds, between = len(pairs), [site for site in verdict(pairs) if site not in NOT_INTERMEDIATE]
    if seeds >= SEEDS:
        luck = f"{100 * _luck(len(between), seeds):.0f} %"
        yield (f"this is not a test: {seeds} of {seeds} alike has two-sided p = {2 * 0.5**seeds:.2g}, and of "
               f"{len(between)} stages one agrees by luck in {luck} of cases; the test is a study's: "
               "mixcli probe linearity --study NAME")  # fmt: skip


def _luck(stages: int, seeds: int) -> float:
    """The chance that at least one of independent stages agrees in one given direction in all seeds by luck."""
    return 1 - (1 - 0.5**seeds) ** stages


def _listed(signs: Mapping[str, int], sign: int) -> str:
    return ", ".join(site for site, found in signs.items() if found == sign)
