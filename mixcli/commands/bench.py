"""bench.py: bench: what a step, a mixing, a corruption costs here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mixcli.commands.outcome import Debug, Json, Outcome
from mixcli.errors import UserError, nearest

if TYPE_CHECKING:
    pass


def bench(
    what: Annotated[str, typer.Argument(metavar="mixing|step|data|synermix|corruptions|false-positives")],
    net: Annotated[str | None, typer.Option(metavar="NAME", help="of the step; small unless named")] = None,
    names: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="mixings, methods or corruptions; unset: all")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="cpu, cuda or cuda:N; of mixing and step")] = None,
    data_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="where corruptions look for CIFAR-100; else random pictures")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> Outcome:
    """Measure what a step costs here, against the usual way."""
    if what not in BENCHES:
        raise UserError("usage", "bench", "unknown", got=what, hint=nearest(what, BENCHES))
    given = {"net": net, "names": names.split(",") if names else None, "device": device, "data_dir": data_dir}
    for key, of in (("net", ("step",)), ("names", ("step", "mixing", "corruptions")), ("device", ("step", "mixing")),
                    ("data_dir", ("corruptions",))):  # fmt: skip
        option = f"--{key.replace('_', '-')}"
        if given[key] is not None and what not in of:
            raise UserError("usage", option, f"bench {what} has no such option")
    from importlib import import_module

    from mixcli import options
    from mixcli.report import tables

    module, columns = BENCHES[what]
    measure = getattr(import_module(module), what.replace("-", "_"))
    try:
        result = measure(**{key: value for key, value in given.items() if value is not None})
    except UserError as error:
        raise options.located(error) from error
    title = f"bench {what}"
    return Outcome(result, lambda: tables.rows(title, result, columns) if columns else tables.measured(title, result))


BENCHES: dict[str, tuple[str, dict[str, str]]] = {  # where, and the columns of its table, if it has one
    "mixing": (
        "mixcli.studies.bench.mixing_cost",
        {"mixing": "mixing", "per": "per", "pixels": "px", "batch": "batch", "masks_us": "masks", "us": "all",
         "times_naive_masks": "x loop", "times_naive": "x loop all", "times_timm": "x timm",
         "times_torchvision": "x tv"},
    ),
    "step": (
        "mixcli.studies.bench.step_cost",
        {"method": "method", "data_ms": "data", "plan_ms": "plan", "mix_ms": "mix", "forward_ms": "fwd",
         "backward_ms": "bwd", "optimizer_ms": "update", "step_ms": "step", "unbroken_ms": "whole",
         "ratio": "/none", "mixing_share": "share"},
    ),
    "corruptions": (
        "mixcli.studies.bench.corruption_cost",
        {"corruption": "corruption", "us": "ours", "loop_us": "loop", "times": "times", "times_direct": "no PNG",
         "goal": "goal", "loop_images": "loop images"},
    ),
    "false-positives": (
        "mixcli.studies.bench.false_positives",
        {"seeds": "seeds", "noise": "noise of a corruption", "paired_t": "paired t", "wilcoxon": "Wilcoxon",
         "welch": "Welch over runs"},
    ),
    "data": ("mixcli.studies.bench.benchmark", {}),
    "synermix": ("mixcli.studies.bench.benchmark", {}),
}  # fmt: skip
