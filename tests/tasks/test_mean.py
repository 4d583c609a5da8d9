"""`mean`: the members' probabilities averaged, in evaluation and in prediction, and what it refuses."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

import hep2jax
from hep2jax import tasks
from hep2jax.config import Config, DataConfig, EvaluationConfig, FisherConfig, ModelConfig, TrainConfig
from hep2jax.data.sets import cells as cell_sets
from hep2jax.data.sets.cells import Crop
from hep2jax.errors import UsageError
from hep2jax.tasks.cells import CellTask
from hep2jax.tasks.fisher import FisherTask
from hep2jax.tasks.mean import MeanTask
from hep2jax.training import loop, workdir
from tests.data.cell_tables import PATTERNS, picture

DIVISION = {"protocol": "kfold", "num_folds": 3}


def _crops() -> list[Crop]:
    rng = np.random.default_rng(3)
    made = []
    for pattern, name in enumerate(PATTERNS):
        for number in range(12):
            image, mask = picture(pattern, rng)
            made.append(
                Crop(
                    identifier=f"{name}-{number}",
                    specimen=f"{name}-{number // 4}",
                    split="train",
                    pattern=pattern,
                    intensity="positive",
                    image=image,
                    mask=mask,
                )
            )
    return made


CROPS = _crops()


def _task(config: Config, kind=CellTask):
    config = tasks.resolve(config)
    cells = cell_sets.from_crops("made_up", PATTERNS, CROPS, config.data)
    return kind(config, cells, CROPS) if kind is MeanTask else kind(config, cells)


def _network(**data) -> Config:
    return Config(
        data=DataConfig(**({"crop_size": 32, "normalise": "contrast_stretch"} | DIVISION | data)),
        model=ModelConfig(name="vggcell", width=0.05),
        train=TrainConfig(num_steps=1, global_batch_size=16, checkpoint_every=1),
        evaluation=EvaluationConfig(batch_size=16, gallery_specimens=2),
    )


def _mean(folder, *members: str | pathlib.Path) -> Config:
    config = _network(crop_size=0, masked=True, cell_fit="frame")  # of which the mean itself makes nothing
    config.model = ModelConfig(name="mean", members=", ".join(str(folder / name) for name in members))
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The work directories `network-00` and `texture` of one fold, and `whole` of all specimens."""
    folder = tmp_path_factory.mktemp("members")
    task = _unchecked(_task, _network())
    loop.train(task.config, folder / "network-00", task)
    shutil.copytree(folder / "network-00", folder / "whole")
    values = json.loads((folder / "whole" / workdir.CONFIG).read_text())
    values["data"]["protocol"] = "contest"
    (folder / "whole" / workdir.CONFIG).write_text(json.dumps(values))
    config = _network(cell_fit="frame", scale=0.5, crop_size=40, normalise="none")
    config.model, config.fisher = ModelConfig(name="fisher"), FisherConfig(gaussians=4, codebook_cells=12)
    task = _unchecked(_task, config, FisherTask)
    loop.train(task.config, folder / "texture", task)
    return folder


def _unchecked(make, config: Config, kind=CellTask):
    """A task of a data set that no builder makes: its name is given after the configuration was checked."""
    config.data.name = "hep2_synthetic"
    task = make(config, kind)
    task.config.data.name = task.name = "made_up"
    return task


def _run(folder, directory, *members: str | pathlib.Path):
    task = _unchecked(_task, _mean(folder, *members), MeanTask)
    return task, loop.complete(task.config, directory, task)["test"]


def test_evaluation_and_prediction_are_the_mean_of_the_members(folder, tmp_path):
    _, results = _run(folder, tmp_path / "work", "network-{fold}", "texture")
    members = [hep2jax.load(folder / name) for name in ("network-00", "texture")]
    reader, crops = hep2jax.load(tmp_path / "work"), {crop.identifier: crop for crop in CROPS}
    assert len(results) == 12
    for row in results:
        crop = crops[row.identifier]
        apart = [list(member(crop.image, crop.mask).probabilities.values()) for member in members]
        assert np.abs(np.subtract(*apart)).max() > 0.01
        np.testing.assert_allclose(row.probabilities, np.mean(apart, axis=0), atol=1e-5)
        np.testing.assert_allclose(
            list(reader(crop.image, crop.mask).probabilities.values()), row.probabilities, atol=1e-6
        )
    counts = [_num_parameters(path) for path in (tmp_path / "work", folder / "network-00", folder / "texture")]
    assert counts[0] == counts[1] + counts[2]


def _num_parameters(directory: pathlib.Path) -> int:
    return json.loads((directory / "metrics.jsonl").read_text().splitlines()[-1])["num_parameters"]


def test_each_fold_of_a_cross_validation_has_its_own_members(folder, tmp_path):
    """Members that know the specimens that are held out would not be noticed otherwise."""
    shutil.copytree(folder / "network-00", tmp_path / "network-00")
    other = _unchecked(_task, _network(fold=1))
    loop.train(other.config, tmp_path / "network-01", other)
    config = _mean(tmp_path, "network-{fold}", "network-{fold}")
    task = _unchecked(_task, config, MeanTask)
    for fold in range(2):
        own = dataclasses.replace(task.config, data=dataclasses.replace(task.config.data, fold=fold))
        for row in loop.complete(own, tmp_path / f"mean-{fold:02d}", task)["test"]:
            crop = next(crop for crop in CROPS if crop.identifier == row.identifier)
            reading = hep2jax.load(tmp_path / f"network-{fold:02d}")(crop.image, crop.mask)
            np.testing.assert_allclose(list(reading.probabilities.values()), row.probabilities, atol=1e-5)


def test_a_mean_can_be_a_member(folder, tmp_path):
    _, results = _run(folder, tmp_path / "one", "network-00", "texture")
    _, again = _run(folder, tmp_path / "two", "texture", tmp_path / "one")
    alone = hep2jax.load(folder / "texture")
    crops = {crop.identifier: crop for crop in CROPS}
    for first, second in zip(results, again, strict=True):
        crop = crops[first.identifier]
        own = np.array(list(alone(crop.image, crop.mask).probabilities.values()))
        np.testing.assert_allclose(second.probabilities, (own + first.probabilities) / 2, atol=1e-5)


def test_what_is_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="must name at least two work directories"):
        _run(folder, tmp_path / "a", "texture")
    with pytest.raises(UsageError, match=r"whole: was trained with data\.protocol=contest, here it is kfold"):
        _run(folder, tmp_path / "b", "texture", "whole")
    with pytest.raises(UsageError, match=r"model\.members=.*nothing: holds no run"):
        _run(folder, tmp_path / "c", "texture", "nothing")
    task = _unchecked(_task, _mean(folder, "network-00", "texture"), MeanTask)
    task.config.data.channel = "green"
    with pytest.raises(UsageError, match=r"takes data\.channel=grey, here it is green"):
        loop.train(task.config, tmp_path / "d", task)
    other = MeanTask(task.config, dataclasses.replace(task.cells, classes=("a", "b", "c")), CROPS)
    other.config.data.channel = "grey"
    with pytest.raises(UsageError, match="reads disc, ring, dots; made_up has a, b, c"):
        loop.train(other.config, tmp_path / "e", other)


def test_a_member_that_was_trained_anew_is_noticed(folder, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(folder / "network-00", changed)
    _run(folder, tmp_path / "work", "texture", changed)
    shutil.rmtree(changed)
    config = _network()
    config.seed = 5
    anew = _unchecked(_task, config)
    loop.train(anew.config, changed, anew)
    crop = CROPS[0]
    with pytest.raises(UsageError, match="a member was trained anew since this mean was made"):
        hep2jax.load(tmp_path / "work")(crop.image, crop.mask)
