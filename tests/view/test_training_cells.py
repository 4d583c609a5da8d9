"""What a cell is measured by, and which training cells are the nearest."""

import json

import cv2
import numpy as np
import pytest

from hep2jax.data.sets import cells as cell_sets
from hep2jax.data.sets import fields as field_sets
from hep2jax.errors import UsageError
from hep2jax.view import training_cells
from hep2jax.view.training_cells import NUM_PROPERTIES, framed, properties
from tests.view.conftest import small
from tfds_builders.hep2_synthetic import generator


@pytest.fixture(scope="module")
def cells() -> list[cell_sets.Cut]:
    field = generator.generate_specimen(3, "nucleolar", "positive", height=300, width=300, fields=1)[0]
    return list(cell_sets.cut_out(field.image, field.instance_mask.astype(np.int32)).cuts)


def _measured(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return properties(*framed(image, mask))


def test_turning_mirroring_and_exposure_do_not_count(cells):
    for cell in cells[:4]:
        frame, inside = framed(cell.image // 2, cell.mask)
        measured = properties(frame, inside)
        assert measured.shape == (NUM_PROPERTIES,)
        np.testing.assert_allclose(properties(frame * 2 + 5, inside), measured, atol=1e-6)
        for turned in (np.rot90, np.flipud, np.transpose):
            np.testing.assert_allclose(properties(turned(frame), turned(inside)), measured, atol=1e-4)


def test_all_cells_are_measured_at_one_size(cells):
    large = cells[0]
    factor = 3
    image = cv2.resize(large.image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    mask = cv2.resize(large.mask.astype(np.uint8), None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST) > 0
    for pixels, where in ((large.image, large.mask), (image, mask)):
        frame, inside = framed(pixels, where)
        assert frame.shape == inside.shape == (64, 64)
        assert np.count_nonzero(inside) == pytest.approx(np.pi / 4 * 40**2, rel=0.05)
        rows, columns = np.nonzero(inside)
        assert rows.min() + rows.max() == pytest.approx(63, abs=1)
        assert columns.min() + columns.max() == pytest.approx(63, abs=1)


@pytest.mark.parametrize("shape", [(8, 8), (1, 400), (3, 3)])
def test_odd_objects_are_measured_too(shape):
    image = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    full, one = np.ones(shape, bool), np.zeros(shape, bool)
    one[0, 0] = True
    for mask in (full, one):
        assert np.isfinite(_measured(image, mask)).all()
    assert np.isfinite(_measured(np.zeros(shape, np.uint8), full)).all()


@pytest.mark.parametrize("network", ["unet", "cnn"])
def test_a_training_cell_is_nearest_to_itself(network, data_dir):
    config = small(network, data_dir)
    fields = field_sets.load(small("unet", data_dir).data)
    found = training_cells.load(data_dir, config, fields.classes)
    train = [field for field in fields.fields if field.split == "train"]
    cuts = [
        (field, cut)
        for field in train
        for cut in cell_sets.cut_out(field.image, field.instances, cell_sets.of_kind(field, "cell")).cuts
    ]
    assert len(found.cells) == len(cuts) > 10
    for field, cut in cuts:
        nearest = found.nearest(cut.image, cut.mask, 6)
        distance, cell = nearest[0]
        assert (distance, cell.pattern, cell.specimen) == (0.0, field.pattern, field.specimen_id)
        assert [distance for distance, _ in nearest] == sorted(distance for distance, _ in nearest)


def test_data_that_are_not_those_of_the_training_are_refused(data_dir, tmp_path):
    config = small("unet", data_dir)
    (tmp_path / "trained_on.json").write_text(json.dumps("another fingerprint"))
    with pytest.raises(UsageError, match="in another state than the one that the network was trained on"):
        training_cells.load(tmp_path, config, field_sets.load(config.data).classes)
    with pytest.raises(UsageError, match="in another state"):
        training_cells.load(data_dir, config, ("others",))
