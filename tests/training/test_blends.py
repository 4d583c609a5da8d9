"""Mixup and MixStyle in the training step: on in training, off in prediction, and drawn anew in every step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hep2jax import tasks
from hep2jax.config import AugmentConfig, Config, DataConfig, ModelConfig, TrainConfig
from hep2jax.data.augment import mixup
from hep2jax.errors import UsageError
from hep2jax.training import optimizers, steps
from hep2jax.training import state as states

_ROWS, _SIDE = 4, 78
_OPTIONS = {"mixup": {"augment": AugmentConfig(mixup=0.4)}, "mixstyle": {"mixstyle": 1.0}}


def _config(augment: AugmentConfig | None = None, mixstyle: float = 0.0) -> Config:
    return Config(
        data=DataConfig(crop_size=_SIDE, normalise="none"),
        augment=augment or AugmentConfig(),
        model=ModelConfig(name="gao", mixstyle=mixstyle),
        train=TrainConfig(num_steps=4, global_batch_size=_ROWS),
    )


def _batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    levels = np.array([40, 90, 140, 250])[:, None, None]
    return {
        "image": (levels * rng.uniform(0, 1, (_ROWS, _SIDE, _SIDE))).astype(np.uint8),
        "labels": np.array([0, 1, 2, 1], np.int32),
        "tone_curve": np.tile(np.array([0, 1 / 255, 1, 0], np.float32), (_ROWS, 1)),
    }


def _fresh(config: Config):
    network = states.make_network(config, 3)
    optimizer = optimizers.make_optimizer(config.optimizer, 4)
    return network, jax.jit(lambda key: states.fresh_state(network, optimizer, key))(jax.random.key(0))


@functools.cache
def _losses(option: str, numbers: tuple[int, ...]) -> list[float]:
    """Of the same parameters and batch in several steps."""
    config = _config(**_OPTIONS.get(option, {}))
    network, state = _fresh(config)
    step = jax.jit(steps.make_train_step(config, network, tasks.kind(config).loss))
    constants = {"class_weights": np.ones(3, np.float32)}
    at = [dataclasses.replace(state, step=jnp.int32(number)) for number in numbers]
    return [float(step(each, _batch(), constants)[1]["loss"]) for each in at]


@pytest.mark.parametrize("option", ["mixup", pytest.param("mixstyle", marks=pytest.mark.slow)])
def test_every_step_draws_anew_and_the_same_again(option: str):
    plain = _losses("plain", (0, 1))
    assert plain[0] == plain[1]
    first, second, third, again = _losses(option, (0, 1, 2, 1))
    assert len({first, second, third, plain[0]}) >= 3  # a share may be so near to 1 that nothing moves
    assert again == second


@pytest.mark.parametrize("option", _OPTIONS)
def test_a_prediction_is_left_alone(option: str):
    said = []
    for config in (_config(), _config(**_OPTIONS[option])):
        network, state = _fresh(config)
        batch = _batch()
        predict = jax.jit(steps.make_predict_step(network, tasks.kind(config).decode))
        said.append(predict(state.params, state.batch_stats, batch["image"], batch["tone_curve"]))
    np.testing.assert_array_equal(*said)


def test_a_blend_by_hand():
    images, labels = np.arange(12.0).reshape(3, 4), np.array([2.0, 0.0, 1.0])
    blend = mixup.Blend(jnp.float32(0.75), jnp.array([1, 0, 2]))
    expected = np.stack([0.75 * images[0] + 0.25 * images[1], 0.75 * images[1] + 0.25 * images[0], images[2]])
    np.testing.assert_allclose(blend.images(jnp.asarray(images)), expected, rtol=1e-6)
    weights = np.array([1.0, 10.0, 100.0])
    loss = blend.loss(lambda found: (weights * found).sum(), jnp.asarray(labels))
    assert float(loss) == pytest.approx(0.75 * 102 + 0.25 * (0 + 20 + 100))


def test_shares_and_partners_have_their_distribution():
    blends = [mixup.draw(jax.random.key(seed), 0.4, 8) for seed in range(100)]
    shares = np.array([blend.share for blend in blends])
    assert shares.mean() == pytest.approx(0.5, abs=0.12)
    assert shares.var() == pytest.approx(1 / (4 * 1.8), abs=0.03)  # of Beta(0.4, 0.4)
    for blend in blends[:5]:
        assert sorted(blend.partner.tolist()) == list(range(8))


@pytest.mark.parametrize("name", ["fcn", "mil", "joint"])
def test_mixup_is_refused_where_examples_are_not_cells(name: str):
    config = Config(model=ModelConfig(name=name), augment=AugmentConfig(mixup=0.4))
    with pytest.raises(UsageError, match=rf"augment.mixup=0.4: only networks that classify cells.*'{name}'"):
        tasks.resolve(config)
    tasks.resolve(Config(model=ModelConfig(name=name, mixstyle=0.5)))
