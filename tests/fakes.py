"""Small stand-ins for what the tests need: a net, batches, contexts, and the catalogue that the laws run over."""

from __future__ import annotations

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
from mixcli.studies.specimens import CLASSES, UNLABELLED, batch, context, images, labels, learner, net, rows

__all__ = ["CLASSES", "METHODS", "METHOD_CASES", "MIXINGS", "UNLABELLED", "batch", "context", "images", "label"]
__all__ += ["labels", "learner", "net", "rows"]

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
