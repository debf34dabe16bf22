"""spatter.py: drops of water or splashes of mud on the lens, with the steps of a public image library in integers.

D. Hendrycks, T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019,
arXiv 1903.12261. Water: edges of a thresholded noise layer after J. Canny, "A Computational Approach to Edge
Detection", 1986 (`edges`); chamfer distance to them after G. Borgefors, "Distance Transformations in Digital Images",
1986 (`distance`); equalised, embossed, times the layer (`relief`). Mud: the blurred mask of the layer. All steps of
water after the layer itself are integers; a product of integers is divided once, in float32, as published.
Reproduced quirk: where water's layer exceeds white, its bytes wrap around (at severity 3 in one image out of five).
Deliberate difference: a layer without relief, published as 0/0 and a black image, leaves the image clean; `empty` tells
which images those are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from mixcli.corruptions import hsv
from mixcli.corruptions.keyed import Stream
from mixcli.corruptions.pixels import Draws, Edge, Size, gaussian_blurred, unit

Parameters = tuple[float, float, float, float, float, int]
WATER, MUD = (175, 238, 238), (63, 42, 20)  # RGB
WEAK, STRONG = 50, 150  # gradient of an edge pixel beside a strong one, and of a strong one
STEEP = 13573  # tan 22.5 degrees in 15 bits
UNIT = 1 << 16  # of distances: 1 px in 16 fractional bits
STRAIGHT, DIAGONAL, KNIGHT = (round(length * UNIT) for length in (1, 1.4, 2.1969))
FARTHEST = 20  # px; longer distances count as this
UNREACHED = 1 << 26


def drops(parameters: Parameters, size: Size, stream: Stream) -> Draws:
    """The draws of `spatter`."""
    return {"normal": stream.normal("normal", size[:2])}


def spatter(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Water added to the image, or mud laid over it; (B, H, W, 3) uint8 -> the same shape.

    parameters  (mean, standard deviation, blur sigma, threshold, strength of water or blur sigma of mud, mud 0 or 1)
    draws       "normal" (B, H, W) standard normal
    """
    mud, values = parameters[5], unit(images, torch.float32)
    colour = torch.tensor(MUD if mud else WATER, device=images.device).div(255)
    if mud:
        share = _mud(_liquid(parameters, draws), parameters)[..., None].float()
        return hsv.cut(values * (1 - share) + colour * share)
    height = relief(_bytes(_liquid(parameters, draws)))[..., None]
    share = height.float() / height.amax((1, 2), keepdim=True).clamp_min(1).float() * parameters[4]
    return hsv.cut(values + share * colour)


def empty(parameters: Parameters, draws: Draws) -> Tensor:
    """(B,) bool: the images that `spatter` leaves clean because their layer is empty."""
    liquid = _liquid(parameters, draws)
    layer = _mud(liquid, parameters) if parameters[5] else relief(_bytes(liquid))
    return layer.amax((1, 2)) == 0


def _liquid(parameters: Parameters, draws: Draws) -> Tensor:
    """(B, H, W) float64: blurred noise, 0 below the threshold."""
    mean, deviation, sigma, threshold = parameters[:4]
    layer = gaussian_blurred(draws["normal"].double() * deviation + mean, sigma)
    return layer.masked_fill_(layer < threshold, 0)


def _bytes(liquid: Tensor) -> Tensor:
    """(B, H, W) float64 >= 0 -> uint8, snapped to 2^-30 grey level and truncated; 256 becomes 0."""
    return ((liquid * 255).add_(2**-31).int() & 255).to(torch.uint8)


def _mud(liquid: Tensor, parameters: Parameters) -> Tensor:
    """(B, H, W) float64: how much of each pixel mud covers; under 0.8 it does not stick."""
    share = gaussian_blurred((liquid > parameters[3]).double(), parameters[4])
    return share.masked_fill_(share < 0.8, 0)


def relief(layer: Tensor) -> Tensor:
    """(B, H, W) uint8 liquid -> (B, H, W) int32: its height, lit from one corner."""
    far = _box(distance(edges(layer))) // (9 * UNIT)
    lit = embossed(equalised(far, FARTHEST + 1))
    return (2 * _box(lit) + 9) // 18 * layer.int()


# ---- edges ----


def edges(layer: Tensor) -> Tensor:
    """(B, H, W) uint8 -> bool: Canny's edges from Sobel gradients, whose size is |x| + |y|."""
    across, down = _sobel(layer)
    steepest = _thinned(across, down)
    size = across.abs() + down.abs()
    return _grown(steepest & (size > STRONG), steepest & (size > WEAK))


def _sobel(layer: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients along columns and along rows, int32, edges replicated."""
    framed = _framed(layer.int(), "edge")
    tall = framed[:, :-2] + 2 * framed[:, 1:-1] + framed[:, 2:]
    wide = framed[..., :-2] + 2 * framed[..., 1:-1] + framed[..., 2:]
    return tall[..., 2:] - tall[..., :-2], wide[:, 2:] - wide[:, :-2]


def _thinned(across: Tensor, down: Tensor) -> Tensor:
    """Whether a gradient is the largest of the three along its own direction, out of four; outside there is none.

    Of two equal ones side by side, or one above the other, the left or the upper one stays; diagonal ones both go.
    """
    x, y = across.abs(), down.abs() << 15
    size = across.abs() + down.abs()
    horizontal, vertical = y < x * STEEP, y > x * STEEP + (x << 16)  # tan 67.5 = tan 22.5 + 2
    falling = (across ^ down) >= 0
    shifted = _shifts(pad(size, (1, 1, 1, 1)))
    return torch.where(
        horizontal,
        (size > shifted(0, -1)) & (size >= shifted(0, 1)),
        torch.where(
            vertical,
            (size > shifted(-1, 0)) & (size >= shifted(1, 0)),
            torch.where(
                falling,
                (size > shifted(-1, -1)) & (size > shifted(1, 1)),
                (size > shifted(-1, 1)) & (size > shifted(1, -1)),
            ),
        ),
    )


def _grown(seeds: Tensor, allowed: Tensor) -> Tensor:
    """Seeds and all allowed pixels that chains of allowed neighbours, eight to a pixel, tie to one; both bool."""
    while True:
        framed = pad(seeds.view(torch.uint8), (1, 1, 1, 1))
        tall = framed[:, :-2] | framed[:, 1:-1] | framed[:, 2:]
        grown = (tall[..., :-2] | tall[..., 1:-1] | tall[..., 2:]).view(torch.bool) & allowed
        if torch.equal(grown, seeds):
            return grown
        seeds = grown


# ---- distance ----


def distance(edge: Tensor) -> Tensor:
    """(B, H, W) bool -> int32 in 1/65536 px: the shortest chain of steps to an edge pixel, at most 20 px.

    Straight, diagonal and knight's steps. Two sweeps over the rows, down and up, find it; a chain along a row is a
    running minimum of what is left after its length so far.
    """
    rows = torch.where(edge, 0, UNREACHED).int().transpose(0, 1)  # (H, B, W)
    return _swept(_swept(rows).flip(0, 2)).flip(0, 2).transpose(0, 1).clamp_max(FARTHEST * UNIT)


def _swept(rows: Tensor) -> Tensor:
    """One sweep from the first row to the last and, in each, from left to right."""
    height, batch, width = rows.shape
    swept = torch.full((height + 2, batch, width + 4), UNREACHED, dtype=torch.int32, device=rows.device)
    so_far = torch.arange(0, width * STRAIGHT, STRAIGHT, dtype=torch.int32, device=rows.device)
    for row in range(height):
        above, higher = swept[row + 1], swept[row]
        diagonal = torch.minimum(above[:, 1:-3], above[:, 3:-1])
        knight = torch.minimum(above[:, :-4], above[:, 4:])
        knight = torch.minimum(knight, torch.minimum(higher[:, 1:-3], higher[:, 3:-1]))
        best = torch.minimum(rows[row], above[:, 2:-2] + STRAIGHT)
        best = torch.minimum(best, torch.minimum(diagonal + DIAGONAL, knight + KNIGHT))
        swept[row + 2, :, 2:-2] = (best - so_far).cummin(1).values + so_far
    return swept[2:, :, 2:-2]


# ---- relief ----


def equalised(values: Tensor, levels: int) -> Tensor:
    """(B, H, W) int32 below `levels` -> 0 .. 255, int32: each image's histogram spread out, its darkest level to 0."""
    counts = torch.stack([(values == level).sum((1, 2)) for level in range(levels)], 1)
    darkest = (counts > 0).int().argmax(1, keepdim=True)
    first, total = counts.gather(1, darkest), values[0].numel()
    above = counts.cumsum(1) - first
    spread = (above.float() * (255 / (total - first).float())).round_()
    flat = first == total  # an image of one level keeps it
    table = torch.where(flat, darkest.float(), spread).clamp_(0, 255).int()
    return table.gather(1, values.flatten(1).long()).view(values.shape)


def embossed(values: Tensor) -> Tensor:
    """(B, H, W) int32 -> int32 in 0 .. 255: light from the lower right corner, edges mirrored."""
    at = _shifts(_framed(values, "reflect"))
    light = 2 * (at(1, 1) - at(-1, -1)) + at(0, 0)
    return (light + at(0, 1) + at(1, 0) - at(0, -1) - at(-1, 0)).clamp_(0, 255)


def _box(values: Tensor) -> Tensor:
    """The sum over 3 x 3 pixels, edges mirrored; integers."""
    framed = _framed(values, "reflect")
    tall = framed[:, :-2] + framed[:, 1:-1] + framed[:, 2:]
    return tall[..., :-2] + tall[..., 1:-1] + tall[..., 2:]


def _framed(values: Tensor, edge: Edge) -> Tensor:
    """(B, H, W) -> (B, H + 2, W + 2)."""
    rows, columns = (_frame(size, edge, values.device) for size in values.shape[1:])
    return values.index_select(1, rows).index_select(2, columns)


@lru_cache(maxsize=64)
def _frame(size: int, edge: Edge, device: torch.device) -> Tensor:
    return torch.from_numpy(np.pad(np.arange(size), 1, mode=edge)).to(device)


def _shifts(framed: Tensor) -> Callable[[int, int], Tensor]:
    """A function (down, across) -> the view of what lies that many pixels away, each -1, 0 or 1."""
    height, width = framed.shape[1] - 2, framed.shape[2] - 2
    return lambda down, across: framed[:, 1 + down : 1 + down + height, 1 + across : 1 + across + width]
