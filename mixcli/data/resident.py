"""resident.py: a data set that lives on the training device and is augmented there.

CIFAR-100 with its padding is 240 MB: all of it stays on the device as uint8, and a view of a batch is a handful of
operations on the whole batch, with no worker processes and no copy from the host but the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mixcli.data import augment, operations, resized
from mixcli.data.augment import Augmentation, Draw
from mixcli.mix import SECOND
from mixcli.sampling import Random


class Resident:
    """The images of one split on `device`, ready to be viewed.

    images        (N, H, W, C) uint8
    labels        (N,) int64, kept on the host, where the order of an epoch and the pairing of a mixing need them
    mean, std     per channel, of pixels in [0, 1]
    augmentation  the training view

    Raises UserError where the images are too small for the padding.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        augmentation: Augmentation,
        device: torch.device,
    ):
        self.labels = labels
        self.augmentation = augmentation
        self.size: tuple[int, int] = images.shape[1:3]
        self._padded = augment.padded(images, augmentation).to(device)
        self._mean, self._std = (
            torch.tensor(v, dtype=torch.float32, device=device).view(-1, 1, 1) for v in (mean, std)
        )

    def __len__(self) -> int:
        return len(self.labels)

    def view(self, rows: Tensor, degree: float, random: Random) -> Tensor:
        """The images of `rows` (B,) int64 on the device, augmented and normalised: (B, C, H, W) float32.

        degree  strength of the augmentation: 1 is the training view, 0 the clean image, bit for bit
        random  keyed by the step, on the same device; nothing here waits for the device
        """
        return self.views(rows, [(degree, random)])

    def views(self, rows: Tensor, asked: Sequence[tuple[float, Random]]) -> Tensor:
        """A view for each degree and random, below each other, (V*B, C, H, W) float32; see `view`."""
        seen = [self._augmented(rows, degree, random) for degree, random in asked]
        return augment.normalised(seen[0] if len(seen) == 1 else torch.cat(seen), self._mean, self._std)

    def training_views(
        self, rows: Tensor, degrees: Mapping[str, float], random: Random, layout: torch.memory_format
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The images as a Batch has them: its `rows`, the training view first, and its further `views` by name."""
        names = sorted(degrees, key=lambda name: name != SECOND)
        asked = [(1.0, random), *((degrees[name], random.child(name)) for name in names)]
        seen = self.views(rows, asked).contiguous(memory_format=layout)
        mixed = len(rows) * (2 if SECOND in degrees else 1)
        others = [name for name in names if name != SECOND]
        return seen[:mixed], dict(zip(others, seen[mixed:].split(len(rows)), strict=True)) if others else {}

    def _augmented(self, rows: Tensor, degree: float, random: Random) -> Tensor:
        """(B, C, H, W) uint8."""
        draw = self.augmentation.draw(len(rows), self.size, degree, random)
        images = self._cropped(rows, draw)
        if draw.mirror is not None:
            images = augment.mirrored(images, draw.mirror)
        for turn in draw.turns:
            images = operations.applied(images, turn)
        if draw.side > 0:
            images = augment.cut(images, draw.row, draw.column, draw.side)
        return images

    def _cropped(self, rows: Tensor, draw: Draw) -> Tensor:
        """(B, C, H, W) uint8: the part of each image that is seen, at the image's size."""
        windows = self.augmentation.resized
        if draw.window is None or windows is None:
            return augment.crop(self._padded, rows, draw.top, draw.left, self.size)
        return resized.crop(self._padded.index_select(0, rows), draw.window, windows.filter)

    def clean(self, start: int, stop: int) -> Tensor:
        """The images start .. stop - 1 as they are, normalised: (B, C, H, W) float32; for evaluation."""
        pad, (height, width) = self.augmentation.pad, self.size
        images = self._padded[start:stop, :, pad : pad + height, pad : pad + width]
        return augment.normalised(images, self._mean, self._std)
