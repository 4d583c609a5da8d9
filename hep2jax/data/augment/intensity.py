"""Intensity operations on crops, each for the host and for the device, and the jitter of the tone curve.

An operation changes the grey levels of a crop before they are normalised, as optics and sensor do. It is one class in
`INTENSITY` and one key of `AugmentConfig` with the same name. It runs where the crops are cut: on the host, or on the
device inside the training step (`data.warp`).

The tone curve is the map from grey levels to the input of the network (see `steps.normalise`). Only its four numbers
are drawn here; the training step applies it in both cases.
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
"""Random numbers for each crop, float32 [crop, n], by the name of the operation; operations that are off are absent."""

_BRIGHTEST = 255
_NUM_SEEDS = 2**24  # float32, in which seeds are passed on, represents all integers up to this exactly


class Operation(abc.ABC):
    """An operation on the grey levels of crops.

    Attributes:
        name: name of the operation, also in batches, and of its key in `AugmentConfig`; the value 0 switches it off.
    """

    name: str

    @abc.abstractmethod
    def draw(self, rng: np.random.Generator, count: int, maximum: float) -> Float32[np.ndarray, "crop n"]:
        """Draw the random numbers for `count` crops; `maximum` is the value of the key."""

    @abc.abstractmethod
    def on_host(
        self, image: UInt8[np.ndarray, "side side"], drawn: Float32[np.ndarray, " n"]
    ) -> UInt8[np.ndarray, "side side"]:
        """Apply the operation to one crop, with its row of the random numbers."""

    @abc.abstractmethod
    def on_device(
        self, images: Float32[Array, "crop side side"], drawn: Float32[Array, "crop n"]
    ) -> Float32[Array, "crop side side"]:
        """Apply the operation to the grey levels of all crops of a batch; this is traced as part of the step."""


class Blur(Operation):
    """Gaussian blur. Its standard deviation is uniform between 0 and `augment.blur` pixels of the crop.

    The filter weights themselves are passed on, up to three times the largest standard deviation on each side, so that
    host and device use the same weights. Beyond its border, the crop is mirrored.
    """

    name = "blur"

    @override
    def draw(self, rng: np.random.Generator, count: int, maximum: float) -> Float32[np.ndarray, "crop tap"]:
        reach = int(np.ceil(3 * maximum))
        sigma = np.maximum(maximum * rng.random((count, 1)), 1e-3)  # 0 would divide 0 by 0
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

    Its standard deviation is uniform between 0 and `augment.noise` of the 255 grey levels of the picture, because the
    sensor adds noise before normalisation. The standard deviation and a seed are passed on; the noise on the host and
    on the device has the same distribution, but not the same values.
    """

    name = "noise"

    @override
    def draw(self, rng: np.random.Generator, count: int, maximum: float) -> Float32[np.ndarray, "crop 2"]:
        return np.stack([maximum * rng.random(count), rng.integers(_NUM_SEEDS, size=count)], axis=1).astype(np.float32)

    @override
    def on_host(self, image: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(int(drawn[1])).standard_normal(image.shape, np.float32)
        return _to_grey_levels(image + drawn[0] * noise)

    @override
    def on_device(self, images: Array, drawn: Array) -> Array:
        # Each crop has its own key, so that its noise does not depend on which device holds it.
        keys = jax.vmap(jax.random.key)(drawn[:, 1].astype(jnp.uint32))
        noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
        return jnp.clip(images + drawn[:, :1, None] * noise, 0, _BRIGHTEST)


INTENSITY: tuple[Operation, ...] = (Blur(), Noise())
"""The operations, in the order in which they are applied: first the optics, then the sensor."""


def draw(augment: AugmentConfig, seed: int, step: int, count: int) -> Draws:
    """Draw the random numbers for the `count` crops of the global batch of a step.

    Each operation has its own generator, so that switching one on or adding one does not change the random numbers of
    the others.
    """
    drawn = {}
    for operation in INTENSITY:
        maximum = getattr(augment, operation.name)
        if maximum:
            rng = np.random.default_rng((seed, step, zlib.crc32(operation.name.encode())))
            drawn[operation.name] = operation.draw(rng, count, maximum)
    return drawn


def on_host(
    images: UInt8[np.ndarray, "crop side side *depth"], drawn: Draws
) -> UInt8[np.ndarray, "crop side side *depth"]:
    """Apply the operations that are on to all crops, on the host; the depth of frames stays as it is."""
    if images.ndim == 4 and drawn:
        return np.stack([on_host(images[..., 0], drawn), images[..., 1]], axis=-1)
    for operation in INTENSITY:
        if operation.name in drawn:
            rows = zip(images, drawn[operation.name], strict=True)
            images = np.stack([operation.on_host(image, row) for image, row in rows])
    return images


def on_device(batch: dict[str, Any]) -> dict[str, Any]:
    """Apply the operations that are on to `image` [crop, side, side] of a batch, on the device.

    The depth of frames, [crop, side, side, 2], stays as it is. The returned batch does not hold the random numbers any
    more.
    """
    batch = dict(batch)
    operations = [(operation, batch.pop(operation.name)) for operation in INTENSITY if operation.name in batch]
    if not operations:
        return batch
    image = batch["image"].astype(jnp.float32)
    framed = image.ndim == 4
    grey = image[..., 0] if framed else image
    for operation, drawn in operations:
        grey = operation.on_device(grey, drawn)
    batch["image"] = jnp.stack([grey, image[..., 1]], axis=-1) if framed else grey
    return batch


def jitter_tone_curve(
    draws: Float[np.ndarray, "3 ..."], curves: Float[np.ndarray, "... 4"], augment: AugmentConfig
) -> Float32[np.ndarray, "... 4"]:
    """Tone curves (offset, gain, exponent, shift) with random gain, exponent and shift.

    Args:
        draws: random numbers, uniform in [-1, 1], for the gain, the exponent and the shift.
        curves: the tone curves without jitter, see `steps.normalise`.
        augment: holds the half-widths `gain`, `gamma` and `offset`.
    """
    # A frame has several curves; they get the same jitter.
    gain, gamma, shift = (values.reshape(values.shape + (1,) * (curves.ndim - values.ndim - 1)) for values in draws)
    jittered = curves.astype(np.float32)
    jittered[..., 1] = curves[..., 1] * np.exp(augment.gain * gain)
    jittered[..., 2] = curves[..., 2] * np.exp(augment.gamma * gamma)
    jittered[..., 3] = curves[..., 3] + augment.offset * shift
    return jittered


def _to_grey_levels(values: Float[np.ndarray, "side side"]) -> UInt8[np.ndarray, "side side"]:
    return np.clip(np.rint(values), 0, _BRIGHTEST).astype(np.uint8)
