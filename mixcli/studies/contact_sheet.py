"""contact_sheet.py: what mixings and corruptions do to real images, to be looked at, and the figures of mixings' draws.

Everything is drawn as in training and in the benchmark, keyed by the seed; a sheet shows test images as they are,
without augmentation, but for a second view that the mixing asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from mixcli.corruptions.catalogue import SEVERITIES, SUBSTITUTES
from mixcli.corruptions.generated import Generated, offer, textures
from mixcli.corruptions.parameters import FAMILIES
from mixcli.data import sources
from mixcli.data.augment import training_view
from mixcli.data.resident import Resident
from mixcli.errors import UserError
from mixcli.methods.supervised import draw, needs
from mixcli.mix import Context, Mix
from mixcli.recipe import Train
from mixcli.sampling import Random
from mixcli.settings import Mixing

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST = 64  # images on a sheet: laying out many more takes minutes, and nobody can look at them


@dataclass(frozen=True)
class Sheet:
    """A batch, its masks and what became of it.

    originals, mixed  (B, C, H, W) float32 in [0, 1]
    partners          (K-1, B, C, H, W), whole: a mixing that moves what it takes has not moved it yet
    own               (B, 1, H, W) float32, weight of the image itself
    ratio             (B,) float32, its mean over pixels
    """

    title: str
    originals: Tensor
    partners: Tensor
    own: Tensor
    mixed: Tensor
    ratio: Tensor


def per_image(train: Train) -> Train:
    """A mask for each image where the mixing can: one for all of them may show nothing."""
    field = type(train.method).model_fields.get("per")
    if field is None or "sample" not in get_args(field.annotation):
        return train
    return train.model_copy(update={"method": train.method.model_copy(update={"per": "sample"})})


def sheet(train: Train, images: int) -> Sheet:
    """One batch of the first `images` test images, mixed as the settings say. Raises UserError for other methods."""
    mixing, test = _mixing(train), sources.load(train).test
    most = min(MOST, len(test))
    if images > most:
        raise UserError("config", "--images", "more than a sheet holds", got=images, expected=f"1 … {most}")
    rows = _views(train, mixing, test, images)
    pixels, size = rows[:images], rows.shape[2:]
    mix = _drawn(mixing, train, test.labels[:images], tuple(size), 0)
    own = _own(mix).expand(-1, 1, *size)
    return Sheet(mixing.label(), pixels, rows[mix.source[1:]], own, mix.images(rows.clone()), mix.ratio[0])


@dataclass(frozen=True)
class CorruptionSheet:
    """One image under every corruption of its size.

    clean   (H, W, C) uint8
    images  name -> (5, H, W, C) uint8, severity 1 first; in the order of the families
    """

    title: str
    clean: np.ndarray
    images: dict[str, np.ndarray]


def corruptions(train: Train, image: int, seed: int, frost_dir: Path | None = None) -> CorruptionSheet:
    """Row `image` of the test split under all corruptions, the bytes that eval-corruptions gives this image.

    Raises UserError: config for a row that is not there, usage for images that are too small, data_*.
    """
    test = sources.load(train).test
    if not 0 <= image < len(test):
        raise UserError("config", "--image", "no such test image", got=image, expected=f"0 … {len(test) - 1}")
    frost = None if frost_dir is None else textures(frost_dir)[0]
    height, width, channels = test.images.shape[1:]
    offered = offer((height, width, channels), frost is not None)
    clean = torch.from_numpy(np.ascontiguousarray(test.images[image : image + 1]))
    made = Generated(clean, torch.tensor([image]), seed, frost)
    originals = {substitute: name for name, substitute in SUBSTITUTES.items()}
    ordered = [n for members in FAMILIES.values() for n in offered.names if originals.get(n, n) in members]
    found = {name: np.concatenate([made.cell(name, s).numpy() for s in SEVERITIES]) for name in ordered}
    title = f"{train.dataset}, test image {image}, generator seed {seed}, column {offered.column}"
    return CorruptionSheet(title, clean[0].numpy(), found)


def statistics(train: Train, batches: int = 100, batch: int = 128) -> dict[str, object]:
    """Figures of many draws for the data set's own labels and image size.

    drawn, realised   nominal and actual share of the image itself: mean, deviation, quantiles; None where none is drawn
    untouched         share of images that keep all of their pixels: the mask is 1, or the partner is the image itself
    same_class        share of images whose partner, of several the first, has their label, themselves included
    layers            share of the mixed images with so many layers, for a mixing that has layers
    mask_diversity    mean absolute difference between the masks of two images of one batch
    """
    mixing, split = _mixing(train), sources.load(train).train
    rows = [Random(train.seed, "show/rows", step).host.integers(0, len(split), batch) for step in range(batches)]
    size = (split.images.shape[1], split.images.shape[2])
    mixes = [_drawn(mixing, train, split.labels[r], size, step) for step, r in enumerate(rows)]
    partner = np.concatenate([split.labels[r][m.source[1].numpy() % batch] for r, m in zip(rows, mixes, strict=True)])
    realised = torch.cat([m.ratio[0] for m in mixes]).double()
    different = [(_own(m) - _own(m).roll(1, 0)).abs().mean() for m in mixes]
    return {
        "images": batches * batch,
        "drawn": _moments(torch.cat([m.drawn for m in mixes if m.drawn is not None])),
        "realised": _moments(realised),
        "untouched": float(torch.cat([_untouched(m) for m in mixes]).double().mean()),
        "same_class": float((partner == split.labels[np.concatenate(rows)]).mean()),
        **_layers([m.notes["layers"] for m in mixes if "layers" in m.notes]),
        "mask_diversity": float(torch.stack(different).mean()),
    }


def _mixing(train: Train) -> Mixing:
    if not isinstance(train.method, Mixing):
        raise UserError(
            "usage", "show", "draws mixings of images", got=train.method.name, hint="See mixcli list mixings"
        )
    return train.method


def _views(train: Train, mixing: Mixing, split: sources.Split, images: int) -> Tensor:
    """(V*B, C, H, W) in [0, 1]: the first images as they are, then every further view that the mixing asks for."""
    channels = split.images.shape[3]
    plain = (0.0,) * channels, (1.0,) * channels
    resident = Resident(split.images[:images], split.labels[:images], *plain, training_view(train), torch.device("cpu"))
    random, degrees = Random(train.seed, "augment"), {"clean": 0.0, **needs(mixing).views}
    rows = torch.arange(images)
    return resident.views(rows, [(degree, random.child(name)) for name, degree in degrees.items()])


def _layers(counts: list[Tensor]) -> dict[str, dict[str, float]]:
    if not counts:
        return {}
    mixed = torch.cat(counts)
    shares = torch.bincount(mixed[mixed > 0]).double() / (mixed > 0).sum()
    return {"layers": {str(k): float(share) for k, share in enumerate(shares) if k > 0}}


def _drawn(mixing: Mixing, train: Train, labels: np.ndarray, size: tuple[int, ...], step: int) -> Mix:
    context = Context((len(labels), size[0], size[1]), labels, int(labels.max()) + 1)
    return draw(mixing, context, Random(train.seed, "mix", step))


def _untouched(mix: Mix) -> Tensor:
    """(B,) bool: whose pixels all stay, whatever the label's weight."""
    whole = mix.ratio[0] == 1
    return whole if mix.place is not None else whole | (mix.source == mix.source[0]).all(0)


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
