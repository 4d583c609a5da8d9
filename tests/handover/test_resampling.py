"""What OpenCV and NumPy do on the host is done alike in exported programs, also for odd sizes."""

import functools
from fractions import Fraction

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from hep2jax.config import DataConfig
from hep2jax.data import tiles
from hep2jax.data.sets import cells as cell_sets
from hep2jax.data.sets import fields as field_sets
from hep2jax.handover import programs, resampling

_stretch = jax.jit(functools.partial(resampling.stretch, side=30))
SHAPES = ((33, 46), (40, 61), (75, 58))


def _pictures(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(shape).integers(0, 256, (2, *shape), np.uint8)


def _share_of_equal(found: jax.Array, wanted: list[np.ndarray]) -> float:
    """The share of equal grey levels; none may differ by more than one."""
    difference = np.abs(np.asarray(found) - np.stack(wanted))
    assert difference.max() <= 1
    return float((difference == 0).mean())


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.3125, 0.62])
def test_reduce(scale: float):
    run = jax.jit(lambda image: resampling.reduce(image, Fraction(str(scale))))
    for shape in SHAPES:
        pictures = _pictures(shape)
        wanted = [field_sets.resize_image(picture, scale) for picture in pictures]
        equal = _share_of_equal(run(pictures.astype(np.float32)), wanted)
        assert equal == 1 if scale in (1.0, 0.5) else equal > 0.998


@pytest.mark.parametrize("shape", [*SHAPES, (30, 30), (40, 20)])
def test_stretch(shape: tuple[int, int]):
    """To 30 pixels: by area averages if both sides shrink, else linearly."""
    pictures = _pictures(shape)
    config = DataConfig(normalise="none", crop_size=30)
    wanted = [cell_sets.preprocess(picture, np.zeros(shape, bool), config)[0] for picture in pictures]
    assert _share_of_equal(_stretch(pictures.astype(np.float32)), wanted) > 0.995


@pytest.mark.parametrize("percent", [50, 95.0, 99.57, 100.0])
def test_percentile(percent: float):
    pictures = _pictures((41, 99)) // 3
    found = jax.jit(resampling.percentile, static_argnums=1)(pictures.astype(np.float32), percent)
    np.testing.assert_allclose(found, np.percentile(pictures, percent, axis=(1, 2)), atol=1e-4)


def test_enlarge_and_mirrored():
    maps = np.random.default_rng(0).random((20, 33, 4), np.float32)
    wanted = cv2.resize(maps, (101, 47), interpolation=cv2.INTER_LINEAR)
    found = jax.jit(resampling.enlarge, static_argnums=(1, 2))(maps[None], 47, 101)
    np.testing.assert_allclose(found[0], wanted, atol=1e-5)
    picture = _pictures((9, 50))[0]
    mirrored = jax.jit(resampling.mirrored, static_argnums=1)(picture[None].astype(np.float32), 32)
    np.testing.assert_array_equal(mirrored[0], tiles.pad_to_tile(picture, 32))


@pytest.mark.parametrize("scale", ["0.5", "0.3125", "0.62"])
def test_reduced_side_is_that_of_opencv_also_as_an_expression(scale: str):
    (symbol,) = export.symbolic_shape("side")
    for side in range(10, 200):
        wanted = cv2.resize(np.zeros((side, 8), np.uint8), None, fx=float(scale), fy=float(scale)).shape[0]
        assert resampling.reduced_side(side, Fraction(scale)) == wanted
    shape = jax.eval_shape(lambda x: x[: resampling.reduced_side(symbol, Fraction(scale))], jnp.zeros(200)).shape
    assert str(symbol) in str(shape[0])


@pytest.mark.parametrize(("tile", "overlap"), [(64, 16), (224, 32)])
def test_tiles_start_where_those_of_evaluation_start(tile: int, overlap: int):
    lengths = range(tile, 6 * tile)
    numbers = jax.jit(programs.num_tiles, static_argnums=(1, 2))(np.array(lengths), tile, overlap).tolist()
    wanted = [tiles.starts(length, tile, overlap) for length in lengths]
    assert numbers == list(map(len, wanted))
    places = [(i, n, length) for n, length in zip(numbers, lengths, strict=True) for i in range(n)]
    found = jax.jit(programs.start, static_argnums=3)(*map(np.array, zip(*places, strict=True)), tile)
    np.testing.assert_array_equal(found, np.concatenate(wanted))
