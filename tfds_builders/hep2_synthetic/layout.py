"""Positions and shapes of the cells of a field."""

import dataclasses

import numpy as np

from tfds_builders.hep2_synthetic.geometry import DIRECTIONS, Outline, body_outline, nucleus_outline
from tfds_builders.hep2_synthetic.parameters import SpecimenParameters
from tfds_builders.hep2_synthetic.textures import smooth

PHASES = ("prometaphase", "metaphase", "metaphase", "anaphase")
"""Phases of mitosis that are drawn; metaphase is listed twice because it is the one that readers look for."""

MITOTIC_DIAMETER = 1.2
"""Diameter of a rounded mitotic cell, in d (MIVIA: 92 px beside 77 px)."""

MITOTIC_LEVEL = {"homogeneous": 0.8, "nucleolar": 0.6, "nuclear_membrane": 0.9}
"""Mean level of a mitotic cell relative to an interphase nucleus; 1.3 for the other patterns (MIVIA: 31 beside 24).

Lower where the stain leaves most of the cell: onto the plate (homogeneous) or altogether (nucleoli, membrane).
"""

BODY_DIAMETER = 1.58
"""Equivalent diameter of a cell body, in d (MIVIA cytoplasmic cells: 122 px beside 77 px)."""

_SPOILT_LEVEL = (0.5, 1.0)  # level of a badly stained cell, relative to a normal one
_SPOILT_BLUR = 0.12  # sigma, in d: wider than speckles, dots and nuclear rims


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of a field.

    Attributes:
      centre: (row, column) in pixels; may lie outside the field.
      diameter: equivalent diameter of the nucleus in pixels; for a mitotic cell, that of its interphase nucleus.
      angle: direction of the nucleus's major axis, or of the metaphase plate, in radians.
      nucleus: outline of the nucleus; of the whole rounded cell if mitotic.
      body: outline of the cell body.
      brightness: factor on the specimen's net level.
      defocus: sigma of the cell's own blur in pixels.
      phase: "interphase" or one of `PHASES`.
    """

    centre: tuple[float, float]
    diameter: float
    angle: float
    nucleus: Outline
    body: Outline
    brightness: float
    defocus: float
    phase: str

    @property
    def mitotic(self) -> bool:
        """Whether the cell is dividing."""
        return self.phase != "interphase"


def draw_cells(
    rng: np.random.Generator, specimen: SpecimenParameters, shape: tuple[int, int], density: float = 1.0
) -> list[Cell]:
    """Draws the cells of one field, including those cut by its border.

    Args:
      rng: source of randomness.
      specimen: the specimen's parameters.
      shape: height and width of the field in pixels.
      density: factor on the specimen's foreground fraction.
    """
    whole_cells = specimen.whole_cells
    spacing = specimen.diameter * (BODY_DIAMETER if whole_cells else 1.0)
    extended = (shape[0] + 1.2 * spacing) * (shape[1] + 1.2 * spacing)
    expected = specimen.foreground_fraction * density * extended / (np.pi / 4 * spacing**2)
    cells = [_draw_cell(rng, specimen) for _ in range(int(expected + 1.5))]
    outlines = np.stack([cell.body.radii if whole_cells else cell.nucleus.radii for cell in cells])
    centres = _place(rng, outlines, shape, spacing, specimen.clumping)
    pairs = zip(cells, centres, strict=True)
    return [dataclasses.replace(c, centre=(float(p[0]), float(p[1]))) for c, p in pairs if p is not None]


def spoil_cells(rng: np.random.Generator, cells: list[Cell], share: float) -> list[Cell]:
    """Returns the cells, a `share` of them badly stained: the bound antigen has leaked and the pattern is blurred."""
    return [_spoil(rng, cell) if rng.random() < share else cell for cell in cells]


def _spoil(rng: np.random.Generator, cell: Cell) -> Cell:
    dimmed = cell.brightness * rng.uniform(*_SPOILT_LEVEL)
    return dataclasses.replace(cell, defocus=_SPOILT_BLUR * cell.diameter, brightness=float(dimmed))


def _place(
    rng: np.random.Generator, outlines: np.ndarray, shape: tuple[int, int], spacing: float, clumping: float
) -> list[np.ndarray | None]:
    """Finds a centre (row, column) for each outline, apart from the others, except for a share that touch another.

    Args:
      rng: source of randomness.
      outlines: [n, directions] radii in pixels.
      shape: height and width of the field in pixels.
      spacing: typical diameter of an outline in pixels.
      clumping: share of the outlines that touch another.

    Returns:
      n centres; None where no room was found.
    """
    low, high = np.full(2, -0.6 * spacing), np.array(shape) + 0.6 * spacing
    cover = _cover(rng, spacing, low, high)
    centres: list[np.ndarray | None] = []
    for index in range(len(outlines)):
        placed = [i for i, centre in enumerate(centres) if centre is not None]
        placed_centres = np.array([centres[i] for i in placed]).reshape(-1, 2)
        touching = bool(placed) and rng.random() < clumping
        centres.append(None)
        for _ in range(40):
            point = _beside(rng, placed_centres, spacing) if touching else rng.uniform(low, high)
            if not (touching or rng.random() < cover(point)) or np.any((point < low) | (point > high)):
                continue
            gap = _gaps(placed_centres, outlines[placed], point, outlines[index])
            if np.all(gap > (0.9 if touching else 1.02)) and (not touching or gap.min() < 1.04):
                centres[index] = point
                break
    return centres


def _gaps(centres: np.ndarray, outlines: np.ndarray, point: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """Distance of `point` from each centre as a share of the two outlines' radii toward one another, [n]."""
    offsets = point - centres
    turns = np.arctan2(offsets[:, 0], offsets[:, 1]) * (DIRECTIONS / (2 * np.pi))
    toward = turns.astype(int) % DIRECTIONS
    back = (toward + DIRECTIONS // 2) % DIRECTIONS
    radii = outlines[np.arange(len(outlines)), toward] + outline[back]
    return np.hypot(offsets[:, 0], offsets[:, 1]) / radii


def _beside(rng: np.random.Generator, centres: np.ndarray, spacing: float) -> np.ndarray:
    """Draws a point about one diameter from a cell that is already placed."""
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.25) * spacing
    return centres[rng.integers(len(centres))] + distance * np.array([np.sin(angle), np.cos(angle)])


def _cover(rng: np.random.Generator, spacing: float, low: np.ndarray, high: np.ndarray):
    """Draws how densely the cells cover the slide at each point; returns a function from point to probability."""
    cell = 2.0 * spacing
    size = tuple(int(s) for s in np.ceil((high - low) / cell) + 1)
    noise = smooth(rng.standard_normal(size, dtype=np.float32), 0.8)
    chance = np.clip(0.55 + 0.4 * noise / (noise.std() + 1e-6), 0.2, 1.0)

    def probability(point: np.ndarray) -> float:
        row, column = ((point - low) / cell).astype(int)
        return float(chance[row, column])

    return probability


def _draw_cell(rng: np.random.Generator, specimen: SpecimenParameters) -> Cell:
    """Draws the shape, brightness and phase of one cell; its position is set later."""
    diameter = specimen.diameter * np.exp(np.clip(rng.normal(0, specimen.diameter_spread), -0.15, 0.15))
    if rng.random() < 0.015:
        diameter *= rng.uniform(1.15, 1.4)
    angle = float(rng.uniform(0, np.pi))
    mitotic = rng.random() < specimen.mitotic_fraction
    if mitotic:
        nucleus = nucleus_outline(rng, MITOTIC_DIAMETER * diameter, rng.uniform(0.88, 1.0), angle, 0.015)
        body = Outline(nucleus.radii * np.float32(1.02))
    else:
        axis_ratio = float(np.clip(rng.normal(specimen.axis_ratio, 0.065), 0.58, 0.97))
        nucleus = nucleus_outline(rng, diameter, axis_ratio, angle)
        body = body_outline(rng, nucleus, angle, BODY_DIAMETER * diameter * rng.uniform(0.85, 1.2))
    return Cell(
        centre=(0.0, 0.0),
        diameter=float(diameter),
        angle=angle,
        nucleus=nucleus,
        body=body,
        brightness=float(np.exp(rng.normal(0, specimen.net_spread)))
        * (MITOTIC_LEVEL.get(specimen.pattern, 1.3) if mitotic else 1.0),
        defocus=float(specimen.defocus_spread * diameter * rng.exponential()),
        phase=str(rng.choice(PHASES)) if mitotic else "interphase",
    )
