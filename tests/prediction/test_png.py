"""PNG files that other programs decode to the same pixels."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from hep2jax.prediction import png

SHAPES = ((1, 1), (3, 1), (1, 7), (40, 31), (200, 301))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "mode"), [(np.uint8, "L"), (np.uint16, "I;16")])
def test_pixels_are_decoded_as_they_were(shape, dtype, mode):
    random = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    for pixels in (random, random // 100 * 100, np.full_like(random, 7)):
        data = png.encode(pixels)
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert decoded.dtype == dtype
        np.testing.assert_array_equal(decoded, pixels)
        with Image.open(io.BytesIO(data)) as image:
            assert image.mode == mode
            np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("shape", SHAPES)
def test_indices_are_decoded_as_the_colours_of_their_palette(shape):
    random = np.random.default_rng(1)
    pixels, palette = random.integers(0, 256, shape, np.uint8), random.integers(0, 256, (256, 3), np.uint8)
    data = png.encode(pixels, palette)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded, palette[pixels][..., ::-1])
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), palette[pixels])


def test_pixels_may_lie_anywhere_in_memory():
    pixels = np.arange(600, dtype=np.uint16).reshape(20, 30)
    for view in (pixels[::2, ::3], pixels.T, pixels[:, ::-1]):
        np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(png.encode(view), np.uint8), -1), view)


def test_masks_are_small():
    mask = np.zeros((500, 700), np.uint8)
    for number in range(20):
        cv2.circle(mask, (31 * number + 40, 22 * number + 30), 20, 1 + number % 6, -1)
    assert len(png.encode(mask)) < mask.size / 50
