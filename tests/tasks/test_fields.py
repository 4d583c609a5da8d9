"""Metrics, records and evaluation of whole fields; no training."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hep2jax import mesh as meshes
from hep2jax import tasks
from hep2jax.config import Config, EvaluationConfig, ModelConfig
from hep2jax.data.sets import fields as field_sets
from hep2jax.errors import UsageError
from hep2jax.metrics.pixels import VOID
from hep2jax.metrics.serialise import to_dict
from hep2jax.models import SegmenterOutput
from hep2jax.tasks.fields import FieldTask, decide, to_native
from hep2jax.training import optimizers
from hep2jax.training import state as states
from tests.data.fields import field_set
from tests.tasks import records


@pytest.fixture(scope="module")
def world(data_dir):
    """Tiny fields and a network whose parameters are stirred, so that its predictions have structure."""
    config = Config()
    config.data.builder_config, config.data.data_dir, config.data.scale = "specimens_tiny", str(data_dir), 0.5
    config.model.name, config.model.width = "unet", 0.01
    config.evaluation.tile_size, config.evaluation.tile_overlap = 64, 16
    config.evaluation.min_object_pixels = 1
    fields = field_sets.load(config.data)
    mesh = meshes.make_mesh()
    network = states.make_network(config, len(fields.classes) + 1)
    optimizer = optimizers.make_optimizer(config.optimizer, 10)
    state = states.initial_state(network, optimizer, 0, meshes.replicated(mesh))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.2 * rng.standard_normal(x.shape).astype(np.float32), state.params)
    return config, fields, mesh, network, (params, state.batch_stats)


def _metrics(world, batch_size: int) -> dict:
    config, fields, mesh, network, parameters = world
    config.evaluation.batch_size = batch_size
    indices = range(0, len(fields), 3)
    task = FieldTask(config, fields)
    rows = task.evaluator(network, mesh).measure(parameters, indices)
    return to_dict(task.metrics(rows))


def _numbers(value) -> list[float]:
    if isinstance(value, dict):
        return [n for key in sorted(value) for n in _numbers(value[key])]
    if isinstance(value, list):
        return [n for item in value for n in _numbers(item)]
    return [float(value)] if isinstance(value, int | float) else []


def test_metrics_do_not_depend_on_the_batch_size(world):
    one = _numbers(_metrics(world, 1))
    assert len(one) > 100
    for batch_size in (7, 200):
        # XLA rounds other batches in another way: a pixel on the border of two classes may fall to the other side.
        np.testing.assert_allclose(_numbers(_metrics(world, batch_size)), one, atol=1e-4)


def test_records_survive_json(world):
    config, fields, mesh, network, parameters = world
    config.evaluation.nuclear_diameter, config.evaluation.baselines = 48.0, True
    task = FieldTask(config, fields)
    rows = task.evaluator(network, mesh).measure(parameters, range(4))
    back = [task.from_record(json.loads(json.dumps(task.to_record(row)))) for row in rows]
    config.evaluation.nuclear_diameter, config.evaluation.baselines = 0.0, False
    first = task.metrics(rows)
    assert task.metrics(back) == first
    assert set(first.baselines) == {"otsu_watershed", "otsu_log_watershed"}
    entries = to_dict(first)
    assert list(entries)[-3:] == ["pixel", "specimen", "baselines"]
    assert "classes" in entries["pixel"]
    assert set(entries["baselines"]["otsu_watershed"]) == {"pixel"}
    assert "classes" not in entries["baselines"]["otsu_watershed"]["pixel"]
    without = [dataclasses.replace(row, baselines={}) for row in rows]
    assert "baselines" not in to_dict(task.metrics(without))


def test_native_resolution_is_what_is_measured(world):
    config, fields, mesh, network, parameters = world
    result = FieldTask(config, fields).evaluator(network, mesh).measure(parameters, [0])[0]
    assert result.predicted.shape == fields.fields[0].image.shape
    valid = np.count_nonzero(fields.fields[0].classes != VOID)
    counts = result.score.counts
    assert counts.tp + counts.fp + counts.fn + counts.tn == valid
    assert result.class_counts.sum() == valid


class Bright(nnx.Module):
    """Takes bright pixels for cells, of which the second pattern has `share` and the first a tenth of that."""

    def __init__(self, share: float):
        self.share = nnx.Param(jnp.array(share))

    def __call__(self, image: jax.Array, *, train: bool, rngs: nnx.Rngs | None = None) -> SegmenterOutput:
        share = jnp.where(image[..., 0] > 0.5, self.share[...], 0.0)
        return SegmenterOutput(jnp.log(jnp.stack([1 - 1.1 * share, 0.1 * share, share, 0 * share], axis=-1) + 1e-9))


def _bright(share: float, threshold: float):
    """What the evaluator measures of a made-up field of the second pattern, whose cells have sharp outlines."""
    fields = field_set(num_patterns=3, specimens=1, fields=1)
    config = Config(evaluation=EvaluationConfig(tile_size=64, tile_overlap=16, foreground_threshold=threshold))
    graphdef, params, stats = nnx.split(Bright(share), nnx.Param, nnx.BatchStat)
    network = states.Network(graphdef=graphdef, build=None)
    evaluator = FieldTask(config, fields).evaluator(network, meshes.make_mesh())
    parameters = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    return fields.fields[1], evaluator.measure(parameters, [1])[0]


def test_the_second_pattern_is_the_second_in_every_count():
    field, result = _bright(0.8, 0.5)
    assert result.score.counts.ratios().Dice > 0.98
    assert result.votes[1] == result.votes.sum() == (result.predicted > 0).sum()
    assert set(np.unique(result.predicted)) == {0, 2}
    assert result.class_counts[2, 2] == result.score.counts.tp
    assert result.class_counts.sum() == field.image.size


def test_the_configured_threshold_decides_what_is_cell():
    assert _bright(0.4, 0.5)[1].score.counts.ratios().Dice == 0
    assert _bright(0.4, 0.4)[1].score.counts.ratios().Dice > 0.98


def test_where_the_network_hesitates_the_contrast_decides():
    """Four discs: bright or as dark as the background, of a cell probability of 0.6 or 0.4, or of 0.9 or 0.1."""
    rows, columns = np.mgrid[:120, :120]
    image, cell = np.full((120, 120), 20, np.uint8), np.full((120, 120), 0.02, np.float32)
    discs = {}
    for probability, is_bright, centre in (
        (0.6, True, (30, 30)),
        (0.6, False, (30, 90)),
        (0.4, True, (90, 30)),
        (0.1, True, (90, 90)),
        (0.9, False, (60, 60)),
    ):
        disc = np.hypot(rows - centre[0], columns - centre[1]) < 12
        discs[probability, is_bright] = disc
        image[disc], cell[disc] = 120 if is_bright else 20, probability
    probabilities = np.stack([1 - cell, cell], axis=-1)
    found = {}
    for band in (0.0, 0.15):
        options = EvaluationConfig(nuclear_diameter=24.0, unsure_band=band)
        reading = decide(probabilities, image, options)
        found[band] = {disc: reading.foreground[where].mean() > 0.5 for disc, where in discs.items()}
    assert [disc for disc, seen in found[0.0].items() if seen] == [(0.6, True), (0.6, False), (0.9, False)]
    assert [disc for disc, seen in found[0.15].items() if seen] == [(0.6, True), (0.4, True), (0.9, False)]


@pytest.mark.parametrize("key", ["unsure_band", "cell_reader"])
def test_only_networks_of_pixels_take_what_is_for_them(key: str):
    config = Config(model=ModelConfig(name="mil"), evaluation=EvaluationConfig(nuclear_diameter=20.0))
    setattr(config.evaluation, key, {"unsure_band": 0.1, "cell_reader": "runs/cells"}[key])
    with pytest.raises(UsageError, match=rf"evaluation\.{key}=.*: is for networks that label pixels"):
        tasks.resolve(config)
    config.model.name, config.evaluation.nuclear_diameter = "fcn", 0.0
    with pytest.raises(UsageError, match=r"evaluation\.nuclear_diameter=0: "):
        tasks.resolve(config)


def test_masks_are_interpolated_between_working_pixels():
    """A step of probability between two working pixels becomes a ramp at three times the resolution."""
    native = to_native(np.array([[[1.0, 0.0], [0.1, 0.9]]] * 2, np.float32), (6, 6))
    np.testing.assert_allclose(native[3, :, 1], [0, 0, 0.3, 0.6, 0.9, 0.9], atol=1e-3)
    np.testing.assert_allclose(native.sum(-1), 1, rtol=1e-6)


def test_checkpoints_are_ranked_by_pixels_and_specimens_alike():
    task = FieldTask(Config(), field_set(specimens=1, fields=1))
    assert task.score(records.of_fields(0.6, 0.9)) == pytest.approx(0.75)
