"""resnet.py: ResNet-18 to -101, ResNeXt-50 and PreAct-ResNet-18 with the CIFAR stem.

K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", 2015, arXiv 1512.03385, and "Identity
Mappings in Deep Residual Networks", 2016, arXiv 1603.05027; S. Xie, R. Girshick, P. Dollar, Z. Tu, K. He, "Aggregated
Residual Transformations for Deep Neural Networks", 2016, arXiv 1611.05431. CIFAR stem: one 3x3 convolution of stride 1,
no max-pooling. Stages: stem, layer1 .. layer4. Every stage of the ResNets closes with a ReLU; those of the
pre-activation net with an addition, its last BatchNorm and ReLU being the neck. As in torchvision: He normal weights,
fan out, and a narrowing bottleneck has its stride in the 3x3 convolution, not in the first 1x1 of the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from mixcli.nets.staged import StagedNet

EXPANSION = 4  # channels of a bottleneck's output over those inside


def conv3x3(inside: int, outside: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)


def _shortcut(inside: int, outside: int, stride: int) -> nn.Sequential:
    """Beside a block: the identity, or where a block changes the shape, a 1x1 convolution and BatchNorm."""
    if stride == 1 and inside == outside:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, ReLU after the addition."""

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = conv3x3(inside, outside, stride), nn.BatchNorm2d(outside)
        self.conv2, self.bn2 = conv3x3(outside, outside), nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(inside, outside, stride)

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


class Bottleneck(nn.Module):
    """1x1 down, 3x3 in groups, 1x1 up, beside a shortcut, ReLU after the addition.

    outside  channels of the block's output, four times those of a block without groups inside
    groups   of the 3x3 convolution; ResNeXt has 32, whose channels together are half the block's
    """

    def __init__(self, inside: int, outside: int, stride: int, groups: int = 1):
        super().__init__()
        inner = outside // EXPANSION if groups == 1 else groups * max(1, outside // (2 * groups))
        self.conv1, self.bn1 = nn.Conv2d(inside, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, outside, 1, bias=False), nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(inside, outside, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        return self.relu(self.bn3(self.conv3(inner)) + self.shortcut(x))


Block = Callable[[int, int, int], nn.Module]  # channels in, channels out, stride


def resnet(channels: int, classes: int, width: int = 64, *, counts: Sequence[int], block: Block) -> StagedNet:
    """A ResNet with the CIFAR stem of `width` channels and four layers of so many blocks."""
    stem = nn.Sequential(conv3x3(channels, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
    first = width if block is BasicBlock else EXPANSION * width
    stages = {"stem": stem, **_layers(block, width, first, counts)}
    return initialise(StagedNet(stages, nn.Linear(8 * first, classes)))


def preact_resnet18(channels: int, classes: int, width: int = 64) -> StagedNet:
    """PreAct-ResNet-18, CIFAR stem."""
    neck = nn.Sequential(nn.BatchNorm2d(8 * width), nn.ReLU(inplace=True))
    layers = _layers(PreActBlock, width, width, (2, 2, 2, 2))
    return initialise(StagedNet({"stem": conv3x3(channels, width), **layers}, nn.Linear(8 * width, classes), neck))


def _layers(block: Block, inside: int, first: int, counts: Sequence[int]) -> dict[str, nn.Module]:
    """Stages of so many blocks, of `first` channels, each but the first halving the side and doubling the channels."""
    layers: dict[str, nn.Module] = {}
    for number, count in enumerate(counts, start=1):
        outside = first * 2 ** (number - 1)
        opening = block(inside, outside, 1 if number == 1 else 2)
        layers[f"layer{number}"] = nn.Sequential(opening, *(block(outside, outside, 1) for _ in range(count - 1)))
        inside = outside
    return layers


def initialise(net: StagedNet) -> StagedNet:
    """He normal weights, fan out, for every convolution; BatchNorm and the head keep torch's own."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


BUILDERS = {
    "resnet18": partial(resnet, counts=(2, 2, 2, 2), block=BasicBlock),
    "resnet34": partial(resnet, counts=(3, 4, 6, 3), block=BasicBlock),
    "resnet50": partial(resnet, counts=(3, 4, 6, 3), block=Bottleneck),
    "resnet101": partial(resnet, counts=(3, 4, 23, 3), block=Bottleneck),
    "resnext50": partial(resnet, counts=(3, 4, 6, 3), block=partial(Bottleneck, groups=32)),
    "preact-resnet18": preact_resnet18,
}
