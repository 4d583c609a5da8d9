"""EfficientNet-Lite0, -1 and -2 as they were trained on ImageNet (see `hep2jax.models.efficientnet`).

Weights: tensorflow/tpu, models/official/efficientnet/lite (2020), Apache-2.0; their conversion to PyTorch and the names
of the modules: package efficientnet-lite-pytorch, Apache-2.0.
"""

from typing import ClassVar

from flax import nnx
from jaxtyping import Array
from typing_extensions import override

from hep2jax.models.efficientnet import (
    GREY_DEVIATION,
    GREY_MEAN,
    HEAD,
    EfficientNetLite0,
    EfficientNetLite1,
    EfficientNetLite2,
    LiteTrunk,
)
from hep2jax.models.layers import global_average
from hep2jax.models.pretrained.network import NUM_CLASSES, ImageNetNetwork, Path, linear, no_values


class ImageNetLite0(ImageNetNetwork):
    """The default of the pre-trained networks: 4.7 million parameters, and weights that can be installed."""

    multiple = 32
    mean = (GREY_MEAN, GREY_MEAN, GREY_MEAN)
    deviation = (GREY_DEVIATION, GREY_DEVIATION, GREY_DEVIATION)
    layers = ("stage3", "stage5", "stage7", "head", "logits")
    reader: ClassVar[type[EfficientNetLite0]] = EfficientNetLite0

    def __init__(self, *, rngs: nnx.Rngs):
        """The trunk is that of `reader`, so that the weights fit it as they are."""
        self.trunk = LiteTrunk(self.reader.repeats, wider=self.reader.wider, init=no_values, rngs=rngs)
        self.fc = linear(HEAD, NUM_CLASSES, rngs=rngs)

    @override
    def describe(self, image: Array) -> dict[str, Array]:
        *stages, last = map(global_average, self.trunk(image, train=False))
        described = {f"stage{number}": stage for number, stage in enumerate(stages, 1)}
        described |= {"head": last, "logits": self.fc(last)}
        return {name: described[name] for name in self.layers}

    @override
    @classmethod
    def torch_module(cls, module: Path) -> str:
        parts = module[1:] if module[0] == "trunk" else module
        return ".".join(str(part) if isinstance(part, int) else f"_{part}" for part in parts)


class ImageNetLite1(ImageNetLite0):
    """5.4 million parameters; published for images of 240 pixels."""

    side, reader = 240, EfficientNetLite1


class ImageNetLite2(ImageNetLite0):
    """6.1 million parameters; published for images of 260 pixels."""

    side, reader = 260, EfficientNetLite2
