"""Joint reading: one network segments, names the pattern and grades the intensity, patch by patch."""

import pathlib
from collections.abc import Sequence

import numpy as np

from hep2jax import evaluation, specimen, tasks
from hep2jax import mesh as meshes
from hep2jax import state as states
from hep2jax.config import Config
from hep2jax.data.joint_stream import GRADES
from hep2jax.data.sources import Field, FieldSet
from hep2jax.systems import base
from hep2jax.systems.base import Reading
from hep2jax.tasks.joint_task import JointEvaluator, JointTask, majority


class JointSystem:
    """Reads a specimen by the majority of its patches, of all fields (Percannella et al. 2022; see `models.joint`)."""

    family = "joint"

    def __init__(self, name: str, config: Config) -> None:
        self.name, self.settings = name, config

    def fit(self, fields: FieldSet, train: Sequence[int], directory: pathlib.Path) -> None:
        """Train the network; see `base.System`."""
        config = self.settings
        self._parameters, classes = evaluation.load_parameters(
            base.train_on_fields(config, fields, train, directory, JointTask)
        )
        network = states.make_network(config, tasks.num_outputs(config, classes))
        self._evaluator = JointEvaluator(config, network, meshes.make_mesh())

    def read(self, fields: Sequence[Field]) -> Reading:
        """One specimen; its probabilities are the means over the patches that vote, its pattern is their majority's."""
        ready = [base.prepared(field, self.settings.data) for field in fields]
        votes = self._evaluator.read(self._parameters, ready)
        masks = tuple(row.foreground for row in votes)
        pattern, grade = majority(votes)
        if pattern is None or grade is None:
            return base.without_pattern(fields, len(votes[0].patterns), specimen.NO_CELL, masks=masks)
        patches = [int(row.patterns.sum()) for row in votes]
        return Reading(
            specimen=fields[0].specimen_id,
            truth=fields[0].pattern,
            pattern=pattern,
            probabilities=np.average([row.mean_probability for row in votes], axis=0, weights=patches),
            intensity=GRADES[grade],
            masks=masks,
        )
