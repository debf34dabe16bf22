"""contact_sheet.py: what a mixing does to real images, to be looked at, and the figures of its draws.

Everything is drawn as in training, keyed by the seed; a sheet shows test images as they are, without augmentation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mixcli.data import sources
from mixcli.errors import UserError
from mixcli.methods.supervised import draw
from mixcli.mix import Context, Mix
from mixcli.sampling import Random
from mixcli.settings import Mixing, Train

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Sheet:
    """A batch, its masks and what became of it.

    originals, mixed  (B, C, H, W) float32 in [0, 1]
    own               (B, 1, H, W) float32, weight of the image itself
    ratio             (B,) float32, its mean over pixels
    """

    title: str
    originals: Tensor
    own: Tensor
    mixed: Tensor
    ratio: Tensor


def sheet(train: Train, images: int) -> Sheet:
    """One batch of the first `images` test images, mixed as the settings say. Raises UserError for other methods."""
    mixing, test = _mixing(train), sources.load(train).test
    if images > len(test):
        raise UserError("config", "--images", "more than the test split has", got=images, expected=f"1 … {len(test)}")
    pixels = torch.from_numpy(test.images[:images]).permute(0, 3, 1, 2).float() / 255
    mix = _drawn(mixing, train, test.labels[:images], tuple(pixels.shape[2:]), 0)
    return Sheet(mixing.label(), pixels, _own(mix).expand(-1, 1, *pixels.shape[2:]), mix.images(pixels), mix.ratio[0])


def statistics(train: Train, batches: int = 100, batch: int = 128) -> dict[str, object]:
    """Figures of many draws for the data set's own labels and image size.

    drawn, realised   nominal and actual share of the image itself: mean, deviation, quantiles; None where none is drawn
    untouched         share of images that keep all of their pixels
    same_class        share of images whose partner has their label, themselves included
    mask_diversity    mean absolute difference between the masks of two images of one batch
    """
    mixing, split = _mixing(train), sources.load(train).train
    rows = [Random(train.seed, "show/rows", step).host.integers(0, len(split), batch) for step in range(batches)]
    size = (split.images.shape[1], split.images.shape[2])
    mixes = [_drawn(mixing, train, split.labels[r], size, step) for step, r in enumerate(rows)]
    partner = np.concatenate([split.labels[r][m.source[1].numpy()] for r, m in zip(rows, mixes, strict=True)])
    realised = torch.cat([m.ratio[0] for m in mixes]).double()
    different = [(_own(m) - _own(m).roll(1, 0)).abs().mean() for m in mixes]
    return {
        "images": batches * batch,
        "drawn": _moments(torch.cat([m.drawn for m in mixes if m.drawn is not None])),
        "realised": _moments(realised),
        "untouched": float((realised == 1).double().mean()),
        "same_class": float((partner == split.labels[np.concatenate(rows)]).mean()),
        "mask_diversity": float(torch.stack(different).mean()),
    }


def _mixing(train: Train) -> Mixing:
    if not isinstance(train.method, Mixing):
        raise UserError(
            "usage", "show", "draws mixings of images", got=train.method.name, hint="See mixcli list mixings"
        )
    return train.method


def _drawn(mixing: Mixing, train: Train, labels: np.ndarray, size: tuple[int, ...], step: int) -> Mix:
    context = Context((len(labels), size[0], size[1]), labels, int(labels.max()) + 1)
    return draw(mixing, context, Random(train.seed, "mix", step))


def _own(mix: Mix) -> Tensor:
    """Weight of the image itself, (B, 1, H or 1, W or 1)."""
    own = mix.keep if mix.weight is None else mix.weight[0]
    assert own is not None
    return own


def _moments(values: Tensor) -> dict[str, float] | None:
    if values.isnan().all():
        return None
    quantiles = torch.quantile(values, torch.tensor(QUANTILES, dtype=values.dtype))
    named = {f"q{round(100 * q):02d}": float(v) for q, v in zip(QUANTILES, quantiles, strict=True)}
    return {"mean": float(values.mean()), "deviation": float(values.std()), **named}
