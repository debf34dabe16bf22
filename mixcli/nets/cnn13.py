"""cnn13.py: CNN-13, the 13-layer net of the semi-supervised literature.

S. Laine, T. Aila, "Temporal Ensembling for Semi-Supervised Learning", 2016, arXiv 1610.02242, table 5. Stages: layer1
and layer2 are three 3x3 convolutions, 2x2 max-pooling and dropout each; layer3 is a 3x3 convolution without padding and
two of 1x1; every convolution is followed by BatchNorm and a leaky ReLU. Without the paper's input noise and weight
normalisation, as in ICT. Images have at least 12 pixels a side.
"""

from __future__ import annotations

from torch import nn

from mixcli.nets.staged import StagedNet

SLOPE, DROPOUT = 0.1, 0.5


def cnn13(channels: int, classes: int, width: int = 128) -> StagedNet:
    """CNN-13: 3,121,802 parameters for three channels and ten classes."""
    stages: dict[str, nn.Module] = {
        "layer1": nn.Sequential(*_three(channels, width), nn.MaxPool2d(2), nn.Dropout(DROPOUT)),
        "layer2": nn.Sequential(*_three(width, 2 * width), nn.MaxPool2d(2), nn.Dropout(DROPOUT)),
        "layer3": nn.Sequential(
            *_convolution(2 * width, 4 * width, 3, padding=0),
            *_convolution(4 * width, 2 * width, 1),
            *_convolution(2 * width, width, 1),
        ),
    }
    net = StagedNet(stages, nn.Linear(width, classes))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=SLOPE, mode="fan_out", nonlinearity="leaky_relu")
    return net


def _three(inside: int, outside: int) -> list[nn.Module]:
    sizes = [(inside, outside), (outside, outside), (outside, outside)]
    return [module for a, b in sizes for module in _convolution(a, b, 3, padding=1)]


def _convolution(inside: int, outside: int, side: int, padding: int = 0) -> list[nn.Module]:
    convolution = nn.Conv2d(inside, outside, side, padding=padding, bias=False)
    return [convolution, nn.BatchNorm2d(outside), nn.LeakyReLU(SLOPE, inplace=True)]


BUILDERS = {"cnn-13": cnn13}
