"""RandAugment and TrivialAugment: torchvision's pixels, operation by operation, and torchvision's laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from mixcli.data import operations
from mixcli.data.operations import LEVELS, NAMES, SIGNED, Operations
from mixcli.sampling import Random

SPACES = {"randaugment": v2.RandAugment, "trivialaugment": v2.TrivialAugmentWide}
each_space = pytest.mark.parametrize("space", SPACES)


def pictures(count, channels=3, height=32, width=32, seed=0):
    """Noise, slopes and a flat one: what looks different under every operation."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    slopes = np.add.outer(np.arange(height) * 4, np.arange(width) * 3) + rng.integers(0, 60, (count, channels, 1, 1))
    noise[::2] = (slopes % 200)[::2]
    noise[-1] = 77
    return torch.from_numpy(noise)


def torchvision_one(image, name, magnitude):
    transform = v2.RandAugment()
    return transform._apply_image_or_video_transform(
        image, name, magnitude, interpolation=InterpolationMode.NEAREST, fill=transform._fill
    )


def in_turn(images, kinds, amounts):
    turn = operations._turn(np.asarray(kinds), np.asarray(amounts, dtype=float), images.shape[2:], Random(0, "x"))
    return operations.applied(images, turn)


@each_space
@pytest.mark.parametrize("size", [(32, 32), (9, 14), (64, 40)])
def test_names_signs_and_magnitudes_are_torchvisions(space, size):
    theirs, ours = SPACES[space]._AUGMENTATION_SPACE, operations.magnitudes(space, size)
    assert tuple(theirs) == NAMES and ours.shape == (14, LEVELS)
    for name, row in zip(NAMES, ours, strict=True):
        found, signed = theirs[name]
        expected = found(LEVELS, *size)
        assert signed == (name in SIGNED)
        assert (row == (0 if expected is None else expected.double().numpy())).all()


@each_space
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 9, 14), (1, 8, 8)])
def test_every_image_of_a_batch_has_the_pixels_of_torchvision(space, name, shape):
    kind, images = NAMES.index(name), pictures(2 * LEVELS, *shape)
    row = operations.magnitudes(space, shape[1:])[kind]
    amounts = np.concatenate([row, -row if name in SIGNED else row])
    done = in_turn(images, np.full(len(images), kind), amounts)
    expected = torch.stack([torchvision_one(x, name, float(a)) for x, a in zip(images, amounts, strict=True)])
    assert done.dtype == torch.uint8 and done.shape == images.shape
    assert torch.equal(done, expected)


def test_a_turn_of_all_operations_gives_every_image_its_own():
    images, kinds = pictures(56), np.random.default_rng(1).integers(0, 14, 56)
    amounts = operations.magnitudes("randaugment", (32, 32))[kinds, 20]
    done = in_turn(images, kinds, amounts)
    expected = [torchvision_one(x, NAMES[k], float(a)) for x, k, a in zip(images, kinds, amounts, strict=True)]
    assert torch.equal(done, torch.stack(expected))


@pytest.mark.parametrize(
    ("drawing", "turns"), [(Operations("trivialaugment"), 1), (Operations("randaugment", 2, 9), 2)]
)
def test_operations_magnitudes_and_signs_are_drawn_as_often_as_torchvision_draws_them(drawing, turns):
    batch = 60_000
    drawn = drawing.draw(batch, (32, 32), 1.0, Random(0, "operations"))
    assert len(drawn) == turns
    table = operations.magnitudes(drawing.space, (32, 32))
    for turn in drawn:
        counts = dict(turn.groups)
        share = {name: count / batch for name, count in counts.items()}
        assert share.pop("warp") == pytest.approx(5 / 14, abs=0.01)
        assert all(value == pytest.approx(1 / 14, abs=0.006) for value in share.values()) and len(share) == 9
        edges = np.cumsum([0, *counts.values()])
        color = turn.magnitude[edges[list(counts).index("Color")] :][: counts["Color"]].numpy()
        assert (color < 0).mean() == pytest.approx((color > 0).mean(), abs=0.03)
        levels = set(np.abs(color).tolist())
        assert levels == (set(table[8]) if drawing.space == "trivialaugment" else {table[8, 9]})


def test_at_a_degree_that_share_of_the_operations_is_applied_and_at_0_none():
    full, half = (Operations("randaugment", 1, 9).draw(20_000, (8, 8), d, Random(0, "x"))[0] for d in (1.0, 0.5))
    left = dict(half.groups)["Identity"] / 20_000
    assert left == pytest.approx(1 / 14 + 0.5 * 13 / 14, abs=0.02)
    kept = half.magnitude[half.back] != 0
    assert torch.equal(half.magnitude[half.back][kept], full.magnitude[full.back][kept])
    assert Operations("randaugment").draw(8, (8, 8), 0.0, Random(0, "x")) == ()
