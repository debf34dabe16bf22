"""borrowed.py: nets of torchvision and timm, cut into stages, with published weights where these are at hand.

torchvision's are the ImageNet originals, `--net torchvision:NAME`; where they end is written in `STAGES`. timm's are
every classifier of its catalogue that can be cut, `--net timm:NAME`: the stages end where timm's own `feature_info`
says that a feature is complete, before the first one stands `stem`, the last module that runs before it. Both take
images of any size that their layers take; a transformer is built for the size of the images.

Published weights are read from the caches in which the libraries themselves leave them, torch.hub's and Hugging Face's,
and never fetched. The head is replaced for the classes, the first convolution of a net of grey images sums the colours,
and positions of a transformer are interpolated, all as the libraries do it.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixcli.catalogue import TORCHVISION
from mixcli.errors import UserError, first_line
from mixcli.nets.cutting import SIZES, cut, named, running
from mixcli.nets.staged import StagedNet

_RESNET = {"stem": "relu", **{f"layer{n}": f"layer{n}" for n in range(1, 5)}}
_EVERY_OTHER = {"stem": "features.0", **{f"stage{n}": f"features.{2 * n - 1}" for n in range(1, 5)}}

STAGES: dict[str, Mapping[str, str]] = {  # stage -> the submodule with which it ends
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101"), _RESNET),
    "mobilenet_v3_large": {"stem": "features.0", **{f"block{n}": f"features.{n}" for n in range(1, 16)}},
    "swin_t": _EVERY_OTHER,
    "convnext_tiny": _EVERY_OTHER,
    "vit_b_16": {
        "stem": "encoder.dropout",
        **{f"block{n + 1}": f"encoder.layers.encoder_layer_{n}" for n in range(12)},
    },
}
CHANNELS_LAST = {"swin_t"}
STEMS = ("act1", "bn1", "conv_stem", "stem", "features.norm0")  # first features of timm's that are a stem already


def build(
    name: str, channels: int, classes: int, size: tuple[int, int], at: tuple[str, ...] | None, pretrained: bool
) -> StagedNet:
    """The net `library:name`, cut at its own stages or at the submodules `at`, for images (channels, *size).

    Raises UserError: usage for an unknown name or a library that is not installed, config for a net that cannot be cut
    or does not take such images, data_missing where its published weights are not at hand.
    """
    library, _, short = name.partition(":")
    make, stages_of = LIBRARIES[library]
    try:
        module = make(short, channels, classes, size, pretrained)
    except (AssertionError, ValueError, RuntimeError) as error:  # how the libraries refuse a size
        reason = first_line(error, "no reason is given")
        problem = f"{name} cannot be built for images of {size[0]}x{size[1]} pixels ({reason})"
        raise UserError("config", "net", problem, hint=SIZES) from error
    stages, head, last = stages_of(short, module)
    return cut(module, stages if at is None else named(at), torch.rand(2, channels, *size), head, last)


def _nearest(library: str, name: str) -> str:
    """A hint with at most three names of a library: those that begin with `name`, are written alike, or hold it."""
    if library == "timm":
        import timm

        known, all_of_them = timm.list_models(), "mixcli list nets has some, timm.list_models() every one"
    else:
        known, all_of_them = list(TORCHVISION), f"Known: {', '.join(f'torchvision:{one}' for one in TORCHVISION)}"
    word, shortest = name.lower(), sorted(known, key=lambda one: (len(one), one))
    begin = [one for one in shortest if word and one.startswith(word)]
    alike = difflib.get_close_matches(word, known)
    hold = [one for one in shortest if word and word in one]
    found = [f"{library}:{one}" for one in dict.fromkeys([*begin, *alike, *hold])][:3]
    return f"Did you mean {' or '.join(found)}?" if found else f"No name of {library}'s is like it. {all_of_them}"


def _torchvision(name: str, channels: int, classes: int, size: tuple[int, int], pretrained: bool) -> nn.Module:
    """torchvision's net, its head for the classes and its first convolution for the channels."""
    from torchvision.models import get_model

    if name not in TORCHVISION:
        raise UserError("usage", "--net", "unknown", got=f"torchvision:{name}", hint=_nearest("torchvision", name))
    given: dict[str, Any] = {"image_size": size[0]} if name == "vit_b_16" else {}
    if given and size[0] != size[1]:
        raise UserError("config", "net", f"torchvision:{name} takes square images", got=f"{size[0]}x{size[1]}")
    if not pretrained:
        return _with_channels(get_model(name, weights=None, num_classes=classes, **given), channels, fresh=True)
    module = get_model(name, weights=None, **given)
    module.load_state_dict(_published_by_torchvision(name, size[0]))
    path, head = _last_linear(module)
    module.set_submodule(path, nn.Linear(head.in_features, classes))
    return _with_channels(module, channels, fresh=False)


def _last_linear(module: nn.Module) -> tuple[str, nn.Linear]:
    return [(path, m) for path, m in module.named_modules() if isinstance(m, nn.Linear)][-1]


def _with_channels(module: nn.Module, channels: int, fresh: bool) -> nn.Module:
    """The net with a first convolution of as many channels: drawn alike, or the sum of the colours' for grey images."""
    path, first = next((path, m) for path, m in module.named_modules() if isinstance(m, nn.Conv2d))
    if channels == first.in_channels:
        return module
    if not fresh and channels != 1:
        problem = f"weights for {first.in_channels} channels fit colour and grey images, these have {channels}"
        raise UserError("config", "pretrained", problem)
    side, stride, padding = first.kernel_size, first.stride, first.padding
    other = nn.Conv2d(channels, first.out_channels, side, stride, padding, bias=first.bias is not None)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        if fresh:
            other.weight.normal_(std=float(first.weight.std()))
        else:
            other.weight.copy_(first.weight.sum(dim=1, keepdim=True))
        if other.bias is not None and first.bias is not None:
            other.bias.copy_(first.bias)
    module.set_submodule(path, other)
    return module


def _published_by_torchvision(name: str, side: int) -> dict[str, Tensor]:
    """torchvision's default weights from torch.hub's cache, a transformer's positions for images of this side."""
    from torchvision.models import get_model_weights
    from torchvision.models.vision_transformer import interpolate_embeddings

    published: Any = get_model_weights(name)
    weights = _from_hub(f"torchvision:{name}", published.DEFAULT.url)
    return weights if name != "vit_b_16" else interpolate_embeddings(side, 16, OrderedDict(weights))


def _from_hub(name: str, url: str) -> dict[str, Tensor]:
    """The weights that torch.hub has cached of a URL, whose file name ends in the first digits of their SHA-256.

    Raises UserError: data_missing, data_corrupt.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not path.is_file():
        raise UserError("data_missing", "--pretrained", f"no weights of {name} at hand, and nothing is downloaded",
                        expected=str(path), hint=f"Put {url} there")  # fmt: skip
    digits = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if digits and not hashlib.sha256(path.read_bytes()).hexdigest().startswith(digits[1]):
        raise UserError("data_corrupt", str(path), "is not the file that its name promises", hint=f"Fetch {url} anew")
    return torch.load(path, map_location="cpu", weights_only=True)


def _of_torchvision(name: str, module: nn.Module) -> tuple[Mapping[str, str], str, bool]:
    return STAGES[name], _last_linear(module)[0], name in CHANNELS_LAST


def _timm(name: str, channels: int, classes: int, size: tuple[int, int], pretrained: bool) -> nn.Module:
    """timm's net for these classes, channels and, where it is built for one, this size."""
    try:
        import timm
    except ImportError:
        raise UserError("usage", "--net", "needs timm", got=f"timm:{name}", hint='pip install "mixcli[timm]"') from None
    if not timm.is_model(name):
        raise UserError("usage", "--net", "unknown", got=f"timm:{name}", hint=_nearest("timm", name))
    given: dict[str, Any] = {"in_chans": channels, "num_classes": classes}
    if pretrained:
        given |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": _published_by_timm(name)}}
    try:
        return timm.create_model(name, img_size=size, **given)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return timm.create_model(name, **given)


def _published_by_timm(name: str) -> dict[str, Tensor]:
    """timm's default weights of a net from Hugging Face's cache, or torch.hub's. Raises UserError: data_missing."""
    import timm
    from huggingface_hub import try_to_load_from_cache
    from safetensors.torch import load_file

    published = timm.get_pretrained_cfg(name)
    if published is None or not (published.hf_hub_id or published.url):
        raise UserError("data_missing", "--pretrained", f"there are no published weights of timm:{name}")
    if published.hf_hub_id:
        found = try_to_load_from_cache(published.hf_hub_id, "model.safetensors")
        if isinstance(found, str):
            return load_file(found)
    url = published.url
    if isinstance(url, str) and (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file():
        return _from_hub(f"timm:{name}", url)
    raise UserError("data_missing", "--pretrained", f"no weights of timm:{name} at hand, and nothing is downloaded",
                    hint=f"Fetch once: hf download {published.hf_hub_id} model.safetensors")  # fmt: skip


def _of_timm(name: str, module: nn.Module) -> tuple[Mapping[str, str], str, bool]:
    """The stages of a net of timm's, what it says is its head, and whether it hands over (B, H, W, C)."""
    classifier = getattr(module, "pretrained_cfg", {}).get("classifier")
    info: Any = getattr(module, "feature_info", None)
    if not isinstance(classifier, str) or not info:
        lacks = "it has no single linear head" if info else "timm does not say where its features end"
        raise UserError("config", "net", f"cannot be cut into stages: {lacks}", got=f"timm:{name}")
    ends = [feature["module"] for feature in info]
    stem = [] if ends[0].startswith(STEMS) else _before(module, ends, classifier)
    paths = [*stem, *ends]
    names = ["stem", *(_stage(path, k) for k, path in enumerate(paths[1:], start=1))]
    return dict(zip(names, paths, strict=True)), classifier, getattr(module, "output_fmt", "NCHW") == "NHWC"


def _before(module: nn.Module, ends: Sequence[str], head: str) -> list[str]:
    """The last submodule that runs, once, before the first of `ends`."""
    ran = running(module, [*ends, head])
    return [path for path in ran[: ran.index(ends[0])] if ran.count(path) == 1][-1:]


def _stage(path: str, number: int) -> str:
    """layer1 and s1 keep their names, blocks.3 is block4, and what else there is, counted."""
    block = re.fullmatch(r"blocks\.(\d+)", path)
    return f"block{int(block[1]) + 1}" if block else path if "." not in path else f"stage{number}"


LIBRARIES = {"torchvision": (_torchvision, _of_torchvision), "timm": (_timm, _of_timm)}
