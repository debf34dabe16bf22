"""ResizeMix against PyTorch's own antialiased resize, and the law of its ratio."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mixcli.mixing import resizemix
from mixcli.sampling import Random
from mixcli.settings import ResizeMix
from tests import fakes


def drawn(settings: ResizeMix, size=(8, 32, 32), step: int = 0):
    return resizemix.draw(settings, fakes.context(*size), Random(0, "mix", step))


def resized(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if image.shape[3] == 1 < image.shape[2]:  # PyTorch 2.15 repeats the first row of images one pixel wide
        return resized(image.mT.contiguous(), width, height).mT
    return F.interpolate(image, (height, width), mode="bilinear", antialias=True)


def pasted(mix, images: torch.Tensor) -> torch.Tensor:
    """One image after the other: the partner resized to the box, and copied into it."""
    result = images.clone()
    boxes = mix.place.boxes.expand(-1, len(images))
    for i, (top, left, bottom, right) in enumerate(boxes.T.tolist()):
        partner = images[mix.source[1, i]][None]
        result[i, :, top:bottom, left:right] = resized(partner, bottom - top, right - left)[0]
    return result


@pytest.mark.parametrize("size", [(8, 32, 32), (7, 5, 9), (4, 1, 7), (4, 7, 1), (2, 48, 16), (3, 1, 1)], ids=str)
@pytest.mark.parametrize("per", ["batch", "sample"])
def test_ledger_7_mixed_images_equal_a_loop_of_antialiased_resizes(size, per):
    for step in range(10):
        mix = drawn(ResizeMix(per=per, pairing="derangement"), size, step)
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            images = fakes.images(*size, dtype=dtype).sigmoid()
            assert (mix.images(images) - pasted(mix, images)).abs().max() < tolerance


def test_an_all_zero_and_an_all_one_image_show_the_mask():
    mix = drawn(ResizeMix(per="sample", pairing="derangement"), (2, 16, 48))
    images = torch.stack([torch.zeros(3, 16, 48), torch.ones(3, 16, 48)])
    assert torch.equal(mix.images(images)[0], (1 - mix.keep[0]).expand(3, -1, -1))


@pytest.mark.parametrize(("settings", "expected"), [(ResizeMix(per="sample"), 0.756),
                                                    (ResizeMix(per="sample", scale_law="beta", alpha=1), 0.756),
                                                    (ResizeMix(per="sample", side=(0.5, 0.5)), 0.75)])  # fmt: skip
def test_the_mean_ratio_is_that_of_a_uniform_scale(settings, expected):
    mix = drawn(settings, (20_000, 32, 32))
    assert abs(float(mix.ratio[0].mean()) - expected) < 0.006
    assert (mix.ratio[0] - mix.drawn).abs().max() < 0.06  # sides are rounded to whole pixels


def test_ledger_6_alpha_moves_the_law_of_the_scale_where_it_has_one():
    spread = [float(drawn(ResizeMix(per="sample", scale_law="beta", alpha=alpha), (5000, 32, 32)).drawn.std())
              for alpha in (0.2, 1, 5)]  # fmt: skip
    assert spread[0] > spread[1] > spread[2] > 0


def test_ledger_19_boxes_reach_every_pixel():
    assert (drawn(ResizeMix(per="sample"), (2000, 9, 13)).keep.amin(0) == 0).all()


def test_ledger_11_half_precision_is_resized_in_single_precision():
    mix, images = drawn(ResizeMix(per="sample")), fakes.images(8, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mix.images(images), mix.images(images.float()))
        inside = mix.images(images)
    assert torch.equal(inside, mix.images(images))
