"""Crops made on the device are those made on the host, within interpolation error."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hep2jax import ops
from hep2jax.config import AugmentConfig, Config, DataConfig, TrainConfig
from hep2jax.data.sets.fields import FieldSet, make_field
from hep2jax.data.streams import canvases
from hep2jax.data.streams.cells import CellPlan
from hep2jax.data.streams.fields import FieldPlan
from hep2jax.data.streams.stream import Stream
from hep2jax.ops import warp
from tests.data.cell_tables import cell_set

PLATFORMS = ("cpu", "tpu")
"""By gathering pixels, and by matrix products."""
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
        assert difference.max() < 3.5  # OpenCV rounds places to 1/32 pixel, the products weights to 8 bits


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
    pictures = np.stack([_smooth((40, 50), number) for number in range(3)])
    index, matrix = jnp.array([2, 0]), jnp.array([[[0, 1, 7], [-1, 0, 35]]] * 2, jnp.float32)
    expected = [np.rot90(pictures[i][35 - 23 : 36, 7 : 7 + 24], -1) for i in (2, 0)]
    for platform in PLATFORMS:
        for cut in (warp.bilinear, warp.nearest):
            with ops.target(platform):
                cut = np.asarray(jax.jit(cut, static_argnums=3)(pictures, index, matrix, 24))
            np.testing.assert_array_equal(cut, expected)


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
    assert (count, height % 32, width % 128) == (len(cells), 0, 0)
    assert side <= height < side + 32
    assert side <= width < side + 128
