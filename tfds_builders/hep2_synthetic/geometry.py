"""Shapes of nuclei and cell bodies as star-shaped outlines, and the pixel windows in which they are drawn."""

import dataclasses

import numpy as np
from scipy import ndimage

DIRECTIONS = 1024
"""Number of equally spaced directions in which an outline is tabulated (a power of two)."""

_ANGLES = (np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Outline:
    """A closed curve around a centre, given by its radius in each direction.

    Attributes:
      radii: float32 [DIRECTIONS], pixels; entry i belongs to the angle 2*pi*i/DIRECTIONS, measured from
        the x axis (right) towards the y axis (down).
    """

    radii: np.ndarray

    @property
    def area(self) -> float:
        """Enclosed area in square pixels."""
        return float(np.pi * np.mean(self.radii**2))

    @property
    def reach(self) -> float:
        """Largest radius in pixels."""
        return float(self.radii.max())

    def points(self, scale: float = 1.0, count: int = 128) -> np.ndarray:
        """Returns float32 [count, 2] vertices (x, y) relative to the centre, radii times `scale`."""
        step = DIRECTIONS // count
        angles, radii = _ANGLES[::step], self.radii[::step] * scale
        return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)

    def with_area(self, area: float) -> "Outline":
        """Returns the same shape scaled to `area` square pixels."""
        return Outline(self.radii * np.float32(np.sqrt(area / self.area)))


def ellipse(axis_ratio: float, angle: float) -> np.ndarray:
    """Returns the radii [DIRECTIONS] of an ellipse of area pi with minor/major `axis_ratio`, major axis at `angle`."""
    major = axis_ratio**-0.5
    minor = axis_ratio * major
    turned = _ANGLES - np.float32(angle)
    return major * minor / np.sqrt((minor * np.cos(turned)) ** 2 + (major * np.sin(turned)) ** 2)


def nucleus_outline(
    rng: np.random.Generator, diameter: float, axis_ratio: float, angle: float, roughness: float = 0.03
) -> Outline:
    """Draws a nucleus: an ellipse with random harmonics 2 to 6 of its radius.

    Args:
      rng: source of randomness.
      diameter: equivalent diameter, 2*sqrt(area/pi), in pixels.
      axis_ratio: minor / major axis of the ellipse, in (0, 1].
      angle: direction of the major axis in radians.
      roughness: relative amplitude of the second harmonic; the k-th has 2/k of it.
    """
    radii = ellipse(axis_ratio, angle)
    for order in range(2, 7):
        amplitude = rng.normal(0.0, roughness * 2 / order)
        radii = radii * (1 + amplitude * np.cos(order * _ANGLES + rng.uniform(0, 2 * np.pi)))
    return Outline(radii.astype(np.float32)).with_area(np.pi * diameter**2 / 4)


def body_outline(rng: np.random.Generator, nucleus: Outline, angle: float, diameter: float) -> Outline:
    """Draws the spindle-shaped or three-cornered cell body around a nucleus.

    Two tapering processes extend roughly along the major axis of the nucleus (`angle`, radians), and there may be a
    third one in any direction. The edge of a process is a straight or slightly concave line from waist to tip.

    Args:
      rng: source of randomness.
      nucleus: the outline of the nucleus; the body encloses it.
      angle: direction of the major axis of the nucleus in radians.
      diameter: equivalent diameter of the body in pixels.
    """
    directions = [angle + rng.normal(0, 0.25), angle + np.pi + rng.normal(0, 0.4)]
    if rng.random() < 0.4:
        directions.append(rng.uniform(0, 2 * np.pi))
    radii = np.full(DIRECTIONS, 1.0)
    for direction in directions:
        radii = np.maximum(radii, _process(rng, direction))
    radii = ndimage.gaussian_filter1d(radii, DIRECTIONS / 64, mode="wrap", truncate=2.5)
    waves = sum(rng.normal(0, 0.025) * np.cos(k * _ANGLES + rng.uniform(0, 6.28)) for k in (3, 5, 7, 9))
    scaled = Outline((radii * (1 + waves)).astype(np.float32)).with_area(np.pi * diameter**2 / 4)
    return Outline(np.maximum(scaled.radii, 1.1 * nucleus.radii))


def _process(rng: np.random.Generator, direction: float) -> np.ndarray:
    """Returns the radii [DIRECTIONS] of a triangle with concave sides that points in `direction` (waist 1)."""
    turned = _ANGLES - direction
    length, waist, power = rng.uniform(1.6, 4.8), rng.uniform(0.95, 1.25), rng.uniform(0.8, 1.3)
    ahead = np.maximum(np.cos(turned), 0) / length
    radii = ((np.abs(np.sin(turned)) / waist) ** power + ahead**power) ** (-1 / power)
    return np.where(np.cos(turned) > 0, radii, 0.0)


@dataclasses.dataclass(frozen=True)
class Window:
    """The pixels around one cell, with its polar coordinates.

    Attributes:
      top, left: row and column of the window's first pixel in the field (may be negative).
      x, y: float32 [h, w], pixels from the cell's centre, right and down.
      radius: float32 [h, w], distance from the centre in pixels.
      index: int32 [h, w], direction as an index into `Outline.radii`.
    """

    top: int
    left: int
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    index: np.ndarray

    @classmethod
    def around(cls, centre: tuple[float, float], reach: float) -> "Window":
        """Makes the square window that holds a disc of radius `reach` px around `centre` (row, column)."""
        top, left = (int(np.floor(c - reach)) for c in centre)
        size = int(np.ceil(2 * reach)) + 2
        y = (np.arange(top, top + size) - centre[0]).astype(np.float32)[:, None]
        x = (np.arange(left, left + size) - centre[1]).astype(np.float32)[None, :]
        turns = np.arctan2(y, x) * np.float32(DIRECTIONS / (2 * np.pi))
        index = turns.astype(np.int32) & (DIRECTIONS - 1)
        x, y = np.broadcast_arrays(x, y)
        return cls(top, left, x, y, np.hypot(x, y), index)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.radius.shape

    def depth(self, outline: Outline) -> np.ndarray:
        """Returns float32 [h, w]: pixels inside the outline along the ray from the centre (negative outside)."""
        return outline.radii[self.index] - self.radius

    def rho(self, outline: Outline) -> np.ndarray:
        """Returns float32 [h, w]: radius as a share of the outline's radius (0 centre, 1 edge)."""
        return self.radius / outline.radii[self.index]

    def axes(self, angle: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns coordinates [h, w] along and across `angle` (radians), in pixels."""
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return self.x * cos + self.y * sin, self.y * cos - self.x * sin


def overlap(window: Window, shape: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Returns the slices of the field of `shape` and of the window in which both overlap (may be empty)."""
    field_slices, window_slices = [], []
    for start, size, limit in zip((window.top, window.left), window.shape, shape, strict=True):
        low, high = min(max(start, 0), limit), min(max(start + size, 0), limit)
        field_slices.append(slice(low, high))
        window_slices.append(slice(low - start, high - start))
    return tuple(field_slices), tuple(window_slices)
