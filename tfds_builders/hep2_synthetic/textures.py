"""The elements of which stains are made: smooth noise, sums of spots, soft discs."""

import cv2
import numpy as np

from tfds_builders.hep2_synthetic.geometry import DIRECTIONS, Outline


def smooth(image: np.ndarray, sigma: float | tuple[float, float]) -> np.ndarray:
    """Gaussian blur with `sigma` pixels (one, or across and down); returns the image itself below 0.2 px."""
    sigma_x, sigma_y = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    if max(sigma_x, sigma_y) < 0.2:
        return image
    return cv2.GaussianBlur(image, (0, 0), max(sigma_x, 0.1), sigmaY=max(sigma_y, 0.1), borderType=cv2.BORDER_REFLECT)


def grain(
    rng: np.random.Generator, shape: tuple[int, int], sigma: float | tuple[float, float], drift: float = 4.0
) -> np.ndarray:
    """Draws band-passed Gaussian noise: grains of about `sigma` px without slow drifts.

    Args:
      rng: source of randomness.
      shape: height and width.
      sigma: blur of the grains in pixels (one, or across and down).
      drift: scales beyond `drift` times sigma are removed.

    Returns:
      float32 [height, width], mean 0 and standard deviation 1.
    """
    noise = rng.standard_normal(shape, dtype=np.float32)
    fine = smooth(noise, sigma)
    coarse = (drift * sigma[0], drift * sigma[1]) if isinstance(sigma, tuple) else drift * sigma
    band = fine - smooth(fine, coarse)
    return band / np.float32(band.std() + 1e-6)


def spots(x: np.ndarray, y: np.ndarray, centres: np.ndarray, sigma: np.ndarray, amplitude: np.ndarray) -> np.ndarray:
    """Adds up Gaussian spots, as a product of two thin matrices (each spot is separable).

    Args:
      x, y: float32 [h, w] pixel coordinates of a window (x varies along rows only, y along columns only).
      centres: [n, 2] spot centres (x, y) in the same coordinates.
      sigma: [n] standard deviations in pixels.
      amplitude: [n] heights.

    Returns:
      float32 [h, w].
    """
    width = 2 * np.square(sigma)[:, None]
    across = np.exp(-np.square(x[:1] - centres[:, :1]) / width) * amplitude[:, None]
    down = np.exp(-np.square(y[:, 0][None] - centres[:, 1:]) / width)
    return (down.T @ across).astype(np.float32)


def discs(x: np.ndarray, y: np.ndarray, centres: np.ndarray, radii: np.ndarray, edge: float) -> np.ndarray:
    """Returns the union [h, w] in [0, 1] of soft discs of `radii` [n] px, with edges about `edge` px wide."""
    if not len(centres):
        return np.zeros(x.shape, np.float32)
    dx = np.square(x[:1] - centres[:, :1])[:, None, :]
    dy = np.square(y[:, 0][None] - centres[:, 1:])[:, :, None]
    signed = (radii[:, None, None] - np.sqrt(dx + dy)) / edge
    return np.clip(0.5 + signed.max(axis=0), 0, 1).astype(np.float32)


def scatter(
    rng: np.random.Generator, count: int, outline: Outline, limit: float, gap: float, power: float = 0.5
) -> np.ndarray:
    """Draws points inside an outline that keep a distance from one another if there is room.

    Args:
      rng: source of randomness.
      count: number of points.
      outline: the outline.
      limit: greatest distance from the centre, as a share of the outline's radius.
      gap: intended distance between points in pixels.
      power: 0.5 spreads the points evenly over the area, more crowds them in the centre.

    Returns:
      float32 [count, 2], (x, y) relative to the outline's centre.
    """
    candidates = max(2 * count, 8)
    turn = rng.integers(0, DIRECTIONS, candidates)
    length = outline.radii[turn] * limit * rng.random(candidates) ** power
    angle = turn * (2 * np.pi / DIRECTIONS)
    points = np.stack([length * np.cos(angle), length * np.sin(angle)], axis=1).astype(np.float32)
    return _spread(points, count, gap)


def _spread(points: np.ndarray, count: int, gap: float) -> np.ndarray:
    """Picks `count` of the points; those at least `gap` px from the points picked before take precedence."""
    close = np.square(points[:, None] - points[None]).sum(axis=2) < gap**2
    blocked = np.zeros(len(points), bool)
    chosen = np.zeros(len(points), bool)
    left = count
    for index, near in enumerate(close):
        if left and not blocked[index]:
            chosen[index] = True
            blocked |= near
            left -= 1
    rest = np.flatnonzero(~chosen)[:left]
    return points[np.concatenate([np.flatnonzero(chosen), rest])]
