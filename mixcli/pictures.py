"""pictures.py: one image file as pixels: limits from its header, modes by rule, one line for what cannot be decoded.

Grey files (modes 1, L, LA) become one channel in a grey set and three equal ones in a colour set; palettes, CMYK and
transparent files become RGB, their transparency dropped; 16-bit and floating files are refused, for no rule says what
their white is. Only formats that hold pixels are opened: some others run programs.

A picture of another size than its set's may be made one of that size: the usual clean view, short side to 256 / 224 of
the stored one, then the centre square; torchvision's Resize and CenterCrop, bit for bit. One that has the size stays.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image, UnidentifiedImageError

from mixcli.errors import UserError

LARGEST = 50_000_000  # pixels of one file
AT_ONCE = 64  # files that a thread decodes in a row
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF")  # GIF: published under names that end in .jpg, too
SHORT, CENTRE = 256, 224  # px: of the clean view, in proportion for other sides
SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
GREY = ("1", "L", "LA", "La")
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
BROKEN = (OSError, ValueError, SyntaxError, EOFError, UnidentifiedImageError)
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

Size = tuple[int, int, int]  # height, width, channels

warnings.filterwarnings("error", category=Image.DecompressionBombWarning)  # Pillow's own limit: refused, never decoded


def header(path: Path, name: str) -> Size:
    """Height, width, and 1 or 3 channels, by the header alone. Raises UserError like `decoded`."""
    with _opened(path, name) as image:
        return image.height, image.width, 1 if image.mode in GREY else 3


def decoded(path: Path, name: str, size: Size | None = None, resized: bool = False, hint: str = "") -> np.ndarray:
    """(H, W, C) uint8 of one image file.

    name     how errors name the file
    size     what it must have; None: any, three channels
    resized  from any other it is made that size, a square
    hint     what to do about another size
    Raises UserError: data_missing; data_corrupt for what cannot be decoded, has another size, is colour in a grey set.
    """
    with _opened(path, name) as image:
        if size is not None and not resized and (image.height, image.width) != size[:2]:
            _refuse(name, f"size {image.width}x{image.height}", f"{size[1]}x{size[0]}", hint)
        grey = size is not None and size[2] == 1
        if grey and image.mode not in GREY:
            _refuse(name, "a colour image in a set of grey ones")
        try:
            picture = image.convert("L" if grey else "RGB")
        except BROKEN as error:
            _undecodable(name, error)
    if resized and size is not None and picture.size != (size[1], size[0]):
        picture = _clean_view(picture, size[0], name)
    pixels = np.asarray(picture)
    return pixels[..., None] if grey else pixels


def _clean_view(picture: Image.Image, side: int, name: str) -> Image.Image:
    """The centre square of `side`, of a picture whose short side was made 256 / 224 as long as that."""
    short, long = round(side * SHORT / CENTRE), max(picture.size)
    width, height = (short if n == min(picture.size) else int(short * long / min(picture.size)) for n in picture.size)
    if width * height > LARGEST:
        _refuse(name, f"size {picture.width}x{picture.height}: too narrow to be resized to {side}")
    left, top = round((width - side) / 2), round((height - side) / 2)
    scaled = picture.resize((width, height), Image.Resampling.BILINEAR)
    return scaled.crop((left, top, left + side, top + side))


def read_into(out: np.ndarray, folder: Path, names: Sequence[str], resized: bool = False, hint: str = "") -> None:
    """Fills `out` (N, H, W, C) uint8 with files below a folder, several at a time; errors name the first bad one."""

    def fill(rows: range) -> None:
        for row in rows:
            out[row] = decoded(folder / names[row], f"{folder.name}/{names[row]}", out.shape[1:], resized, hint)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = (range(start, min(start + AT_ONCE, len(names))) for start in range(0, len(names), AT_ONCE))
        for _ in pool.map(fill, parts):
            pass


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Image.Image]:
    """The file with its header read and its pixels not."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise UserError("data_missing", name, "missing") from None
    except OSError as error:
        raise UserError("data_missing", name, f"cannot be read ({error.strerror})") from None
    with file:
        try:
            image = Image.open(file, formats=FORMATS)
        except BOMBS as error:
            _too_large(name, next(iter(re.findall(r"\d+", str(error))), "too many"))
        except BROKEN as error:
            _undecodable(name, error)
        if image.width * image.height > LARGEST:
            _too_large(name, str(image.width * image.height))
        if image.mode not in GREY + COLOUR:
            _refuse(name, f"mode {image.mode}: 16-bit and floating images are not supported")
        yield image


def _undecodable(name: str, error: Exception) -> NoReturn:
    _refuse(name, f"cannot decode ({'truncated' if 'truncated' in str(error) else 'not an image'})")


def _too_large(name: str, pixels: str) -> NoReturn:
    _refuse(name, f"{pixels} pixels", f"at most {LARGEST}")


def _refuse(name: str, problem: str, expected: str | None = None, hint: str = "") -> NoReturn:
    raise UserError("data_corrupt", name, problem, expected=expected, hint=hint)
