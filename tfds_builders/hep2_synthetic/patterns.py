"""The stain of an interphase cell under each pattern, following the pattern's definition.

Each function returns the stain of one cell in its window, float32 [h, w], in units that `stain_cell`
turns into grey levels. Depths and coordinates are pixels, `d` is the diameter of the cell's nucleus.
"""

from collections.abc import Callable

import cv2
import numpy as np

from tfds_builders.hep2_synthetic.geometry import DIRECTIONS, Outline, Window
from tfds_builders.hep2_synthetic.layout import Cell
from tfds_builders.hep2_synthetic.mitosis import stain_mitotic_cell
from tfds_builders.hep2_synthetic.mixtures import NEGATIVE
from tfds_builders.hep2_synthetic.parameters import SpecimenParameters, Texture
from tfds_builders.hep2_synthetic.textures import discs, grain, scatter, smooth, spots

Stain = Callable[[np.random.Generator, Cell, Window, Texture], np.ndarray]


def reach(cell: Cell, pattern: str) -> float:
    """Radius in pixels of the window that the cell's stain needs."""
    if pattern == "cytoplasmic" and not cell.mitotic:
        return cell.body.reach + 2
    if pattern == "golgi" and not cell.mitotic:
        return min(cell.body.reach, 2.6 * cell.nucleus.reach) + 3
    return 1.15 * cell.nucleus.reach + 3


def mask_outline(cell: Cell, pattern: str) -> Outline:
    """The outline that an annotator draws: the whole cell if cytoplasmic, else the nucleus (or the mitotic cell)."""
    return cell.body if pattern == "cytoplasmic" and not cell.mitotic else cell.nucleus


def stain_cell(rng: np.random.Generator, cell: Cell, window: Window, specimen: SpecimenParameters) -> np.ndarray:
    """Draws one cell.

    Args:
      rng: source of randomness.
      cell: the cell.
      window: its pixels.
      specimen: the specimen's parameters.

    Returns:
      float32 [h, w]: grey levels above the background, before the optics, without the cell body; together with
      the body, the mean inside the mask is the cell's net level (Golgi: the level in the nucleus without the patch).
    """
    draw = stain_mitotic_cell(specimen.pattern) if cell.mitotic else INTERPHASE[specimen.pattern]
    stain = draw(rng, cell, window, specimen.texture)
    inside = window.depth(mask_outline(cell, specimen.pattern)) >= 0
    mean = 1.25 if specimen.pattern == "golgi" else float(stain[inside].mean())
    level = specimen.net * cell.brightness * (1 - 0.7 * specimen.cytoplasm)  # the body above the nucleus adds the rest
    stain = stain * np.float32(level / max(mean, 1e-6))
    return smooth(stain, cell.defocus)


def dome(window: Window, outline: Outline, margin: float = 1.0, power: float = 0.22) -> np.ndarray:
    """Thickness [h, w] in [0, 1] of a flattened ellipsoid that ends at `margin` times the outline's radius."""
    return np.clip(1 - np.square(window.rho(outline) / np.float32(margin)), 0, 1) ** np.float32(power)


def nucleoli(
    rng: np.random.Generator, cell: Cell, window: Window, texture: Texture, sharpness: float = 0.06
) -> np.ndarray:
    """Draws the nucleoli, [h, w] in [0, 1]; with `clumpiness`, they are divided into several clumps."""
    d = cell.diameter
    count = int(np.clip(rng.poisson(texture.nucleoli), 1, 7))
    centres = scatter(rng, count, cell.nucleus, 0.62, 0.2 * d)
    radii = texture.nucleolus_radius * d * rng.uniform(0.6, 1.35, count)
    parts = 1 + rng.poisson(3 * texture.clumpiness, count)
    centres, radii = np.repeat(centres, parts, axis=0), np.repeat(radii / parts**0.4, parts)
    offsets = rng.normal(0, 1, centres.shape) * (0.75 * radii * (np.repeat(parts, parts) > 1))[:, None]
    return discs(window.x, window.y, centres + offsets, radii, sharpness * d)


def homogeneous(rng: np.random.Generator, cell: Cell, window: Window, texture: Texture) -> np.ndarray:
    """AC-1: the whole nucleoplasm evenly bright, nucleoli at most faintly dark."""
    mottle = 1 + texture.contrast * grain(rng, window.shape, texture.grain * cell.diameter)
    dark = 1 - (1 - texture.nucleolus_level) * nucleoli(rng, cell, window, texture)
    return dome(window, cell.nucleus, texture.margin) * mottle * dark


def speckled(rng: np.random.Generator, cell: Cell, window: Window, texture: Texture) -> np.ndarray:
    """AC-4 (fine grains) and AC-5 (coarse grains): grains all over the nucleoplasm, nucleoli dark."""
    speckles = np.exp(texture.contrast * grain(rng, window.shape, texture.grain * cell.diameter))
    dark = 1 - (1 - texture.nucleolus_level) * nucleoli(rng, cell, window, texture)
    return dome(window, cell.nucleus, texture.margin) * speckles * dark


def nucleolar(rng: np.random.Generator, cell: Cell, window: Window, texture: Texture) -> np.ndarray:
    """AC-8 and AC-9: bright nucleoli, round or clumped, on a dim nucleoplasm."""
    bright = (texture.nucleolus_level - 1) * rng.lognormal(0, 0.3) * nucleoli(rng, cell, window, texture)
    mottle = 1 + texture.contrast * grain(rng, window.shape, texture.grain * cell.diameter)
    return dome(window, cell.nucleus, texture.margin, 0.3) * (mottle + bright)


def centromere(rng: np.random.Generator, cell: Cell, window: Window, texture: Texture) -> np.ndarray:
    """AC-3: some 40 to 60 similar discrete dots, scattered over a dim nucleoplasm."""
    d = cell.diameter
    count = int(np.clip(rng.normal(texture.dots, 5), 20, 70))
    centres = scatter(rng, count, cell.nucleus, 0.88, 0.06 * d, power=0.68)
    depth = rng.exponential(0.3, count)  # dots above and below the focal plane are wide and weak
    sigma = texture.dot_sigma * d * (1 + depth)
    peak = texture.dot_level * rng.lognormal(0, 0.35, count) / (1 + depth) ** 2
    mottle = 1 + texture.contrast * grain(rng, window.shape, texture.grain * d)
    return dome(window, cell.nucleus, texture.margin, 0.4) * mottle + spots(window.x, window.y, centres, sigma, peak)


def nuclear_membrane(rng: np.random.Generator, cell: Cell, window: Window, texture: Texture) -> np.ndarray:
    """AC-11 and AC-12: a bright line at the edge of the nucleus, smooth or punctate, over a weaker interior."""
    d = cell.diameter
    distance = window.depth(cell.nucleus) + 0.02 * d  # the line runs just outside the annotated outline
    rim = np.exp(-np.square(distance / (texture.rim_sigma * d)) / 2) * texture.rim_level
    broken = np.exp(texture.rim_breaks * 2 * grain(rng, window.shape, 0.025 * d))
    mottle = 1 + texture.contrast * grain(rng, window.shape, texture.grain * d)
    bright = 1 + (texture.nucleolus_level - 1) * nucleoli(rng, cell, window, texture)
    return dome(window, cell.nucleus, texture.margin, 0.1) * mottle * bright + rim * broken


def golgi(rng: np.random.Generator, cell: Cell, window: Window, texture: Texture) -> np.ndarray:
    """AC-22: irregular bright fragments on one side of the nucleus; nucleus and cytoplasm stay dim."""
    d = cell.diameter
    depth = window.depth(cell.nucleus)
    mottle = 1 + texture.contrast * grain(rng, window.shape, texture.grain * d)
    body = np.clip(0.5 + window.depth(cell.body) / (0.08 * d), 0, 1) * np.exp(np.minimum(depth, 0) / (0.3 * d))
    nucleus = dome(window, cell.nucleus, texture.margin, 0.45)
    dim = body * (1 - nucleus) / texture.nucleus_level * 0.95 + 1.25 * nucleus
    return dim * mottle + _golgi_patch(rng, cell, window, texture)


def _golgi_patch(rng: np.random.Generator, cell: Cell, window: Window, texture: Texture) -> np.ndarray:
    """Draws the Golgi apparatus: one to four ribbons of fragments on one side of the nucleus."""
    d = cell.diameter
    side = rng.uniform(0, 2 * np.pi)
    total = np.zeros(window.shape, np.float32)
    for _ in range(rng.integers(1, 5)):
        centres = _ribbon(rng, cell, side + rng.normal(0, 0.5), texture.patch_spread)
        sigma = d * rng.uniform(0.016, 0.05, len(centres))
        total += spots(window.x, window.y, centres, sigma, rng.gamma(2.0, 0.4, len(centres)))
    return np.float32(texture.patch_level * rng.lognormal(0, 0.5)) * np.minimum(total, 1.8)


def _ribbon(rng: np.random.Generator, cell: Cell, side: float, spread: float) -> np.ndarray:
    """Draws a random walk [n, 2] along the nuclear edge, over `spread` radians around the direction `side`."""
    count = int(rng.integers(8, 30))
    turn = side + np.cumsum(rng.normal(spread / count, 0.08, count)) - spread / 2
    away = 1.06 + np.abs(rng.normal(0.1, 0.12) + np.cumsum(rng.normal(0, 0.05, count)))
    away -= 0.5 * (rng.random() < 0.15)  # sometimes the apparatus is above the nucleus
    outline = cell.nucleus.radii[(turn * DIRECTIONS / (2 * np.pi)).astype(int) % DIRECTIONS]
    radius = outline * (away + rng.normal(0, 0.03, count))
    return np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1)


def cytoplasmic(rng: np.random.Generator, cell: Cell, window: Window, texture: Texture) -> np.ndarray:
    """AC-19 to AC-21: grains or threads that fill the whole spindle-shaped cell around a darker nucleus."""
    d = cell.diameter
    depth = window.depth(cell.nucleus)
    grains = texture.contrast * _threads(rng, cell, window, texture) + 0.25 * grain(rng, window.shape, 0.1 * d)
    threads = np.exp(grains)
    body = np.clip(0.5 + window.depth(cell.body) / (0.05 * d), 0, 1)
    thickness = 0.35 + 0.85 * np.exp(-np.square(np.minimum(depth, 0) / (0.45 * d)) / 2)
    nucleus = np.clip(0.5 + depth / (0.1 * d), 0, 1)
    seen_through = texture.nucleus_level * (0.7 + 0.3 * threads)  # there is a thin layer of cytoplasm above the nucleus
    return body * (threads * thickness * (1 - nucleus) + seen_through * nucleus)


def _threads(rng: np.random.Generator, cell: Cell, window: Window, texture: Texture) -> np.ndarray:
    """Draws noise [h, w] whose grains are `fibres` times longer along the cell than across."""
    size = max(window.shape)
    sigma = texture.grain * cell.diameter
    straight = grain(rng, (size, size), (sigma * texture.fibres, sigma))
    middle = ((size - 1) / 2, (size - 1) / 2)
    turn = cv2.getRotationMatrix2D(middle, -float(np.degrees(cell.angle)), 1.0)
    return cv2.warpAffine(straight, turn, (size, size), borderMode=cv2.BORDER_REFLECT)


INTERPHASE: dict[str, Stain] = {
    "homogeneous": homogeneous,
    "fine_speckled": speckled,
    "coarse_speckled": speckled,
    "nucleolar": nucleolar,
    "centromere": centromere,
    "nuclear_membrane": nuclear_membrane,
    "golgi": golgi,
    "cytoplasmic": cytoplasmic,
    NEGATIVE: homogeneous,  # the little light that there is, is spread evenly
}
"""The stain of an interphase cell by pattern."""
