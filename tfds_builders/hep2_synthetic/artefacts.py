"""Objects on the slide that are not cells: crystals, smears of debris, dust."""

import cv2
import numpy as np

from tfds_builders.hep2_synthetic.parameters import SpecimenParameters
from tfds_builders.hep2_synthetic.textures import smooth, spots


def draw_artefact(
    rng: np.random.Generator, stain: np.ndarray, instances: np.ndarray, instance: int, specimen: SpecimenParameters
) -> None:
    """Adds a crystal or a smear to `stain` and writes its mask into `instances`, over the cells.

    Args:
      rng: source of randomness.
      stain: float32 [height, width], grey levels above background; changed in place.
      instances: uint16 [height, width]; changed in place.
      instance: the artefact's number in `instances`.
      specimen: the specimen's parameters.
    """
    shape = _crystal(rng, specimen.diameter) if rng.random() < 0.5 else _smear(rng, specimen.diameter)
    size = len(shape)
    top, left = (int(rng.integers(0, max(limit - size, 1))) for limit in stain.shape)
    region = (slice(top, top + size), slice(left, left + size))
    shape = shape[: stain.shape[0] - top, : stain.shape[1] - left]
    stain[region] += shape * np.float32(10 + specimen.net * rng.uniform(1.5, 4.5))
    instances[region][shape > 0.25] = instance


def _crystal(rng: np.random.Generator, d: float) -> np.ndarray:
    """Draws an angular particle, float32 [size, size] in [0, 1]."""
    radius = d * rng.uniform(0.08, 0.3)
    size = int(2 * radius + 0.3 * d) + 2
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(4, 8)))
    lengths = radius * rng.uniform(0.6, 1.0, len(angles))
    points = size / 2 + np.stack([lengths * np.cos(angles), lengths * np.sin(angles)], axis=1)
    canvas = np.zeros((size, size), np.uint8)
    cv2.fillPoly(canvas, [np.round(points * 16).astype(np.int32)], 1, shift=4)
    return smooth(canvas.astype(np.float32), 0.025 * d)


def _smear(rng: np.random.Generator, d: float) -> np.ndarray:
    """Draws a smudge or streak of debris: blobs of all sizes along a random walk, float32 [size, size] in [0, 1]."""
    count = int(rng.integers(10, 30))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, rng.uniform(0.2, 1.5), count))
    steps = 0.05 * d * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    path = np.cumsum(steps, axis=0) + rng.normal(0, 0.06 * d, (count, 2))
    path -= path.min(axis=0) - 0.3 * d
    size = int(path.max() + 0.3 * d) + 1
    y, x = np.mgrid[:size, :size].astype(np.float32)
    light = spots(x, y, path, d * rng.uniform(0.02, 0.1, count), rng.gamma(1.5, 0.4, count))
    return smooth(light / light.max(), d * rng.uniform(0.0, 0.04))


def draw_specks(rng: np.random.Generator, stain: np.ndarray, specimen: SpecimenParameters) -> None:
    """Adds faint dust specks to `stain` in place; they are too small and weak to be annotated."""
    d = specimen.diameter
    count = rng.poisson(specimen.specks * stain.size / (10 * d) ** 2)
    rows, columns = (rng.integers(0, limit, count) for limit in stain.shape)
    layer = np.zeros_like(stain)
    layer[rows, columns] = rng.gamma(1.5, 3.0 + 0.1 * specimen.net, count)
    stain += smooth(layer, 0.025 * d) * np.float32(2 * np.pi * (0.025 * d) ** 2)
