"""Samples examples for batches: balanced random draws, or every example once an epoch."""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from hep2jax.data.sets.items import Item


class Sampler:
    """Draws examples in one of the four ways of `DataConfig.balance`.

    Attributes:
        shares: probability of each example in a draw, float64 [examples]; the sum is 1.
    """

    def __init__(self, items: Sequence[Item], balance: str, seed: int) -> None:
        self._size = len(items)
        self._seed = seed
        self._tree = None if balance == "none" else _Tree(items, balance)
        self.shares = np.full(self._size, 1 / self._size) if self._tree is None else self._tree.shares(self._size)
        self._epoch_order = functools.lru_cache(maxsize=2)(self._shuffle)

    def draw(self, rng: np.random.Generator, first: int, count: int) -> Int64[np.ndarray, " count"]:
        """Indices of `count` examples.

        With balancing they are random; otherwise they start at position `first` of the endless sequence of shuffled
        epochs.
        """
        if self._tree is not None:
            return self._tree.draw(rng.uniform(size=(3, count)))
        epochs, positions = np.divmod(np.arange(first, first + count), self._size)
        orders = [self._epoch_order(int(epoch)) for epoch in range(epochs[0], epochs[-1] + 1)]
        return np.concatenate(orders)[positions + (epochs - epochs[0]) * self._size]

    def _shuffle(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, epoch, self._size)).permutation(self._size)


class _Tree:
    """A tree of patterns, specimens and examples, as flat arrays. A level that is not balanced has a single branch.

    An example with several patterns is on the branch of each; those without a pattern have their own branch.
    """

    def __init__(self, items: Sequence[Item], balance: str) -> None:
        groups: dict[tuple[int, str], list[int]] = {}
        for index, item in enumerate(items):
            specimen = "" if balance == "class" else item.specimen
            for pattern in (0,) if balance == "specimen" else item.patterns:
                groups.setdefault((pattern, specimen), []).append(index)
        ordered = sorted(groups)
        self._groups = np.unique([pattern for pattern, _ in ordered], return_counts=True)[1]
        self._sizes = np.array([len(groups[key]) for key in ordered])
        self._first_groups, self._first_positions = _starts(self._groups), _starts(self._sizes)
        self._examples = np.concatenate([groups[key] for key in ordered])

    def shares(self, count: int) -> Float64[np.ndarray, " count"]:
        """Probability of each of `count` examples in one draw."""
        of_group = np.repeat(1 / (len(self._groups) * self._groups), self._groups)
        return np.bincount(self._examples, np.repeat(of_group / self._sizes, self._sizes), minlength=count)

    def draw(self, uniform: np.ndarray) -> np.ndarray:
        """Examples for random numbers in [0, 1), shape [3, count], which select pattern, specimen and example."""
        pattern = (uniform[0] * len(self._groups)).astype(int)
        group = self._first_groups[pattern] + (uniform[1] * self._groups[pattern]).astype(int)
        position = self._first_positions[group] + (uniform[2] * self._sizes[group]).astype(int)
        return self._examples[position]


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.cumsum(lengths) - lengths
