"""JPEG by arithmetic gives the bytes of Pillow's files: every quality of every column, any size, any content."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mixcli.corruptions import digital
from mixcli.corruptions.generated import STORED
from mixcli.corruptions.jpeg_integers import through_jpeg
from mixcli.corruptions.parameters import PARAMETERS

QUALITIES = sorted({q for column in PARAMETERS["jpeg_compression"].values() for q in column} | {STORED})


def pictures(height, width, channels, count=6):
    """Noise, smooth waves with a little noise, and flat images."""
    rng = np.random.default_rng(height * width)
    size = (count, height, width, channels)
    y, x, c = (np.arange(n).reshape(shape) for n, shape in
               ((height, (-1, 1, 1)), (width, (1, -1, 1)), (channels, (1, 1, -1))))  # fmt: skip
    waves = 128 + 110 * np.sin(y / 5 + x / 7 + c) + rng.normal(0, 5, size)
    flat = np.broadcast_to(rng.integers(0, 256, (count, 1, 1, channels)), size)
    parts = (rng.integers(0, 256, size), waves.clip(0, 255), flat)
    return torch.from_numpy(np.concatenate([part.astype(np.uint8) for part in parts]))


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize(
    "size", [(8, 8, 1), (8, 8, 3), (32, 32, 3), (64, 64, 3), (33, 47, 3), (17, 20, 3), (15, 31, 1)]
)
def test_the_bytes_are_those_of_pillow(size, quality):
    images = pictures(*size)
    assert torch.equal(through_jpeg(images, quality), digital.jpeg(images, quality, {}))


@pytest.mark.parametrize("quality", [1, 49, 51, 95, 100])
def test_so_they_are_at_the_ends_and_around_the_middle_of_the_scale(quality):
    images = pictures(24, 40, 3)
    assert torch.equal(through_jpeg(images, quality), digital.jpeg(images, quality, {}))


def test_an_images_bytes_do_not_depend_on_its_batch_and_the_images_stay(size=(32, 32, 3)):
    images = pictures(*size)
    before, whole = images.clone(), through_jpeg(images, 25)
    assert torch.equal(torch.cat([through_jpeg(part, 25) for part in images.split(5)]), whole)
    assert torch.equal(through_jpeg(images.flip(0), 25).flip(0), whole) and torch.equal(images, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_bytes_of_pillow():
    images = pictures(32, 32, 3, 200)
    for quality in QUALITIES:
        assert torch.equal(digital.jpeg(images.cuda(), quality, {}).cpu(), digital.jpeg(images, quality, {}))
