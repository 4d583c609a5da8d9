"""Generates the fields of synthetic HEp-2 specimens with their masks, as a pure function of a seed."""

import dataclasses
import zlib

import cv2
import numpy as np

from tfds_builders.fields import KINDS, VOID
from tfds_builders.hep2_synthetic.artefacts import draw_artefact, draw_specks
from tfds_builders.hep2_synthetic.geometry import Window, overlap
from tfds_builders.hep2_synthetic.layout import Cell, draw_cells, spoil_cells
from tfds_builders.hep2_synthetic.mixtures import LABELS, NEGATIVE, PAIRS, draw_negative, draw_pair
from tfds_builders.hep2_synthetic.optics import photograph
from tfds_builders.hep2_synthetic.parameters import (
    INTENSITIES,
    PATTERNS,
    STEADY,
    FieldVariation,
    SpecimenParameters,
    draw_conditions,
    draw_specimen,
)
from tfds_builders.hep2_synthetic.patterns import mask_outline, reach, stain_cell
from tfds_builders.hep2_synthetic.textures import grain, smooth

__all__ = [
    "INTENSITIES",
    "KINDS",
    "LABELS",
    "NEGATIVE",
    "PAIRS",
    "PATTERNS",
    "STEADY",
    "VOID",
    "Field",
    "FieldVariation",
    "generate_specimen",
    "specimen_parameters",
]


@dataclasses.dataclass(frozen=True)
class CellObject:
    """One annotated object of a field: its value in the instance mask (from 1) and its kind (of `KINDS`)."""

    instance: int
    kind: str


@dataclasses.dataclass(frozen=True)
class Field:
    """One image of a specimen with its annotation.

    Attributes:
      image: uint8 [height, width], grey levels 0 to 254.
      instance_mask: uint16 [height, width], 0 background, k = the object with `instance` k.
      class_mask: uint8 [height, width], 0 background, 1 + index of the main pattern in `LABELS`, `VOID` = artefact.
      objects: the objects that have pixels in the masks, sorted by `instance`.
    """

    image: np.ndarray
    instance_mask: np.ndarray
    class_mask: np.ndarray
    objects: tuple[CellObject, ...]


def specimen_parameters(
    seed: int, pattern: str, intensity: str, *, second: str = "", nuclear_diameter: float = 48.0
) -> SpecimenParameters:
    """Returns the parameters of the specimen that `generate_specimen` draws from the same arguments."""
    rng = _generator(seed, _name(pattern, second), intensity, 0)
    if second:
        return draw_pair(rng, (pattern, second), intensity, nuclear_diameter)
    if pattern == intensity == NEGATIVE:
        return draw_negative(rng, nuclear_diameter)
    return draw_specimen(rng, pattern, intensity, nuclear_diameter)


def generate_specimen(
    seed: int,
    pattern: str,
    intensity: str,
    *,
    height: int,
    width: int,
    fields: int,
    second: str = "",
    nuclear_diameter: float = 48.0,
    variation: FieldVariation = STEADY,
) -> list[Field]:
    """Generates all fields of one specimen.

    The result is a pure function of the arguments: the same bytes on every call (on one machine with one
    version of NumPy and OpenCV). Field k is the same whatever the number of fields.

    Args:
      seed: the seed of the specimen, >= 0.
      pattern: one of `PATTERNS`, or `NEGATIVE`.
      intensity: one of `INTENSITIES`; `NEGATIVE` with that pattern.
      height, width: size of a field in pixels.
      fields: number of fields.
      second: a second pattern of the same cells, which forms one of `PAIRS` with the first; empty: none.
      nuclear_diameter: median diameter of nuclei over specimens in pixels; 48 is a 20x objective, 77 a 40x
        one. Textures and blur scale with it.
      variation: how much the fields differ from the specimen.

    Raises:
      ValueError: a pattern, pair or intensity is unknown, or a size, number or seed is out of range.
    """
    if seed < 0 or fields < 1 or min(height, width) < 16:
        raise ValueError(
            f"seed {seed}, fields {fields}, size {height}x{width}: need seed >= 0, fields >= 1, sides >= 16 px"
        )
    specimen = specimen_parameters(seed, pattern, intensity, second=second, nuclear_diameter=nuclear_diameter)
    streams = (_generator(seed, _name(pattern, second), intensity, 1 + index) for index in range(fields))
    return [generate_field(rng, specimen, height, width, variation) for rng in streams]


def _name(pattern: str, second: str) -> str:
    return f"{pattern}+{second}" if second else pattern


def _generator(seed: int, patterns: str, intensity: str, stream: int) -> np.random.Generator:
    """Returns an independent random generator for each combination of the arguments."""
    name = zlib.crc32(f"{patterns}/{intensity}".encode())
    return np.random.default_rng(np.random.SeedSequence((seed, name, stream)))


def generate_field(
    rng: np.random.Generator, specimen: SpecimenParameters, height: int, width: int, variation: FieldVariation = STEADY
) -> Field:
    """Draws one field of a specimen; density, brightness and focus differ a little, and by `variation`."""
    variation_rng = rng.spawn(1)[0]  # separate, so that everything else about the field does not depend on `variation`
    conditions = draw_conditions(variation_rng, variation)
    density = conditions.density * float(rng.lognormal(0, 0.12))
    cells = draw_cells(rng, specimen, (height, width), density=density)
    cells = spoil_cells(variation_rng, cells, conditions.badly_stained)
    stain = _cytoplasm(rng, cells, specimen, (height, width))
    instances = np.zeros((height, width), np.uint16)
    kinds: list[str] = []
    for cell in cells:
        _add_cell(rng, stain, instances, len(kinds) + 1, cell, specimen)
        kinds.append("mitotic_cell" if cell.mitotic else "cell")
    for _ in range(rng.poisson(specimen.artefact_fraction * len(cells))):
        draw_artefact(rng, stain, instances, len(kinds) + 1, specimen)
        kinds.append("artefact")
    draw_specks(rng, stain, specimen)
    stain *= np.float32(rng.lognormal(0, 0.05))
    image = photograph(rng, stain, specimen, conditions, focus=float(rng.lognormal(0, 0.12)))
    return _annotate(image, instances, kinds, LABELS.index(specimen.pattern))


def _add_cell(
    rng: np.random.Generator,
    stain: np.ndarray,
    instances: np.ndarray,
    instance: int,
    cell: Cell,
    specimen: SpecimenParameters,
) -> None:
    """Adds the light of one cell to `stain` and writes its mask into `instances`, over earlier ones."""
    for layer in specimen.stains:
        window = Window.around(cell.centre, reach(cell, layer.pattern))
        in_field, in_window = overlap(window, stain.shape)
        if not stain[in_field].size:
            continue
        stain[in_field] += stain_cell(rng, cell, window, layer)[in_window]
        if layer is specimen:
            inside = window.depth(mask_outline(cell, layer.pattern))[in_window] >= 0
            instances[in_field][inside] = instance


def _cytoplasm(
    rng: np.random.Generator, cells: list[Cell], specimen: SpecimenParameters, shape: tuple[int, int]
) -> np.ndarray:
    """Draws the dim, slightly grainy bodies of all interphase cells, float32 [height, width] (at half resolution)."""
    small = np.zeros((-(-shape[0] // 2), -(-shape[1] // 2)), np.float32)
    if specimen.cytoplasm == 0:
        return np.zeros(shape, np.float32)
    for cell in cells:
        if not cell.mitotic:
            _add_body(small, cell, specimen.cytoplasm * specimen.net * cell.brightness)
    small = smooth(small, 0.035 * specimen.diameter) * (1 + 0.12 * grain(rng, small.shape, 0.02 * specimen.diameter))
    return cv2.resize(small, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def _add_body(small: np.ndarray, cell: Cell, level: float) -> None:
    """Adds a cell body in two steps of thickness to an image at half resolution."""
    centre = np.array(cell.centre[::-1]) / 2
    reach = int(cell.body.reach / 2) + 2
    left, top = (max(int(c) - reach, 0) for c in centre)
    part = small[top : max(int(centre[1]) + reach, 0), left : max(int(centre[0]) + reach, 0)]
    if not part.size:
        return
    layer = np.zeros(part.shape, np.uint8)
    for step, scale in ((1, 1.0), (2, 0.72)):
        points = cell.body.points(scale) / 2 + centre - (left, top)
        cv2.fillPoly(layer, [np.round(points * 16).astype(np.int32)], step, shift=4)
    part += layer * np.float32(level / 2)


def _annotate(image: np.ndarray, instances: np.ndarray, kinds: list[str], pattern: int) -> Field:
    """Renumbers the objects that are still visible, from 1 without gaps, and derives the class mask."""
    present = np.flatnonzero(np.bincount(instances.ravel(), minlength=len(kinds) + 1)[1:]) + 1
    number = np.zeros(len(kinds) + 1, np.uint16)
    number[present] = np.arange(1, len(present) + 1)
    classes = np.array([0] + [VOID if kind == "artefact" else 1 + pattern for kind in kinds], np.uint8)
    objects = tuple(CellObject(int(number[k]), kinds[k - 1]) for k in present)
    return Field(image, number[instances], classes[instances], objects)
