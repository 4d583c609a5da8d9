"""Crops made on the device are those made on the host, within interpolation error."""

import itertools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hep2jax import ops
from hep2jax.config import AugmentConfig, Config, DataConfig, TrainConfig
from hep2jax.data.augment import geometry
from hep2jax.data.sets.fields import FieldSet, make_field
from hep2jax.data.streams import canvases
from hep2jax.data.streams.cells import CellPlan
from hep2jax.data.streams.fields import FieldPlan
from hep2jax.data.streams.stream import Stream
from hep2jax.ops import shears, warp
from tests.data.cell_tables import cell_set

PLATFORMS = ("cpu", "tpu")
"""By gathering pixels, and by shears."""
_USUAL = {"xla_cpu_use_fusion_emitters": True} if jax.__version_info__ < (0, 11) else None
"""As users compile. XLA's older code generator, which the default lane uses, computes the place of a pixel anew for
each use of it: where a place is nearly whole, the weights of its neighbours need not add up to 1."""
FAR = AugmentConfig(scale_min=0.7, scale_max=1.4, shift=0.2)


def _configs(augment: AugmentConfig, **data) -> tuple[Config, Config]:
    """The same experiment with crops made on the host and on the device."""
    host, device = (
        Config(data=DataConfig(warp=where, **data), augment=augment, train=TrainConfig(global_batch_size=12))
        for where in ("host", "device")
    )
    return host, device


def _crops(stream, config: Config, step: int, platform: str) -> dict[str, np.ndarray]:
    how = {"size": config.data.crop_size, "stretch": 1 / config.augment.scale_min}
    with ops.target(platform):
        run = jax.jit(lambda batch, constants: ops.crops(batch, constants, **how), compiler_options=_USUAL)
        cut = run(stream.batch(step), stream.store)
    return {name: np.asarray(value) for name, value in cut.items()}


def _smooth(shape: tuple[int, int], seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("fit", ["stretch", "keep", "native", "frame"])
def test_cells(platform: str, fit: str):
    host, device = _configs(FAR, crop_size=48, cell_fit=fit, normalise="none")
    cells = cell_set(host.data)
    for number, cell in enumerate(cells.cells):
        object.__setattr__(cell, "ready", _smooth(cell.ready.shape, number))
    streams = [Stream(CellPlan(config, cells, range(len(cells)))) for config in (host, device)]
    for step in range(3):
        expected, cut = streams[0].batch(step), _crops(streams[1], device, step, platform)
        assert cut.keys() == expected.keys()
        np.testing.assert_array_equal(cut["labels"], expected["labels"])
        np.testing.assert_array_equal(cut["tone_curve"], expected["tone_curve"])
        difference = np.abs(cut["image"] - expected["image"])
        assert difference.mean() < 0.6
        assert difference.max() < 3.5  # OpenCV rounds places to 1/32 pixel and values to whole grey levels


def _fields(sizes: list[tuple[int, int]]) -> FieldSet:
    """Smooth fields of these sizes, with a smooth region as their cells."""
    fields = []
    for number, size in enumerate(sizes):
        image = _smooth(size, number)
        classes = np.where(_smooth(size, 50 + number) > 140, number + 1, 0).astype(np.uint8)
        fields.append(
            make_field(
                image=image,
                classes=classes,
                instances=classes.astype(np.uint16),
                specimen_id=f"s{number}",
                number=0,
                split="train",
                pattern=number,
                intensity="positive",
                config=DataConfig(),
            )
        )
    return FieldSet(name="made_up", classes=("a", "b", "c"), fields=tuple(fields))


@pytest.mark.parametrize("platform", ["cpu", pytest.param("tpu", marks=pytest.mark.slow)])
def test_fields_of_several_sizes(platform: str):
    host, device = _configs(AugmentConfig(scale_min=0.7), crop_size=160)
    fields = _fields([(170, 300), (200, 190), (260, 260)])
    streams = [Stream(FieldPlan(config, fields, range(3))) for config in (host, device)]
    for step in range(2):
        expected, cut = streams[0].batch(step), _crops(streams[1], device, step, platform)
        assert cut.keys() == expected.keys()
        difference = np.abs(cut["image"] - expected["image"])
        assert difference.mean() < 0.6
        assert difference.max() < 3.5
        assert np.mean(cut["labels"] != expected["labels"]) < 0.01
        assert set(np.unique(cut["labels"])) == set(np.unique(expected["labels"])) == {0, 1, 2, 3}


def test_a_whole_canvas_is_cut_exactly():
    """A matrix of whole numbers, turned by a quarter: no interpolation, so all give the pixels themselves."""
    pictures = np.stack([_smooth((64, 256), number) for number in range(3)])
    index, matrix = jnp.array([2, 0]), jnp.array([[[0, 1, 107], [-1, 0, 55]]] * 2, jnp.float32)
    expected = [np.rot90(pictures[i][55 - 23 : 56, 107 : 107 + 24], -1) for i in (2, 0)]
    for platform in PLATFORMS:
        with ops.target(platform):
            (image,), (labels,) = jax.jit(
                lambda *given: warp.cut([jnp.asarray(pictures)], [jnp.asarray(pictures)], *given, 24)
            )(index, matrix)
        np.testing.assert_array_equal(image, expected)
        np.testing.assert_array_equal(labels, expected)


def _turned(angle: float, zoom: float, mirror: int, centre: tuple[float, float], size: int) -> np.ndarray:
    matrix = geometry.cmr_matrix(centre, size, angle=np.deg2rad(angle), zoom=zoom, flip=mirror)
    return matrix[None]


def test_shears_reach_every_corner():
    """At every angle, as small and as large as allowed, in every corner of a canvas that is wider than a window."""
    size, zoom, (height, width) = 40, 0.7, (160, 640)
    reach = size / 2**0.5 / zoom + 2
    pictures, labels = _smooth((height, width), 1)[None], (_smooth((height, width), 2) > 130).astype(np.uint8)[None]
    angles, zooms = np.arange(0, 360, 22.5), (zoom, 1 / zoom)
    corners = [(y, x) for y in (reach, height - 1 - reach) for x in (reach, width - 1 - reach)]
    chosen = itertools.product(angles, zooms, corners, (1, -1))
    matrices = np.concatenate([_turned(angle, by, mirror, centre, size) for angle, by, centre, mirror in chosen])
    found = {}
    for platform in PLATFORMS:
        with ops.target(platform):
            cut = jax.jit(
                lambda *given: warp.cut([jnp.asarray(pictures)], [jnp.asarray(labels)], *given, size, stretch=1 / zoom)
            )
            found[platform] = jax.tree.map(np.asarray, cut(jnp.zeros(len(matrices), int), jnp.asarray(matrices)))
    (gathered, of_pixels), (sheared, of_lines) = (
        (images[0], labels[0]) for images, labels in (found[name] for name in PLATFORMS)
    )
    difference = np.abs(gathered - sheared)
    assert difference.mean() < 0.2
    assert difference.max() < 3.5
    # A label may be that of a neighbour: where all nine pixels about a place agree, so do both.
    grown, shrunk = (operation(labels[0], np.ones((3, 3))) for operation in (cv2.dilate, cv2.erode))
    with ops.target("cpu"):
        inner = [
            warp.cut([], [jnp.asarray(edge)[None]], jnp.zeros(len(matrices), int), jnp.asarray(matrices), size)[1][0]
            for edge in (grown, shrunk)
        ]
    certain = np.asarray(inner[0] == inner[1])
    assert certain.mean() > 0.7
    np.testing.assert_array_equal(of_pixels[certain], of_lines[certain])


def test_shears_take_canvases_of_whole_tiles():
    index, matrix = jnp.zeros(1, int), jnp.asarray(_turned(0, 1, 1, (20, 20), 8))
    with ops.target("tpu"), pytest.raises(ValueError, match="multiples of 32 x 128"):
        warp.cut([jnp.zeros((1, 40, 128), jnp.uint8)], [], index, matrix, 8)


def test_a_batch_with_an_image_is_left_alone():
    batch = {"image": np.zeros((1, 8, 8), np.uint8)}
    assert ops.crops(batch, {}, size=8) is batch


def test_only_indices_and_matrices_travel():
    _, device = _configs(FAR, crop_size=48)
    cells = cell_set(device.data)
    stream = Stream(CellPlan(device, cells, range(len(cells))))
    batch = stream.batch(0)
    assert {name: (value.dtype.name, value.shape) for name, value in batch.items()} == {
        "index": ("int32", (12,)),
        "warp": ("float32", (12, 2, 3)),
        "labels": ("int32", (12,)),
        "tone_curve": ("float32", (12, 4)),
    }
    side = 2 * (canvases.reach(48, FAR) + 10) + 1
    count, height, width = stream.store["pictures"].shape
    assert (count, height % shears.ROWS, width % shears.LANES) == (len(cells), 0, 0)
    assert side <= height < side + shears.ROWS
    assert side <= width < side + shears.LANES


def test_a_crop_that_begins_with_a_tile_is_whole():
    """A quarter turn is not exact in floating point, so that a place on the border of a tile may lie before it."""
    size, pictures = 40, _smooth((160, 256), 3)[None]
    tops = shears.ROWS * np.arange(1, 4)
    chosen = itertools.product((0, 90, 180, 270), (1, -1), tops + (size - 1) / 2, np.arange(60, 70) + 0.5)
    matrices = np.concatenate([_turned(angle, 1.0, mirror, (y, x), size) for angle, mirror, y, x in chosen])
    index = jnp.zeros(len(matrices), int)
    found = []
    for platform in PLATFORMS:
        with ops.target(platform):
            ((image,), _) = jax.jit(lambda *given: warp.cut([jnp.asarray(pictures)], [], *given, size))(
                index, jnp.asarray(matrices)
            )
        found.append(np.asarray(image))
    np.testing.assert_allclose(*found, atol=0.01)
