"""A synthetic test image, and what hep2jax itself says of it, to compare exported networks with."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, UInt8

from hep2jax import mesh as meshes
from hep2jax import tasks
from hep2jax.data.sets import cells as cell_sets
from hep2jax.data.sets import fields as field_sets
from hep2jax.tasks.fields import FieldTask, to_native, working_pair
from hep2jax.tasks.reading import as_field
from hep2jax.training import state as states
from hep2jax.training.evaluation import Trained
from tfds_builders.hep2_synthetic import generator

TOLERANCE = 1e-4
"""The largest difference of probabilities that is allowed between hep2jax and an exported network."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """A test image: a field, or the crop of one cell."""

    image: UInt8[np.ndarray, "height width"]
    mask: UInt8[np.ndarray, "height width"] | None
    """255 on the cell; None for fields."""
    probabilities: Float32[np.ndarray, "*channels"]
    """Of every pixel, or of the cell."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """A test input of the network itself: a tile of a field at working resolution, or a cell of the input's size."""

    image: UInt8[np.ndarray, "side side"]
    normalised: Float32[np.ndarray, "side side"]
    """The input of the network."""
    percentiles: tuple[float, float] | None
    """The percentiles of the grey levels that become 0 and 1; None: grey levels are divided by 255."""
    probabilities: Float32[np.ndarray, "*channels"]


def in_float32(trained: Trained) -> Trained:
    """The same network, which computes with float32 on every platform: other dtypes would not give the same numbers."""
    train = dataclasses.replace(trained.config.train, compute_dtype="float32")
    config = dataclasses.replace(trained.config, train=train)
    network = states.make_network(config, tasks.num_outputs(config, trained.classes))
    return dataclasses.replace(trained, config=config, network=network)


def make(trained: Trained) -> Reference:
    """The test image for a network, which must compute with float32, and the reading of hep2jax."""
    config, (evaluator, of_fields) = trained.config, _evaluator(trained)
    with jax.default_matmul_precision("highest"):
        if not of_fields:
            image, mask = _cell()
            ready, curve = cell_sets.preprocess(image, mask > 0, config.data)
            (probabilities,) = evaluator.predict(trained.parameters, [ready], [curve])
            return Reference(image=image, mask=mask, probabilities=probabilities)
        image = _field(round(config.evaluation.tile_size / config.data.scale))
        pair = working_pair(as_field(image, "the test image", config))
        (working,) = evaluator.predict(trained.parameters, [pair])
    return Reference(image=image, mask=None, probabilities=to_native(working, image.shape))


def make_tile(trained: Trained) -> Tile:
    """The test tile for a network, which must compute with float32, and the reading of hep2jax."""
    config, (evaluator, of_fields) = trained.config, _evaluator(trained)
    data, side = config.data, config.evaluation.tile_size if of_fields else config.data.crop_size
    if of_fields:
        field = as_field(_field(round(side / data.scale)), "the test image", config)
        image = field.working_image[:side, :side]
        offset, gain = field_sets.grey_normalisation(image, data)
        curve, low = np.array([offset, gain, 1.0, 0.0], np.float32), 50.0
        arguments: tuple = ([(image, curve)],)
    else:
        image = cell_sets.preprocess(*_cell(), data)[0]
        ready, curve = cell_sets.preprocess(image, np.ones(image.shape, bool), data)
        low, arguments = 0.0, ([ready], [curve])
    with jax.default_matmul_precision("highest"):
        (probabilities,) = evaluator.predict(trained.parameters, *arguments)
    return Tile(
        image=image,
        normalised=(image.astype(np.float32) - curve[0]) * curve[1],
        percentiles=None if data.normalise == "none" else (low, data.top_percentile),
        probabilities=probabilities,
    )


def _evaluator(trained: Trained) -> tuple[Any, bool]:
    """The forward pass of evaluation, and whether it is one over fields."""
    kind = tasks.kind(trained.config)
    made = kind.reader_class.evaluator_class(trained.config, trained.network, meshes.make_mesh())
    return made, kind is FieldTask


def _field(tile: int) -> UInt8[np.ndarray, "height width"]:
    """A field a little higher and wider than a tile."""
    height, width = tile + tile // 8, tile + tile // 3
    (field,) = generator.generate_specimen(1, "nucleolar", "positive", height=height, width=width, fields=1)
    return field.image


def _cell() -> tuple[UInt8[np.ndarray, "height width"], UInt8[np.ndarray, "height width"]]:
    (field,) = generator.generate_specimen(1, "nucleolar", "positive", height=256, width=256, fields=1)
    largest = max(cell_sets.cut_out(field.image, field.instance_mask).cuts, key=lambda cut: cut.mask.sum())
    return largest.image, np.where(largest.mask, 255, 0).astype(np.uint8)
