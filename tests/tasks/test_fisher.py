"""The texture reader as a run: fitted on made-up cells, evaluated, loaded again, learned along with another set."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import hep2jax
from hep2jax import mesh as meshes
from hep2jax import tasks
from hep2jax.config import Config, DataConfig, EvaluationConfig, FisherConfig, ModelConfig
from hep2jax.data.sets.cells import CellSet
from hep2jax.errors import UsageError
from hep2jax.tasks.fisher import FisherEvaluator, FisherTask
from hep2jax.training import fitted, loop
from hep2jax.training import state as states
from tests.data.cell_tables import cell_set, picture

SIDE = 40


def _config(**fisher) -> Config:
    settings = {"gaussians": 4, "codebook_cells": 12, "cells_per_specimen": 5, "cells_along": 2} | fisher
    return tasks.resolve(
        Config(
            data=DataConfig(cell_fit="frame", crop_size=SIDE, protocol="kfold", num_folds=3, scale=0.5),
            model=ModelConfig(name="fisher"),
            fisher=FisherConfig(**settings),
            evaluation=EvaluationConfig(batch_size=8, gallery_specimens=2),
        )
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on one of three folds of made-up specimens, and its task."""
    config, directory = _config(), tmp_path_factory.mktemp("fisher") / "work"
    task = FisherTask(config, cell_set(config.data))
    loop.train(config, directory, task)
    return directory, task


def test_a_run_leaves_the_work_directory_of_any_run(finished):
    directory, task = finished
    figures = json.loads((directory / "report" / "metrics.json").read_text())
    side = figures["test"]
    assert set(figures) == {"test"}
    assert {"aca", "mca", "aca_ci95", "per_class", "confusion", "specimen", "specimens"} <= side.keys()
    assert side["num_examples"] == 18
    assert side["aca"] > 0.7  # discs, rings and dots are told apart on specimens that were not learned from
    assert "By cell" in (directory / "report" / "index.html").read_text()
    last = json.loads((directory / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["num_parameters"] > 1000
    assert 0 < last["goodput"] < 1
    account = json.loads((directory / "time.json").read_text())
    assert (account["starts"], account["step"]) == (1, 1)
    assert account["seconds"]["step"] > 0 < account["seconds"]["evaluation"]
    assert json.loads((directory / "classes.json").read_text()) == list(task.classes)


def test_a_finished_run_is_not_fitted_again(finished, monkeypatch):
    directory, task = finished
    before = (directory / "checkpoints" / "1" / fitted.PARAMETERS).stat().st_mtime_ns
    results = loop.complete(task.config, directory, task)
    assert len(results["test"]) == 18
    assert (directory / "checkpoints" / "1" / fitted.PARAMETERS).stat().st_mtime_ns == before
    other = dataclasses.replace(task.config, fisher=dataclasses.replace(task.config.fisher, ridge=1.0))
    with pytest.raises(UsageError, match=r"fisher\.ridge was 3\.0 and is now 1\.0"):
        loop.complete(other, directory, task)


def test_the_account_goes_on_when_a_finished_run_is_measured_again(finished, tmp_path):
    directory, task = finished
    copy = shutil.copytree(directory, tmp_path / "work")
    loop.train(task.config, copy, task)
    first, second = (json.loads((folder / "time.json").read_text()) for folder in (directory, copy))
    assert second["starts"] == 2
    assert second["seconds"]["step"] == first["seconds"]["step"]  # nothing was fitted again
    assert second["seconds"]["evaluation"] > first["seconds"]["evaluation"]


def test_a_loaded_reader_reads_as_the_evaluation(finished):
    directory, task = finished
    reader = hep2jax.load(directory)
    cell = task.cells.cells[0]
    image, mask = picture("ring", np.random.default_rng(5))
    reading = reader(image, mask)
    assert sum(reading.probabilities.values()) == pytest.approx(1, abs=1e-5)
    turned = reader(np.rot90(image).copy(), np.rot90(mask).copy())
    for name, value in reading.probabilities.items():
        assert turned.probabilities[name] == pytest.approx(value, abs=0.02)
    with pytest.raises(UsageError, match="has no mask here"):
        reader(image)
    evaluator = FisherEvaluator(task.config, None, meshes.make_mesh())
    parameters = (fitted.load(directory), {})
    one = evaluator.predict(parameters, [cell.ready], [cell.tone_curve])  # seven of eight rows are padding
    many = evaluator.predict(parameters, *zip(*[(c.ready, c.tone_curve) for c in task.cells.cells[:11]], strict=True))
    np.testing.assert_allclose(one[0], many[0], atol=1e-5)


def test_nothing_of_the_test_specimens_is_learned(finished):
    """Test cells of another kind, and with other patterns, leave every fitted number as it was."""
    directory, task = finished
    rng = np.random.default_rng(6)
    held_out = {f"{pattern}-0" for pattern in task.classes}
    cells = [
        dataclasses.replace(
            cell,
            item=dataclasses.replace(cell.item, pattern=(cell.item.pattern + 1) % 3),
            ready=rng.integers(0, 2, cell.ready.shape).astype(np.uint8) * np.array([200, 1], np.uint8),
        )
        if cell.item.specimen in held_out
        else cell
        for cell in task.cells.cells
    ]
    changed = FisherTask(task.config, CellSet(name="made_up", classes=task.classes, cells=tuple(cells)))
    train = [i for i, item in enumerate(task.items) if item.specimen not in held_out]
    (parameters, _), _ = changed.fit(train, meshes.make_mesh())
    fitted.save(directory.parent / "other", parameters, {})
    assert _digest(fitted.load(directory.parent / "other")) == _digest(fitted.load(directory))


def _digest(tree) -> str:
    return states.params_digest(tree)


def test_a_run_that_learns_along_with_another_set(finished, tmp_path):
    directory, _ = finished
    config = _config(ridge=10.0, shape=0.15)
    config.model.init_from = str(directory)
    classes = ("disc", "ring", "fine_speckled")
    cells = dataclasses.replace(cell_set(config.data, seed=9), classes=classes)
    loop.train(config, tmp_path / "along", FisherTask(config, cells))
    own, start = fitted.load(tmp_path / "along"), fitted.load(directory)
    np.testing.assert_array_equal(own["codebooks"]["sift"]["centres"], start["codebooks"]["sift"]["centres"])
    assert own["members"].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]  # dots are of the other set only
    points = own["broad"]["gaussian"]["shape"]["points"]
    assert len(points) == 6 * 5 + 6 * 2  # six training specimens of each set
    config.model.init_from = str(tmp_path / "absent")
    with pytest.raises(UsageError, match="holds no fitted reader"):
        FisherTask(config, cells).fit(range(9), meshes.make_mesh())


def test_it_needs_frames():
    config = Config(model=ModelConfig(name="fisher"))
    with pytest.raises(UsageError, match=r"data\.cell_fit='stretch': fisher needs the mask"):
        tasks.resolve(config)
    config.data.cell_fit, config.data.crop_size = "frame", 8
    with pytest.raises(UsageError, match=r"data\.crop_size=8: fisher takes frames"):
        tasks.resolve(config)


def test_there_is_no_step_to_profile(command):
    done = command("hep2jax.main", "--config=configs/fisher.py", "--mode=profile")
    assert done.returncode == 2
    assert done.stderr == "hep2jax: --mode=profile: fisher is fitted in one piece and has no training step\n"
