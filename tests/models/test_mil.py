import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hep2jax.config import ModelConfig
from hep2jax.errors import UsageError
from hep2jax.models import Settings, TileOutput, build, mil
from hep2jax.models.mil import Mil


def small() -> Mil:
    return Mil(Settings(num_outputs=3, width=0.01, dtype=jnp.dtype(jnp.float32)), rngs=nnx.Rngs(0))


def output(tiles: int) -> TileOutput:
    rng = np.random.default_rng(0)
    return TileOutput(*(jax.device_put(rng.normal(size=size).astype(np.float32)) for size in ((tiles, 3), tiles)))


def test_number_of_parameters():
    def conv(side: int, inputs: int, outputs: int) -> int:
        return side**2 * inputs * outputs + 2 * outputs

    def make():
        return build(
            ModelConfig(name="mil"), num_outputs=7, in_channels=1, rngs=nnx.Rngs(0), dtype=jnp.dtype(jnp.float32)
        )

    stages = [(64, 64), (64, 128), (128, 256), (256, 512)]
    modules = sum(conv(3, a, b) + conv(3, b, b) + (conv(1, a, b) if a != b else 0) for a, b in stages)
    attention = 2 * 512 * 128 + 128
    params = jax.tree.leaves(nnx.state(nnx.eval_shape(make), nnx.Param))
    assert sum(math.prod(leaf.shape) for leaf in params) == conv(5, 1, 64) + modules + attention + 513 * 7


def test_a_bag_is_the_head_of_its_attended_mean():
    """Equation 8 of Ilse et al. 2018, vector by vector, for two bags of five tiles."""
    image = np.random.default_rng(1).uniform(size=(10, 16, 16, 1)).astype(np.float32)

    # Compiling takes longer here than running, so LLVM does not optimise.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def run(image):
        model = small()
        layers = [layer.kernel[...] for layer in (model.content, model.gate, model.score, model.head.linear)]
        vectors = model.trunk(image, train=False)[-1].mean((1, 2))
        return vectors, mil.pool(model(image, train=False), 2).logits, *layers

    vectors, pooled, content, gate, score, head = map(np.asarray, run(image))
    scores = ((np.tanh(vectors @ content) / (1 + np.exp(-vectors @ gate))) @ score)[:, 0]
    for bag in range(2):
        rows = slice(5 * bag, 5 * bag + 5)
        weights = np.exp(scores[rows]) / np.exp(scores[rows]).sum()
        expected = weights @ vectors[rows] @ head  # its bias starts at 0
        np.testing.assert_allclose(pooled[bag], expected, atol=1e-5)


def test_a_bag_does_not_know_the_order_of_its_tiles_nor_other_bags():
    said, order = output(6), np.array([4, 0, 5, 2, 1, 3])
    pool = jax.jit(mil.pool, static_argnums=1)
    shuffled = TileOutput(said.logits[order], said.attention[order])
    np.testing.assert_allclose(pool(said, 1).logits, pool(shuffled, 1).logits, atol=1e-6)
    doubled = TileOutput(*(jnp.concatenate([leaf, leaf]) for leaf in said))
    np.testing.assert_allclose(pool(said, 1).logits, pool(doubled, 1).logits, atol=1e-6)
    alone = TileOutput(said.logits[3:], said.attention[3:])
    np.testing.assert_allclose(pool(said, 2).logits[1], pool(alone, 1).logits[0], atol=1e-6)


def test_tiles_that_are_too_small_are_refused():
    with pytest.raises(UsageError, match="at least 16"):
        nnx.eval_shape(small).accept(jnp.zeros((1, 8, 32, 1)))
