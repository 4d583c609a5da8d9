"""Prediction, evaluation and whole-specimen systems say the same of the same image, for every kind of network."""

import collections
import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import jax
import numpy as np
import pytest

import hep2jax
from hep2jax import config as configs
from hep2jax import mesh as meshes
from hep2jax import predict, tasks
from hep2jax.config import Config, DataConfig, EvaluationConfig, ModelConfig
from hep2jax.data.sets import cells
from hep2jax.data.sets.fields import Field, FieldSet
from hep2jax.data.streams.joint import GRADES
from hep2jax.errors import UsageError
from hep2jax.specimens import voting
from hep2jax.specimens.base import Reading, System, prepare_field, prepare_fields
from hep2jax.specimens.joint import JointSystem
from hep2jax.specimens.pixels import PixelNetwork, PixelSystem
from hep2jax.tasks import Parameters, Task
from hep2jax.tasks.bags import BagTask, pooled
from hep2jax.tasks.cells import CellTask
from hep2jax.tasks.fields import FieldTask
from hep2jax.tasks.joint import JointEvaluator, JointTask
from hep2jax.tasks.labels import LabelsTask, probabilities
from hep2jax.training import evaluation, optimizers, workdir
from hep2jax.training import state as states
from hep2jax.training.checkpoints import Checkpoints
from tests import predictions
from tests.data import labelled
from tests.data.fields import field_set

EXACT = 1e-6


def _config(network: str, **data) -> Config:
    return Config(
        data=DataConfig(**{"crop_size": 32, **data}),
        model=ModelConfig(name=network, width=0.01),
        evaluation=EvaluationConfig(tile_size=32, tile_overlap=8, batch_size=8),
    )


def _keep_network(task: Task, directory: pathlib.Path) -> tuple[Any, Parameters]:
    """Write a work directory with a network of stirred parameters; returns them and the task's evaluator."""
    config, mesh, network = task.config, meshes.make_mesh(), states.make_network(task.config, task.num_outputs)
    optimizer = optimizers.make_optimizer(config.optimizer, config.train.num_steps)
    state = states.initial_state(network, optimizer, 0, meshes.replicated(mesh))
    rng = np.random.default_rng(1)
    stirred = jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape).astype(np.float32), state.ema_params)
    checkpoints = Checkpoints(directory / "checkpoints", config.train)
    checkpoints.save(1, dataclasses.replace(state, ema_params=jax.device_put(stirred, meshes.replicated(mesh))))
    checkpoints.close()
    configs.save(config, directory / workdir.CONFIG)
    workdir.write_classes(directory, task.classes)
    return task.evaluator(network, mesh), evaluation.load(directory).parameters


def _measure(task: Task, directory: pathlib.Path) -> list[Any]:
    evaluator, parameters = _keep_network(task, directory)
    return evaluator.measure(parameters, range(len(task.items)))


def _predict(directory: pathlib.Path, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    paths = [directory / f"{number:03d}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(str(path), image)
    predict.predict(directory, [str(path) for path in paths], directory / "out")
    rows = predictions.rows(directory / "out" / "predictions.csv")
    _check_reader(directory, images[-1], rows[-1])
    return rows


def _check_reader(directory: pathlib.Path, image: np.ndarray, row: dict[str, Any]) -> None:
    """What `hep2jax.load` opens says of the image alone, from memory, what prediction says of its file."""
    reader, path = hep2jax.load(directory), pathlib.Path(row["image"])
    beside = str(path.with_name(f"{path.stem}_mask.png"))
    mask = cv2.imread(beside, cv2.IMREAD_GRAYSCALE) > 127 if reader.takes_masks else None
    colours = np.repeat(image[..., None], 3, axis=-1)
    for pixels in (image, colours):
        reading = reader(pixels, mask)
        own = reader.row(reading)
        assert {name: row[name] for name in own} == pytest.approx(own, abs=EXACT)
        assert list(reading.probabilities) == list(reader.classes)
        for classes, cell in zip(reading.class_masks, reading.cell_masks, strict=True):
            saved = cv2.imread(str(directory / "out" / f"{path.stem}_classes.png"), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(classes, saved)
            np.testing.assert_array_equal(cell, saved > 0)
        assert bool(reading.class_masks) == ("foreground" in row)


def _name(task: Task, index: int | None) -> str:
    return "none" if index is None else task.classes[index]


@pytest.mark.parametrize(
    ("network", "make"), [("unet", FieldTask), pytest.param("joint", JointTask, marks=pytest.mark.slow)]
)
def test_fields(network: str, make: Callable[..., Task], tmp_path):
    """At a threshold that leaves some fields without a cell: these have no pattern, and count as errors."""
    config = _config(network, scale=0.5)
    options = config.evaluation
    task = make(config, prepare_fields(field_set(specimens=2, fields=1), config.data))
    evaluator, parameters = _keep_network(task, tmp_path)
    results, low, high = [], 0.0, 1.0
    for _ in range(20):
        options.foreground_threshold = (low + high) / 2
        results = evaluator.measure(parameters, range(len(task.items)))
        empty = sum(not getattr(row, "field", row).predicted.any() for row in results)
        if 0 < empty < len(task.items):
            break
        low, high = (low, (low + high) / 2) if empty else ((low + high) / 2, high)
    assert 0 < _check_fields(task, results, tmp_path) < len(task.items)
    system = PixelSystem("pixels", config) if network == "unet" else JointSystem("joint", config)
    if isinstance(system, PixelSystem):
        system._network = PixelNetwork(tmp_path)
    else:
        system._parameters = parameters
        trained = states.make_network(config, task.num_outputs)
        system._evaluator = JointEvaluator(config, trained, meshes.make_mesh())
    for field, result in zip(task.fields.fields, results, strict=True):
        _check_system(system.read([field]), result)
    _check_specimen(system.read(task.fields.fields[:2]), task, tmp_path)
    if network == "unet":
        _check_dark(system, task.fields.fields[0], config.data)
        options.nuclear_diameter, options.drop_cut_cells = 20.0, True
        options.foreground_threshold -= 0.02
        _check_fields(task, evaluator.measure(parameters, range(len(task.items))), tmp_path)
        _check_cells(task, tmp_path)
        _check_segmenter(task.fields, tmp_path)
        _check_cell_reader(task, tmp_path)


def _check_segmenter(fields: FieldSet, directory: pathlib.Path) -> None:
    """A network of fields finds the cells that a network of cells reads: its objects of the size of a cell."""
    config = _config("gao", crop_size=78, normalise="contrast_stretch")
    _keep_network(CellTask(config, cells.from_fields(fields, config.data)), directory / "cells")
    network = hep2jax.load_single_cell_system(directory / "cells", nuclear_diameter=20, segmenter=directory)
    finder, images = hep2jax.load(directory), [field.image for field in fields.fields]
    readings = list(network.read(images))
    for own, reading in zip(finder.read(images), readings, strict=True):
        labels = reading.cell_labels[0]
        assert [cell.label for cell in reading.cells[0]] == np.unique(labels[labels > 0]).tolist()
        assert not (labels > 0)[~own.cell_masks[0]].any()
        assert all(0.25 <= cell.area / (np.pi * 10**2) <= 4 for cell in reading.cells[0])
        np.testing.assert_array_equal(reading.class_masks[0] > 0, labels > 0)
    assert any(reading.num_cells for reading in readings)
    with pytest.raises(UsageError, match="gao makes no masks of cells"):
        hep2jax.load_single_cell_system(directory / "cells", nuclear_diameter=20, segmenter=directory / "cells")


def _check_cell_reader(task: Any, directory: pathlib.Path) -> None:
    """With a reader of cells, each cell has the pattern that this reader gives its crop, and these cells vote."""
    task.config.evaluation.cell_reader = str(directory / "cells")
    evaluator = task.evaluator(states.make_network(task.config, task.num_outputs), meshes.make_mesh())
    results = evaluator.measure(evaluation.load(directory).parameters, range(len(task.items)))
    _check_fields(task, results, directory)
    single, network, read = hep2jax.load(directory / "cells"), hep2jax.load(directory), 0
    for field, result in zip(task.fields.fields, results, strict=True):
        reading = network(field.image)
        cuts = {cut.number: cut for cut in cells.cut_out(field.image, reading.cell_labels[0]).cuts}
        votes = np.zeros(len(task.classes), int)
        for cell in reading.cells[0]:
            if cell.label in cuts and 0.25 <= cell.area / (np.pi * 10**2) <= 4:
                own = single(cuts[cell.label].image, cuts[cell.label].mask)
                assert cell.pattern == own.pattern
                assert cell.probability == pytest.approx(own.probabilities[own.pattern], abs=EXACT)
                votes[task.classes.index(own.pattern)] += cell.area
        read += votes.sum()
        if votes.any():
            np.testing.assert_array_equal(result.votes, votes)
    assert read > 0
    before = task.under(task.config).relies_on()
    shutil.rmtree(directory / "cells")
    other = _config("gao", crop_size=78, normalise="none")
    _keep_network(CellTask(other, cells.from_fields(task.fields, other.data)), directory / "cells")
    after = task.under(task.config).relies_on()
    assert before.keys() == after.keys() == {"cell_reader"}
    assert before != after  # so that what was measured with the other reader is not taken for it
    task.config.evaluation.cell_reader = ""
    assert task.under(task.config).relies_on() == {}


def _check_cells(task: Any, directory: pathlib.Path) -> None:
    """The reader's cells are those that the evaluation measures, and each has the votes of its own pixels."""
    reader, network, found = hep2jax.load(directory), PixelNetwork(directory), 0
    for field, measured in zip(task.fields.fields, network.read(task.fields.fields), strict=True):
        reading = reader(field.image)
        np.testing.assert_array_equal(reading.cell_labels[0], measured.cells)
        assert [cell.label for cell in reading.cells[0]] == np.unique(measured.cells[measured.cells > 0]).tolist()
        for cell in reading.cells[0]:
            pixels = measured.cells == cell.label
            votes = np.bincount(measured.pattern[pixels], minlength=len(task.classes))
            assert (cell.area, cell.pattern) == (pixels.sum(), task.classes[votes.argmax()])
            assert cell.probability == pytest.approx(votes.max() / votes.sum(), abs=EXACT)
            assert cell.centre == pytest.approx(np.argwhere(pixels).mean(0).tolist())
            assert pixels[cell.box[0] : cell.box[2], cell.box[1] : cell.box[3]].sum() == cell.area
        found += reading.num_cells
    assert found


def _check_system(reading: Reading, result: Any) -> None:
    measured = getattr(result, "field", result)
    assert reading.pattern == voting.vote(measured.votes)
    assert reading.left_out == ("" if measured.votes.any() else voting.NO_CELL)
    assert (reading.pattern is None) == (reading.left_out != "")
    np.testing.assert_array_equal(reading.masks[0], measured.predicted > 0)
    if reading.intensity:
        assert reading.intensity == GRADES[voting.vote(result.grades)]
    elif reading.pattern is not None:
        np.testing.assert_allclose(reading.probabilities, voting.vote_shares(measured.votes), atol=EXACT)


def _check_dark(system: System, field: Field, data: DataConfig) -> None:
    """Of a field without any stain, a system says that it has no cell if its mask is empty."""
    dark = prepare_field(dataclasses.replace(field, image=np.full_like(field.image, 20)), data)
    reading = system.read([dark])
    empty = not reading.masks[0].any()
    assert (reading.pattern is None) == (not reading.probabilities.any()) == empty
    assert reading.left_out == (voting.NO_CELL if empty else "")


def _check_specimen(reading: Reading, task: Any, directory: pathlib.Path) -> None:
    """The reader takes the fields of a specimen together as a system does."""
    configs.save(task.config, directory / workdir.CONFIG)
    own = hep2jax.load(directory)([field.image for field in task.fields.fields[:2]])
    assert own.pattern == _name(task, reading.pattern)
    assert own.intensity in ("", reading.intensity or "none")
    for mask, found in zip(own.cell_masks, reading.masks, strict=True):
        np.testing.assert_array_equal(mask, found)
    if not own.intensity:
        np.testing.assert_allclose(list(own.probabilities.values()), reading.probabilities, atol=EXACT)


def _check_fields(task: Task, results: Sequence[Any], directory: pathlib.Path) -> int:
    configs.save(task.config, directory / workdir.CONFIG)
    rows = _predict(directory, [field.image for field in task.fields.fields])
    for number, (row, result) in enumerate(zip(rows, results, strict=True)):
        measured = getattr(result, "field", result)
        assert row["pattern"] == _name(task, voting.vote(measured.votes))
        assert row["share"] == pytest.approx(voting.vote_shares(measured.votes).max(), abs=EXACT)
        assert row["foreground"] == pytest.approx((measured.predicted > 0).mean(), abs=EXACT)
        mask = cv2.imread(str(directory / "out" / f"{number:03d}_classes.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask, measured.predicted)
        if "intensity" in row:
            grade = voting.vote(result.grades)
            assert row["intensity"] == ("none" if grade is None else GRADES[grade])
    assert [row["pattern"] == "none" for row in rows] == [row["foreground"] == 0 for row in rows]
    measured = task.metrics(results)
    of_fields = getattr(measured, "fields", measured)
    unread = sum(row["pattern"] == "none" for row in rows)
    assert of_fields.images.num_undecided == of_fields.specimen.num_undecided == unread
    return unread


def test_cells(tmp_path):
    config = _config("gao", crop_size=78, normalise="contrast_stretch", masked=True, cell_margin=0.1)
    fields = field_set(specimens=2, fields=1)
    task = CellTask(config, cells.from_fields(fields, config.data))
    results = _measure(task, tmp_path)
    cuts = [cut for field in fields.fields for cut in cells.cut_out(field.image, field.instances).cuts]
    for number, cut in enumerate(cuts):
        mask = np.uint8(255) * cut.mask
        colours = np.repeat(mask[..., None], 3, axis=-1)  # of which some are saved
        cv2.imwrite(str(tmp_path / f"{number:03d}_mask.png"), colours if number % 2 else mask)
    rows = _predict(tmp_path, [cut.image for cut in cuts])
    for row, result in zip(rows, results, strict=True):
        assert row["pattern"] == task.classes[result.prediction]
        assert [row[name] for name in task.classes] == pytest.approx(result.probabilities.tolist(), abs=EXACT)
        assert row["probability"] == pytest.approx(result.probabilities.max(), abs=EXACT)
    _check_fields_by_cells(tmp_path, [field.image for field in fields.fields[:2]])


def _check_fields_by_cells(directory: pathlib.Path, images: list[np.ndarray]) -> None:
    """Each cell of a field is read as its crop is by itself, and the cells vote for the pattern."""
    alone, whole = hep2jax.load(directory), hep2jax.load_single_cell_system(directory, nuclear_diameter=18)(images)
    votes = collections.Counter[str]()
    for image, labels, found in zip(images, whole.cell_labels, whole.cells, strict=True):
        cuts = {cut.number: cut for cut in cells.cut_out(image, labels).cuts}
        assert [cell.label for cell in found] == sorted(cuts)
        for cell in found:
            own = alone(cuts[cell.label].image, cuts[cell.label].mask)
            assert cell.pattern == own.pattern
            assert cell.probability == pytest.approx(own.probabilities[own.pattern], abs=EXACT)
            votes[cell.pattern] += 1
    assert votes.total() == whole.num_cells > 3
    assert votes[whole.pattern] == max(votes.values())
    assert {name: p for name, p in whole.probabilities.items() if p} == pytest.approx(
        {name: votes[name] / votes.total() for name in votes}
    )


def test_bags(tmp_path):
    config = _config("mil", scale=0.5)
    fields = prepare_fields(field_set(specimens=2, fields=1), config.data)
    task = BagTask(config, fields)
    results = _measure(task, tmp_path)
    rows = _predict(tmp_path, [field.image for field in fields.fields])
    for row, result in zip(rows, results, strict=True):
        shares = pooled([result])
        assert [row[name] for name in task.classes] == pytest.approx(shares.tolist(), abs=EXACT)
        assert row["pattern"] == task.classes[int(shares.argmax())]


def test_bags_of_several_patterns(tmp_path):
    config = _config("mil", name="aida")
    found = labelled.image_set()
    task = LabelsTask(config, found)
    results = _measure(task, tmp_path)
    shares = [probabilities(result) for result in results]
    config.evaluation.pattern_threshold = float(np.median(shares))
    configs.save(config, tmp_path / workdir.CONFIG)
    rows = _predict(tmp_path, [image.image for image in found.images])
    for row, own in zip(rows, shares, strict=True):
        assert [row[name] for name in task.classes] == pytest.approx(own.tolist(), abs=EXACT)
        said = {name for name in row["patterns"].split(" + ") if name != "none"}
        assert said == {
            name for name, p in zip(task.classes, own, strict=True) if p >= config.evaluation.pattern_threshold
        }
    assert tasks.kind(config) is LabelsTask
