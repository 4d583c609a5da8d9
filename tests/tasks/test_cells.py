"""Metrics, records and evaluation of cells."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import hep2jax
from hep2jax import mesh as meshes
from hep2jax import tasks
from hep2jax.config import AugmentConfig, Config, DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from hep2jax.data.streams import feeding
from hep2jax.errors import UsageError
from hep2jax.metrics.serialise import to_dict
from hep2jax.tasks.cells import CellEvaluator, CellResult, CellTask, SpecimenRow, prevalent
from hep2jax.training import loop, optimizers
from hep2jax.training import state as states
from tests.data.cell_tables import cell_set, picture


def _task(**evaluation) -> CellTask:
    config = Config(
        data=DataConfig(crop_size=78, normalise="contrast_stretch"),
        model=ModelConfig(name="gao"),
        evaluation=EvaluationConfig(**evaluation),
    )
    return CellTask(config, cell_set(config.data, specimens=2, cells=5))


def _results(rows: list[tuple[str, int, int]]) -> list[CellResult]:
    """(specimen, truth, read) of each cell."""
    return [
        CellResult(
            identifier=f"{i:05d}",
            specimen=specimen,
            intensity="positive",
            truth=truth,
            probabilities=np.eye(3, dtype=np.float32)[read] * 0.8 + 0.05,
        )
        for i, (specimen, truth, read) in enumerate(rows)
    ]


ROWS = [("a", 0, 0), ("a", 0, 0), ("a", 0, 1), ("b", 1, 2), ("b", 1, 2), ("b", 1, 1), ("c", 2, 2), ("d", 0, 0)]


def test_cells_are_counted_and_specimens_read_by_prevalence():
    measured = _task().metrics(_results(ROWS))
    cells, specimens = measured.cells, measured.of_specimens
    assert cells.aca.value == pytest.approx(5 / 8)
    assert cells.mca.value == pytest.approx((3 / 4 + 1 / 3 + 1) / 3)
    assert cells.confusion == ((3, 1, 0), (0, 1, 2), (0, 0, 1))
    assert _task().score(measured) == cells.mca.value  # the rarer patterns count as much as the others
    assert (cells.num_examples, cells.num_specimens) == (8, 4)
    assert specimens.specimen.aca.value == pytest.approx(3 / 4)
    rows = {row.specimen: row for row in specimens.specimens}
    assert specimens.specimen_by_log_probability.aca.value == pytest.approx(3 / 4)
    assert specimens.cells_transductive.aca.value == pytest.approx(
        6 / 8
    )  # the third of a is mended, the third of b lost
    assert specimens.cells_transductive.num_specimens == 4
    assert rows["b"] == SpecimenRow(specimen="b", pattern="ring", prediction="dots", num_cells=3, right=1)
    entries = to_dict(measured)
    assert entries["examples"] == "cell"
    assert entries["specimens"][1]["pattern"] == "ring"
    names = ["specimen", "specimens", "repeated_specimens", "specimen_by_log_probability", "cells_transductive"]
    assert list(entries)[-5:] == names
    json.dumps(entries, allow_nan=False)


def test_specimens_that_repeat_each_other_count_as_one():
    """As specimen 69 of I3A Task 1 repeats 68: the cells of both count, as they do in the set, the specimen once."""
    copies = [dataclasses.replace(row, specimen="a2") for row in _results(ROWS[:3])]
    rows = [dataclasses.replace(row, group=row.specimen[0]) for row in _results(ROWS) + copies]
    merged = [dataclasses.replace(row, specimen=row.group) for row in rows]
    task = _task()
    measured, expected = (task.metrics(some) for some in (rows, merged))
    specimens = measured.of_specimens
    assert (measured.cells.num_examples, measured.cells.num_specimens, specimens.specimen.num_specimens) == (11, 4, 4)
    assert measured.cells == expected.cells
    assert dataclasses.replace(specimens, repeated_specimens=()) == expected.of_specimens
    assert specimens.repeated_specimens == (("a", "a2"),)
    assert task.details(measured)[-1] == "counted as one specimen: a, a2"
    alone = task.metrics([dataclasses.replace(row, group="") for row in rows]).cells
    assert alone.num_specimens == 5
    assert alone.aca.ci95 != measured.cells.aca.ci95


def test_the_truth_of_a_specimen_is_the_pattern_of_most_of_its_cells():
    mixed = [("a", 1, 0), ("a", 0, 0), ("a", 0, 0), ("b", 1, 1), ("b", 2, 1), ("b", 1, 1)]
    measured = _task().metrics(_results(mixed)).of_specimens
    assert measured.specimen.confusion == ((1, 0, 0), (0, 1, 0), (0, 0, 0))
    assert [(row.pattern, row.right, row.num_cells) for row in measured.specimens] == [
        (_task().classes[0], 2, 3),
        (_task().classes[1], 2, 3),
    ]


def test_without_specimen_ids_nothing_is_said_about_specimens():
    rows = [dataclasses.replace(row, specimen="") for row in _results(ROWS)]
    measured = _task().metrics(rows)
    assert measured.cells.num_specimens is None
    assert not {"specimen", "specimens", "repeated_specimens"} & to_dict(measured).keys()
    assert measured.cells.aca.ci95.low < 5 / 8 < measured.cells.aca.ci95.high


def test_ties_go_to_the_more_probable_pattern():
    rows = _results([("a", 0, 0), ("a", 0, 1)])
    sure = dataclasses.replace(rows[1], probabilities=np.array([0.0, 1.0, 0.0], np.float32))
    assert prevalent(rows) == 0
    assert prevalent([rows[0], sure]) == 1


def test_records_give_back_the_same_metrics():
    task = _task()
    rows = _results(ROWS)
    back = [task.from_record(json.loads(json.dumps(task.to_record(row)))) for row in rows]
    assert task.metrics(back) == task.metrics(rows)


def test_the_gallery_shows_errors_first_and_every_pattern():
    task = _task(gallery_specimens=3)
    truth = [item.pattern for item in task.items]
    read = [(t + 1) % 3 if i % 5 == 0 else t for i, t in enumerate(truth)]
    rows = _results([(item.specimen, t, r) for item, t, r in zip(task.items, truth, read, strict=True)])
    items = task.gallery(range(len(rows)), rows)
    assert {item.truth for item in items} == set(task.classes)
    assert sum(item.wrong for item in items) == 6
    assert all(item.image is task.cells.cells[int(item.identifier)].image for item in items)


@pytest.mark.parametrize("dihedral", [pytest.param(False, marks=pytest.mark.slow), True])
def test_predictions_do_not_depend_on_the_batch_size(dihedral: bool):
    probabilities = []
    for batch_size in (1, 7, 64):
        task = _task(batch_size=batch_size, dihedral=dihedral)
        network = states.make_network(task.config, task.num_outputs)
        mesh = meshes.make_mesh()
        optimizer = optimizers.make_optimizer(task.config.optimizer, 10)
        state = states.initial_state(network, optimizer, 0, meshes.replicated(mesh))
        rows = task.evaluator(network, mesh).measure((state.params, state.batch_stats), range(len(task.items)))
        assert [row.group for row in rows] == [item.group for item in task.items]
        probabilities.append(np.stack([row.probabilities for row in rows]))
    assert len(probabilities[0]) == len(task.items)
    np.testing.assert_allclose(probabilities[0].sum(1), 1, atol=1e-5)
    for other in probabilities[1:]:
        np.testing.assert_allclose(other, probabilities[0], atol=1e-6)


def test_dihedral_averaging_makes_the_reading_independent_of_orientation():
    task = _task(dihedral=True)
    cells = [
        dataclasses.replace(task.cells.cells[0], ready=np.ascontiguousarray(view))
        for view in (task.cells.cells[0].ready, np.rot90(task.cells.cells[0].ready), task.cells.cells[0].ready[::-1])
    ]
    turned = CellTask(task.config, dataclasses.replace(task.cells, cells=tuple(cells)))
    network = states.make_network(task.config, 3)
    mesh = meshes.make_mesh()
    optimizer = optimizers.make_optimizer(task.config.optimizer, 10)
    state = states.initial_state(network, optimizer, 0, meshes.replicated(mesh))
    rows = turned.evaluator(network, mesh).measure((state.params, state.batch_stats), range(3))
    for row in rows[1:]:
        np.testing.assert_allclose(row.probabilities, rows[0].probabilities, atol=1e-5)


class _Watched(list):
    """Pictures that note, whenever one is taken, how many inputs lie on the devices."""

    def __init__(self, pictures, shape):
        super().__init__(pictures)
        self.most, self._shape = 0, shape

    def __getitem__(self, index):
        inputs = [array for array in jax.live_arrays() if array.shape == self._shape]
        self.most = max(self.most, len(inputs))
        return super().__getitem__(index)


def test_few_batches_lie_on_the_devices_at_once():
    task = _task(batch_size=2)
    network, mesh = states.make_network(task.config, task.num_outputs), meshes.make_mesh()
    optimizer = optimizers.make_optimizer(task.config.optimizer, 10)
    state = states.initial_state(network, optimizer, 0, meshes.replicated(mesh))
    cells = task.cells.cells
    images = _Watched([cell.ready for cell in cells], (2, 78, 78))
    read = CellEvaluator(task.config, network, mesh).predict(
        (state.params, state.batch_stats), images, [cell.tone_curve for cell in cells]
    )
    assert len(read) == len(cells) == 30
    assert 1 <= images.most <= feeding.IN_FLIGHT + 1, "of 15 batches"


def test_frames_of_cells_are_trained_on_and_read(tmp_path):
    """A run with three channels, cut on the device: cells with their masks are read as they were evaluated."""
    config = Config(
        data=DataConfig(
            crop_size=32, cell_fit="frame", normalise="none", scale=0.5, protocol="kfold", num_folds=3, warp="device"
        ),
        augment=AugmentConfig(blur=0.5, mixup=0.4),
        model=ModelConfig(name="resnet", depth=18, width=0.01, regions=True, mixstyle=0.5),
        train=TrainConfig(num_steps=2, global_batch_size=4),
        evaluation=EvaluationConfig(batch_size=8, gallery_specimens=1),
    )
    task = CellTask(tasks.resolve(config), cell_set(config.data, cells=2))
    loop.train(config, tmp_path / "run", task)
    records = json.loads((tmp_path / "run" / "report" / "records.json").read_text())["splits"]["test"]
    reader, rng = hep2jax.load(tmp_path / "run"), np.random.default_rng(0)  # `cell_set` drew the cells with it
    crops = {cell.item.identifier: picture(cell.item.pattern, rng) for cell in task.cells.cells}
    assert len(records) == 6
    for record in records:
        image, mask = crops[record["identifier"]]
        reading = reader(image, mask=mask)
        np.testing.assert_allclose(list(reading.probabilities.values()), record["probabilities"], atol=2e-6)
    with pytest.raises(UsageError, match="has no mask here"):
        reader(image)


@pytest.mark.parametrize(
    ("name", "fit", "message"),
    [
        ("resnet", "stretch", "not data.cell_fit=stretch and resnet"),
        ("gao", "frame", "not data.cell_fit=frame and gao"),
    ],
)
def test_regions_need_frames_and_averages(name: str, fit: str, message: str):
    config = Config(data=DataConfig(cell_fit=fit, normalise="none"), model=ModelConfig(name=name, regions=True))
    with pytest.raises(UsageError, match=message):
        tasks.resolve(config)


def test_networks_of_fields_do_not_take_frames():
    with pytest.raises(UsageError, match=r"data\.cell_fit=frame: fcn does not read single cells"):
        tasks.resolve(Config(data=DataConfig(cell_fit="frame")))
