"""Keyed draws have the reference's distribution: images of ours and of the reference, from equal clean ones, exchanged.

Per image: the power of the residual in eight radial bands, its size and mean, how alike neighbours and channels are,
the shares of black and white. If both come from one law, exchanging ours and the reference's of any image changes
nothing: a permutation test over images, its statistic the largest standardised mean difference over all figures.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from mixcli.corruptions import catalogue
from mixcli.corruptions.catalogue import SEVERITIES
from mixcli.corruptions.keyed import Keys
from mixcli.corruptions.parameters import PARAMETERS
from mixcli.studies.significance import holm
from tests.corruptions import exactness, reference

DRAWN = ("gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow", "fog",
         "elastic_transform", "speckle_noise", "spatter")  # fmt: skip
CELLS, BANDS, EXCHANGES, MARGIN = 95, 8, 9_999, 0.02


def keyed(name, severity, clean, seed=0, scale=1.0):
    """Ours for these clean images; `scale` multiplies the parameter, to be wrong on purpose."""
    images = torch.from_numpy(clean)
    draws = catalogue.draws(name, severity, clean.shape[1:], Keys(seed, torch.arange(len(clean))))
    parameters = PARAMETERS[name][str(clean.shape[1])][severity - 1]
    return catalogue.CORRUPTIONS[name].apply(images, parameters if scale == 1 else parameters * scale, draws).numpy()


def figures(corrupted, clean):
    """(n, figures) float64."""
    residual = corrupted.astype(float) - clean
    side = residual.shape[1]
    power = (np.abs(np.fft.fft2(residual, axes=(1, 2))) ** 2).mean(3)
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    edges = np.linspace(0, 0.5, BANDS + 1)
    edges[-1] = 1  # the corners belong to the last band
    rings = [(radius >= low) & (radius < high) for low, high in zip(edges, edges[1:], strict=False)]
    bands = np.log(np.stack([power[:, ring].mean(1) for ring in rings], 1) + 1e-3)
    centred = residual - residual.mean((1, 2), keepdims=True)
    energy = (centred**2).mean((1, 2, 3)) + 1e-9
    lags = [(a * b).mean((1, 2, 3)) / energy for a, b in ((centred[:, 1:], centred[:, :-1]),
                                                          (centred[:, :, 1:], centred[:, :, :-1]))]  # fmt: skip
    alike = [(centred[..., i] * centred[..., j]).mean((1, 2)) / energy for i, j in ((0, 1), (0, 2), (1, 2))]
    ends = [(corrupted == value).mean((1, 2, 3)) for value in (0, 255)]
    size = np.sqrt((residual**2).mean((1, 2, 3)))
    return np.column_stack([bands, size, residual.mean((1, 2)), *lags, *alike, *ends])


def exchange_p(ours, theirs, seed=0):
    """The permutation test's p of two (n, figures)."""
    difference = ours - theirs
    spread = np.sqrt((difference**2).sum(0))
    used = difference[:, spread > 0] / spread[spread > 0]
    if used.shape[1] == 0:
        return 1.0
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), (EXCHANGES, len(used)))
    exchanged = np.abs(signs @ used).max(1)
    return (1 + (exchanged >= np.abs(used.sum(0)).max() - 1e-12).sum()) / (EXCHANGES + 1)


def over_all_cells(p):
    """Holm over all 95 cells; those not drawn are held to the reference byte by byte elsewhere."""
    return holm([*p, *[1.0] * (CELLS - len(p))])[: len(p)]


def check(side, seed):
    clean = reference.clean(side)
    cells = [(name, severity) for name in DRAWN for severity in SEVERITIES]
    exchanged, sizes = [], []
    for name, severity in cells:
        ours, theirs = keyed(name, severity, clean, seed), reference.corrupted(side, name, severity)
        exchanged.append(exchange_p(figures(ours, clean), figures(theirs, clean), seed))
        of_both = [reference.distances(torch.from_numpy(x), torch.from_numpy(clean)).numpy() for x in (ours, theirs)]
        sizes.append(ks_2samp(*of_both).pvalue)  # type: ignore[attr-defined]
    for test, p in (("exchange", exchanged), ("KS of the RMSE", sizes)):
        adjusted = dict(zip(cells, over_all_cells(p), strict=True))
        assert min(adjusted.values()) > 0.05, (test, min(adjusted, key=adjusted.__getitem__))


@reference.needs_outputs
def test_keyed_images_can_be_exchanged_for_the_references():
    check(32, seed=0)


@pytest.mark.stress
@reference.needs_outputs
@pytest.mark.parametrize(("side", "seed"), [(64, 0), (64, 1), (32, 1), (32, 2), (32, 3)])
def test_keyed_images_of_other_seeds_and_sizes_can_be_exchanged_for_the_references(side, seed):
    check(side, seed)


@reference.needs_outputs
@pytest.mark.parametrize("name", ["gaussian_noise", "speckle_noise"])
@pytest.mark.parametrize("scale", [0.9, 1.1])
def test_a_sigma_wrong_by_a_tenth_fails_the_exchange_and_the_margin_at_every_severity(name, scale):
    clean = reference.clean(32)
    for severity in SEVERITIES:
        ours, theirs = keyed(name, severity, clean, scale=scale), reference.corrupted(32, name, severity)
        assert over_all_cells([exchange_p(figures(ours, clean), figures(theirs, clean))])[0] < 0.05
        size = [np.sqrt(((x.astype(float) - clean) ** 2).mean()) for x in (ours, theirs)]
        assert abs(size[0] / size[1] - 1) > MARGIN


@pytest.mark.stress
@reference.needs_cifar
@pytest.mark.parametrize("name", DRAWN)
def test_the_rmse_is_the_references_within_2_percent(name):
    """Over its 1,000 images, five generator seeds of ours together."""
    clean = reference.cifar(1000)
    for severity in SEVERITIES:
        found = [keyed(name, severity, clean.numpy(), seed) for seed in range(5)]
        size = np.mean([reference.distances(torch.from_numpy(x), clean).mean() for x in found])
        assert abs(size / reference.statistics(name, severity)["rmse_mean"] - 1) < MARGIN, severity


@pytest.mark.stress
@reference.needs_outputs
def test_the_table_of_equal_shares_has_every_cell_and_none_below_99_8_percent():
    found = list(exactness.rows())
    assert len(found) == 2 * 17
    assert min(share for _, _, cells in found for share, _ in cells) > 0.998
