"""Systems that read whole specimens, on tiny synthetic ones: fitting, reading, resuming, and what cannot be read."""

import copy
import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from hep2jax.config import Config, DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from hep2jax.data.sets import cells as cell_data
from hep2jax.data.sets import fields as field_sets
from hep2jax.data.sets.cells import CellSet
from hep2jax.data.sets.fields import Field, FieldSet
from hep2jax.data.splits import protocols
from hep2jax.errors import UsageError
from hep2jax.specimens import base, features, single_cells, voting
from hep2jax.specimens.cell_readers import Grid
from hep2jax.specimens.pixels import PixelSystem
from hep2jax.specimens.single_cells import CellOptions, CellSystem
from hep2jax.specimens.systems import SYSTEMS, ImageNetFeatures

NAMES = (
    "cells-true-network-prevalence",
    "cells-predicted-network-mean_probability",
    "cells-otsu-own_svm-prevalence",
    "cells-true-own_svm-histogram_svm",
    "pixels",
)


@pytest.fixture(scope="module")
def fields(data_dir) -> FieldSet:
    return field_sets.load(DataConfig(builder_config="specimens_tiny", data_dir=str(data_dir), normalise="none"))


@pytest.fixture(scope="module")
def division(fields) -> protocols.Partition:
    return protocols.partition(DataConfig(), fields.name, fields.items)


@pytest.fixture(scope="module")
def configs() -> dict[str, Config]:
    """The smallest networks; after 40 steps the U-Net knows foreground, no more."""
    measured = EvaluationConfig(tile_size=64, tile_overlap=16, batch_size=8)
    return {
        "cells": Config(
            data=DataConfig(normalise="contrast_stretch", crop_size=78),
            model=ModelConfig(name="gao", width=0.5),
            train=TrainConfig(num_steps=4, global_batch_size=8, log_every=4),
            evaluation=measured,
        ),
        "pixels": Config(
            data=DataConfig(scale=0.5, crop_size=64),
            model=ModelConfig(name="unet", width=0.01),
            train=TrainConfig(num_steps=40, global_batch_size=8, log_every=40),
            evaluation=measured,
        ),
    }


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """One for all systems, so that each network is trained once."""
    return tmp_path_factory.mktemp("division")


def _without_pixels(field: Field) -> Field:
    hidden = copy.copy(field)
    vars(hidden).update(image=None, instances=None, classes=None)  # the constructor refuses None
    return hidden


def _fit(system: base.System, fields: FieldSet, division: protocols.Partition, directory: pathlib.Path) -> base.System:
    """Fitted on a set whose other specimens have no pixels: whoever looks at them fails."""
    hidden = tuple(field if i in division.train else _without_pixels(field) for i, field in enumerate(fields.fields))
    system.fit(dataclasses.replace(fields, fields=hidden), division.train, directory)
    return system


def _fitted(name: str, configs, fields, division, directory) -> base.System:
    return _fit(SYSTEMS[name](configs, ImageNetFeatures()), fields, division, directory)


def test_cells_are_read_with_the_published_network_that_is_named(configs, fields, division, directory):
    named = ImageNetFeatures(network="vgg16")
    with pytest.raises(UsageError, match="weights of vgg16: name the file"):
        _fit(SYSTEMS["cells-true-pretrained_svm-prevalence"](configs, named), fields, division, directory)


def _test_specimens(fields, division) -> list[list[Field]]:
    return list(base.by_specimen(fields.fields[i] for i in division.test).values())


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if "predicted" in n or n == "pixels" else n for n in NAMES]
)
def test_a_system_fits_reads_and_does_not_train_again(name, configs, fields, division, directory):
    system = _fitted(name, configs, fields, division, directory)
    assert (system.name, system.family) == (name, "pixels" if name == "pixels" else "single cells")
    groups = _test_specimens(fields, division)
    first = [system.read(group) for group in groups]
    kept = {path: path.stat().st_mtime_ns for path in directory.rglob("metrics.jsonl")}
    assert kept
    again = _fitted(name, configs, fields, division, directory)
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("metrics.jsonl")} == kept
    for group, reading in zip(groups, first, strict=True):
        assert (reading.specimen, reading.truth) == (group[0].specimen_id, group[0].pattern)
        if not reading.left_out:
            assert reading.probabilities.shape == (len(fields.classes),)
            assert reading.probabilities.min() >= 0
            np.testing.assert_allclose(reading.probabilities.sum(), 1, atol=1e-5)
            assert reading.pattern is not None
        given = "true" in name
        assert [mask.shape for mask in reading.masks] == ([] if given else [f.image.shape for f in group])
        repeated = again.read(group)
        assert repeated.pattern == reading.pattern
        np.testing.assert_array_equal(repeated.probabilities, reading.probabilities)


def test_what_was_learnt_of_other_cells_is_learnt_anew(configs, fields, division, directory, tmp_path):
    """The choice of layer, C and k, and the features behind it, are kept for these very cells and this grid alone."""
    _fitted("cells-otsu-own_svm-prevalence", configs, fields, division, directory)
    shutil.copytree(directory / "svm-gao", tmp_path / "svm")
    source = features.from_workdir(directory / "network-gao")
    cells = cell_data.from_fields(base.training_split(fields, division.train), configs["cells"].data)
    first, *others = cells.cells
    changed = dataclasses.replace(cells, cells=(dataclasses.replace(first, intensity="other"), *others))

    def is_learnt(cells: CellSet, grid: Grid) -> bool:
        kept = (tmp_path / "svm" / "features.npz").stat().st_mtime_ns
        single_cells._fit_svm_knn(source, source.layers, cells, tmp_path / "svm", grid, len(fields.classes))
        return (tmp_path / "svm" / "features.npz").stat().st_mtime_ns != kept

    assert not is_learnt(cells, Grid())
    assert is_learnt(changed, Grid())
    assert is_learnt(changed, Grid(costs=(1e-3,)))
    fewer = dataclasses.replace(division, train=division.train[1:])
    with pytest.raises(UsageError, match="trained on other data"):
        _fitted("cells-true-network-prevalence", configs, fields, fewer, directory)


def _changed(field: Field, **columns) -> Field:
    return base.prepare_field(dataclasses.replace(field, **columns), DataConfig(normalise="none"))


@pytest.fixture(scope="module")
def otsu(configs, fields, division, directory):
    return _fitted("cells-otsu-network-prevalence", configs, fields, division, directory)


@pytest.fixture(scope="module")
def given(configs, fields, division, directory):
    return _fitted("cells-true-network-prevalence", configs, fields, division, directory)


class TestWhatCannotBeRead:
    def test_no_cell(self, given, otsu, fields):
        empty = _changed(
            fields.fields[0],
            image=np.full_like(fields.fields[0].image, 20),
            instances=np.zeros_like(fields.fields[0].instances),
        )
        for system in (given, otsu):
            reading = system.read([empty])
            assert reading.pattern is None
            assert reading.left_out == "no cell was found in it"
            assert reading.probabilities.tolist() == [0] * len(fields.classes)

    def test_one_cell_that_touches_every_border(self, given, fields):
        one = _changed(fields.fields[0], instances=np.ones_like(fields.fields[0].instances), kinds={1: "cell"})
        said = given.read([one]).left_out
        assert said == "no whole cell was found in it: 1 cut by the frame of the image"

    def test_specks(self, otsu, fields):
        image = np.full_like(fields.fields[0].image, 20)
        image[50:59, 60:69] = 200
        said = otsu.read([_changed(fields.fields[0], image=image)]).left_out
        assert said in ("no cell was found in it", "no whole cell was found in it: 1 too small or too large for a cell")

    def test_mitotic_cells_alone_unless_they_are_to_be_used(self, given, configs, fields, division, directory):
        field = fields.fields[0]
        mitotic = _changed(field, kinds=dict.fromkeys(field.kinds, "mitotic_cell"))
        assert "mitotic and were not used" in given.read([mitotic]).left_out
        user = _fit(CellSystem("all", CellOptions(use_mitotic=True), configs["cells"]), fields, division, directory)
        cells = _changed(field, kinds=dict.fromkeys(field.kinds, "cell"))
        assert user.read([mitotic]).probabilities.tolist() == user.read([cells]).probabilities.tolist()

    @pytest.mark.slow
    def test_no_foreground(self, configs, fields, division, directory):
        system = _fit(PixelSystem("pixels", configs["pixels"]), fields, division, directory)
        empty = _changed(fields.fields[0], image=np.full_like(fields.fields[0].image, 20))
        reading = system.read([empty])
        assert (reading.pattern is None) == (not reading.masks[0].any())
        assert reading.left_out == ("" if reading.masks[0].any() else voting.NO_CELL)

    def test_a_specimen_beside_one_that_cannot_be_read(self, given, fields):
        """One field without a cell does not spoil the specimen."""
        whole = fields.fields[0]
        empty = _changed(whole, number=1, instances=np.zeros_like(whole.instances))
        both = given.read([whole, empty])
        assert both.left_out == ""
        np.testing.assert_array_equal(both.probabilities, given.read([whole]).probabilities)


def test_wrong_use(configs, fields, division, tmp_path):
    with pytest.raises(UsageError, match="finder='guessed': must be one of true"):
        CellOptions(finder="guessed")
    with pytest.raises(UsageError, match="histogram_svm needs readings of cells held out"):
        CellOptions(rule="histogram_svm")
    with pytest.raises(UsageError, match="needs a network for pixels"):
        CellSystem("cells", CellOptions(finder="predicted"), configs["cells"])
    weights = CellSystem("cells", CellOptions(reader="pretrained_svm", pretrained="alexnet"), configs["cells"])
    with pytest.raises(UsageError, match="weights of alexnet"):
        weights.fit(fields, division.train, tmp_path)
    bare = tuple(dataclasses.replace(field, instances=np.zeros_like(field.instances)) for field in fields.fields)
    with pytest.raises(UsageError, match="no whole cell is annotated"):
        CellSystem("cells", CellOptions(), configs["cells"]).fit(
            dataclasses.replace(fields, fields=bare), division.train, tmp_path / "bare"
        )
