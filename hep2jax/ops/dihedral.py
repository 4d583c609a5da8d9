"""The eight rotations and mirror images of square images, and the mean of what a network says of them."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def dihedral_views(pixels: Float[Array, "batch side side channel"]) -> list[Array]:
    """The four rotations by quarter turns, then their mirror images."""
    rotated = [jnp.rot90(pixels, quarter, axes=(1, 2)) for quarter in range(4)]
    return rotated + [view[:, :, ::-1] for view in rotated]


def mean_of_views(views: list[Array]) -> Float[Array, "batch ..."]:
    """The mean of what is said of the eight views; maps [batch, side, side, channel] are first turned back."""
    if views[0].ndim != 4:
        return sum(views[1:], views[0]) / len(views)
    upright = views[:4] + [view[:, :, ::-1] for view in views[4:]]
    return sum((jnp.rot90(view, -(i % 4), axes=(1, 2)) for i, view in enumerate(upright)), jnp.zeros(())) / len(views)
