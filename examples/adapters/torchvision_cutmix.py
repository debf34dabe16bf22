"""torchvision's CutMix, as it is: mixcli check examples/adapters/torchvision_cutmix.py:TorchvisionCutMix"""

from pydantic import Field
from torchvision.transforms import v2

from mixcli.mix import Context, Mix
from mixcli.mixing import foreign
from mixcli.sampling import Random
from mixcli.settings import Mixing


class TorchvisionCutMix(Mixing):
    """torchvision.transforms.v2.CutMix"""

    alpha: float = Field(1.0, description="concentration of Beta(alpha, alpha)")


def draw(settings: TorchvisionCutMix, context: Context, random: Random) -> Mix:
    return foreign.draw(lambda classes: v2.CutMix(alpha=settings.alpha, num_classes=classes), context, random)
