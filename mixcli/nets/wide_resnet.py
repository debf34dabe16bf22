"""wide_resnet.py: Wide ResNets of depth 28, those of the semi-supervised literature and of OpenMixup among them.

S. Zagoruyko, N. Komodakis, "Wide Residual Networks", 2016, arXiv 1605.07146. Stages: stem (3x3, 16 channels), layer1 ..
layer3 of four pre-activation blocks each, the last two halving the side; the closing BatchNorm and ReLU are the neck.
`width` is the channels of layer1, 16 times the widening factor: 32 for WRN-28-2; MixMatch's large net has 135. Without
the dropout that the paper tries inside the blocks.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from mixcli.nets.resnet import PreActBlock, conv3x3, initialise
from mixcli.nets.staged import StagedNet

STEM, BLOCKS = 16, 4


def wide_resnet28(channels: int, classes: int, width: int = 32) -> StagedNet:
    """WRN-28-2: 1,467,610 parameters for three channels and ten classes; -8 has 23,354,842 and -10 36,479,194."""
    stages: dict[str, nn.Module] = {"stem": conv3x3(channels, STEM)}
    inside = STEM
    for number, outside in enumerate([width, 2 * width, 4 * width], start=1):
        first = PreActBlock(inside, outside, 1 if number == 1 else 2)
        rest = [PreActBlock(outside, outside, 1) for _ in range(BLOCKS - 1)]
        stages[f"layer{number}"] = nn.Sequential(first, *rest)
        inside = outside
    neck = nn.Sequential(nn.BatchNorm2d(inside), nn.ReLU(inplace=True))
    return initialise(StagedNet(stages, nn.Linear(inside, classes), neck))


BUILDERS = {
    "wrn-28-2": wide_resnet28,
    "wrn-28-8": partial(wide_resnet28, width=128),
    "wrn-28-10": partial(wide_resnet28, width=160),
}
