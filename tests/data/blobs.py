"""Small made-up fields for tests of learning: blobs of three sizes are the patterns, in two intensities."""

import cv2
import numpy as np

from hep2jax.config import DataConfig
from hep2jax.data.sets.fields import Field, FieldSet, make_field

SIGMAS = (1.2, 3.0, 7.0)
"""Smoothing of the noise that makes the blobs of each pattern, in pixels."""
SHARES = (0.1, 0.25, 0.45)
"""Of the field that the blobs of each pattern cover."""
LEVELS = {"intermediate": 50.0, "positive": 150.0}
"""Grey levels of a blob above the background."""


def blob_field(specimen_id: str, *, pattern: int, number: int = 0, size: int = 96, config: DataConfig) -> Field:
    """One field; its intensity alternates with the last digit of the specimen's id."""
    rng = np.random.default_rng((number, sum(map(ord, specimen_id))))
    noise = cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), SIGMAS[pattern], borderType=cv2.BORDER_REFLECT)
    cells = noise > np.quantile(noise, 1 - SHARES[pattern])
    intensity = tuple(LEVELS)[int(specimen_id[-1]) % 2]
    grey = 20 + LEVELS[intensity] * cells + rng.normal(0, 2, noise.shape)
    return make_field(
        image=np.clip(grey, 0, 255).astype(np.uint8),
        classes=np.where(cells, pattern + 1, 0).astype(np.uint8),
        instances=cells.astype(np.uint16),
        specimen_id=specimen_id,
        number=number,
        split="train",
        pattern=pattern,
        intensity=intensity,
        config=config,
    )


def blob_set(specimens: int = 4, fields: int = 2, config: DataConfig | None = None, **settings) -> FieldSet:
    """`specimens` specimens of each of the three patterns, all in the training split."""
    made = tuple(
        blob_field(f"{pattern}-{specimen}", pattern=pattern, number=number, config=config or DataConfig(), **settings)
        for pattern in range(len(SIGMAS))
        for specimen in range(specimens)
        for number in range(fields)
    )
    return FieldSet(name="blobs", classes=("fine", "middle", "coarse"), fields=made)
