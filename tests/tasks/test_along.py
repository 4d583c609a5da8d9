"""Networks that learn from the cells of a second data set along with their own."""

import dataclasses

import numpy as np
import pytest

from hep2jax import mesh as meshes
from hep2jax import tasks
from hep2jax.config import Config, DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from hep2jax.data.sets import along
from hep2jax.errors import UsageError
from hep2jax.tasks.cells import CellTask
from hep2jax.training import loop
from tests.data.cell_tables import cell_set

OWN = ("ring", "fine_speckled", "coarse_speckled")
THEIRS = ("speckled", "disc", "ring")


def _config() -> Config:
    return tasks.resolve(
        Config(
            data=DataConfig(crop_size=32, protocol="kfold", num_folds=3, cell_fit="frame", scale=0.5, normalise="none"),
            model=ModelConfig(name="vggcell", width=0.05),
            train=TrainConfig(num_steps=2, global_batch_size=64, checkpoint_every=2),
            evaluation=EvaluationConfig(batch_size=8, gallery_specimens=2),
        )
    )


@pytest.fixture(scope="module")
def task() -> CellTask:
    config = _config()
    own = dataclasses.replace(cell_set(config.data), classes=OWN)
    theirs = dataclasses.replace(cell_set(config.data, seed=1), name="others", classes=THEIRS)
    return CellTask(config, own, along.of_set(theirs, OWN))


def test_a_cell_of_the_second_set_says_which_patterns_it_may_have(task):
    second = along.of_set(dataclasses.replace(cell_set(task.config.data), name="others", classes=THEIRS), OWN)
    assert second.possible.astype(int).tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],  # the own patterns
        [0, 1, 1],  # speckled: fine or coarse
        [0, 0, 0],  # disc: unknown here
        [1, 0, 0],
    ]
    assert {cell.item.pattern for cell in second.cells} == {3, 5}  # no disc
    assert len({cell.item.specimen for cell in second.cells}) == 2 * 3
    assert all(cell.item.specimen.startswith("others/") for cell in second.cells)


def test_both_sets_are_drawn_and_only_own_cells_are_examples(task):
    assert len(task.items) == 3 * 3 * 6
    stream = task.stream(range(len(task.items)), meshes.ALL_ROWS)
    labels = np.concatenate([stream.batch(step)["labels"] for step in range(20)])
    assert labels.dtype == bool
    both = (labels.sum(axis=1) == 2).mean()
    assert both == pytest.approx(1 / 5, abs=0.05)  # five patterns of two sets, all drawn alike
    np.testing.assert_allclose(stream.frequencies(), [2 / 5, 3 / 10, 3 / 10])


def test_a_run_measures_own_specimens_alone(task, tmp_path):
    results = loop.complete(task.config, tmp_path / "work", task)["test"]
    assert len(results) == 3 * 6
    assert {row.specimen for row in results} == {f"{name}-0" for name in ("disc", "ring", "dots")}
    assert results[0].probabilities.shape == (3,)
    alone = CellTask(task.config, task.cells)
    assert alone.fingerprint(range(9)) != task.fingerprint(range(9))
    with pytest.raises(UsageError, match="was trained on other data"):
        loop.complete(task.config, tmp_path / "work", alone)


def test_sets_without_a_common_pattern_are_refused(task):
    with pytest.raises(UsageError, match=r"data\.along=made_up: has no training cell of the patterns golgi"):
        along.of_set(cell_set(task.config.data), ("golgi",))


@pytest.mark.parametrize("name", ["fcn", "fisher", "mil"])
def test_only_networks_for_cells_take_a_second_set(name):
    config = Config(model=ModelConfig(name=name), data=DataConfig(along="icpr2014_task1"))
    with pytest.raises(UsageError, match=r"data\.along=icpr2014_task1: only networks that classify cells"):
        tasks.resolve(config)
    config = dataclasses.replace(_config(), data=DataConfig(along="icpr2014"))
    with pytest.raises(UsageError, match=r"data\.along='icpr2014': must be one of"):
        tasks.resolve(config)
