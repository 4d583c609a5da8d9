"""`mil` learns a dozen tiny specimens by heart, through the real stream, step and evaluator."""

import dataclasses

import jax
import numpy as np
import pytest

from hep2jax import mesh as meshes
from hep2jax import ops
from hep2jax.config import AugmentConfig, Config, DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from hep2jax.data.streams.bags import BagPlan, from_specimens
from hep2jax.data.streams.stream import Stream
from hep2jax.errors import UsageError
from hep2jax.metrics.serialise import to_dict
from hep2jax.tasks.bags import BagMetrics, BagTask, pooled
from hep2jax.tasks.tile_reader import TileReader
from hep2jax.training import optimizers, steps
from hep2jax.training import state as states
from tests.data.blobs import blob_set
from tests.tasks import records

_BAGS, _TILES, _SIDE, _STEPS = 6, 3, 48, 120


def _config() -> Config:
    config = Config(
        data=DataConfig(crop_size=_SIDE, bag_tiles=_TILES),
        augment=AugmentConfig(rotate=False, scale_min=1, scale_max=1, gain=0.1, gamma=0, offset=0),
        model=ModelConfig(name="mil", width=0.1),
        train=TrainConfig(num_steps=_STEPS, global_batch_size=_BAGS),
        evaluation=EvaluationConfig(tile_size=_SIDE, tile_overlap=8, batch_size=16),
    )
    config.optimizer.learning_rate, config.optimizer.ema_decay = 1e-2, 0.0
    return config


@pytest.fixture(scope="module")
def fields():
    return blob_set()


@pytest.fixture(scope="module")
def trained(fields):
    """A task, its evaluator and the parameters after a few steps."""
    task, mesh = BagTask(_config(), fields), meshes.make_mesh()
    network = states.make_network(task.config, task.num_outputs)
    optimizer = optimizers.make_optimizer(task.config.optimizer, _STEPS)
    state = states.initial_state(network, optimizer, 0, meshes.replicated(mesh))
    # Compiling takes longer here than running, so LLVM does not optimise.
    quick = {"xla_backend_optimization_level": 0}
    step = jax.jit(steps.make_train_step(task.config, network, task.loss), donate_argnums=0, compiler_options=quick)
    stream = task.stream(range(len(fields)), slice(0, _BAGS))
    for number in range(_STEPS):
        state, metrics = step(state, stream.batch(number), {"class_weights": np.ones(3, np.float32)})
    assert np.isfinite(metrics["loss"])
    return task, task.evaluator(network, mesh), (state.params, state.batch_stats)


def test_learns_a_dozen_specimens_by_heart(trained, fields):
    task, evaluator, parameters = trained
    results = evaluator.measure(parameters, range(len(fields)))
    measured = task.metrics(results)
    assert measured.fields.num_examples == 24
    assert measured.specimen.num_specimens == 12
    assert measured.specimen.mca.value == 1.0
    assert task.summary(measured)["specimen_mca"] == 1.0
    entries = to_dict(measured)
    assert (entries["num_examples"], entries["specimen"]["num_specimens"]) == (24, 12)
    assert [task.to_record(task.from_record(task.to_record(row))) for row in results] == [
        task.to_record(row) for row in results
    ]


def test_a_specimen_is_one_bag_whatever_the_order_and_the_padding(trained, fields):
    """Fields pool to what all their tiles say as one bag, in batches of any size."""
    task, evaluator, parameters = trained
    results = evaluator.measure(parameters, [0, 1])
    network = states.make_network(task.config, task.num_outputs)
    reader = TileReader(task.config, network, meshes.make_mesh(), task.decode)
    said = list(reader.read(parameters, _images(fields, [0, 1])))
    scores, logits = (np.array([getattr(row, name) for _, row in said], float) for name in ("attention", "logits"))
    weights = np.exp(scores) / np.exp(scores).sum()
    one_bag = np.exp(weights @ logits) / np.exp(weights @ logits).sum()
    np.testing.assert_allclose(pooled(results), one_bag, atol=1e-9)
    np.testing.assert_allclose(pooled(results[::-1]), one_bag, atol=1e-9)
    assert [row.attention.sum() for row in results] == pytest.approx([1, 1])
    assert [len(row.corners) for row in results] == [len(said) // 2] * 2
    config = dataclasses.replace(task.config, evaluation=dataclasses.replace(task.config.evaluation, batch_size=8))
    network = states.make_network(config, task.num_outputs)
    other = BagTask(config, fields).evaluator(network, meshes.make_mesh())  # 32 tiles: another number of padded rows
    np.testing.assert_allclose(pooled(other.measure(parameters, [1, 0])), one_bag, atol=1e-5)


def _images(fields, indices):
    chosen = (fields.fields[i] for i in indices)
    return [(f.working_image, np.array([f.grey_offset, f.grey_gain, 1, 0], np.float32)) for f in chosen]


def test_the_stream_makes_bags_of_one_specimen(fields):
    config = _config()
    config.data.balance = "none"
    bags = from_specimens(fields, range(len(fields)))
    stream = Stream(BagPlan(config, bags))
    batch = stream.batch(5)
    assert batch["image"].shape == (_BAGS * _TILES, _SIDE, _SIDE)
    assert batch["labels"].shape == (_BAGS,)
    jitter = batch["tone_curve"].reshape(_BAGS, _TILES, 4)[..., 2:]
    assert (jitter == jitter[:, :1]).all()
    halves = [Stream(BagPlan(config, bags), rows=rows) for rows in (slice(0, 3), slice(3, 6))]
    for name, array in batch.items():
        np.testing.assert_array_equal(np.concatenate([half.batch(5)[name] for half in halves]), array)
    epoch = np.concatenate([stream.batch(number)["labels"] for number in range(2)])
    assert np.bincount(epoch).tolist() == [4, 4, 4]  # each of the twelve specimens once


def test_the_device_makes_the_tiles_that_the_host_makes(fields):
    config = _config()
    bags = from_specimens(fields, range(len(fields)))
    host = Stream(BagPlan(config, bags)).batch(3)
    config.data.warp = "device"
    stream = Stream(BagPlan(config, bags))
    stretch = 1 / config.augment.scale_min
    device = ops.crops(*jax.device_put((stream.batch(3), stream.store)), size=config.data.crop_size, stretch=stretch)
    assert set(device) == set(host)
    np.testing.assert_allclose(device["image"], host["image"], atol=1.01)


def test_checkpoints_are_ranked_by_specimens_then_by_fields(fields):
    task = BagTask(_config(), fields)
    scores = [
        task.score(BagMetrics(fields=records.classification(single), specimen=records.classification(whole)))
        for whole, single in ((0.7, 0.9), (0.8, 0.1), (0.8, 0.2))
    ]
    assert scores == sorted(set(scores))


def test_a_field_smaller_than_a_tile_cannot_be_trained_on(fields):
    config = _config()
    config.data.crop_size = 128
    with pytest.raises(UsageError, match=r"smaller than data.crop_size=128"):
        Stream(BagPlan(config, from_specimens(fields, range(len(fields)))))
