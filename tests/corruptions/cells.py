"""cells.py: cells made with keyed draws, and laws that hold for each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mixcli.corruptions import catalogue
from mixcli.corruptions.keyed import Keys
from mixcli.corruptions.pixels import Draws, _no_draws
from tests.corruptions import reference


def drawn(name: str, severity: int, images: Tensor, indices: Tensor | None = None) -> Draws:
    """The keyed draws for images whose places in the test set are `indices`, by default 0, 1, 2, ..."""
    indices = torch.arange(len(images)) if indices is None else indices
    return catalogue.draws(name, severity, tuple(images.shape[1:]), Keys(0, indices))


def generated(name: str, severity: int, images: Tensor, indices: Tensor | None = None) -> Tensor:
    return catalogue.corrupt(name, images, severity, drawn(name, severity, images, indices))


def neighbours(corrupted: Tensor, clean: Tensor) -> np.ndarray:
    """(2,): correlation of the residual, each image's and channel's mean taken out, with the next row and column."""
    residual = corrupted.double() - clean.double()
    residual = residual - residual.mean((1, 2), keepdim=True)
    rows, columns = residual[:, 1:] * residual[:, :-1], residual[:, :, 1:] * residual[:, :, :-1]
    return np.array([float(products.mean() / residual.square().mean()) for products in (rows, columns)])


def channels(corrupted: Tensor, clean: Tensor) -> np.ndarray:
    """(3,): correlations of the residual, R-G, R-B, G-B."""
    matrix = np.corrcoef((corrupted.double() - clean.double()).view(-1, 3).T.numpy())
    return matrix[[0, 0, 1], [1, 2, 2]]


def check_against_the_loop(
    slow: Callable[..., np.ndarray], name: str, shape: tuple[int, ...], severities: Sequence[int] = catalogue.SEVERITIES
) -> None:
    """Every byte is that of `slow`, which corrupts one image by the cell's parameters and that image's draws."""
    images = reference.scenes(*shape)
    for severity in severities:
        draws = drawn(name, severity, torch.from_numpy(images))
        found = catalogue.corrupt(name, torch.from_numpy(images), severity, draws).numpy()
        parameters = catalogue.parameters(name, severity, shape[1:])
        for index, image in enumerate(images):
            random = {key: values[index].numpy() for key, values in draws.items()}
            assert (found[index] != slow(image, parameters, random)).sum() == 0, (name, severity, index)


def check_growth(name: str, images: Tensor) -> None:
    """The root mean square distance to the clean images grows from severity to severity."""
    distances = [
        float((generated(name, severity, images).double() - images.double()).square().mean().sqrt())
        for severity in catalogue.SEVERITIES
    ]
    assert all(a < b for a, b in zip([0, *distances], distances, strict=False)), distances


def check_reference(name: str, clean: np.ndarray, side: int, draws: dict[int, Draws], gate: float, mean: float) -> None:
    """With the reference's draws, by severity: at least `gate` of the bytes are its own, none is off by more than 1."""
    for severity in catalogue.SEVERITIES:
        found = catalogue.corrupt(name, torch.from_numpy(clean), severity, draws[severity])
        equal, worst, shift = reference.share_equal(found, reference.corrupted(side, name, severity))
        assert equal >= gate and worst <= 1 and abs(shift) <= mean, (name, side, severity, equal, worst, shift)


def check_statistics(name: str, clean: Tensor, rmse: float, lag: float, correlation: float) -> None:
    """Keyed draws have the reference's statistics: those of distances within the share `rmse`, shifts within errors."""
    for severity in catalogue.SEVERITIES:
        expected, found = reference.statistics(name, severity), generated(name, severity, clean)
        distance = reference.distances(found, clean)
        assert abs(distance.mean() / expected["rmse_mean"] - 1) < rmse, (severity, "rmse")
        assert abs(distance.std() / expected["rmse_sd"] - 1) < 5 * rmse, (severity, "spread of rmse")
        shifts = (found.double() - clean.double()).mean((1, 2))
        errors = (2 / len(clean)) ** 0.5 * shifts.std(0) if catalogue.CORRUPTIONS[name].draw is not _no_draws else 0
        assert ((shifts.mean(0) - torch.tensor(expected["mean_shift"])).abs() < 4 * errors + 2e-4).all(), severity
        lags = [expected["lag1_rows"], expected["lag1_columns"]]
        assert np.abs(neighbours(found, clean) - lags).max() < lag, (severity, "neighbours")
        assert np.abs(channels(found, clean) - expected["channel_correlation"]).max() < correlation, (
            severity,
            "channels",
        )
        for value, share in ((0, "share_0"), (255, "share_255")):
            assert abs((found == value).double().mean() - expected[share]) < max(0.1 * rmse, 1e-6), (severity, share)
