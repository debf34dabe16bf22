"""settings.py: what can be set of methods and mixings: one frozen model for each.

A settings class is the registration of its method: `name` is what is typed, `implementation` the module that offers
`needs(settings)`, `plan(settings, context, random)` and `loss(settings, net, batch, plan)`. A mixing is a method whose
loss is plain cross-entropy on mixed images; its `drawing` names the module that offers `draw(settings, context,
random)`. Nothing here imports torch or numpy. Formulas and their sources stand in the implementations; here stand the
options.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, field_validator, model_validator

from mixcli.errors import UserError

Fraction = Annotated[float, Field(ge=0, le=1)]
Alpha = Annotated[float, Field(ge=0.01, json_schema_extra={"hint": "For no mixing: --probability 0"})]
Portion = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=100)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Count = Annotated[int, Field(ge=1)]
Cells = Annotated[int, Field(ge=1, le=1024)]
Epochs = Annotated[float, Field(ge=0)]


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def setting(
    default: Any, panel: str, description: str, hashed: bool = True, flags: tuple[str, ...] = (), later: bool = False
) -> Any:
    """A setting: `panel` groups it in the help; `hashed = False` keeps it out of the run's identity.

    later  it came after runs were made, and its default is what these did: it is in the identity only where it differs
    """
    extra: dict[str, Any] = {"panel": panel, "hashed": hashed, "flags": list(flags), "later": later}
    return Field(default, description=description, json_schema_extra=extra)


def rising(settings: Any, *ranges: str) -> Any:
    """The settings, unless one of these ranges falls."""
    for key in ranges:
        if getattr(settings, key)[0] > getattr(settings, key)[1]:
            raise UserError("config", key, "the first bound is above the second", got=getattr(settings, key))
    return settings


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
    cells: tuple[Cells, Cells] = Field((2, 6), description="fewest and most patches across the crop, as 2,6")
    area: tuple[Portion, Portion] = Field((0.5, 1.0), description="smallest and largest crop, as shares of the image")
    aspect: tuple[Positive, Positive] = Field((0.5, 2.0), description="narrowest and widest crop, width over height")

    @model_validator(mode="after")
    def _ranges_rise(self):
        return rising(self, "cells", "area", "aspect")


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
        return rising(self, "side")


class SmoothMix(Pairs, Mixing):
    name = "smoothmix"
    summary = "a Gaussian bump of the partner (Lee et al. 2020)"
    drawing = "mixcli.mixing.smoothmix"

    spread: tuple[Positive, Positive] = Field(
        (0.25, 0.5), description="smallest and largest deviation of the bump, as a share of the shorter side"
    )

    @model_validator(mode="after")
    def _range_rises(self):
        return rising(self, "spread")


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
        own = {name: own_candidates[name]() for name in self.methods if name in own_candidates}
        given = {"agmix": _bump(self.tilt, self.rotate, self.scale), **own, **self.candidates}
        return tuple([given[name] if name in given else _candidate(name) for name in self.methods])

    @property
    def symmetric(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return all(mixing.symmetric for mixing in self.mixings)

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
        if len(weights) != len(self.methods) or not 0 < sum(weights) < math.inf:
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
        own = [own_candidates[name] for name in self.methods if name in own_candidates]
        if all(hasattr(cls, "drawing") for cls in own):  # known to all but those who only read a run
            names = [cls.name for cls in own]
            called = [*self.methods, *names] if "augmented" in given else None
            _names_of_candidates("augmented", self.augmented, [*candidates(), *names], called)
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


@lru_cache
def _bump(tilt: float, rotate: bool, scale: str) -> AGMix:
    return AGMix.model_validate({"tilt": tilt, "rotate": rotate, "scale": scale})


@lru_cache
def _candidate(name: str) -> Mixing:
    """A candidate by default options. Settings are frozen: every step may have the same ones."""
    return candidates()[name]()


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
        description="stages drawn from, each alike, one named twice twice as often; `input` is one; "
        "unset: input, layer1, layer2, or the first two",
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
