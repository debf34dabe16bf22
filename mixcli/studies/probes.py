"""probes.py: the probes that can be named, their options and headline numbers; a probe is one module and one entry.

The module of a probe offers three functions:

    passes(scene, options)        forward passes of one image it will make, told before it starts
    look(scene, options)          what it finds in the nets of a `probing.Scene`, as `findings.Findings`
    headline(table)               {name: value} of one checkpoint's rows: one number per run, compared by section 8

and its `Findings` name the function of `report` that draws them. A headline number whose name ends in a dot is one per
site, the site's name following. Nothing here imports torch or numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from mixcli.errors import UserError, nearest
from mixcli.settings import Settings, setting

Points = Annotated[int, Field(ge=2, le=8)]


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


@dataclass(frozen=True)
class Probe:
    """A probe that can be named.

    module     has `passes`, `look` and `headline`
    headlines  one value per run each: name -> what it is; a name that ends in a dot goes on with the name of a site
    """

    summary: str
    module: str
    headlines: Mapping[str, str]
    options: type[Settings] = field(default=NoOptions)


PROBES: dict[str, Probe] = {
    "linearity": Probe(
        "how far the map from the input to each stage is from linear between images",
        "mixcli.studies.linearity",
        {"dev_spread.": "deviation over the spread of the points, two images of different classes",
         "dev_norm.": "the same over the norm of their mean"},
        Linearity,
    ),
    "calibration": Probe(
        "whether the confidence can be believed: proper scores, calibration errors, temperature",
        "mixcli.studies.reliability",
        {"nll": "mean negative log-likelihood, nats", "brier": "squared distance to the one-hot label, 0 to 2"},
    ),
}  # fmt: skip


def named(name: str) -> Probe:
    """The probe of a name. Raises UserError, the nearest one named."""
    if name not in PROBES:
        raise UserError("usage", "probe", "no such probe", got=name, hint=nearest(name, PROBES))
    return PROBES[name]
