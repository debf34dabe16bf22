"""catalogue.py: the probes that can be named, their options and headline numbers; a probe is one module and one entry.

The module of a probe offers three functions:

    passes(scene, options)        forward passes of one image it will make, told before it starts
    look(scene, options)          what it finds in the nets of a `probing.Scene`, as `findings.Findings`
    headline(table)               {name: value} of one checkpoint's rows: one number per run, compared over runs

and, where the sign of a difference is the question, `direction(who, pairs)`: lines about headline numbers of runs of
one seed. Its `Findings` name the module of `report` that makes tables and figures of them. A headline number whose name
ends in a dot is one per site, the site's name following. Nothing here imports torch or numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from mixcli.errors import UserError, nearest
from mixcli.settings import Settings, setting

Points = Annotated[int, Field(ge=2, le=8)]
Dims = Annotated[int, Field(ge=1, le=512)]
Blends = Annotated[int, Field(ge=1, le=64)]


class NoOptions(Settings):
    """A probe without options of its own."""


class Linearity(Settings):
    """Options of `mixcli probe linearity`."""

    points: Annotated[tuple[Points, ...], Field(json_schema_extra={"rule": "integers 2 … 8"})] = setting(
        (2, 3), "Linearity", "images in a mix"
    )
    mix_at: Literal["input", "every"] = setting("input", "Linearity", "where images or features are mixed")
    bn: Literal["stored", "clean"] = setting(
        "stored", "Linearity", "BatchNorm statistics: the run's, or estimated on clean training images"
    )


class Geometry(Settings):
    """Options of `mixcli probe geometry`."""

    full: bool = setting(
        False, "Geometry", "also neural collapse of test and training images, Fisher, clustering scores, uniformity"
    )
    k: int = setting(20, "Geometry", "neighbours among the training images")
    linear: bool = setting(False, "Geometry", "also a logistic probe on the training features")
    C: float = setting(1.0, "Geometry", "inverse of its penalty")


class Embed(Settings):
    """Options of `mixcli probe embed`."""

    how: Literal["tsne", "umap", "pca"] = setting("tsne", "Embed", "tsne, umap or pca")
    perplexity: float = setting(30.0, "Embed", "of t-SNE")
    neighbors: int = setting(15, "Embed", "of UMAP")
    classes: str | None = setting(None, "Embed", "names or numbers, as in 3,17; unset: all, or 10 of more than 20")
    repeats: Annotated[int, Field(ge=1, le=9)] = setting(1, "Embed", "maps side by side, to show what is stable")
    overlay: Literal["none", "blend"] = setting("none", "Embed", "blend: also blends of two to five images of a class")
    html: bool = setting(False, "Embed", "also a self-contained page (extra html)")


class Hull(Settings):
    """Options of `mixcli probe hull`."""

    dims: Annotated[tuple[Dims, ...], Field(json_schema_extra={"rule": "integers 1 … 512"})] = setting(
        (16,), "Hull", "principal directions of a class that its hull is measured in"
    )


class GradientNoise(Settings):
    """Options of `mixcli probe gradient-noise`."""

    draws: Annotated[int, Field(ge=4, le=4096)] = setting(64, "Gradient noise", "plans per batch, R")
    batches: Annotated[int, Field(ge=2, le=1024)] = setting(16, "Gradient noise", "batches of the training images")
    points: Annotated[tuple[Blends, ...], Field(json_schema_extra={"rule": "integers 1 … 64"})] = setting(
        (1, 2, 3, 5, 10), "Gradient noise", "blends per class, whose trace must fall as their inverse"
    )


@dataclass(frozen=True)
class Probe:
    """A probe that can be named.

    module     has `passes`, `look` and `headline`
    headlines  one value per run each: name -> what it is; a name that ends in a dot goes on with the name of a site
    training   it looks at the run's own training batches, not at the images asked for
    """

    summary: str
    module: str
    headlines: Mapping[str, str]
    options: type[Settings] = field(default=NoOptions)
    training: bool = False


PROBES: dict[str, Probe] = {
    "linearity": Probe(
        "how far the map from the input to each stage is from linear between images",
        "mixcli.studies.probes.linearity",
        {"dev_spread.": "deviation over the spread of the points, two images of different classes",
         "dev_norm.": "the same over the norm of their mean"},
        Linearity,
    ),
    "geometry": Probe(
        "how tight the classes are and how far apart: cohesion, separability, neural collapse, CKA",
        "mixcli.studies.probes.geometry",
        {"cohesion_pair": "mean cosine of two images of a class", "nc1": "scatter within over scatter between classes",
         "separability_centred": "1 - cosine of two class centres, the common mean subtracted"},
        Geometry,
    ),
    "embed": Probe(
        "features on a plane by t-SNE, UMAP or PCA, and how far the map can be trusted",
        "mixcli.studies.probes.embedding",
        {"trustworthiness": "of the map; no other number is taken from one"},
        Embed,
    ),
    "hull": Probe(
        "how far images of a class lie from the hull of its training features, beside held-back ones",
        "mixcli.studies.probes.hull",
        {"gap_test": "median relative distance of test images less that of held-back training images"},
        Hull,
    ),
    "gradient-noise": Probe(
        "what blending adds to the noise of the gradient, and whether the parts of a loss pull alike",
        "mixcli.studies.probes.gradient_noise",
        {"noise": "trace of the gradient's covariance over its squared norm, of the blends",
         "share": "the blends' share of the whole gradient's covariance",
         "cosine": "of the gradients of the intra and the inter part"},
        GradientNoise,
        training=True,
    ),
    "calibration": Probe(
        "whether the confidence can be believed: proper scores, calibration errors, temperature",
        "mixcli.studies.probes.reliability",
        {"nll": "mean negative log-likelihood, nats", "brier": "squared distance to the one-hot label, 0 to 2"},
    ),
}  # fmt: skip


def named(name: str) -> Probe:
    """The probe of a name. Raises UserError, the nearest one named."""
    if name not in PROBES:
        raise UserError("usage", "probe", "no such probe", got=name, hint=nearest(name, PROBES))
    return PROBES[name]
