"""settings.py: what can be set: one frozen model for training, one per method and per mixing.

A settings class is the registration of its method: `name` is what is typed, `implementation` the module that offers
`needs(settings)`, `plan(settings, context, random)` and `loss(settings, net, batch, plan)`. A mixing is a method whose
loss is plain cross-entropy on mixed images; its `drawing` names the module that offers `draw(settings, context,
random)`. Nothing here imports torch or numpy. Formulas and their sources stand in the implementations; here stand the
options.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, field_validator, model_validator

from mixcli.errors import UserError

Fraction = Annotated[float, Field(ge=0, le=1)]
Alpha = Annotated[float, Field(ge=0.01, json_schema_extra={"hint": "For no mixing: --probability 0"})]
Portion = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=100)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Count = Annotated[int, Field(ge=1)]
Epochs = Annotated[float, Field(ge=0)]


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Method(Settings):
    """What decides how a step mixes and what it minimises."""

    name: ClassVar[str]
    summary: ClassVar[str]
    implementation: ClassVar[str]
    reference: ClassVar[str] = ""  # of somebody's own class: where it lies, and a digest; see own_code.py
    average: ClassVar[float] = 0.0  # decay of averaged weights, where the run does not set it
    teaches: ClassVar[bool] = False  # averaged weights take part in the loss

    def doubts(self, epochs: int) -> Iterator[tuple[str, str]]:
        """Options that are allowed and do something unexpected in so many epochs: option, effect."""
        return iter(())

    def label(self) -> str:
        """The method with the options that differ from their defaults, for tables: `synermix(beta=0.2)`."""
        changed = {k: v for k, v in self if v != type(self).model_fields[k].get_default()}
        inside = ", ".join(f"{k}={_told(v)}" for k, v in changed.items())
        return f"{self.name}({inside})" if inside else self.name


def _told(value: Any) -> str:
    """A value inside a label."""
    if isinstance(value, dict):
        return "/".join(map(_told, value.values()))
    if isinstance(value, tuple):
        return "/".join(own_candidates[one].name if one in own_candidates else str(one) for one in value)
    return value.label() if isinstance(value, Method) else str(value)


class Mixing(Method):
    """A method that mixes images and takes cross-entropy on the mixed labels."""

    implementation: ClassVar[str] = "mixcli.methods.supervised"
    drawing: ClassVar[str]
    moves: ClassVar[bool] = False  # shows its partner elsewhere, so its mask says nothing of features or other masks
    masks: ClassVar[bool] = True  # weighs pixels differently; False: one weight for each image, which fits any features
    symmetric: ClassVar[bool] = True  # exchanging height and width transposes the law of its mask


Per = Literal["batch", "sample"]
Pairing = Literal["permutation", "derangement", "same-class", "different-class"]


class Pairs(Settings):
    """Options shared by everything that pairs the images of a batch."""

    per: Per = Field(default="batch", description="draw ratio and geometry once per batch, or for each image")
    pairing: Pairing = Field(default="permutation", description="which images may be mixed with which")
    probability: Fraction = Field(default=1.0, description="chance to mix at all, drawn per batch or per sample")


class NoMixing(Method):
    """Plain cross-entropy on the training view."""

    name = "none"
    summary = "no mixing: cross-entropy on the training view"
    implementation = "mixcli.methods.supervised"


class Blend(Pairs):
    """Options of convex combinations."""

    alpha: Alpha = Field(default=1.0, description="concentration of Beta(alpha, alpha), or of each Dirichlet entry")
    points: Annotated[int, Field(ge=2, le=8)] = Field(default=2, description="images mixed into one (2 is MixUp)")
    concentration: Literal["per_point", "total"] = Field(
        default="per_point",
        description="with more points: keep alpha for each (per_point), or its sum over the points (total)",
    )


class MixUp(Blend, Mixing):
    name = "mixup"
    summary = "convex combinations of two or more images (Zhang et al. 2018)"
    masks = False
    drawing = "mixcli.mixing.blend"


class CutMix(Pairs, Mixing):
    name = "cutmix"
    summary = "a box of one image pasted into another (Yun et al. 2019)"
    drawing = "mixcli.mixing.cutmix"

    alpha: Alpha = Field(1.0, description="concentration of Beta(alpha, alpha), the nominal share kept")
    box: Literal["clipped", "inside", "minmax"] = Field(
        "clipped", description="box clipped at the border, wholly inside, or with sides of 20 to 80 % (no alpha)"
    )

    @model_validator(mode="after")
    def _no_alpha_without_beta(self):
        if self.box == "minmax" and "alpha" in self.model_fields_set:
            raise UserError("config", "alpha", "box = minmax draws its sides uniformly and has no alpha")
        return self


def _rising(settings: Any, *ranges: str) -> Any:
    """The settings, unless one of these ranges falls."""
    for key in ranges:
        if getattr(settings, key)[0] > getattr(settings, key)[1]:
            raise UserError("config", key, "the first bound is above the second", got=getattr(settings, key))
    return settings


class FMix(Pairs, Mixing):
    name = "fmix"
    summary = "regions cut out of low-frequency noise (Harris et al. 2020)"
    drawing = "mixcli.mixing.fmix"

    alpha: Alpha = Field(1.0, description="concentration of Beta(alpha, alpha), the share kept")
    decay: Annotated[float, Field(ge=0, le=100)] = Field(3.0, description="how fast the noise's amplitude falls")
    softness: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.0, description="share of pixels on each side of the edge that fade"
    )
    variant: Literal["paper", "reference"] = Field(
        "paper", description="as the paper has it, or with the axis mistake of the published code"
    )

    @property
    def symmetric(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.variant == "paper"


class GridMix(Pairs, Mixing):
    name = "gridmix"
    summary = "a grid of small holes inside a random crop (Baek et al. 2021)"
    drawing = "mixcli.mixing.gridmix"
    symmetric = False  # its patches are cut from the crop's width

    alpha: Alpha = Field(1.0, description="concentration of Beta(alpha, alpha), the share kept")
    cells: tuple[Count, Count] = Field((2, 6), description="fewest and most patches across the crop, as 2,6")
    area: tuple[Portion, Portion] = Field((0.5, 1.0), description="smallest and largest crop, as shares of the image")
    aspect: tuple[Positive, Positive] = Field((0.5, 2.0), description="narrowest and widest crop, width over height")

    @model_validator(mode="after")
    def _ranges_rise(self):
        return _rising(self, "cells", "area", "aspect")


class ResizeMix(Pairs, Mixing):
    name = "resizemix"
    summary = "the whole partner, shrunk, pasted into a box (Qin et al. 2020)"
    drawing = "mixcli.mixing.resizemix"
    moves = True

    alpha: Alpha = Field(1.0, description="concentration of Beta(alpha, alpha), with scale_law = beta")
    scale_law: Literal["uniform", "beta"] = Field("uniform", description="law of the scale, on the range of side")
    side: tuple[Portion, Portion] = Field((0.1, 0.8), description="smallest and largest scale of the partner's sides")

    @model_validator(mode="after")
    def _alpha_with_beta_alone(self):
        if self.scale_law == "uniform" and "alpha" in self.model_fields_set:
            raise UserError("config", "alpha", "scale_law = uniform has none", hint="Give --scale-law beta")
        return _rising(self, "side")


class SmoothMix(Pairs, Mixing):
    name = "smoothmix"
    summary = "a Gaussian bump of the partner (Lee et al. 2020)"
    drawing = "mixcli.mixing.smoothmix"

    spread: tuple[Positive, Positive] = Field(
        (0.25, 0.5), description="smallest and largest deviation of the bump, as a share of the shorter side"
    )

    @model_validator(mode="after")
    def _range_rises(self):
        return _rising(self, "spread")


class GMix(Pairs, Mixing):
    name = "gmix"
    summary = "a round Gaussian bump of the image in the minority (Park et al. 2022)"
    drawing = "mixcli.mixing.agmix"

    per: Per = Field("sample", description="draw ratio and geometry once per batch, or for each image")
    alpha: Alpha = Field(1.0, description="concentration of Beta(alpha, alpha), the share kept")


class AGMix(GMix):
    name = "agmix"
    summary = "a stretched and turned Gaussian bump (Liang et al. 2023)"

    tilt: Annotated[float, Field(ge=0, lt=1)] = Field(0.95, description="largest covariance; 0 is GMix")
    rotate: bool = Field(True, description="turn the bump by a random angle")
    scale: Literal["area", "gmix", "sqrt_lambda_n"] = Field(
        "area", description="keep the bump's mass, GMix's formula, or the form of a public re-implementation"
    )


class MiAMix(Pairs, Mixing):
    name = "miamix"
    summary = "several mixings in layers, with augmented masks and self-mixing (Liang et al. 2023)"
    drawing = "mixcli.mixing.miamix"

    per: Per = Field("sample", description="draw layers, methods and masks once per batch, or for each image")
    alpha: Alpha = Field(1.0, description="concentration of the Dirichlet law of the shares")
    methods: tuple[str, ...] = Field(
        ("mixup", "cutmix", "fmix", "gridmix", "agmix"), description="the candidates, by name or path.py:Name",
        json_schema_extra={"rule": "names of mixings, such as mixup,cutmix", "names_candidates": True})  # fmt: skip
    method_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = Field(
        None, description="their weights, one each; unset: 2 for mixup, 1 for the others",
        json_schema_extra={"rule": "one per method, not negative, not all 0"})  # fmt: skip
    p_self: Fraction = Field(0.1, description="chance to mix an image with its own second view")
    second_view: Literal["always", "self"] = Field(
        "always", description="partners come from a second augmentation: all of them, or self-mixed ones"
    )
    layers: Annotated[int, Field(ge=1, le=16)] = Field(2, description="masks per image, at most or exactly")
    layers_law: Literal["random", "fixed"] = Field("random", description="uniform on 1 .. layers, or exactly layers")
    distinct: bool = Field(False, description="the layers of an image use different methods")
    ratio_law: Literal["balanced", "flat", "simplex"] = Field(
        "balanced", description="Dirichlet whose rest weighs as much as the k shares, as one of them, or nothing"
    )
    merge: Literal["product", "average"] = Field("product", description="how the layers' masks become one")
    augmented: tuple[str, ...] = Field(
        ("cutmix", "fmix", "gridmix"), description="candidates whose masks are smoothed, rotated and sheared"
    )
    p_smooth: Fraction = Field(0.5, description="chance of a box blur of side 3 or 5")
    p_affine: Fraction = Field(0.25, description="chance of a rotation and shear")
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(15.0, description="largest rotation, in degrees")
    shear: Annotated[float, Field(ge=0, le=80)] = Field(10.0, description="largest shear, in degrees")
    tilt: Annotated[float, Field(ge=0, lt=1)] = Field(0.95, description="agmix's largest covariance")
    rotate: bool = Field(True, description="turn agmix's bump by a random angle")
    scale: Literal["area", "gmix", "sqrt_lambda_n"] = Field("area", description="agmix's scale")
    candidates: dict[str, SerializeAsAny[Mixing]] = Field(
        {}, description="own options of candidates: tables [candidates.NAME], typed --candidates-NAME-OPTION"
    )

    @property
    def mixings(self) -> tuple[Mixing, ...]:
        """The candidates' settings, in the order of `methods`."""
        bump = {"agmix": AGMix.model_validate({key: getattr(self, key) for key in ("tilt", "rotate", "scale")})}
        known, given = candidates() | own_candidates, {**bump, **self.candidates}
        return tuple(given[name] if name in given else known[name]() for name in self.methods)

    @property
    def symmetric(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return all(own_candidates[name].symmetric for name in self.methods if name in own_candidates)

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each candidate; they need not sum to 1."""
        return self.method_weights or tuple(2.0 if name == "mixup" else 1.0 for name in self.methods)

    @field_validator("candidates")
    @classmethod
    def _only_what_differs(cls, tables: dict[str, Mixing]) -> dict[str, Mixing]:
        return {name: mixing for name, mixing in tables.items() if mixing != type(mixing)()}

    @model_validator(mode="after")
    def _candidates_can_be_drawn(self):
        if not self.methods:
            raise UserError("config", "methods", "must not be empty")
        _names_of_candidates("methods", self.methods, {**candidates(), **own_candidates})
        weights = self.weights
        if len(weights) != len(self.methods) or not sum(weights) > 0:
            raise UserError("config", "method_weights", "do not fit the methods", got=_listed(weights),
                            expected=f"one per method ({len(self.methods)}), not negative, not all 0")  # fmt: skip
        usable = sum(weight > 0 for weight in weights)
        if self.distinct and self.layers > usable:
            raise UserError("config", "distinct", "more layers than methods", got=f"{self.layers} layers",
                            expected=f"at most {usable}")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _nothing_without_effect(self):
        given = self.model_fields_set
        own = [own_candidates[name].name for name in self.methods if name in own_candidates]
        called = [*self.methods, *own] if "augmented" in given else None
        _names_of_candidates("augmented", self.augmented, [*candidates(), *own], called)
        for key in ("tilt", "rotate", "scale"):
            if key in given and ("agmix" not in self.methods or "agmix" in self.candidates):
                reason = "is not among the methods" if "agmix" not in self.methods else "has a table of its own"
                raise UserError("config", key, f"has no effect: agmix {reason}")
        for name, mixing in self.candidates.items():
            if name not in self.methods:
                raise UserError("config", "methods", "lack a candidate that has options", got=_listed(self.methods),
                                hint=f"Add {name}, or leave its options out")  # fmt: skip
            for key in sorted(mixing.model_fields_set & CANDIDATES_SHARE):
                raise UserError("config", f"candidates_{name}_{key}", "is the same for all candidates",
                                hint=f"Give --{key}, of miamix")  # fmt: skip
            points = getattr(mixing, "points", 2)
            if points > 2:
                raise UserError("config", f"candidates_{name}_points", "candidates mix two images", got=points)
        return self


own_candidates: dict[str, type[Mixing]] = {}  # somebody's own, by reference, as options.py has loaded them
CANDIDATES_SHARE = frozenset({"alpha", *Pairs.model_fields})  # given once, for all candidates


def candidates() -> dict[str, type[Mixing]]:
    """The mixings that MiAMix can draw masks of, by name."""
    mixings = {name: cls for name, cls in METHODS.items() if issubclass(cls, Mixing)}
    return {name: cls for name, cls in mixings.items() if not (cls.moves or issubclass(cls, MiAMix))}


def _names_of_candidates(
    key: str, names: tuple[str, ...], known: Collection[str], among: Collection[str] | None = None
) -> None:
    """Raises UserError unless these are `known` candidates, each once, and of `among` where that is given."""
    for name in names:
        if name in METHODS and getattr(METHODS[name], "moves", False):
            raise UserError("config", key, f"{name} moves its source and cannot be a candidate", got=_listed(names))
        if name not in known:
            raise UserError("config", key, "no such candidate", got=name, expected=_listed(candidates()))
        if names.count(name) > 1:
            raise UserError("config", key, f"names {name} twice", got=_listed(names))
        if among is not None and name not in among:
            raise UserError("config", key, f"{name} is not among the methods", got=_listed(names))


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


class MixingInside(Blend, Method):
    """A method that mixes by MixUp with its own keys, or by another mixing named in `[inter]` with that one's keys."""

    inter: SerializeAsAny[Mixing] | None = Field(
        None, description="another mixing in place of MixUp; its keys are typed with --inter- before them"
    )

    @model_validator(mode="after")
    def _keys_of_one_mixing(self):
        twice = [k for k in Blend.model_fields if k in self.model_fields_set]
        if self.inter is not None and twice:
            raise UserError("config", twice[0], f"belongs to MixUp, but the mixing is {self.inter.name}",
                            hint=f"Give --inter-{twice[0]}, or leave inter out")  # fmt: skip
        return self

    @property
    def mixing(self) -> Mixing:
        """The settings of the mixing that is drawn."""
        return self.inter or MixUp.model_validate({k: getattr(self, k) for k in Blend.model_fields})


class Manifold(MixingInside):
    name = "manifold"
    summary = "MixUp of the features of a randomly drawn stage (Verma et al. 2019)"
    implementation = "mixcli.methods.manifold"

    alpha: Alpha = Field(2.0, description="concentration of Beta(alpha, alpha)")
    stages: tuple[str, ...] | None = Field(
        None,
        description="stages drawn from, each alike; `input` is one; unset: input, layer1, layer2, or the first two",
    )
    loss: Literal["ce", "bce"] = Field(
        "ce", description="cross-entropy, or binary cross-entropy on probabilities as the authors trained"
    )

    @model_validator(mode="after")
    def _inter_mixes_features(self):
        if self.mixing.moves:
            problem = "moves its source, which has no meaning for features"
            raise UserError("config", "inter", problem, got=self.mixing.name)
        return self


class RegMixUp(MixingInside):
    name = "regmixup"
    summary = "the mixed loss added to the plain one (Pinto et al. 2022)"
    implementation = "mixcli.methods.regmixup"

    alpha: Alpha = Field(20.0, description="concentration of Beta(alpha, alpha); the authors use 10 on CIFAR-100")
    eta: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the mixed loss")
    reduction: Literal["sum", "mean"] = Field(
        "sum", description="add the two losses, or divide the sum by 1 + eta (published rows)"
    )


class SynerMix(Method):
    name = "synermix"
    summary = "intra-class feature mixing beside inter-class mixing (Xu et al. 2024)"
    implementation = "mixcli.methods.synermix"

    beta: Fraction = Field(0.1, description="weight of the intra-class loss; the inter part weighs 1 - beta")
    inter: SerializeAsAny[Method] = Field(
        MixUp(), description="the inter-class part: none, manifold or any mixing; its keys typed with --inter-"
    )
    weights: Literal["uniform", "dirichlet", "equal", "single"] = Field(
        "uniform", description="blend weights: normalised uniforms, Dirichlet(1), class mean, or each image alone"
    )
    interpolations: Annotated[int, Field(ge=1, le=64)] = Field(1, description="blends per class and step")
    intra_view: Literal["clean", "augmented", "shared"] = Field(
        "clean", description="view of the intra part: originals, a draw of its own, or the inter part's images"
    )
    intra_degree: Fraction = Field(1.0, description="strength of the augmented intra view; 0 is the clean view")
    singletons: Literal["plain", "skip"] = Field(
        "plain", description="a class with one image: plain cross-entropy, or left out"
    )
    clean_bn: Literal["two_pass", "joint", "frozen"] = Field(
        "two_pass", description="BatchNorm in the clean pass: its own update, shared with the inter pass, or none"
    )
    clean_pass: Literal["needed", "always"] = Field(
        "needed", description="always: the clean pass moves BatchNorm statistics even where beta is 0"
    )

    @model_validator(mode="after")
    def _inter_mixes_once(self):
        if not isinstance(self.inter, NoMixing | Mixing | Manifold):
            raise UserError("config", "inter", "not usable inside SynerMix", got=self.inter.name,
                            expected="none, manifold or a mixing")  # fmt: skip
        if "intra_degree" in self.model_fields_set and self.intra_view != "augmented":
            raise UserError("config", "intra_degree", f"has no effect on the {self.intra_view} view",
                            hint="Give --intra-view augmented")  # fmt: skip
        return self


class SynerMixIntra(SynerMix):
    name = "synermix-intra"
    summary = "intra-class feature mixing alone beside cross-entropy (Xu et al. 2024)"

    beta: Fraction = Field(0.5, description="weight of the intra-class loss; the plain loss weighs 1 - beta")
    inter: SerializeAsAny[Method] = Field(NoMixing(), description="the inter-class part; none unless named")


class SemiSupervised(Blend, Method):
    """Options of methods that learn from images without labels too."""

    average = 0.999
    ramp_share: ClassVar[float]  # of the epochs, where `ramp` is unset

    unlabelled: Literal["rest", "all"] = Field(
        "rest", description="images without labels: those outside --labels, or the whole training set, labels dropped"
    )
    unlabelled_batch: Count | None = Field(None, description="unlabelled images per step; unset: as many as labelled")
    unlabelled_weight: Annotated[float, Field(ge=0)] = Field(
        100.0, description="weight of the unlabelled loss after the ramp; that loss is a mean over the N classes too, "
        "so 100 at 10 classes weighs like 10 on summed squares")  # fmt: skip
    ramp: Epochs | None = Field(None, description="epochs in which that weight rises")
    ramp_shape: Literal["sigmoid", "linear"] = Field("sigmoid", description="exp(-5 (1 - t/T)^2), or t/T")

    @model_validator(mode="after")
    def _pairs_without_labels(self):
        if self.pairing in ("same-class", "different-class"):
            raise UserError("config", "pairing", "needs labels, and unlabelled images have none", got=self.pairing,
                            expected="permutation or derangement")  # fmt: skip
        return self

    @property
    def mixing(self) -> MixUp:
        """The mixing that is drawn. One point is two for labelled images: only unlabelled ones stay as they are."""
        return MixUp.model_validate({k: getattr(self, k) for k in Blend.model_fields} | {"points": max(2, self.points)})

    def weight_at(self, epoch: float, epochs: int) -> float:
        """The weight of the unlabelled loss after so many of all epochs, a fraction inside one."""
        length = self.ramp_share * epochs if self.ramp is None else self.ramp
        done = 1.0 if length == 0 else min(1.0, epoch / length)
        return self.unlabelled_weight * (math.exp(-5 * (1 - done) ** 2) if self.ramp_shape == "sigmoid" else done)

    def doubts(self, epochs: int) -> Iterator[tuple[str, str]]:
        if self.ramp is not None and self.ramp > epochs and self.unlabelled_weight:
            reached = self.weight_at(epochs, epochs)
            effect = f"the unlabelled weight ends at {reached:.3g}, {reached / self.unlabelled_weight:.0%} of its value"
            yield "ramp", f"rises for {self.ramp:g} epochs, longer than the {epochs} trained: {effect}"


class ICT(SemiSupervised):
    name = "ict"
    summary = "interpolation consistency with a mean teacher on unlabelled images (Verma et al. 2019)"
    implementation = "mixcli.methods.ict"
    teaches = True
    ramp_share = 0.25

    ramp: Epochs | None = Field(None, description="epochs in which that weight rises; unset: a quarter of training")
    points: Annotated[int, Field(ge=1, le=8)] = Field(
        2, description="images mixed into one; 1: unlabelled images stay as they are, consistency without mixing"
    )
    supervised: Literal["mixed", "plain"] = Field("mixed", description="labelled images: by MixUp too, or as they are")
    target: Literal["probabilities", "logits"] = Field(
        "probabilities", description="what of the teacher is mixed: its probabilities, or its logits before softmax"
    )
    fold: Literal["none", "max"] = Field("none", description="max: the largest share goes to the image itself")
    teacher_bn: Literal["batch", "eval"] = Field(
        "batch", description="the teacher's BatchNorm: batch statistics and its own running ones, or averaged ones"
    )


class MixMatch(SemiSupervised):
    name = "mixmatch"
    summary = "guessed and sharpened labels, mixed with labelled images (Berthelot et al. 2019)"
    implementation = "mixcli.methods.mixmatch"
    ramp_share = 1 / 64

    alpha: Alpha = Field(0.75, description="concentration of Beta(alpha, alpha), or of each Dirichlet entry")
    per: Per = Field("sample", description="draw the ratio once per batch, or for each image")
    points: Annotated[int, Field(ge=1, le=8)] = Field(
        2, description="images mixed into one; 1: unlabelled images stay as they are, labelled ones mix by twos"
    )
    unlabelled_weight: Annotated[float, Field(ge=0)] = Field(
        75.0, description="weight of the unlabelled loss after the ramp; that loss is a mean over the N classes too"
    )
    ramp: Epochs | None = Field(None, description="epochs in which that weight rises; unset: a 64th of training")
    ramp_shape: Literal["sigmoid", "linear"] = Field("linear", description="exp(-5 (1 - t/T)^2), or t/T")
    augmentations: Annotated[int, Field(ge=1, le=8)] = Field(
        2, description="views of an unlabelled image, whose predictions are averaged to a guess"
    )
    temperature: Annotated[float, Field(gt=0, le=100)] = Field(0.5, description="sharpens the guess; 1 keeps it")
    bn: Literal["joint", "interleave"] = Field(
        "joint", description="BatchNorm: one pass of all rows, or blocks of equal make-up of which the first counts"
    )


METHODS: dict[str, type[Method]] = {
    cls.name: cls
    for cls in (
        NoMixing,
        MixUp,
        CutMix,
        FMix,
        GridMix,
        ResizeMix,
        SmoothMix,
        GMix,
        AGMix,
        MiAMix,
        Manifold,
        SynerMixIntra,
        SynerMix,
        RegMixUp,
        ICT,
        MixMatch,
    )
}


def setting(
    default: Any, panel: str, description: str, hashed: bool = True, flags: tuple[str, ...] = (), later: bool = False
) -> Any:
    """A training setting: `panel` groups it in the help; `hashed = False` keeps it out of the run's identity.

    later  it came after runs were made, and its default is what these did: it is in the identity only where it differs
    """
    extra: dict[str, Any] = {"panel": panel, "hashed": hashed, "flags": list(flags), "later": later}
    return Field(default, description=description, json_schema_extra=extra)


class Train(Settings):
    """Everything a training run depends on. `None` means: the recipe's, the net's or the data set's own."""

    method: SerializeAsAny[Method] = Field(NoMixing(), description="how images are mixed", json_schema_extra={})
    seed: Seed = setting(0, "Run", "initialisation, order, augmentation and mixing are keyed by it")

    dataset: str = setting(
        "digits", "Data", "a known name (see list datasets), a .npz file, or a folder of class folders"
    )
    data_dir: str = setting("data", "Data", "where known data sets are looked for [env: MIXCLI_DATA]", hashed=False)
    resize: Annotated[int, Field(ge=8, le=1024)] | None = setting(
        None, "Data", "make image files squares of this side: short side to 8/7 of it, then the centre; unset: as they "
        "are, but 224 for known sets of many sizes and 84 for mini-imagenet")  # fmt: skip
    per_class: Count | None = setting(None, "Data", "train on this many images of each class")
    labels: Count | None = setting(
        None, "Data", "use the labels of this many training images, equally many of each class; unset: of all"
    )
    split_seed: Seed = setting(0, "Data", "chooses the images of splits and subsets")
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = setting(
        0.0, "Data", "share of the training images held out for validation"
    )
    label_noise: Fraction = setting(0.0, "Data", "share of training labels made wrong")
    noise_kind: Literal["symmetric", "pair"] = setting(
        "symmetric", "Data", "a wrong label is any other, or the next one"
    )
    supplement: Annotated[int, Field(ge=0)] | None = setting(
        None, "Data", "images of each present class a batch is filled up to; unset: what the method needs"
    )

    pad: Annotated[int, Field(ge=0, le=256)] | None = setting(
        None, "Augmentation", "pixels padded before the random crop"
    )
    pad_mode: Literal["zero", "reflect"] | None = setting(None, "Augmentation", "what the padding holds")
    flip: bool | None = setting(None, "Augmentation", "mirror half of the images")
    crop: Literal["pad", "resized"] = setting(
        "pad", "Augmentation", "a crop of the padded image, or a random window resized to its size", later=True
    )
    crop_scale: tuple[Portion, Portion] = setting(
        (0.08, 1.0), "Augmentation", "smallest and largest window, as shares of the image's area", later=True
    )
    crop_ratio: tuple[Positive, Positive] = setting(
        (3 / 4, 4 / 3), "Augmentation", "narrowest and widest window, width over height", later=True
    )
    crop_filter: Literal["bilinear", "bicubic"] = setting(
        "bilinear", "Augmentation", "how windows are resized", later=True
    )
    augment: Literal["none", "randaugment", "trivialaugment"] = setting(
        "none", "Augmentation", "random operations after crop and flip, by torchvision's tables", later=True
    )
    augment_count: Annotated[int, Field(ge=1, le=8)] = setting(
        2, "Augmentation", "operations of RandAugment per image", later=True
    )
    augment_magnitude: Annotated[int, Field(ge=0, le=30)] = setting(
        9, "Augmentation", "magnitude of RandAugment, of 30", later=True
    )
    cutout: Annotated[int, Field(ge=0)] = setting(0, "Augmentation", "side of one black square per image; 0 for none")
    normalise: Literal["own", "imagenet", "openmixup", "half"] = setting(
        "own", "Augmentation", "mean and deviation: the data set's own, ImageNet's, OpenMixup's, or 0.5"
    )

    zca: bool | None = setting(
        None, "Augmentation", "whiten images (ZCA) after augmentation, by the covariance of all training images"
    )

    net: str | None = setting(
        None,
        "Net",
        "such as small, resnet18, torchvision:swin_t, timm:convnext_atto (mixcli list nets), or yours, path.py:build",
    )
    width: Annotated[int, Field(ge=1, le=1024)] | None = setting(None, "Net", "channels of the first stage")
    cut: tuple[str, ...] | None = setting(
        None,
        "Net",
        "submodules of somebody else's net, by dotted names, with which its stages end; unset: its own",
    )
    pretrained: bool | None = setting(
        None, "Net", "start from published weights of a torchvision: or timm: net; they must be at hand"
    )

    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = setting(
        None, "Optimisation", "passes over the training images"
    )
    epoch_steps: Count | None = setting(
        None, "Optimisation", "steps of an epoch; unset: one pass over the images, the unlabelled ones where used"
    )
    batch: Count | None = setting(
        None, "Optimisation", "images per step, supplements not counted", flags=("--batch-size",)
    )
    optimizer: Literal["sgd", "adamw"] | None = setting(
        None, "Optimisation", "SGD, or Adam with decoupled weight decay; unset: SGD"
    )
    lr: Annotated[float, Field(gt=0)] | None = setting(None, "Optimisation", "learning rate (its peak, with one-cycle)")
    momentum: Annotated[float, Field(ge=0, lt=1)] = setting(0.9, "Optimisation", "of SGD")
    nesterov: bool = setting(False, "Optimisation", "Nesterov momentum")
    weight_decay: Annotated[float, Field(ge=0)] | None = setting(None, "Optimisation", "L2 penalty on all weights")
    schedule: Literal["cosine", "step", "one-cycle", "constant"] | None = setting(
        None, "Optimisation", "of the learning rate"
    )
    warmup: Epochs = setting(
        0.0, "Optimisation", "epochs in which the rate rises linearly from near 0 to what the schedule says", later=True
    )
    schedule_epochs: Count | None = setting(
        None, "Optimisation", "epochs in which the cosine falls to 0; unset: those that are trained"
    )
    step_every: Count = setting(10, "Optimisation", "epochs between two steps of the step schedule")
    step_factor: Annotated[float, Field(gt=0, le=1)] = setting(0.5, "Optimisation", "factor of one step")
    clip: Annotated[float, Field(ge=0)] = setting(
        0.0, "Optimisation", "largest norm of a step's gradient, over all weights; 0: as it is", later=True
    )
    accumulate: Annotated[int, Field(ge=1, le=4096)] = setting(
        1, "Optimisation", "batches of a step, whose gradients are averaged; each is drawn and mixed by itself",
        later=True)  # fmt: skip
    ema: Annotated[float, Field(ge=0, lt=1)] | None = setting(
        None,
        "Optimisation",
        "decay of averaged weights, which are then evaluated; unset: the method's, mostly 0 (none)",
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = setting(
        0.0, "Optimisation", "spread this share of each label over all classes, after mixing"
    )

    precision: Literal["fp32", "bf16"] | None = setting(None, "Machine", "fp32, or bf16 autocast")
    device: str = setting("auto", "Machine", "cpu, cuda, cuda:N or auto", hashed=False)
    threads: Annotated[int, Field(ge=1, le=1024)] | None = setting(
        None, "Machine", "CPU threads; unset: as torch finds it", hashed=False
    )
    compile: bool = setting(False, "Machine", "compile the step with torch.compile", hashed=False)
    deterministic: bool | None = setting(None, "Machine", "deterministic algorithms; unset: on a CPU", hashed=False)

    eval_every: Count = setting(1, "Run", "epochs between evaluations; the last is always evaluated")
    keep: str | None = setting(None, "Run", "epochs whose weights stay: 1,10,20 or every:10", hashed=False)
    save_every: Count | None = setting(None, "Run", "steps between saves; unset: every epoch", hashed=False)
    runs: str = setting("runs", "Run", "folder of the runs [env: MIXCLI_RUNS]", hashed=False)

    @field_validator("pretrained")
    @classmethod
    def _drawn_weights_are_the_default(cls, value: bool | None) -> bool | None:
        return value or None

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self):
        if self.nesterov and self.momentum == 0:
            raise UserError("config", "nesterov", "needs a momentum above 0")
        if self.optimizer == "adamw" and (self.nesterov or self.momentum != 0.9):
            raise UserError("config", "nesterov" if self.nesterov else "momentum", "belongs to SGD, not to adamw")
        return self

    @model_validator(mode="after")
    def _augmentation_with_an_effect(self):
        given = self.model_fields_set
        for key in ("crop_scale", "crop_ratio", "crop_filter"):
            if self.crop == "pad" and key in given:
                raise UserError("config", key, "has no effect on a padded crop", hint="Give --crop resized")
        if self.crop == "resized" and (self.pad or self.pad_mode):
            raise UserError("config", "pad" if self.pad else "pad_mode", "has no effect on a resized crop",
                            hint="Leave it out, or give --crop pad")  # fmt: skip
        for key in ("augment_count", "augment_magnitude"):
            if self.augment != "randaugment" and key in given:
                raise UserError("config", key, f"has no effect on augment = {self.augment}",
                                hint="Give --augment randaugment")  # fmt: skip
        return _rising(self, "crop_scale", "crop_ratio")


@dataclass(frozen=True)
class Facts:
    """What is known of a data set before its pixels are read."""

    identity: str  # equal for equal data: a published name, or a file's digest
    images: int  # training images before any subset
    test_images: int
    classes: int
    channels: int
    size: tuple[int, int]  # height, width in pixels


# The peak lr was chosen once, among 0.03 to 0.4, on a validation quarter with 4 seeds of `none` and `synermix`.
DIGITS_RECIPE = {"net": "small", "epochs": 20, "batch": 64, "lr": 0.2, "weight_decay": 5e-4, "schedule": "one-cycle",
                 "pad": 1, "pad_mode": "zero", "flip": False}  # fmt: skip
# OpenMixup's ResNet-18 column for optimiser and schedule; the view is ours: reflection keeps the pixel statistics.
IMAGE_RECIPE = {"net": "resnet18", "epochs": 200, "batch": 100, "lr": 0.1, "weight_decay": 1e-4, "schedule": "cosine",
                "pad_mode": "reflect"}  # fmt: skip

# ICT's own column: 400 epochs of a cosine that would end at 450. The labels are the literature's, and ours for digits.
SEMI_SUPERVISED_RECIPE = {"net": "wrn-28-2", "epochs": 400, "schedule_epochs": 450}
DIGITS_AVERAGE = 0.99  # at most: over a thousand steps, 0.999 would average all of them alike
LABELS = {"digits": 100, "cifar10": 4_000, "cifar100": 10_000, "svhn": 1_000}


UPRIGHT = ("svhn", "retinamnist")  # colour sets of which a mirror makes something else: digits, left and right eyes
SIDES = {"food-101": 224, "oxford-iiit-pet": 224, "caltech-256": 224, "mini-imagenet": 84}  # px, of sets of many sizes


def recipe_of(dataset: str) -> dict[str, Any]:
    """The values of settings that are open, by key, before method and size of the images are looked at."""
    return dict(DIGITS_RECIPE if dataset == "digits" else IMAGE_RECIPE)


def stored_side(train: Train) -> int | None:
    """The side of the images that are kept in memory, in pixels; None: that of the files."""
    return SIDES.get(train.dataset) if train.resize is None else train.resize


def complete(train: Train, facts: Facts) -> Train:
    """`train` with every open setting filled in from the recipe of its data set.

    Raises UserError for what contradicts the data: a batch or a class subset larger than the training set.
    """
    recipe = recipe_of(train.dataset)
    if isinstance(train.method, SemiSupervised):
        recipe |= {} if train.dataset == "digits" else SEMI_SUPERVISED_RECIPE
        train = train if train.labels else train.model_copy(update={"labels": LABELS.get(train.dataset)})
    recipe |= {"precision": "fp32", "ema": train.method.average}
    if train.dataset == "digits":
        recipe["ema"] = min(recipe["ema"], DIGITS_AVERAGE)
    recipe.setdefault("pad", min(facts.size) // 8)
    if train.crop == "resized":
        recipe["pad"] = 0
        del recipe["pad_mode"]
    recipe.setdefault("flip", facts.channels == 3 and train.dataset not in UPRIGHT)
    recipe["resize"] = stored_side(train)
    available = training_images(train, facts)
    if train.batch is not None and train.batch > available:
        raise UserError("config", "batch", f"the training set has {available} images", got=train.batch)
    if train.ema == 0 and train.method.teaches:
        raise UserError("config", "ema", f"the teacher of {train.method.name} is an average of the weights", got=0,
                        expected="number > 0 and < 1")  # fmt: skip
    recipe["batch"] = max(1, min(recipe["batch"], available // 4))
    completed = train.model_copy(update={k: v for k, v in recipe.items() if getattr(train, k) is None})
    if epoch_steps(completed, facts) == 0:
        images = train.accumulate * (completed.batch or 0)
        raise UserError("config", "accumulate", f"a step of {images} images takes more than there are",
                        got=train.accumulate, hint="Give a smaller --batch or --accumulate")  # fmt: skip
    _check_warmup(completed)
    return completed


def _check_warmup(train: Train) -> None:
    """Raises UserError for a warm-up that contradicts complete settings."""
    if train.warmup and train.schedule == "one-cycle":
        raise UserError("config", "warmup", "one-cycle rises by itself", got=train.warmup,
                        hint="Give --schedule cosine, step or constant")  # fmt: skip
    if train.warmup > (train.epochs or 0):
        raise UserError("config", "warmup", f"longer than the {train.epochs} epochs trained", got=train.warmup)


def training_images(train: Train, facts: Facts) -> int:
    """How many images are trained on with their labels: a subset, or all that there are.

    Raises UserError for a subset that cannot be made, or not with equally many of each class.
    """
    available = _available(train, facts)
    if train.labels is None:
        return available
    if train.labels > available:
        raise UserError("config", "labels", f"the training set has {available} images", got=train.labels)
    if train.labels % facts.classes:
        near = max(1, train.labels // facts.classes) * facts.classes
        raise UserError("config", "labels", f"not divisible by {facts.classes} classes", got=train.labels,
                        expected=f"a multiple, such as {near}")  # fmt: skip
    return train.labels


def unlabelled_images(train: Train, facts: Facts) -> int:
    """How many images the method learns from without labels. Raises UserError where it asks for some and none is."""
    if not isinstance(train.method, SemiSupervised):
        return 0
    available = _available(train, facts)
    if train.method.unlabelled == "all":
        return available
    left = available - training_images(train, facts)
    if left == 0:
        raise UserError("config", "unlabelled", f"the labels of all {available} training images are used", got="rest",
                        expected="images without labels", hint="Give --labels N, or --unlabelled all")  # fmt: skip
    return left


def unlabelled_batch(train: Train, facts: Facts) -> int:
    """Images without labels in a step of complete settings; 0 where the method takes none."""
    available = unlabelled_images(train, facts)
    asked = train.method.unlabelled_batch if isinstance(train.method, SemiSupervised) else None
    if asked is not None and asked > available:
        raise UserError("config", "unlabelled_batch", f"there are {available} unlabelled images", got=asked)
    return asked or min(train.batch or 1, available)


def epoch_steps(train: Train, facts: Facts) -> int:
    """Steps, which are updates, of an epoch of complete settings. Raises UserError for images without labels."""
    beside, each = unlabelled_images(train, facts), unlabelled_batch(train, facts)
    if train.epoch_steps is not None:
        return train.epoch_steps
    images, batch = (beside, each) if beside else (training_images(train, facts), train.batch or 1)
    return images // (batch * train.accumulate)


def _available(train: Train, facts: Facts) -> int:
    """Training images after the validation split and the subset of each class."""
    available = round(facts.images * (1 - train.val_fraction))
    if train.per_class is None:
        return available
    if train.per_class > available // facts.classes:
        raise UserError("config", "per_class", "more images than a class has", got=train.per_class,
                        expected=f"1 … {available // facts.classes}")  # fmt: skip
    return train.per_class * facts.classes


def kept_epochs(train: Train) -> frozenset[int]:
    """The epochs, counted from 1, whose weights `--keep` asks to stay."""
    if train.keep is None:
        return frozenset()
    epochs, text = train.epochs or 0, train.keep
    every = text.removeprefix("every:")
    try:
        chosen = range(int(every), epochs + 1, int(every)) if text != every else [int(v) for v in text.split(",")]
    except ValueError:
        chosen = [0]
    if not chosen or min(chosen) < 1 or max(chosen) > epochs:
        raise UserError(
            "config", "keep", "no such epochs", got=text, expected=f"1,10,20 or every:10, within 1 … {epochs}"
        )
    return frozenset(chosen)


MEDMNIST = {  # 28x28, MedMNIST v2: training and test images, classes, channels, what they are
    "pathmnist": (89_996, 7_180, 9, 3, "colon tissue"),
    "dermamnist": (7_007, 2_005, 7, 3, "skin lesions"),
    "octmnist": (97_477, 1_000, 4, 1, "retinal OCT"),
    "pneumoniamnist": (4_708, 624, 2, 1, "chest X-rays"),
    "retinamnist": (1_080, 400, 5, 3, "fundus photographs"),
    "breastmnist": (546, 156, 2, 1, "breast ultrasound"),
    "bloodmnist": (11_959, 3_421, 8, 3, "blood cells"),
    "tissuemnist": (165_466, 47_280, 8, 1, "kidney cells"),
    "organamnist": (34_561, 17_778, 11, 1, "abdominal CT, axial"),
    "organcmnist": (12_975, 8_216, 11, 1, "abdominal CT, coronal"),
    "organsmnist": (13_932, 8_827, 11, 1, "abdominal CT, sagittal"),
}
DATASETS = {
    "digits": "8x8 handwritten digits, 10 classes, inside scikit-learn: nothing to download",
    "cifar10": "32x32 colour images, 10 classes; cifar-10-batches-py/",
    "cifar100": "32x32 colour images, 100 fine classes; cifar-100-python/",
    "svhn": "32x32 colour house numbers, 10 classes; train_32x32.mat and test_32x32.mat in svhn/",
    "tiny-imagenet": "64x64 colour images, 200 classes; tiny-imagenet-200/; 4 GB of memory",
    "mini-imagenet": "84 px, 100 classes of 600, a fifth of each as the test; mini-imagenet/CLASS/",
    "food-101": "224 px, 101 dishes, official split; food-101/; 43 GB of memory at 224 px, see --resize",
    "oxford-iiit-pet": "224 px, 37 breeds, trainval and test; oxford-iiit-pet/images/ and annotations/; 3 GB of memory",
    "caltech-256": "224 px, 257 classes, 60 and 20 images of each; 256_ObjectCategories/; 9 GB of memory",
    "eurosat": "64x64 satellite images, 10 land uses, a fifth of each as the test; eurosat/2750/",
    **{name: f"28x28 {'colour' if channels == 3 else 'grey'} images, {classes} classes: {what} (MedMNIST)"
       for name, (_, _, classes, channels, what) in MEDMNIST.items()},
}  # fmt: skip

NETS = {
    "small": ("mixcli.nets.small", "residual net for 8x8 to 32x32 images on a CPU"),
    "resnet18": ("mixcli.nets.resnet", "ResNet-18 with the CIFAR stem (3x3, stride 1, no pooling)"),
    "resnet34": ("mixcli.nets.resnet", "ResNet-34 with the CIFAR stem"),
    "resnet50": ("mixcli.nets.resnet", "ResNet-50 with the CIFAR stem"),
    "resnet101": ("mixcli.nets.resnet", "ResNet-101 with the CIFAR stem"),
    "resnext50": ("mixcli.nets.resnet", "ResNeXt-50 32x4d with the CIFAR stem"),
    "preact-resnet18": ("mixcli.nets.resnet", "PreAct-ResNet-18 with the CIFAR stem"),
    "wrn-28-2": ("mixcli.nets.wide_resnet", "Wide ResNet of depth 28, twice as wide"),
    "wrn-28-8": ("mixcli.nets.wide_resnet", "Wide ResNet of depth 28, eight times as wide"),
    "wrn-28-10": ("mixcli.nets.wide_resnet", "Wide ResNet of depth 28, ten times as wide"),
    "cnn-13": ("mixcli.nets.cnn13", "13-layer convolutional net of the semi-supervised literature"),
    "vit-tiny": ("mixcli.nets.vit", "vision transformer on 4x4 patches, width 192, 12 blocks; sides that 4 divides"),
}

# Nets of other libraries by the names they are typed with, and where they are cut. Of timm these are the ones held to
# equal their originals bit for bit; any other classifier of its catalogue may be typed too.
TORCHVISION = {
    "resnet18": "ResNet-18 for ImageNet: stem, layer1 … layer4",
    "resnet34": "ResNet-34 for ImageNet: stem, layer1 … layer4",
    "resnet50": "ResNet-50 for ImageNet: stem, layer1 … layer4",
    "resnet101": "ResNet-101 for ImageNet: stem, layer1 … layer4",
    "mobilenet_v3_large": "MobileNetV3-Large: stem, block1 … block15",
    "swin_t": "Swin-T: stem, stage1 … stage4",
    "convnext_tiny": "ConvNeXt-T: stem, stage1 … stage4",
    "vit_b_16": "ViT-B/16, for square images whose side 16 divides: stem, block1 … block12",
}
TIMM = {
    "resnet18": "stem, layer1 … layer4",
    "resnet26d": "stem, layer1 … layer4",
    "resnext50_32x4d": "stem, layer1 … layer4",
    "seresnet50": "stem, layer1 … layer4",
    "res2net50_26w_4s": "stem, layer1 … layer4",
    "resnest14d": "stem, layer1 … layer4",
    "skresnet18": "stem, layer1 … layer4",
    "ese_vovnet19b_dw": "stem, stage1 … stage4",
    "densenet121": "stem, stage1 … stage4",
    "regnetx_002": "stem, s1 … s4",
    "regnety_002": "stem, s1 … s4",
    "repvgg_a0": "stem, stage1 … stage3, final_conv",
    "gernet_s": "stem, stage1 … stage3, final_conv",
    "cspresnet50": "stem, stage1 … stage4",
    "hgnetv2_b0": "stem, stage1 … stage4",
    "mobilenetv2_050": "stem, block1 … block3, block5, block7",
    "mobilenetv3_small_050": "stem, block1, block2, block4, block6",
    "efficientnet_b0": "stem, block1 … block3, block5, block7",
    "efficientnet_lite0": "stem, block1 … block3, block5, block7",
    "mnasnet_small": "stem, block1 … block3, block5, block7",
    "lcnet_050": "stem, block1 … block3, block5, block6",
    "tinynet_e": "stem, block1 … block3, block5, block7",
    "hardcorenas_a": "stem, block1 … block3, block5, block7",
    "rexnet_100": "stem, stage1 … stage5",
    "starnet_s1": "stem, stage1 … stage4",
    "fasternet_t0": "stem, stage1 … stage4",
    "mobileone_s0": "stem, stage1 … stage3, final_conv",
    "fastvit_t8": "stem, stage1 … stage4",
    "convnext_atto": "stem, stage1 … stage4",
    "convnextv2_atto": "stem, stage1 … stage4",
    "inception_next_atto": "stem, stage1 … stage4",
    "edgenext_xx_small": "stem, stage1 … stage4",
    "mobilevit_xxs": "stem, stage1 … stage4, final_conv",
    "mambaout_femto": "stem, stage1 … stage4",
    "poolformer_s12": "stem, stage1 … stage4",
    "focalnet_tiny_srf": "stem, stage1 … stage4",
    "tiny_vit_5m_224": "stem, stage1 … stage4",
    "coatnet_0_224": "stem, stage1 … stage4",
    "swin_tiny_patch4_window7_224": "stem, stage1 … stage4",
    "swinv2_tiny_window8_256": "stem, stage1 … stage4",
    "vit_tiny_patch16_224": "stem, block1 … block12",
    "deit_tiny_patch16_224": "stem, block1 … block12",
    "eva02_tiny_patch14_224": "stem, block1 … block12",
    "cait_xxs24_224": "stem, block1 … block24",
    "visformer_tiny": "stem, stage1 … stage3",
    "mixer_s32_224": "stem, block1 … block8",
    "resmlp_12_224": "stem, block1 … block12",
    "gmlp_ti16_224": "stem, block1 … block30",
}
LIBRARIES = ("torchvision", "timm")
BORROWED = {f"torchvision:{name}": summary for name, summary in TORCHVISION.items()} | {
    f"timm:{name}": summary for name, summary in TIMM.items()
}
