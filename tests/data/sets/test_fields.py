import cv2
import numpy as np
import pytest

from hep2jax.config import Config, DataConfig, validate
from hep2jax.data.sets import fields as field_sets
from hep2jax.errors import UsageError
from hep2jax.metrics.pixels import VOID
from tfds_builders import fields as built_fields


def test_the_tiny_set_is_loaded_whole(data_dir):
    config = DataConfig(builder_config="specimens_tiny", data_dir=str(data_dir), scale=0.5)
    fields = field_sets.load(config)
    assert len(fields) == 8 * (2 + 1 + 1)
    assert len({f.specimen_id for f in fields.fields}) == len(fields)
    for field in fields.fields:
        assert field.image.shape == field.classes.shape == field.instances.shape == (160, 160)
        assert field.working_image.shape == field.working_classes.shape == (80, 80)
        assert set(np.unique(field.classes)) <= {0, field.pattern + 1, VOID}
        np.testing.assert_array_equal(field.instances > 0, field.classes > 0)


def test_green_or_the_mean_of_the_channels():
    image = np.zeros((4, 5, 3), np.uint8)
    image[..., 1] = 90
    assert (field_sets.select_channel(image, "green") == 90).all()
    assert (field_sets.select_channel(image, "grey") == 30).all()
    grey = image[..., 1]
    assert field_sets.select_channel(grey, "green") is grey


def test_decode_gives_rgb_and_sixteen_bits_back():
    rgb = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    np.testing.assert_array_equal(field_sets.decode(cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()), rgb)
    deep = np.array([[0, 300], [65535, 1]], np.uint16)
    np.testing.assert_array_equal(field_sets.decode(cv2.imencode(".png", deep)[1].tobytes()), deep)


def test_normalisation_maps_background_and_top():
    rng = np.random.default_rng(0)
    image = rng.integers(18, 23, (200, 200)).astype(np.uint8)
    image[:60, :60] = 120
    offset, gain = field_sets.grey_normalisation(image, DataConfig())
    assert offset == pytest.approx(20, abs=1)
    assert (120 - offset) * gain == pytest.approx(1)
    assert field_sets.grey_normalisation(image, DataConfig(normalise="none")) == (0.0, 1 / 255)
    flat = np.full((50, 50), 30, np.uint8)
    assert field_sets.grey_normalisation(flat, DataConfig()) == (30.0, 1 / 4)


def test_builders_write_void_as_it_is_read():
    assert built_fields.VOID == VOID  # builders import nothing of the package


def test_background_near_the_frame_is_void_but_cells_stay():
    classes = np.zeros((10, 12), np.uint8)
    classes[0:2, 3:5] = 2
    voided = field_sets.void_near_frame(classes, 3)
    assert (voided[0:2, 3:5] == 2).all()
    assert (voided[3:7, 3:9] == 0).all()
    assert (voided == VOID).sum() == 10 * 12 - 4 * 6 - 4
    np.testing.assert_array_equal(field_sets.void_near_frame(classes, 0), classes)


def test_the_median_is_the_background_and_the_percentile_is_the_configured_one():
    image = np.arange(201, dtype=np.uint8).reshape(3, 67)
    for percentile in (95.0, 80.0):
        offset, gain = field_sets.grey_normalisation(image, DataConfig(top_percentile=percentile))
        assert (offset, 1 / gain) == (pytest.approx(100), pytest.approx(2 * percentile - 100))


def test_working_copies_average_areas_and_keep_the_margin_in_native_pixels():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (80, 120)).astype(np.uint8)
    field = field_sets.make_field(
        image=image,
        classes=np.zeros(image.shape, np.uint8),
        instances=np.zeros(image.shape, np.uint16),
        config=DataConfig(scale=0.25, cut_cell_margin=8),
        specimen_id="a",
        number=0,
        split="train",
        pattern=0,
        intensity="positive",
    )
    blocks = image.reshape(20, 4, 30, 4).mean((1, 3))
    np.testing.assert_allclose(field.working_image, blocks, atol=0.51)
    inside = field.working_classes == 0
    assert inside[2:-2, 2:-2].all()
    assert inside.sum() == 16 * 26


def test_the_logarithm_ignores_gain_and_uneven_light():
    image = np.full((120, 120), 40, np.float32)
    image[30:50, 30:50] = 100
    slope = np.linspace(1, 2, 120, dtype=np.float32)
    config = DataConfig(normalise="log", background_window=60, top_percentile=99.0)
    for lit in (image, image * slope):
        working, offset, gain = field_sets.working_image(lit.astype(np.uint8), config)
        contrast = (working[:, 20:100].astype(float) - offset) * gain
        assert contrast[35:45, 15:25].min() > 0.8
        assert np.abs(contrast[70:]).max() < 0.2
    with pytest.raises(UsageError, match="data.background_window=0"):
        validate(Config(data=DataConfig(normalise="log")))
