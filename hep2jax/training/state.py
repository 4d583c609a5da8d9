# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
"""The state of a training run: plain dictionaries of arrays, created on the devices."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from hep2jax import models
from hep2jax.config import Config, Frozen, ModelConfig

Tree = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step changes. The moving averages `ema_*` are what is evaluated."""

    step: jax.Array
    params: Tree
    batch_stats: Tree
    opt_state: optax.OptState
    ema_params: Tree
    ema_batch_stats: Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A network's structure without its arrays; `nnx.merge(graphdef, params, batch_stats)` gives the module."""

    graphdef: nnx.GraphDef[Any]
    build: Callable[[jax.Array], nnx.Module]
    """(key) → module."""


def make_network(config: Config, num_outputs: int) -> Network:
    """The configured network, with `num_outputs` output channels.

    It takes grey images or, with `data.cell_fit=frame`, the three channels of `steps.normalise`. The same settings give
    the same object, so that programs with it can be shared.
    """
    in_channels = 3 if config.data.cell_fit == "frame" else 1
    return _network(Frozen(config.model), num_outputs, in_channels, compute_dtype(config))


@functools.lru_cache(maxsize=8)
def _network(settings: Frozen[ModelConfig], num_outputs: int, in_channels: int, dtype: jnp.dtype) -> Network:
    def build(key: jax.Array) -> nnx.Module:
        rngs, model = nnx.Rngs(params=key), settings.section
        return models.build(model, num_outputs=num_outputs, in_channels=in_channels, rngs=rngs, dtype=dtype)

    abstract = nnx.eval_shape(lambda: build(jax.random.key(0)))
    return Network(graphdef=nnx.split(abstract, nnx.Param, nnx.BatchStat)[0], build=build)


def compute_dtype(config: Config) -> jnp.dtype:
    """The configured dtype; `auto` is float32 on CPU and bfloat16 elsewhere, where the hardware multiplies it."""
    name = config.train.compute_dtype
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def fresh_state(network: Network, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
    """The state before the first step. The function is pure, so that it can be traced."""
    parts = cast(tuple[Any, ...], nnx.split(network.build(key), nnx.Param, nnx.BatchStat))
    params, stats = (nnx.to_pure_dict(part) for part in parts[1:])
    # The averages need buffers of their own: the step donates the state, and a buffer can be donated only once.
    average = jax.tree.map(jnp.copy, (params, stats))
    return TrainState(jnp.zeros((), jnp.int32), params, stats, optimizer.init(params), *average)


def initial_state(
    network: Network, optimizer: optax.GradientTransformation, seed: int, sharding: jax.sharding.Sharding
) -> TrainState:
    """`fresh_state`, computed by one compiled program directly in its sharding."""
    # rbg compiles in a third of threefry's time (2 s instead of 6 s for `fcn` on CPU); its draws depend on the backend.
    return _initial(network, optimizer, sharding)(jax.random.key(seed, impl="rbg"))


@functools.lru_cache(maxsize=8)
def _initial(
    network: Network, optimizer: optax.GradientTransformation, sharding: jax.sharding.Sharding
) -> Callable[[jax.Array], TrainState]:
    """(key) → state; compiled once for the folds of a cross-validation."""
    return jax.jit(functools.partial(fresh_state, network, optimizer), out_shardings=sharding)


def shapes(network: Network, optimizer: optax.GradientTransformation, sharding: jax.sharding.Sharding) -> TrainState:
    """What `initial_state` returns, with `jax.ShapeDtypeStruct` for arrays: what a checkpoint is read into."""

    def shape(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return leaf.update(sharding=sharding)

    return cast(TrainState, jax.tree.map(shape, fresh_shapes(network, optimizer)))


@functools.lru_cache(maxsize=8)
def fresh_shapes(network: Network, optimizer: optax.GradientTransformation) -> TrainState:
    """What `fresh_state` returns, with `jax.ShapeDtypeStruct` for arrays."""
    return jax.eval_shape(functools.partial(fresh_state, network, optimizer), jax.eval_shape(jax.random.key, 0))


def leaves_by_path(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their path, such as `block/kernel`, sorted by path."""
    flat = cast(list[tuple[tuple[Any, ...], Any]], jax.tree.leaves_with_path(tree))
    return dict(sorted({_name(path): leaf for path, leaf in flat}.items()))


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def params_digest(params: Tree) -> str:
    """SHA-256 of the path and the bytes of every leaf, in the order of the paths, as hexadecimal digits."""
    digest = hashlib.sha256()
    for path, leaf in leaves_by_path(params).items():
        digest.update(path.encode())
        digest.update(np.ascontiguousarray(jax.device_get(leaf)).tobytes())
    return digest.hexdigest()


def num_parameters(params: Tree) -> int:
    """The number of parameters, counted as single numbers."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def graft(
    target: TrainState, source_params: Tree, source_stats: Tree, *, heads: bool = True
) -> tuple[TrainState, int, int]:
    """Copy every leaf of the source whose path and shape agree with one of the target's.

    The optimizer's state stays fresh. `heads=False` leaves out the modules that depend on the meaning of the classes:
    those whose names begin with `head`.

    Returns:
        The new state, the number of parameter arrays taken from the source, and the number of parameter arrays in all.
    """
    params, taken, total = _take(target.params, source_params, heads)
    stats, *_ = _take(target.batch_stats, source_stats, heads)
    copies = jax.tree.map(jnp.copy, (params, stats))  # buffers of their own, as in `fresh_state`
    state = dataclasses.replace(
        target, params=params, batch_stats=stats, ema_params=copies[0], ema_batch_stats=copies[1]
    )
    return state, taken, total


def _take(target: Tree, source: Tree, heads: bool) -> tuple[Tree, int, int]:
    candidates = {path: leaf for path, leaf in leaves_by_path(source).items() if heads or not path.startswith("head")}
    taken = 0

    def choose(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        nonlocal taken
        source_leaf = candidates.get(_name(path))
        if source_leaf is None or source_leaf.shape != leaf.shape:
            return leaf
        taken += 1
        return jax.device_put(np.asarray(source_leaf), leaf.sharding)

    chosen = jax.tree_util.tree_map_with_path(choose, target)
    return chosen, taken, len(jax.tree.leaves(target))
