"""Made-up tables of items for tests of protocols: by hand, and of any shape."""

import dataclasses

import numpy as np

from hep2jax.data.sets.items import Item


def cells(
    specimens: int = 4, size: int = 5, patterns: int = 2, split: str = "train", known: bool = True, first: int = 1
) -> list[Item]:
    """`specimens` of `size` cells in each pattern, ids running on from `first`."""
    rows = [(p, f"s{p}{s}") for p in range(patterns) for s in range(specimens) for _ in range(size)]
    return [
        Item(identifier=f"{first + i:05d}", specimen=s * known, group=s * known, pattern=p, split=split)
        for i, (p, s) in enumerate(rows)
    ]


def change(items: list[Item], **columns) -> list[Item]:
    """The items with other values; a column is one value, or a function of the item."""
    return [
        dataclasses.replace(item, **{k: value(item) if callable(value) else value for k, value in columns.items()})
        for item in items
    ]


_SPLITS = (("train",), ("train", "test"), ("train", "validation", "test"), ("test",))
_COLUMNS = ("both", "specimen", "group")
_IDS = ("runs", "scattered", "fields")


def any_table(rng: np.random.Generator) -> list[Item]:
    """1 to 300 items of 1 to 8 patterns in any order.

    Specimens have any sizes, may repeat an earlier one (one group), may lack ids, may hold two patterns, and may be
    torn by the set's own splits; splits may be missing; ids are those of cells (numbers, following the specimens or
    not) or of fields (`<specimen>-<number>`).
    """
    splits = _SPLITS[rng.choice(4, p=[0.4, 0.3, 0.2, 0.1])]
    column, ids = _COLUMNS[rng.integers(3)], _IDS[rng.integers(3)]
    patterns, count, largest = rng.integers(1, 1 + rng.integers(1, 9)), rng.integers(1, 41), rng.choice([1, 6, 12, 60])
    copied, lost, mixed, torn = (rng.choice([0.0, s], p=[0.7, 0.3]) for s in (0.3, rng.random(), 0.1, 1.0))
    items, groups = [], []
    for number in range(count):
        groups.append(rng.choice(groups) if groups and rng.random() < copied else f"s{number}")
        known = rng.random() >= lost
        pattern, split = int(rng.integers(patterns)), str(rng.choice(splits))
        for k in range(rng.integers(1, largest + 1)):
            item = Item(
                identifier=f"{number}-{k}",
                specimen=f"s{number}" if known and column != "group" else "",
                group=str(groups[-1]) if known and column != "specimen" else "",
                pattern=int(rng.integers(patterns)) if rng.random() < mixed else pattern,
                split=str(rng.choice(splits)) if rng.random() < torn else split,
            )
            items.append(item)
    items = sorted(items[:300], key=lambda item: item.pattern)  # ids follow the specimens inside each pattern
    if ids != "fields":
        numbers = rng.permutation(len(items)) if ids == "scattered" else range(len(items))
        items = [dataclasses.replace(item, identifier=f"{1 + i:05d}") for item, i in zip(items, numbers, strict=True)]
    return [items[i] for i in rng.permutation(len(items))]
