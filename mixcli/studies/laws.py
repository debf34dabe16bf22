"""laws.py: what every mixing and every method has to obey, each law a function that tries it on small specimens.

The laws of METHODS section 1, those rows of its ledger of mistakes that can be tried without knowing the mixing, and
what a step has to be: drawn beforehand, captured whole, free of waits for a GPU. A law takes the settings, returns one
line of evidence, and raises `Broken` with what it found instead or `Excused` where it says nothing of these settings.
The tests hold the built-in catalogue to them; `mixcli check` holds anybody's.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import product
from typing import Any, Literal, get_args, get_origin

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mixcli.errors import UserError
from mixcli.methods.supervised import draw
from mixcli.mix import Mix, implementation
from mixcli.mixing import foreign
from mixcli.sampling import Random
from mixcli.settings import Method, Mixing
from mixcli.studies import specimens

SIZES = [(8, 8, 8), (7, 5, 9), (1, 8, 8), (2, 1, 7), (3, 7, 1), (5, 1, 1), (2, 2, 2)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
ROUNDING = 1e-6


class Broken(Exception):
    """A law does not hold: what was found."""


class Excused(Exception):
    """A law says nothing of these settings: why."""


@dataclass(frozen=True)
class Law:
    """A law by the name of its function; `row` is where it stands in METHODS: a section, or a row of the ledger."""

    row: str
    holds: Callable[[Any], str]

    @property
    def name(self) -> str:
        return self.holds.__name__

    @property
    def claim(self) -> str:
        """The law in words."""
        return (inspect.getdoc(self.holds) or "").splitlines()[0]


MIXING_LAWS: list[Law] = []
METHOD_LAWS: list[Law] = []


def _law(laws: list[Law], row: str) -> Callable[[Callable[[Any], str]], Callable[[Any], str]]:
    def enter(function: Callable[[Any], str]) -> Callable[[Any], str]:
        laws.append(Law(row, function))
        return function

    return enter


def require(holds: object, found: str) -> None:
    """Raises Broken with what was found, unless it holds."""
    if not bool(holds):
        raise Broken(found)


# ---------------------------------------------------------------------------------------------------- drawing mixings


def drawn(settings: Mixing, size: tuple[int, int, int] = (8, 8, 8), step: int = 0, **changes: Any) -> Mix:
    """A Mix of specimens of this size, with some options changed."""
    return draw(changed(settings, **changes), specimens.context(*size), Random(0, "mix", step))


def changed(settings: Mixing, **changes: Any) -> Mixing:
    """The settings with these options, as if they had been typed so; options that the class lacks are left out."""
    set_before = {k: getattr(settings, k) for k in settings.model_fields_set}
    known = {k: v for k, v in changes.items() if k in type(settings).model_fields}
    return type(settings)(**{**set_before, **known})


def weights(mix: Mix) -> Tensor:
    """(K, B, 1, h, w) whatever the form."""
    if mix.weight is not None:
        return mix.weight
    require(mix.keep is not None, "a Mix of neither keep nor weight")
    assert mix.keep is not None
    return torch.stack([mix.keep, 1 - mix.keep])


def _cases(settings: Mixing, sizes: list[tuple[int, int, int]]) -> Iterator[tuple[str, tuple[int, int, int], str]]:
    """Words for a case, its size, and `per`, as far as the class has that option."""
    for size in sizes:
        for per in ("batch", "sample") if "per" in type(settings).model_fields else ("sample",):
            yield f"batch of {size[0]}, {size[1]} x {size[2]} px, per {per}", size, per


def _views(settings: Mixing) -> int:
    """How many views of each image its sources are taken from."""
    return 1 + len(implementation(settings).needs(settings).views)


def _labels(batch: int) -> Tensor:
    return torch.from_numpy(specimens.labels(batch))


# ---------------------------------------------------------------------------------------------------- laws of mixings


@_law(MIXING_LAWS, "1")
def equal_keys_draw_equal_plans_and_other_steps_draw_others(settings: Mixing) -> str:
    """Equal keys draw equal plans, and other steps draw others."""
    one, same, other = drawn(settings), drawn(settings), drawn(settings, step=1)
    alike = torch.equal(one.source, same.source) and torch.equal(weights(one), weights(same))
    require(alike, "two draws under one key differ")
    differ = not torch.equal(one.source, other.source) or not torch.equal(weights(one), weights(other))
    require(differ, "the draws of two steps are equal")
    return "two draws of step 0 equal in every bit, step 1 another"


@_law(MIXING_LAWS, "1, ledger 26")
def ledger_26_no_global_generator_is_read_or_moved(settings: Mixing) -> str:
    """No global generator is read or moved: torch's, numpy's, Python's."""
    found = []
    for seed in (1, 2):
        with foreign.seeded(seed):
            found.append(_beside_global_generators(settings))
    moved = [name for name in found[0][1] if name in found[1][1]]
    read = "" if torch.equal(found[0][0], found[1][0]) else "read, "
    names = " and ".join(moved) or "a generator"
    require(not (moved or read), f"{names}: {read}{'moved' if moved else 'not moved'} by a draw")
    return "draws equal under two global seeds, three states untouched"


def _beside_global_generators(settings: Mixing) -> tuple[Tensor, list[str]]:
    """All that is drawn and mixed, flat, and the global generators that this moved."""
    before = foreign.Seen()
    mix = drawn(settings, per="sample")
    mixed = mix.images(specimens.rows(settings))
    after = foreign.Seen()
    moved = [] if torch.equal(before.torch, after.torch) else ["torch's"]
    moved += [] if repr(before.numpy) == repr(after.numpy) else ["numpy's"]  # its place among the 624 words, at least
    moved += [] if before.python == after.python else ["Python's"]
    return torch.cat([part.double().flatten() for part in (mix.source, weights(mix), mixed)]), moved


@_law(MIXING_LAWS, "1, ledger 15 to 17")
def ledger_17_weights_of_any_size_sum_to_one(settings: Mixing) -> str:
    """Weights are float32 in 0 … 1 and sum to 1, for odd batches, a batch of 1, sides of 1."""
    worst = 0.0
    for case, size, per in _cases(settings, SIZES):
        mix = drawn(settings, size, per=per)
        w, itself = weights(mix), torch.arange(size[0])
        require(w.dtype == torch.float32, f"{case}: {w.dtype}")
        require(w.shape[1] == size[0] and mix.source.shape == w.shape[:2], f"{case}: weights of shape {tuple(w.shape)}")
        require(torch.equal(mix.source[0], itself), f"{case}: the first source is not the image itself")
        require(w.min() >= 0 and w.max() <= 1, f"{case}: from {w.min():.3g} to {w.max():.3g}")
        worst = max(worst, float((w.double().sum(0) - 1).abs().max()))
        require(worst < ROUNDING, f"{case}: they sum to 1 but for {worst:.2g}")
    return f"{len(SIZES)} sizes; sums off by {worst:.1g} at most"


@_law(MIXING_LAWS, "1.2, ledger 1")
def ledger_1_the_label_weight_is_the_mean_of_the_final_mask(settings: Mixing) -> str:
    """The label weight is the mean of the final mask, not the number drawn; rows sum to 1."""
    for case, size, per in _cases(settings, SIZES):
        mix = drawn(settings, size, per=per)
        shares = weights(mix).mean(dim=(2, 3, 4), dtype=torch.float64)
        if mix.weight is None:
            mean = shares[0].to(torch.float32)
            off = f"{case}: {float((mix.ratio[0] - mean).abs().max()):.3g} away from it"
            require(torch.equal(mix.ratio[0], mean), off)
        else:
            require(torch.equal(mix.ratio, shares.to(torch.float32)), f"{case}: not the mean")
        labels = _labels(size[0])
        rows = mix.targets(labels, specimens.CLASSES)
        require(rows.dtype == torch.float32, f"{case}: {rows.dtype}")
        require((rows.sum(1) - 1).abs().max() < ROUNDING, f"{case}: a row sums to {rows.sum(1).min():.3g}")
        picked = labels[mix.source % size[0]]
        wanted = sum(s[:, None] * torch.eye(specimens.CLASSES)[p] for s, p in zip(shares, picked, strict=True))
        away = float((rows - wanted).abs().max())
        require(away < 1e-5, f"{case}: a label weighs {away:.3g} more or less than its image")
    return f"equal in every bit to the mean in float64, {len(SIZES)} sizes"


@_law(MIXING_LAWS, "1.4, ledger 10")
def the_sources_bound_the_result_and_constants_stay(settings: Mixing) -> str:
    """The sources bound the result, a constant image stays, the dtype too."""
    for case, size, per in _cases(settings, SIZES):
        mix = drawn(settings, size, per=per)
        for dtype in DTYPES:
            x = specimens.rows(settings, *size, dtype=dtype)
            mixed, low, high = mix.images(x), x[mix.source], x[mix.source]
            if mix.place is not None:  # pixels of the partner come from all over it
                low, high = (torch.stack([x[: size[0]], bound(low[1], (2, 3), True).expand_as(low[1])])
                             for bound in (torch.amin, torch.amax))  # fmt: skip
            require(mixed.dtype == dtype, f"{case}: {dtype} becomes {mixed.dtype}")
            inside = (mixed >= low.amin(0)).all() and (mixed <= high.amax(0)).all()
            require(inside, f"{case}, {dtype}: a pixel leaves its sources' range")
            constant = torch.full_like(x, 0.7)
            require(
                torch.equal(mix.images(constant), constant[: size[0]]), f"{case}, {dtype}: a constant image changes"
            )
    return f"{len(SIZES)} sizes, four dtypes"


@_law(MIXING_LAWS, "1.4, ledger 10")
def ledger_10_mixing_an_image_with_itself_returns_its_bits(settings: Mixing) -> str:
    """Mixing an image with itself returns its bits."""
    mix = drawn(settings, per="sample")
    as_it_is = replace(mix, place=None) if mix.place is not None else mix  # not shrunk
    for dtype in DTYPES:
        alike = specimens.images(1, dtype=dtype).expand(8 * _views(settings), -1, -1, -1)  # whoever meets whom
        differ = float((as_it_is.images(alike.clone()) != alike[:8]).double().mean())
        require(differ == 0, f"{dtype}: {differ:.1%} of the values change")
    return "four dtypes"


@_law(MIXING_LAWS, "1.6, ledger 14")
def ledger_14_probability_zero_returns_the_batch_bit_for_bit(settings: Mixing) -> str:
    """`probability = 0` returns images and labels bit for bit, beside a NaN too."""
    if "probability" not in type(settings).model_fields:
        raise Excused("it has no option `probability`")
    x, y = specimens.rows(settings), _labels(8)
    x[0, 0, 0, 0] = torch.nan
    for _, size, per in _cases(settings, [(8, 8, 8)]):
        for step in range(20):
            mix = drawn(settings, size, step, per=per, probability=0)
            require(torch.equal(mix.images(x).nan_to_num(9), x[:8].nan_to_num(9)), "images change")
            rows = mix.targets(y, specimens.CLASSES)
            right = torch.equal(rows.argmax(1), y) and rows.max() == 1
            require(right, f"the largest target is {rows.max():.3g}, not 1")
    return "images and one-hot rows equal"


@_law(MIXING_LAWS, "1.5, ledger 14")
def ledger_14_alpha_below_a_hundredth_is_refused(settings: Mixing) -> str:
    """alpha below 0.01 is refused: there the draws pile up on 0 and 1."""
    if "alpha" not in type(settings).model_fields:
        raise Excused("it has no option `alpha`")
    for alpha in (0.009, 0.0, -1.0, float("nan"), float("inf")):
        try:
            changed(settings, alpha=alpha)
        except (UserError, ValueError):
            continue
        raise Broken(f"alpha = {alpha} is accepted; take mixcli.settings.Alpha")
    return "0.009, 0, -1, NaN and infinity refused"


@_law(MIXING_LAWS, "ledger 6")
def ledger_6_every_option_changes_the_draws(settings: Mixing) -> str:
    """Every option changes the draws, by itself or beside a change of another."""
    options = {name: _others(settings, name) for name in type(settings).model_fields}
    options = {name: values for name, values in options.items() if values}
    idle = [name for name in options if _is_idle(settings, name, options)]
    require(not idle, f"{', '.join(idle)}: never changes a draw")
    return f"{len(options)} options tried"


def _is_idle(settings: Mixing, name: str, options: dict[str, list[Any]]) -> bool:
    """Whether an option is taken and changes nothing; one that is refused where it does nothing is not idle."""
    plain, taken = _fingerprint(settings, {}), False
    assert plain is not None  # these settings are taken
    for around in [{}, *({other: v} for other, values in options.items() if other != name for v in values)]:
        before = _fingerprint(settings, around) if around else plain
        for value in options[name]:
            after = _fingerprint(settings, {**around, name: value})
            taken |= after is not None
            if after is not None and not torch.equal(plain if before is None else before, after):
                return False
    return taken


def _fingerprint(settings: Mixing, changes: dict[str, Any]) -> Tensor | None:
    """Mixed images of some draws, or None where these options are refused together."""
    try:
        new = changed(settings, **changes)
        x = specimens.rows(new, 16, 12, 12)
        mixes = [drawn(new, (16, 12, 12), step) for step in range(3)]
    except (UserError, ValueError):
        return None
    return torch.stack([mix.images(x) for mix in mixes])


def _others(settings: Mixing, name: str) -> list[Any]:
    """Some other values of an option; none where its type tells none."""
    now, annotation = getattr(settings, name), type(settings).model_fields[name].annotation
    if isinstance(now, bool):
        return [not now]
    if get_origin(annotation) is Literal:
        return [value for value in get_args(annotation) if value != now]
    if isinstance(now, int):
        return [now + 1, now * 2, now - 1]
    if isinstance(now, float):
        return [now / 2, now * 2, (now + 1) / 2, now + 0.3]
    if isinstance(now, tuple) and now and all(isinstance(v, int | float) for v in now):
        return [(now[0], *(now[0] for _ in now[1:])), tuple(v / 2 if isinstance(v, float) else v + 1 for v in now)]
    return []


@_law(MIXING_LAWS, "1.4")
def where_keep_is_one_a_nan_in_the_partner_stays_out(settings: Mixing) -> str:
    """Where keep is 1, a NaN in the partner stays out."""
    mix = drawn(settings, per="sample")
    if mix.keep is None:
        raise Excused("more than two sources: a product of weights passes NaN on; the rule is for pairs")
    x, keep = specimens.rows(settings), mix.keep.clone()
    row = next((i for i in range(8) if mix.source[1, i] != i), None)
    if row is None:
        raise Excused("its images are all their own partners")
    if type(mix).images is Mix.images:
        keep[row] = 1
        mix = replace(mix, keep=keep, form="any")
    whole = (keep[row] == 1).expand_as(x[row])
    if not whole.any():
        raise Excused("no weight of it is 1, and it mixes in a way of its own that takes no other")
    x[mix.source[1, row]] = torch.nan
    before = x[row].clone()
    require(torch.equal(mix.images(x)[row][whole], before[whole]), "the NaN comes through")
    return "the image's bits come out"


@_law(MIXING_LAWS, "3")
def what_is_known_of_a_mask_is_true_and_neither_it_nor_the_way_to_mix_changes_a_bit(settings: Mixing) -> str:
    """What a Mix says of its mask (`form`, `box`, `place`) is true, and the fast ways to mix change no bit."""
    for (case, size, per), probability in product(_cases(settings, [(300, 9, 7)]), (1.0, 0.8)):
        mix = drawn(settings, size, per=per, probability=probability)
        require(mix.place is None or type(settings).moves, f"{case}: it moves its partners and does not say `moves`")
        _require_form(mix, case)
        unknown = replace(mix, form="any")
        for dtype in DTYPES[:3]:
            x = specimens.rows(settings, *size, dtype=dtype)
            require(torch.equal(mix.images(x), unknown.images(x)), f"{case}: form changes the images")
            require(torch.equal(mix.ratio, unknown.ratio), f"{case}: form changes the ratio")
            x[5, 0, 2, 3], x[7, 1, 1, 1] = torch.nan, torch.inf
            written_out = mix.images(x.clone().requires_grad_()).detach()  # as it is on a GPU and under compilation
            same = torch.equal(mix.images(x).nan_to_num(9), written_out.nan_to_num(9))
            require(same, f"{case}, {dtype}: other bits where gradients are asked for")
    return "300 images, three dtypes, NaN and infinity among them"


def _require_form(mix: Mix, case: str) -> None:
    if mix.keep is None:
        return
    if mix.box is not None:
        hole = torch.zeros_like(mix.keep)
        hole[:, :, *mix.box] = 1
        require(torch.equal(mix.keep, 1 - hole), f"{case}: a box is named, and the mask is another")
    binary = mix.form != "binary" or ((mix.keep == 0) | (mix.keep == 1)).all()
    require(binary, f"{case}: form is binary, and a weight is neither 0 nor 1")
    require(mix.form != "partial" or (mix.keep < 1).all(), f"{case}: form is partial, and a weight is 1")


@_law(MIXING_LAWS, "1.2, ledger 20")
def ledger_20_images_and_targets_use_one_partner_index(settings: Mixing) -> str:
    """Images and labels use one partner: images that carry their label as a constant mix to the mixed label."""
    worst = 0.0
    for case, size, per in _cases(settings, [(8, 8, 8), (7, 5, 9)]):
        mix, y = drawn(settings, size, per=per), _labels(size[0])
        x = y.double().view(-1, 1, 1, 1).expand(size[0], 3, *size[1:])
        pixel_mean = mix.images(torch.cat([x] * _views(settings))).mean(dim=(1, 2, 3))  # in either view
        label_mean = (mix.targets(y, specimens.CLASSES).double() * torch.arange(specimens.CLASSES)).sum(1)
        worst = max(worst, float((pixel_mean - label_mean).abs().max()))
        require(torch.allclose(pixel_mean, label_mean, atol=1e-5), f"{case}: they differ by {worst:.2g} of a class")
    return f"they differ by {worst:.1g} at most"


@_law(MIXING_LAWS, "ledger 7")
def ledger_7_the_mask_of_the_mix_is_what_is_applied(settings: Mixing) -> str:
    """An image of zeros with a partner of ones shows 1 - keep at every pixel, on 16 x 48."""
    mix = drawn(settings, (6, 16, 48), per="sample")
    if mix.keep is None:
        raise Excused("more than two sources")
    worst = 0.0
    for row in range(6):
        x = torch.zeros(6 * (1 + int(mix.source.max()) // 6), 1, 16, 48)
        x[mix.source[1, row]] = 1
        shown = torch.zeros(1, 16, 48) if mix.source[1, row] == row else (1 - mix.keep[row]).expand(1, 16, 48)
        shown = torch.ones(1, 16, 48) if mix.source[1, row] == row else shown
        worst = max(worst, float((mix.images(x)[row] - shown).abs().max()))
        require(worst < ROUNDING, f"a pixel is {worst:.2g} away from its mask")
    return "16 rows by 48 columns, equal"


@_law(MIXING_LAWS, "ledger 12, 13")
def ledger_12_and_13_labels_stay_exact_and_unsmoothed(settings: Mixing) -> str:
    """Beside bfloat16 images, 1,009 classes: targets float32 and exact; a batch of one class has its one-hot row."""
    mix, classes = drawn(settings, per="sample"), 1009
    mix.images(specimens.rows(settings, dtype=torch.bfloat16))
    y = torch.full((8,), 257)
    rows = mix.targets(y, classes)
    require(rows.dtype == torch.float32, f"{rows.dtype}")
    require(torch.equal(rows.argmax(1), y), f"class 257 becomes {int(rows.argmax(1)[0])}")
    rest = float((rows.sum(1) - rows[:, 257]).max())
    require(rest < ROUNDING, f"{rest:.2g} of a label lies on classes that the batch has not: smoothed?")
    return "class 257 of 1,009 exact, nothing on the other classes"


@_law(MIXING_LAWS, "1.6, ledger 18")
def per_batch_draws_one_ratio_and_per_sample_one_each(settings: Mixing) -> str:
    """`per = batch` draws one ratio, `per = sample` one for each image."""
    if "per" not in type(settings).model_fields:
        ratio = drawn(settings, (8, 31, 31)).ratio[0]
        seen = len(ratio.unique())
        shared = "8 images share one ratio" if seen == 1 else f"8 images have {seen} different ratios"
        raise Excused(f"it has no option `per`; {shared}")
    batch, sample = (len(drawn(settings, (8, 31, 31), per=per).ratio[0].unique()) for per in ("batch", "sample"))
    require(batch == 1, f"per batch, 8 images have {batch} ratios")
    require(sample > 4, f"per sample, 8 images have {sample} different ratios")
    return f"8 images: 1 and {sample} different ratios"


@_law(MIXING_LAWS, "ledger 18")
def ledger_18_masks_of_different_images_lie_apart(settings: Mixing) -> str:
    """`per = sample` places the mask of each image by itself, not by the others'."""
    if "per" not in type(settings).model_fields or not type(settings).masks:
        raise Excused("it has no option `per`, or no masks")
    changes = {"per": "sample", "probability": 1, "pairing": "derangement"}
    mixes = [drawn(settings, (8, 16, 16), step, **changes) for step in range(100)]
    partners = torch.cat([weights(mix)[1:].sum(0)[:, 0].expand(-1, 16, 16) for mix in mixes]).double()
    places = torch.arange(16, dtype=torch.float64) - 7.5
    middles = [(partners.sum(dim) * places).sum(1) / partners.sum((1, 2)).clamp(min=1e-9) for dim in (2, 1)]  # (800,)
    # The distance, too: a bump may belong to either image. Where all masks lie in one row, nothing correlates.
    pairs = [torch.stack([m[::2], m[1::2]]) for middle in middles for m in (middle, middle.abs())]
    worst = max((float(pair.corrcoef()[0, 1].nan_to_num(0)) for pair in pairs), key=abs)
    require(abs(worst) < 0.25, f"the places of two images' masks correlate by {worst:.2f}")
    return f"places of 400 pairs correlate by {worst:.2f}"


@_law(MIXING_LAWS, "ledger 15, 16")
def ledger_15_and_16_partners_vary_in_batches_of_any_size(settings: Mixing) -> str:
    """In batches of 1, 2, 3 and 7 it draws; in one of 7 each image meets many others, not always the same place."""
    for batch in (1, 2, 3):
        drawn(settings, (batch, 8, 8))
    partners = torch.stack([drawn(settings, (7, 4, 4), step, probability=1).source[1] % 7 for step in range(60)])
    fewest = min(len(partners[:, place].unique()) for place in range(7))
    require(fewest > 3, f"an image of a batch of 7 meets {fewest} others in 60 steps: its place decides")
    return f"{fewest} of 7 partners at least in 60 steps"


@_law(MIXING_LAWS, "ledger 19")
def ledger_19_every_pixel_can_come_from_the_partner(settings: Mixing) -> str:
    """Every pixel, the last row and column too, can come from the partner."""
    masks = [weights(drawn(settings, (64, 8, 8), step, per="sample"))[0].mean(0) for step in range(100)]
    kept = torch.stack(masks).mean(0).squeeze()
    places = f"{int((kept == 1).sum())} of {kept.numel()} pixels"
    require((kept < 1).all(), f"{places} never do in 6,400 masks")
    return f"6,400 masks at 8 x 8: {float(1 - kept.max()):.0%} to {float(1 - kept.min()):.0%} of the partner"


@_law(MIXING_LAWS, "1")
def the_law_of_the_mask_is_transposed_with_the_image(settings: Mixing) -> str:
    """Exchanging height and width transposes the law of the mask."""
    if not settings.symmetric:
        raise Excused("it says that it tells rows from columns (`symmetric = False`)")
    found = []
    for size, turned in (((64, 6, 12), False), ((64, 12, 6), True)):
        masks = [weights(drawn(settings, size, step, per="sample"))[0, :, 0].expand(*size) for step in range(100)]
        turns = [m.mT if turned else m for m in masks]
        of_steps = [torch.stack([m.mean(0).flatten() for m in turns])]  # (100, pixels)
        of_steps += [torch.stack([m.diff(dim=dim).abs().mean() for m in turns])[:, None] for dim in (1, 2)]
        found.append(of_steps)
    worst = 0.0
    for what, one, other in zip(("mean masks", "steps down", "steps across"), *found, strict=True):
        away = (one.mean(0) - other.mean(0)).abs()
        noise = ((one.var(0) + other.var(0)) / len(one)).sqrt()  # a mask drawn per batch counts once
        worst, excess = max(worst, float(away.max())), away > (5 * noise).clamp(min=0.05)
        told = f"{what} differ by {float(away.max()):.2f}; where that is meant, say `symmetric = False`"
        require(not excess.any(), told)
    return f"masks and their steps from pixel to pixel differ by {worst:.3f} at most in 6,400"


@_law(MIXING_LAWS, "1.5, ledger 8")
def ledger_8_and_11_drawn_in_float64_and_under_autocast(settings: Mixing) -> str:
    """Nominal ratios are float64, masks float32 and the same inside autocast, at 48 and 224 px."""
    sizes = [(16, 48, 48), (2, 224, 224)]
    with torch.autocast("cpu", torch.bfloat16):
        mixes = [drawn(settings, size, per="sample") for size in sizes]
    for mix, size in zip(mixes, sizes, strict=True):
        outside, again = (weights(drawn(settings, size, per="sample")) for _ in range(2))
        repeats = torch.equal(outside, again)  # where equal keys draw others anyway, another law tells
        same = not repeats or torch.equal(weights(mix), outside)
        require(same, f"masks of {size[1]} px are others inside autocast")
        require(weights(mix).dtype == torch.float32, f"masks of {weights(mix).dtype}")
        require(
            mix.drawn is None or mix.drawn.dtype == torch.float64, "nominal ratios are rounded before they are told"
        )
    return "48 and 224 px inside autocast"


@_law(MIXING_LAWS, "1")
def the_sources_are_not_changed_and_layouts_agree(settings: Mixing) -> str:
    """Images and labels that go in are not changed; memory layouts agree."""
    mix, x, y = drawn(settings, per="sample"), specimens.rows(settings), _labels(8)
    before, labels = x.clone(), y.clone()
    plain = mix.images(x)
    mix.targets(y, specimens.CLASSES)
    touched = float((x != before).double().mean())
    require(touched == 0, f"{touched:.0%} of the batch's values are changed in place")
    require(torch.equal(y, labels), "labels are changed in place")
    strided = mix.images(x.to(memory_format=torch.channels_last))
    require(torch.equal(strided, plain), "channels last mixes to other bits")
    return "bit for bit; channels last alike"


@_law(MIXING_LAWS, "3")
def it_mixes_hidden_features(settings: Mixing) -> str:
    """Features of a stage without pixels are mixed by constant weights, and gradients reach every source."""
    if settings.moves:
        raise Excused("it moves its partner, which has no meaning for features")
    mix = draw(changed(settings, per="sample"), specimens.context(8).at(None), Random(0, "mix"))
    views = len(specimens.rows(settings)) // 8
    x = torch.randn(8 * views, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mixed = mix.images(x)
    require(mixed.shape == (8, 12), f"features (8, 12) become {tuple(mixed.shape)}")
    mixed.sum().backward()
    own = torch.zeros(8 * views, dtype=torch.float64)
    for share, source in zip(weights(mix)[..., 0, 0, 0], mix.source, strict=True):
        own.index_add_(0, source, share.double())
    assert x.grad is not None
    away = float((x.grad[:, 0].double() - own).abs().max())
    require(away < 1e-5, f"a gradient is {away:.2g} away from the weight of its row")
    return f"gradients equal the weights within {away:.1g}"


class _Unread(Random):
    """Draws whose tensors lie where none can be read back: on `meta`."""

    def field(self, shape: tuple[int, ...], law: Literal["uniform", "normal"] = "uniform") -> Tensor:
        return torch.empty(shape, device=self.device)

    def carry(self, *arrays: np.ndarray) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(np.ascontiguousarray(a)).to(self.device) for a in arrays)


@_law(MIXING_LAWS, "sync law")
def drawing_reads_nothing_back_from_the_device(settings: Mixing) -> str:
    """Drawing puts its tensors on the device and reads none back, which would wait for a GPU."""
    random = _Unread(0, "mix", device=torch.device("meta"))
    mix = draw(changed(settings, per="sample"), specimens.context(), random)
    places = {str(t.device) for t in (mix.source, mix.keep, mix.weight) if t is not None}
    require(places == {"meta"}, f"asked for one device, it draws on {' and '.join(sorted(places))}")
    return "drawn on `meta`"


# ---------------------------------------------------------------------------------------------------- laws of methods


def planned(settings: Method, step: int = 0, added: int = 2) -> Any:
    """A plan for a batch of eight, the last two of them supplements."""
    context = replace(specimens.context(), added=added)
    return implementation(settings).plan(settings, context, Random(0, "mix", step))


def moved(value: Any, to: Callable[[Tensor], Tensor]) -> Any:
    """Every tensor inside a batch or a plan, put through `to`."""
    if isinstance(value, Tensor):
        return to(value)
    if isinstance(value, dict):
        return {key: moved(inner, to) for key, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(moved(inner, to) for inner in value)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{f.name: moved(getattr(value, f.name), to) for f in fields(value)})
    return value


def _gradients(learner: torch.nn.Module) -> list[Any]:
    return [p.grad for p in learner.parameters() if p.requires_grad]


@_law(METHOD_LAWS, "1.3")
def the_loss_of_one_plan_has_the_same_bits_twice_and_draws_nothing(settings: Method) -> str:
    """The loss of one plan has the same bits twice and draws nothing."""
    learner, batch, plan = specimens.learner(settings), specimens.batch(settings), planned(settings)
    state, generator = copy.deepcopy(learner.state_dict()), torch.get_rng_state()
    one = learner(batch, plan)
    learner.load_state_dict(state)
    two = learner(batch, plan)
    first, second = one.total.item(), two.total.item()
    require(math.isfinite(first), f"the loss is {first}")
    require(first == second, f"{first:.6g}, then {second:.6g}")
    require(torch.equal(torch.get_rng_state(), generator), "torch's generator moves inside the loss")
    return f"{first:.4f} twice"


@_law(METHOD_LAWS, "ledger 27")
def parts_are_detached_scalars_and_loss_is_the_total(settings: Method) -> str:
    """Logged parts are detached scalars, `loss` among them the total."""
    losses = specimens.learner(settings)(specimens.batch(settings), planned(settings))
    odd = [name for name, part in losses.parts.items() if part.requires_grad or part.ndim]
    require(not odd, f"{', '.join(odd)}: no detached scalar")
    require("loss" in losses.parts, "no part `loss`")
    require(torch.equal(losses.parts["loss"], losses.total.detach()), "`loss` is not the total")
    return ", ".join(losses.parts)


@_law(METHOD_LAWS, "1.3")
def the_gradient_reaches_the_stem(settings: Method) -> str:
    """The gradient is finite and reaches the first layer."""
    learner = specimens.learner(settings)
    learner(specimens.batch(settings), planned(settings)).total.backward()
    first = next(learner.net.parameters()).grad
    largest = 0.0 if first is None else float(first.abs().max())
    require(largest > 0, "none at the first layer")
    require(all(g is not None and g.isfinite().all() for g in _gradients(learner)), "missing or not finite")
    return f"largest {largest:.2g} there"


@_law(METHOD_LAWS, "1.7")
def a_batch_of_one_and_of_one_class_are_finite(settings: Method) -> str:
    """A batch of one image has a finite loss."""
    plan = implementation(settings).plan(settings, specimens.context(1), Random(0, "mix"))
    net = specimens.net().eval()  # BatchNorm refuses one value per channel in train mode, whatever the method
    total = specimens.learner(settings, net)(specimens.batch(settings, 1), plan).total.item()
    require(math.isfinite(total), f"{total}")
    return f"{total:.4f}"


@_law(METHOD_LAWS, "compile")
def the_step_is_captured_whole(settings: Method) -> str:
    """The step is captured as one graph by torch.compile, with the same loss and gradients."""
    torch._dynamo.reset()
    eager, other = specimens.learner(settings), specimens.learner(settings)
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    batch, plan = specimens.batch(settings), planned(settings)
    one, two = eager(batch, plan), compiled(batch, plan)
    one.total.backward()
    two.total.backward()
    require(torch.allclose(one.total, two.total, rtol=1e-6), f"{one.total.item():.7g} becomes {two.total.item():.7g}")
    for a, b in zip(_gradients(eager), _gradients(other), strict=True):
        require(torch.allclose(a, b, rtol=1e-5, atol=1e-7), "a gradient differs")
    return "fullgraph, loss and gradients agree"


@_law(METHOD_LAWS, "sync law")
def sync_law_forward_with_fake_cuda_tensors(settings: Method) -> str:
    """A step never waits for a GPU: its forward runs on fake CUDA tensors, where reading a value raises."""
    learner, batch, plan = specimens.learner(settings), specimens.batch(settings), planned(settings)
    mode = FakeTensorMode()

    def fake(tensor: Tensor) -> Tensor:
        with mode:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")

    state = {name: fake(value) for name, value in learner.state_dict().items()}
    batch, plan = moved(batch, fake), moved(plan, fake)
    with mode:
        total = torch.func.functional_call(learner, state, (batch, plan)).total
    require(total.device.type == "cuda", f"the loss comes out on {total.device}")
    return "no value read, no shape that depends on data"


@_law(METHOD_LAWS, "sync law")
def sync_law_forward_and_backward_on_meta(settings: Method) -> str:
    """Forward and backward run on `meta`, where nothing can be read."""
    learner = specimens.learner(settings).to("meta")
    batch, plan = (moved(value, lambda t: t.to("meta")) for value in (specimens.batch(settings), planned(settings)))
    learner(batch, plan).total.backward()
    require(all(g.device.type == "meta" for g in _gradients(learner)), "a gradient lies elsewhere")
    return "every gradient made"


@_law(METHOD_LAWS, "1.3")
def a_learner_can_be_copied_deeply(settings: Method) -> str:
    """Net and loss can be copied deeply, as averaged weights ask for."""
    learner = specimens.learner(settings)
    twin = copy.deepcopy(learner)
    require(twin.net is not learner.net and twin.loss is learner.loss, "the copy shares its net, or has another loss")
    return "another net, the same loss"
