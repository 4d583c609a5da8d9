"""Convolutions: `conv2d`, `depthwise_conv2d`, and `doubled_conv2d` for images whose pixels are repeated."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from hep2jax.ops import blocks, lanes, plain
from hep2jax.ops.lanes import AnyImage, Columns
from hep2jax.ops.targets import current
from hep2jax.ops.upsampling import depth_to_space


def conv2d(x: AnyImage, kernel: Float[Array, "i j c k"], *, stride: int = 1, padding: str = "SAME") -> AnyImage:
    """Convolution of an image, which is cast to the kernel's dtype; `padding` is SAME or VALID.

    On CPU the formulation is `blocks` if the result has few channels. For images with their columns side by side, which
    `stage` makes on TPU, it is that of `lanes`. Otherwise it is XLA's.
    """
    if isinstance(x, Columns):
        return lanes.conv2d(x, kernel, stride=stride, padding=padding)
    x = x.astype(kernel.dtype)
    if current().platform == "cpu" and blocks.suit(kernel):
        return blocks.conv2d(x, kernel, stride, padding)
    return plain.conv2d(x, kernel, (stride, stride), padding)


def depthwise_conv2d(
    x: Float[Array, "b h w c"], kernel: Float[Array, "i j 1 c"], strides: tuple[int, int], *_: Any, **__: Any
) -> Float[Array, "b h2 w2 c"]:
    """SAME convolution of each channel with its own kernel; the signature is what `nnx.Conv` expects.

    On CPU it is a sum of shifted images times kernel entries, because XLA's grouped convolution is slow there: the 16
    depthwise convolutions of EfficientNet-Lite0, for 32 images of 96 pixels on one (busy) core, took 2,470 ms of a
    total of 2,860 ms; as sums they take 110 ms.
    """
    if current().platform == "cpu":
        return _shifted_depthwise(x, kernel, strides)
    return plain.conv2d(x, kernel, strides, groups=x.shape[-1])


def _shifted_depthwise(x: Array, kernel: Array, strides: tuple[int, int]) -> Array:
    down, right = strides
    pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, "SAME")
    height, width = (-(-side // step) for side, step in zip(x.shape[1:3], strides, strict=True))
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    taps = [
        padded[:, row : row + (height - 1) * down + 1 : down, column : column + (width - 1) * right + 1 : right]
        * kernel[row, column, 0]
        for row, column in np.ndindex(*kernel.shape[:2])
    ]
    return functools.reduce(jnp.add, taps)


def doubled_conv2d(
    x: Float[Array, "b h w c"], kernel: Float[Array, "i j c k"], *_: Any, **__: Any
) -> Float[Array, "b h2 w2 k"]:
    """SAME 3x3 or 5x5 convolution of the image with every pixel repeated 2x2; the signature is what `nnx.Conv` expects.

    The large image is never computed. Each of the four positions in a 2x2 block sees 3x3 pixels of the small image, so
    a 3x3 convolution to four times the channels and depth to space give the same numbers. In `dacn` at width 0.5 the
    last 5x5 convolution, to one channel, took more than half of a step of 1,100 ms when it ran on repeated pixels.
    """
    spread = _spread(kernel.shape[0])
    small = jnp.einsum("atu,bsv,uvck->tscabk", spread, spread, kernel.astype(jnp.float32))
    small = small.reshape(3, 3, x.shape[-1], -1).astype(x.dtype)
    return depth_to_space(plain.conv2d(x, small), 2)


def _spread(side: int) -> np.ndarray:
    """[position in the pair, tap on small pixels, tap on repeated pixels]: 1 where the taps see the same pixel."""
    position, tap = np.mgrid[:2, :side]
    seen = (position + tap - side // 2) // 2 + 1
    return (seen[:, None] == np.arange(3)[None, :, None]).astype(np.float32)
