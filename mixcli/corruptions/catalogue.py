"""catalogue.py: the 19 corruptions by name: which exist at which size, and how to draw and apply one cell.

D. Hendrycks, T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019,
arXiv 1903.12261: 15 standard corruptions and 4 more. `draws` makes every random tensor of a cell from keys, `corrupt`
is a pure function of images and draws; both work batch by batch, and give each image the same bytes in any batch.
Deliberate rules of ours: a size that has no published parameters takes a column by its shorter side (16 to 48: 32,
49 to 128: 64, above: 224, 8 to 15: the column "tiny" with 13 corruptions); images of one channel lose the corruptions
that need colour; severities are the integers 1 to 5 and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mixcli.corruptions import blur, digital, noise, weather
from mixcli.corruptions.keyed import Keys
from mixcli.corruptions.parameters import NAMES, PARAMETERS, SIDES, Column
from mixcli.corruptions.pixels import Corruption, Draws, Parameters, Size
from mixcli.errors import UserError, nearest

SUBSTITUTES = {"frost": "frost_procedural"}  # what runs in its place when the published textures are not at hand
SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST_SIDE = 8

_ALL = noise.CORRUPTIONS | blur.CORRUPTIONS | weather.CORRUPTIONS | digital.CORRUPTIONS
CORRUPTIONS: dict[str, Corruption] = {name: _ALL[name] for name in (*NAMES, *SUBSTITUTES.values()) if name in _ALL}

_NEEDS_COLOUR = {"saturate", "frost", "spatter"}


@dataclass(frozen=True)
class Profile:
    """What can be done with images of one size.

    column     the parameter column
    published  whether that column was published for exactly this size ("reference parameters")
    names      the corruptions that apply, in the order of `NAMES`
    """

    column: Column
    published: bool
    names: tuple[str, ...]


def profile(size: Size) -> Profile:
    """The column and the corruptions for (height, width, channels); UserError below 8 px or at 2 channels, say."""
    height, width, channels = size
    side = min(height, width)
    if side < SMALLEST_SIDE:
        raise UserError("usage", "images", "too small to corrupt", f"{height}x{width}", "sides of at least 8 px")
    if channels not in (1, 3):
        raise UserError("usage", "images", "channels", channels, "1 or 3")
    column: Column = "tiny" if side < 16 else "32" if side <= 48 else "64" if side <= 128 else "224"
    names = (name for name in NAMES if column in PARAMETERS[name])
    names = (name for name in names if channels == 3 or name not in _NEEDS_COLOUR)
    return Profile(column, height == width == SIDES.get(column), tuple(names))


def parameters(name: str, severity: int, size: Size) -> Parameters:
    """The parameters of a cell at this size; UserError where the name, the severity or the pair is not offered."""
    known(name)
    if type(severity) is not int or severity not in SEVERITIES:
        raise UserError("usage", "--severity", "not a severity", severity, "integer 1..5")
    found = profile(size)
    if _standing_for(name) not in found.names:
        where = f"{size[0]}x{size[1]}" + (" with 1 channel" if size[2] == 1 else "")
        hint = f"Available: {', '.join(found.names)}"
        raise UserError("usage", "--corruption", f"{name} not applicable at {where}", hint=hint)
    return PARAMETERS[name][found.column][severity - 1]


def draws(name: str, severity: int, size: Size, keys: Keys) -> Draws:
    """Every random tensor of a cell, by name; first dimension: the images of `keys`. Empty where nothing is random.

    name      a corruption of `CORRUPTIONS`
    severity  1 .. 5
    size      height, width, channels
    """
    chosen = parameters(name, severity, size)
    return CORRUPTIONS[name].draw(chosen, size, keys.stream(name, severity))


def corrupt(name: str, images: Tensor, severity: int, draws: Draws) -> Tensor:
    """The images under one corruption, the same shape and device; pure, the images are not changed.

    images  (B, H, W, C) uint8, RGB or one channel
    draws   what `draws` returned for these images (or tensors of the same shapes)
    """
    if images.ndim != 4 or images.dtype != torch.uint8:
        got = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
        raise UserError("usage", "images", "shape or dtype", got, "uint8 (images, height, width, channels)")
    height, width, channels = images.shape[1:]
    return CORRUPTIONS[known(name)].apply(images, parameters(name, severity, (height, width, channels)), draws)


def known(name: str) -> str:
    """The name itself if there is such a corruption, else UserError with the nearest one."""
    if name not in CORRUPTIONS:
        raise UserError("usage", "--corruption", f"unknown '{name}'", hint=nearest(name, CORRUPTIONS))
    return name


def _standing_for(name: str) -> str:
    """The corruption whose place `name` takes: itself, unless it is a substitute."""
    return {substitute: original for original, substitute in SUBSTITUTES.items()}.get(name, name)
