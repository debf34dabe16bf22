"""A net of one's own: any torch.nn.Module that ends in one linear layer.

    mixcli train --net my_net.py:build --stages first,second --method synermix

`--stages` names the submodules with which its stages end, in the order they run; it is cut there, and refused where the
parts would not give the bits of the whole. `width` is optional: what the function takes can be typed.
"""

from torch import Tensor, nn


class Plain(nn.Module):
    """Two convolutions, pooling and a linear layer."""

    def __init__(self, channels: int, classes: int, width: int):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.second(self.first(x))).flatten(1))


def build(channels: int, classes: int, width: int = 16) -> nn.Module:
    """The net for images of so many channels and classes."""
    return Plain(channels, classes, width)
