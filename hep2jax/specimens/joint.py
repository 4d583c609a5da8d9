"""Joint reading: one network segments patches, classifies their pattern and grades their intensity."""

import pathlib
from collections.abc import Sequence

import numpy as np

from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data.sets.fields import Field, FieldSet
from hep2jax.data.streams.joint import GRADES
from hep2jax.specimens import base, voting
from hep2jax.specimens.base import Reading
from hep2jax.tasks.joint import JointEvaluator, JointTask, majority
from hep2jax.training import evaluation


class JointSystem:
    """Classifies a specimen by a majority vote over the patches of all fields.

    Percannella et al. 2022; see `models.joint`.
    """

    family = "joint"

    def __init__(self, name: str, config: Config) -> None:
        self.name, self.settings = name, config

    def fit(self, fields: FieldSet, train: Sequence[int], directory: pathlib.Path) -> None:
        """Train the network; see `base.System`."""
        config = self.settings
        trained = evaluation.load(base.train_on_fields(config, fields, train, directory, JointTask))
        self._parameters = trained.parameters
        self._evaluator = JointEvaluator(config, trained.network, meshes.make_mesh())

    def read(self, fields: Sequence[Field]) -> Reading:
        """Read one specimen: the pattern is the majority over the voting patches, the probabilities are their means."""
        prepared = [base.prepare_field(field, self.settings.data) for field in fields]
        votes = list(self._evaluator.read(self._parameters, prepared))
        masks = tuple(field_votes.foreground for field_votes in votes)
        pattern, grade = majority(votes)
        if pattern is None or grade is None:
            return base.without_pattern(fields, len(votes[0].patterns), voting.NO_CELL, masks=masks)
        num_patches = [int(field_votes.patterns.sum()) for field_votes in votes]
        return Reading(
            specimen=fields[0].specimen_id,
            truth=fields[0].pattern,
            pattern=pattern,
            probabilities=np.average(
                [field_votes.mean_probability for field_votes in votes], axis=0, weights=num_patches
            ),
            intensity=GRADES[grade],
            masks=masks,
        )
