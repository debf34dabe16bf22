"""parameters.py: the names of the corruptions, and what each severity means, for every size column.

Columns "32", "64" and "224" are those of the scripts that made CIFAR-10-C, Tiny-ImageNet-C and ImageNet-C (Hendrycks
and Dietterich 2019, arXiv 1903.12261); "tiny" (shorter side 8 to 15) is ours: the published columns either do nothing
at 8 x 8 or destroy the image. Five entries a column, severity 1 first. The tables of elastic_transform, glass_blur and
saturate are not ordered: a higher severity need not be further from the clean image.
Lengths that follow the image are given per pixel of its shorter side: elastic's three, frost's texture scale.
"""

from __future__ import annotations

from typing import Any, Literal

Column = Literal["tiny", "32", "64", "224"]
STANDARD = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
NAMES = (*STANDARD, *EXTRA)
FAMILIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
    "weather": ("snow", "frost", "fog", "brightness", "spatter"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression", "saturate"),
}
SIDES = {"32": 32, "64": 64, "224": 224}  # the side at which a column's parameters are the published ones


def _snow(*keep: float) -> tuple:
    """The 32 and 64 columns differ in the last number alone."""
    first = ((0.1, 0.2, 1, 0.6, 8, 3), (0.1, 0.2, 1, 0.5, 10, 4), (0.15, 0.3, 1.75, 0.55, 10, 4),
             (0.25, 0.3, 2.25, 0.6, 12, 6), (0.3, 0.3, 1.25, 0.65, 14, 12))  # fmt: skip
    return tuple((*six, k) for six, k in zip(first, keep, strict=True))


# fmt: off
_FOG_32 = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))
_BRIGHTNESS_32, _BRIGHTNESS_64 = (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)
_CONTRAST_32, _CONTRAST_64 = (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)
_JPEG_224 = (25, 18, 15, 10, 7)
_SIGMA_224, _PHOTONS_224 = (0.08, 0.12, 0.18, 0.26, 0.38), (60, 25, 12, 5, 3)
_IMPULSE_224, _SPECKLE_224 = (0.03, 0.06, 0.09, 0.17, 0.27), (0.15, 0.2, 0.35, 0.45, 0.6)
_BLUR_32 = (0.4, 0.6, 0.7, 0.8, 1)
_DEFOCUS_32 = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))
_ZOOM_32 = tuple((0.01, count) for count in (7, 12, 16, 21, 26))

PARAMETERS: dict[str, dict[str, tuple[Any, ...]]] = {
    # standard deviation in units of white
    "gaussian_noise": {"tiny": _SIGMA_224, "32": (0.04, 0.06, 0.08, 0.09, 0.1), "64": (0.04, 0.08, 0.12, 0.15, 0.18),
                       "224": _SIGMA_224},
    # photons at white
    "shot_noise": {"tiny": _PHOTONS_224, "32": (500, 250, 100, 75, 50), "64": (250, 100, 50, 30, 15),
                   "224": _PHOTONS_224},
    # share of values replaced
    "impulse_noise": {"tiny": _IMPULSE_224, "32": (0.01, 0.02, 0.03, 0.05, 0.07), "64": (0.01, 0.02, 0.05, 0.08, 0.14),
                      "224": _IMPULSE_224},
    # radius, sigma of the smoothing of the disc, px
    "defocus_blur": {"tiny": _DEFOCUS_32, "32": _DEFOCUS_32,
                     "64": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
                     "224": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))},
    # sigma, delta, iterations
    "glass_blur": {"32": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
                   "64": ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
                   "224": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))},
    # radius, sigma, px; the angle is drawn
    "motion_blur": {"tiny": ((2, 0.5), (2, 0.75), (2, 1), (3, 1.25), (3, 1.5)),
                    "32": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
                    "64": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
                    "224": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))},
    # step between the factors, number of factors from 1 on
    "zoom_blur": {"tiny": tuple((0.04, count) for count in (7, 12, 16, 21, 26)), "32": _ZOOM_32, "64": _ZOOM_32,
                  "224": ((0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11))},
    # mean, standard deviation, zoom, threshold, blur radius, blur sigma, keep
    "snow": {"32": _snow(0.95, 0.9, 0.9, 0.85, 0.8), "64": _snow(0.8, 0.8, 0.7, 0.65, 0.6),
             "224": ((0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
                     (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55))},
    # weight of the image, weight of the texture, texture scale per pixel of the shorter side
    "frost": {"32": tuple((a, b, 0.2 / 32) for a, b in ((1, .2), (1, .3), (.9, .4), (.85, .4), (.75, .45))),
              "64": tuple((a, b, 0.3 / 64) for a, b in ((1, .3), (.9, .4), (.8, .45), (.75, .5), (.7, .55))),
              "224": tuple((a, b, 1 / 224) for a, b in ((1, .4), (.8, .6), (.7, .7), (.65, .7), (.6, .75)))},
    # amount, decay; the side of the map is the next power of two
    "fog": {"tiny": _FOG_32, "32": _FOG_32, "64": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
            "224": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))},
    # added to V
    "brightness": {"tiny": _BRIGHTNESS_32, "32": _BRIGHTNESS_32, "64": _BRIGHTNESS_64, "224": _BRIGHTNESS_64},
    # gain
    "contrast": {"tiny": _CONTRAST_32, "32": _CONTRAST_32, "64": _CONTRAST_64, "224": _CONTRAST_64},
    # alpha, sigma, affine jitter, each per pixel of the shorter side; at 224 the published ones are times 244 (sic)
    "elastic_transform": {
        "32": ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        "64": ((0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)),
        "224": tuple(tuple(value * 244 / 224 for value in three) for three in (
            (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)))},
    # scale of the sides
    "pixelate": {"tiny": (0.875, 0.75, 0.5, 0.375, 0.25), "32": (0.95, 0.9, 0.85, 0.75, 0.65),
                 "64": (0.9, 0.8, 0.7, 0.6, 0.5), "224": (0.6, 0.5, 0.4, 0.3, 0.25)},
    # quality
    "jpeg_compression": {"tiny": _JPEG_224, "32": (80, 65, 58, 50, 40), "64": (65, 58, 50, 40, 25), "224": _JPEG_224},
    # standard deviation in units of the value itself
    "speckle_noise": {"tiny": _SPECKLE_224, "32": (0.06, 0.1, 0.12, 0.16, 0.2), "64": (0.15, 0.2, 0.25, 0.3, 0.35),
                      "224": _SPECKLE_224},
    # sigma, px
    "gaussian_blur": {"tiny": _BLUR_32, "32": _BLUR_32, "64": (0.5, 0.75, 1, 1.25, 1.5), "224": (1, 2, 3, 4, 6)},
    # mean, standard deviation, blur sigma, threshold, strength (water) or second blur sigma (mud), whether mud
    "spatter": {
        "32": ((0.62, 0.1, 0.7, 0.7, 0.5, 0), (0.65, 0.1, 0.8, 0.7, 0.5, 0), (0.65, 0.3, 1, 0.69, 0.5, 0),
               (0.65, 0.1, 0.7, 0.69, 0.6, 1), (0.65, 0.1, 0.5, 0.68, 0.6, 1)),
        "64": ((0.62, 0.1, 0.7, 0.7, 0.6, 0), (0.65, 0.1, 0.8, 0.7, 0.6, 0), (0.65, 0.3, 1, 0.69, 0.6, 0),
               (0.65, 0.1, 0.7, 0.68, 0.6, 1), (0.65, 0.1, 0.5, 0.67, 0.6, 1)),
        "224": ((0.65, 0.3, 4, 0.69, 0.6, 0), (0.65, 0.3, 3, 0.68, 0.6, 0), (0.65, 0.3, 2, 0.68, 0.5, 0),
                (0.65, 0.3, 1, 0.65, 1.5, 1), (0.67, 0.4, 1, 0.65, 1.5, 1))},
    # a and b of S' = a S + b
    "saturate": {"32": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
                 "64": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
                 "224": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))},
}
# fmt: on
PARAMETERS["frost_procedural"] = PARAMETERS["frost"]
