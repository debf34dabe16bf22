"""mixing_cost.py: what a mixing costs: ours against a loop over the images, timm's and torchvision's.

Drawing the masks, and drawing and applying them, targets included, are timed apart, in calls of their own, per image,
in CPU microseconds of one thread; on CUDA it is wall time around a synchronised device. All forms take turns, round by
round, so that a slow minute meets all of them alike. What is dear takes fewer images in a turn: a row says how many.

The loop is what a competent programmer writes first from the formulas: for each image, numpy draws a ratio, a small
function makes that image's mask, the image is mixed and its target row built, and the results are stacked. It follows
the same law as ours, by default options; a test holds that. It is not made slow on purpose, nor is anything kept that
such code does not keep: FMix's frequencies, for one, are made anew for each mask, as in the published code.

timm mixes in its element mode and with its own pairing, torchvision once per batch; both only where they are installed.
Every form is handed a copy of the images, made before its clock starts: timm mixes in place, and the images of a
training step were just written, too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from mixcli import options
from mixcli.engine.device import prepare
from mixcli.methods import supervised
from mixcli.mix import Context, implementation
from mixcli.recipe import Train
from mixcli.sampling import Random
from mixcli.settings import METHODS, AGMix, CutMix, FMix, GMix, GridMix, MiAMix, Mixing, MixUp, ResizeMix, SmoothMix
from mixcli.studies.bench.benchmark import Clock, clock_of, environment, one_thread, ratio

CHANNELS, CLASSES = 3, 100
PILOT = 16  # images of the first calls, which warm up and tell about how long a turn will take
FEWEST = 4  # images of a turn, whatever it costs; even, since timm takes nothing else
ROUNDS = 3  # turns that a form has at least, where the time runs out
TURN = 0.05  # seconds that a turn lasts at least: cheap forms are called many times
WARM = 3  # calls before one tells how long a call takes: the caches are full of another form's work, memory is new

Timed = tuple[float, float]  # seconds of drawing the masks, NaN where they are not drawn apart; seconds in all
Form = Callable[[int, int, Clock, bool], float]  # (images, number of the call, clock, with applying) -> its seconds


def mixing(
    sizes: Sequence[int] = (32, 64, 224),
    batches: Sequence[int] = (128, 512),
    names: Collection[str] | None = None,
    seconds: float = 60.0,
    rounds: int = 5,
    device: str = "cpu",
) -> dict[str, Any]:
    """Every mixing, drawn per image, at every size and batch size; those with a torchvision form per batch, too.

    sizes    sides of square images, in pixels
    names    of mixings; None for all
    seconds  that all of it may take, about: more of them, more images where a form is dear
    rounds   turns of each form, whose medians are given; where the time runs out, three of them
    device   as in training; on CUDA the loop over the images is left out

    A row of `rows` is one mixing at one size and batch size, of plain numbers (None: not measured):
    `masks_us` and `us` per image are ours, drawing alone and all of it; `naive_...`, `timm_...`, `torchvision_...` are
    the others'; `times_naive` and the like say how many times as long they take as ours, the median of the rounds, and
    its lowest and highest; `images` and `naive_images` are taken in one call, in so many `rounds`. Raises UserError for
    an unknown name.
    """
    chosen, where = _chosen(names), prepare(Train.model_validate({"device": device})).device
    cells = [(side, batch) for batch in sorted(batches) for side in sizes]
    cells.sort(key=lambda cell: cell[0] ** 2 * cell[1])  # what small ones leave of their time, large ones may use
    rows, end = [], time.perf_counter() + seconds
    with one_thread():
        for k, (side, batch) in enumerate(cells):
            now = time.perf_counter()
            rows += _cell(chosen, _inputs(side, batch, where), rounds, now + (end - now) / (len(cells) - k))
    unit = "wall time, synchronised" if where.type == "cuda" else "CPU time of one thread"
    versions = {"device": _device_name(where), "timm": _version("timm"), "torchvision": _version("torchvision")}
    return {
        "unit": f"microseconds per image, {unit}", "channels": CHANNELS, "classes": CLASSES,
        "rows": rows,
        "environment": {**environment(threads=1), **versions},
    }  # fmt: skip


def beside(settings: Mixing, other: Mixing, side: int = 32, batch: int = 128, rounds: int = 7) -> dict[str, Any]:
    """What a mixing costs, drawn and applied, beside another: the two take turns on one batch, one thread.

    `us` and `other_us` are microseconds per image, `times` how many times the other's it is: the median of the rounds,
    `lowest` and `highest`.
    """
    inputs = _inputs(side, batch, torch.device("cpu"))
    forms = {"it": _ours(settings, inputs), "other": _ours(other, inputs)}
    with one_thread():
        clock = clock_of(inputs.device)
        turns = {name: _turn(form, _pilot(form, batch, clock), batch, math.inf, clock) for name, form in forms.items()}
        whole: dict[str, list[float]] = {name: [] for name in turns}
        for number in range(rounds):
            for name, turn in turns.items():
                whole[name].append(turn.take(number, clock)[1])
    found = ratio(whole, "it", "other")
    return {"pixels": side, "batch": batch, "us": _us(whole["it"]), "other_us": _us(whole["other"]),
            "times": found["median"], "lowest": found["lowest"], "highest": found["highest"]}  # fmt: skip


def _chosen(names: Collection[str] | None) -> list[Mixing]:
    """The settings that are measured: each mixing per image, and per batch where torchvision has it."""
    known = [cls for cls in METHODS.values() if issubclass(cls, Mixing)]
    classes = known if names is None else [options.method(name, "--names", Mixing) for name in dict.fromkeys(names)]
    per_batch = [cls for cls in classes if cls in IN_TORCHVISION]
    return [cls.model_validate({"per": "sample"}) for cls in classes] + [
        cls.model_validate({"per": "batch"}) for cls in per_batch
    ]


# ---------------------------------------------------------------------------------------------------------- one cell


@dataclass(frozen=True)
class Inputs:
    """A batch to be mixed.

    images, second  (B, C, H, W) float32, two views
    labels          (B,) int64, on the device and on the host
    """

    images: Tensor
    second: Tensor
    labels: Tensor
    host_labels: np.ndarray

    @property
    def device(self) -> torch.device:
        return self.images.device


def _inputs(side: int, batch: int, device: torch.device) -> Inputs:
    images = torch.rand(batch, CHANNELS, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    labels = Random(0, "bench/labels").host.integers(0, CLASSES, batch)
    return Inputs(images, images.flip(3), torch.from_numpy(labels).to(device), labels)


@dataclass(frozen=True)
class Turn:
    """A form as it is measured in every round: so many calls, each of so many images."""

    form: Form
    images: int
    calls: int

    def take(self, number: int, clock: Clock) -> Timed:
        """Seconds per image, of drawing and in all; a call before them finds caches full of another form's work."""
        self.form(self.images, number, clock, True)
        numbers = range(number * self.calls, (number + 1) * self.calls)
        drawn, whole = (sum(self.form(self.images, k, clock, apply) for k in numbers) for apply in (False, True))
        return drawn / (self.calls * self.images), whole / (self.calls * self.images)


def _cell(chosen: Sequence[Mixing], inputs: Inputs, rounds: int, until: float) -> list[dict[str, Any]]:
    """The rows of one size and batch size, measured until about `until` of the wall clock."""
    forms = {(k, name): form for k, settings in enumerate(chosen) for name, form in _forms(settings, inputs).items()}
    clock, batch = clock_of(inputs.device), len(inputs.images)
    few = min(PILOT, batch)
    cost = {key: _pilot(form, few, clock) for key, form in forms.items()}  # seconds per image
    level = _level([cost[key] * batch for key in forms], (until - time.perf_counter()) / rounds)
    turns = {key: _turn(form, cost[key], batch, level, clock) for key, form in forms.items()}
    timed: dict[tuple[int, str], list[Timed]] = {key: [] for key in turns}
    for number in range(rounds):
        if number >= ROUNDS and time.perf_counter() > until:
            break
        for key, turn in turns.items():
            timed[key].append(turn.take(number, clock))
    return [
        _row(settings, inputs, {name: turns[i, name] for i, name in turns if i == k},
             {name: timed[i, name] for i, name in timed if i == k})
        for k, settings in enumerate(chosen)
    ]  # fmt: skip


def _pilot(form: Form, images: int, clock: Clock) -> float:
    """Seconds per image of a second call; the first one only warms up."""
    form(images, 0, clock, True)
    return form(images, 1, clock, True) / images


def _turn(form: Form, cost: float, batch: int, level: float, clock: Clock) -> Turn:
    """The whole batch if a call of it costs no more than `level` seconds, else as many images as that pays for.

    How often it is called, a warm call of so many images tells: per image it is cheaper than the pilot's.
    """
    affordable = max(FEWEST, int(level / cost) // 2 * 2) if cost * batch > level else batch
    images = min(batch, affordable)
    if cost * images >= TURN:
        return Turn(form, images, 1)
    seconds = min(form(images, number, clock, True) for number in range(WARM))
    return Turn(form, images, max(1, round(TURN / seconds)))


def _level(costs: Sequence[float], total: float) -> float:
    """The height at which `costs` must be cut for their sum to be `total`."""
    left = total
    for k, cost in enumerate(sorted(costs)):
        level = left / (len(costs) - k)
        if cost > level:
            return max(0.0, level)
        left -= cost
    return math.inf


def _row(
    settings: Mixing, inputs: Inputs, turns: Mapping[str, Turn], timed: Mapping[str, list[Timed]]
) -> dict[str, Any]:
    drawn = {name: [t[0] for t in of_rounds] for name, of_rounds in timed.items()}
    whole = {name: [t[1] for t in of_rounds] for name, of_rounds in timed.items()}
    row: dict[str, Any] = {
        "mixing": settings.name, "per": getattr(settings, "per", "sample"),
        "pixels": inputs.images.shape[3], "batch": len(inputs.images), "images": turns["ours"].images,
        "rounds": len(whole["ours"]),
        "masks_us": _us(drawn["ours"]), "us": _us(whole["ours"]),
        "naive_images": turns["naive"].images if "naive" in turns else None,
        "naive_masks_us": _us(drawn.get("naive")), "naive_us": _us(whole.get("naive")),
        "timm_us": _us(whole.get("timm")), "torchvision_us": _us(whole.get("torchvision")),
    }  # fmt: skip
    for name, of_form in (("naive_masks", drawn), ("naive", whole), ("timm", whole), ("torchvision", whole)):
        other = name.removesuffix("_masks")
        found = ratio(of_form, other, "ours") if other in of_form else dict.fromkeys(("median", "lowest", "highest"))
        row |= {f"times_{name}": found["median"]}
        row |= {f"times_{name}_{end}": found[end] for end in ("lowest", "highest")}
    return row


def _us(seconds: Sequence[float] | None) -> float | None:
    return None if seconds is None else float(np.median(seconds)) * 1e6


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# ------------------------------------------------------------------------------------------------------------- forms


def _forms(settings: Mixing, inputs: Inputs) -> dict[str, Form]:
    """Ours, and what it is measured against: per image the loop and timm's element mode, per batch torchvision's."""
    forms: dict[str, Form | None] = {"ours": _ours(settings, inputs)}
    cls = type(settings)
    if getattr(settings, "per", "sample") == "batch":
        forms["torchvision"] = _torchvision(cls, inputs)
    else:
        forms["naive"] = _looped(NAIVE[cls], inputs) if cls in NAIVE and inputs.device.type == "cpu" else None
        forms["timm"] = _timm(cls, inputs)
    return {name: form for name, form in forms.items() if form is not None}


def _ours(settings: Mixing, inputs: Inputs) -> Form:
    """Draws from a fresh key in each call; stacking the views, where a mixing takes several, counts as applying."""
    views, side = 1 + len(implementation(settings).needs(settings).views), inputs.images.shape[3]

    def call(images: int, number: int, clock: Clock, apply: bool) -> float:
        own, labels = inputs.images[:images], inputs.host_labels[:images]
        own = own.clone() if apply else own
        start = clock()
        random = Random(0, "mix", number, device=inputs.device)
        mix = supervised.draw(settings, Context((images, side, side), labels, CLASSES), random)
        if apply:
            mix.images(own if views == 1 else torch.cat([own, *[inputs.second[:images]] * (views - 1)]))
            mix.targets(inputs.labels[:images], CLASSES)
        return clock() - start

    return call


def _looped(naive: Naive, inputs: Inputs) -> Form:
    """One image after another: first every mask, then every mix."""
    side = inputs.images.shape[3]

    def call(images: int, number: int, clock: Clock, apply: bool) -> float:
        given = replace(inputs, images=inputs.images[:images].clone()) if apply else inputs
        start = clock()
        rng = np.random.default_rng(number)
        partner = naive.partners(rng, images)
        masks = [naive.draw(rng, side, side) for _ in range(images)]
        if apply:
            naive.batch(masks, partner, given)
        return clock() - start

    return call


def _timm(cls: type[Mixing], inputs: Inputs) -> Form | None:
    """timm's element mode."""
    alphas = {MixUp: (1.0, 0.0), CutMix: (0.0, 1.0)}.get(cls)
    if alphas is None or len(inputs.images) % 2:
        return None
    try:
        from timm.data.mixup import Mixup  # type: ignore[import-not-found]
    except ImportError:
        return None
    mixup, cutmix = alphas
    mix = Mixup(mixup_alpha=mixup, cutmix_alpha=cutmix, mode="elem", label_smoothing=0.0, num_classes=CLASSES)
    return _only_whole(lambda images, labels: mix(images, labels), inputs)


def _torchvision(cls: type[Mixing], inputs: Inputs) -> Form | None:
    try:
        from torchvision.transforms import v2
    except ImportError:
        return None
    mix = getattr(v2, IN_TORCHVISION[cls])(alpha=1.0, num_classes=CLASSES)
    return _only_whole(mix, inputs)


IN_TORCHVISION: dict[type[Mixing], str] = {MixUp: "MixUp", CutMix: "CutMix"}


def _only_whole(mix: Callable[[Tensor, Tensor], object], inputs: Inputs) -> Form:
    """A library's call, which draws and applies at once."""

    def call(images: int, number: int, clock: Clock, apply: bool) -> float:
        if not apply:
            return math.nan
        copy, labels = inputs.images[:images].clone(), inputs.labels[:images]
        start = clock()
        mix(copy, labels)
        return clock() - start

    return call


# --------------------------------------------------------------------------------------- one image after another


@dataclass(frozen=True)
class Naive:
    """A mixing as a loop over the images has it, with its default options.

    draw    (rng, H, W) -> what is random of one image: its mask (H, W) or (1, 1), or its box
    mix     (what was drawn, image, partner) -> the mixed image, the share of the image itself
    itself  chance that an image is mixed with its own second view; None where there is no second view
    """

    draw: Callable[[Generator, int, int], Any]
    mix: Callable[[Any, Tensor, Tensor], tuple[Tensor, float]]
    itself: float | None = None

    def partners(self, rng: Generator, images: int) -> np.ndarray:
        """(B,) int64: a permutation, but for the images that meet themselves."""
        partner = rng.permutation(images)
        return partner if self.itself is None else np.where(rng.random(images) < self.itself, range(images), partner)

    def batch(self, masks: Sequence[Any], partner: np.ndarray, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) mixed images and (B, classes) targets."""
        images, others = inputs.images, inputs.images if self.itself is None else inputs.second
        rows = F.one_hot(inputs.labels[: len(masks)], CLASSES).float()
        mixed, targets = [], []
        for i, (mask, j) in enumerate(zip(masks, partner, strict=True)):
            image, own = self.mix(mask, images[i], others[j])
            mixed.append(image)
            targets.append(own * rows[i] + (1 - own) * rows[j])
        return torch.stack(mixed), torch.stack(targets)


def _by_mask(keep: Tensor, image: Tensor, partner: Tensor) -> tuple[Tensor, float]:
    return keep * image + (1 - keep) * partner, float(keep.mean())


def _constant(rng: Generator, own: float, height: int, width: int) -> np.ndarray:
    return np.full((1, 1), own, np.float32)


def _box(rng: Generator, own: float, height: int, width: int) -> np.ndarray:
    """CutMix's, clipped at the borders."""
    side = math.sqrt(1 - own)
    h, w = int(side * height), int(side * width)
    y, x = rng.integers(height), rng.integers(width)
    keep = np.ones((height, width), np.float32)
    keep[max(y - h // 2, 0) : y + h // 2, max(x - w // 2, 0) : x + w // 2] = 0
    return keep


def _low_frequencies(rng: Generator, own: float, height: int, width: int) -> np.ndarray:
    """FMix's: frequency grid, amplitude, noise, inverse transform, sort, threshold."""
    frequency = np.sqrt(np.fft.fftfreq(height)[:, None] ** 2 + np.fft.fftfreq(width)[None, :] ** 2)
    amplitude = np.maximum(frequency, 1 / max(height, width)) ** -3.0
    noise = rng.standard_normal((height, width)) + 1j * rng.standard_normal((height, width))
    field = np.fft.ifft2(noise * amplitude).real
    exact = own * height * width
    kept = int(exact) + (rng.random() < exact % 1)
    keep = np.zeros(height * width, np.float32)
    keep[field.ravel().argsort()[::-1][:kept]] = 1
    return keep.reshape(height, width)


def _grid(rng: Generator, own: float, height: int, width: int) -> np.ndarray:
    """GridMix's holes inside a random crop."""
    cells, area = rng.integers(2, 7), rng.uniform(0.5, 1) * height * width
    aspect = math.exp(rng.uniform(math.log(0.5), math.log(2)))
    h = min(max(round(math.sqrt(area / aspect)), 1), height)
    w = min(max(round(math.sqrt(area * aspect)), 1), width)
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    patch = max(1, math.ceil(w / cells))
    hole = round(patch * math.sqrt(1 - own))
    keep = np.ones((height, width), np.float32)
    for y in range(top, top + h, patch):
        for x in range(left, left + w, patch):
            keep[y : min(y + hole, top + h), x : min(x + hole, left + w)] = 0
    return keep


def _offsets(rng: Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances (H, 1) and (1, W) from a uniform pixel."""
    y, x = rng.integers(height), rng.integers(width)
    return np.arange(height, dtype=np.float32)[:, None] - y, np.arange(width, dtype=np.float32)[None, :] - x


def _smooth(rng: Generator, height: int, width: int) -> Tensor:
    """SmoothMix's bump of the partner, which knows no ratio."""
    sigma = rng.uniform(0.25, 0.5) * min(height, width)
    dy, dx = _offsets(rng, height, width)
    return torch.from_numpy(1 - np.exp(-(dy**2 + dx**2) / (2 * sigma**2), dtype=np.float32))


def _round_bump(rng: Generator, own: float, height: int, width: int) -> np.ndarray:
    """GMix's."""
    dy, dx = _offsets(rng, height, width)
    return _of_minority(own, math.pi * (dy**2 + dx**2), height, width)


def _turned_bump(rng: Generator, own: float, height: int, width: int) -> np.ndarray:
    """AGMix's, its mass kept."""
    q, theta = rng.uniform(-0.95, 0.95), rng.uniform(0, 2 * math.pi)
    cos, sin = math.cos(theta), math.sin(theta)
    turn = np.array([[cos, -sin], [sin, cos]])
    (a, b), (_, c) = np.linalg.inv(turn @ np.array([[1, q], [q, 1]]) @ turn.T)
    dy, dx = _offsets(rng, height, width)
    squared = float(a) * dx**2 + float(2 * b) * dx * dy + float(c) * dy**2
    return _of_minority(own, math.pi * math.sqrt(1 - q * q) * squared, height, width)


def _of_minority(own: float, exponent: np.ndarray, height: int, width: int) -> np.ndarray:
    """The bump belongs to whoever has the smaller share."""
    share = min(own, 1 - own)
    bump = np.exp(-exponent / (share * height * width)) if share > 0 else np.zeros_like(exponent)
    return (bump if own < 0.5 else 1 - bump).astype(np.float32)


OneMask = Callable[[Generator, float, int, int], np.ndarray]


def _alone(mask: OneMask) -> Naive:
    """A mixing of one mask, its ratio from Beta(1, 1)."""
    return Naive(lambda rng, height, width: torch.from_numpy(mask(rng, rng.beta(1, 1), height, width)), _by_mask)


def _small_box(rng: Generator, height: int, width: int) -> tuple[int, int, int, int]:
    """ResizeMix's: top, left, height, width."""
    scale = rng.uniform(0.1, 0.8)
    h, w = max(1, round(scale * height)), max(1, round(scale * width))
    return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w


def _pasted(box: tuple[int, int, int, int], image: Tensor, partner: Tensor) -> tuple[Tensor, float]:
    """The whole partner shrunk to the box."""
    top, left, h, w = box
    mixed = image.clone()
    small = F.interpolate(partner[None], (h, w), mode="bilinear", antialias=True)[0]
    mixed[:, top : top + h, left : left + w] = small
    return mixed, 1 - h * w / (image.shape[1] * image.shape[2])


LAYERS: tuple[OneMask, ...] = (_constant, _box, _low_frequencies, _grid, _turned_bump)
HARD_EDGED = (_box, _low_frequencies, _grid)


def _layered(rng: Generator, height: int, width: int) -> Tensor:
    """MiAMix's: one or two masks of random kinds, some blurred, some rotated and sheared, and their product."""
    layers = int(rng.integers(1, 3))
    shares = rng.dirichlet([1.0] * layers + [float(layers)])[:layers]
    keep = torch.ones(1, 1)
    for share in shares:
        mask = LAYERS[rng.choice(5, p=(2 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 6))]
        layer = torch.from_numpy(mask(rng, 1 - share, height, width))
        if mask in HARD_EDGED:
            if rng.random() < 0.5:
                layer = _blurred(layer, int(rng.choice((3, 5))))
            if rng.random() < 0.25:
                layer = _sheared(layer, *np.deg2rad(rng.uniform((-15, -10), (15, 10))))
        keep = keep * layer.clamp(0, 1)
    return keep


def _blurred(mask: Tensor, side: int) -> Tensor:
    """The mean over a box of the pixels that exist."""
    return F.avg_pool2d(mask[None, None], side, stride=1, padding=side // 2, count_include_pad=False)[0, 0]


def _sheared(mask: Tensor, rotation: float, shear: float) -> Tensor:
    """A square mask rotated and sheared about its centre, angles in radians; outside is the nearest edge."""
    cos, sin = math.cos(rotation), math.sin(rotation)
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, math.tan(shear)], [0, 1]])
    affine = torch.from_numpy(np.pad(turn, ((0, 0), (0, 1))).astype(np.float32))[None]
    places = F.affine_grid(affine, [1, 1, *mask.shape], align_corners=False)
    return F.grid_sample(mask[None, None], places, padding_mode="border", align_corners=False)[0, 0]


NAIVE: dict[type[Mixing], Naive] = {
    MixUp: _alone(_constant),
    CutMix: _alone(_box),
    FMix: _alone(_low_frequencies),
    GridMix: _alone(_grid),
    ResizeMix: Naive(_small_box, _pasted),
    SmoothMix: Naive(_smooth, _by_mask),
    GMix: _alone(_round_bump),
    AGMix: _alone(_turned_bump),
    MiAMix: Naive(_layered, _by_mask, itself=0.1),
}
