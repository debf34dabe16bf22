"""staged.py: StagedNet, a classifier cut into named stages.

Everything that mixes or looks inside a network goes through `features(x, start, stop)`: hooks added after compilation
are silently ignored, and a mixed tensor that a hook forgets to return is never noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

import torch
from torch import Tensor, nn

from mixcli.errors import UserError, nearest
from mixcli.nets.whitening import Whitening
from mixcli.sampling import Random
from mixcli.settings import BORROWED, NETS, Train


class StagedNet(nn.Module):
    """A network of named stages in depth order, then a neck, then a linear head.

    stages  name -> module; the output of a stage is what hidden mixing and probes see: maps (B, C, H, W), which masks
            can mix, or rows of another shape, such as tokens (B, T, D), which take one weight for each image
    neck    what stands between the last stage and the head: a closing norm, a layer before the last; pooling where it
            is none of maps (a class token), for maps (B, D, H, W) that the neck puts out are averaged over space
    head    the linear layer: (B, D) pooled features -> (B, N) logits
    """

    def __init__(self, stages: dict[str, nn.Module], head: nn.Linear, neck: nn.Module | None = None):
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.neck = neck or nn.Identity()
        self.head = head

    def features(self, x: Tensor, start: str | None = None, stop: str | None = None) -> Tensor:
        """Runs the stages after `start` up to and with `stop`.

        start  the stage whose output `x` is; None or "input": x are images
        stop   the last stage run; None: all of them and the pooling, (B, D); "input": x itself
        Raises ValueError for an unknown stage, or a start beyond the stop.
        """
        names = ["input", *self.stages]
        first = names.index(start or "input") + 1
        last = len(names) if stop is None else names.index(stop) + 1
        if first > last:
            raise ValueError(f"stage {start} lies beyond {stop}")
        for name in names[first:last]:
            x = self.stages[name](x)
        if stop is not None:
            return x
        x = self.neck(x)
        return x.mean(dim=(2, 3)) if x.ndim == 4 else x

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) images -> (B, N) logits."""
        return self.head(self.features(x))

    @contextmanager
    def frozen_batchnorm(self) -> Iterator[None]:
        """Inside, BatchNorm uses its running statistics and does not move them; scale and shift still get gradients."""
        with self._norms_with("training", False):
            yield

    @contextmanager
    def still_batchnorm(self) -> Iterator[None]:
        """Inside, BatchNorm uses the statistics of the batch, as in training, and does not move its running ones."""
        with self._norms_with("track_running_stats", False):
            yield

    @contextmanager
    def _norms_with(self, name: str, value: bool) -> Iterator[None]:
        norms = [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        before = [getattr(norm, name) for norm in norms]
        for norm in norms:
            setattr(norm, name, value)
        try:
            yield
        finally:
            for norm, held in zip(norms, before, strict=True):
                setattr(norm, name, held)

    def sizes(self, channels: int, height: int, width: int) -> dict[str, tuple[int, int] | None]:
        """(H, W) of every stage's output for images of this shape, `input` included, from shapes alone.

        Raises UserError for images that are too small.
        """
        with torch.device("meta"), torch.no_grad():
            x = torch.empty(2, channels, height, width)
            found: dict[str, tuple[int, int] | None] = {"input": (height, width)}
            for name, stage in self.stages.items():
                try:
                    x = torch.func.functional_call(stage, _on_meta(stage), (x,))
                except (RuntimeError, AssertionError) as error:
                    problem = f"images of {height}x{width} pixels are too small for it"
                    raise UserError("config", "net", problem) from error
                found[name] = (x.shape[2], x.shape[3]) if x.ndim == 4 else None
        return found


def _on_meta(module: nn.Module) -> dict[str, Tensor]:
    """Shapes of a module's parameters and buffers, without their values."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: torch.empty_like(value, device="meta") for name, value in tensors}


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
    size        (H, W) of the images; for `torchvision:` and `timm:` nets, some of which are built for one
    cut         of such a net: the submodules, by dotted names, with which its stages end; None for those it comes with
    pretrained  of such a net: start from published weights that are at hand
    Raises UserError for an unknown name, for what a net does not take, and what its builder raises.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random.key & (2**63 - 1))
        if name.partition(":")[0] in ("torchvision", "timm"):
            net = _borrowed(name, channels, classes, width, size, cut, pretrained)
        else:
            net = _own(name, channels, classes, width, cut, pretrained)
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


def _own(
    name: str, channels: int, classes: int, width: int | None, cut: tuple[str, ...] | None, pretrained: bool
) -> StagedNet:
    """A net of this package."""
    if name not in NETS:
        raise UserError("usage", "--net", "unknown", got=name, hint=nearest(name, [*NETS, *BORROWED]))
    if cut is not None:
        raise UserError("config", "cut", f"{name} is cut into stages already", hint="Leave it out")
    if pretrained:
        hint = "For published weights: --net torchvision:NAME or timm:NAME"
        raise UserError("config", "pretrained", f"there are no published weights of {name}", hint=hint)
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
    return import_module("mixcli.nets.borrowed").build(name, channels, classes, size, cut, pretrained)
