"""Whole images with several patterns each, from a made-up copy of AIDA_HEp-2 and from synthetic specimens."""

import numpy as np
import pytest

from hep2jax.config import DataConfig
from hep2jax.data.sets import cells, images
from hep2jax.data.sets import fields as field_sets
from hep2jax.errors import UsageError
from tests.tfds_builders import test_aida


@pytest.fixture
def config(tmp_path):
    test_aida.write_archive(tmp_path / "manual")
    return DataConfig(name="aida", data_dir=str(tmp_path / "data"), manual_dir=str(tmp_path / "manual"))


def test_images_with_their_patterns_as_a_vector(config):
    found = images.load(config)
    assert (found.name, len(found), found.classes[0], len(found.classes)) == ("aida", 4, "AC-1", 29)
    assert [image.identifier for image in found.images] == ["a1.png", "a2.jpg", "b.tif", "c.bmp"]
    assert [image.specimen for image in found.images] == ["aida-1", "aida-1", "aida-2", "aida-3"]
    assert [image.intensity for image in found.images] == ["positive", "positive", "negative", "positive"]
    for image, patterns in zip(found.images, test_aida.PATTERNS, strict=True):
        assert image.patterns.dtype == np.float32
        assert [found.classes[k] for k in np.flatnonzero(image.patterns)] == patterns
        assert set(image.patterns.tolist()) <= {0.0, 1.0}
        assert image.patterns_known
        assert image.split == "train"
    grey = np.rint(test_aida.picture("a1.png").mean(axis=-1)).astype(np.uint8)
    np.testing.assert_array_equal(found.images[0].image, grey)
    np.testing.assert_array_equal(found.images[2].image, test_aida.picture("b.tif"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return images.load(DataConfig(builder_config="mixed_tiny", data_dir=str(tmp_path_factory.mktemp("data"))))


def test_synthetic_specimens_with_two_patterns_or_none(mixed):
    named = {image.identifier: image for image in mixed.images}
    assert (len(named), len(mixed.classes)) == (len(mixed), 8)
    pair = named["test-homogeneous-nucleolar-00-0"]
    assert (pair.specimen, pair.split, pair.intensity) == ("test-homogeneous-nucleolar-00", "test", "positive")
    assert [mixed.classes[k] for k in np.flatnonzero(pair.patterns)] == ["homogeneous", "nucleolar"]
    assert (pair.image.shape, pair.image.dtype) == ((160, 160), np.uint8)
    assert all(image.patterns_known for image in mixed.images)


def test_synthetic_negatives_have_no_pattern(mixed):
    negative = [image for image in mixed.images if image.intensity == "negative"]
    assert {image.specimen.rsplit("-", 1)[0] for image in negative} == {
        f"{split}-negative" for split in ("train", "validation", "test")
    }
    assert not any(image.patterns.any() for image in negative)
    assert all(image.patterns.any() for image in mixed.images if image.intensity != "negative")


def test_channel_and_scale(config):
    config.channel, config.scale = "green", 0.5
    image = images.load(config).images[0].image
    assert (image.shape, image.dtype) == ((12, 15), np.uint8)


def test_sets_that_do_not_fit_the_reader_are_refused(config, data_dir):
    with pytest.raises(UsageError, match="aida/images/1.0.0 has no class masks"):
        field_sets.load(config)
    with pytest.raises(UsageError, match="aida/images/1.0.0 has neither cells nor instance masks"):
        cells.load(config)
    with pytest.raises(UsageError, match="has exactly one pattern for each image, not several"):
        images.load(DataConfig(builder_config="specimens_tiny", data_dir=str(data_dir)))
