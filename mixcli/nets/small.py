"""small.py: a residual net for images of 8 to 32 pixels, trained in seconds on a CPU.

Stages stem, layer1, layer2, layer3: one residual block each, the last two halving the side. Everything that holds for
the large ResNets (named stages, BatchNorm, a ReLU closing each stage) holds here, so a study tried on it runs
unchanged there.
"""

from __future__ import annotations

from torch import nn

from mixcli.nets.resnet import BasicBlock, conv3x3, initialise
from mixcli.nets.staged import StagedNet


def small(channels: int, classes: int, width: int = 16) -> StagedNet:
    """Residual net of 77,754 parameters for one channel, ten classes and width 16."""
    stem = nn.Sequential(conv3x3(channels, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
    stages: dict[str, nn.Module] = {
        "stem": stem,
        "layer1": BasicBlock(width, width, 1),
        "layer2": BasicBlock(width, 2 * width, 2),
        "layer3": BasicBlock(2 * width, 4 * width, 2),
    }
    return initialise(StagedNet(stages, nn.Linear(4 * width, classes)))


BUILDERS = {"small": small}
