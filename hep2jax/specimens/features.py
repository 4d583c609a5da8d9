"""Features of cells: the activations of a network before its last layer, as the input of other classifiers.

    extractor = Extractor(from_pretrained("efficientnet_lite0", data), mesh)
    features = extractor.extract(images, tone_curve)      # features.layers["head"] is float32 [cells, 1280]

The network is a published one (`from_pretrained`) or one trained by this project (`from_workdir`, `from_network`).
"""

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32

from hep2jax import mesh as meshes
from hep2jax import models
from hep2jax.config import Config, DataConfig
from hep2jax.data.streams import cells as cell_stream
from hep2jax.data.streams import feeding
from hep2jax.errors import UsageError
from hep2jax.models import pretrained
from hep2jax.progress import say
from hep2jax.tasks import Parameters
from hep2jax.training import evaluation, steps
from hep2jax.training.state import Network

OWN_LAYER = "features"
"""Name of the only layer of a network trained by this project: the input of its last linear layer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureNetwork:
    """A network and its weights, as a source of features."""

    name: str
    data: DataConfig
    """How cells are prepared (see `cells.preprocess`); `crop_size` is the side of the input images."""
    layers: tuple[str, ...]
    """Names of the layers, fine to coarse."""
    parameters: Any
    describe: Callable[[Any, Float[Array, "batch side side 1"]], dict[str, Float[Array, "batch _"]]]
    """Pure function: (parameters, normalised cells) → features by layer."""


def from_pretrained(
    name: str, data: DataConfig, path: str | os.PathLike[str] | None = None, *, side: int | None = None
) -> FeatureNetwork:
    """A published ImageNet network with all its layers except the logits.

    Args:
        name: one of `pretrained.NAMES`.
        data: how cells are prepared; the images are resized to the input size of the network on the accelerator.
        path: file with the weights; None: the installed package.
        side: side of the network's input in pixels; None: as published. If the network accepts it, a smaller side is
            faster.

    Raises:
        UsageError: see `pretrained.load`; or the network does not accept this side.
    """
    network, params = pretrained.load(name, path)
    network.check_side(side or network.side)

    def describe(parameters: Any, pixels: Array) -> dict[str, Array]:
        return network.describe(parameters, network.prepare(pixels[..., 0], side))

    return FeatureNetwork(name=name, data=data, layers=network.layers[:-1], parameters=params, describe=describe)


def from_network(config: Config, network: Network, parameters: Parameters) -> FeatureNetwork:
    """A cell network trained by this project, with the single layer `OWN_LAYER`.

    Raises:
        UsageError: the network is not a cell network.
    """
    if config.model.name not in models.CLASSIFIERS:
        cell_networks = ", ".join(models.CLASSIFIERS)
        raise UsageError(
            f"model.name={config.model.name}: gives no features of cells; the cell networks are {cell_networks}"
        )

    def describe(parameters: Parameters, pixels: Array) -> dict[str, Array]:
        return {OWN_LAYER: nnx.merge(network.graphdef, *parameters).features(pixels)}

    return FeatureNetwork(
        name=config.model.name, data=config.data, layers=(OWN_LAYER,), parameters=parameters, describe=describe
    )


def from_workdir(directory: pathlib.Path) -> FeatureNetwork:
    """The cell network of a work directory, with its averaged parameters.

    Raises:
        UsageError: the directory holds no run or no checkpoint, or the network is not a cell network.
    """
    trained = evaluation.load(directory)
    return from_network(trained.config, trained.network, trained.parameters)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """The features of a list of cells.

    Attributes:
        layers: float32 [cells, width of the layer], by name of the layer.
        seconds: wall time of the extraction without compilation.
    """

    layers: dict[str, Float32[np.ndarray, "cell _"]]
    seconds: float

    def __len__(self) -> int:
        return len(next(iter(self.layers.values())))

    @property
    def cells_per_second(self) -> float:
        """Throughput of the extraction."""
        return len(self) / self.seconds


class Extractor:
    """Computes the features of a network with one compiled function, on batches that are sharded over all devices."""

    def __init__(
        self,
        source: FeatureNetwork,
        mesh: jax.sharding.Mesh,
        *,
        batch_size: int = 64,
        layers: Sequence[str] | None = None,
    ) -> None:
        """Compile for batches of `batch_size` cells; `layers=None` selects all layers of the source.

        Raises:
            UsageError: a layer is unknown, or the batch size is not divisible by the number of devices.
        """
        meshes.check_divides("batch_size", batch_size)
        self.source, self.layers = source, tuple(layers or source.layers)
        for layer in self.layers:
            if layer not in source.layers:
                layer_names = ", ".join(source.layers)
                raise UsageError(f"{source.name} has no layer '{layer}': its layers are {layer_names}")
        self._mesh, self._batch_size = mesh, batch_size
        self._parameters = jax.device_put(source.parameters, meshes.replicated(mesh))
        self._run = self._compile()

    def _compile(self) -> Callable[..., dict[str, jax.Array]]:
        def run(parameters: Any, image: Array, tone_curve: Array) -> dict[str, Array]:
            features = self.source.describe(parameters, steps.normalise(image, tone_curve))
            return {layer: features[layer] for layer in self.layers}

        rows, side = self._batch_size, self.source.data.crop_size
        sharding = meshes.batch_sharding(self._mesh)
        image = jax.ShapeDtypeStruct((rows, side, side), np.uint8, sharding=sharding)
        tone_curve = jax.ShapeDtypeStruct((rows, 4), np.float32, sharding=sharding)
        jitted = jax.jit(run, out_shardings=meshes.replicated(self._mesh))
        return jitted.lower(self._parameters, image, tone_curve).compile()

    def extract(
        self, images: Sequence[np.ndarray], tone_curve: Sequence[np.ndarray], *, quiet: bool = False
    ) -> Features:
        """Features of every cell, in order.

        Args:
            images: prepared images, uint8 (see `cells.preprocess`, with the `data` of the source).
            tone_curve: the tone curve of each image, float32 [4].
            quiet: do not print the throughput.

        Raises:
            UsageError: there are no cells.
        """
        if not images:
            raise UsageError("no cells to extract features from")
        started = time.perf_counter()
        size, side = self._batch_size, self.source.data.crop_size
        batches = cell_stream.plain_batches(images, tone_curve, size=size, side=side, mesh=self._mesh)
        outputs = list(
            feeding.fetched(self._run(self._parameters, batch["image"], batch["tone_curve"]) for batch in batches)
        )
        # The last batch is padded: rows after the last image are dropped.
        layers = {name: np.concatenate([batch[name] for batch in outputs])[: len(images)] for name in self.layers}
        features = Features(layers=layers, seconds=time.perf_counter() - started)
        if not quiet:
            say(f"features of {self.source.name}: {len(images)} cells, {features.cells_per_second:.0f} cells/s")
        return features
