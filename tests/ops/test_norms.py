"""The pool before the norm, and norms by groups of examples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hep2jax import ops
from hep2jax.models import layers
from hep2jax.ops import lanes


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("columns", [1, 2, 4])
def test_a_pool_before_the_norm_gives_what_a_pool_after_the_relu_gives(train, columns):
    """Scales of both signs: output, gradients of every parameter, running averages."""
    conv = layers.ConvNorm(3, 8, dtype=jnp.dtype(jnp.float32), rngs=nnx.Rngs(0))
    conv.norm.scale[...] = normal(8, seed=5)
    conv.norm.bias[...] = normal(8, seed=6)
    conv.norm.mean[...], conv.norm.var[...] = normal(8, seed=7), jnp.abs(normal(8, seed=8)) + 0.5
    graphdef, params, stats = nnx.split(conv, nnx.Param, nnx.BatchStat)
    x = normal(2, 6, 8, 3)

    def after(conv, x):
        return ops.max_pool(conv(x, train=train))

    def before(conv, x):
        return lanes.split(conv(lanes.join(x, columns), train=train, pool=True))

    def measure(function):
        def loss(params, stats, x):
            conv = nnx.merge(graphdef, params, stats)
            y = function(conv, x)
            return (y * normal(2, 3, 4, 8, seed=9)).sum(), (y, nnx.to_pure_dict(nnx.state(conv, nnx.BatchStat)))

        pure = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
        # Compiled: a convolution that fed the pool directly had a wrong gradient only then.
        (_, measured), gradients = jax.jit(jax.value_and_grad(loss, (0, 2), has_aux=True))(*pure, x)
        return measured, gradients

    for one, other in zip(*(jax.tree.leaves(measure(function)) for function in (after, before)), strict=True):
        np.testing.assert_allclose(other, one, atol=2e-5)


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("columns", [1, 2])
def test_groups_of_examples_are_normalised_as_batches_of_their_own(pool, columns):
    """Output and gradients are those of each group by itself; the running averages are the means over the groups."""
    conv = layers.ConvNorm(3, 8, dtype=jnp.dtype(jnp.float32), rngs=nnx.Rngs(0))
    conv.norm.scale[...] = normal(8, seed=5)
    graphdef, params, stats = nnx.split(conv, nnx.Param, nnx.BatchStat)
    params, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    x, weight = normal(6, 6, 8, 3) * jnp.arange(1, 7)[:, None, None, None], normal(6, 6 >> pool, 8 >> pool, 8, seed=9)

    @functools.partial(jax.jit, static_argnums=4)
    def run(params, stats, x, weight, together):
        def loss(params):
            conv = nnx.merge(graphdef, params, stats)
            with layers.statistics_of(together):
                y = lanes.split(conv(lanes.join(x, columns), train=True, pool=pool))
            return (y * weight).sum(), (y, nnx.to_pure_dict(nnx.state(conv, nnx.BatchStat)))

        return jax.grad(loss, has_aux=True)(params)

    gradient, (output, averages) = run(params, stats, x, weight, 2)
    parts = [run(params, stats, x[at : at + 2], weight[at : at + 2], 0) for at in (0, 2, 4)]
    np.testing.assert_allclose(output, np.concatenate([y for _, (y, _) in parts]), atol=2e-5)
    for found, *each in zip(*map(jax.tree.leaves, (averages, *(each for _, (_, each) in parts))), strict=True):
        np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-5)
    for found, *each in zip(*map(jax.tree.leaves, (gradient, *(each for each, _ in parts))), strict=True):
        np.testing.assert_allclose(found, np.sum(each, axis=0), rtol=1e-4, atol=1e-3)
    whole, one_group = run(params, stats, x, weight, 0), run(params, stats, x, weight, 6)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(one_group), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    assert np.abs(np.asarray(output) - whole[1][0]).max() > 0.1
