from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from mixcli.errors import UserError
from mixcli.mix import Context, Mix
from mixcli.mixing import cutmix
from mixcli.sampling import Random, beta
from mixcli.settings import CutMix


def masks(settings: CutMix, height: int = 32, width: int = 32, batches: int = 40, batch: int = 500):
    context = Context((batch, height, width), np.zeros(batch, np.int64), 10)
    return [cutmix.draw(settings, context, Random(0, "mix", step)) for step in range(batches)]


@pytest.mark.parametrize(
    ("alpha", "ratio", "minority", "empty"),
    [(0.2, 0.723, 0.209, 0.173), (1.0, 0.701, 0.145, 0.004), (2.0, 0.694, 0.113, 0.000)],
)
def test_ledger_1_clipped_boxes_have_the_published_law(alpha, ratio, minority, empty):
    found = torch.cat([m.ratio[0] for m in masks(CutMix(alpha=alpha, per="sample"))]).double()
    assert abs(found.mean() - ratio) < 0.006
    assert abs((found < 0.5).double().mean() - minority) < 0.01
    assert abs((found == 1).double().mean() - empty) < 0.01


def test_inside_keeps_the_ratio_beta_distributed():
    found = masks(CutMix(box="inside", per="sample"))
    ratio, drawn = torch.cat([m.ratio[0] for m in found]), torch.cat([m.drawn for m in found])
    assert abs(ratio.mean() - 0.5) < 0.01 and (ratio - drawn).abs().max() <= 0.035


def test_minmax_has_the_published_moments():
    ratio = torch.cat([m.ratio[0] for m in masks(CutMix(box="minmax", per="sample"))]).double()
    assert abs(ratio.mean() - 0.750) < 0.004 and abs(ratio.std() - 0.126) < 0.004
    assert abs((ratio < 0.5).double().mean() - 0.044) < 0.006
    assert ratio.min() >= 1 - (26 / 32) ** 2 and ratio.max() <= 1 - (6 / 32) ** 2  # sides of 6 to 26 pixels


@pytest.mark.parametrize("box", ["inside", "minmax"])
def test_ledger_19_every_pixel_is_covered(box):
    covered = torch.stack([1 - m.keep.mean(0) for m in masks(CutMix(box=box, per="sample"), 9, 7)]).mean(0)
    assert covered.min() > 0
    assert torch.allclose(covered, covered.flip(-1), atol=0.02) and torch.allclose(covered, covered.flip(-2), atol=0.02)


def test_clipped_boxes_cover_the_first_and_the_last_row_unequally():
    rows = torch.cat([(m.keep == 0).any(3).float() for m in masks(CutMix(per="sample"))]).mean(0)[0]
    assert abs(rows[0] - 0.349) < 0.012 and abs(rows[31] - 0.317) < 0.012


@pytest.mark.parametrize("box", ["clipped", "inside", "minmax"])
def test_masks_equal_a_loop_over_pixels(box):
    settings, random = CutMix(box=box, per="sample"), Random(3, "mix")
    context = Context((16, 5, 9), np.zeros(16, np.int64), 10)
    keep = cutmix.draw(settings, context, random).keep
    rng = Random(3, "mix").host
    rng.random(16), rng.permutation(16)  # whether to mix, and with whom, come first
    share = beta(rng, 1.0, 16)
    boxes, _ = cutmix.BOXES[box](share, 5, 9, rng)
    for image, (top, left, bottom, right) in enumerate(boxes.T):
        for y in range(5):
            for x in range(9):
                assert keep[image, 0, y, x] == (0 if top <= y < bottom and left <= x < right else 1)


def test_ledger_7_an_all_0_and_an_all_1_image_show_the_mask_on_16_by_48():
    context = Context((2, 16, 48), np.zeros(2, np.int64), 10)
    mix = cutmix.draw(CutMix(per="sample", pairing="derangement"), context, Random(0, "mix"))
    x = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 16, 48)
    assert torch.equal(mix.images(x)[0], (1 - mix.keep[0]).expand(3, 16, 48))


def test_ledger_18_centres_of_different_images_are_uncorrelated():
    context = Context((2, 32, 32), np.zeros(2, np.int64), 10)
    settings = CutMix(box="minmax", per="sample")
    where = torch.arange(32.0)
    centres = []
    for step in range(1500):
        hole = 1 - cutmix.draw(settings, context, Random(0, "mix", step)).keep[:, 0]
        centres.append((hole * where).sum((1, 2)) / hole.sum((1, 2)))
    assert abs(np.corrcoef(torch.stack(centres).T.numpy())[0, 1]) < 0.1


def test_minmax_refuses_alpha():
    with pytest.raises(UserError, match="alpha"):
        CutMix(box="minmax", alpha=1.0)


@pytest.mark.parametrize(("rows", "columns"), [((2, 6), (1, 9)), ((0, 7), (0, 9)), ((0, 0), (0, 0)), ((6, 7), (8, 9))])
def test_one_box_for_the_batch_is_pasted_with_the_bits_of_a_choice_by_pixel(rows, columns):
    images = torch.randn(4, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    images[1, :, 3] = torch.nan
    keep, box = torch.ones(1, 1, 7, 9), (slice(*rows), slice(*columns))
    keep[:, :, *box] = 0
    mix = Mix(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]), keep=keep.expand(4, -1, -1, -1), form="binary", box=box)
    expected = torch.where(keep == 1, images, images[mix.source[1]])
    assert torch.equal(mix.images(images).view(torch.int32), expected.view(torch.int32))
    assert torch.equal(mix.ratio, replace(mix, box=None).ratio)


def test_a_partner_that_is_none_of_the_rows_is_told_where_a_box_is_pasted():
    mix = cutmix.draw(CutMix(box="minmax"), Context((4, 8, 8), None, 4), Random(0, "mix"))
    with pytest.raises(ValueError, match="4 rows: is a second view missing"):
        replace(mix, source=mix.source + 4).images(torch.rand(4, 3, 8, 8))


def test_one_compiled_graph_serves_every_box():
    images, labels, counter = torch.rand(4, 3, 16, 16), torch.arange(4), CompileCounter()
    mixed = torch.compile(lambda mix: (mix.images(images), mix.targets(labels, 4)), backend=counter, fullgraph=True)
    for step in range(3):
        mix = cutmix.draw(CutMix(per="batch"), Context((4, 16, 16), None, 4), Random(0, "mix", step))
        for found, expected in zip(mixed(mix), (mix.images(images), mix.targets(labels, 4)), strict=True):
            assert torch.equal(found, expected)
    assert counter.frame_count == 1
