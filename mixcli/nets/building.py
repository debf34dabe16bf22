"""building.py: which net a run trains: by name, its weights drawn from a key.

Ours come from the modules that `NETS` names, torchvision's and timm's from borrowed.py. Somebody's own net is a
function in a file, `path.py:build`, or what an installed package offers in the group `mixcli.nets`:

    build(channels, classes) -> nn.Module        it may also take `size`, (height, width), and `width`

What it returns is cut into stages at the submodules that the user names, unless it is a StagedNet already.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn

from mixcli import own_code
from mixcli.catalogue import BORROWED, LIBRARIES, NETS
from mixcli.errors import UserError, nearest
from mixcli.nets import borrowed, cutting
from mixcli.nets.staged import StagedNet
from mixcli.nets.whitening import Whitening
from mixcli.recipe import Train
from mixcli.sampling import Random


@dataclass(frozen=True)
class Wanted:
    """A net as it was asked for; see `build`."""

    name: str
    channels: int
    classes: int
    width: int | None
    size: tuple[int, int] | None
    cut: tuple[str, ...] | None
    pretrained: bool

    @property
    def seen(self) -> tuple[int, int]:
        """The size of the images, on which the nets of others are cut."""
        assert self.size is not None, "nets of others are cut on images of the size they will see"
        return self.size


def build(
    name: str,
    channels: int,
    classes: int,
    width: int | None,
    random: Random,
    whitened: tuple[int, int] | None = None,
    *,
    size: tuple[int, int] | None = None,
    cut: tuple[str, ...] | None = None,
    pretrained: bool = False,
) -> StagedNet:
    """The named net, its weights drawn from `random` alone: the global generator is left as it was.

    width       channels of the first stage; None for the net's own
    whitened    (H, W) of the images, whose ZCA, not fitted yet, opens the first stage; None for none
    size        (H, W) of the images; for nets of others, some of which are built for one
    cut         of such a net: the submodules, by dotted names, with which its stages end; None for those it comes with
    pretrained  of such a net: start from published weights that are at hand
    Raises UserError for an unknown name, for what a net does not take, and what its builder raises.
    """
    make = _ours if name in NETS else _borrowed if name.partition(":")[0] in LIBRARIES else _somebodys
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random.key & (2**63 - 1))
        net = make(Wanted(name, channels, classes, width, size, cut, pretrained))
    if whitened is not None:
        first = next(iter(net.stages))
        net.stages[first] = nn.Sequential(Whitening((channels, *whitened)), net.stages[first])
    return net


def of_run(
    settings: Train, channels: int, classes: int, size: tuple[int, int], random: Random, pretrained: bool = False
) -> StagedNet:
    """The net of a run's completed settings for images (channels, *size); see `build`.

    pretrained  with published weights where the settings ask for them; not for a net whose weights are loaded next
    """
    assert settings.net is not None
    whitened, published = size if settings.zca else None, pretrained and bool(settings.pretrained)
    return build(settings.net, channels, classes, settings.width, random, whitened, size=size, cut=settings.cut,
                 pretrained=published)  # fmt: skip


def _ours(wanted: Wanted) -> StagedNet:
    """A net of this package."""
    if wanted.cut is not None:
        raise UserError("config", "cut", f"{wanted.name} is cut into stages already", hint="Leave it out")
    _refuse_pretrained(wanted)
    make: Callable[..., StagedNet] = import_module(NETS[wanted.name][0]).BUILDERS[wanted.name]
    return make(wanted.channels, wanted.classes, **({} if wanted.width is None else {"width": wanted.width}))


def _borrowed(wanted: Wanted) -> StagedNet:
    """A net of another library, `library:name`."""
    if wanted.width is not None:
        problem = f"{wanted.name} has channels of its own"
        raise UserError("config", "width", problem, got=wanted.width, hint="Leave it out")
    return borrowed.build(wanted.name, wanted.channels, wanted.classes, wanted.seen, wanted.cut, wanted.pretrained)


def _somebodys(wanted: Wanted) -> StagedNet:
    """A net out of a file or a package."""
    module, told = _made(wanted), own_code.anonymous(wanted.name)
    if isinstance(module, StagedNet):
        if wanted.cut is not None:
            raise UserError("config", "stages", f"{told} is cut already", hint="Leave them out")
        return module
    if not isinstance(module, nn.Module):
        raise UserError("config", "--net", f"{told} returns no net", got=type(module).__name__,
                        expected="torch.nn.Module")  # fmt: skip
    if wanted.cut is None:
        inside = ", ".join(path for path, _ in module.named_children())
        hint = "Give --cut (or --stages, where the method has none): submodules that run one after another, out of "
        raise UserError("config", "--net", f"{told} is not cut into stages", hint=hint + inside)
    return cutting.cut(module, cutting.named(wanted.cut), torch.rand(2, wanted.channels, *wanted.seen))


def _made(wanted: Wanted) -> Any:
    """What somebody's function returns for as much of what is wanted as it takes."""
    own = own_code.net(wanted.name, "--net")
    if own is None:
        raise UserError("usage", "--net", "unknown", got=wanted.name, hint=_like(wanted.name))
    _refuse_pretrained(wanted)
    takes = inspect.signature(own.value).parameters
    if wanted.width is not None and "width" not in takes:
        problem = f"{own_code.anonymous(wanted.name)} takes none"
        raise UserError("config", "width", problem, got=wanted.width, hint="Leave it out")
    given = {"channels": wanted.channels, "classes": wanted.classes, "size": wanted.seen, "width": wanted.width}
    return own_code.called(own, "--net", **{k: v for k, v in given.items() if k in takes and v is not None})


def _like(name: str) -> str:
    """A hint: the net of another library that has this name, the nearest name, or what names there are."""
    borrowed_here = [known for known in BORROWED if known.partition(":")[2] == name]
    if borrowed_here:
        return f"Did you mean {' or '.join(borrowed_here)}?"
    own = [*NETS, *own_code.offered("nets")]
    near = nearest(name, own)
    return near if near.startswith("Did") else f"{near}, torchvision:NAME, timm:NAME, path.py:build"


def _refuse_pretrained(wanted: Wanted) -> None:
    if wanted.pretrained:
        hint = "For published weights: --net torchvision:NAME or timm:NAME"
        problem = f"there are no published weights of {own_code.anonymous(wanted.name)}"
        raise UserError("config", "pretrained", problem, hint=hint)
