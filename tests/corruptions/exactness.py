"""The share of bytes equal to the reference's, cell by cell, as Markdown: `python -m tests.corruptions.exactness`.

The reference's draws are made again from its seeds and injected into our functions; its outputs must lie beside the
checkout. Impulse noise, drawn by a generator without a seed, and frost, whose textures have no licence, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mixcli.corruptions import catalogue
from mixcli.corruptions.catalogue import SEVERITIES
from mixcli.corruptions.parameters import NAMES, PARAMETERS
from tests.corruptions import reference, test_blur, test_digital, test_noise, test_spatter, test_weather

LEFT_OUT = ("impulse_noise", "frost")
INJECTED = {name: module.injected for module in (test_blur, test_weather, test_digital) for name in NAMES
            if name in module.NAMES} | {"spatter": test_spatter.injected}  # fmt: skip


def equal(name: str, severity: int, side: int) -> tuple[float, int]:
    """The share of equal bytes of a cell and the largest difference in grey levels."""
    clean, parameters = reference.clean(side), PARAMETERS[name][str(side)][severity - 1]
    if name in INJECTED:
        draws = INJECTED[name](name, parameters, severity, clean.shape)
    else:
        draws, _ = test_noise.injected(name, parameters, severity, clean)
    found = catalogue.corrupt(name, torch.from_numpy(clean), severity, draws)
    return reference.share_equal(found, reference.corrupted(side, name, severity))[:2]


def rows() -> Iterator[tuple[str, int, list[tuple[float, int]]]]:
    """Each corruption at each side, severities 1 to 5."""
    for name in NAMES:
        if name not in LEFT_OUT:
            for side in reference.SIDES:
                yield name, side, [equal(name, severity, side) for severity in SEVERITIES]


def markdown() -> Iterator[str]:
    yield "| corruption | px | s1 | s2 | s3 | s4 | s5 | largest difference |"
    yield "|:---|---:|---:|---:|---:|---:|---:|---:|"
    for name, side, found in rows():
        shares = " | ".join("100" if share == 1 else f"{100 * share:.4f}" for share, _ in found)
        yield f"| {name} | {side} | {shares} | {max(worst for _, worst in found)} |"


if __name__ == "__main__":
    print("\n".join(markdown()))
