# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
"""The training step and the prediction step: pure functions of state and batch, compiled once, without I/O."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, UInt8

from hep2jax import mesh as meshes
from hep2jax import ops
from hep2jax.config import Config, Frozen
from hep2jax.data.augment import intensity, mixup
from hep2jax.data.sets import framing
from hep2jax.data.streams.packed import Packed, unpack
from hep2jax.models import layers, mixstyle
from hep2jax.training import optimizers, packing
from hep2jax.training.state import Network, TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
Constants = dict[str, jax.Array]
"""Arrays that every step reads: `class_weights`, float32 [outputs]; with `data.warp=device` also those of
`data.canvases`."""

Loss = Callable[[Config, Any, Array, Any, Batch, Array], Array]
"""(config, network, image, output, batch, class weights) → the scalar to minimise. The image is as `normalise` returns
it, and the output is the network's for this image."""
Decode = Callable[[Any], Any]
"""A network's output → the arrays to average over views; their first axis is the images (or has one entry per view)."""

NORMALISED_RANGE = (-1.0, 4.0)  # limits the influence of a hot pixel on a batch
NET_RANGE, MAD_RANGE = (-1.0, 40.0), (-4.0, 8.0)  # bright dots reach 10 times the mean, and 4 spans above the median


def normalise(
    image: UInt8[Array, "batch height width *depth"] | Float[Array, "batch height width *depth"],
    tone_curve: Float[Array, "batch *curve 4"],
) -> Float[Array, "batch height width channel"]:
    """Map grey levels to about [0, 1]: (grey - offset) * gain, then the exponent on the positive part, then the shift.

    The rows of `tone_curve` are (offset in grey levels, gain per grey level, exponent, shift).

    A frame of a cell, whose second channel is depth, has two curves and becomes three channels: the inverse hyperbolic
    sine of the first curve (*net*), the second curve (*mad*), and the depth in cell radii, positive inside (see
    `data.sets.framing`).
    """
    if image.ndim == 3:
        return _toned(image, tone_curve, NORMALISED_RANGE)[..., None]
    grey, depth = image[..., 0], framing.decoded_depth(image[..., 1].astype(jnp.float32))
    net, mad = _toned(grey, tone_curve[:, 0], NET_RANGE), _toned(grey, tone_curve[:, 1], MAD_RANGE)
    return jnp.stack([jnp.arcsinh(net), mad, depth], axis=-1)


def _toned(grey: Array, tone_curve: Array, limits: tuple[float, float]) -> Float[Array, "batch height width"]:
    offset, gain, exponent, shift = (tone_curve[:, i, None, None] for i in range(4))
    value = jnp.clip((grey.astype(jnp.float32) - offset) * gain, *limits)
    bright = value > 0
    curved = jnp.where(bright, jnp.where(bright, value, 1.0) ** exponent, value)
    return curved + shift


def make_loss(config: Config, network: Network, loss: Loss) -> Callable[..., tuple[jax.Array, Any]]:
    """`loss_fn(params, batch_stats, batch, class_weights, key) -> (loss, new batch_stats)` in training mode.

    The trees may be packed (see `packing`); the new statistics are packed like the old ones. `key` is the random key of
    dropout, mixup and MixStyle.
    """

    def loss_fn(params: Any, batch_stats: Any, batch: Batch, class_weights: Array, key: Array) -> tuple[Array, Any]:
        model = nnx.merge(network.graphdef, *packing.unpack((params, batch_stats)))
        rngs = nnx.Rngs(dropout=key) if config.model.dropout else None
        image = normalise(batch["image"], batch["tone_curve"])
        alpha = config.augment.mixup
        blend = mixup.draw(key, alpha, len(image)) if alpha else None
        image = blend.images(image) if blend else image
        with mixstyle.styles(config.model.mixstyle, key), layers.statistics_of(config.model.norm_images):
            output = model(image, train=True, rngs=rngs)

        def loss_of(labels: Any) -> Array:
            return loss(config, model, image, output, batch | {"labels": labels}, class_weights)

        value = blend.loss(loss_of, batch["labels"]) if blend else loss_of(batch["labels"])
        return value, packing.like(batch_stats, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    return loss_fn


def make_train_step(
    config: Config, network: Network, loss: Loss
) -> Callable[[TrainState, Batch | Packed, Constants], tuple[TrainState, Metrics]]:
    """`step(state, batch, constants) -> (state, metrics)`; metrics are scalars over the global batch.

    The state may be packed (see `packing`) and is returned in the same form; a batch may be packed, too (see
    `data.streams.packed`).

    With `train.steps_per_call` > 1 one call does that many steps: every leaf of the batch and of the metrics then has
    the steps as its first axis.
    """
    optimizer = optimizers.make_optimizer(config.optimizer, config.train.num_steps)
    schedule = optimizers.make_schedule(config.optimizer, config.train.num_steps)
    grad_fn = jax.value_and_grad(make_loss(config, network, loss), has_aux=True)

    def step(state: TrainState, batch: Batch | Packed, constants: Constants) -> tuple[TrainState, Metrics]:
        batch = ops.crops(unpack(batch), constants, size=config.data.crop_size, stretch=1 / config.augment.scale_min)
        batch = intensity.on_device(batch)
        class_weights = constants["class_weights"]
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        (value, stats), grads = grad_fn(state.params, state.batch_stats, batch, class_weights, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        updated = dataclasses.replace(state, step=state.step + 1, params=params, batch_stats=stats, opt_state=opt_state)
        metrics = {
            "loss": value,
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
        }
        return _average(updated, config.optimizer.ema_decay), metrics

    def several(state: TrainState, batches: Batch | Packed, constants: Constants) -> tuple[TrainState, Metrics]:
        return jax.lax.scan(lambda state, batch: step(state, batch, constants), state, batches)

    return step if config.train.steps_per_call == 1 else several


def train_program(config: Config, network: Network, loss: Loss, mesh: jax.sharding.Mesh) -> Any:
    """The jitted `make_train_step`; it donates the state. The folds of a cross-validation share one."""
    every_fold = dataclasses.replace(config, data=dataclasses.replace(config.data, fold=0))
    return _train_program(Frozen(every_fold), network, loss, mesh)


@functools.lru_cache(maxsize=2)  # a program keeps what is compiled of it
def _train_program(settings: Frozen[Config], network: Network, loss: Loss, mesh: jax.sharding.Mesh) -> Any:
    shared = meshes.replicated(mesh)
    step = make_train_step(settings.section, network, loss)
    return jax.jit(step, donate_argnums=0, out_shardings=(shared, shared))


def _average(state: TrainState, decay: float) -> TrainState:
    """Move the averages towards the new values. The rate is higher in early steps, so that the start is forgotten."""
    count = state.step.astype(jnp.float32)
    rate = 1.0 - jnp.minimum(decay, count / (count + 10.0))

    def mix(new: Any, old: Any) -> Any:
        return optax.incremental_update(new, old, rate)

    return dataclasses.replace(
        state,
        ema_params=mix(state.params, state.ema_params),
        ema_batch_stats=mix(state.batch_stats, state.ema_batch_stats),
    )


def make_predict_step(network: Network, decode: Decode, *, dihedral: bool = False) -> Callable[..., Any]:
    """`predict(params, batch_stats, image, tone_curve) -> decoded output`, in inference mode.

    With `dihedral`, the output is the mean over the eight rotations and mirror images of each (square) tile or cell;
    maps [batch, height, width, channel] are rotated and mirrored back first.
    """

    def predict(params: Any, batch_stats: Any, image: Array, tone_curve: Array) -> Any:
        model = nnx.merge(network.graphdef, params, batch_stats)
        pixels = normalise(image, tone_curve)
        views = ops.dihedral_views(pixels) if dihedral else [pixels]
        decoded = decode(model(jnp.concatenate(views), train=False))
        return jax.tree.map(_mean_of_views, decoded) if dihedral else decoded

    return predict


def _mean_of_views(stacked: Float[Array, "views_by_batch ..."]) -> Float[Array, "batch ..."]:
    """The mean over the eight views, which are concatenated along the first axis."""
    return ops.mean_of_views(jnp.split(stacked, 8))


@functools.lru_cache(maxsize=8)  # a program keeps what is compiled of it
def predict_program(network: Network, decode: Decode, mesh: jax.sharding.Mesh, *, dihedral: bool = False) -> Any:
    """The jitted `make_predict_step`. All readers and evaluators of one network in a process share one."""
    return jax.jit(make_predict_step(network, decode, dihedral=dihedral), out_shardings=meshes.replicated(mesh))
