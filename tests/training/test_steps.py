"""The compiled step against plain NumPy in float64: loss, gradient, clipping, optimizer, schedule and averages."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hep2jax import mesh as meshes
from hep2jax.config import Config, DataConfig, LossConfig, ModelConfig, OptimizerConfig
from hep2jax.models.classifier import ClassifierOutput
from hep2jax.models.layers import dropout
from hep2jax.tasks.cells import CellTask
from hep2jax.training import losses, optimizers, steps
from hep2jax.training import state as states

_ROWS, _SIDE, _CLASSES, _STEPS = 6, 4, 3, 5
_WEIGHTS = np.array([0.5, 1.0, 2.5])
_CLIP = 0.4


class Linear(nnx.Module):
    """A network whose gradient can be written down: logits are linear in the pixels.

    Its running mean of the pixels is what is subtracted outside training.
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(0.1 * jax.random.normal(rngs.params(), (_SIDE**2, _CLASSES)))
        self.bias = nnx.Param(jnp.zeros(_CLASSES))
        self.mean = nnx.BatchStat(jnp.zeros(_SIDE**2))
        self.rate = rate

    def __call__(self, image: jax.Array, *, train: bool, rngs: nnx.Rngs | None = None) -> ClassifierOutput:
        pixels = image.reshape(len(image), -1)
        if train:
            self.mean[...] = 0.8 * self.mean[...] + 0.2 * pixels.mean(0)
            pixels = dropout(pixels, self.rate, train=train, rngs=rngs)
        else:
            pixels = pixels - self.mean[...]
        return ClassifierOutput(pixels @ self.kernel[...] + self.bias[...])

    def target(self, image: jax.Array) -> jax.Array:
        return image


def _network(rate: float = 0.0) -> states.Network:
    def build(key: jax.Array) -> nnx.Module:
        return Linear(rate, rngs=nnx.Rngs(params=key))

    abstract = nnx.eval_shape(lambda: build(jax.random.key(0)))
    return states.Network(graphdef=nnx.split(abstract, nnx.Param, nnx.BatchStat)[0], build=build)


def _config(**optimizer) -> Config:
    config = Config(optimizer=OptimizerConfig(learning_rate=0.05, warmup_steps=2, clip_norm=_CLIP, **optimizer))
    config.train.num_steps, config.train.global_batch_size = 8, _ROWS
    config.loss.label_smoothing = 0.1
    return config


def _fresh(config: Config, network: states.Network) -> states.TrainState:
    optimizer = optimizers.make_optimizer(config.optimizer, config.train.num_steps)
    return states.fresh_state(network, optimizer, jax.random.key(0))


def _batch(step: int) -> dict[str, np.ndarray]:
    """Of every step brighter than of the one before, so that some gradients are clipped and some are not."""
    rng = np.random.default_rng(step)
    return {
        "image": rng.integers(0, 256, (_ROWS, _SIDE, _SIDE)).astype(np.uint8),
        "labels": rng.integers(0, _CLASSES, _ROWS).astype(np.int32),
        "tone_curve": np.tile(np.array([20, (0.2 + 0.2 * step) / 255, 1, 0], np.float32), (_ROWS, 1)),
    }


def _train(config: Config, network: states.Network):
    """States after each of the steps, the first one before them; and the metrics of the steps."""
    step = jax.jit(steps.make_train_step(config, network, CellTask.loss))
    found, metrics = [_fresh(config, network)], []
    for number in range(_STEPS):
        state, row = step(found[-1], _batch(number), {"class_weights": _WEIGHTS.astype(np.float32)})
        found.append(state)
        metrics.append(row)
    return found, metrics


# The same in NumPy.


def _rate(config: Config, step: int) -> float:
    """Warm-up from half the peak over two steps, then half a cosine down to a hundredth of it over the other six."""
    peak = config.optimizer.learning_rate
    if step < 2:
        return peak * (0.5 + 0.25 * step)
    if config.optimizer.schedule == "constant":
        return peak
    return peak * (0.01 + 0.99 * (1 + np.cos(np.pi * (step - 2) / 6)) / 2)


def _loss_and_gradient(params: dict[str, np.ndarray], batch: dict[str, np.ndarray], smoothing: float):
    offset, gain = batch["tone_curve"][0, :2].astype(np.float64)
    pixels = np.clip((batch["image"].reshape(_ROWS, -1) - offset) * gain, -1, 4)
    logits = pixels @ params["kernel"] + params["bias"]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    target = (1 - smoothing) * np.eye(_CLASSES)[batch["labels"]] + smoothing / _CLASSES
    weight = _WEIGHTS[batch["labels"]] / _WEIGHTS[batch["labels"]].sum()
    error = weight[:, None] * (shares - target)
    loss = -(weight[:, None] * target * np.log(shares)).sum()
    return loss, {"kernel": pixels.T @ error, "bias": error.sum(0)}, pixels


def _reference(config: Config, params: dict[str, np.ndarray]):
    """Parameters, their averages, the running mean and its average, losses, gradient norms after the five steps."""
    options = config.optimizer
    first = {name: np.zeros_like(value) for name, value in params.items()}  # of Adam: moments; of SGD: the momentum
    second = {name: np.zeros_like(value) for name, value in params.items()}
    average, mean, mean_average = dict(params), np.zeros(_SIDE**2), np.zeros(_SIDE**2)
    rows = []
    for step in range(_STEPS):
        loss, gradient, pixels = _loss_and_gradient(params, _batch(step), config.loss.label_smoothing)
        norm = np.sqrt(sum((value**2).sum() for value in gradient.values()))
        rows.append({"loss": loss, "grad_norm": norm, "learning_rate": _rate(config, step)})
        for name, value in gradient.items():
            clipped = value * min(1, options.clip_norm / norm) if options.clip_norm else value
            decay = options.weight_decay * params[name] if name == "kernel" else 0
            if options.name == "adamw":
                first[name] = 0.9 * first[name] + 0.1 * clipped
                second[name] = 0.999 * second[name] + 0.001 * clipped**2
                spread = np.sqrt(second[name] / (1 - 0.999 ** (step + 1)))
                moved = first[name] / (1 - 0.9 ** (step + 1)) / (spread + 1e-8) + decay
            else:
                first[name] = clipped + decay + options.momentum * first[name]
                moved = first[name]
            params = params | {name: params[name] - _rate(config, step) * moved}
        mean = 0.8 * mean + 0.2 * pixels.mean(0)
        kept = min(options.ema_decay, (step + 1) / (step + 11))
        average = {name: kept * average[name] + (1 - kept) * params[name] for name in params}
        mean_average = kept * mean_average + (1 - kept) * mean
    return params, average, mean, mean_average, rows


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "adamw", "weight_decay": 0.3, "ema_decay": 0.2},
        {"name": "sgd", "weight_decay": 0.3, "momentum": 0.8, "ema_decay": 0.99},
        {"name": "sgd", "schedule": "constant", "momentum": 0.0, "ema_decay": 0.0},
    ],
    ids=lambda optimizer: "-".join(map(str, optimizer.values())),
)
def test_five_steps_are_those_of_plain_arithmetic(optimizer: dict):
    config, network = _config(**optimizer), _network()
    found, metrics = _train(config, network)
    start = {name: np.asarray(value, np.float64) for name, value in found[0].params.items()}
    params, average, mean, mean_average, rows = _reference(config, start)
    norms = [row["grad_norm"] for row in rows]
    assert min(norms) < _CLIP < max(norms)
    last = found[-1]
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(last.params[name], params[name], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(last.ema_params[name], average[name], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(last.batch_stats["mean"], mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(last.ema_batch_stats["mean"], mean_average, rtol=1e-5, atol=1e-7)
    for row, expected in zip(metrics, rows, strict=True):
        assert {name: float(value) for name, value in row.items()} == pytest.approx(expected, rel=1e-5)
    assert int(last.step) == _STEPS


def test_every_step_drops_other_pixels_and_the_same_ones_again():
    config, network = _config(), _network(rate=0.5)
    config.model.dropout = 0.5
    fresh, constants = _fresh(config, network), {"class_weights": np.ones(3, np.float32)}

    def losses_of(seed: int, numbers: tuple[int, ...]) -> list[float]:
        step = jax.jit(steps.make_train_step(dataclasses.replace(config, seed=seed), network, CellTask.loss))
        at = [dataclasses.replace(fresh, step=jnp.int32(number)) for number in numbers]
        return [float(step(state, _batch(3), constants)[1]["loss"]) for state in at]

    first, second, third, again = losses_of(0, (0, 1, 2, 1))
    assert len({first, second, third}) == 3
    assert again == second
    assert losses_of(1, (1,)) != [second]


def test_prediction_drops_nothing_and_takes_the_statistics_that_it_is_given():
    network = _network(rate=0.5)
    batch, rng = _batch(3), np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(_SIDE**2, _CLASSES)), "bias": rng.normal(size=_CLASSES)}
    mean = rng.normal(size=_SIDE**2)
    said = steps.make_predict_step(network, CellTask.decode)(
        params, {"mean": jnp.asarray(mean)}, jnp.asarray(batch["image"]), jnp.asarray(batch["tone_curve"])
    )
    offset, gain = batch["tone_curve"][0, :2]
    pixels = np.clip((batch["image"].reshape(_ROWS, -1) - offset) * gain, -1, 4)
    logits = (pixels - mean) @ params["kernel"] + params["bias"]
    np.testing.assert_allclose(said, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), rtol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_cells_by_hand(smoothing: float):
    """Class weights, side heads, smoothing and reconstruction."""
    rng = np.random.default_rng(0)
    logits, side = rng.normal(size=(2, 5, 3))
    labels, weights = np.array([0, 1, 2, 2, 0]), np.array([1.0, 2.0, 4.0])
    picture, target = rng.normal(size=(2, 5, 4, 4, 1))
    config = LossConfig(side_weight=0.3, reconstruction_weight=0.7, label_smoothing=smoothing)
    output = ClassifierOutput(jnp.asarray(logits), (jnp.asarray(side),), jnp.asarray(picture))
    loss = losses.cell_loss(output, jnp.asarray(labels), jnp.asarray(target), jnp.asarray(weights), config)
    wanted = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
    nll = [-(wanted * (x - np.log(np.exp(x).sum(1, keepdims=True)))).sum(1) for x in (logits, side)]
    named = ((nll[0] + 0.3 * nll[1]) * weights[labels]).sum() / weights[labels].sum()
    assert float(loss) == pytest.approx(named + 0.7 * np.mean((picture - target) ** 2), rel=1e-5)


def test_folds_share_a_program_and_other_settings_have_their_own():
    mesh = meshes.make_mesh()

    def program(config: Config) -> object:
        network = states.make_network(config, _CLASSES)
        return steps.train_program(config, network, CellTask.loss, mesh)

    config = Config(data=DataConfig(crop_size=78), model=ModelConfig(name="gao", width=0.5))
    first = program(config)
    config.data.fold = 3
    assert program(config) is first
    config.optimizer.learning_rate *= 2
    assert program(config) is not first
    network = states.make_network(config, _CLASSES)
    config.model.width = 0.25
    assert states.make_network(config, _CLASSES) is not network
    config.model.width = 0.5
    assert states.make_network(config, _CLASSES) is network
    predict = steps.predict_program(network, CellTask.decode, mesh)
    assert steps.predict_program(network, CellTask.decode, mesh) is predict
    assert steps.predict_program(network, CellTask.decode, mesh, dihedral=True) is not predict


def test_statistics_of_groups_need_no_exchange_between_devices(together):
    """Eight norms, each with an exchange forward and backward; what remains are the gradients, averages and metrics."""
    (done,) = together("tests.reductions", processes=1, devices=4)
    found = json.loads(done.stdout)
    assert found["whole"] >= 16
    assert found["groups"] <= 4
    assert found["difference"] < 1e-5
