"""Stripes, a mixing of one's own in one file: mixcli train --method examples/my_mix.py:Stripes --stripes 3

The class says what can be set: each field is an option, a TOML key, a variable and part of the run's identity.
`draw` draws: from the settings, what may be looked at (sizes, labels) and keyed random numbers, to a Mix.
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from mixcli.mix import Context, Mix
from mixcli.mixing import masked
from mixcli.mixing.masked import Masks
from mixcli.sampling import Random
from mixcli.settings import Alpha, Mixing, Pairs


class Stripes(Pairs, Mixing):
    """Stripes of the partner, as wide as its share asks for."""

    symmetric = False  # they tell rows from columns; `mixcli check` would take that for a mistake

    alpha: Alpha = Field(1.0, description="concentration of Beta(alpha, alpha), the share kept")
    stripes: Annotated[int, Field(ge=1, le=16)] = Field(2, description="stripes across the image")
    along: Literal["rows", "columns"] = Field("columns", description="which way they run")


def draw(settings: Stripes, context: Context, random: Random) -> Mix:
    """Whom to mix, with whom and the shares are drawn for every mixing alike; the masks are ours."""
    return masked.draw(settings, context, random, masks)


def masks(settings: Stripes, share: np.ndarray, size: tuple[int, int], random: Random) -> Masks:
    """The partner's stripes, from a random place on, for shares (n,) of the image itself."""
    side = size[0] if settings.along == "rows" else size[1]
    start = random.host.random(len(share))
    phase = (np.arange(side) / side * settings.stripes + start[:, None]) % 1  # (n, side)
    keep = (phase < share[:, None]).astype(np.float32)
    keep = keep[:, None, :, None] if settings.along == "rows" else keep[:, None, None, :]
    (keep,) = random.carry(np.broadcast_to(keep, (len(share), 1, *size)))
    return Masks(keep, share, "binary")
