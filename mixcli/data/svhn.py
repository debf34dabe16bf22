"""svhn.py: SVHN's cropped digits (Netzer et al. 2011) in their official MATLAB files.

Each file is compared with its published sum before it is opened. X is (32, 32, 3, N); the label 10 means the digit 0.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from mixcli.errors import UserError

FOLDER = "svhn"
TRAIN, TEST = "train_32x32.mat", "test_32x32.mat"
SUMS = {TRAIN: "e26dedcc434d2e4c54c9b2d4a06d8373", TEST: "eb5a983be6a315427106f1b164d9cef3"}
CLASSES = tuple(str(digit) for digit in range(10))


def verify(folder: Path) -> None:
    """Raises UserError unless both files are in `folder` and have their published sums."""
    for file in SUMS:
        _content(folder, file)


def part(folder: Path, file: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) int64 of a file. Raises UserError for one that is damaged."""
    from scipy.io import loadmat

    content = _content(folder, file)
    try:
        found = loadmat(io.BytesIO(content), variable_names=["X", "y"])
        pixels, labels = found["X"], found["y"].reshape(-1)
        if pixels.dtype != np.uint8 or pixels.shape != (32, 32, 3, len(labels)):
            raise ValueError(f"X is {pixels.dtype} {pixels.shape}")
    except Exception as error:  # a damaged file may raise anything
        raise UserError("data_corrupt", file, f"not SVHN's cropped digits ({error})") from None
    return np.ascontiguousarray(pixels.transpose(3, 0, 1, 2)), labels.astype(np.int64) % 10


def _content(folder: Path, file: str) -> bytes:
    """The bytes of a file, compared with its published sum."""
    try:
        content = (folder / file).read_bytes()
    except OSError as error:
        reason = (error.strerror or "not readable").lower()
        raise UserError("data_missing", file, f"cannot be read in {folder.name} ({reason})") from None
    got = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if got != SUMS[file]:
        raise UserError("data_corrupt", file, "not the published file", got=f"md5 {got}", expected=SUMS[file],
                        hint="Fetch it again")  # fmt: skip
    return content
