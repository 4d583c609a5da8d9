"""Whole-specimen systems: the families of the survey behind one interface, by name."""

import functools
import itertools
from collections.abc import Mapping

from hep2jax.config import Config
from hep2jax.systems.base import Factory, Reading, System
from hep2jax.systems.images import BagSystem, ForestOptions, ForestSystem
from hep2jax.systems.joint import JointSystem
from hep2jax.systems.pixels import PixelSystem
from hep2jax.systems.single_cells import FINDERS, READERS, RULES, CellOptions, CellSystem

__all__ = ["SYSTEMS", "Factory", "Reading", "System"]


def _single_cells(finder: str, reader: str, rule: str, configs: Mapping[str, Config]) -> CellSystem:
    segmenter = configs["pixels"] if finder == "predicted" else configs.get("pixels")
    drops = segmenter is not None and segmenter.evaluation.drop_cut_cells
    # For one CPU: the head's features cost minutes of SVMs, and on synthetic cells they were read worse than stage5's.
    layers, side = ("stage3", "stage5", "stage7"), 128
    options = CellOptions(finder=finder, reader=reader, rule=rule, drop_cut_cells=drops, layers=layers, side=side)
    return CellSystem(_cells_name(finder, reader, rule), options, configs["cells"], segmenter)


def _cells_name(finder: str, reader: str, rule: str) -> str:
    return f"cells-{finder}-{reader}-{rule}"


SYSTEMS: dict[str, Factory] = {
    **{
        _cells_name(*parts): functools.partial(_single_cells, *parts)
        for parts in itertools.product(FINDERS, READERS, RULES)
        if parts[1:] != ("network", "histogram_svm")
    },
    "pixels": lambda configs: PixelSystem("pixels", configs["pixels"]),
    "mil": lambda configs: BagSystem("mil", configs["mil"]),
    "forest": lambda configs: ForestSystem("forest", ForestOptions()),
    "joint": lambda configs: JointSystem("joint", configs["joint"]),
}
"""Every system by its name; those of single cells are `cells-<finder>-<reader>-<rule>`."""
