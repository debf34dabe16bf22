"""corruption_loops.py: the 19 corruptions one image at a time, as published scripts make them, to be measured against.

D. Hendrycks, T. Dietterich 2019, arXiv 1903.12261. Written from the description of the algorithms with numpy, scipy
and Pillow, each image by itself: what such a script computes anew for every image is computed anew (kernels, the disc
of defocus blur, the factors of zoom blur), glass blur visits pixel by pixel in Python and draws each offset with a call
of its own, frost opens and resizes its picture every time, and what is motion-blurred goes through a PNG in memory both
ways, as scripts hand it to ImageMagick. Draws come from numpy's legacy generator, as published. Nothing is made slow on
purpose: where a library has a step in C, it is used.

Where published scripts call OpenCV, scikit-image or ImageMagick, scipy, matplotlib and numpy stand in: filters are
scipy.ndimage's or an FFT, hue comes from matplotlib, motion blur is one slice per tap. So a ratio is to these loops.
With our draws every loop gives our bytes, but for the last digit of other libraries; shot noise and the distances of
spatter, exact where ours are chamfer, follow the same law.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from math import ceil, cos, radians, sin
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from numpy.random import RandomState
from PIL import Image
from scipy import ndimage as _ndimage
from scipy.signal import fftconvolve

ndimage: Any = _ndimage  # its types are too wide to be of use

Drawn = Mapping[str, Any]
Size = tuple[int, int, int]


def _nothing(parameters: Any, size: Size, rng: RandomState) -> Drawn:
    return {}


@dataclass(frozen=True)
class Loop:
    """One corruption of one image.

    corrupt  (image (H, W, 3) uint8, parameters, what was drawn) -> uint8 of the same shape
    draw     (parameters, size, generator) -> all that is random, by the names of our own draws
    """

    corrupt: Callable[[np.ndarray, Any, Drawn], np.ndarray]
    draw: Callable[[Any, Size, RandomState], Drawn] = _nothing

    def __call__(self, image: np.ndarray, parameters: Any, rng: RandomState) -> np.ndarray:
        """The image under the corruption, its draws included."""
        height, width, channels = image.shape
        return self.corrupt(image, parameters, self.draw(parameters, (height, width, channels), rng))


def _bytes(values: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1] -> uint8: clipped and truncated."""
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


# ---- noise ----


def _normals(sigma: float, size: Size, rng: RandomState) -> Drawn:
    return {"normal": rng.normal(size=size)}


def _gaussian_noise(image: np.ndarray, sigma: float, drawn: Drawn) -> np.ndarray:
    return _bytes(image / 255.0 + drawn["normal"] * sigma)


def _speckle_noise(image: np.ndarray, sigma: float, drawn: Drawn) -> np.ndarray:
    x = image / 255.0
    return _bytes(x + x * (drawn["normal"] * sigma))


def _generator(photons: float, size: Size, rng: RandomState) -> Drawn:
    return {"generator": rng}


def _shot_noise(image: np.ndarray, photons: float, drawn: Drawn) -> np.ndarray:
    return _bytes(drawn["generator"].poisson(image / 255.0 * photons) / photons)


def _uniforms(share: float, size: Size, rng: RandomState) -> Drawn:
    return {"uniform": rng.random_sample(size)}


def _impulse_noise(image: np.ndarray, share: float, drawn: Drawn) -> np.ndarray:
    x = image / 255.0
    x[drawn["uniform"] < share] = 1
    x[drawn["uniform"] < share / 2] = 0
    return _bytes(x)


# ---- blur ----


def _gaussian_blur(image: np.ndarray, sigma: float, drawn: Drawn) -> np.ndarray:
    return _bytes(ndimage.gaussian_filter(image / 255.0, (sigma, sigma, 0), mode="nearest", truncate=4))


def _offsets(parameters: tuple[float, int, int], size: Size, rng: RandomState) -> Drawn:
    _, delta, iterations = parameters
    sweep = [[0] * (size[1] - 2 * delta)] * (size[0] - 2 * delta)
    return {"offset": [[[rng.randint(-delta, delta, size=2) for _ in row] for row in sweep] for _ in range(iterations)]}


def _glass_blur(image: np.ndarray, parameters: tuple[float, int, int], drawn: Drawn) -> np.ndarray:
    sigma, delta, iterations = parameters
    x = _gaussian_blur(image, sigma, {})
    height, width = x.shape[:2]
    for sweep in range(iterations):
        for i, h in enumerate(range(height - delta, delta, -1)):
            for j, w in enumerate(range(width - delta, delta, -1)):
                dy, dx = drawn["offset"][sweep][i][j]
                x[h, w] = x[h + dy, w + dx]
    return _gaussian_blur(x, sigma, {})


def _disc(radius: float, sigma: float) -> np.ndarray:
    reach, softened = (8, 1) if radius <= 8 else (int(radius), 2)
    axis = np.arange(-reach, reach + 1)
    disc = np.array(axis[:, None] ** 2 + axis**2 <= radius**2, np.float32)
    disc /= disc.sum()
    taps = np.exp(-0.5 * (np.arange(-softened, softened + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32).astype(float)
    for side in (1, 0):
        disc = ndimage.correlate1d(disc.astype(float), taps, side, mode="mirror").astype(np.float32)
    return disc.astype(float)


def _defocus_blur(image: np.ndarray, parameters: tuple[float, float], drawn: Drawn) -> np.ndarray:
    kernel, x = _disc(*parameters), image / 255.0
    edge = len(kernel) // 2
    padded = np.pad(x, ((edge, edge), (edge, edge), (0, 0)), mode="reflect")
    # a disc is symmetric, so a convolution is the correlation; a filter this wide is an FFT in image libraries too
    return _bytes(np.stack([np.asarray(fftconvolve(padded[..., c], kernel, "valid")) for c in range(x.shape[2])], 2))


def _angle(parameters: tuple[float, float], size: Size, rng: RandomState) -> Drawn:
    return {"angle": rng.uniform(-45, 45)}


def _by_file(image: np.ndarray) -> np.ndarray:
    """The image through a PNG in memory."""
    file = BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return np.asarray(Image.open(file))


Hand = Callable[[np.ndarray], np.ndarray]  # how an image gets to the program that blurs it, and back


def _motion_blur(image: np.ndarray, parameters: tuple[float, float], drawn: Drawn, hand: Hand = _by_file) -> np.ndarray:
    return hand(_along(hand(image), *parameters, drawn["angle"]))


def _along(image: np.ndarray, radius: float, sigma: float, angle: float) -> np.ndarray:
    """A slice per tap; the sum is cut to 16 bits, then to 8."""
    count, turn, (height, width) = 2 * ceil(radius) + 1, radians(angle), image.shape[:2]
    weights = np.exp(-(np.arange(count) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    padded = np.pad(image, ((count, count), (count, count), *[(0, 0)] * (image.ndim - 2)), mode="edge")
    total = np.zeros(image.shape)
    for tap, weight in enumerate(weights):
        top, left = count + ceil(tap * sin(turn) - 0.5), count + ceil(tap * cos(turn) - 0.5)
        total += weight * padded[top : top + height, left : left + width]
    return (np.floor(total * 257 + 0.5) // 257).astype(np.uint8)


def _zoomed(x: np.ndarray, factor: float) -> np.ndarray:
    """The middle of the image, enlarged by `factor` and cut to its size."""
    kept = [ceil(side / factor) for side in x.shape[:2]]
    top, left = ((side - short) // 2 for side, short in zip(x.shape[:2], kept, strict=True))
    factors = (factor, factor, *[1] * (x.ndim - 2))
    large = ndimage.zoom(x[top : top + kept[0], left : left + kept[1]], factors, order=1)
    down, across = ((long - side) // 2 for long, side in zip(large.shape[:2], x.shape[:2], strict=True))
    return large[down : down + x.shape[0], across : across + x.shape[1]]


def _zoom_blur(image: np.ndarray, parameters: tuple[float, int], drawn: Drawn) -> np.ndarray:
    step, count = parameters
    x = image / 255.0
    total = x.copy()
    for k in range(count):
        total += _zoomed(x, 1 + k * ((1 + step) - 1))
    return _bytes(total / (count + 1))


# ---- weather ----


def _flakes(parameters: tuple[float, ...], size: Size, rng: RandomState) -> Drawn:
    return {"normal": rng.normal(size=size[:2]), "angle": rng.uniform(-135, -45)}


def _snow(image: np.ndarray, parameters: tuple[float, ...], drawn: Drawn, hand: Hand = _by_file) -> np.ndarray:
    mean, deviation, factor, threshold, radius, sigma, keep = parameters
    x = image / 255.0
    layer = _zoomed(drawn["normal"] * deviation + mean, factor)
    layer[layer < threshold] = 0
    layer = hand(_along(hand(_bytes(layer)), radius, sigma, drawn["angle"]))[..., None] / 255.0
    grey = (x @ np.array([0.299, 0.587, 0.114]))[..., None]
    x = keep * x + (1 - keep) * np.maximum(x, grey * 1.5 + 0.5)
    return _bytes(x + layer + np.rot90(layer, 2))


def frost(folder: Path) -> Loop:
    """Frost with the pictures frost1 .. frost5 of a folder, opened and resized for every image."""
    files = sorted(folder.glob("frost*"))

    def corrupt(image: np.ndarray, parameters: tuple[float, float, float], drawn: Drawn) -> np.ndarray:
        weight, frost_weight, scale = parameters
        scale *= min(image.shape[:2])
        with Image.open(files[int(drawn["picture"])]) as file:
            picture = file.convert("RGB")
        width, height = (round(side * scale) for side in picture.size)
        matrix = (1 / scale, 0, 0, 0, 1 / scale, 0)  # every output pixel between its four nearest, none averaged away
        small = np.asarray(
            picture.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        )
        top, left = (
            int(share * (side - own))
            for share, side, own in zip(drawn["corner"], small.shape[:2], image.shape[:2], strict=True)
        )
        crop = small[top : top + image.shape[0], left : left + image.shape[1]]
        return np.clip(weight * image.astype(float) + frost_weight * crop, 0, 255).astype(np.uint8)

    return Loop(corrupt, _crop)


def _crop(parameters: tuple[float, float, float], size: Size, rng: RandomState) -> Drawn:
    return {"picture": rng.randint(5), "corner": rng.random_sample(2)}


def _heights(parameters: tuple[float, float], size: Size, rng: RandomState) -> Drawn:
    """One draw a half-step of each level, as the levels are filled."""
    side = 1 << (max(size[:2]) - 1).bit_length()
    draws, step = np.zeros((side, side)), side
    while step > 1:
        half = step // 2
        for top, left in ((half, half), (0, half), (half, 0)):
            draws[top::step, left::step] = rng.uniform(-1, 1, (side // step, side // step))
        step = half
    return {"height": draws}


def _fog(image: np.ndarray, parameters: tuple[float, float], drawn: Drawn) -> np.ndarray:
    amount, decay = parameters
    x, (height, width) = image / 255.0, image.shape[:2]
    mist = _fractal(drawn["height"], decay)[:height, :width, None]
    return _bytes((x + amount * mist) * x.max() / (x.max() + amount))


def _fractal(draws: np.ndarray, decay: float) -> np.ndarray:
    """Diamond-square on a torus, stretched to 0 .. 1."""
    side, amplitude = len(draws), 100.0
    heights, step = np.zeros((side, side)), side
    while step > 1:
        old, new = slice(None, None, step), slice(step // 2, None, step)
        corners = heights[old, old]
        below = corners + np.roll(corners, -1, 0)
        heights[new, new] = (below + np.roll(below, -1, 1)) / 4 + amplitude * (amplitude * draws[new, new])
        centres = heights[new, new]
        above, beside = centres + np.roll(centres, 1, 0), corners + np.roll(corners, -1, 1)
        heights[old, new] = (above + beside) / 4 + amplitude * (amplitude * draws[old, new])
        above, beside = centres + np.roll(centres, 1, 1), corners + np.roll(corners, -1, 0)
        heights[new, old] = (above + beside) / 4 + amplitude * (amplitude * draws[new, old])
        step, amplitude = step // 2, amplitude / decay
    heights -= heights.min()
    return heights / heights.max()


def _brightness(image: np.ndarray, lift: float, drawn: Drawn) -> np.ndarray:
    hsv = rgb_to_hsv(image / 255.0)
    hsv[..., 2] = np.clip(hsv[..., 2] + lift, 0, 1)
    return _bytes(hsv_to_rgb(hsv))


# ---- digital ----


def _contrast(image: np.ndarray, gain: float, drawn: Drawn) -> np.ndarray:
    x = image / 255.0
    mean = x.mean((0, 1), keepdims=True)
    return _bytes((x - mean) * gain + mean)


def _saturate(image: np.ndarray, parameters: tuple[float, float], drawn: Drawn) -> np.ndarray:
    gain, lift = parameters
    hsv = rgb_to_hsv(image / 255.0)
    hsv[..., 1] = np.clip(hsv[..., 1] * gain + lift, 0, 1)
    return _bytes(hsv_to_rgb(hsv))


def _jpeg(image: np.ndarray, quality: int, drawn: Drawn) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _pixelate(image: np.ndarray, scale: float, drawn: Drawn) -> np.ndarray:
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize((int(width * scale), int(height * scale)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BOX))


def _distortion(parameters: tuple[float, float, float], size: Size, rng: RandomState) -> Drawn:
    fields = {name: rng.uniform(-1, 1, size[:2]) for name in ("across", "down")} if parameters[0] else {}
    return {"anchors": rng.uniform(-1, 1, (3, 2)), **fields}


def _elastic(image: np.ndarray, parameters: tuple[float, float, float], drawn: Drawn) -> np.ndarray:
    height, width, channels = image.shape
    alpha, sigma, jitter = (value * min(height, width) for value in parameters)
    reach, across, down = min(height, width) // 3, width // 2, height // 2
    fixed = np.array([[across + reach, down + reach], [across + reach, down - reach], [across - reach, down - reach]])
    moved = np.column_stack([fixed + drawn["anchors"] * jitter, np.ones(3)])
    back = np.linalg.solve(moved, fixed[:, ::-1]).T  # rows: y, x of the source; columns: by x, by y, constant
    x = image / 255.0
    x = np.stack([ndimage.affine_transform(x[..., c], back[:, 1::-1], back[:, 2], order=1, mode="mirror")
                  for c in range(channels)], 2)  # fmt: skip
    if alpha:
        dx, dy = (ndimage.gaussian_filter(drawn[name], sigma, mode="reflect", truncate=3) * alpha
                  for name in ("across", "down"))  # fmt: skip
        rows, columns, planes = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
        x = ndimage.map_coordinates(x, (rows + dy[..., None], columns + dx[..., None], planes), order=1, mode="reflect")
    return _bytes(x)


# ---- spatter ----


def _drops(parameters: tuple[float, ...], size: Size, rng: RandomState) -> Drawn:
    return {"normal": rng.normal(size=size[:2])}


def _spatter(image: np.ndarray, parameters: tuple[float, ...], drawn: Drawn) -> np.ndarray:
    mean, deviation, sigma, threshold, strength, mud = parameters
    x, liquid = image / 255.0, ndimage.gaussian_filter(drawn["normal"] * deviation + mean, sigma, mode="nearest")
    liquid[liquid < threshold] = 0
    if mud:
        share = ndimage.gaussian_filter((liquid > threshold).astype(float), strength, mode="nearest")
        share[share < 0.8] = 0
        return _bytes(x * (1 - share[..., None]) + share[..., None] * np.array([63, 42, 20]) / 255)
    height = _relief((liquid * 255).astype(int).astype(np.uint8)).astype(float)
    if height.max() == 0:
        return image
    return _bytes(x + (height / height.max() * strength)[..., None] * np.array([175, 238, 238]) / 255)


def _relief(layer: np.ndarray) -> np.ndarray:
    """Distances to the layer's edges, equalised and lit from one corner, times the layer."""
    edges = _edges(layer.astype(int))
    far = np.minimum(ndimage.distance_transform_edt(~edges), 20) if edges.any() else np.full(layer.shape, 20.0)
    far = ndimage.uniform_filter(far, 3, mode="mirror").astype(np.uint8)
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    lit = np.clip(ndimage.correlate(_equalised(far).astype(int), emboss, mode="mirror"), 0, 255)
    return np.rint(ndimage.uniform_filter(lit.astype(float), 3, mode="mirror")) * layer


def _edges(layer: np.ndarray) -> np.ndarray:
    """Canny's: gradients, the largest along their direction, and those of 50 that touch one of 150."""
    across, down = (ndimage.sobel(layer, axis, mode="nearest") for axis in (1, 0))
    size = np.abs(across) + np.abs(down)
    framed, (height, width) = np.pad(size, 1), size.shape
    slope = np.abs(down) / np.maximum(np.abs(across), 1e-9)
    steepest = np.zeros(size.shape, bool)
    falling = (across ^ down) >= 0
    flat, upright = slope < np.tan(np.pi / 8), slope > np.tan(3 * np.pi / 8)
    oblique = ~flat & ~upright
    ways = ((flat, 0, 1, False), (upright, 1, 0, False), (oblique & falling, 1, 1, True),
            (oblique & ~falling, 1, -1, True))  # fmt: skip
    for chosen, dy, dx, strict in ways:
        before = framed[1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
        after = framed[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        steepest |= chosen & (size > before) & ((size > after) if strict else (size >= after))
    islands, count = ndimage.label(steepest & (size > 50), np.ones((3, 3)))
    strong = np.zeros(count + 1, bool)
    strong[islands[steepest & (size > 150)]] = True
    strong[0] = False
    return strong[islands]


def _equalised(values: np.ndarray) -> np.ndarray:
    counts = np.bincount(values.ravel(), minlength=256)
    first = counts[np.flatnonzero(counts)[0]]
    if first == values.size:
        return values
    table = np.rint((counts.cumsum() - first) * (255 / (values.size - first)))
    return np.clip(table, 0, 255).astype(np.uint8)[values]


LOOPS = {
    "gaussian_noise": Loop(_gaussian_noise, _normals),
    "shot_noise": Loop(_shot_noise, _generator),
    "impulse_noise": Loop(_impulse_noise, _uniforms),
    "speckle_noise": Loop(_speckle_noise, _normals),
    "gaussian_blur": Loop(_gaussian_blur),
    "glass_blur": Loop(_glass_blur, _offsets),
    "defocus_blur": Loop(_defocus_blur),
    "motion_blur": Loop(_motion_blur, _angle),
    "zoom_blur": Loop(_zoom_blur),
    "snow": Loop(_snow, _flakes),
    "fog": Loop(_fog, _heights),
    "brightness": Loop(_brightness),
    "contrast": Loop(_contrast),
    "saturate": Loop(_saturate),
    "jpeg_compression": Loop(_jpeg),
    "pixelate": Loop(_pixelate),
    "elastic_transform": Loop(_elastic, _distortion),
    "spatter": Loop(_spatter, _drops),
}  # frost needs a folder of pictures: `frost`
WITHOUT_FILES = {  # the same where the blur is a function of the same program
    "motion_blur": Loop(partial(_motion_blur, hand=np.asarray), _angle),
    "snow": Loop(partial(_snow, hand=np.asarray), _flakes),
}
