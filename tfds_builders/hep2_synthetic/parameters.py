"""The parameters by which specimens differ: brightness, background, sizes, texture, focus.

Levels are grey levels of an 8-bit camera. Unless stated otherwise, lengths are shares of the nuclear diameter ("d"), so
that one set of parameters serves any magnification. The README beside this file gives the sources of the levels, sizes
and noise.
"""

import dataclasses

import numpy as np

PATTERNS = (
    "homogeneous",
    "fine_speckled",
    "coarse_speckled",
    "nucleolar",
    "centromere",
    "nuclear_membrane",
    "golgi",
    "cytoplasmic",
)
"""The patterns in the order of their class labels."""

INTENSITIES = ("intermediate", "positive")
"""The intensities in the order of their class labels."""

MEDIAN_NET = {
    "homogeneous": (9.5, 35.0),
    "fine_speckled": (9.0, 49.3),
    "coarse_speckled": (9.0, 49.3),
    "nucleolar": (4.8, 24.8),
    "centromere": (7.2, 29.0),
    "nuclear_membrane": (7.2, 10.7),
    "golgi": (3.7, 19.2),
    "cytoplasmic": (19.7, 38.4),
}
"""Median cell level above background, (intermediate, positive), from I3A; cytoplasmic from MIVIA."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Texture:
    """How the stain of one specimen looks inside its cells. A pattern uses the entries that it needs.

    Attributes:
      margin: radius at which the nucleus's light ends, relative to the outline that annotators draw.
      grain: size (sigma) of the speckles, in d.
      contrast: standard deviation of the speckles, relative to the local level.
      nucleoli: mean number of nucleoli of a nucleus.
      nucleolus_radius: mean radius of a nucleolus, in d.
      nucleolus_level: level in the nucleoli relative to the nucleoplasm (below 1 they are dark).
      clumpiness: 0 round nucleoli, 1 nucleoli made of many clumps.
      dots: mean number of centromere dots of a nucleus.
      dot_sigma: their size (sigma), in d.
      dot_level: mean peak of the dots relative to the nucleoplasm.
      rim_level: height of the nuclear rim relative to the nucleoplasm.
      rim_sigma: its width (sigma), in d.
      rim_breaks: 0 smooth rim, 1 punctate rim.
      nucleus_level: level in the nucleus relative to the cytoplasm beside it (golgi, cytoplasmic).
      patch_level: brightness of the Golgi apparatus relative to the nucleus.
      patch_spread: angle around the nucleus that the Golgi apparatus takes, in radians.
      fibres: elongation of cytoplasmic grains along the cell, 1 = round.
    """

    margin: float
    grain: float
    contrast: float
    nucleoli: float
    nucleolus_radius: float
    nucleolus_level: float
    clumpiness: float
    dots: float
    dot_sigma: float
    dot_level: float
    rim_level: float
    rim_sigma: float
    rim_breaks: float
    nucleus_level: float
    patch_level: float
    patch_spread: float
    fibres: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecimenParameters:
    """Everything that the fields of one specimen share.

    Attributes:
      pattern: one of `PATTERNS`.
      intensity: one of `INTENSITIES`.
      net: mean level of a cell above the background, in grey levels.
      net_spread: standard deviation of the logarithm of the net level from cell to cell.
      background: level between the cells, in grey levels.
      diameter: median equivalent diameter of the nuclei, in pixels.
      diameter_spread: standard deviation of the logarithm of the diameter from nucleus to nucleus.
      axis_ratio: mean minor/major axis of the nuclei.
      foreground_fraction: share of the field wanted under the cells' masks.
      clumping: share of the cells that are placed so that they touch another.
      mitotic_fraction, artefact_fraction: share of the objects.
      cytoplasm: level of the cell body relative to the nucleus; 0 where the pattern itself draws the body.
      point_spread: sigma of the point spread function, in d.
      haze: share of the light that is out of focus.
      haze_sigma: how far that light spreads (sigma), in d.
      defocus_spread: sigma of the blur that differs from cell to cell, in d.
      illumination: relative fall of the light from the brightest place to a corner.
      specks: faint dust specks for each square of 10 x 10 d (not annotated).
      shot_noise: variance of the noise divided by the grey level.
      read_noise: standard deviation of the camera's own noise, in grey levels.
      texture: the stain's texture.
      second: the second pattern of the same cells; only its pattern, net and texture are used. None: the specimen has
        one pattern.
    """

    pattern: str
    intensity: str
    net: float
    net_spread: float
    background: float
    diameter: float
    diameter_spread: float
    axis_ratio: float
    foreground_fraction: float
    clumping: float
    mitotic_fraction: float
    artefact_fraction: float
    cytoplasm: float
    point_spread: float
    haze: float
    haze_sigma: float
    defocus_spread: float
    illumination: float
    specks: float
    shot_noise: float
    read_noise: float
    texture: Texture
    second: "SpecimenParameters | None" = None

    @property
    def stains(self) -> tuple["SpecimenParameters", ...]:
        """The stains that are superimposed in each cell, the main one first."""
        return (self,) if self.second is None else (self, self.second)

    @property
    def whole_cells(self) -> bool:
        """Whether a stain fills complete cells, which are then placed so that their bodies do not overlap."""
        return any(stain.pattern == "cytoplasmic" for stain in self.stains)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldVariation:
    """How much the fields of one specimen differ from its parameters, beyond the small jitter that every field has.

    The logarithm of that jitter has a standard deviation of 0.12 for density and focus and of 0.05 for the stain level.

    Attributes:
      exposure: standard deviation of the logarithm of the factor on all light, background included.
      defocus: standard deviation of the half-normal blur (a sigma) of the whole field, in d; it adds to the point
        spread as variances do.
      density: standard deviation of the logarithm of the factor on the foreground fraction.
      illumination: standard deviation of the half-normal addition to the relative fall of the light.
      badly_stained: mean share m of badly stained cells, in [0, 1). The share of a field is drawn from Beta(m, 1 - m),
        so that many fields have hardly any and some have hardly others: areas of a slide fail, not single cells.
    """

    exposure: float = 0.0
    defocus: float = 0.0
    density: float = 0.0
    illumination: float = 0.0
    badly_stained: float = 0.0


STEADY = FieldVariation()
"""No variation: fields differ only by the small jitter."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldConditions:
    """The conditions under which one field was stained and photographed, relative to its specimen.

    Attributes:
      exposure: factor on all light.
      defocus: sigma of the field's blur, in d.
      density: factor on the foreground fraction.
      illumination: addition to the relative fall of the light.
      badly_stained: probability of each cell to be badly stained.
    """

    exposure: float
    defocus: float
    density: float
    illumination: float
    badly_stained: float


def draw_conditions(rng: np.random.Generator, variation: FieldVariation) -> FieldConditions:
    """Draws the conditions of one field; they have no effect if `variation` is zero."""
    share = variation.badly_stained
    return FieldConditions(
        exposure=log_normal(rng, 1.0, variation.exposure),
        defocus=abs(rng.normal(0, variation.defocus)),
        density=log_normal(rng, 1.0, variation.density),
        illumination=abs(rng.normal(0, variation.illumination)),
        badly_stained=rng.beta(share, 1 - share) if share else 0.0,
    )


def log_normal(rng: np.random.Generator, median: float, spread: float) -> float:
    """Draws a log-normal value cut at 1.7 standard deviations of its logarithm on both sides."""
    return float(median * np.exp(spread * np.clip(rng.standard_normal(), -1.7, 1.7)))


def draw_specimen(
    rng: np.random.Generator, pattern: str, intensity: str, nuclear_diameter: float
) -> SpecimenParameters:
    """Draws the parameters of one specimen.

    Args:
      rng: source of randomness.
      pattern: one of `PATTERNS`.
      intensity: one of `INTENSITIES`.
      nuclear_diameter: median nuclear diameter over all specimens, in pixels.

    Raises:
      ValueError: pattern or intensity is unknown, or the diameter is below 12 px.
    """
    _check(pattern, intensity, nuclear_diameter)
    level = INTENSITIES.index(intensity)
    return SpecimenParameters(
        pattern=pattern,
        intensity=intensity,
        net=max(log_normal(rng, MEDIAN_NET[pattern][level], 0.32), 3.0),
        net_spread=rng.uniform(0.1, 0.18),
        background=float(np.clip(log_normal(rng, 19.0, 0.3), 12.0, 40.0)),
        diameter=log_normal(rng, 1.02 * nuclear_diameter, 0.085),
        diameter_spread=rng.uniform(0.035, 0.055),
        axis_ratio=rng.uniform(0.76, 0.83),
        foreground_fraction=rng.uniform(*((0.14, 0.26) if pattern == "cytoplasmic" else (0.11, 0.24))),
        clumping=rng.uniform(0.05, 0.3),
        mitotic_fraction=0.044,
        artefact_fraction=0.035,
        cytoplasm=_cytoplasm(rng, pattern),
        point_spread=log_normal(rng, 0.02, 0.3),
        haze=rng.uniform(0.2, 0.45),
        haze_sigma=rng.uniform(0.1, 0.16),
        defocus_spread=rng.uniform(0.0, 0.02),
        illumination=rng.uniform(0.03, 0.2),
        specks=rng.gamma(1.0, 3.0),
        shot_noise=0.022,
        read_noise=0.1,
        texture=_draw_texture(rng, pattern, level),
    )


def _check(pattern: str, intensity: str, nuclear_diameter: float) -> None:
    if pattern not in PATTERNS:
        raise ValueError(f"pattern {pattern!r}: unknown; use one of {', '.join(PATTERNS)}")
    if intensity not in INTENSITIES:
        raise ValueError(f"intensity {intensity!r}: unknown; use one of {', '.join(INTENSITIES)}")
    if not nuclear_diameter >= 12:
        raise ValueError(f"nuclear_diameter {nuclear_diameter}: too small to draw a texture; use at least 12 px")


def _cytoplasm(rng: np.random.Generator, pattern: str) -> float:
    """Level of the cell body relative to the nucleus; nuclear membrane specimens often stain it strongly."""
    if pattern in ("golgi", "cytoplasmic"):
        return 0.0  # these patterns draw the body with the stain
    low, high = {"nuclear_membrane": (0.2, 0.6), "nucleolar": (0.08, 0.35)}.get(pattern, (0.03, 0.16))
    return rng.uniform(low, high)


def _draw_texture(rng: np.random.Generator, pattern: str, level: int) -> Texture:
    """Draws a texture from the ranges common to all patterns, replaced by those of the pattern where it has its own."""
    values = _COMMON | _PATTERN_RANGES[pattern] | (_POSITIVE_RANGES.get(pattern, {}) if level else {})
    return Texture(**{name: float(rng.uniform(low, high)) for name, (low, high) in values.items()})


_COMMON = {
    "margin": (1.03, 1.08),
    "grain": (0.02, 0.03),
    "contrast": (0.05, 0.1),
    "nucleoli": (1.5, 3.5),
    "nucleolus_radius": (0.05, 0.08),
    "nucleolus_level": (0.8, 1.0),
    "clumpiness": (0.0, 0.0),
    "dots": (34, 58),
    "dot_sigma": (0.013, 0.019),
    "dot_level": (5.0, 11.0),
    "rim_level": (0.5, 1.2),
    "rim_sigma": (0.02, 0.035),
    "rim_breaks": (0.05, 0.35),
    "nucleus_level": (0.4, 0.8),
    "patch_level": (2.6, 5.0),
    "patch_spread": (1.0, 2.8),
    "fibres": (1.0, 3.0),
}

_PATTERN_RANGES = {
    "homogeneous": {
        "margin": (1.02, 1.07),
        "contrast": (0.07, 0.24),
        "nucleolus_level": (0.7, 1.0),
        "grain": (0.018, 0.03),
    },
    "fine_speckled": {
        "grain": (0.012, 0.017),
        "contrast": (0.24, 0.38),
        "margin": (1.0, 1.05),
        "nucleolus_level": (0.25, 0.55),
        "nucleolus_radius": (0.05, 0.08),
    },
    "coarse_speckled": {
        "grain": (0.022, 0.032),
        "contrast": (0.34, 0.52),
        "margin": (0.99, 1.04),
        "nucleolus_level": (0.15, 0.4),
        "nucleolus_radius": (0.075, 0.11),
        "nucleoli": (2.0, 4.5),
    },
    "nucleolar": {
        "nucleoli": (2.5, 5.5),
        "nucleolus_radius": (0.045, 0.09),
        "nucleolus_level": (3.0, 7.0),
        "contrast": (0.12, 0.28),
        "clumpiness": (0.0, 1.0),
    },
    "centromere": {"contrast": (0.1, 0.25), "dot_level": (18.0, 38.0)},
    "nuclear_membrane": {
        "contrast": (0.2, 0.42),
        "grain": (0.016, 0.028),
        "nucleolus_level": (0.9, 1.3),
        "rim_level": (1.0, 1.8),
        "rim_sigma": (0.026, 0.042),
    },
    "golgi": {"contrast": (0.12, 0.28), "nucleus_level": (0.7, 1.1)},
    "cytoplasmic": {"grain": (0.012, 0.02), "contrast": (0.3, 0.6)},
}

_POSITIVE_RANGES = {
    "nucleolar": {"nucleolus_level": (10.0, 32.0)},
    "centromere": {"dot_level": (26.0, 60.0)},
    "nuclear_membrane": {"rim_level": (1.0, 2.2)},
    "golgi": {"patch_level": (3.0, 6.5)},
    "cytoplasmic": {"contrast": (0.35, 0.7), "nucleus_level": (0.25, 0.5)},
}
