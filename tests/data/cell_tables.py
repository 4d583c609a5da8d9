"""Small made-up cells for tests of the data rooms and of the networks that read them."""

import numpy as np

from hep2jax.config import DataConfig
from hep2jax.data.sets.cells import Cell, CellSet, preprocess
from hep2jax.data.sets.items import Item

PATTERNS = ("disc", "ring", "dots")


def picture(pattern: int, rng: np.random.Generator, size: int = 70) -> tuple[np.ndarray, np.ndarray]:
    """A nucleus in one of three made-up patterns, uint8 [h, w], and its mask."""
    height, width = size + int(rng.integers(0, 8)), size + int(rng.integers(0, 8))
    rows, columns = np.mgrid[:height, :width]
    y, x = height / 2 + rng.uniform(-3, 3), width / 2 + rng.uniform(-3, 3)
    radius = size * rng.uniform(0.3, 0.36)
    distance = np.hypot(rows - y, columns - x)
    mask = distance < radius
    signal = {0: mask * 1.0, 1: mask * (distance > 0.75 * radius) + 0.3 * mask}.get(pattern)
    if signal is None:
        signal = 0.3 * mask
        for _ in range(12):
            angle, place = rng.uniform(0, 2 * np.pi), radius * np.sqrt(rng.uniform(0, 0.6))
            spot = np.hypot(rows - y - place * np.sin(angle), columns - x - place * np.cos(angle))
            signal = np.maximum(signal, (spot < 3) * 1.0)
    grey = 15 + rng.uniform(30, 120) * signal + rng.normal(0, 1.5, mask.shape)
    return np.clip(grey, 0, 255).astype(np.uint8), mask


def cell_set(
    config: DataConfig, *, specimens: int = 3, cells: int = 6, num_patterns: int = 3, seed: int = 0
) -> CellSet:
    """`specimens` specimens of each pattern with `cells` cells each, all in the training split."""
    rng = np.random.default_rng(seed)
    made = []
    for pattern in range(num_patterns):
        for number in range(specimens * cells):
            specimen = f"{PATTERNS[pattern]}-{number // cells}"
            image, mask = picture(pattern, rng)
            ready, tone_curve = preprocess(image, mask, config)
            item = Item(
                identifier=f"{pattern}{number:04d}", specimen=specimen, group=specimen, pattern=pattern, split="train"
            )
            made.append(Cell(item=item, intensity="positive", image=image, ready=ready, tone_curve=tone_curve))
    return CellSet(name="made_up", classes=PATTERNS[:num_patterns], cells=tuple(made))
