"""Multi-cell processing, pixel-wise: a network labels every pixel, and the foreground of all fields votes."""

import functools
import pathlib
from collections.abc import Sequence

import numpy as np

from hep2jax import evaluation, specimen, tasks, workdir
from hep2jax import mesh as meshes
from hep2jax import state as states
from hep2jax.config import Config
from hep2jax.data.sources import Field, FieldSet
from hep2jax.systems import base
from hep2jax.systems.base import Reading
from hep2jax.tasks import FieldTask
from hep2jax.tasks.field_task import FieldEvaluator, FieldReading


class PixelNetwork:
    """A trained network of fields, compiled."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.config, self.classes = workdir.open_for_reading(directory), workdir.read_classes(directory)
        self._parameters, _ = evaluation.load_parameters(directory)
        network = states.make_network(self.config, tasks.num_outputs(self.config, self.classes))
        self._evaluator = FieldEvaluator(self.config, network, meshes.make_mesh())

    def read(self, fields: Sequence[Field]) -> list[FieldReading]:
        """Every field, in order."""
        ready = [base.prepared(field, self.config.data) for field in fields]
        return list(self._evaluator.read_pixels(self._parameters, ready))


def fit_network(config: Config, fields: FieldSet, train: Sequence[int], directory: pathlib.Path) -> PixelNetwork:
    """Train the configured network of fields in a folder of its own, once; ready to read."""
    return _open(base.train_on_fields(config, fields, train, directory, FieldTask))


@functools.lru_cache(maxsize=2)
def _open(folder: pathlib.Path) -> PixelNetwork:
    """A finished folder does not change, and several systems read with the same network."""
    return PixelNetwork(folder)


class PixelSystem:
    """Reads a specimen by the vote of its foreground pixels, all fields together (Li, Shen, Yu 2017)."""

    family = "pixels"

    def __init__(self, name: str, config: Config) -> None:
        self.name, self.settings = name, config

    def fit(self, fields: FieldSet, train: Sequence[int], directory: pathlib.Path) -> None:
        """Train the network; see `base.System`."""
        self._network = fit_network(self.settings, fields, train, directory)

    def read(self, fields: Sequence[Field]) -> Reading:
        """One specimen; one without a foreground pixel is left out."""
        read = self._network.read(fields)
        votes, masks = np.stack([field.votes for field in read]), tuple(field.foreground for field in read)
        pattern = specimen.vote(votes)
        if pattern is None:
            return base.without_pattern(fields, votes.shape[1], specimen.NO_CELL, masks=masks)
        return Reading(
            specimen=fields[0].specimen_id,
            truth=fields[0].pattern,
            pattern=pattern,
            probabilities=specimen.vote_shares(votes),
            masks=masks,
        )
