from __future__ import annotations

import numpy as np
import pytest
import torch

from mixcli.errors import UserError
from mixcli.mix import Context
from mixcli.mixing import gridmix
from mixcli.sampling import Random
from mixcli.settings import GridMix


def masks(settings: GridMix, share: np.ndarray, size=(32, 32), step: int = 0) -> torch.Tensor:
    return gridmix.masks(settings, share, size, Random(0, "mix", step))[0]


def test_the_partners_mean_share_is_the_computed_one():
    context = Context((500, 32, 32), np.zeros(500, np.int64), 10)
    found = [gridmix.draw(GridMix(per="sample"), context, Random(0, "mix", s)).ratio[1] for s in range(40)]
    assert abs(float(torch.cat(found).mean()) - 0.371) < 0.006


@pytest.mark.parametrize(("share", "expected"), [(0.25, 0.197), (0.5, 0.389), (0.75, 0.523)])
def test_a_nominal_share_gives_the_computed_one(share, expected):
    assert abs(float(1 - masks(GridMix(), np.full(20_000, 1 - share)).mean()) - expected) < 0.006


@pytest.mark.parametrize("size", [(16, 48), (5, 9), (1, 7)])
def test_ledger_7_masks_equal_a_loop_over_pixels_and_no_hole_leaves_the_crop(size):
    share = np.linspace(0, 1, 12)
    keep = masks(GridMix(), share, size)
    grids = np.vstack(gridmix.grids(GridMix(), share, size, Random(0, "mix")))
    for mask, (top, left, height, width, patch, hole) in zip(keep[:, 0], grids.T, strict=True):
        for y in range(size[0]):
            for x in range(size[1]):
                inside = top <= y < top + height and left <= x < left + width
                in_hole = inside and (y - top) % patch < hole and (x - left) % patch < hole
                assert mask[y, x] == (0 if in_hole else 1)
        assert top + height <= size[0] and left + width <= size[1] and 0 <= hole <= patch


def test_ledger_6_every_option_changes_the_masks():
    share = np.full(20, 0.5)
    plain = masks(GridMix(), share)
    for changed in (GridMix(cells=(8, 16)), GridMix(area=(0.4, 0.6)), GridMix(aspect=(1.0, 1.0))):
        assert not torch.equal(plain, masks(changed, share))


@pytest.mark.parametrize("key", ["cells", "area", "aspect"])
def test_a_range_that_falls_is_refused(key):
    with pytest.raises(UserError, match="above the second"):
        GridMix(**{key: (6, 2) if key == "cells" else (0.9, 0.5)})
