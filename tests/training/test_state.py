import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hep2jax import mesh as meshes
from hep2jax import ops
from hep2jax.config import Config, OptimizerConfig
from hep2jax.tasks.fields import FieldTask
from hep2jax.training import optimizers, steps
from hep2jax.training import state as states


def _make(name: str = "vggcell", outputs: int = 4, seed: int = 0):
    config = Config(seed=seed)
    config.model.name, config.model.width = name, 0.01
    network = states.make_network(config, outputs)
    optimizer = optimizers.make_optimizer(config.optimizer, 10)
    mesh = meshes.make_mesh()
    return config, network, optimizer, states.initial_state(network, optimizer, seed, meshes.replicated(mesh))


def test_the_digest_sees_every_bit_and_every_name():
    *_, state = _make()
    *_, same = _make()
    *_, other = _make(seed=1)
    digest = states.params_digest(state.params)
    assert digest == states.params_digest(same.params)
    assert digest != states.params_digest(other.params)
    assert states.params_digest({"a": np.zeros(2)}) != states.params_digest({"b": np.zeros(2)})
    flipped = np.zeros(2, np.float32)
    flipped[1] = np.nextafter(np.float32(0), np.float32(1))
    assert states.params_digest({"a": np.zeros(2, np.float32)}) != states.params_digest({"a": flipped})


def test_graft_takes_all_but_what_does_not_fit():
    *_, target = _make(outputs=7)
    *_, source = _make(outputs=4, seed=1)
    state, taken, total = states.graft(target, source.params, source.batch_stats)
    assert 0 < taken < total
    here, there, fresh = (states.leaves_by_path(s.params) for s in (state, source, target))
    for name, leaf in here.items():
        expected = there[name] if there[name].shape == leaf.shape else fresh[name]
        np.testing.assert_array_equal(leaf, expected)
    np.testing.assert_array_equal(jax.tree.leaves(state.ema_params)[0], jax.tree.leaves(state.params)[0])


@pytest.mark.parametrize(
    "name", ["unet", "gao", "dcae", *(pytest.param(n, marks=pytest.mark.slow) for n in ("fcn", "dsfcn", "dsrn"))]
)
def test_graft_leaves_fresh_heads_where_the_patterns_differ(name: str):
    """Shapes alone cannot tell that six patterns of one set are not the six of another."""
    config = Config()
    config.model.name, config.model.width, config.model.depth = name, 0.01, 18
    network = states.make_network(config, 4)
    optimizer = optimizers.make_optimizer(config.optimizer, 10)
    target, source = (
        jax.eval_shape(lambda: states.fresh_state(network, optimizer, jax.random.key(0))) for _ in range(2)
    )
    target, source = (
        jax.tree.map(lambda x, v=v: np.full(x.shape, v, x.dtype), t) for v, t in ((1, target), (2, source))
    )
    target = jax.device_put(target)
    state, taken, total = states.graft(target, source.params, source.batch_stats, heads=False)
    leaves = states.leaves_by_path(state.params)
    heads = {path for path in leaves if path.startswith("head")}
    assert 0 < len(heads) == total - taken
    for path, leaf in leaves.items():
        assert (np.asarray(leaf) == (1 if path in heads else 2)).all(), path
    assert any(4 in leaf.shape for path, leaf in leaves.items() if path in heads)
    assert not any(leaf.shape[-1:] == (4,) for path, leaf in leaves.items() if path not in heads)


def test_normalise_maps_background_to_zero_and_top_to_one():
    image = jnp.array([[[20, 70, 120, 255]]], jnp.uint8).reshape(1, 2, 2)
    value = steps.normalise(image, jnp.array([[20, 1 / 100, 1, 0]], jnp.float32))
    np.testing.assert_allclose(np.ravel(value), [0, 0.5, 1, 2.35], atol=1e-6)
    curved = steps.normalise(image, jnp.array([[20, 1 / 100, 2, 0.1]], jnp.float32))
    np.testing.assert_allclose(np.ravel(curved)[:3], [0.1, 0.35, 1.1], atol=1e-6)


def test_normalise_bounds_what_dark_and_hot_pixels_can_do():
    image = jnp.array([[[0, 15, 60, 255]]], jnp.uint8).reshape(1, 2, 2)
    value = steps.normalise(image, jnp.array([[20, 1 / 10, 1, 0]], jnp.float32))
    np.testing.assert_allclose(np.ravel(value), [-1, -0.5, 4, 4], atol=1e-6)


def test_normalise_has_finite_gradients_below_the_background():
    image = jnp.zeros((1, 2, 2), jnp.uint8)

    def total(tone_curve):
        return steps.normalise(image, tone_curve).sum()

    gradient = jax.jit(jax.grad(total))(np.float32([[20, 1 / 100, 0.8, 0]]))
    assert np.isfinite(gradient).all()


def test_the_schedule_warms_up_and_comes_down():
    schedule = optimizers.make_schedule(OptimizerConfig(learning_rate=0.1, warmup_steps=10), 100)
    rates = [float(schedule(step)) for step in range(101)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(0.1)
    assert rates.index(max(rates)) == 10
    assert rates[100] == pytest.approx(0.001)
    flat = optimizers.make_schedule(OptimizerConfig(schedule="constant", warmup_steps=0), 100)
    assert float(flat(0)) == float(flat(99)) == pytest.approx(2e-3)


def test_biases_and_norms_do_not_decay():
    config = OptimizerConfig(weight_decay=0.5, learning_rate=1.0, warmup_steps=0, schedule="constant")
    params = {"kernel": np.ones((2, 2), np.float32), "scale": np.ones(2, np.float32)}
    for name in ("adamw", "sgd"):
        config.name = name
        optimizer = optimizers.make_optimizer(config, 10)
        zeros = jax.tree.map(np.zeros_like, params)
        updates, _ = jax.jit(lambda *trees, o=optimizer: o.update(trees[0], o.init(trees[1]), trees[1]))(zeros, params)
        np.testing.assert_allclose(updates["kernel"], -0.5)
        np.testing.assert_allclose(updates["scale"], 0)


def test_dihedral_views_are_undone_exactly():
    pixels = np.random.default_rng(0).random((2, 6, 6, 3)).astype(np.float32)
    views, back = jax.jit(lambda pixels: (views := ops.dihedral_views(pixels), ops.mean_of_views(views)))(pixels)
    assert len({np.asarray(view).tobytes() for view in views}) == 8
    np.testing.assert_allclose(back, pixels, rtol=1e-6)


def test_dihedral_prediction_turns_with_the_image():
    _, network, _, state = _make("unet")
    predict = jax.jit(steps.make_predict_step(network, FieldTask.decode, dihedral=True))
    image = np.random.default_rng(0).integers(0, 255, (2, 32, 32)).astype(np.uint8)
    tone_curve = np.tile(np.float32([20, 0.01, 1, 0]), (2, 1))
    upright = predict(state.params, state.batch_stats, image, tone_curve)
    turned = predict(state.params, state.batch_stats, np.rot90(image, axes=(1, 2)), tone_curve)
    np.testing.assert_allclose(np.rot90(upright, axes=(1, 2)), turned, atol=1e-5)
    np.testing.assert_allclose(upright.sum(-1), 1, atol=1e-5)
