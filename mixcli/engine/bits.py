"""bits.py: which test images a finished run gets right, a bit each, for whoever compares two runs image by image.

No module of torch's is needed to read them.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from mixcli.errors import UserError
from mixcli.files import write_atomic


def write(path: Path, correct: np.ndarray, digest: str) -> None:
    """Saves the outcome of the last evaluation and the digest of the images it saw; equal outcomes give equal bytes.

    correct  (images,) bool, in the order of the split
    """
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, correct=np.packbits(correct), images=len(correct), digest=digest)
    write_atomic(path, packed.getvalue())


def read(path: Path) -> tuple[np.ndarray, str]:
    """What `write` saved: (images,) bool, and the digest of the images. Raises UserError (data_*)."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as saved:
            images, packed, digest = int(saved["images"]), saved["correct"], str(saved["digest"])
        if packed.dtype != np.uint8 or packed.shape != (-(-images // 8),):
            raise ValueError("its sizes contradict")
    except FileNotFoundError:
        raise UserError("data_missing", str(path), "not found", hint="The run was made by an older version") from None
    except Exception as error:  # zipfile and numpy raise many types on hostile bytes
        raise UserError("data_corrupt", str(path), "damaged, or not what a run leaves") from error
    return np.unpackbits(packed, count=images).astype(bool), digest
