"""Masks and objects drawn at random."""

import numpy as np


def random_masks(seed, shape=(23, 31)):
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.05, 0.95, 3)
    return tuple(rng.random(shape) < s for s in share)


def random_objects(seed, shape=(24, 30), num=6):
    """Discs that may overlap and need not be connected; labels have gaps."""
    rng = np.random.default_rng(seed)
    objects = np.zeros(shape, np.int32)
    rows, columns = np.indices(shape)
    for label in rng.permutation(40)[: rng.integers(0, num + 1)] + 1:
        y, x, radius = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(1, 7)
        objects[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = label
    return objects
