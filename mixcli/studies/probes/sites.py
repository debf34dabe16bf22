"""sites.py: where a probe reads a net: images, stages before and after their closing non-linearity, head, softmax.

Sites in depth order: input, the named stages, pooled (what enters the head), logits, softmax. A stage that ends in a
non-linearity has two taps: `post`, its output, and `pre`, what enters that non-linearity. Traps: an in-place ReLU
overwrites what enters it (cloned here); one module used several times in a stage is called several times (the last call
counts); a hook on a compiled net is silently ignored (refused here).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mixcli.errors import UserError, nearest
from mixcli.nets.staged import StagedNet

ENDS = ("pooled", "logits", "softmax")
NON_LINEAR = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus,
    nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh,
)  # fmt: skip

Reading = tuple[str, str, Tensor]  # site, tap, values (B, ...)


def sites(net: StagedNet) -> tuple[str, ...]:
    """All sites of a net, in depth order."""
    return ("input", *net.stages, *ENDS)


def chosen(net: StagedNet, text: str | None) -> tuple[str, ...]:
    """The sites of `--stages`, in depth order; None or `all`: every one. Raises UserError for an unknown name."""
    known = sites(net)
    if text in (None, "all"):
        return known
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    for word in words:
        if word not in known:
            hint = f"{nearest(word, known).removesuffix('.')}. All: {', '.join(known)}"
            raise UserError("usage", "--stages", "unknown", got=word, hint=hint)
    if not words:
        raise UserError("usage", "--stages", "must not be empty", expected=f"of {', '.join(known)}")
    return tuple(name for name in known if name in words)


@contextmanager
def taps(net: StagedNet, images: Tensor) -> Iterator[Callable[..., Iterator[Reading]]]:
    """Inside, `read(x, start)` runs the net and yields what every tap shows; afterwards no hook remains.

    images  one is enough: by a pass over it the closing non-linearities are found
    read    x: images, or values at the site `start`, which is yielded first; each reading must be used before the next
            is asked for, since a stage may overwrite what it is given
    Raises ValueError for a compiled net.
    """
    if any(hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) for m in net.modules()):
        raise ValueError("a compiled net ignores hooks; build it anew, uncompiled")
    seen: dict[str, Tensor] = {}

    def keep(stage: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[stage] = inputs[0].clone()

        return hook

    handles = [module.register_forward_pre_hook(keep(name)) for name, module in closing(net, images).items()]
    try:
        yield lambda x, start="input": _read(net, x, start, seen)
    finally:
        for handle in handles:
            handle.remove()


def _read(net: StagedNet, x: Tensor, start: str, seen: dict[str, Tensor]) -> Iterator[Reading]:
    yield start, "post", x
    names = ["input", *net.stages]
    for name in names[names.index(start) + 1 :] if start in names else ():
        seen.clear()
        x = tensor(name, net.features(x, start=names[names.index(name) - 1], stop=name))
        if name in seen:
            yield name, "pre", seen.pop(name)
        yield name, "post", x
    if start in names:
        x = net.features(x, start=names[-1])
        yield "pooled", "post", x
    if start not in ENDS[1:]:
        x = net.head(x)
        yield "logits", "post", x
    if start != "softmax":
        yield "softmax", "post", x.softmax(1)


def tensor(site: str, values: object) -> Tensor:
    """`values`, if they are what a stage should put out. Raises UserError."""
    if isinstance(values, Tensor) and values.numel():
        return values
    raise UserError("usage", "--stages", f"{site} gives no feature tensor")


def closing(net: StagedNet, images: Tensor) -> dict[str, nn.Module]:
    """Of each stage that ends in a non-linearity, that module: the one whose output is the stage's own."""
    found: dict[str, nn.Module] = {}
    outputs: list[tuple[nn.Module, Tensor]] = []

    def keep(module: nn.Module, _: Any, output: Tensor) -> None:
        outputs.append((module, output))

    modules = [m for stage in net.stages.values() for m in stage.modules() if isinstance(m, NON_LINEAR)]
    handles = [module.register_forward_hook(keep) for module in dict.fromkeys(modules)]
    try:
        with torch.no_grad():
            x = images[:1]
            for name, stage in net.stages.items():
                outputs.clear()
                x = stage(x)
                for module, out in outputs:
                    if out is x:
                        found[name] = module
    finally:
        for handle in handles:
            handle.remove()
    return found


def reduced(values: Tensor) -> Tensor:
    """Maps averaged over space, (B, C, H, W) -> (B, C), or tokens, (B, T, C) -> (B, C); other shapes as they are."""
    if values.ndim == 4:
        return values.mean((2, 3))
    return values.mean(1) if values.ndim == 3 else values


def must_be_finite(site: str, values: Tensor) -> None:
    """Raises UserError (diverged) naming the site and how many of the images give a number that is none."""
    good = torch.isfinite(values.reshape(len(values), -1)).all(1)
    if not bool(good.all()):
        count = int((~good).sum())
        raise UserError("diverged", site, f"non-finite in {count} row{'' if count == 1 else 's'}",
                        hint="The net has diverged")  # fmt: skip
