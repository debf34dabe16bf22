"""One image file as pixels: which modes become what, and what is said of files that are none."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mixcli import pictures
from mixcli.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def refused(path, size=None):
    with pytest.raises(UserError) as error:
        pictures.decoded(path, "set/x", size)
    assert error.value.exit_code == 3 and "\n" not in str(error.value) and str(error.value).startswith("set/x: ")
    return str(error.value)


def test_a_colour_file_is_its_pixels(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "x.png")
    assert np.array_equal(pictures.decoded(tmp_path / "x.png", "x", (6, 5, 3)), RGB)
    assert pictures.header(tmp_path / "x.png", "x") == (6, 5, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_d08_modes_become_colour_by_rule_and_grey_ones_one_channel(tmp_path, mode):
    path = tmp_path / f"x.{'tiff' if mode == 'CMYK' else 'png'}"
    image = Image.fromarray(RGB).convert(mode)
    image.save(path)
    grey = mode in ("1", "L", "LA")
    assert pictures.header(path, "x") == (6, 5, 1 if grey else 3)
    assert np.array_equal(pictures.decoded(path, "x"), np.asarray(image.convert("RGB")))
    if grey:
        assert np.array_equal(pictures.decoded(path, "x", (6, 5, 1))[..., 0], np.asarray(image.convert("L")))
    else:
        assert "a colour image in a set of grey ones" in refused(path, (6, 5, 1))


def test_d08_deep_modes_are_refused(tmp_path):
    Image.fromarray(np.zeros((6, 5), np.uint16)).save(tmp_path / "x.png")
    assert "16-bit and floating images are not supported" in refused(tmp_path / "x.png")
    Image.fromarray(np.zeros((6, 5), np.float32)).save(tmp_path / "x.tiff")
    assert "mode F" in refused(tmp_path / "x.tiff")


def encoded(format):
    content = io.BytesIO()
    Image.fromarray(RGB.repeat(20, 0).repeat(20, 1)).save(content, format)
    return content.getvalue()


FILES = {
    "cannot decode (truncated)": encoded("JPEG")[:-100],
    "cannot decode (not an image)": b"a text file",
    "x: cannot decode": b"",
    "x: cannot decode (truncated)": encoded("PNG")[:-200],
}


@pytest.mark.parametrize("told", FILES)
def test_d06_what_cannot_be_decoded_is_told(tmp_path, told):
    (tmp_path / "x.png").write_bytes(FILES[told])
    assert told in refused(tmp_path / "x.png")
    with pytest.raises(UserError, match="missing"):
        pictures.decoded(tmp_path / "no.png", "set/no")


def test_d09_another_size_is_refused_with_both(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "x.png")
    assert "size 5x6; expected 32x32" in refused(tmp_path / "x.png", (32, 32, 3))


def claiming(width, height):
    """A PNG of a few bytes whose header claims a size."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 10_000, 20_000])
def test_d07_x06_more_pixels_than_any_image_has_are_refused_by_the_header(tmp_path, side):
    """Below Pillow's own limit, where it warns, and where it refuses."""
    (tmp_path / "x.png").write_bytes(claiming(side, side))
    assert f"{side * side} pixels; expected at most 50000000" in refused(tmp_path / "x.png")


def test_formats_that_run_programs_are_not_opened(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\nshowpage\n")
    assert "cannot decode (not an image)" in refused(tmp_path / "x.jpg")


def test_many_files_are_read_in_their_order_and_the_first_bad_one_is_named(tmp_path):
    names = [f"{k}.png" for k in range(200)]
    for k, name in enumerate(names):
        Image.fromarray(np.full((4, 4, 3), k, np.uint8)).save(tmp_path / name)
    out = np.empty((200, 4, 4, 3), np.uint8)
    pictures.read_into(out, tmp_path, names)
    assert (out == np.arange(200)[:, None, None, None]).all()
    for k in (150, 70):
        (tmp_path / names[k]).write_bytes(b"")
    with pytest.raises(UserError, match=f"{tmp_path.name}/70.png: cannot decode"):
        pictures.read_into(out, tmp_path, names)
