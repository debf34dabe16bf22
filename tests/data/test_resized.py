"""RandomResizedCrop of a batch: torchvision's pixels image by image, and torchvision's law of windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2.functional._geometry import _do_native_uint8_resize_on_cpu

from mixcli.data import resized
from mixcli.data.resized import ResizedCrop, Window
from mixcli.sampling import Random

MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def pictures(count, channels, height, width):
    rng = np.random.default_rng(5)
    noise = torch.from_numpy(rng.integers(0, 256, (count, channels, height, width), dtype=np.uint8))
    noise[::3] = torch.where(noise[::3] > 127, 255, 0)  # the steepest edges there are
    return noise


@pytest.mark.parametrize("filter", MODES)
@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 28, 28), (3, 20, 33), (3, 8, 8), (3, 224, 224)])
def test_every_window_has_the_pixels_of_torchvision(filter, shape):
    """The bytes of its kernel for bytes, which some CPUs lack: there, within 1 of 255."""
    images = pictures(12, *shape)
    window = ResizedCrop().draw(12, shape[1:], 1.0, Random(0, "resized"))
    ours = resized.crop(images, window, filter)
    for i, image in enumerate(images):
        place = [int(part[i]) for part in (window.top, window.left, window.height, window.width)]
        theirs = v2.functional.resized_crop(image, *place, list(shape[1:]), MODES[filter], antialias=True)
        apart = (ours[i].int() - theirs.int()).abs()
        assert apart.max() <= (0 if _do_native_uint8_resize_on_cpu(MODES[filter]) else 1)
    assert ours.dtype == torch.uint8 and ours.shape == images.shape and ours.is_contiguous()


@pytest.mark.parametrize("filter", MODES)
def test_the_whole_image_and_a_flat_one_stay_as_they_are(filter):
    images = pictures(4, 3, 16, 24)
    whole = Window(*(torch.full((4,), side) for side in (0, 0, 16, 24)))
    assert torch.equal(resized.crop(images, whole, filter), images)
    flat, small = (
        torch.full((4, 3, 16, 24), 200, dtype=torch.uint8),
        Window(*(torch.tensor([n] * 4) for n in (3, 5, 7, 6))),
    )
    assert torch.equal(resized.crop(flat, small, filter), flat)


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [((64, 64), (0.08, 1.0), (3 / 4, 4 / 3)), ((32, 48), (0.5, 0.9), (0.5, 2.0)), ((8, 40), (0.9, 1.0), (0.8, 1.2))],
)
def test_windows_are_drawn_by_torchvisions_law(size, scale, ratio):
    count, theirs = 4000, v2.RandomResizedCrop(size, scale, ratio)
    torch.manual_seed(0)
    image = torch.empty(1, *size)
    expected = [theirs.make_params([image]) for _ in range(count)]
    window = ResizedCrop(scale, ratio).draw(count, size, 1.0, Random(0, "resized"))
    for name in ("top", "left", "height", "width"):
        ours, other = getattr(window, name).double(), torch.tensor([e[name] for e in expected]).double()
        assert ours.mean() == pytest.approx(float(other.mean()), abs=5 * float(other.std()) / 40 + 1e-9)
        assert ours.std() == pytest.approx(float(other.std()), rel=0.1, abs=1e-9)
    assert (window.top + window.height).max() <= size[0] and (window.left + window.width).max() <= size[1]
    assert min(window.top.min(), window.left.min()) >= 0 and min(window.height.min(), window.width.min()) > 0


@pytest.mark.parametrize(("size", "ratio"), [((8, 40), (0.8, 1.2)), ((40, 8), (0.8, 1.2)), ((20, 20), (3.0, 4.0))])
def test_where_no_window_fits_it_is_the_largest_in_the_middle_as_torchvision_has_it(size, ratio):
    theirs = v2.RandomResizedCrop(size, (1.0, 1.0), ratio).make_params([torch.empty(1, *size)])
    window = ResizedCrop((1.0, 1.0), ratio).draw(3, size, 1.0, Random(0, "resized"))
    for name in ("top", "left", "height", "width"):
        assert getattr(window, name).tolist() == [theirs[name]] * 3


def test_a_lower_degree_draws_wider_windows_and_0_none():
    def areas(degree):
        window = ResizedCrop().draw(5000, (64, 64), degree, Random(0, "resized"))
        return (window.height * window.width) / 64**2, window.width / window.height

    (half, aspect), (full, _) = areas(0.5), areas(1.0)
    assert half.min() > 0.52 and full.min() < 0.12 and half.mean() > full.mean()
    assert aspect.max() < (4 / 3) ** 0.5 * 1.05
    assert ResizedCrop().draw(8, (64, 64), 0.0, Random(0, "resized")) is None
