"""Intensity operations on crops, with their two executors side by side, and the jitter of the tone curve.

An operation changes the grey levels of a crop before they are normalised, as optics and sensor do. It is one class in
`INTENSITY` and one key of `AugmentConfig` with the same name. It runs on the host with crops that are cut there, and
inside the step, on the device, with crops that are cut there (`data.warp`).

The tone curve is the map from grey levels to the network's input (see `steps.normalise`). Only its four numbers are
drawn here; the step applies it in either case.
"""

import abc
import zlib
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8
from typing_extensions import override

from hep2jax.config import AugmentConfig

Draws = dict[str, np.ndarray]
"""What was drawn for each crop, float32 [crop, n], by the name of the operation; without those that are off."""

_BRIGHTEST = 255
_NUM_SEEDS = 2**24  # whole numbers that float32 holds exactly


class Operation(abc.ABC):
    """An operation on the grey levels of crops.

    Attributes:
        name: of the operation, of its key in `AugmentConfig`, whose value 0 switches it off, and in batches.
    """

    name: str

    @abc.abstractmethod
    def draw(self, rng: np.random.Generator, count: int, most: float) -> Float32[np.ndarray, "crop n"]:
        """What both executors need to know of each of `count` crops; `most` is the value of the key."""

    @abc.abstractmethod
    def on_host(
        self, image: UInt8[np.ndarray, "side side"], drawn: Float32[np.ndarray, " n"]
    ) -> UInt8[np.ndarray, "side side"]:
        """One crop, with its row of what was drawn."""

    @abc.abstractmethod
    def on_device(
        self, images: Float32[Array, "crop side side"], drawn: Float32[Array, "crop n"]
    ) -> Float32[Array, "crop side side"]:
        """All crops of a batch in grey levels; traced by the step."""


class Blur(Operation):
    """Gaussian blur. Its standard deviation is uniform between 0 and `augment.blur` pixels of the crop.

    What is drawn is the filter itself, up to three of the largest standard deviations to either side, so that both
    executors weigh alike. Beyond the border lies the mirror image.
    """

    name = "blur"

    @override
    def draw(self, rng: np.random.Generator, count: int, most: float) -> Float32[np.ndarray, "crop tap"]:
        reach = int(np.ceil(3 * most))
        sigma = np.maximum(most * rng.random((count, 1)), 1e-3)  # 0 would divide 0 by 0
        weights = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / sigma))
        return (weights / weights.sum(1, keepdims=True)).astype(np.float32)

    @override
    def on_host(self, image: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        blurred = cv2.sepFilter2D(image, cv2.CV_32F, drawn, drawn, borderType=cv2.BORDER_REFLECT_101)
        return _to_grey_levels(blurred)

    @override
    def on_device(self, images: Array, drawn: Array) -> Array:
        reach = drawn.shape[1] // 2
        for axis in (1, 2):
            side = images.shape[axis]
            padding = [(reach, reach) if other == axis else (0, 0) for other in range(3)]
            padded = jnp.pad(images, padding, mode="reflect")
            shifted = (jax.lax.slice_in_dim(padded, tap, tap + side, axis=axis) for tap in range(2 * reach + 1))
            images = sum(
                (weight[:, None, None] * moved for weight, moved in zip(drawn.T, shifted, strict=True)),
                jnp.zeros_like(images),
            )
        return images


class Noise(Operation):
    """Sensor noise, Gaussian and independent in every pixel.

    Its standard deviation is uniform between 0 and `augment.noise` of the 255 grey levels of the picture: the sensor
    adds it before anything is normalised. What is drawn is the standard deviation and a seed; the executors' random
    numbers have the same distribution and are not the same.
    """

    name = "noise"

    @override
    def draw(self, rng: np.random.Generator, count: int, most: float) -> Float32[np.ndarray, "crop 2"]:
        return np.stack([most * rng.random(count), rng.integers(_NUM_SEEDS, size=count)], axis=1).astype(np.float32)

    @override
    def on_host(self, image: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        added = np.random.default_rng(int(drawn[1])).standard_normal(image.shape, np.float32)
        return _to_grey_levels(image + drawn[0] * added)

    @override
    def on_device(self, images: Array, drawn: Array) -> Array:
        # A key of its own for each crop: the noise does not depend on which device holds the crop.
        keys = jax.vmap(jax.random.key)(drawn[:, 1].astype(jnp.uint32))
        added = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
        return jnp.clip(images + drawn[:, :1, None] * added, 0, _BRIGHTEST)


INTENSITY: tuple[Operation, ...] = (Blur(), Noise())
"""The operations, in the order in which they are executed: the optics first, then the sensor."""


def draw(augment: AugmentConfig, seed: int, step: int, count: int) -> Draws:
    """What is drawn for the `count` crops of the global batch of a step.

    Each operation has a generator of its own, so that switching one on or adding one leaves all other draws as they
    were.
    """
    drawn = {}
    for operation in INTENSITY:
        most = getattr(augment, operation.name)
        if most:
            rng = np.random.default_rng((seed, step, zlib.crc32(operation.name.encode())))
            drawn[operation.name] = operation.draw(rng, count, most)
    return drawn


def on_host(images: UInt8[np.ndarray, "crop side side"], drawn: Draws) -> UInt8[np.ndarray, "crop side side"]:
    """Execute what was drawn for each crop."""
    for operation in INTENSITY:
        if operation.name in drawn:
            rows = zip(images, drawn[operation.name], strict=True)
            images = np.stack([operation.on_host(image, row) for image, row in rows])
    return images


def on_device(batch: dict[str, Any]) -> dict[str, Any]:
    """Execute what a batch says was drawn on its `image` [crop, side, side]; the result holds no draws."""
    batch = dict(batch)
    for operation in INTENSITY:
        if operation.name in batch:
            drawn = batch.pop(operation.name)
            batch["image"] = operation.on_device(batch["image"].astype(jnp.float32), drawn)
    return batch


def jitter_tone_curve(
    draws: Float[np.ndarray, "3 ..."], curves: Float[np.ndarray, "... 4"], augment: AugmentConfig
) -> Float32[np.ndarray, "... 4"]:
    """Tone curves (offset, gain, exponent, shift) with random gain, exponent and shift.

    Args:
        draws: uniform in [-1, 1], for the gain, the exponent and the shift.
        curves: without jitter, see `steps.normalise`.
        augment: the half-widths `gain`, `gamma` and `offset`.
    """
    gain, gamma, shift = draws
    jittered = curves.astype(np.float32)
    jittered[..., 1] = curves[..., 1] * np.exp(augment.gain * gain)
    jittered[..., 2] = curves[..., 2] * np.exp(augment.gamma * gamma)
    jittered[..., 3] = curves[..., 3] + augment.offset * shift
    return jittered


def _to_grey_levels(values: Float[np.ndarray, "side side"]) -> UInt8[np.ndarray, "side side"]:
    return np.clip(np.rint(values), 0, _BRIGHTEST).astype(np.uint8)
