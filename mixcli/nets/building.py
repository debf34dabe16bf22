"""building.py: which net a run trains: by name, its weights drawn from a key.

Ours come from the modules that `NETS` names, torchvision's and timm's from borrowed.py. Somebody's own net is a
function in a file, `path.py:build`, or what an installed package offers in the group `mixcli.nets`:

    build(channels, classes) -> nn.Module        it may also take `size`, (height, width), and `width`

What it returns is cut into stages at the submodules that the user names, unless it is a StagedNet already.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module

import torch
from torch import nn

from mixcli import own_code
from mixcli.errors import UserError, nearest
from mixcli.nets import borrowed, cutting
from mixcli.nets.staged import StagedNet
from mixcli.nets.whitening import Whitening
from mixcli.sampling import Random
from mixcli.settings import BORROWED, LIBRARIES, NETS, Train


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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random.key & (2**63 - 1))
        if name in NETS:
            net = _ours(name, channels, classes, width, cut, pretrained)
        elif name.partition(":")[0] in LIBRARIES:
            net = _borrowed(name, channels, classes, width, size, cut, pretrained)
        else:
            net = _somebodys(name, channels, classes, width, size, cut, pretrained)
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


def _ours(
    name: str, channels: int, classes: int, width: int | None, cut: tuple[str, ...] | None, pretrained: bool
) -> StagedNet:
    """A net of this package."""
    if cut is not None:
        raise UserError("config", "cut", f"{name} is cut into stages already", hint="Leave it out")
    _refuse_pretrained(name, pretrained)
    make: Callable[..., StagedNet] = import_module(NETS[name][0]).BUILDERS[name]
    return make(channels, classes, **({} if width is None else {"width": width}))


def _borrowed(
    name: str,
    channels: int,
    classes: int,
    width: int | None,
    size: tuple[int, int] | None,
    cut: tuple[str, ...] | None,
    pretrained: bool,
) -> StagedNet:
    """A net of another library, `library:name`."""
    if width is not None:
        raise UserError("config", "width", f"{name} has channels of its own", got=width, hint="Leave it out")
    assert size is not None, "nets of other libraries are cut on images of the size they will see"
    return borrowed.build(name, channels, classes, size, cut, pretrained)


def _somebodys(
    name: str,
    channels: int,
    classes: int,
    width: int | None,
    size: tuple[int, int] | None,
    cut: tuple[str, ...] | None,
    pretrained: bool,
) -> StagedNet:
    """A net out of a file or a package."""
    own = own_code.net(name, "--net")
    if own is None:
        known = [*NETS, *BORROWED, *own_code.offered("nets")]
        raise UserError("usage", "--net", "unknown", got=name, hint=nearest(name, known))
    _refuse_pretrained(name, pretrained)
    assert size is not None, "nets of others are cut on images of the size they will see"
    given = {"channels": channels, "classes": classes, "size": size, "width": width}
    takes = inspect.signature(own.value).parameters
    if width is not None and "width" not in takes:
        raise UserError("config", "width", f"{own_code.anonymous(name)} takes none", got=width, hint="Leave it out")
    module = own_code.called(own, "--net", **{k: v for k, v in given.items() if k in takes and v is not None})
    if isinstance(module, StagedNet):
        if cut is not None:
            raise UserError("config", "stages", f"{own_code.anonymous(name)} is cut already", hint="Leave them out")
        return module
    if not isinstance(module, nn.Module):
        raise UserError("config", "--net", f"{own_code.anonymous(name)} returns no net", got=type(module).__name__,
                        expected="torch.nn.Module")  # fmt: skip
    if cut is None:
        inside = ", ".join(path for path, _ in module.named_children())
        hint = "Give --cut (or --stages, where the method has none): submodules that run one after another, out of "
        hint += inside
        raise UserError("config", "--net", f"{own_code.anonymous(name)} is not cut into stages", hint=hint)
    return cutting.cut(module, cutting.named(cut), torch.rand(2, channels, *size))


def _refuse_pretrained(name: str, pretrained: bool) -> None:
    if pretrained:
        hint = "For published weights: --net torchvision:NAME or timm:NAME"
        problem = f"there are no published weights of {own_code.anonymous(name)}"
        raise UserError("config", "pretrained", problem, hint=hint)
