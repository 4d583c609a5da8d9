"""Train and predict steps: pure functions of (state, batch), compiled once, no I/O."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, UInt8

from hep2jax import losses
from hep2jax.config import Config
from hep2jax.models import ClassifierOutput
from hep2jax.state import Network, TrainState

Metrics = dict[str, jax.Array]

_NORMALISED_RANGE = (-1.0, 4.0)  # bounds what a hot pixel can do to a batch


def normalise(
    image: UInt8[Array, "batch height width"], greys: Float[Array, "batch 4"]
) -> Float[Array, "batch height width 1"]:
    """Grey levels → about [0, 1]: ((grey - offset) * gain), then the exponent on its positive part, then the shift.

    `greys` rows are (offset in grey levels, gain per grey level, exponent, shift).
    """
    offset, gain, exponent, shift = (greys[:, i, None, None] for i in range(4))
    value = jnp.clip((image.astype(jnp.float32) - offset) * gain, *_NORMALISED_RANGE)
    bright = value > 0
    curved = jnp.where(bright, jnp.where(bright, value, 1.0) ** exponent, value)
    return (curved + shift)[..., None]


def make_train_step(
    config: Config, network: Network, optimizer: optax.GradientTransformation, schedule: optax.Schedule
) -> Callable[[TrainState, dict[str, jax.Array], jax.Array], tuple[TrainState, Metrics]]:
    """`step(state, batch, class_weights [K+1]) -> (state, metrics)`; metrics are scalars over the global batch."""

    def loss_fn(params, batch_stats, batch, class_weights, key):
        model = nnx.merge(network.graphdef, params, batch_stats)
        rngs = nnx.Rngs(dropout=key) if config.model.dropout else None
        image = normalise(batch["image"], batch["greys"])
        output = model(image, train=True, rngs=rngs)
        if isinstance(output, ClassifierOutput):
            loss = losses.cell_loss(output, batch["labels"], model.target(image), class_weights, config.loss)
        else:
            terms = losses.segmentation_loss(output, batch["labels"], class_weights, config.loss)
            loss = losses.combine(terms, config.loss)
        return loss, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    def step(state, batch, class_weights):
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, stats), grads = grad_fn(state.params, state.batch_stats, batch, class_weights, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new = dataclasses.replace(state, step=state.step + 1, params=params, batch_stats=stats, opt_state=opt_state)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
        }
        return _average(new, config.optimizer.ema_decay), metrics

    return step


def _average(state: TrainState, decay: float) -> TrainState:
    """Move the averages towards the new values; early steps average less, so that the start is forgotten."""
    count = state.step.astype(jnp.float32)
    rate = 1.0 - jnp.minimum(decay, count / (count + 10.0))

    def mix(new, old):
        return optax.incremental_update(new, old, rate)

    return dataclasses.replace(
        state,
        ema_params=mix(state.params, state.ema_params),
        ema_batch_stats=mix(state.batch_stats, state.ema_batch_stats),
    )


def make_predict_step(network: Network, *, dihedral: bool = False) -> Callable[..., jax.Array]:
    """`predict(params, batch_stats, image, greys) -> probabilities float32`.

    [batch, height, width, K+1] of a segmenter, [batch, K] of a classifier. With `dihedral`, the mean over the eight
    rotations and mirror images of each (square) tile or cell.
    """

    def predict(params, batch_stats, image, greys):
        model = nnx.merge(network.graphdef, params, batch_stats)
        pixels = normalise(image, greys)
        views = _dihedral_views(pixels) if dihedral else [pixels]
        output = model(jnp.concatenate(views), train=False)
        probabilities = jax.nn.softmax(output.logits.astype(jnp.float32), axis=-1)
        views = jnp.split(probabilities, len(views))
        if isinstance(output, ClassifierOutput):
            return sum(views[1:], views[0]) / len(views)
        return _undo_dihedral(views) if dihedral else views[0]

    return predict


def _dihedral_views(pixels: Float[Array, "batch side side channel"]) -> list[Array]:
    turned = [jnp.rot90(pixels, quarter, axes=(1, 2)) for quarter in range(4)]
    return turned + [view[:, :, ::-1] for view in turned]


def _undo_dihedral(views: list[Array]) -> Array:
    upright = views[:4] + [view[:, :, ::-1] for view in views[4:]]
    return sum((jnp.rot90(view, -(i % 4), axes=(1, 2)) for i, view in enumerate(upright)), jnp.zeros(())) / 8
