# pyright: reportUnknownMemberType=false
"""AlexNet and VGG-16: convolutions, max pools, three fully connected layers, in the layout of torchvision."""

from flax import nnx
from jaxtyping import Array
from typing_extensions import override

from hep2jax.models.layers import global_average
from hep2jax.models.pretrained.network import NUM_CLASSES, ImageNetNetwork, convolution, linear
from hep2jax.ops import max_pool

_HIDDEN = 4096


class AlexNet(ImageNetNetwork):
    """AlexNet as torchvision publishes it: one stream, 64-192-384-256-256 (Krizhevsky, arXiv 1404.5997, 2014).

    Cascio, Taormina, Raso 2019 use AlexNet features. Their weights (two groups, 227 pixels) are those of another
    library, so this is the nearest published network, not the same one.
    """

    layers = ("conv3", "conv4", "conv5", "fc6", "fc7", "logits")
    flattened = {"classifier.1": (256, 6, 6)}
    _POOLED = ("0", "3", "10")
    _NAMES = {"6": "conv3", "8": "conv4", "10": "conv5"}

    def __init__(self, *, rngs: nnx.Rngs):
        """Modules have torchvision's names."""
        first = convolution(3, 64, 11, stride=4, padding=2, bias=True, rngs=rngs)
        plan = {"3": (64, 192, 5), "6": (192, 384, 3), "8": (384, 256, 3), "10": (256, 256, 3)}
        later = {name: convolution(*sides, bias=True, rngs=rngs) for name, sides in plan.items()}
        self.features: nnx.Dict[nnx.Conv] = nnx.Dict({"0": first, **later})
        self.classifier = _classifier(256 * 36, ("1", "4", "6"), rngs=rngs)

    @override
    def describe(self, image: Array) -> dict[str, Array]:
        described: dict[str, Array] = {}
        x = image
        for name in ("0", "3", "6", "8", "10"):
            x = nnx.relu(self.features[name](x))
            x = nnx.max_pool(x, (3, 3), (2, 2)) if name in self._POOLED else x
            if name in self._NAMES:
                described[self._NAMES[name]] = global_average(x)
        return described | _classify(self.classifier, x)


class Vgg16(ImageNetNetwork):
    """VGG-16, configuration D (Simonyan and Zisserman, ICLR 2015), as torchvision publishes it: no norms."""

    layers = ("conv3", "conv4", "conv5", "fc6", "fc7", "logits")
    flattened = {"classifier.0": (512, 7, 7)}
    _STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    """Channels and number of convolutions of each stage; each stage ends with a 2x2 max pool."""

    def __init__(self, *, rngs: nnx.Rngs):
        """Modules have torchvision's names, which also number the ReLUs and pools."""
        self.features: nnx.Dict[nnx.Conv] = nnx.Dict()
        channels, number = 3, 0
        for out, count in self._STAGES:
            for _ in range(count):
                self.features[str(number)] = convolution(channels, out, 3, bias=True, rngs=rngs)
                channels, number = out, number + 2
            number += 1
        self.classifier = _classifier(512 * 49, ("0", "3", "6"), rngs=rngs)

    @override
    def describe(self, image: Array) -> dict[str, Array]:
        described: dict[str, Array] = {}
        x: Array = image
        number = 0
        for stage, (_, count) in enumerate(self._STAGES, 1):
            for position in range(number, number + 2 * count, 2):
                x = nnx.relu(self.features[str(position)](x))
            x = max_pool(x)
            number += 2 * count + 1
            described[f"conv{stage}"] = global_average(x)
        return {name: described[name] for name in self.layers[:3]} | _classify(self.classifier, x)


def _classifier(inputs: int, names: tuple[str, str, str], *, rngs: nnx.Rngs) -> nnx.Dict[nnx.Linear]:
    sides = ((inputs, _HIDDEN), (_HIDDEN, _HIDDEN), (_HIDDEN, NUM_CLASSES))
    return nnx.Dict({name: linear(*pair, rngs=rngs) for name, pair in zip(names, sides, strict=True)})


def _classify(classifier: nnx.Dict[nnx.Linear], x: Array) -> dict[str, Array]:
    fc6, fc7, last = classifier.values()
    sixth = nnx.relu(fc6(x.reshape(len(x), -1)))
    seventh = nnx.relu(fc7(sixth))
    return {"fc6": sixth, "fc7": seventh, "logits": last(seventh)}
