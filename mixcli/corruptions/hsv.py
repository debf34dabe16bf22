"""hsv.py: colours as hue, saturation and value in float64, and back to bytes, for brightness and saturate.

A. R. Smith, "Color Gamut Transform Pairs", 1978 (the hexcone). All of it is elementwise float64 in one fixed order of
IEEE operations, the order of the published generators, so it gives the same bytes in every batch and on every device.
Deliberate difference from the other corruptions: nothing is snapped before truncation. The round trip leaves many
values a rounding error away from an integer, and whether these fall to the integer below is part of the benchmark:
snapped, up to 15 % of the bytes of a severity differ from the published ones; like this, none of them does.
"""

from __future__ import annotations

import torch
from torch import Tensor


def split(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, H, W, 3) uint8 RGB -> hue in [0, 1), saturation, value, each (B, H, W) float64; grey has hue 0."""
    red, green, blue = images.permute(3, 0, 1, 2).to(torch.float64, memory_format=torch.contiguous_format).div_(255)
    value = torch.maximum(torch.maximum(red, green), blue)
    spread = value - torch.minimum(torch.minimum(red, green), blue)
    grey = spread == 0
    by_green, by_blue = green == value, blue == value  # of equal channels the last one decides
    lead = torch.where(by_blue, red - green, torch.where(by_green, blue - red, green - blue))
    turn = (by_green * 2).masked_fill_(by_blue, 4)
    hue = lead.div_(spread.masked_fill(grey, 1)).add_(turn).div_(6).masked_fill_(grey, 0)
    return hue.add_(hue < 0), spread.div_(value.clamp_min(1 / 255)), value


def merged(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """The inverse of `split`, truncated: three (B, H, W) float64 in [0, 1] -> (B, H, W, 3) uint8 RGB."""
    turned = hue * 6
    sector = turned.floor()
    rise = turned.sub_(sector)
    sector = sector.to(torch.uint8)  # never 6: hues of bytes stay clear of 1
    away = torch.where((sector & 1).bool(), rise, 1 - rise)  # how far the middle channel lies from the top one
    top, middle, bottom = cut(value), cut(value * (1 - away * saturation)), cut(value * (1 - saturation))
    channels = []
    for high, between in (((0, 5), (1, 4)), ((1, 2), (0, 3)), ((3, 4), (2, 5))):  # sectors of red, green, blue
        rest = torch.where((sector == between[0]) | (sector == between[1]), middle, bottom)
        channels.append(torch.where((sector == high[0]) | (sector == high[1]), top, rest))
    return torch.stack(channels, 3)


def cut(values: Tensor) -> Tensor:
    """Numbers in [0, 1] -> uint8: clipped, times 255, truncated and not snapped."""
    return values.clamp(0, 1).mul_(255).to(torch.uint8)
