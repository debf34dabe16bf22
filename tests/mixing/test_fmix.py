from __future__ import annotations

import numpy as np
import pytest
import torch

from mixcli.errors import UserError
from mixcli.mixing import fmix
from mixcli.sampling import Random
from mixcli.settings import FMix

EACH = pytest.mark.parametrize("variant", ["paper", "reference"])


def masks(settings: FMix, share: float = 0.5, count: int = 3000, size=(32, 32), step: int = 0) -> torch.Tensor:
    return fmix.masks(settings, np.full(count, share), size, Random(0, "mix", step))[0]


def transitions(mask: torch.Tensor) -> tuple[float, float]:
    """Neighbouring unequal pixels along y and along x, per mask."""
    down = (mask[:, :, 1:] != mask[:, :, :-1]).float().sum((1, 2, 3)).mean()
    across = (mask[..., 1:] != mask[..., :-1]).float().sum((1, 2, 3)).mean()
    return float(down), float(across)


@pytest.mark.parametrize(("variant", "down", "across"), [("paper", 50.5, 50.9), ("reference", 41.2, 60.3)])
def test_ledger_3_masks_are_isotropic_unless_the_published_mistake_is_asked_for(variant, down, across):
    found = transitions(masks(FMix(variant=variant)))
    assert abs(found[0] - down) < 1.5 and abs(found[1] - across) < 1.5


def power(field: torch.Tensor) -> torch.Tensor:
    return torch.fft.fft2(field).abs().square().mean(0)


def shares_of_high_frequencies(field: torch.Tensor) -> tuple[float, float]:
    p = power(field)
    p[0, 0] = 0  # the constant moves no edge
    k = torch.fft.fftfreq(p.shape[0]).mul(p.shape[0]).abs()
    return float(p[:, k >= 2].sum() / p.sum()), float(p[k >= 2].sum() / p.sum())


def test_the_spectrum_of_the_paper_has_its_share_of_high_frequencies_on_both_axes():
    across, down = shares_of_high_frequencies(fmix._paper(FMix(), 3000, (32, 32), Random(0, "mix")))
    assert abs(across - 0.019) < 0.002 and abs(across / down - 1) < 0.1


def test_the_published_code_has_no_horizontal_frequency_beyond_one():
    field = fmix._reference(FMix(variant="reference"), 300, (32, 32), Random(0, "mix"))
    across, down = shares_of_high_frequencies(field.double())
    assert across < 1e-12 < down


def amplitudes(size: tuple[int, int], decay: float) -> torch.Tensor:
    """Of the whole grid, written down anew."""
    fy, fx = (torch.fft.fftfreq(side) for side in size)
    return (fy[:, None] ** 2 + fx[None] ** 2).sqrt().clamp(min=1 / max(size)) ** -decay


@pytest.mark.parametrize("size", [(32, 32), (16, 48), (224, 224), (5, 9)])
@pytest.mark.parametrize("decay", [0.0, 1.5, 3.0])
def test_the_frequencies_left_out_hold_less_than_a_ten_thousandth_of_the_variance(size, decay):
    whole = amplitudes(size, decay).double() ** 2
    amplitude, down, across = fmix._waves(size, decay, torch.device("cpu"))
    kept = (amplitude.double() * max(size) ** decay) ** 2
    whole[0, 0] = kept[0, 0] = 0
    assert kept.sum() >= (1 - 1e-4) * whole.sum() * (1 - 1e-6)
    assert decay > 0 or kept.shape == size  # white noise has nothing to leave out
    assert decay < 3 or min(size) < 16 or kept.numel() < 0.4 * whole.numel()


@pytest.mark.parametrize("size", [(6, 8), (5, 4), (1, 7), (2, 3)])
@pytest.mark.parametrize("decay", [0.0, 3.0])
def test_the_field_has_the_covariance_of_the_inverse_transform_of_complex_noise(size, decay):
    """Gaussian both, so this is their whole law: C(d) = sum over the full grid of amplitude^2 cos(2 pi f d)."""
    amplitude, down, across = (a.double() for a in fmix._waves(size, decay, torch.device("cpu")))
    field = torch.einsum("yi,ij,jx->yxij", down, amplitude, across).reshape(size[0] * size[1], -1)
    y, x = (torch.arange(side, dtype=torch.float64) for side in size)
    apart = torch.fft.ifft2(amplitudes(size, decay).double() ** 2, norm="forward").real
    dy = (y[:, None, None, None] - y[:, None]).long() % size[0]
    dx = (x[:, None, None] - x).long() % size[1]
    expected = apart[dy, dx].reshape(len(field), -1) * max(size) ** (-2 * decay)
    assert torch.allclose(field @ field.T, expected, rtol=0, atol=2e-4 * float(expected.max()))


def test_the_edge_is_the_value_of_its_rank_in_each_row():
    field = torch.randn(40, 63, generator=torch.Generator().manual_seed(0))
    rank = torch.randint(0, 63, (40, 1), generator=torch.Generator().manual_seed(1))
    expected = field.sort(1).values.gather(1, rank)
    assert torch.equal(fmix._of_rank(field, rank), expected)
    assert torch.equal(fmix._selected(field, rank), expected)


def test_as_many_pixels_are_kept_as_are_asked_for():
    kept = np.array([0, 1, 31, 62, 63])
    field = torch.randn(5, 63, generator=torch.Generator().manual_seed(0))
    assert fmix._highest(field, kept, Random(0, "mix")).sum(1).tolist() == kept.tolist()


def test_ledger_4_both_axes_have_equal_power_where_the_other_frequency_is_zero():
    p = power(fmix._paper(FMix(), 3000, (32, 32), Random(0, "mix")))
    p[0, 0] = 0
    assert abs(float(p[:, 0].sum() / p[0].sum()) - 1) < 0.1
    half = torch.fft.irfft2(torch.view_as_complex(Random(0, "h").field((3000, 32, 17, 2), "normal"))
                            * amplitudes((32, 32), 3.0)[:, :17], s=(32, 32))  # fmt: skip
    q = power(half)
    assert float(q[1:, 0].sum() / q[0, 1:].sum()) < 0.6  # the obvious repair fails this law


def test_s10_the_spectrum_falls_by_its_decay():
    p = power(fmix._paper(FMix(), 500, (64, 64), Random(0, "mix"))).sqrt()
    f = torch.fft.fftfreq(64)
    radius = (f[:, None] ** 2 + f[None] ** 2).sqrt().flatten()
    inside = (radius > 1.5 / 64) & (radius < 7 / 64)  # far beyond, frequencies are left out
    slope = np.polyfit(radius[inside].log().numpy(), p.flatten()[inside].log().numpy(), 1)[0]
    assert abs(slope + 3) < 0.1


@EACH
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_no_share_and_the_whole_share_give_constant_masks(variant, share):
    assert (masks(FMix(variant=variant), share, 20) == share).all()


def test_m16_the_area_is_the_share_within_a_pixel_and_unbiased():
    found = masks(FMix(), 0.3333, 3000, (9, 7)).mean((1, 2, 3), dtype=torch.float64)
    assert (found - 0.3333).abs().max() <= 1 / 63 and abs(float(found.mean()) - 0.3333) < 0.0005


def test_softness_fades_the_edge_and_is_capped_by_the_smaller_share():
    soft = masks(FMix(softness=0.2), 0.5, 50)
    between = ((soft > 0) & (soft < 1)).float().mean((1, 2, 3))
    assert (between - 0.4).abs().max() < 0.005 and (soft.mean((1, 2, 3)) - 0.5).abs().max() < 2 / 1024
    assert (masks(FMix(softness=0.5), 0.9, 50).mean((1, 2, 3)) - 0.9).abs().max() < 2 / 1024


@pytest.mark.parametrize("size", [(48, 48), (224, 224), (5, 9), (1, 7), (1, 1)])
def test_ledger_11_any_size_under_autocast(size):
    with torch.autocast("cpu", torch.bfloat16):
        mask = masks(FMix(), 0.5, 3, size)
    assert mask.dtype == torch.float32 and mask.shape == (3, 1, *size)


def test_the_published_code_takes_even_widths_only():
    with pytest.raises(UserError, match="even widths"):
        masks(FMix(variant="reference"), 0.5, 2, (8, 9))


def test_ledger_6_every_option_changes_the_masks():
    plain = masks(FMix(), 0.5, 20)
    for changed in (FMix(decay=2.0), FMix(softness=0.1), FMix(variant="reference")):
        assert not torch.equal(plain, masks(changed, 0.5, 20))


@pytest.mark.parametrize("size", [(8, 64), (64, 8), (7, 224), (2, 64), (3, 40), (1, 16)], ids=str)
def test_the_area_is_the_share_on_long_images_too(size):
    area = fmix.masks(FMix(), np.full(2000, 0.37), size, Random(0, "mix")).keep.mean((1, 2, 3), dtype=torch.float64)
    pixels = size[0] * size[1]
    assert (area - 0.37).abs().max() <= 1 / pixels
    assert abs(float(area.mean()) - 0.37) < 0.05 / pixels
