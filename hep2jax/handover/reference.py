"""A synthetic test image, and what hep2jax itself says of it, to compare exported networks with."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, UInt8

from hep2jax import mesh as meshes
from hep2jax import tasks
from hep2jax.data.sets import cells as cell_sets
from hep2jax.tasks.fields import FieldTask, plain_tone_curve, to_native
from hep2jax.tasks.reading import as_fields
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


def in_float32(trained: Trained) -> Trained:
    """The same network, which computes with float32 on every platform: other dtypes would not give the same numbers."""
    train = dataclasses.replace(trained.config.train, compute_dtype="float32")
    config = dataclasses.replace(trained.config, train=train)
    network = states.make_network(config, tasks.num_outputs(config, trained.classes))
    return dataclasses.replace(trained, config=config, network=network)


def make(trained: Trained) -> Reference:
    """The test image for a network, which must compute with float32, and the reading of hep2jax."""
    config = trained.config
    evaluator: Any = tasks.kind(config).reader_class.evaluator_class(config, trained.network, meshes.make_mesh())
    with jax.default_matmul_precision("highest"):
        if tasks.kind(config) is not FieldTask:
            image, mask = _cell()
            ready, curve = cell_sets.preprocess(image, mask > 0, config.data)
            (probabilities,) = evaluator.predict(trained.parameters, [ready], [curve])
            return Reference(image=image, mask=mask, probabilities=probabilities)
        image = _field(round(config.evaluation.tile_size / config.data.scale))
        (field,) = as_fields([image], ["the test image"], config)
        pairs = [(field.working_image, plain_tone_curve(field))]
        (working,) = evaluator.predict(trained.parameters, pairs, [field.working_image.shape])
    return Reference(image=image, mask=None, probabilities=to_native(working, image.shape))


def _field(tile: int) -> UInt8[np.ndarray, "height width"]:
    """A field a little higher and wider than a tile."""
    height, width = tile + tile // 8, tile + tile // 3
    (field,) = generator.generate_specimen(1, "nucleolar", "positive", height=height, width=width, fields=1)
    return field.image


def _cell() -> tuple[UInt8[np.ndarray, "height width"], UInt8[np.ndarray, "height width"]]:
    (field,) = generator.generate_specimen(1, "nucleolar", "positive", height=256, width=256, fields=1)
    largest = max(cell_sets.cut_out(field.image, field.instance_mask).cuts, key=lambda cut: cut.mask.sum())
    return largest.image, np.where(largest.mask, 255, 0).astype(np.uint8)
