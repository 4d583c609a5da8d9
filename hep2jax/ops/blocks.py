"""Convolutions to few channels, formulated for CPUs: a block of columns is computed as the channels of one pixel.

XLA turns convolutions into matrix products. On the CPU of the measurements a core reaches 90 GFLOP/s in a convolution
to 32 or more channels. With at most 16 channels in the input and in the result, XLA 0.10.2 uses another library, which
reaches 20 GFLOP/s with 8 channels. A block of n columns is one pixel with n times the channels, which sees n - 1 more
columns: a convolution with stride n, which reads the image and writes the result without rearranging either. It
multiplies by zero where a column is out of the kernel's reach (twice the arithmetic for 3x3 to 8 channels, n = 4; a
third more for 16 channels, n = 2).

Times in ms with XLA's convolution → with this one, for 3x3 and 16 images on one core:
* 128 x 128, 8 → 8 channels: forward 15.5 → 7.7, gradient of the image the same, gradient of the kernel 16 → 10.5;
* 64 x 64, 8 → 16 channels: 3.9 → 2.5, 6.2 → 3.1, 4.0 → 3.3; 16 → 16 channels: 6.0 → 4.4, the same, 7.5 → 5.8;
* 128 x 128, 1 → 8 channels: forward 13 → 1.1, gradient of the kernel 2.9 → 1.6;
* 7x7 with stride 2, 1 → 8 channels, 8 images of 192 x 192: 9.7 → 1.2, 3.5 → 1.5.

Slower alternatives, forward at 128 x 128, 8 → 8 channels: blocks that fill 16 channels 9.2, blocks that fill 64
channels 11.5; the columns of the image in blocks as well 9.5 to 13.9; the same after a copy with a border, so that no
third block is in reach, 8.4 to 9.7; blocks of 2x2 pixels 40; windows and one matrix product 59 to 129. For the gradient
of the kernel: matrix products of windows 49 to 72, of shifted images 86, convolutions image by image in a loop 375.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from hep2jax.ops import plain

MOST_CHANNELS = 16
"""Blocks are faster for results of up to this many channels; at 24 only the kernel's gradient is, at 32 nothing is."""
FILLED = 32
"""Number of channels that a block fills."""

Padding = tuple[tuple[int, int], tuple[int, int]]


def suit(kernel: Float[Array, "i j c k"]) -> bool:
    """Whether blocks are faster than XLA's convolution for this kernel."""
    return max(kernel.shape[:2]) > 1 and kernel.shape[3] <= MOST_CHANNELS


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d(
    image: Float[Array, "b h w c"], kernel: Float[Array, "i j c k"], stride: int = 1, padding: str = "SAME"
) -> Float[Array, "b h2 w2 k"]:
    """SAME or VALID convolution, for CPUs; `suit` tells for which kernels it is faster than XLA's."""
    return _few_or_xla(image, kernel, stride, _pads(image, kernel, stride, padding))


def _forward(image: Array, kernel: Array, stride: int, padding: str) -> tuple[Array, tuple[Array, Array]]:
    return conv2d(image, kernel, stride, padding), (image, kernel)


def _backward(stride: int, padding: str, residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    image, kernel = residuals
    pads = _pads(image, kernel, stride, padding)
    never = jnp.isinf(kernel[0, 0, 0, 0])
    image, cotangent = fence(image, never), fence(cotangent, never)
    convolve = functools.partial(_blocked, image, stride=stride, padding=pads)
    (kernel_gradient,) = jax.vjp(convolve, kernel)[1](cotangent)
    if stride > 1:
        by_xla = functools.partial(plain.conv2d, strides=(stride, stride), padding=padding)
        return jax.vjp(by_xla, image, kernel)[1](cotangent)[0], kernel_gradient
    rotated = kernel[::-1, ::-1].swapaxes(2, 3)
    (top, bottom), (left, right) = pads
    rows, columns = kernel.shape[0] - 1, kernel.shape[1] - 1
    pads = (rows - top, rows - bottom), (columns - left, columns - right)
    return _few_or_xla(cotangent, rotated, stride, pads), kernel_gradient


conv2d.defvjp(_forward, _backward)


def fence(x: Array, never: Bool[Array, ""]) -> Array:
    """`x`, computed only once: a loop without iterations, whose input XLA must hold in memory. For CPUs only.

    XLA's fusions recompute their inputs for each reader. `lax.optimization_barrier` does not prevent that on CPU, as it
    is already removed when fusions are formed. The kernel's gradient reads a transposed copy of both images; without
    the fence pool, norm and ReLU were computed again in the order of the copy: 18 ms for a copy that takes 2 ms (one
    core, 16 x 128 x 128 x 8).

    Args:
        x: floating or integer array.
        never: a condition that is false but that XLA cannot evaluate in advance. If it is true, the result is NaN
            (1 for integers).
    """
    filler = jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else 1

    def fill(state: tuple[Array, Array]) -> tuple[Array, Array]:
        return jnp.full_like(state[0], filler), jnp.zeros_like(state[1])

    return lax.while_loop(lambda state: state[1], fill, (x, never))[0]


def _pads(image: Array, kernel: Array, stride: int, padding: str) -> Padding:
    rows, columns = lax.padtype_to_pads(image.shape[1:3], kernel.shape[:2], (stride, stride), padding)
    return rows, columns


def _few_or_xla(image: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    # With more channels in the image or in the result XLA itself uses the fast library for the forward pass.
    if max(kernel.shape[2:]) <= MOST_CHANNELS:
        return _blocked(image, kernel, stride=stride, padding=padding)
    return plain.conv2d(image, kernel, (stride, stride), padding)


def _blocked(image: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    rows, width = kernel.shape[:2]
    columns = max(1, FILLED // kernel.shape[3])
    tap, read, written = np.indices((width, width + (columns - 1) * stride, columns))
    taps = jnp.asarray(written * stride + tap == read, kernel.dtype)
    wide = jnp.einsum("tro,itck->ircok", taps, kernel).reshape(rows, taps.shape[1], kernel.shape[2], -1)
    left, right = padding[1]
    count = (image.shape[2] + left + right - width) // stride + 1
    padding = padding[0], (left, right + -count % columns * stride)
    in_blocks = plain.conv2d(image, wide, (stride, stride * columns), padding)
    return in_blocks.reshape(*in_blocks.shape[:2], -1, kernel.shape[3])[:, :, :count]
