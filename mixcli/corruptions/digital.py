"""digital.py: contrast, elastic transform, pixelate, JPEG compression and saturate.

D. Hendrycks, T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019,
arXiv 1903.12261. Elastic transform after P. Simard, D. Steinkraus, J. Platt, "Best Practices for Convolutional Neural
Networks", 2003. Deliberate choices: contrast and saturate are elementwise float64 in the published order, so they are
exact without the snap of `pixels.truncated` and do not use it; pixelate has the integer arithmetic of Pillow's BOX
filter, rounded to 8 bits after each pass; JPEG is made by Pillow, file by file, on a processor, and by the same bytes'
arithmetic on a GPU (torchvision's codecs give the same bytes too and are to be removed); elastic's coordinates are not
quantised to 1/32 pixel, as those of older OpenCV releases were. On images that are not square elastic's anchors stand
around the centre, and its lengths follow the shorter side.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mixcli.corruptions import hsv
from mixcli.corruptions.jpeg_integers import through_jpeg
from mixcli.corruptions.keyed import Stream
from mixcli.corruptions.pixels import Corruption, Draws, Size, gaussian_blurred, truncated, unit


def contrast(images: Tensor, gain: float, draws: Draws) -> Tensor:
    """(x - m) c + m, m the mean of the image's channel; no draws. A table of 256 bytes for each image and channel."""
    batch, height, width, channels = images.shape
    mean = images.flatten(1, 2).sum(1, dtype=torch.int64).double() / (255 * height * width)  # exact until here
    grey = unit(torch.arange(256, device=images.device))
    table = hsv.cut((grey - mean[..., None]).mul_(gain).add_(mean[..., None]))  # (B, C, 256)
    first = torch.arange(0, batch * channels * 256, channels * 256, dtype=torch.int32, device=images.device)
    channel = torch.arange(0, channels * 256, 256, dtype=torch.int32, device=images.device).repeat(height * width)
    place = images.flatten(1).int().add_(channel).add_(first[:, None])
    return table.view(-1).index_select(0, place.view(-1)).view(images.shape)


def saturate(images: Tensor, parameters: tuple[float, float], draws: Draws) -> Tensor:
    """S' = a S + b, clipped; no draws. Grey pixels have hue 0, so they turn reddish where b > 0, as published."""
    gain, lift = parameters
    hue, saturation, value = hsv.split(images)
    return hsv.merged(hue, saturation.mul_(gain).add_(lift).clamp_(0, 1), value)


def jpeg(images: Tensor, quality: int, draws: Draws) -> Tensor:
    """Through a JPEG file: 4:2:0, integer DCT, smooth upsampling, Pillow's default at `quality`; no draws.

    One channel gives a file of one component. A GPU makes the same bytes by itself, see `jpeg_integers`.
    """
    if images.device.type == "cuda":
        return through_jpeg(images, quality)
    read = b"".join(_through_file(image, quality) for image in images.cpu().numpy())
    return torch.frombuffer(bytearray(read), dtype=torch.uint8).view(images.shape).to(images.device)


def _through_file(image: np.ndarray, quality: int) -> bytes:
    height, width, channels = image.shape
    file, mode = BytesIO(), "RGB" if channels == 3 else "L"
    Image.frombytes(mode, (width, height), image.tobytes()).save(file, "JPEG", quality=quality)
    return Image.open(file, formats=("JPEG",)).tobytes()


# ---- pixelate ----

_BITS = 22  # of the fixed-point weights of the BOX filter


def pixelate(images: Tensor, scale: float, draws: Draws) -> Tensor:
    """Down to int(H c) x int(W c) and up again, both by BOX; columns before rows, 8 bits after each pass; no draws."""
    height, width = images.shape[1:3]
    small = _shrunk(_shrunk(images, 2, int(width * scale)), 1, int(height * scale))
    return _grown(_grown(small, 2, width), 1, height)


def _shrunk(images: Tensor, axis: int, size: int) -> Tensor:
    """Means over the boxes of one axis, rounded half up: weights are 1/n in 22 bits, n the pixels in the box."""
    if size == images.shape[axis]:
        return images
    total: Tensor | None = None
    for source, weight in _boxes(images.shape[axis], size, images.device):
        part = images.index_select(axis, source).int().mul_(weight.view(-1, *[1] * (3 - axis)))
        total = part.add_(1 << (_BITS - 1)) if total is None else total.add_(part)
    assert total is not None
    return (total >> _BITS).to(torch.uint8)


@lru_cache(maxsize=256)
def _boxes(length: int, size: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """One (source (size,) int64, weight (size,) int32) per tap: the pixels whose centres lie in each box of one axis.

    Where a centre lies on the edge of a box, rounding errors decide, so the arithmetic is Pillow's: a window first,
    and then the box itself.
    """
    scale = length / size
    boxes = []
    for place in range(size):
        centre = (place + 0.5) * scale
        window = range(int(centre - 0.5 * scale + 0.5), min(int(centre + 0.5 * scale + 0.5), length))
        boxes.append([pixel for pixel in window if -0.5 < (pixel - centre + 0.5) * (1 / scale) <= 0.5])
    taps = []
    for tap in range(max(map(len, boxes))):
        source = [box[min(tap, len(box) - 1)] for box in boxes]
        weight = [int(0.5 + (1 << _BITS) / len(box)) if tap < len(box) else 0 for box in boxes]
        taps.append((torch.tensor(source, device=device), torch.tensor(weight, dtype=torch.int32, device=device)))
    return taps


def _grown(images: Tensor, axis: int, size: int) -> Tensor:
    """Upwards a box holds exactly one pixel: the one whose square holds the centre of the new pixel."""
    return images.index_select(axis, _nearest(images.shape[axis], size, images.device))


@lru_cache(maxsize=256)
def _nearest(length: int, size: int, device: torch.device) -> Tensor:
    return torch.tensor([int((place + 0.5) * (length / size)) for place in range(size)], device=device)


# ---- elastic transform ----

Fold = Callable[[Tensor, int], Tensor]  # (any integers, length) -> indices in 0 .. length - 1


def _distortion(parameters: tuple[float, float, float], size: Size, stream: Stream) -> Draws:
    anchors = {"anchors": stream.uniform("anchors", (3, 2), -1, 1)}
    if parameters[0] == 0:
        return anchors
    fields = {name: stream.uniform24(name, size[:2]).mul_(2).sub_(1) for name in ("across", "down")}
    return anchors | fields


def elastic(images: Tensor, parameters: tuple[float, float, float], draws: Draws) -> Tensor:
    """An affine map through three shaken anchors, then a smooth field of shifts; bilinear both times.

    parameters  (alpha, sigma, jitter): strength of the shifts, smoothness, shake of the anchors, each per pixel of
                the shorter side; with alpha = 0 the affine map is all
    draws       "anchors" (B, 3, 2) on [-1, 1): shake of x, y of the anchors in units of the jitter; where alpha > 0
                "across", "down" (B, H, W) on [-1, 1): the shifts along x and y before smoothing
    """
    height, width = images.shape[1:3]
    alpha, sigma, jitter = (value * min(height, width) for value in parameters)
    channels_first = images.permute(3, 0, 1, 2).to(torch.float64, memory_format=torch.contiguous_format).div_(255)
    warped = _bilinear(channels_first, *_affine(draws["anchors"].double() * jitter, height, width), _mirrored)
    if alpha:
        y, x = _grid(height, width, images.device)
        across, down = (
            gaussian_blurred(draws[name].double(), sigma, "symmetric", 3.0) * alpha for name in ("across", "down")
        )
        warped = _bilinear(warped, y + down, x + across, _symmetric)
    return truncated(warped).permute(1, 2, 3, 0).contiguous()


def _grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row numbers (1, height, 1) and column numbers (1, 1, width), float64."""
    y, x = (torch.arange(size, dtype=torch.float64, device=device) for size in (height, width))
    return y[None, :, None], x[None, None, :]


def _affine(shake: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where each pixel is read: y, x (B, H, W) of the map that takes the shaken anchors back to their places.

    shake  (B, 3, 2) px, x before y. Anchors: a third of the shorter side right and below the centre, right and above
    it, left and above it; so the sides between them run along the axes, and the inverse is that of a 2 x 2 matrix.
    """
    reach = min(height, width) // 3
    right, left, below, above = width // 2 + reach, width // 2 - reach, height // 2 + reach, height // 2 - reach
    anchors = torch.tensor([[right, below], [right, above], [left, above]], dtype=torch.float64, device=shake.device)
    first, second, third = (anchors + shake)[..., None, None].unbind(1)  # each (B, 2, 1, 1)
    down, across = (first - second) / (2 * reach), (second - third) / (2 * reach)  # images of the unit vectors
    determinant = across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]
    rows, columns = _grid(height, width, shake.device)
    y, x = rows - first[:, 1], columns - first[:, 0]
    back_y = (across[:, 0] / determinant) * y - (across[:, 1] / determinant) * x + below
    return back_y, (down[:, 1] / determinant) * x - (down[:, 0] / determinant) * y + right


def _bilinear(values: Tensor, y: Tensor, x: Tensor, fold: Fold) -> Tensor:
    """(C, B, H, W) float64 read at rows y and columns x (B, H, W), pixels outside found by `fold`."""
    batch, height, width = values.shape[1:]
    above, left = y.floor(), x.floor()
    lower, right = y - above, x - left  # shares of the pixels below and to the right
    upper, near = 1 - lower, 1 - right
    image = torch.arange(batch, dtype=torch.int32, device=values.device)[:, None, None] * (height * width)
    rows = [image + fold(above.int() + step, height) * width for step in (0, 1)]
    columns = [fold(left.int() + step, width) for step in (0, 1)]
    places = [[(row + column).view(-1) for column in columns] for row in rows]
    result = torch.empty_like(values)
    for plane, target in zip(values, result, strict=True):  # channels
        corners = [[plane.view(-1).index_select(0, place).view_as(plane) for place in pair] for pair in places]
        first, second = (left_one.mul_(near).add_(right_one.mul_(right)) for left_one, right_one in corners)
        torch.add(first.mul_(upper), second.mul_(lower), out=target)
    return result


def _mirrored(index: Tensor, size: int) -> Tensor:
    """Reflection in the centres of the outermost pixels: c b | a b c d | c b."""
    index = index.remainder(2 * size - 2)
    return torch.minimum(index, 2 * size - 2 - index)


def _symmetric(index: Tensor, size: int) -> Tensor:
    """Reflection in the outer edges of the outermost pixels: b a | a b c d | d c."""
    index = index.remainder(2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


CORRUPTIONS = {
    "contrast": Corruption("digital", contrast),
    "elastic_transform": Corruption("digital", elastic, _distortion),
    "pixelate": Corruption("digital", pixelate),
    "jpeg_compression": Corruption("digital", jpeg),
    "saturate": Corruption("digital", saturate),
}
