"""The stain of dividing cells under each pattern, by which readers distinguish patterns.

The cell is rounded. Homogeneous stain is on the chromatin, so the plate is bright; centromere dots line up in the
plate; all other antigens here leave the plate dark and are spread diffusely, or in fragments, around it.
"""

from collections.abc import Callable

import numpy as np

from tfds_builders.hep2_synthetic.geometry import Window
from tfds_builders.hep2_synthetic.layout import Cell
from tfds_builders.hep2_synthetic.parameters import Texture
from tfds_builders.hep2_synthetic.textures import grain, scatter, smooth, spots


def stain_mitotic_cell(pattern: str) -> Callable[[np.random.Generator, Cell, Window, Texture], np.ndarray]:
    """Returns the function (rng, cell, window, texture) -> stain [h, w] for mitotic cells of `pattern`."""
    return _STAINS.get(pattern, negative_plate)


def chromatin(rng: np.random.Generator, cell: Cell, window: Window) -> np.ndarray:
    """Draws where the condensed chromosomes are, float32 [h, w] in [0, 1].

    A ragged disc in prometaphase, one bar in metaphase, two bars in anaphase.
    """
    d = cell.diameter
    along, across = window.axes(cell.angle)
    ragged = 0.024 * d * grain(rng, window.shape, 0.06 * d)
    if cell.phase == "prometaphase":
        inside = 0.3 * d - window.radius
        ragged = 1.2 * ragged
    else:
        apart = rng.uniform(0.17, 0.3) * d if cell.phase == "anaphase" else 0.0
        length, width = rng.uniform(0.38, 0.46) * d, rng.uniform(0.1, 0.14) * d
        bend = np.square(along) / (2.2 * d) if apart else 0.0
        inside = np.minimum(width - np.abs(np.abs(across) + bend - apart), length - np.abs(along))
    return np.clip(0.5 + (inside + ragged) / (0.09 * d), 0, 1).astype(np.float32)


def rounded_body(cell: Cell, window: Window) -> np.ndarray:
    """Thickness [h, w] in [0, 1] of the rounded cell."""
    return np.sqrt(np.clip(1 - np.square(window.rho(cell.nucleus)), 0, 1))


def positive_plate(rng: np.random.Generator, cell: Cell, window: Window, texture: Texture) -> np.ndarray:
    """Homogeneous: chromatin evenly bright in a dim round cell."""
    mottle = 1 + texture.contrast * grain(rng, window.shape, texture.grain * cell.diameter)
    return (0.35 * rounded_body(cell, window) + 2.6 * chromatin(rng, cell, window)) * mottle


def negative_plate(rng: np.random.Generator, cell: Cell, window: Window, texture: Texture) -> np.ndarray:
    """Speckled, nucleolar, nuclear membrane, cytoplasmic: diffuse grains around a dark plate."""
    contrast = min(texture.contrast, 0.35)
    speckles = np.exp(contrast * grain(rng, window.shape, texture.grain * cell.diameter))
    dark = 1 - 0.62 * chromatin(rng, cell, window)
    return rounded_body(cell, window) ** 0.6 * speckles * dark


def aligned_dots(rng: np.random.Generator, cell: Cell, window: Window, texture: Texture) -> np.ndarray:
    """Centromere: the dots are crowded in the plate (in both plates of anaphase), the rest of the cell is dim."""
    d = cell.diameter
    plate = chromatin(rng, cell, window)
    count = int(np.clip(rng.normal(texture.dots, 5), 20, 70))
    inside = np.flatnonzero(plate > 0.6)
    chosen = rng.choice(inside, count) if len(inside) else np.zeros(0, int)
    centres = np.stack([window.x.ravel()[chosen], window.y.ravel()[chosen]], axis=1)
    centres = centres + rng.uniform(-0.5, 0.5, centres.shape)
    peak = 0.5 * texture.dot_level * rng.lognormal(0, 0.35, len(chosen))
    dots = spots(window.x, window.y, centres, np.full(len(chosen), texture.dot_sigma * d), peak)
    return rounded_body(cell, window) + 0.8 * plate + dots


def dispersed_fragments(rng: np.random.Generator, cell: Cell, window: Window, texture: Texture) -> np.ndarray:
    """Golgi: the apparatus is broken up into small fragments all over the cell, except on the plate."""
    d = cell.diameter
    count = int(rng.integers(25, 60))
    centres = scatter(rng, count, cell.nucleus, 0.95, 0.05 * d)
    peak = 0.35 * texture.patch_level * rng.gamma(2.0, 0.5, count)
    fragments = spots(window.x, window.y, centres, d * rng.uniform(0.016, 0.035, count), peak)
    plate = smooth(chromatin(rng, cell, window), 0.02 * d)
    return (rounded_body(cell, window) + fragments) * (1 - 0.8 * plate)


_STAINS = {
    "homogeneous": positive_plate,
    "centromere": aligned_dots,
    "golgi": dispersed_fragments,
}
