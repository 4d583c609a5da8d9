"""What an exported program computes: from grey images to probabilities, with all that hep2jax does in between."""

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float32, UInt8

from hep2jax import ops, tasks
from hep2jax.config import Config
from hep2jax.data import tiles
from hep2jax.data.sets import cells as cell_sets
from hep2jax.data.sets import fields as field_sets
from hep2jax.errors import UsageError
from hep2jax.handover import resampling
from hep2jax.tasks.cells import CellTask
from hep2jax.tasks.fields import FieldTask
from hep2jax.training import steps
from hep2jax.training.evaluation import Trained

Predict = Callable[[Array, Array], Array]
"""(grey levels [batch, side, side], tone curves float32 [batch, 4]) → probabilities, float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A function of images that can be exported, and what its users must know of it."""

    run: Callable[..., Array]
    """(uint8 images [batch, height, width]; for networks of masked cells also their uint8 masks) → probabilities,
    float32 [batch, patterns] of cells, float32 [batch, height, width, 1 + patterns] of fields."""
    reads_fields: bool
    takes_masks: bool
    least_side: int
    """Smallest height and width of images."""
    channels: tuple[str, ...]
    """The meaning of the last axis of the probabilities."""


def make(trained: Trained) -> Program:
    """The program of a trained network.

    Raises:
        UsageError: networks of this kind, or with such images, cannot be exported.
    """
    check(trained.config)
    if tasks.kind(trained.config) is FieldTask:
        scale = Fraction(str(trained.config.data.scale))
        return Program(
            run=_of_fields(trained.config, predict_step(trained)),
            reads_fields=True,
            takes_masks=False,
            least_side=max(8, -(-2 * scale.denominator // scale.numerator)),
            channels=("background", *trained.classes),
        )
    return Program(
        run=_of_cells(trained.config, predict_step(trained)),
        reads_fields=False,
        takes_masks=trained.config.data.masked,
        least_side=2,
        channels=trained.classes,
    )


def check(config: Config) -> None:
    """Raise UsageError if the network of this configuration cannot be exported."""
    kind, data = tasks.kind(config), config.data
    if kind not in (FieldTask, CellTask):
        raise UsageError(
            f"--workdir: its network is '{config.model.name}', which cannot be exported; networks that segment fields "
            "or classify single cells can"
        )
    normalisations = ("field", "none") if kind is FieldTask else ("contrast_stretch", "none")
    choices: list[tuple[str, Any, tuple[Any, ...]]] = [("data.normalise", data.normalise, normalisations)]
    if kind is FieldTask:
        options = config.evaluation
        choices += [("evaluation.unsure_band", options.unsure_band, (0.0,))]
        choices += [("evaluation.cell_reader", options.cell_reader, ("",))]
    if kind is CellTask:
        choices += [("data.cell_fit", data.cell_fit, ("stretch",)), ("data.cell_margin", data.cell_margin, (-1.0,))]
    for key, value, possible in choices:
        if value not in possible:
            raise UsageError(
                f"--workdir: its network was trained with {key}={value}, which cannot be exported; "
                f"{' and '.join(repr(name) if name == '' else str(name) for name in possible)} can"
            )


def predict_step(trained: Trained) -> Predict:
    """The network's forward pass and its decoding, as in evaluation, with the parameters inside."""
    decode, dihedral = tasks.kind(trained.config).decode, trained.config.evaluation.dihedral
    predict = steps.make_predict_step(trained.network, decode, dihedral=dihedral)
    parameters = jax.tree.map(jnp.asarray, jax.device_get(trained.parameters))

    def run(image: Array, tone_curve: Array) -> Array:
        # Formulations for one platform would not run fast, or not at all, on the others.
        with ops.target(ops.PLAIN), jax.default_matmul_precision("highest"):
            return predict(*parameters, image, tone_curve)

    return run


def _of_fields(config: Config, predict: Predict) -> Callable[[Array], Array]:
    scale, options = Fraction(str(config.data.scale)), config.evaluation

    def run(image: UInt8[Array, "batch height width"]) -> Float32[Array, "batch height width channel"]:
        working = resampling.reduce(image.astype(jnp.float32), scale)
        curve = _field_curve(working, config)
        padded = resampling.mirrored(working, options.tile_size)
        blended = _by_tiles(padded, lambda tile: predict(tile, curve), options.tile_size, options.tile_overlap)
        height, width = working.shape[1:]
        return resampling.enlarge(blended[:, :height, :width], *image.shape[1:])

    return run


def _field_curve(working: Array, config: Config) -> Float32[Array, "batch 4"]:
    if config.data.normalise == "none":
        return _curve(*_unchanged(working))
    background, top = (resampling.percentile(working, percent) for percent in (50, config.data.top_percentile))
    return _curve(background, jnp.maximum(top - background, field_sets.MIN_GREY_SPAN))


def _unchanged(images: Array) -> tuple[Array, Array]:
    """The offset and the span of grey levels without normalisation."""
    return jnp.zeros(images.shape[0]), jnp.full(images.shape[0], 255.0)


def _curve(offset: Array, span: Array, mean: Array | float = 0.0) -> Float32[Array, "batch 4"]:
    """Tone curves without augmentation (see `steps.normalise`)."""
    ones = jnp.ones_like(offset)
    return jnp.stack([offset, 1 / span, ones, -mean * ones], axis=1).astype(jnp.float32)


def _by_tiles(
    padded: Float32[Array, "batch _ _"], predict: Callable[[Array], Array], tile: int, overlap: int
) -> Float32[Array, "batch _ _ channel"]:
    """Predictions for overlapping tiles, blended as by `tiles.Blender`. The tiles at one place are one batch."""
    height, width = (jnp.asarray(side) for side in padded.shape[1:])
    rows, columns = (num_tiles(side, tile, overlap) for side in (height, width))
    window = jnp.asarray(tiles.window(tile, overlap))[..., None]
    channels = jax.eval_shape(predict, jax.ShapeDtypeStruct((padded.shape[0], tile, tile), jnp.float32)).shape[-1]

    def add(number: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        top = start(number // columns, rows, height, tile)
        left = start(number % columns, columns, width, tile)
        pixels = lax.dynamic_slice(padded, (0, top, left), (padded.shape[0], tile, tile))
        return _added(sums[0], predict(pixels) * window, top, left), _added(sums[1], window[None], top, left)

    zeros = jnp.zeros((*padded.shape, channels)), jnp.zeros((1, *padded.shape[1:], 1))
    total, weight = lax.fori_loop(0, rows * columns, add, zeros)
    return total / weight


def _added(total: Array, part: Array, top: Array, left: Array) -> Array:
    corner = (0, top, left, 0)
    return lax.dynamic_update_slice(total, lax.dynamic_slice(total, corner, part.shape) + part, corner)


def num_tiles(length: ArrayLike, tile: int, overlap: int) -> Array:
    """The number of tiles along an axis of at least `tile` pixels, as of `tiles.starts`."""
    return jnp.maximum(1, -((overlap - jnp.asarray(length)) // (tile - overlap)))


def start(number: Array, count: Array, length: Array, tile: int) -> Array:
    """First pixel of the tile with this number among `count` along an axis of `length` pixels: as of `tiles.starts`.

    Halves are rounded to the even number. Where `starts` misses a half by its rounding, which begins at some 4,000
    pixels, the tile is one pixel away.
    """
    gaps = jnp.maximum(count - 1, 1)
    quotient, rest = jnp.divmod(number * (length - tile), gaps)
    return quotient + ((2 * rest > gaps) | (2 * rest == gaps) & (quotient % 2 == 1))


def _of_cells(config: Config, predict: Predict) -> Callable[..., Array]:
    data = config.data

    def run(
        image: UInt8[Array, "batch height width"], mask: UInt8[Array, "batch height width"] | None = None
    ) -> Float32[Array, "batch pattern"]:
        grey = image.astype(jnp.float32)
        if mask is not None:
            grey = jnp.where(mask > 0, grey, grey.min(axis=(1, 2), keepdims=True))
        ready = resampling.stretch(grey, data.crop_size)
        offset, span = _cell_range(grey, config)
        centred = (ready - offset[:, None, None]) / span[:, None, None]
        return predict(ready, _curve(offset, span, centred.mean((1, 2)) if data.mean_centring else 0.0))

    return run


def _cell_range(grey: Array, config: Config) -> tuple[Array, Array]:
    """The grey level of each cell that becomes 0, and the span that becomes 1."""
    if config.data.normalise == "none":
        return _unchanged(grey)
    low, high = grey.min(axis=(1, 2)), resampling.percentile(grey, config.data.top_percentile)
    return low, jnp.maximum(high - low, cell_sets.MIN_GREY_SPAN)
