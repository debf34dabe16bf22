"""timm's Mixup, as it is: mixcli check examples/adapters/timm_mixup.py:TimmMixup (with the extra timm)"""

from typing import Literal

from pydantic import Field
from timm.data.mixup import Mixup

from mixcli.mix import Context, Mix
from mixcli.mixing import foreign
from mixcli.sampling import Random
from mixcli.settings import Fraction, Mixing


class TimmMixup(Mixing):
    """timm's Mixup and CutMix with timm's defaults (Wightman, pytorch-image-models)"""

    mixup_alpha: float = Field(1.0, description="of Beta for MixUp; 0 for none")
    cutmix_alpha: float = Field(0.0, description="of Beta for CutMix; 0 for none")
    mode: Literal["batch", "pair", "elem"] = Field("batch", description="draw once, per pair of images, or per image")
    smoothing: Fraction = Field(0.1, description="label smoothing")
    probability: Fraction = Field(1.0, description="chance to mix at all")


def draw(settings: TimmMixup, context: Context, random: Random) -> Mix:
    options = {"prob": settings.probability, "mode": settings.mode, "label_smoothing": settings.smoothing}
    alphas = {"mixup_alpha": settings.mixup_alpha, "cutmix_alpha": settings.cutmix_alpha}
    return foreign.draw(lambda classes: Mixup(**alphas, **options, num_classes=classes), context, random)
