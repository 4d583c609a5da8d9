"""The PyTorch twins compute what our networks compute, and train as ours train."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hep2jax import config_files, ops
from hep2jax.config import AugmentConfig, Config
from hep2jax.data.augment import geometry
from hep2jax.training import optimizers
from hep2jax.training import state as states
from scripts import bench_step, synthetic_step

torch = pytest.importorskip("torch", reason="PyTorch, an extra of the benchmarks, is absent")

from scripts.peers import loader, networks, training  # noqa: E402


def _config(name: str, **model) -> Config:
    """The network at its narrowest, on a small input."""
    config = config_files.load(bench_step.CONFIGURATIONS[name])
    config.model.width = 1.0 if name == "gao" else 0.01
    config.data.crop_size = {"gao": 78, "resnet": 32}.get(name, 64)
    config.train.global_batch_size = 2
    for key, value in model.items():
        setattr(config.model, key, value)
    return config


def _abstract(network: states.Network) -> tuple[states.Tree, states.Tree]:
    """Shapes of the parameters and of the running averages."""
    module = nnx.eval_shape(lambda: network.build(jax.random.key(0)))
    _, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


@pytest.mark.parametrize("name", bench_step.CONFIGURATIONS)
def test_as_many_parameters_at_the_published_width(name: str):
    config = _config(name, width=1.0)
    with torch.device("meta"):
        twin = networks.build(config.model, 6)
    params, _ = _abstract(states.make_network(config, 6))
    assert sum(value.numel() for value in twin.parameters()) == states.num_parameters(params)


@pytest.mark.parametrize(
    ("name", "train"), [("gao", False), ("fcn", False), ("resnet", False), ("dsfcn", True), ("unet", False)]
)
def test_forward_pass_with_copied_weights(name: str, train: bool):
    config, rng = _config(name), np.random.default_rng(0)
    network = states.make_network(config, 6)
    params, stats = jax.tree.map(lambda leaf: _draw(rng, leaf.shape), _abstract(network))
    image = rng.normal(size=(2, *2 * (config.data.crop_size,), 1)).astype(np.float32)
    ours = jax.jit(lambda *trees: nnx.merge(network.graphdef, *trees)(jnp.asarray(image), train=train))(params, stats)
    twin = networks.build(config.model, 6).train(train)
    networks.copy_parameters(twin, params, stats)
    with torch.no_grad():
        logits, sides = twin(torch.from_numpy(image).permute(0, 3, 1, 2))
    assert len(sides) == len(ours.side_logits) == (3 if name == "dsfcn" else 0)
    for mine, theirs in zip((ours.logits, *ours.side_logits), (logits, *sides), strict=True):
        assert np.std(mine) > 0.1  # zeros would agree too
        expected = jnp.asarray(theirs.movedim(1, -1).numpy())
        if mine.ndim > expected.ndim:  # blocks of pixels
            expected = ops.space_to_depth(expected, len(expected[0]) // len(mine[0])).reshape(mine.shape)
        np.testing.assert_allclose(mine, expected, atol=1e-4, rtol=1e-4)


def _draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Kernels which keep the size of what they convolve; else positive numbers, as variances must be."""
    if len(shape) == 1:
        return rng.uniform(0.5, 1.0, shape).astype(np.float32)
    return (rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))).astype(np.float32)


def test_three_training_steps_agree():
    config = _config("gao")
    config.optimizer.clip_norm, config.optimizer.warmup_steps, config.train.num_steps = 0.05, 1, 4
    made = synthetic_step.make(config)
    trainer = bench_step.twin(made, "eager", "cpu")
    batch, weights = trainer.put(jax.device_get(made.batch)), torch.ones(made.num_outputs)
    dispatch = synthetic_step.runner(made.compile()[1], made)
    for _ in range(3):
        loss, norm = trainer.step(batch, weights)
        metrics = jax.device_get(dispatch())
        assert float(loss) == pytest.approx(metrics["loss"], rel=1e-3)
        assert float(norm) == pytest.approx(metrics["grad_norm"], rel=1e-2)


@pytest.mark.parametrize("step", [0, 1, 7, 20, 55, 99, 100])
def test_the_schedule_is_ours(step: int):
    options = Config().optimizer
    ours = jnp.asarray(optimizers.make_schedule(options, 100)(step))
    assert training.learning_rate(options, step, 100) == pytest.approx(ours.item(), rel=1e-4)


def test_the_matrix_of_scalars_is_ours():
    ours = geometry.cmr_matrix((40.0, 30.0), 32, angle=0.7, zoom=1.2, flip=-1.0)
    np.testing.assert_allclose(loader.matrix((30.0, 40.0), 32, angle=0.7, zoom=1.2, flip=-1.0), ours, rtol=1e-6)


@pytest.mark.parametrize("augment", [AugmentConfig(), AugmentConfig(rotation_step=90.0, mirror=False)])
def test_matrices_are_drawn_from_the_same_distribution(augment: AugmentConfig):
    random.seed(0)
    theirs = np.stack([loader.draw_matrix((15.5, 15.5), 32, augment) for _ in range(4000)])
    draws = np.random.default_rng(0).random((len(geometry.GEOMETRY), 4000))
    ours = geometry.matrices(np.full((4000, 2), 15.5), draws, 32, augment)
    for moment in (np.mean, np.std):
        np.testing.assert_allclose(moment(theirs[:, :, :2], 0), moment(ours[:, :, :2], 0), atol=0.04)
    areas = [np.quantile(np.linalg.det(side[:, :, :2].astype(float)), [0.01, 0.5, 0.99]) for side in (theirs, ours)]
    np.testing.assert_allclose(areas[0], areas[1], atol=0.06)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, of its compiler
def test_torch_compile_takes_every_network_of_one_process():
    """PyTorch guesses dynamic shapes from the second network on, unless told not to, and then up-sampling fails."""
    for name in ("resnet", "fcn"):
        made = synthetic_step.make(_config(name))
        trainer = bench_step.twin(made, "compile", "cpu")
        batch, weights = trainer.put(jax.device_get(made.batch)), torch.ones(made.num_outputs)
        compiled, _ = trainer.step(batch, weights)
        eager, _ = bench_step.twin(made, "eager", "cpu").step(batch, weights)
        assert float(compiled) == pytest.approx(float(eager), rel=1e-4)
