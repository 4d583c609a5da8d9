"""Which example comes next: balanced draws, or every example once an epoch."""

import functools
from collections.abc import Sequence

import numpy as np

from hep2jax.data.items import Item


class Sampler:
    """Draws examples; see `DataConfig.balance` for the four ways."""

    def __init__(self, items: Sequence[Item], balance: str, seed: int) -> None:
        self._size = len(items)
        self._seed = seed
        self._tree = None if balance == "none" else _tree(items, balance)
        self._epoch_order = functools.lru_cache(maxsize=2)(self._shuffle)

    def draw(self, rng: np.random.Generator, position: int) -> int:
        """The index of one example: a random one, or that of `position` in the endless row of shuffled epochs."""
        if self._tree is None:
            epoch, place = divmod(position, self._size)
            return int(self._epoch_order(epoch)[place])
        specimens = self._tree[rng.integers(len(self._tree))]
        examples = specimens[rng.integers(len(specimens))]
        return examples[rng.integers(len(examples))]

    def _shuffle(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, epoch, self._size)).permutation(self._size)


def _tree(items: Sequence[Item], balance: str) -> list[list[list[int]]]:
    """Pattern → specimen → examples, with one branch for all where a level is not balanced."""
    tree: dict[int, dict[str, list[int]]] = {}
    for index, item in enumerate(items):
        pattern = 0 if balance == "specimen" else item.pattern
        specimen = "" if balance == "class" else item.specimen
        tree.setdefault(pattern, {}).setdefault(specimen, []).append(index)
    return [[tree[p][s] for s in sorted(tree[p])] for p in sorted(tree)]
