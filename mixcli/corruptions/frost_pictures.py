"""frost_pictures.py: five pictures of frost of our own making, since the licence of the published ones is unknown.

Ice on glass by recipe: a base colour for each picture, filtered noise, branching line segments, a histogram made to
match the normal law. Made to resemble, at a fifth of their size and in crops of 32 x 32 px, these figures of the
published pictures: mean of red, green, blue 144, 165, 177; standard deviation within a crop 22.6; of the crops' means
51, 36, 34; amplitude falling as f^-0.94 over 0.04 to 0.45 cycles per pixel; correlation of the channels 0.87;
autocorrelation of neighbours 0.65 to 0.7. A fixed key draws them, so they are the same everywhere; what is made from
them is called `frost_procedural`, never frost.
"""

from __future__ import annotations

from functools import lru_cache
from math import cos, pi, sin

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from mixcli.corruptions.keyed import Keys

SIDE = 640  # px
COLOURS = ((71, 118, 135), (111, 141, 157), (148, 168, 178), (185, 187, 200), (210, 217, 223))  # RGB, one a picture
SPREAD = 27.0  # standard deviation within a picture, grey levels
FALL = 2.25  # power of the noise falls as f to this
MIXING = ((0.87, -0.0815, 0.486), (1.0, 0.0, 0.0), (0.94, 0.341, 0.0))  # of the crystals and two noises, for R, G, B
CRYSTALS = 40  # per picture
BRANCHES = 14  # per stem, on both sides
LIGHT = 1.2  # of the crystals, in standard deviations of the noise


@lru_cache(maxsize=1)
def drawn() -> tuple[Tensor, ...]:
    """Five (640, 640, 3) uint8 RGB pictures; periodic in both directions; made once, in about a second."""
    stream = Keys(0, torch.arange(len(COLOURS))).stream("frost_procedural", 0)
    noises = filtered_noise(stream.normal("noise", (3, SIDE, SIDE)).double().numpy())
    stems = stream.uniform("stem", (CRYSTALS, 5)).numpy()
    return tuple(_picture(*each) for each in zip(noises, stems, COLOURS, strict=True))


def _picture(noises: np.ndarray, stems: np.ndarray, colour: tuple[int, int, int]) -> Tensor:
    ice = normalised(noises[0] + LIGHT * crystals(stems))
    layers = np.stack([ice, noises[1], noises[2]], 2)
    values = np.array(colour) + SPREAD * (layers @ np.array(MIXING).T)
    return torch.from_numpy(np.clip(values + 0.5, 0, 255).astype(np.uint8))


def filtered_noise(white: np.ndarray) -> np.ndarray:
    """(..., n, n) white noise -> the same shape, variance 1, mean 0, power falling as f^-FALL."""
    size = white.shape[-1]
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf
    filtered = np.fft.irfft2(np.fft.rfft2(white) * frequency ** (-FALL / 2), s=(size, size))
    return filtered / filtered.std((-2, -1), keepdims=True)


def normalised(values: np.ndarray) -> np.ndarray:
    """The values replaced, in their order, by the quantiles of the normal law."""
    order = np.argsort(values, axis=None, kind="stable")
    matched = np.empty(values.size)
    matched[order] = ndtri((np.arange(values.size) + 0.5) / values.size)
    return matched.reshape(values.shape)


def crystals(stems: np.ndarray) -> np.ndarray:
    """(count, 5) on [0, 1): place (2), direction, length, angle of the branches -> (n, n) brightness in 0 .. 1."""
    canvas = np.zeros((SIDE, SIDE))
    for row, column, direction, length, fork in stems:
        start, heading = np.array([row, column]) * SIDE, 2 * pi * direction
        reach, angle = SIDE * (0.1 + 0.25 * length), pi * (0.25 + 0.1 * fork)
        _line(canvas, start, heading, reach)
        for branch in range(BRANCHES):
            along = (branch + 1) / (BRANCHES + 1)
            base = start + reach * along * np.array([sin(heading), cos(heading)])
            for side in (-1, 1):
                _line(canvas, base, heading + side * angle, 0.4 * reach * (1 - along))
    return canvas


def _line(canvas: np.ndarray, start: np.ndarray, heading: float, length: float) -> None:
    """A line 5 px wide that fades towards its end; what leaves one side comes in at the other."""
    along = np.arange(0, length, 0.5)
    light = 1 - along / (length + 1)
    for offset in range(-2, 3):
        row = np.rint(start[0] + along * sin(heading) + offset * cos(heading)).astype(int) % SIDE
        column = np.rint(start[1] + along * cos(heading) - offset * sin(heading)).astype(int) % SIDE
        np.maximum.at(canvas, (row, column), light)
