"""Multi-cell processing of pixels: a network classifies every pixel, and the foreground pixels of all fields vote."""

import functools
import pathlib
from collections.abc import Sequence

import numpy as np

from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data.sets.fields import Field, FieldSet
from hep2jax.specimens import base, voting
from hep2jax.specimens.base import Reading
from hep2jax.tasks import FieldTask
from hep2jax.tasks.fields import FieldEvaluator, FieldReading
from hep2jax.training import evaluation


class PixelNetwork:
    """A trained and compiled segmentation network."""

    def __init__(self, directory: pathlib.Path) -> None:
        trained = evaluation.load(directory)
        self.config, self.classes, self._parameters = trained.config, trained.classes, trained.parameters
        self._evaluator = FieldEvaluator(self.config, trained.network, meshes.make_mesh())

    def read(self, fields: Sequence[Field]) -> list[FieldReading]:
        """Results of the fields, in input order."""
        prepared = [base.prepare_field(field, self.config.data) for field in fields]
        return list(self._evaluator.read_pixels(self._parameters, prepared, self.classes))


def fit_network(config: Config, fields: FieldSet, train: Sequence[int], directory: pathlib.Path) -> PixelNetwork:
    """Train the configured segmentation network in its own folder, if it is not yet trained, and load it."""
    return _open(base.train_on_fields(config, fields, train, directory, FieldTask))


@functools.lru_cache(maxsize=2)
def _open(folder: pathlib.Path) -> PixelNetwork:
    """Load a trained network. It can be cached: a finished folder does not change, and several systems share it."""
    return PixelNetwork(folder)


class PixelSystem:
    """Classifies a specimen by a vote of the foreground pixels of all fields (Li, Shen, Yu 2017)."""

    family = "pixels"

    def __init__(self, name: str, config: Config) -> None:
        self.name, self.settings = name, config

    def fit(self, fields: FieldSet, train: Sequence[int], directory: pathlib.Path) -> None:
        """Train the network; see `base.System`."""
        self._network = fit_network(self.settings, fields, train, directory)

    def read(self, fields: Sequence[Field]) -> Reading:
        """Read one specimen; without any foreground pixel, it gets no pattern."""
        readings = self._network.read(fields)
        votes, masks = np.stack([row.votes for row in readings]), tuple(row.foreground for row in readings)
        pattern = voting.vote(votes)
        if pattern is None:
            return base.without_pattern(fields, votes.shape[1], voting.NO_CELL, masks=masks)
        return Reading(
            specimen=fields[0].specimen_id,
            truth=fields[0].pattern,
            pattern=pattern,
            probabilities=voting.vote_shares(votes),
            masks=masks,
        )
