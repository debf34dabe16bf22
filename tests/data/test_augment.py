"""Crop, flip, Cutout and normalisation of whole batches: the same bits as torchvision's, one image after another."""

import random as python_random

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mixcli.data import augment, operations
from mixcli.data.augment import Augmentation, training_view
from mixcli.data.operations import Operations
from mixcli.data.resident import Resident
from mixcli.data.resized import ResizedCrop
from mixcli.errors import UserError
from mixcli.recipe import Facts, Train, complete
from mixcli.sampling import Random

CPU, CLEAN = torch.device("cpu"), Augmentation()
WINDOWS, ONCE, TWICE = ResizedCrop(filter="bicubic"), Operations("trivialaugment"), Operations("randaugment", 2, 15)
CONSTANTS = {1: ((0.3051,), (0.3758,)), 3: ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))}


def pictures(count=64, height=32, width=32, channels=3):
    return np.random.default_rng(3).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def resident(images, augmentation=CLEAN):
    labels = np.arange(len(images)) % 10
    return Resident(images, labels, *CONSTANTS[images.shape[3]], augmentation, CPU)


def carried(*arrays):
    return map(torch.from_numpy, arrays)


def key(step=0):
    return Random(0, "augment", step)


def torchvision_view(image, augmentation, draw, i):
    """One (H, W, C) uint8 image through torchvision's own operations, at the offsets that were drawn for image i."""
    from torchvision.transforms import functional as F
    from torchvision.transforms import v2

    plane = torch.from_numpy(image).permute(2, 0, 1)
    height, width = plane.shape[1:]
    mode = "reflect" if augmentation.pad_mode == "reflect" else "constant"
    if draw.window is None:
        plane = F.crop(
            v2.functional.pad(plane, augmentation.pad, padding_mode=mode), draw.top[i], draw.left[i], height, width
        )
    else:
        place = [int(side[i]) for side in vars(draw.window).values()]
        filter = v2.InterpolationMode(augmentation.resized.filter)
        plane = v2.functional.resized_crop(plane, *place, [height, width], filter)
    plane = F.hflip(plane) if draw.mirror is not None and draw.mirror[i] else plane
    for turn in draw.turns:
        plane = operations.applied(plane[None].expand(len(draw.row), -1, -1, -1), turn)[i]  # held to torchvision's own
    tensor = F.to_tensor(plane.permute(1, 2, 0).numpy())
    if draw.side > 0:
        top, left = (int(c[i]) - draw.side // 2 for c in (draw.row, draw.column))
        bottom, right = top + draw.side, left + draw.side
        tensor[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 0
    return F.normalize(tensor, *CONSTANTS[image.shape[2]])


@pytest.mark.parametrize(
    ("augmentation", "shape"),
    [
        (Augmentation(4, "zero", flip=True), (32, 32, 3)),
        (Augmentation(4, "reflect", flip=True), (32, 32, 3)),
        (Augmentation(4, "reflect", flip=True, cutout=16), (32, 32, 3)),
        (Augmentation(0, "zero", flip=True, cutout=7), (9, 14, 3)),
        (Augmentation(3, "reflect", flip=True, cutout=3), (14, 9, 1)),
        (Augmentation(1, "zero"), (8, 8, 1)),
        (Augmentation(5, "zero", flip=True), (1, 1, 3)),
        (Augmentation(0, flip=True, cutout=8, resized=WINDOWS, operations=TWICE), (32, 32, 3)),
        (Augmentation(0, flip=True, resized=ResizedCrop((0.5, 0.9)), operations=ONCE), (14, 9, 1)),
        (Augmentation(4, "reflect", flip=True, cutout=16, operations=ONCE), (32, 32, 3)),
    ],
)
@pytest.mark.parametrize("degree", [1.0, 0.5])
def test_the_view_has_the_bits_of_torchvision_at_the_same_offsets(augmentation, shape, degree):
    images = pictures(24, *shape)
    rows = torch.tensor([5, 0, 23, 7, 7, 11, 3, 19])
    view = resident(images, augmentation).view(rows, degree, key())
    draw = augmentation.draw(len(rows), shape[:2], degree, key())
    expected = [torchvision_view(images[row], augmentation, draw, i) for i, row in enumerate(rows)]
    assert view.dtype == torch.float32 and view.is_contiguous()
    assert torch.equal(view, torch.stack(expected))


@pytest.mark.parametrize("pad_mode", ["zero", "reflect"])
def test_degree_0_is_the_clean_image_bit_for_bit(pad_mode):
    from torchvision.transforms import functional as F

    images = pictures()
    data = resident(images, Augmentation(4, pad_mode, flip=True, cutout=16, operations=TWICE))
    view = data.view(torch.arange(10, 30), 0.0, key())
    windows = resident(images, Augmentation(flip=True, resized=WINDOWS)).view(torch.arange(10, 30), 0.0, key())
    clean = torch.stack([F.normalize(F.to_tensor(image), *CONSTANTS[3]) for image in images[10:30]])
    assert torch.equal(view, clean) and torch.equal(windows, clean)
    assert torch.equal(data.clean(10, 30), clean)
    assert data.clean(60, 70).shape[0] == 4 and data.clean(0, 8).is_contiguous()


def test_every_offset_is_drawn_and_as_often_as_every_other():
    draw = Augmentation(2, flip=True, cutout=4).draw(50_000, (6, 5), 1.0, key())
    for offsets, count in ((draw.top, 5), (draw.left, 5), (draw.row, 6), (draw.column, 5)):
        share = torch.bincount(offsets, minlength=count) / 50_000
        assert len(share) == count and (share - 1 / count).abs().max() < 0.01
    both = torch.bincount(draw.top * 5 + draw.left, minlength=25) / 50_000
    assert (both - 1 / 25).abs().max() < 0.006  # the two offsets are independent
    assert draw.mirror.float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_the_degree_scales_padding_flips_and_hole():
    full = Augmentation(4, "zero", flip=True, cutout=16)
    half, none = (full.draw(20_000, (32, 32), degree, key()) for degree in (0.5, 0.0))
    assert (half.top.min(), half.top.max(), half.left.min(), half.left.max()) == (2, 6, 2, 6)
    assert half.mirror.float().mean().item() == pytest.approx(0.25, abs=0.015)
    assert (half.side, none.side) == (8, 0)
    assert none.mirror is None and (none.top == 4).all() and (none.left == 4).all()


def test_switching_one_part_off_does_not_shift_the_others():
    full = Augmentation(4, "zero", flip=True, cutout=16).draw(100, (32, 32), 1.0, key())
    bare = Augmentation(4, "zero", flip=False).draw(100, (32, 32), 1.0, key())
    assert torch.equal(full.top, bare.top) and torch.equal(full.left, bare.left) and torch.equal(full.row, bare.row)
    more = Augmentation(4, "zero", flip=True, cutout=16, resized=WINDOWS, operations=TWICE).draw(
        100, (32, 32), 1.0, key()
    )
    alone = Augmentation(operations=TWICE).draw(100, (32, 32), 1.0, key())
    assert torch.equal(full.mirror, more.mirror) and torch.equal(full.row, more.row)
    assert all(torch.equal(a.order, b.order) for a, b in zip(more.turns, alone.turns, strict=True))


def test_the_hole_is_black_before_normalisation_and_clipped_at_the_border():
    images = torch.full((2, 3, 8, 8), 200, dtype=torch.uint8)
    cut = augment.cut(images, torch.tensor([0, 4]), torch.tensor([7, 4]), 4)
    assert (cut == 0).sum(dim=(1, 2, 3)).tolist() == [3 * 2 * 3, 3 * 4 * 4]
    assert (cut[0, :, :2, 5:] == 0).all() and (cut[1, :, 2:6, 2:6] == 0).all()
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in CONSTANTS[3])
    assert torch.equal(augment.normalised(cut, mean, std)[0, :, 0, 7], (-mean / std).flatten())


def test_same_key_same_view_and_another_step_another():
    data = resident(pictures(), Augmentation(4, "reflect", flip=True, cutout=8))
    rows = torch.arange(64)
    assert torch.equal(data.view(rows, 1.0, key(1)), data.view(rows, 1.0, key(1)))
    assert not torch.equal(data.view(rows, 1.0, key(1)), data.view(rows, 1.0, key(2)))


def test_a_view_changes_neither_the_images_nor_a_global_generator():
    images = pictures()
    data, copy = resident(images, Augmentation(0, "zero", flip=True, cutout=8)), images.copy()
    before = np.random.get_state()[1].copy(), python_random.getstate(), torch.get_rng_state()
    clean = data.clean(0, 64)
    data.view(torch.arange(64), 1.0, key())
    after = np.random.get_state()[1], python_random.getstate(), torch.get_rng_state()
    assert torch.equal(data.clean(0, 64), clean) and np.array_equal(images, copy)
    assert np.array_equal(before[0], after[0]) and before[1] == after[1] and torch.equal(before[2], after[2])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"crop_scale": (0.2, 1.0)}, "crop_scale: has no effect on a padded crop"),
        ({"crop": "resized", "pad": 4}, "pad: has no effect on a resized crop"),
        ({"crop": "resized", "pad_mode": "zero"}, "pad_mode: has no effect on a resized crop"),
        ({"crop": "resized", "crop_ratio": (2.0, 1.0)}, "crop_ratio: the first bound is above the second"),
        ({"augment_count": 3}, "augment_count: has no effect on augment = none"),
        ({"augment": "trivialaugment", "augment_magnitude": 3}, "no effect on augment = trivialaugment"),
    ],
)
def test_settings_of_the_view_that_contradict_are_one_line(changes, line):
    with pytest.raises(UserError, match=line) as caught:
        Train(**changes)
    assert caught.value.exit_code == 2


def test_the_view_of_complete_settings():
    facts = Facts("x", 100, 10, 10, 3, (32, 32))
    windows = complete(Train(dataset="cifar10", crop="resized", crop_filter="bicubic", augment="randaugment"), facts)
    expected = Augmentation(0, "zero", flip=True, resized=WINDOWS, operations=Operations("randaugment", 2, 9))
    assert training_view(windows) == expected
    plain = training_view(complete(Train(dataset="cifar10", augment="trivialaugment"), facts))
    assert plain == Augmentation(4, "reflect", flip=True, operations=ONCE)


def test_labels_stay_on_the_host():
    data = resident(pictures(30))
    assert len(data) == 30 and isinstance(data.labels, np.ndarray) and data.labels[13] == 3


@pytest.mark.parametrize("pad", [8, 9])
def test_a_reflected_border_as_wide_as_the_image_is_refused(pad):
    with pytest.raises(UserError, match="pad: a reflected border") as error:
        resident(pictures(4, 8, 8, 1), Augmentation(pad, "reflect"))
    assert error.value.exit_code == 2
    assert resident(pictures(4, 8, 8, 1), Augmentation(pad, "zero")).view(torch.arange(4), 1.0, key()).shape[0] == 4


def test_no_view_waits_for_the_device(monkeypatch):
    """Fake tensors hold no values: whatever would have to read one on the host raises."""
    data = resident(pictures(), Augmentation(0, flip=True, cutout=8, resized=WINDOWS, operations=TWICE))
    operations.magnitudes(TWICE.space, data.size)  # a table of the host, made once
    with FakeTensorMode() as fake:
        monkeypatch.setattr(Random, "carry", lambda self, *arrays: tuple(map(fake.from_tensor, carried(*arrays))))
        data._padded, data._mean, data._std = (fake.from_tensor(t) for t in (data._padded, data._mean, data._std))
        monkeypatch.setattr(Random, "field", lambda self, shape, law="uniform": torch.rand(shape))
        for degree in (0.0, 0.5, 1.0):
            assert data.view(torch.arange(16), degree, key()).shape == (16, 3, 32, 32)
        with pytest.raises(Exception, match="aten"):  # the mode does refuse a synchronising operation
            torch.rand(3).max().item()


def test_the_views_of_a_batch_are_drawn_each_by_its_own_name_and_the_second_lies_below_the_first():
    data, at = resident(pictures(), Augmentation(4, "reflect", True, 8)), torch.tensor([3, 1, 60])
    rows, views = data.training_views(at, {"intra": 0.0, "second": 1.0}, key(), torch.channels_last)
    assert torch.equal(rows[:3], data.view(at, 1.0, key()))
    assert torch.equal(rows[3:], data.view(at, 1.0, key().child("second")))
    assert not torch.equal(rows[:3], rows[3:])
    assert set(views) == {"intra"} and torch.equal(views["intra"], data.view(at, 0.0, key().child("intra")))
    assert rows.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_a_clean_view_has_the_same_bits_and_no_view_waits():
    cuda, images = torch.device("cuda"), pictures()
    data = Resident(images, np.zeros(64), *CONSTANTS[3], Augmentation(4, "reflect", True, 8), cuda)
    rows, random = torch.arange(64, device=cuda), Random(0, "augment", device=cuda)
    torch.cuda.set_sync_debug_mode("error")
    try:
        view = data.view(rows, 0.0, random)
        data.view(rows, 1.0, random)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(view.cpu(), resident(images).clean(0, 64))
