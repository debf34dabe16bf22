"""weather.py: snow, frost, fog and brightness; spatter has a file of its own.

D. Hendrycks, T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019,
arXiv 1903.12261; fog's map after A. Fournier, D. Fussell, L. Carpenter, "Computer Rendering of Stochastic Models",
1982. Deliberate choices: fog, frost and brightness are elementwise float64 in the published order, so they are exact
without the snap of `pixels.truncated` and do not use it; snow's image and layer are added in whole parts of a grey
level, which float32 holds exactly; `frost_procedural` is frost with pictures of our own making,
and never goes by the name of frost; pictures too small for an image are enlarged until they hold it.
Reproduced quirks: fog's amplitude enters each level squared, frost's sixth picture is never used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from mixcli.corruptions import frost_pictures, hsv, spatter
from mixcli.corruptions.blur import motion_blurred, zoomed
from mixcli.corruptions.keyed import Stream
from mixcli.corruptions.pixels import Corruption, Draws, Size, filtered, truncated, unit
from mixcli.errors import UserError

PICTURES = 5  # of frost; the index of the one used is drawn uniformly


def brightness(images: Tensor, lift: float, draws: Draws) -> Tensor:
    """V' = min(V + lift, 1) of hue, saturation and value; one channel is its own V; no draws."""
    if images.shape[3] == 1:
        return hsv.cut(unit(images).add_(lift))
    return hsv.lifted(images, lift)


# ---- fog ----


def _map_side(height: int, width: int) -> int:
    return 1 << (max(height, width) - 1).bit_length()


def _heights(parameters: tuple[float, float], size: Size, stream: Stream) -> Draws:
    side = _map_side(size[0], size[1])
    return {"height": stream.uniform("height", (side, side), -1, 1)}


def fog(images: Tensor, parameters: tuple[float, float], draws: Draws) -> Tensor:
    """(x + amount f) max / (max + amount), f a fractal map on 0 .. 1, max that of the clean image.

    parameters  (amount, decay of the map's amplitude from level to level)
    draws       "height" (B, n, n) on [-1, 1), n the power of two that holds the image: see `fractal`
    """
    amount, decay = parameters
    height, width = images.shape[1:3]
    values = unit(images)
    brightest = values.amax((1, 2, 3), keepdim=True)
    mist = fractal(draws["height"].double(), decay)[:, :height, :width, None]
    return hsv.cut((values + mist * amount).mul_(brightest).div_(brightest + amount))


def fractal(draws: Tensor, decay: float) -> Tensor:
    """Diamond-square maps on a torus, each stretched to 0 .. 1: (B, n, n) float64 on [-1, 1) -> the same shape.

    Level by level, each new point is the mean of its four neighbours, diagonal ones for the centres of the squares and
    then straight ones for the middles of their sides, plus w^2 times its own draw; w starts at 100. The draw of the
    one point that no level reaches, [0, 0], is not used.
    """
    heights = torch.zeros_like(draws)
    step, amplitude = draws.shape[1], 100.0
    while step > 1:
        old, new = slice(None, None, step), slice(step // 2, None, step)
        corners, centres = heights[:, old, old], heights[:, new, new]
        below = corners + corners.roll(-1, 1)
        # scaled draw by draw: w (w u), the order of the published sum, keeps the last bit
        centres.copy_((below + below.roll(-1, 2)) / 4 + draws[:, new, new] * amplitude * amplitude)
        beside = (centres + centres.roll(1, 1)) + (corners + corners.roll(-1, 2))
        heights[:, old, new] = beside / 4 + draws[:, old, new] * amplitude * amplitude
        between = (centres + centres.roll(1, 2)) + (corners + corners.roll(-1, 1))
        heights[:, new, old] = between / 4 + draws[:, new, old] * amplitude * amplitude
        step, amplitude = step // 2, amplitude / decay
    heights -= heights.amin((1, 2), keepdim=True)
    return heights.div_(heights.amax((1, 2), keepdim=True))


# ---- snow ----

GREY = (299, 587, 114)  # weights of red, green, blue, in thousandths
UNIT = 40_000  # parts of a grey level: 20 of the share kept x 1000 of the weights of grey x 2 of 1.5


def _flakes(parameters: tuple[float, ...], size: Size, stream: Stream) -> Draws:
    return {"normal": stream.normal("normal", size[:2]), "angle": stream.uniform("angle", (), -135, -45)}


def snow(images: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
    """A layer of streaks, added once upright and once turned by 180 degrees, over a whitened image.

    parameters  (mean, standard deviation, zoom, threshold, blur radius, blur sigma, keep): the layer is noise, zoomed,
                0 below the threshold, motion-blurred; the image is keep x + (1 - keep) max(x, 1.5 grey + 0.5)
    draws       "normal" (B, H, W) standard normal; "angle" (B,) degrees in -135 .. -45
    """
    *layer, keep = parameters
    kept = round(20 * keep)
    flakes = _snowfall(draws, *layer)[..., 0].float()
    planes = images.permute(3, 0, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    bright = torch.maximum(planes * 2000, _grey(planes) * 3 + 255_000)
    whitened = planes.mul_(2000 * kept).add_(bright.mul_(20 - kept))
    total = whitened.add_((flakes + flakes.flip(1, 2)).mul_(UNIT))
    # All are integers, exact in float32 up to white and beyond; a quotient that is rounded correctly passes no integer.
    # Divided by a tensor, since a GPU would multiply by the reciprocal of a number.
    return total.div_(total.new_full((), UNIT)).clamp_(0, 255).to(torch.uint8).permute(1, 2, 3, 0).contiguous()


def _snowfall(
    draws: Draws, mean: float, deviation: float, zoom: float, threshold: float, radius: float, sigma: float
) -> Tensor:
    """(B, H, W, 1) uint8: the layer before it is turned."""
    layer = draws["normal"].double() * deviation + mean
    if zoom != 1:
        rows, columns = (torch.from_numpy(zoomed(side, zoom)).to(layer.device) for side in layer.shape[1:])
        layer = filtered(layer, rows, columns)
    flakes = truncated(layer.masked_fill(layer < threshold, 0))
    return motion_blurred(flakes[..., None], radius, sigma, draws["angle"])


def _grey(planes: Tensor) -> Tensor:
    """(C, B, H, W) -> (B, H, W): 1000 times the luminance; one channel is its own."""
    if len(planes) == 1:
        return planes[0] * 1000
    red, green, blue = (plane * weight for plane, weight in zip(planes, GREY, strict=True))
    return red.add_(green).add_(blue)


# ---- frost ----


def frost(pictures: Callable[[], Sequence[Tensor]]) -> Corruption:
    """Frost over the image: a x + b t, t a crop of one of five pictures.

    pictures    called when first needed: five (h, w, 3) uint8 RGB tensors of any sizes, else UserError
    parameters  (a, b, scale of the pictures per pixel of the image's shorter side)
    draws       "picture" (B,) int64 in 0 .. 4; "corner" (B, 2) on [0, 1): top and left over the places that there are
    """

    @lru_cache(maxsize=8)
    def atlas(scale: float, height: int, width: int, device: torch.device) -> Atlas:
        return Atlas([enlarged(p.to(device), scale, height, width) for p in _checked(pictures())])

    def apply(images: Tensor, parameters: tuple[float, float, float], draws: Draws) -> Tensor:
        weight, frost_weight, scale = parameters
        height, width = images.shape[1:3]
        crops = atlas(scale * min(height, width), height, width, images.device).crops(
            draws["picture"], draws["corner"], height, width
        )
        index = (images.int() << 8).add_(crops)
        return _blends(weight, frost_weight, images.device).index_select(0, index.view(-1)).view(images.shape)

    return Corruption("weather", apply, _crops)


def _checked(pictures: Sequence[Tensor]) -> Sequence[Tensor]:
    if len(pictures) != PICTURES:
        raise UserError("usage", "frost", "number of pictures", len(pictures), str(PICTURES))
    for picture in pictures:
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != torch.uint8:
            got = f"{str(picture.dtype).removeprefix('torch.')} {tuple(picture.shape)}"
            raise UserError("usage", "frost", "shape or dtype of a picture", got, "uint8 (height, width, 3)")
    return pictures


def _crops(parameters: tuple[float, float, float], size: Size, stream: Stream) -> Draws:
    return {"picture": stream.integers("picture", (), 0, PICTURES), "corner": stream.uniform("corner", (2,))}


@lru_cache(maxsize=16)
def _blends(weight: float, frost_weight: float, device: torch.device) -> Tensor:
    """(65536,) uint8: a x + b t truncated, at 256 x + t."""
    grey = torch.arange(256, dtype=torch.float64)
    return (grey[:, None] * weight + grey * frost_weight).clamp_(0, 255).to(torch.uint8).view(-1).to(device)


class Atlas:
    """Pictures of any sizes as one row of pixels, each an int32, so that a crop is one gather of whole pixels."""

    def __init__(self, pictures: Sequence[Tensor]):
        device = pictures[0].device
        sizes = torch.tensor([p.shape[:2] for p in pictures])
        self.pixels = torch.cat([torch.nn.functional.pad(p, (0, 1)).view(-1, 4) for p in pictures]).view(torch.int32)
        self.starts = (sizes.prod(1).cumsum(0) - sizes.prod(1)).to(device)
        self.sizes = sizes.to(device)

    def crops(self, picture: Tensor, corner: Tensor, height: int, width: int) -> Tensor:
        """Crops (B, height, width, 3) uint8.

        picture  (B,) int64
        corner   (B, 2) on [0, 1): top and left, in shares of the room that the picture leaves around a crop
        """
        rows, columns = torch.arange(height, device=corner.device), torch.arange(width, device=corner.device)
        sizes = self.sizes[picture]
        room = sizes - sizes.new_tensor([height, width])
        top, left = (corner.double() * room).long().unbind(1)
        first = self.starts[picture] + top * sizes[:, 1] + left
        index = first[:, None, None] + rows[:, None] * sizes[:, 1, None, None] + columns
        return self.pixels.view(-1).index_select(0, index.view(-1)).view(torch.uint8).view(*index.shape, 4)[..., :3]


def enlarged(picture: Tensor, scale: float, height: int, width: int) -> Tensor:
    """(h, w, 3) uint8 times `scale`, or more where it would leave no room around height x width; bilinear, rounded."""
    scale = max(scale, (height + 1) / picture.shape[0], (width + 1) / picture.shape[1])
    values = picture.double()
    for axis in (0, 1):
        length = picture.shape[axis]
        place = torch.arange(round(length * scale), dtype=torch.float64, device=picture.device)
        place = ((place + 0.5) / scale - 0.5).clamp_(0, length - 1)
        near = place.floor()
        share = (place - near).view(-1, *[1] * (2 - axis))
        low, high = near.long(), (near.long() + 1).clamp_max(length - 1)
        values = values.index_select(axis, low) * (1 - share) + values.index_select(axis, high) * share
    return (values + (0.5 + 2.0**-31)).to(torch.uint8)


CORRUPTIONS = {
    "snow": Corruption("weather", snow, _flakes),
    "frost_procedural": frost(frost_pictures.drawn),
    "fog": Corruption("weather", fog, _heights),
    "brightness": Corruption("weather", brightness),
    "spatter": Corruption("weather", spatter.spatter, spatter.drops),
}
