"""Small made-up fields for tests of the data rooms."""

import numpy as np

from hep2jax.config import DataConfig
from hep2jax.data.sets.fields import Field, FieldSet, make_field


def disc_field(
    specimen_id: str, *, pattern: int, split: str = "train", number: int = 0, size: int = 160, seed: int = 0
) -> Field:
    """A field with a few bright discs on a dim, noisy background."""
    rng = np.random.default_rng((seed, number, sum(map(ord, specimen_id))))
    rows, columns = np.mgrid[:size, :size]
    instances = np.zeros((size, size), np.uint16)
    for k in range(1, 7):
        y, x = rng.uniform(10, size - 10, 2)
        instances[(rows - y) ** 2 + (columns - x) ** 2 < 100] = k
    grey = 20 + 60 * (instances > 0) + 10 * pattern * (instances % 2) + rng.normal(0, 2, instances.shape)
    return make_field(
        image=np.clip(grey, 0, 255).astype(np.uint8),
        classes=np.where(instances > 0, pattern + 1, 0).astype(np.uint8),
        instances=instances,
        specimen_id=specimen_id,
        number=number,
        split=split,
        pattern=pattern,
        intensity="positive",
        config=DataConfig(),
    )


def field_set(num_patterns: int = 3, specimens: int = 3, fields: int = 2, splits: tuple[str, ...] = ("train",)):
    """`specimens` specimens of each pattern in each split, with `fields` fields each."""
    names = tuple(f"pattern{p}" for p in range(num_patterns))
    made = tuple(
        disc_field(f"{split}-{p}-{s}", pattern=p, split=split, number=f)
        for split in splits
        for p in range(num_patterns)
        for s in range(specimens)
        for f in range(fields)
    )
    return FieldSet(name="made_up", classes=names, fields=made)
