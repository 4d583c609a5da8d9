"""The state of a training run: plain dictionaries of arrays, born on the devices."""

import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from hep2jax import models
from hep2jax.config import Config

Tree = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step changes. `ema_*` are the averages that are evaluated."""

    step: jax.Array
    params: Tree
    batch_stats: Tree
    opt_state: optax.OptState
    ema_params: Tree
    ema_batch_stats: Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A network's structure without its arrays; `nnx.merge(graphdef, params, batch_stats)` makes it whole."""

    graphdef: nnx.GraphDef
    build: Any
    """(key) → module."""


def make_network(config: Config, num_outputs: int) -> Network:
    """The configured network for grey images and `num_outputs` channels."""
    dtype = compute_dtype(config)

    def build(key: jax.Array) -> nnx.Module:
        rngs = nnx.Rngs(params=key)
        return models.build(config.model, num_outputs=num_outputs, in_channels=1, rngs=rngs, dtype=dtype)

    abstract = nnx.eval_shape(lambda: build(jax.random.key(0)))
    return Network(graphdef=nnx.split(abstract, nnx.Param, nnx.BatchStat)[0], build=build)


def compute_dtype(config: Config) -> jnp.dtype:
    """bfloat16 where the hardware multiplies it natively, float32 on CPU, unless named."""
    name = config.train.compute_dtype
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def fresh_state(network: Network, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
    """The state before the first step; pure, so that it can be traced."""
    _, params, stats = nnx.split(network.build(key), nnx.Param, nnx.BatchStat)
    params, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    # The averages need buffers of their own: the step donates the state, and a buffer is donated once.
    average = jax.tree.map(jnp.copy, (params, stats))
    return TrainState(jnp.zeros((), jnp.int32), params, stats, optimizer.init(params), *average)


def initial_state(
    network: Network, optimizer: optax.GradientTransformation, seed: int, sharding: jax.sharding.Sharding
) -> TrainState:
    """`fresh_state`, made by one compiled program directly in its sharding."""
    init = jax.jit(lambda key: fresh_state(network, optimizer, key), out_shardings=sharding)
    # rbg compiles in a third of threefry's time (2 against 6 s for `fcn` on CPU); its draws differ between backends.
    return init(jax.random.key(seed, impl="rbg"))


def leaves_by_path(tree: Tree) -> dict[str, Any]:
    """Leaves by their path, `block/kernel`, in sorted order."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    named = {"/".join(str(getattr(key, "key", key)) for key in path): leaf for path, leaf in flat}
    return dict(sorted(named.items()))


def params_digest(params: Tree) -> str:
    """SHA-256 over path and bytes of every leaf in sorted path order, as hexadecimal digits."""
    digest = hashlib.sha256()
    for path, leaf in leaves_by_path(params).items():
        digest.update(path.encode())
        digest.update(np.ascontiguousarray(jax.device_get(leaf)).tobytes())
    return digest.hexdigest()


def num_parameters(params: Tree) -> int:
    """How many numbers the network learns."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def graft(
    target: TrainState, source_params: Tree, source_stats: Tree, *, heads: bool = True
) -> tuple[TrainState, int, int]:
    """Take every leaf of the source whose path and shape agree; (state, leaves taken, leaves in all).

    The optimizer's state stays fresh. `heads=False` leaves out what depends on the meaning of the classes: the
    modules whose names begin with `head`.
    """
    params, taken, total = _take(target.params, source_params, heads)
    stats, *_ = _take(target.batch_stats, source_stats, heads)
    copies = jax.tree.map(jnp.copy, (params, stats))
    state = dataclasses.replace(
        target, params=params, batch_stats=stats, ema_params=copies[0], ema_batch_stats=copies[1]
    )
    return state, taken, total


def _take(target: Tree, source: Tree, heads: bool) -> tuple[Tree, int, int]:
    offered = {path: leaf for path, leaf in leaves_by_path(source).items() if heads or not path.startswith("head")}
    taken = 0

    def choose(path: Any, leaf: jax.Array) -> jax.Array:
        nonlocal taken
        name = "/".join(str(getattr(key, "key", key)) for key in path)
        other = offered.get(name)
        if other is None or other.shape != leaf.shape:
            return leaf
        taken += 1
        return jax.device_put(np.asarray(other), leaf.sharding)

    chosen = jax.tree_util.tree_map_with_path(choose, target)
    return chosen, taken, len(jax.tree.leaves(target))
