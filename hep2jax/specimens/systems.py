"""The systems that read whole specimens, by name; each belongs to one family of the survey."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping

from hep2jax.config import Config
from hep2jax.models import pretrained
from hep2jax.specimens.base import Factory, ImageNetFeatures, Reading, System
from hep2jax.specimens.images import BagSystem, ForestOptions, ForestSystem
from hep2jax.specimens.joint import JointSystem
from hep2jax.specimens.pixels import PixelSystem
from hep2jax.specimens.single_cells import FINDERS, READERS, RULES, CellOptions, CellSystem

__all__ = ["SYSTEMS", "Factory", "ImageNetFeatures", "Reading", "System"]


def _single_cells(
    finder: str, reader: str, rule: str, configs: Mapping[str, Config], features: ImageNetFeatures
) -> CellSystem:
    segmenter = configs["pixels"] if finder == "predicted" else configs.get("pixels")
    drop_cut_cells = segmenter is not None and segmenter.evaluation.drop_cut_cells
    options = CellOptions(
        finder=finder,
        reader=reader,
        rule=rule,
        drop_cut_cells=drop_cut_cells,
        pretrained=features.network,
        weights=features.weights,
        # The head is left out: on one CPU, its SVMs take minutes, and on synthetic cells it was worse than stage5.
        **({"layers": ("stage3", "stage5", "stage7"), "side": 128} if features.network in pretrained.PACKAGED else {}),
    )
    return CellSystem(_cells_name(finder, reader, rule), options, configs["cells"], segmenter)


def _cells_name(finder: str, reader: str, rule: str) -> str:
    return f"cells-{finder}-{reader}-{rule}"


SYSTEMS: dict[str, Factory] = {
    **{
        _cells_name(*parts): functools.partial(_single_cells, *parts)
        for parts in itertools.product(FINDERS, READERS, RULES)
        if parts[1:] != ("network", "histogram_svm")
    },
    "pixels": lambda configs, _: PixelSystem("pixels", configs["pixels"]),
    "mil": lambda configs, _: BagSystem("mil", configs["mil"]),
    "forest": lambda _, features: ForestSystem("forest", ForestOptions(**dataclasses.asdict(features))),
    "joint": lambda configs, _: JointSystem("joint", configs["joint"]),
}
"""All systems by name; those of single cells are named `cells-<finder>-<reader>-<rule>`."""
