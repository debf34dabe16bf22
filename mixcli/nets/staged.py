"""staged.py: StagedNet, a classifier cut into named stages.

Everything that mixes or looks inside a network goes through `features(x, start, stop)`: hooks added after compilation
are silently ignored, and a mixed tensor that a hook forgets to return is never noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mixcli.errors import UserError, first_line


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

        Raises UserError for images that do not fit, with torch's reason.
        """
        with torch.device("meta"), torch.no_grad():
            x = torch.empty(2, channels, height, width)
            found: dict[str, tuple[int, int] | None] = {"input": (height, width)}
            for name, stage in self.stages.items():
                try:
                    x = torch.func.functional_call(stage, _on_meta(stage), (x,))
                except (RuntimeError, AssertionError) as error:
                    problem = f"images of {height}x{width} pixels do not fit it ({first_line(error)})"
                    raise UserError("config", "net", problem) from error
                found[name] = (x.shape[2], x.shape[3]) if x.ndim == 4 else None
        return found


def _on_meta(module: nn.Module) -> dict[str, Tensor]:
    """Shapes of a module's parameters and buffers, without their values."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: torch.empty_like(value, device="meta") for name, value in tensors}
