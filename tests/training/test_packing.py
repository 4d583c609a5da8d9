"""Small arrays of a training state joined into vectors and taken apart again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cnn
from hep2jax import config as configs
from hep2jax import tasks
from hep2jax.config import Config, DataConfig, ModelConfig, TrainConfig
from hep2jax.training import optimizers, packing, steps
from hep2jax.training import state as states
from hep2jax.training.state import TrainState


def _config() -> Config:
    return configs.validate(
        Config(
            data=DataConfig(name="hep2_synthetic", crop_size=32),
            model=ModelConfig(name="vggcell", width=0.01),
            train=TrainConfig(num_steps=4, global_batch_size=jax.device_count()),
        )
    )


@pytest.fixture(scope="module")
def fresh() -> TrainState:
    config = _config()
    network = states.make_network(config, 3)
    optimizer = optimizers.make_optimizer(config.optimizer, config.train.num_steps)
    state = jax.jit(lambda key: states.fresh_state(network, optimizer, key))(jax.random.key(0, impl="rbg"))
    # Every array holds other numbers, or one in the place of another would not be seen.
    return jax.tree.map(lambda leaf: leaf + jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape), state)


def test_a_packed_state_unpacks_to_itself(fresh: TrainState) -> None:
    packed = packing.pack(fresh)
    again = packing.unpack(packed)
    assert jax.tree.structure(again) == jax.tree.structure(fresh)
    jax.tree.map(np.testing.assert_array_equal, again, fresh)
    once_more = packing.like(packed, again)
    assert jax.tree.structure(once_more) == jax.tree.structure(packed)
    jax.tree.map(np.testing.assert_array_equal, once_more, packed)


def test_what_is_packed_has_a_third_of_the_arrays(fresh: TrainState) -> None:
    kernels = sum(leaf.ndim > 1 for leaf in jax.tree.leaves(fresh.params))
    packed = packing.pack(fresh)
    moments, scalars = 2, sum(leaf.ndim == 0 for leaf in jax.tree.leaves(fresh))
    trees = 2 + moments  # parameters, their averages, their moments
    assert len(jax.tree.leaves(packed)) == trees * (kernels + 1) + 2 + scalars
    assert 3 * len(jax.tree.leaves(packed)) <= 1.2 * len(jax.tree.leaves(fresh))
    assert states.num_parameters(packed.params) == states.num_parameters(fresh.params)


def test_a_network_without_statistics_is_packed_too() -> None:
    config = cnn.get_config()
    network = states.make_network(config, 3)
    optimizer = optimizers.make_optimizer(config.optimizer, 4)
    state = states.fresh_state(network, optimizer, jax.random.key(0))
    packed = packing.pack(state)
    assert packed.batch_stats == state.batch_stats == {}
    assert isinstance(packed.params, packing.Packed)
    assert jax.tree.structure(packing.unpack(packed)) == jax.tree.structure(state)


def test_a_step_does_the_same_to_a_packed_state(fresh: TrainState) -> None:
    config = _config()
    fresh = jax.tree.map(jnp.ones_like, fresh)  # no parameter outweighs the others
    step = jax.jit(steps.make_train_step(config, states.make_network(config, 3), tasks.kind(config).loss))
    rng, size = np.random.default_rng(0), config.train.global_batch_size
    batch = {
        "image": rng.integers(0, 256, (size, 32, 32)).astype(np.uint8),
        "labels": rng.integers(0, 3, size).astype(np.int32),
        "tone_curve": np.tile(np.array([0, 1 / 255, 1, 0], np.float32), (size, 1)),
    }
    constants = {"class_weights": jnp.ones(3)}
    plain, expected = step(fresh, batch, constants)
    packed, metrics = step(packing.pack(fresh), batch, constants)
    assert isinstance(packed.params, packing.Packed)
    assert isinstance(packed.batch_stats, packing.Packed)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    found, wanted = (states.leaves_by_path(tree) for tree in (packing.unpack(packed).params, plain.params))
    assert found.keys() == wanted.keys()
    for name, leaf in wanted.items():
        np.testing.assert_allclose(found[name], leaf, rtol=1e-4, atol=1e-5, err_msg=name)
