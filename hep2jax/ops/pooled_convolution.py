"""VALID convolution followed by a max pool; from one channel to few channels as one matrix product."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from hep2jax.ops import blocks, plain
from hep2jax.ops.pooling import max_pool
from hep2jax.ops.targets import current

BLOCK = 8
"""Number of outputs in a row that `as_product` computes together."""


def conv_pool(x: Float[Array, "b h w c"], kernel: Float[Array, "i j c k"], pool: int) -> Float[Array, "b h2 w2 k"]:
    """VALID convolution and a max pool of `pool` x `pool` pixels.

    On CPU and TPU it is one matrix product if the image has one channel and the sizes are divisible (see `as_product`).
    Otherwise it is the convolution, on CPU in blocks of columns (see `blocks`), and then `max_pool`.
    """
    platform, (_, height, width, channels) = current().platform, x.shape
    if platform in ("cpu", "tpu") and channels == 1 and divides(height, width, kernel.shape[0], pool):
        return as_product(x, kernel, pool)
    if platform == "cpu":
        return max_pool(blocks.conv2d(x, kernel, 1, "VALID"), pool)
    return max_pool(plain.conv2d(x, kernel, padding="VALID"), pool)


def divides(height: int, width: int, kernel_size: int, pool: int) -> bool:
    """Whether `as_product` takes images of this size."""
    return (height - kernel_size + 1) % pool == 0 and (width - kernel_size + 1) % BLOCK == 0 and BLOCK % pool == 0


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def as_product(image: Float[Array, "b h w 1"], kernel: Float[Array, "i j 1 k"], pool: int) -> Float[Array, "b h2 w2 k"]:
    """VALID convolution and a max pool of `pool` x `pool`, as one matrix product; equal maxima share the gradient.

    The rows of the left matrix are windows: the pixels that `pool` x `BLOCK` outputs see. The right matrix repeats the
    kernel at each position of these outputs, ordered by their position in the pooled pixel. So the pool is a maximum of
    contiguous slices, and its gradient enters the kernel's gradient without being reordered. This is twice the
    arithmetic of the convolution, in a shape (112 x 96 for `gao` instead of 49 x 6) that the processor multiplies at
    full speed.

    Alternatives for `gao`'s first layer, with 64 cells of 78 x 78, forward and kernel's gradient, processor time of one
    busy core: 31 ms as windows of one row with a pool after them, 34 ms as here with JAX's gradients. The whole network
    takes 51 ms as here, and 135 ms by XLA alone. In earlier rounds with two busy cores: all by XLA 145 ms; elementwise
    pools 109; channels padded to 8 95; shifted images 297; patches 131; windows of one row 41.

    On TPUs (libtpu 0.0.52, 128 cells on a v5e) the compiler did not finish the gradient of such a kernel as a
    convolution within four minutes. It compiles this in 23 s, and estimates 0.2 ms for the layer.

    `divides` tells which sizes are allowed.
    """
    return _forward(image, kernel, pool)[0]


def _forward(image: Array, kernel: Array, pool: int) -> tuple[Array, tuple[Array, ...]]:
    windows, matrix = _windows(image[..., 0], kernel, pool), _matrix(kernel, pool)
    product = jnp.dot(windows, matrix, preferred_element_type=jnp.float32)
    batch, height = image.shape[0], (image.shape[1] - kernel.shape[0] + 1) // pool
    top = functools.reduce(jnp.maximum, jnp.split(product, pool**2, axis=1))
    pooled = top.reshape(batch, height, -1, kernel.shape[-1]).astype(image.dtype)
    return pooled, (image, kernel, windows, product)


def _backward(pool: int, residuals: tuple[Array, ...], cotangent: Array) -> tuple[Array, Array]:
    image, kernel, windows, product = residuals
    parts = jnp.split(product, pool**2, axis=1)
    top = functools.reduce(jnp.maximum, parts)
    winners = [part == top for part in parts]
    share = cotangent.reshape(top.shape).astype(jnp.float32) / sum(won.astype(jnp.float32) for won in winners)
    spread = jnp.concatenate([jnp.where(won, share, 0) for won in winners], axis=1)
    gradient = lax.dot_general(windows.astype(jnp.float32), spread, (((0,), (0,)), ((), ())))
    (kernel_gradient,) = jax.vjp(lambda kernel: _matrix(kernel, pool), kernel.astype(jnp.float32))[1](gradient)
    # In training nobody uses the gradient of a network's input; then XLA does not compute this.
    (image_gradient,) = jax.vjp(lambda image: _forward(image, kernel, pool)[0], image)[1](cotangent)
    return image_gradient, kernel_gradient.astype(kernel.dtype)


as_product.defvjp(_forward, _backward)


def _matrix(kernel: Float[Array, "i j 1 k"], pool: int) -> Float[Array, "window output"]:
    """The right matrix; outputs are ordered by (row and column in the pooled pixel, pooled pixel of block, channel)."""
    placed = [
        jnp.pad(kernel[:, :, 0], ((row, pool - 1 - row), (column + left, BLOCK - 1 - column - left), (0, 0)))
        for row in range(pool)
        for column in range(pool)
        for left in range(0, BLOCK, pool)
    ]
    return jnp.concatenate([part.reshape(-1, kernel.shape[-1]) for part in placed], axis=1)


def _windows(image: Float[Array, "b h w"], kernel: Array, pool: int) -> Float[Array, "place window"]:
    """The left matrix: for each block of `pool` x `BLOCK` outputs the pixels that they see, row by row."""
    rows, columns = kernel.shape[0] + pool - 1, kernel.shape[1] + BLOCK - 1
    batch, height, width = image.shape
    high, wide = (height - rows + pool) // pool, (width - columns + BLOCK) // BLOCK
    neighbours = -(-columns // BLOCK)
    cut = _padded(image, 2, (wide + neighbours - 1) * BLOCK).reshape(batch, height, -1, BLOCK)
    across = jnp.concatenate([cut[:, :, i : i + wide] for i in range(neighbours)], axis=-1)[..., :columns]
    cut = _padded(across, 1, -(-height // pool) * pool).reshape(batch, -1, pool, wide, columns)
    down = [cut[:, row // pool : row // pool + high, row % pool] for row in range(rows)]
    return jnp.concatenate(down, axis=-1).reshape(batch * high * wide, rows * columns)


def _padded(x: Array, axis: int, length: int) -> Array:
    """The first `length` entries along an axis, followed by zeros if there are fewer."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, max(0, length - x.shape[axis]))
    return lax.slice_in_dim(jnp.pad(x, widths), 0, length, axis=axis)
