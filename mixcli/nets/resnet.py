"""resnet.py: ResNet-18 and PreAct-ResNet-18 with the CIFAR stem.

K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", 2015, arXiv 1512.03385, and "Identity
Mappings in Deep Residual Networks", 2016, arXiv 1603.05027. CIFAR stem: one 3x3 convolution of stride 1, no
max-pooling. Stages: stem, layer1 .. layer4. Every stage of the ResNet closes with a ReLU; those of the pre-activation
net with an addition, its last BatchNorm and ReLU being the neck. Initialisation is torchvision's: He normal, fan out.
"""

from __future__ import annotations

from torch import Tensor, nn

from mixcli.nets.staged import StagedNet


def conv3x3(inside: int, outside: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, ReLU after the addition."""

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = conv3x3(inside, outside, stride), nn.BatchNorm2d(outside)
        self.conv2, self.bn2 = conv3x3(outside, outside), nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class PreActBlock(nn.Module):
    """BatchNorm and ReLU before each convolution; a narrowing block's shortcut starts after the first pair."""

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inside), conv3x3(inside, outside, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outside), conv3x3(outside, outside)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = None
        if stride != 1 or inside != outside:
            self.shortcut = nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu(self.bn1(x))
        inner = self.conv2(self.relu(self.bn2(self.conv1(active))))
        return inner + (x if self.shortcut is None else self.shortcut(active))


def resnet18(channels: int, classes: int, width: int = 64) -> StagedNet:
    """ResNet-18, CIFAR stem: 11,220,132 parameters for three channels and 100 classes."""
    stem = nn.Sequential(conv3x3(channels, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
    return initialise(StagedNet({"stem": stem, **_layers(BasicBlock, width)}, nn.Linear(8 * width, classes)))


def preact_resnet18(channels: int, classes: int, width: int = 64) -> StagedNet:
    """PreAct-ResNet-18, CIFAR stem."""
    neck = nn.Sequential(nn.BatchNorm2d(8 * width), nn.ReLU(inplace=True))
    stages: dict[str, nn.Module] = {"stem": conv3x3(channels, width), **_layers(PreActBlock, width)}
    return initialise(StagedNet(stages, nn.Linear(8 * width, classes), neck))


def _layers(block: type[BasicBlock] | type[PreActBlock], width: int) -> dict[str, nn.Module]:
    """Four stages of two blocks, each but the first halving the side and doubling the channels."""
    layers: dict[str, nn.Module] = {}
    inside = width
    for number, outside in enumerate([width, 2 * width, 4 * width, 8 * width], start=1):
        first = block(inside, outside, 1 if number == 1 else 2)
        layers[f"layer{number}"] = nn.Sequential(first, block(outside, outside, 1))
        inside = outside
    return layers


def initialise(net: StagedNet) -> StagedNet:
    """He normal weights, fan out, for every convolution; BatchNorm and the head keep torch's own."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


BUILDERS = {"resnet18": resnet18, "preact-resnet18": preact_resnet18}
