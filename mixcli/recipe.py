"""recipe.py: what a training run depends on, and the recipe of its data set that fills in what is left open.

`Train` is what can be set, `Facts` what is known of the data before its pixels are read; together they make complete
settings and tell how many images, batches and steps follow. Nothing here imports torch or numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from mixcli.errors import UserError
from mixcli.settings import (
    Count,
    Epochs,
    Fraction,
    Method,
    NoMixing,
    Portion,
    Positive,
    Seed,
    SemiSupervised,
    Settings,
    rising,
    setting,
)


class Train(Settings):
    """Everything a training run depends on. `None` means: the recipe's, the net's or the data set's own."""

    method: SerializeAsAny[Method] = Field(NoMixing(), description="how images are mixed", json_schema_extra={})
    seed: Seed = setting(0, "Run", "initialisation, order, augmentation and mixing are keyed by it")

    dataset: str = setting(
        "digits", "Data", "a known name (see list datasets), a .npz file, or a folder of class folders"
    )
    data_dir: str = setting("data", "Data", "where known data sets are looked for [env: MIXCLI_DATA]", hashed=False)
    resize: Annotated[int, Field(ge=8, le=1024)] | None = setting(
        None, "Data", "make image files squares of this side: short side to 8/7 of it, then the centre; unset: as they "
        "are, but 224 for known sets of many sizes and 84 for mini-imagenet")  # fmt: skip
    per_class: Count | None = setting(None, "Data", "train on this many images of each class")
    labels: Count | None = setting(
        None, "Data", "use the labels of this many training images, equally many of each class; unset: of all"
    )
    split_seed: Seed = setting(0, "Data", "chooses the images of splits and subsets")
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = setting(
        0.0, "Data", "share of the training images held out for validation"
    )
    label_noise: Fraction = setting(0.0, "Data", "share of training labels made wrong")
    noise_kind: Literal["symmetric", "pair"] = setting(
        "symmetric", "Data", "a wrong label is any other, or the next one"
    )
    supplement: Annotated[int, Field(ge=0)] | None = setting(
        None, "Data", "images of each present class a batch is filled up to; unset: what the method needs"
    )

    pad: Annotated[int, Field(ge=0, le=256)] | None = setting(
        None, "Augmentation", "pixels padded before the random crop"
    )
    pad_mode: Literal["zero", "reflect"] | None = setting(None, "Augmentation", "what the padding holds")
    flip: bool | None = setting(None, "Augmentation", "mirror half of the images")
    crop: Literal["pad", "resized"] = setting(
        "pad", "Augmentation", "a crop of the padded image, or a random window resized to its size", later=True
    )
    crop_scale: tuple[Portion, Portion] = setting(
        (0.08, 1.0), "Augmentation", "smallest and largest window, as shares of the image's area", later=True
    )
    crop_ratio: tuple[Positive, Positive] = setting(
        (3 / 4, 4 / 3), "Augmentation", "narrowest and widest window, width over height", later=True
    )
    crop_filter: Literal["bilinear", "bicubic"] = setting(
        "bilinear", "Augmentation", "how windows are resized", later=True
    )
    augment: Literal["none", "randaugment", "trivialaugment"] = setting(
        "none", "Augmentation", "random operations after crop and flip, by torchvision's tables", later=True
    )
    augment_count: Annotated[int, Field(ge=1, le=8)] = setting(
        2, "Augmentation", "operations of RandAugment per image", later=True
    )
    augment_magnitude: Annotated[int, Field(ge=0, le=30)] = setting(
        9, "Augmentation", "magnitude of RandAugment, of 30", later=True
    )
    cutout: Annotated[int, Field(ge=0)] = setting(0, "Augmentation", "side of one black square per image; 0 for none")
    normalise: Literal["own", "imagenet", "openmixup", "half"] = setting(
        "own", "Augmentation", "mean and deviation: the data set's own, ImageNet's, OpenMixup's, or 0.5"
    )

    zca: bool | None = setting(
        None, "Augmentation", "whiten images (ZCA) after augmentation, by the covariance of all training images"
    )

    net: str | None = setting(
        None,
        "Net",
        "such as small, resnet18, torchvision:swin_t, timm:convnext_atto (mixcli list nets), or yours, path.py:build",
    )
    width: Annotated[int, Field(ge=1, le=1024)] | None = setting(None, "Net", "channels of the first stage")
    cut: tuple[str, ...] | None = setting(
        None,
        "Net",
        "submodules of somebody else's net, by dotted names, with which its stages end; unset: its own",
    )
    pretrained: bool | None = setting(
        None, "Net", "start from published weights of a torchvision: or timm: net; they must be at hand"
    )

    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = setting(
        None, "Optimisation", "passes over the training images"
    )
    epoch_steps: Count | None = setting(
        None, "Optimisation", "steps of an epoch; unset: one pass over the images, the unlabelled ones where used"
    )
    batch: Count | None = setting(
        None, "Optimisation", "images per step, supplements not counted", flags=("--batch-size",)
    )
    optimizer: Literal["sgd", "adamw"] | None = setting(
        None, "Optimisation", "SGD, or Adam with decoupled weight decay; unset: SGD"
    )
    lr: Annotated[float, Field(gt=0)] | None = setting(None, "Optimisation", "learning rate (its peak, with one-cycle)")
    momentum: Annotated[float, Field(ge=0, lt=1)] = setting(0.9, "Optimisation", "of SGD")
    nesterov: bool = setting(False, "Optimisation", "Nesterov momentum")
    weight_decay: Annotated[float, Field(ge=0)] | None = setting(None, "Optimisation", "L2 penalty on all weights")
    schedule: Literal["cosine", "step", "one-cycle", "constant"] | None = setting(
        None, "Optimisation", "of the learning rate"
    )
    warmup: Epochs = setting(
        0.0, "Optimisation", "epochs in which the rate rises linearly from near 0 to what the schedule says", later=True
    )
    schedule_epochs: Count | None = setting(
        None, "Optimisation", "epochs in which the cosine falls to 0; unset: those that are trained"
    )
    step_every: Count = setting(10, "Optimisation", "epochs between two steps of the step schedule")
    step_factor: Annotated[float, Field(gt=0, le=1)] = setting(0.5, "Optimisation", "factor of one step")
    clip: Annotated[float, Field(ge=0)] = setting(
        0.0, "Optimisation", "largest norm of a step's gradient, over all weights; 0: as it is", later=True
    )
    accumulate: Annotated[int, Field(ge=1, le=4096)] = setting(
        1, "Optimisation", "batches of a step, whose gradients are averaged; each is drawn and mixed by itself",
        later=True)  # fmt: skip
    ema: Annotated[float, Field(ge=0, lt=1)] | None = setting(
        None,
        "Optimisation",
        "decay of averaged weights, which are then evaluated; unset: the method's, mostly 0 (none)",
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = setting(
        0.0, "Optimisation", "spread this share of each label over all classes, after mixing"
    )

    precision: Literal["fp32", "bf16"] | None = setting(None, "Machine", "fp32, or bf16 autocast")
    device: str = setting("auto", "Machine", "cpu, cuda, cuda:N or auto", hashed=False)
    threads: Annotated[int, Field(ge=1, le=1024)] | None = setting(
        None, "Machine", "CPU threads; unset: as torch finds it", hashed=False
    )
    compile: bool = setting(False, "Machine", "compile the step with torch.compile", hashed=False)
    deterministic: bool | None = setting(None, "Machine", "deterministic algorithms; unset: on a CPU", hashed=False)

    eval_every: Count = setting(1, "Run", "epochs between evaluations; the last is always evaluated")
    keep: str | None = setting(None, "Run", "epochs whose weights stay: 1,10,20 or every:10", hashed=False)
    save_every: Count | None = setting(None, "Run", "steps between saves; unset: every epoch", hashed=False)
    runs: str = setting("runs", "Run", "folder of the runs [env: MIXCLI_RUNS]", hashed=False)

    @field_validator("pretrained")
    @classmethod
    def _drawn_weights_are_the_default(cls, value: bool | None) -> bool | None:
        return value or None

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self):
        if self.nesterov and self.momentum == 0:
            raise UserError("config", "nesterov", "needs a momentum above 0")
        if self.optimizer == "adamw" and (self.nesterov or self.momentum != 0.9):
            raise UserError("config", "nesterov" if self.nesterov else "momentum", "belongs to SGD, not to adamw")
        return self

    @model_validator(mode="after")
    def _augmentation_with_an_effect(self):
        given = self.model_fields_set
        for key in ("crop_scale", "crop_ratio", "crop_filter"):
            if self.crop == "pad" and key in given:
                raise UserError("config", key, "has no effect on a padded crop", hint="Give --crop resized")
        if self.crop == "resized" and (self.pad or self.pad_mode):
            raise UserError("config", "pad" if self.pad else "pad_mode", "has no effect on a resized crop",
                            hint="Leave it out, or give --crop pad")  # fmt: skip
        for key in ("augment_count", "augment_magnitude"):
            if self.augment != "randaugment" and key in given:
                raise UserError("config", key, f"has no effect on augment = {self.augment}",
                                hint="Give --augment randaugment")  # fmt: skip
        return rising(self, "crop_scale", "crop_ratio")


@dataclass(frozen=True)
class Facts:
    """What is known of a data set before its pixels are read."""

    identity: str  # equal for equal data: a published name, or a file's digest
    images: int  # training images before any subset
    test_images: int
    classes: int
    channels: int
    size: tuple[int, int]  # height, width in pixels


# The peak lr was chosen once, among 0.03 to 0.4, on a validation quarter with 4 seeds of `none` and `synermix`.
DIGITS_RECIPE = {"net": "small", "epochs": 20, "batch": 64, "lr": 0.2, "weight_decay": 5e-4, "schedule": "one-cycle",
                 "pad": 1, "pad_mode": "zero", "flip": False}  # fmt: skip
# OpenMixup's ResNet-18 column for optimiser and schedule; the view is ours: reflection keeps the pixel statistics.
IMAGE_RECIPE = {"net": "resnet18", "epochs": 200, "batch": 100, "lr": 0.1, "weight_decay": 1e-4, "schedule": "cosine",
                "pad_mode": "reflect"}  # fmt: skip

# ICT's own column: 400 epochs of a cosine that would end at 450. The labels are the literature's, and ours for digits.
SEMI_SUPERVISED_RECIPE = {"net": "wrn-28-2", "epochs": 400, "schedule_epochs": 450}
DIGITS_AVERAGE = 0.99  # at most: over a thousand steps, 0.999 would average all of them alike
LABELS = {"digits": 100, "cifar10": 4_000, "cifar100": 10_000, "svhn": 1_000}


UPRIGHT = ("svhn", "retinamnist")  # colour sets of which a mirror makes something else: digits, left and right eyes
SIDES = {"food-101": 224, "oxford-iiit-pet": 224, "caltech-256": 224, "mini-imagenet": 84}  # px, of sets of many sizes


def recipe_of(dataset: str) -> dict[str, Any]:
    """The values of settings that are open, by key, before method and size of the images are looked at."""
    return dict(DIGITS_RECIPE if dataset == "digits" else IMAGE_RECIPE)


def stored_side(train: Train) -> int | None:
    """The side of the images that are kept in memory, in pixels; None: that of the files."""
    return SIDES.get(train.dataset) if train.resize is None else train.resize


def complete(train: Train, facts: Facts) -> Train:
    """`train` with every open setting filled in from the recipe of its data set.

    Raises UserError for what contradicts the data: a batch or a class subset larger than the training set.
    """
    recipe = recipe_of(train.dataset)
    if isinstance(train.method, SemiSupervised):
        recipe |= {} if train.dataset == "digits" else SEMI_SUPERVISED_RECIPE
        train = train if train.labels else train.model_copy(update={"labels": LABELS.get(train.dataset)})
    recipe |= {"precision": "fp32", "ema": train.method.average}
    if train.dataset == "digits":
        recipe["ema"] = min(recipe["ema"], DIGITS_AVERAGE)
    recipe.setdefault("pad", min(facts.size) // 8)
    if train.crop == "resized":
        recipe["pad"] = 0
        del recipe["pad_mode"]
    recipe.setdefault("flip", facts.channels == 3 and train.dataset not in UPRIGHT)
    recipe["resize"] = stored_side(train)
    available = training_images(train, facts)
    if train.batch is not None and train.batch > available:
        raise UserError("config", "batch", f"the training set has {available} images", got=train.batch)
    if train.ema == 0 and train.method.teaches:
        raise UserError("config", "ema", f"the teacher of {train.method.name} is an average of the weights", got=0,
                        expected="number > 0 and < 1")  # fmt: skip
    recipe["batch"] = max(1, min(recipe["batch"], available // 4))
    completed = train.model_copy(update={k: v for k, v in recipe.items() if getattr(train, k) is None})
    if epoch_steps(completed, facts) == 0:
        images = train.accumulate * (completed.batch or 0)
        raise UserError("config", "accumulate", f"a step of {images} images takes more than there are",
                        got=train.accumulate, hint="Give a smaller --batch or --accumulate")  # fmt: skip
    _check_warmup(completed)
    return completed


def _check_warmup(train: Train) -> None:
    """Raises UserError for a warm-up that contradicts complete settings."""
    if train.warmup and train.schedule == "one-cycle":
        raise UserError("config", "warmup", "one-cycle rises by itself", got=train.warmup,
                        hint="Give --schedule cosine, step or constant")  # fmt: skip
    if train.warmup > (train.epochs or 0):
        raise UserError("config", "warmup", f"longer than the {train.epochs} epochs trained", got=train.warmup)


def training_images(train: Train, facts: Facts) -> int:
    """How many images are trained on with their labels: a subset, or all that there are.

    Raises UserError for a subset that cannot be made, or not with equally many of each class.
    """
    available = _available(train, facts)
    if train.labels is None:
        return available
    if train.labels > available:
        raise UserError("config", "labels", f"the training set has {available} images", got=train.labels)
    if train.labels % facts.classes:
        near = max(1, train.labels // facts.classes) * facts.classes
        raise UserError("config", "labels", f"not divisible by {facts.classes} classes", got=train.labels,
                        expected=f"a multiple, such as {near}")  # fmt: skip
    return train.labels


def unlabelled_images(train: Train, facts: Facts) -> int:
    """How many images the method learns from without labels. Raises UserError where it asks for some and none is."""
    if not isinstance(train.method, SemiSupervised):
        return 0
    available = _available(train, facts)
    if train.method.unlabelled == "all":
        return available
    left = available - training_images(train, facts)
    if left == 0:
        raise UserError("config", "unlabelled", f"the labels of all {available} training images are used", got="rest",
                        expected="images without labels", hint="Give --labels N, or --unlabelled all")  # fmt: skip
    return left


def unlabelled_batch(train: Train, facts: Facts) -> int:
    """Images without labels in a step of complete settings; 0 where the method takes none."""
    available = unlabelled_images(train, facts)
    asked = train.method.unlabelled_batch if isinstance(train.method, SemiSupervised) else None
    if asked is not None and asked > available:
        raise UserError("config", "unlabelled_batch", f"there are {available} unlabelled images", got=asked)
    return asked or min(train.batch or 1, available)


def epoch_steps(train: Train, facts: Facts) -> int:
    """Steps, which are updates, of an epoch of complete settings. Raises UserError for images without labels."""
    beside, each = unlabelled_images(train, facts), unlabelled_batch(train, facts)
    if train.epoch_steps is not None:
        return train.epoch_steps
    images, batch = (beside, each) if beside else (training_images(train, facts), train.batch or 1)
    return images // (batch * train.accumulate)


def _available(train: Train, facts: Facts) -> int:
    """Training images after the validation split and the subset of each class."""
    available = round(facts.images * (1 - train.val_fraction))
    if train.per_class is None:
        return available
    if train.per_class > available // facts.classes:
        raise UserError("config", "per_class", "more images than a class has", got=train.per_class,
                        expected=f"1 … {available // facts.classes}")  # fmt: skip
    return train.per_class * facts.classes


def kept_epochs(train: Train) -> frozenset[int]:
    """The epochs, counted from 1, whose weights `--keep` asks to stay."""
    if train.keep is None:
        return frozenset()
    epochs, text = train.epochs or 0, train.keep
    every = text.removeprefix("every:")
    try:
        chosen = range(int(every), epochs + 1, int(every)) if text != every else [int(v) for v in text.split(",")]
    except ValueError:
        chosen = [0]
    if not chosen or min(chosen) < 1 or max(chosen) > epochs:
        raise UserError(
            "config", "keep", "no such epochs", got=text, expected=f"1,10,20 or every:10, within 1 … {epochs}"
        )
    return frozenset(chosen)
