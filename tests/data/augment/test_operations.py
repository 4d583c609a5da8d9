"""Intensity operations: the two executors agree, draws depend on seed, step and row alone, and one class is enough."""

import dataclasses

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typing_extensions import override

from hep2jax import ops
from hep2jax.config import AugmentConfig, Config, DataConfig, TrainConfig
from hep2jax.data.augment import intensity
from hep2jax.data.augment.intensity import Blur, Noise, Operation
from hep2jax.data.streams import bags
from hep2jax.data.streams.bags import BagPlan
from hep2jax.data.streams.cells import CellPlan
from hep2jax.data.streams.fields import FieldPlan
from hep2jax.data.streams.joint import JointPlan
from hep2jax.data.streams.stream import Plan, Stream
from tests.data.cell_tables import cell_set
from tests.data.fields import field_set

ON = AugmentConfig(blur=1.5, noise=6.0)
KINDS = ("fields", "cells", "bags", "joint")


def _config(augment: AugmentConfig = ON, where: str = "host") -> Config:
    data = DataConfig(crop_size=64, bag_tiles=2, warp=where)
    return Config(seed=3, data=data, augment=augment, train=TrainConfig(global_batch_size=6))


def _plan(kind: str, config: Config) -> Plan:
    if kind == "cells":
        cells = cell_set(dataclasses.replace(config.data, normalise="none"))
        return CellPlan(config, cells, range(len(cells)))
    fields = field_set(fields=1)
    if kind == "bags":
        return BagPlan(config, bags.from_specimens(fields, range(9)))
    return {"fields": FieldPlan, "joint": JointPlan}[kind](config, fields, range(9))


def _in_step(stream: Stream, config: Config, step: int) -> dict[str, np.ndarray]:
    """What the step makes of a batch before it normalises it."""
    made = jax.jit(
        lambda batch, store: intensity.on_device(
            ops.crops(batch, store, size=config.data.crop_size, stretch=1 / config.augment.scale_min)
        )
    )
    return {name: np.asarray(value) for name, value in made(stream.batch(step), stream.store).items()}


def _noisy(count: int = 3, side: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side)).astype(np.uint8)


@pytest.mark.parametrize("most", [0.3, 1.0, 3.0, 8.0])
def test_both_executors_blur_alike(most: float):
    images, drawn = _noisy(), Blur().draw(np.random.default_rng(1), 3, most)
    on_host = np.stack([Blur().on_host(image, row) for image, row in zip(images, drawn, strict=True)])
    on_device = np.asarray(jax.jit(Blur().on_device)(images.astype(np.float32), drawn))
    assert on_host.dtype == np.uint8
    np.testing.assert_allclose(on_device, on_host, atol=0.502)  # half a grey level, which the host rounds away


def test_a_blur_is_that_of_opencv():
    class Strongest(np.random.Generator):
        @override
        def random(self, size):
            return np.ones(size)

    drawn = Blur().draw(Strongest(np.random.PCG64(0)), 1, 2.0)
    image = _noisy()[0]
    expected = cv2.GaussianBlur(image.astype(np.float32), (13, 13), 2.0, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(Blur().on_host(image, drawn[0]), expected, atol=0.51)


def test_blurs_reach_from_none_to_the_largest():
    drawn = Blur().draw(np.random.default_rng(0), 500, 1.5)
    taps = np.arange(drawn.shape[1]) - drawn.shape[1] // 2
    deviations = np.sqrt(drawn @ taps**2)
    np.testing.assert_allclose(drawn.sum(1), 1, rtol=1e-6)
    assert deviations.min() < 0.1
    assert 1.4 < deviations.max() <= 1.5


def test_both_executors_add_noise_of_the_drawn_deviation():
    images = np.full((4, 200, 200), 120, np.uint8)
    drawn = Noise().draw(np.random.default_rng(2), 4, 10.0)
    assert ((drawn[:, 0] >= 0) & (drawn[:, 0] < 10)).all()
    on_host = np.stack([Noise().on_host(image, row) for image, row in zip(images, drawn, strict=True)])
    on_device = np.asarray(jax.jit(Noise().on_device)(images.astype(np.float32), drawn))
    for values, rounding in ((on_host, 1 / 12), (on_device, 0)):
        errors = values.astype(float) - 120
        np.testing.assert_allclose(errors.mean((1, 2)), 0, atol=0.15)
        np.testing.assert_allclose(errors.std((1, 2)), np.sqrt(drawn[:, 0] ** 2 + rounding), rtol=0.02)
        neighbours = (errors[:, :, 1:] * errors[:, :, :-1]).mean((1, 2)) / errors.var((1, 2))
        np.testing.assert_allclose(neighbours, 0, atol=0.02)


def test_the_noise_of_a_crop_does_not_depend_on_its_neighbours():
    images, drawn = np.full((4, 16, 16), 120, np.float32), Noise().draw(np.random.default_rng(0), 4, 10.0)
    on_device = jax.jit(Noise().on_device)
    whole = on_device(images, drawn)
    np.testing.assert_array_equal(on_device(images[2:3], drawn[2:3])[0], whole[2])
    assert not np.array_equal(whole[0] - 120, whole[1] - 120)


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("kind", KINDS)
def test_processes_share_one_global_batch_with_operations_on(kind: str, where: str):
    plan = _plan(kind, _config(where=where))
    whole = Stream(plan).batch(4)
    parts = [Stream(plan, rows=rows).batch(4) for rows in (np.array([0, 2, 3]), np.array([1, 4, 5]))]
    order = np.argsort([0, 2, 3, 1, 4, 5])
    for name, values in whole.items():
        together = np.concatenate([part[name].reshape(3, -1, *values.shape[1:]) for part in parts])[order]
        np.testing.assert_array_equal(together.reshape(values.shape), values)


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_operation_changes_the_image_alone(kind: str, where: str):
    off, on = (Stream(_plan(kind, _config(augment, where))).batch(2) for augment in (AugmentConfig(), ON))
    changed = {name for name in on if name not in off or not np.array_equal(on[name], off[name])}
    assert changed == ({"image"} if where == "host" else {"blur", "noise"})
    assert off.keys() <= on.keys()


def test_one_operation_leaves_the_draws_of_the_other():
    both = intensity.draw(ON, seed=3, step=7, count=5)
    alone = intensity.draw(AugmentConfig(noise=6.0), seed=3, step=7, count=5)
    assert list(both) == ["blur", "noise"]
    assert list(alone) == ["noise"]
    np.testing.assert_array_equal(both["noise"], alone["noise"])
    other = intensity.draw(ON, seed=3, step=8, count=5)
    assert not np.array_equal(both["blur"], other["blur"])
    assert intensity.draw(AugmentConfig(), seed=3, step=7, count=5) == {}


@pytest.mark.parametrize("kind", ["fields", "cells"])
def test_a_batch_cut_on_the_device_is_blurred_as_one_cut_on_the_host(kind: str):
    augment = AugmentConfig(blur=2.0, rotate=False, scale_min=1, scale_max=1)
    host, device = _config(augment), _config(augment, "device")
    expected, made = Stream(_plan(kind, host)).batch(1), _in_step(Stream(_plan(kind, device)), device, 1)
    assert made.keys() == expected.keys()
    difference = np.abs(made["image"] - expected["image"])
    assert difference.mean() < 0.6
    assert difference.max() < 3.5  # as without blur: OpenCV rounds places to 1/32 pixel


class Negative(Operation):
    """An operation as somebody might add it; it takes the place of the key `noise`."""

    name = "noise"

    @override
    def draw(self, rng: np.random.Generator, count: int, most: float) -> np.ndarray:
        return (rng.random((count, 1)) < most).astype(np.float32)

    @override
    def on_host(self, image: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        return 255 - image if drawn[0] else image

    @override
    def on_device(self, images: jax.Array, drawn: jax.Array) -> jax.Array:
        return jnp.where(drawn[:, :1, None] > 0, 255 - images, images)


def test_one_class_adds_an_operation_to_both_executors(monkeypatch):
    monkeypatch.setattr(intensity, "INTENSITY", (Negative(),))
    augment = AugmentConfig(noise=0.5, rotate=False, scale_min=1, scale_max=1)
    host, device = _config(augment), _config(augment, "device")
    expected = Stream(_plan("fields", host)).batch(1)["image"]
    plain = Stream(_plan("fields", _config(dataclasses.replace(augment, noise=0.0)))).batch(1)["image"]
    turned = [np.array_equal(image, 255 - was) for image, was in zip(expected, plain, strict=True)]
    assert 0 < sum(turned) < len(turned)
    made = _in_step(Stream(_plan("fields", device)), device, 1)["image"]
    assert np.abs(made - expected).mean() < 0.6


def test_the_depth_of_frames_is_not_augmented():
    augment = AugmentConfig(blur=1.0, noise=5.0)
    frames, drawn = np.stack([_noisy(), _noisy(3)[::-1]], axis=-1), intensity.draw(augment, 0, 0, 3)
    on_host = intensity.on_host(frames, drawn)
    on_device = np.asarray(intensity.on_device({"image": frames, **drawn})["image"])
    for changed in (on_host, on_device):
        np.testing.assert_array_equal(changed[..., 1], frames[..., 1])
        assert (changed[..., 0] != frames[..., 0]).mean() > 0.5
    np.testing.assert_array_equal(on_host[..., 0], intensity.on_host(frames[..., 0], drawn))
