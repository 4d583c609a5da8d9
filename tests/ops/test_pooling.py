"""Max pools by masks of the winners, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from hep2jax import ops
from hep2jax.models import layers


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def reduce_window_pool(x: jax.Array, size: int) -> jax.Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, size, size, 1), "VALID")


@pytest.mark.parametrize("size", [2, 3])
def test_max_pool_and_its_gradient_match_reduce_window(size):
    x, weights = normal(2, 3 * size, 5 * size, 3), normal(2, 3, 5, 3, seed=1)
    pools = (ops.max_pool, reduce_window_pool)

    @jax.jit
    def both(x):
        pairs = [jax.vjp(lambda x, pool=pool: pool(x, size), x) for pool in pools]
        return [(pooled, *pull(weights)) for pooled, pull in pairs]

    for ours, theirs in zip(*both(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("size", [2, 3])
def test_equal_maxima_share_the_gradient_of_a_pool(size):
    gradient = jax.jit(jax.grad(lambda x: ops.max_pool(x, size).sum()))
    np.testing.assert_array_equal(
        gradient(np.ones((1, size, size, 1), np.float32)), np.full((1, size, size, 1), 1 / size**2, "f4")
    )
    block = np.zeros((1, size, size, 1), np.float32)
    block[:, :2, 0] = 1
    np.testing.assert_array_equal(gradient(block), 0.5 * block)


@pytest.mark.parametrize("level", [0, 3])
def test_no_gradient_is_lost_where_xla_computes_the_input_of_a_pool_twice(level):
    """Behind a norm and a ReLU, XLA recomputes it in the backward pass, and at level 0 with other roundings."""
    rngs = nnx.Rngs(0)
    block = nnx.List([layers.ConvNorm(8, 8, dtype=jnp.dtype(jnp.float32), rngs=rngs) for _ in range(3)])
    graphdef, params, stats = nnx.split(block, nnx.Param, nnx.BatchStat)
    image, weights = normal(4, 4, 4, 8), normal(4, 2, 2, 8, seed=1)

    def gradient(pool):
        def loss(params):
            first, second, third = nnx.merge(graphdef, params, nnx.to_pure_dict(stats))
            x = pool(second(first(image, train=True), train=True), 2)
            return (third(x, train=True) * weights).sum()

        step = jax.jit(jax.grad(loss), compiler_options={"xla_backend_optimization_level": level})
        return jax.tree.leaves(step(nnx.to_pure_dict(params)))

    for ours, theirs in zip(gradient(ops.max_pool), gradient(reduce_window_pool), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_the_gradient_of_a_pool_keeps_its_dtype():
    x = normal(1, 4, 4, 2).astype(jnp.bfloat16)
    assert jax.eval_shape(jax.grad(lambda x: ops.max_pool(x).sum()), x).dtype == jnp.bfloat16
