"""Small stand-ins for what the tests need: a net, batches, contexts, and the catalogue that the laws run over."""

from __future__ import annotations

import numpy as np
import torch

from mixcli.engine.learner import Learner
from mixcli.mix import Batch, Context, implementation
from mixcli.nets.staged import StagedNet, build
from mixcli.sampling import Random
from mixcli.settings import (
    ICT,
    METHODS,
    AGMix,
    CutMix,
    FMix,
    Manifold,
    Method,
    MiAMix,
    Mixing,
    MixMatch,
    MixUp,
    NoMixing,
    RegMixUp,
    ResizeMix,
    SynerMix,
    SynerMixIntra,
)

CLASSES = 5
UNLABELLED = 6  # images without labels beside a batch

MIXINGS: list[Mixing] = [cls() for cls in METHODS.values() if issubclass(cls, Mixing)] + [
    MixUp(points=3),
    MixUp(points=8, concentration="total"),
    CutMix(box="inside"),
    CutMix(box="minmax"),
    FMix(softness=0.2),
    AGMix(scale="sqrt_lambda_n"),
    ResizeMix(scale_law="beta", alpha=2),
    MiAMix(p_self=0.5, second_view="self", layers=3, layers_law="fixed", ratio_law="flat", merge="average"),
    MiAMix(methods=("fmix", "gmix", "smoothmix"), augmented=("fmix", "gmix"), distinct=True, ratio_law="simplex",
           layers=3, p_smooth=1, p_affine=1, rotation=90, candidates={"fmix": FMix(softness=0.2)}),
]  # fmt: skip

METHOD_CASES: list[Method] = [cls() for cls in METHODS.values()] + [
    Manifold(inter=CutMix(), loss="bce"),
    Manifold(inter=MiAMix()),
    RegMixUp(inter=CutMix(), reduction="mean"),
    RegMixUp(inter=MiAMix(second_view="self")),
    SynerMix(beta=0.3, inter=Manifold(), clean_bn="joint", weights="dirichlet", interpolations=3),
    SynerMix(inter=CutMix(), intra_view="augmented", clean_bn="frozen"),
    SynerMix(inter=MiAMix(), clean_bn="joint"),
    SynerMix(inter=ResizeMix(), intra_view="shared"),
    SynerMix(beta=0, clean_pass="always"),
    SynerMix(beta=1),
    SynerMix(intra_view="shared", weights="single", singletons="skip"),
    SynerMixIntra(weights="equal", inter=NoMixing()),
    ICT(points=3, target="logits", fold="max", teacher_bn="eval", supervised="plain", per="sample"),
    ICT(points=1, ramp=0),
    ICT(unlabelled_weight=0),
    MixMatch(points=4, bn="interleave", unlabelled_batch=7, ramp=0),
    MixMatch(points=1, augmentations=3, temperature=1),
]


def label(settings: Method) -> str:
    return settings.label()


def net(seed: int = 0, channels: int = 3, classes: int = CLASSES, width: int = 4) -> StagedNet:
    return build("small", channels, classes, width, Random(seed, "init"))


def labels(batch: int, classes: int = CLASSES, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, batch)


def context(batch: int = 8, height: int = 8, width: int = 8, classes: int = CLASSES) -> Context:
    sizes = net().sizes(3, height, width)
    return Context((batch, height, width), labels(batch, classes), classes, 0, sizes, UNLABELLED, 1.5, 4)


def images(batch: int = 8, height: int = 8, width: int = 8, seed: int = 0, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, height, width, generator=generator, dtype=torch.float64).to(dtype)


def rows(settings: Method, batch: int = 8, height: int = 8, width: int = 8, dtype: torch.dtype = torch.float32):
    """The stacked views that a Mix of these settings takes its sources from."""
    views = ("images", *implementation(settings).needs(settings).views)
    return torch.cat([images(batch, height, width, seed, dtype) for seed in range(len(views))])


def batch(settings: Method, size: int = 8, device: str = "cpu") -> Batch:
    views = implementation(settings).needs(settings).views
    extra = {name: images(size, seed=i + 1).to(device) for i, name in enumerate(views)}
    asked = implementation(settings).needs(settings).unlabelled
    unlabelled = () if asked is None else tuple(images(UNLABELLED, seed=50 + i).to(device) for i in range(asked.views))
    return Batch(images(size).to(device), torch.from_numpy(labels(size)).to(device), CLASSES, 0.0, extra, unlabelled)


def learner(settings: Method, model: StagedNet | None = None) -> Learner:
    """A net and the loss of a method; its teacher, where it has one, has other weights than the net."""
    model = model or net()
    asked = implementation(settings).needs(settings).average
    if asked is None or not asked.teaches:
        return Learner(model, settings)
    teacher = net(seed=9).requires_grad_(False).train(model.training)
    return Learner(model, settings, teacher)
