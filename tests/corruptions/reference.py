"""reference.py: images to corrupt, and what published generators made of them, where these lie beside the checkout."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

DATA = Path(__file__).parents[3] / "shared" / "data"
OUTPUTS = DATA / "corruption-reference"
needs_outputs = pytest.mark.skipif(not OUTPUTS.exists(), reason="needs the reference's outputs beside the checkout")
needs_cifar = pytest.mark.skipif(
    not (OUTPUTS.exists() and (DATA / "cifar100" / "test.npz").exists()),
    reason="needs the reference's statistics and the packed CIFAR-100 beside the checkout",
)
ORDER = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression", "speckle_noise",
    "gaussian_blur", "spatter", "saturate",
)  # fmt: skip
SIDES = (32, 64)


def legacy(name: str, severity: int, index: int) -> np.random.RandomState:
    """The generator that stood behind image `index` of a cell of the reference's outputs."""
    return np.random.RandomState(100_000 * (ORDER.index(name) + 1) + 10_000 * severity + index)


def clean(side: int) -> np.ndarray:
    """(n, side, side, 3) uint8: the reference's clean images."""
    with np.load(OUTPUTS / f"outputs-{side}.npz", allow_pickle=False) as arrays:
        return arrays["clean"]


def corrupted(side: int, name: str, severity: int) -> np.ndarray:
    """(n, side, side, 3) uint8: what the reference made of `clean`."""
    with np.load(OUTPUTS / f"outputs-{side}.npz", allow_pickle=False) as arrays:
        return arrays[f"{name}-{severity}"]


def statistics(name: str, severity: int) -> dict:
    """The reference's figures over the first 1,000 CIFAR-100 test images, in grey levels."""
    return json.loads((OUTPUTS / "statistics-32.json").read_text())[f"{name}/{severity}"]


def cifar(count: int) -> Tensor:
    """(count, 32, 32, 3) uint8: the first CIFAR-100 test images."""
    from PIL import Image

    with np.load(DATA / "cifar100" / "test.npz", allow_pickle=False) as part:
        offsets, blob = part["offsets"], part["webp"]
    ends = list(zip(offsets, offsets[1:], strict=False))[: -(-count // 100)]
    strips = [np.asarray(Image.open(io.BytesIO(blob[a:b].tobytes())))[..., :3] for a, b in ends]
    return torch.from_numpy(np.concatenate(strips).reshape(-1, 32, 32, 3)[:count].copy())


def scenes(count: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """(count, height, width, channels) uint8: smooth slopes, hard edges, flat black and white areas, some noise."""
    rng = np.random.default_rng(height * 1000 + width)
    y, x = np.mgrid[:height, :width][..., None]
    images = np.empty((count, height, width, channels), np.uint8)
    for image in images:
        slopes = rng.uniform(-8, 8, (2, channels))
        values = rng.uniform(0, 255, channels) + slopes[0] * (y - height / 2) + slopes[1] * (x - width / 2)
        values = values + rng.normal(0, rng.choice([0, 0, 12]), values.shape)
        for _ in range(3):
            top, left = rng.integers(0, height - 2), rng.integers(0, width - 2)
            box = np.s_[top : top + rng.integers(1, height), left : left + rng.integers(1, width)]
            values[box] = rng.choice([0.0, 255.0]) if rng.random() < 0.5 else rng.uniform(0, 255, channels)
        image[:] = values.clip(0, 255)
    return images


def digits() -> Tensor:
    """(1797, 8, 8, 1) uint8: scikit-learn's digits."""
    from sklearn.datasets import load_digits

    pixels = np.asarray(load_digits(return_X_y=True)[0])
    return torch.from_numpy(np.round(pixels * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1))


def share_equal(found: Tensor, expected: np.ndarray) -> tuple[float, int, float]:
    """The share of equal bytes, the largest |difference|, the mean signed difference in grey levels."""
    difference = found.numpy().astype(int) - expected.astype(int)
    return float((difference == 0).mean()), int(np.abs(difference).max()), float(difference.mean())


def distances(corrupted: Tensor, clean: Tensor) -> Tensor:
    """(n,) float64: each image's root mean square distance to the clean one, grey levels."""
    return (corrupted.double() - clean.double()).square().flatten(1).mean(1).sqrt()
