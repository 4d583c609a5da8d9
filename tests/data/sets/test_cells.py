import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from hep2jax.config import DataConfig
from hep2jax.data.sets import cells
from hep2jax.data.sets import fields as field_sets
from hep2jax.data.streams import cells as cell_stream
from hep2jax.errors import UsageError
from hep2jax.training.steps import normalise
from tests.data.cell_tables import picture


def _crop(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return picture(0, np.random.default_rng(seed))


def _input(image: np.ndarray, mask: np.ndarray, **settings) -> np.ndarray:
    """What the network sees of a crop, float32 [size, size]."""
    config = DataConfig(**{"crop_size": 64, "normalise": "contrast_stretch", "top_percentile": 100.0, **settings})
    ready, tone_curve = cells.preprocess(image, mask, config)
    pixels = cell_stream.plain_input(ready, config.crop_size)
    return np.asarray(normalise(jnp.asarray(pixels[None]), jnp.asarray(tone_curve[None])))[0, ..., 0]


def test_contrast_stretching_fills_the_range_whatever_the_exposure():
    image, mask = _crop()
    for dimmed in (image, (image // 4 + 9).astype(np.uint8)):
        seen = _input(dimmed, mask)
        assert seen.shape == (64, 64)
        assert abs(seen.min()) < 0.05
        assert 0.9 < seen.max() < 1.05


def test_no_normalisation_keeps_the_exposure():
    image, mask = _crop()
    bright, dim = _input(image, mask, normalise="none"), _input(image // 2, mask, normalise="none")
    assert bright.max() <= 1.0
    assert dim.mean() == pytest.approx(bright.mean() / 2, abs=0.01)


@pytest.mark.parametrize("name", ["equalise", "clahe"])
def test_equalisation_spreads_the_histogram_of_a_dim_cell(name: str):
    image, mask = _crop()
    dim = (image // 8).astype(np.uint8)
    assert _input(dim, mask, normalise=name).std() > 3 * _input(dim, mask, normalise="none").std()


@pytest.mark.parametrize("name", ["none", "contrast_stretch", "equalise", "clahe"])
def test_mean_centring_takes_the_mean_away(name: str):
    image, mask = _crop()
    plain = _input(image, mask, normalise=name)
    centred = _input(image, mask, normalise=name, mean_centring=True)
    assert abs(centred.mean()) < 0.01
    np.testing.assert_allclose(plain - centred, plain.mean(), atol=0.01)


def test_the_configured_percentile_becomes_1():
    image = np.arange(201, dtype=np.uint8).reshape(3, 67)
    for percentile in (95.0, 70.0):
        config = DataConfig(normalise="contrast_stretch", top_percentile=percentile, cell_fit="native")
        _, tone_curve = cells.preprocess(image, image > 0, config)
        assert (tone_curve[0], 1 / tone_curve[1]) == (pytest.approx(0), pytest.approx(2 * percentile, rel=1e-5))


def test_a_cell_is_shrunk_by_averages_of_areas():
    image = np.random.default_rng(0).integers(0, 255, (80, 64)).astype(np.uint8)
    config = DataConfig(normalise="none", cell_fit="native", scale=0.25)
    ready, _ = cells.preprocess(image, image > 0, config)
    np.testing.assert_allclose(ready, image.reshape(20, 4, 16, 4).mean((1, 3)), atol=0.51)


def test_a_masked_crop_is_dark_outside_the_mask_and_unchanged_inside():
    image, mask = _crop()
    config = DataConfig(crop_size=64, normalise="none", cell_fit="native", masked=True)
    ready, _ = cells.preprocess(image, mask, config)
    np.testing.assert_array_equal(ready[mask], image[mask])
    assert (ready[~mask] == image.min()).all()


def test_native_fit_keeps_pixels_and_keep_fit_keeps_shapes():
    image = np.zeros((60, 90), np.uint8)
    mask = np.ones_like(image, bool)
    sides = {
        fit: cells.preprocess(image, mask, DataConfig(crop_size=45, normalise="none", cell_fit=fit))[0].shape
        for fit in ("native", "keep", "stretch")
    }
    assert sides == {"native": (60, 90), "keep": (30, 45), "stretch": (45, 45)}


def test_a_margin_makes_tight_and_wide_crops_alike():
    image, mask = _crop()
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    tight = np.s_[rows[0] - 2 : rows[-1] + 3, columns[0] - 2 : columns[-1] + 3]
    config = DataConfig(crop_size=64, normalise="none", cell_fit="native", cell_margin=0.0)
    wide, _ = cells.preprocess(image, mask, config)
    close, _ = cells.preprocess(image[tight], mask[tight], config)
    np.testing.assert_array_equal(wide, close)
    with_context, _ = cells.preprocess(image[tight], mask[tight], DataConfig(**{**vars(config), "cell_margin": 0.25}))
    longer = max(wide.shape)
    assert with_context.shape == tuple(side + 2 * round(0.25 * longer) for side in wide.shape)


@pytest.mark.parametrize("settings", [{"masked": True}, {"cell_margin": 0.1}])
def test_options_that_need_a_mask_say_so(settings):
    image, _ = _crop()
    with pytest.raises(UsageError, match="00042: has no mask"):
        cells.preprocess(image, np.zeros_like(image, bool), DataConfig(normalise="none", **settings), name="00042")


def test_cells_cut_from_specimens_lie_inside_the_frame_and_carry_their_truth(data_dir):
    config = DataConfig(
        name="hep2_synthetic", builder_config="specimens_tiny", data_dir=str(data_dir), normalise="contrast_stretch"
    )
    made = cells.load(config)
    assert len(made) > 20
    assert len({item.identifier for item in made.items}) == len(made)
    assert {item.split for item in made.items} == {"train", "validation", "test"}
    for cell in made.cells:
        assert cell.item.specimen.split("-")[1] == made.classes[cell.item.pattern]
        assert cell.item.group == cell.item.specimen
        assert cell.image.dtype == np.uint8
        assert min(cell.image.shape) > 20
        assert cell.ready.shape == (config.crop_size, config.crop_size)


def test_cells_of_fields_are_those_of_the_set(data_dir):
    """Cut from fields in memory or from the set's records: the same cells, the same pixels."""
    config = DataConfig(builder_config="specimens_tiny", data_dir=str(data_dir), normalise="contrast_stretch")
    fields = field_sets.load(dataclasses.replace(config, normalise="none"))
    for one, other in zip(cells.from_fields(fields, config).cells, cells.load(config).cells, strict=True):
        assert (one.item, one.intensity) == (other.item, other.intensity)
        np.testing.assert_array_equal(one.ready, other.ready)
        np.testing.assert_array_equal(one.tone_curve, other.tone_curve)


def test_objects_that_reach_the_frame_are_not_cut_out():
    instances = np.zeros((60, 80), np.int32)
    instances[0:10, 20:30], instances[20:30, 40:50], instances[50:55, 70:79] = 1, 2, 5
    image = np.arange(60 * 80, dtype=np.uint16).astype(np.uint8).reshape(60, 80)
    out = cells.cut_out(image, instances)
    assert ([cut.number for cut in out.cuts], out.num_cut_by_frame) == ([2, 5], 1)
    first = out.cuts[0]
    np.testing.assert_array_equal(first.image, image[18:32, 38:52])
    assert first.mask.sum() == 100
    assert [cut.number for cut in cells.cut_out(image, instances, [5, 4, 9]).cuts] == [5]
