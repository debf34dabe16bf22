"""hsv.py: colours as hue, saturation and value in float64, and back to bytes, for brightness and saturate.

A. R. Smith, "Color Gamut Transform Pairs", 1978 (the hexcone). All of it is elementwise float64 in one fixed order of
IEEE operations, the order of the published generators, so it gives the same bytes in every batch and on every device.
Deliberate difference from the other corruptions: nothing is snapped before truncation. The round trip leaves many
values a rounding error away from an integer, and whether these fall to the integer below is part of the benchmark:
snapped, up to 15 % of the bytes of a severity differ from the published ones; like this, none of them does.
"""

from __future__ import annotations

from functools import lru_cache

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


def lifted(images: Tensor, lift: float) -> Tensor:
    """V' = min(V + lift, 1): (B, H, W, 3) uint8 RGB -> uint8, by `split` and `merged` or what gives the same bytes.

    Each channel becomes x V' / V, which is a table over (V, x). It is right for the highest and the lowest channel, and
    for the middle one unless its exact value is an integer: there the rounding errors of the hue decide, so such pixels
    go the long way: 2 to 6 % of CIFAR-100's.
    """
    planes = images.permute(3, 0, 1, 2).contiguous()
    red, green, blue = planes
    top, low = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    middle = red + green + blue - top - low  # wraps around twice
    table, doubtful = _lifts(lift, images.device)
    row = top.int() << 8
    found = table.index_select(0, (planes.int() + row).view(-1)).view(3, -1)
    doubt = doubtful.index_select(0, row.add_(middle).view(-1)).logical_and_((top != low).view(-1))
    places = doubt.nonzero().squeeze(1)
    colours = planes.view(3, -1).index_select(1, places).T[:, None, None]
    found.index_copy_(1, places, _lifted_pixel_by_pixel(colours, lift)[:, 0, 0].T)
    return found.view(planes.shape).permute(1, 2, 3, 0).contiguous()


def _lifted_pixel_by_pixel(images: Tensor, lift: float) -> Tensor:
    hue, saturation, value = split(images)
    return merged(hue, saturation, value.add_(lift).clamp_(0, 1))


@lru_cache(maxsize=16)
def _lifts(lift: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """At 256 V + x, (65536,) each: x V' / V as uint8, and whether it is an integer, but 0, in exact arithmetic."""
    value, x = (one.to(device).flatten() for one in torch.meshgrid(*[torch.arange(256)] * 2, indexing="ij"))
    colours = torch.stack([value, x.minimum(value), x.minimum(value)], 1).to(torch.uint8)
    table = _lifted_pixel_by_pixel(colours[:, None, None], lift)[:, 0, 0, 1].contiguous()
    exact = x * (value + 255 * lift).clamp_max(255) / value.clamp_min(1)
    return table, ((exact - exact.round()).abs() < 1e-6) & (x > 0)


def cut(values: Tensor) -> Tensor:
    """Numbers in [0, 1] -> uint8: clipped, times 255, truncated and not snapped."""
    return values.clamp(0, 1).mul_(255).to(torch.uint8)
