"""The training run on a few made-up cells: which side and which checkpoint count, how classes are
weighted."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hep2jax.config import AugmentConfig, Config, DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from hep2jax.errors import UsageError
from hep2jax.tasks.cells import CellTask
from hep2jax.training import evaluation, loop, packing, restoring, workdir
from hep2jax.training.state import TrainState
from hep2jax.training.timing import StepClock
from tests.data.cell_tables import cell_set


def _config(**data) -> Config:
    """Nine specimens of three patterns: three for testing, one of each of two patterns for validation."""
    folds = {"protocol": "kfold", "num_folds": 3, "validation_fraction": 1 / 3}
    return Config(
        data=DataConfig(crop_size=78, normalise="contrast_stretch", **(folds | data)),
        augment=AugmentConfig(rotate=False),
        model=ModelConfig(name="gao"),
        train=TrainConfig(num_steps=2, global_batch_size=8, eval_every=2, log_every=1),
        evaluation=EvaluationConfig(batch_size=16),
    )


def _task(config: Config) -> CellTask:
    return CellTask(config, cell_set(config.data, specimens=3, cells=3))


def _prepared(config: Config, directory: pathlib.Path, task: CellTask) -> loop.Run:
    workdir.open_for_training(directory, config)
    return loop.prepare(config, directory, StepClock(), task)


def test_checkpoints_are_ranked_by_the_validation_side(tmp_path):
    """It has two patterns and the test side three: a network that names one pattern only is right on 1/2 and on 1/3."""
    config = _config()
    loop.train(config, tmp_path / "w", _task(config))
    lines = [json.loads(line) for line in (tmp_path / "w" / "metrics.jsonl").read_text().splitlines()]
    during, after = ({name: line[name] for name in ("aca", "mca")} for line in lines if line["split"] == "validation")
    assert during == after  # of the same parameters: the only checkpoint is the best
    figures = json.loads((tmp_path / "w" / "report" / "metrics.json").read_text())
    assert [figures[side]["num_specimens"] for side in ("validation", "test")] == [2, 3]
    assert during["mca"] == figures["validation"]["mca"] != figures["test"]["mca"]


def test_the_averages_of_the_best_checkpoint_are_reported_and_restored(tmp_path):
    """Of two checkpoints of a finished run the first is the better; its averages are not its parameters."""
    config = _config()
    task, directory = _task(config), tmp_path / "w"
    this = _prepared(config, directory, task)
    workdir.check_same_data(directory, task.fingerprint(this.partition.train))
    fresh, rng = packing.unpack(this.state), np.random.default_rng(0)

    def checkpoint(step: int) -> TrainState:
        average = jax.tree.map(lambda x: x + rng.normal(size=x.shape).astype(x.dtype), fresh.params)
        return dataclasses.replace(fresh, step=jnp.array(step), ema_params=average)

    best, newest = checkpoint(1), checkpoint(2)
    for state, score in ((best, 0.9), (newest, 0.2)):
        this.checkpoints.save(int(state.step), state, score)
    loop.close(this)
    loop.train(config, directory, task)
    records = json.loads((directory / "report" / "records.json").read_text())["splits"]["test"]
    said = np.array([record["probabilities"] for record in records])
    expected, *others = (
        np.stack([row.probabilities for row in this.evaluator.measure((params, {}), this.partition.test)])
        for params in (best.ema_params, best.params, newest.ema_params)
    )
    np.testing.assert_allclose(said, expected, atol=1e-5)
    assert min(np.abs(other - expected).max() for other in others) > 0.1
    state, step = restoring.restore(config, directory, this.network, this.mesh)
    assert step == 1
    trained = evaluation.load(directory)
    assert trained.classes == task.classes
    for found in (state.ema_params, trained.parameters[0]):
        jax.tree.map(np.testing.assert_array_equal, found, best.ema_params)


def test_weights_of_classes_make_up_for_their_frequencies():
    weights = loop.class_weights(np.array([0.5, 0.4, 0.1, 0.0]), 1.0)
    np.testing.assert_allclose(weights, np.array([2, 2.5, 10, 0]) / 3, rtol=1e-6)  # 0.5, 0.4, 0.1 of them: mean 1
    np.testing.assert_allclose(loop.class_weights(np.array([0.8, 0.2]), 0.5) @ [0.8, 0.2], 1, rtol=1e-6)
    np.testing.assert_array_equal(loop.class_weights(np.array([0.9, 0.1, 0.0]), 0.0), [1, 1, 0])


@pytest.mark.parametrize(("balance", "frequencies"), [("pattern", [1 / 3] * 3), ("none", [6 / 10, 3 / 10, 1 / 10])])
def test_what_the_sampler_balances_is_not_balanced_again(balance: str, frequencies: list[float], tmp_path):
    """Six, three and one cell of three patterns to train on."""
    config = _config(protocol="contest", balance=balance, validation_fraction=0.0)
    config.loss.class_balance = 1.0
    cells = _task(config).cells
    kept = [cell for cell in cells.cells if int(cell.item.identifier[1:]) < (6, 3, 1)[cell.item.pattern]]
    this = _prepared(config, tmp_path, CellTask(config, dataclasses.replace(cells, cells=tuple(kept))))
    with loop.open_feed(this, 0, 2) as feed:
        weights = feed.constants["class_weights"]
    loop.close(this)
    np.testing.assert_allclose(weights, 1 / np.array(frequencies) / 3, rtol=1e-6)


def test_other_networks_cannot_start_from_imagenet(tmp_path):
    config = _config()
    config.model.init_from = "imagenet"
    with pytest.raises(UsageError, match="^model.init_from=imagenet: model.name=gao has no such weights: effi"):
        _prepared(config, tmp_path / "w", _task(config))
