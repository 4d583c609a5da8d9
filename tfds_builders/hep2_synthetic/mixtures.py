"""Specimens with two patterns at once, and with none.

Two antibodies stain the same cells, so the light of two patterns adds up in each cell. The antigens of a pair are in
different compartments of the cell, by the groups and names of the consensus codes (see `tfds_builders.icap`):
nucleoplasm, nucleoli, centromeres, nuclear envelope; cytoplasm, Golgi apparatus. Each pattern is then visible beside
the other. Two stains of the entire nucleoplasm (homogeneous, fine and coarse speckled) hide one another, so no pair has
two of them. Which of the remaining pairs occur here is our choice; every pattern is in at least one.
"""

import dataclasses

import numpy as np

from tfds_builders.hep2_synthetic.parameters import (
    INTENSITIES,
    PATTERNS,
    SpecimenParameters,
    draw_specimen,
    log_normal,
)

PAIRS = (
    ("homogeneous", "nucleolar"),
    ("fine_speckled", "nucleolar"),
    ("homogeneous", "cytoplasmic"),
    ("fine_speckled", "cytoplasmic"),
    ("centromere", "cytoplasmic"),
    ("nuclear_membrane", "cytoplasmic"),
    ("coarse_speckled", "golgi"),
    ("nucleolar", "golgi"),
)
"""Patterns that occur together: main pattern, second pattern. The main one is in the nucleus, which masks outline."""

SECOND_LEVEL = (0.4, 0.8)
"""Range of the second pattern's net level relative to the main one's; our choice, so that neither hides the other."""

NEGATIVE = "negative"
"""AC-0: no pattern, in place of a pattern and of an intensity."""

LABELS = (*PATTERNS, NEGATIVE)
"""Main patterns in the order of their class labels; those in `PATTERNS` have the same labels as there."""

NEGATIVE_NET = 1.8
"""Median level of nuclei above background without a pattern, in grey levels (our choice); with one it is 3 or more."""


def draw_pair(
    rng: np.random.Generator, pair: tuple[str, str], intensity: str, nuclear_diameter: float
) -> SpecimenParameters:
    """Draws the parameters of a specimen with two patterns.

    Args:
      rng: source of randomness.
      pair: one of `PAIRS`.
      intensity: of the main pattern, one of `INTENSITIES`.
      nuclear_diameter: median nuclear diameter over all specimens, in pixels.

    Raises:
      ValueError: the pair is not one of `PAIRS`; see `draw_specimen` for the rest.
    """
    if pair not in PAIRS:
        raise ValueError(f"patterns {pair[0]!r} and {pair[1]!r} are not one of the pairs; use one of {PAIRS}")
    main = draw_specimen(rng, pair[0], intensity, nuclear_diameter)
    second = draw_specimen(rng, pair[1], INTENSITIES[-1], nuclear_diameter)  # only its stain is used, not its level
    second = dataclasses.replace(second, net=main.net * rng.uniform(*SECOND_LEVEL), cytoplasm=0.0)
    if second.pattern == "nucleolar":  # otherwise, a nucleus would have bright nucleoli beside dark ones
        main = dataclasses.replace(main, texture=dataclasses.replace(main.texture, nucleolus_level=1.0))
    return dataclasses.replace(main, second=second)


def draw_negative(rng: np.random.Generator, nuclear_diameter: float) -> SpecimenParameters:
    """Draws the parameters of a negative specimen: hazy cell bodies and dim even nuclei, hardly above the background.

    Args:
      rng: source of randomness.
      nuclear_diameter: median nuclear diameter over all specimens, in pixels.
    """
    even = draw_specimen(rng, "homogeneous", INTENSITIES[0], nuclear_diameter)
    return dataclasses.replace(
        even,
        pattern=NEGATIVE,
        intensity=NEGATIVE,
        net=log_normal(rng, NEGATIVE_NET, 0.25),
        cytoplasm=rng.uniform(0.3, 0.7),
        haze=rng.uniform(0.35, 0.55),
        texture=dataclasses.replace(even.texture, contrast=rng.uniform(0.05, 0.1), nucleolus_level=1.0),
    )
