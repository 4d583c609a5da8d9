"""Local descriptors of texture at a grid of points, and how they change when the image is turned or mirrored.

The grid is symmetric about the image's centre, and so are the samples about each point. Turning the image by 90 degrees
therefore moves a descriptor to another point and permutes its components, nothing else.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

STEP = 3
"""Distance of neighbouring points, in pixels."""
MARGIN = 7
"""Least distance of a point to the border, in pixels."""

SIFT_BINS, SIFT_SPACING, SIFT_ORIENTATIONS = 4, 4, 8
RING_RADII, RING_BLURS, RING_ANGLES = (1.0, 2.0, 4.0, 7.0), (0.5, 1.0, 1.8, 2.8), 8
_RING_FLOOR = 0.3


def grid(side: int) -> Int[np.ndarray, " point"]:
    """Coordinates of the points along one axis: symmetric, `STEP` apart, at least `MARGIN` from the border."""
    count = (side - 1 - 2 * MARGIN) // STEP + 1
    while (side - 1 - STEP * (count - 1)) % 2:
        count -= 1
    if count < 1:
        raise ValueError(f"side {side}: no room for a point {MARGIN} pixels from every border")
    return (side - 1 - STEP * (count - 1)) // 2 + STEP * np.arange(count)


def blur_matrix(side: int, sigma: float) -> Float[np.ndarray, "side side"]:
    """A Gaussian blur of one axis as a matrix; the image is mirrored at its border."""
    reach = max(1, int(np.ceil(4 * sigma)))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((side, side))
    for offset, weight in zip(range(-reach, reach + 1), weights, strict=True):
        sources = (np.arange(side) + offset) % (2 * side)
        np.add.at(matrix, (np.arange(side), np.minimum(sources, 2 * side - 1 - sources)), weight)
    return matrix


def _samples(positions: np.ndarray, side: int) -> Float[np.ndarray, "position side"]:
    """Linear interpolation at positions along one axis as a matrix."""
    below = np.clip(np.floor(positions).astype(int), 0, side - 2)
    share = positions - below
    matrix = np.zeros((len(positions), side))
    matrix[np.arange(len(positions)), below] = 1 - share
    matrix[np.arange(len(positions)), below + 1] += share
    return matrix


def _sift_offsets() -> np.ndarray:
    return SIFT_SPACING * (np.arange(SIFT_BINS) - (SIFT_BINS - 1) / 2)


def sift(image: Float32[Array, "side side"]) -> Float32[Array, "point component"]:
    """Dense rootSIFT with bins of 4 pixels: local histograms of the directions in which the image becomes brighter.

    Lowe, IJCV 60 (2004); Arandjelovic and Zisserman, CVPR 2012. The image is blurred by 1 pixel; each gradient is
    shared between the two nearest of eight directions; 4 x 4 bins, 4 pixels apart, collect what a Gaussian of 2 pixels
    about them holds. Then unit length, clipped at 0.2, unit sum, square root.

    Returns:
        The descriptors of the points, row by row; components are ordered by bin (row, column) and direction.
    """
    side = image.shape[-1]
    points = grid(side)
    smooth = jnp.asarray(blur_matrix(side, 1.0), jnp.float32)
    rows = (points[:, None] + _sift_offsets()).ravel()
    pool = jnp.asarray(blur_matrix(side, 2.0)[rows.astype(int)], jnp.float32)
    blurred = smooth @ image @ smooth.T
    padded = jnp.pad(blurred, 1, mode="edge")
    down, right = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2, (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
    length = jnp.sqrt(down**2 + right**2)
    turn = jnp.arctan2(down, right) * (SIFT_ORIENTATIONS / (2 * jnp.pi))
    distance = jnp.abs((turn[None] - jnp.arange(SIFT_ORIENTATIONS)[:, None, None] + 4) % SIFT_ORIENTATIONS - 4)
    shares = jnp.maximum(0.0, 1.0 - distance) * length
    pooled = jnp.einsum("iy,oyx,jx->ijo", pool, shares, pool)
    shape = (len(points), SIFT_BINS, len(points), SIFT_BINS, SIFT_ORIENTATIONS)
    vectors = pooled.reshape(shape).transpose(0, 2, 1, 3, 4).reshape(len(points) ** 2, -1)
    clipped = jnp.minimum(vectors / (jnp.linalg.norm(vectors, axis=1, keepdims=True) + 1e-6), 0.2)
    return jnp.sqrt(clipped / (clipped.sum(axis=1, keepdims=True) + 1e-6))


def rings(image: Float32[Array, "side side"]) -> Float32[Array, "point component"]:
    """Ring patterns: eight samples on each of four rings less the centre, with more blur on wider rings.

    The vector is divided by its length plus 0.3, so that flat places stay near 0.

    Returns:
        The descriptors of the points, row by row; components are ordered by ring and angle.
    """
    side = image.shape[-1]
    points = grid(side)
    blurs = {sigma: blur_matrix(side, sigma) for sigma in RING_BLURS}
    down, right = [], []
    for (y, x), sigma in zip(_ring_offsets(), np.repeat(RING_BLURS, RING_ANGLES), strict=True):
        down.append(_samples(points + y, side) @ blurs[sigma])
        right.append(_samples(points + x, side) @ blurs[sigma])
    sampled = jnp.einsum(
        "ciy,yx,cjx->ijc", jnp.asarray(np.stack(down), jnp.float32), image, jnp.asarray(np.stack(right), jnp.float32)
    )
    centre = jnp.asarray(blurs[RING_BLURS[0]][points], jnp.float32)
    vectors = (sampled - (centre @ image @ centre.T)[..., None]).reshape(len(points) ** 2, -1)
    return vectors / (jnp.linalg.norm(vectors, axis=1, keepdims=True) + _RING_FLOOR)


def _ring_offsets() -> Float[np.ndarray, "component 2"]:
    angles = 2 * np.pi * np.arange(RING_ANGLES) / RING_ANGLES
    circle = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    return np.concatenate([radius * circle for radius in RING_RADII])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Descriptor:
    """A descriptor and its symmetries."""

    name: str
    channel: str
    """The channel that it describes, a function of `channels`."""
    layout: Float[np.ndarray, "component 4"]
    """What each component looks at: offset from the point (y, x) and a direction (y, x), zero if it has none."""

    def __call__(self, image: Float32[Array, "side side"]) -> Float32[Array, "point component"]:
        """The descriptors of an image at the points of `grid`, row by row."""
        return {"sift": sift, "rings": rings}[self.name](image)

    @functools.cached_property
    def symmetries(self) -> Int[np.ndarray, "8 component"]:
        """For each of the eight turned and mirrored copies of an image, the component that takes each place."""
        return symmetries(self.layout)


def symmetries(layout: Float[np.ndarray, "component 4"]) -> Int[np.ndarray, "8 component"]:
    """The permutation of the components in the copies of an image: the identity, three quarter turns, their mirrors."""
    known = {tuple(np.round(row, 4) + 0.0): place for place, row in enumerate(layout)}
    tables = []
    for matrix in dihedral_matrices():
        seen = np.concatenate([layout[:, :2] @ matrix, layout[:, 2:] @ matrix], axis=1)
        tables.append([known[tuple(np.round(row, 4) + 0.0)] for row in seen])
    return np.array(tables)


def dihedral_matrices() -> list[np.ndarray]:
    """The matrices (y, x) of the eight symmetries of a square."""
    turn, mirror = np.array([[0.0, 1.0], [-1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, -1.0]])
    turns = [np.linalg.matrix_power(turn, quarter) for quarter in range(4)]
    return turns + [matrix @ mirror for matrix in turns]


def _sift_layout() -> np.ndarray:
    angles = 2 * np.pi * np.arange(SIFT_ORIENTATIONS) / SIFT_ORIENTATIONS
    offsets = _sift_offsets()
    return np.array([(y, x, np.sin(a), np.cos(a)) for y in offsets for x in offsets for a in angles])


def _ring_layout() -> np.ndarray:
    return np.concatenate([_ring_offsets(), np.zeros((len(RING_RADII) * RING_ANGLES, 2))], axis=1)


DESCRIPTORS: Sequence[Descriptor] = (
    Descriptor(name="sift", channel="net", layout=_sift_layout()),
    Descriptor(name="rings", channel="mad", layout=_ring_layout()),
)
