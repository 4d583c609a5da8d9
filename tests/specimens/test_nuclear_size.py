"""The size of the cells on drawn images, where it is known, at many magnifications."""

import math

import numpy as np
import pytest

from hep2jax.specimens import nuclear_size
from hep2jax.specimens.nuclear_size import NuclearSize, Scales
from tfds_builders.hep2_synthetic import generator

SIDE = 400


def _image(diameter, *, seed=0, spacing=1.6):
    """Discs on a jittered grid over noise, uint8 [400, 400]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((SIDE, SIDE))
    image = np.full((SIDE, SIDE), 20.0)
    for y in np.arange(diameter, SIDE, spacing * diameter):
        for x in np.arange(diameter, SIDE, spacing * diameter):
            dy, dx = rng.uniform(-0.2, 0.2, 2) * diameter
            radius = diameter / 2 * rng.uniform(0.9, 1.1)
            image[np.hypot(rows - y - dy, columns - x - dx) < radius] = rng.uniform(90, 140)
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def _factors(scales, images):
    scales.learn(images)
    return [scales.factor(image) for image in images]


@pytest.mark.parametrize("diameter", [12, 30, 49, 77, 90])
def test_measures_discs(diameter):
    measured = nuclear_size.measure(_image(diameter))
    assert measured == pytest.approx(diameter, rel=0.12)


@pytest.mark.parametrize("factor", [0.4, 0.7, 1.5, 2.5])
def test_follows_the_magnification(factor):
    image = _image(40)
    first, second = nuclear_size.measure(image), nuclear_size.measure(nuclear_size.resized(image, factor))
    assert first is not None
    assert second == pytest.approx(factor * first, rel=0.05)


@pytest.mark.parametrize(
    "image", [np.zeros((300, 300), np.uint8), np.full((64, 64), 255, np.uint8), np.zeros((1, 1), np.uint8)]
)
def test_an_image_without_cells_has_no_size(image):
    assert nuclear_size.measure(image) is None


@pytest.fixture(scope="module")
def small_fields():
    """Fields of 150 x 210 pixels with nuclei of 47, which show fewer than three whole cells."""
    return [
        generator.generate_specimen(number, pattern, "positive", height=150, width=210, fields=1)[0].image
        for number, pattern in enumerate(generator.PATTERNS * 2)
    ]


def test_a_search_that_does_not_settle_finds_nothing(small_fields):
    """It was ended after twelve steps, at whatever diameter it had come to."""
    assert [nuclear_size.measure(small_fields[number]) for number in (7, 8, 9, 13, 14)] == [None] * 5


def test_a_search_that_goes_to_and_fro_by_little_has_settled():
    image = generator.generate_specimen(26, generator.PATTERNS[2], "positive", height=300, width=500, fields=1)[0]
    assert nuclear_size.measure(image.image) == pytest.approx(57, rel=0.05)


def test_images_keep_their_size_if_most_of_them_cannot_be_measured(small_fields):
    """What is measured in the others is specks, and images were enlarged four times."""
    size = NuclearSize(measured=50.5, spread=0.23, nuclear_diameter=46.7)
    assert _factors(Scales(size), small_fields) == [1.0] * len(small_fields)
    half = [_image(25), _image(25), np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)]
    assert _factors(Scales(size), half) == [pytest.approx(2, rel=0.15)] * 4
    assert _factors(Scales(size), half[1:]) == [1.0] * 3


def test_a_large_image_is_measured_in_a_window():
    image = np.tile(_image(40), (6, 6))  # 6 million pixels
    assert nuclear_size.measure(image) == pytest.approx(40, rel=0.12)


def test_the_factor_is_the_ratio_of_medians():
    size = NuclearSize(measured=80.0, spread=0.2, nuclear_diameter=77.0)
    assert size.factor([38.0, 40.0, 160.0]) == pytest.approx(2.0)
    assert size.factor([1000.0]) == pytest.approx(0.08)


def test_images_that_differ_no_more_than_usual_keep_their_size():
    size = NuclearSize(measured=80.0, spread=0.25, nuclear_diameter=77.0)
    assert size.factor([]) == 1.0
    assert size.factor([80 * math.exp(0.49)]) == 1.0  # one image: two standard deviations of one
    assert size.factor([80 * math.exp(0.51)]) == pytest.approx(math.exp(-0.51))
    assert size.factor([80 * math.exp(0.2)] * 4) == 1.0  # four images: half of that
    assert size.factor([80 * math.exp(0.2)] * 16) == pytest.approx(math.exp(-0.2))


def test_the_summary_is_of_medians():
    size = nuclear_size.summarise([70.0, 80.0, 90.0, 500.0, 80.0], [10.0, 70.0, 72.0])
    assert size is not None
    assert (size.measured, size.nuclear_diameter) == (80.0, 70.0)
    assert size.spread == pytest.approx(1.4826 * math.log(90 / 80))
    assert nuclear_size.summarise([], [3.0]) is None
    assert nuclear_size.summarise([3.0], []) == NuclearSize(measured=3.0, spread=0.15, nuclear_diameter=None)


def test_annotated_diameters_are_those_of_discs():
    instances = np.zeros((50, 60), np.uint16)
    instances[5:15, 5:15], instances[20:40, 20:40] = 1, 7
    expected = {1: math.sqrt(4 / math.pi * 100), 7: math.sqrt(4 / math.pi * 400)}
    assert nuclear_size.diameters(instances) == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, bool])
def test_labels_keep_their_values_and_dtype(dtype):
    labels = np.zeros((20, 30), dtype)
    labels[5:15, 10:20] = 1
    other = nuclear_size.resized_labels(labels, (50, 75))
    assert (other.shape, other.dtype) == ((50, 75), labels.dtype)
    np.testing.assert_array_equal(np.unique(other), np.unique(labels))
    assert np.mean(other > 0) == pytest.approx(np.mean(labels > 0), rel=0.05)


SIZE = NuclearSize(measured=80.0, spread=0.15, nuclear_diameter=77.0)


def test_images_of_one_shape_share_their_factor():
    small, large = [_image(40, seed=k) for k in range(3)], [_image(80, seed=k)[:390] for k in range(3)]
    scales = Scales(SIZE)
    factors = _factors(scales, [small[0], large[0], small[1], large[1], small[2], large[2]])
    assert factors[0::2] == [factors[0]] * 3
    assert factors[0] == pytest.approx(2.0, rel=0.1)
    assert factors[1::2] == [1.0] * 3
    (message,) = scales.messages()
    assert message.startswith("images of 400 x 400 pixels: their cells have a diameter of about ")
    assert _factors(scales, [_image(20)]) == factors[:1]  # the first images decided
    assert scales.messages() == []


def test_a_given_diameter_is_not_measured():
    scales = Scales(SIZE, 154.0)
    assert _factors(scales, [np.zeros((50, 60), np.uint8)]) == [0.5]
    assert scales.messages() == [
        "images of 50 x 60 pixels: their cells have a diameter of about 154 pixels and those of the training images of "
        "77; they are resized by 0.50"
    ]


@pytest.mark.parametrize("size", [None, NuclearSize(measured=80.0, spread=0.2, nuclear_diameter=None)])
def test_a_diameter_is_refused_where_nothing_is_known_to_compare_it_with(size):
    with pytest.raises(ValueError, match="a nuclear diameter was given, but that of the training images is unknown"):
        Scales(size, 50.0)


def test_images_are_read_as_they_are_where_nothing_is_known():
    assert _factors(Scales(None), [_image(20)]) == [1.0]
    assert _factors(Scales(SIZE), [np.zeros((60, 60), np.uint8)]) == [1.0]  # nothing was found


@pytest.mark.parametrize(("diameter", "factor"), [(4.0, 8.0), (77 * 80.0, 1 / 8)])
def test_what_cannot_be_brought_to_size_is_said(diameter, factor):
    scales = Scales(SIZE, diameter)
    assert _factors(scales, [np.zeros((50, 60), np.uint8)]) == [factor]
    assert scales.messages()[0].endswith("which is not enough: do not trust these readings")


def test_large_images_are_not_enlarged_beyond_memory():
    scales = Scales(SIZE, 7.7)
    assert _factors(scales, [np.zeros((10_000, 10_000), np.uint8)]) == [1.0]
    assert "not enough" in scales.messages()[0]


@pytest.mark.parametrize("diameter", [0.0, -3.0, math.nan, math.inf])
def test_a_diameter_is_a_positive_number(diameter):
    with pytest.raises(ValueError, match="a nuclear diameter of .* pixels was given"):
        Scales(SIZE, diameter)
