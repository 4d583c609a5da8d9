"""The interface of systems that read whole specimens.

A system receives all fields of a specimen and returns its pattern, scores, intensity and masks.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float

from hep2jax.config import Config, DataConfig
from hep2jax.data.sets import fields as field_sets
from hep2jax.data.sets.fields import Field, FieldSet
from hep2jax.metrics.grouping import group_by
from hep2jax.models import pretrained
from hep2jax.tasks import Task
from hep2jax.training import loop

FAMILIES = ("single cells", "pixels", "images", "joint")
"""The families of specimen-level methods in section 3.2 of the survey: single-cell processing, multi-cell processing
of pixels or of images, and networks that solve several tasks at once."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """The result that a system returns for one specimen."""

    specimen: str
    truth: int
    """The annotated pattern of the specimen."""
    pattern: int | None
    """The predicted pattern; None if the specimen could not be read."""
    probabilities: Float[np.ndarray, " patterns"]
    """Scores of the patterns, float64, not negative and summing to 1; all zeros if the specimen could not be read."""
    intensity: str = ""
    """The predicted grade, one of those of the data set; empty if the system does not grade intensity."""
    masks: tuple[Bool[np.ndarray, "_ _"], ...] = ()
    """The predicted cell pixels, one mask for each field in the order of the input, at native resolution; empty if the
    system does not segment."""
    left_out: str = ""
    """Why the specimen could not be read; empty if it was read."""
    seconds: float = 0.0
    """Wall time of `System.read`, which `comparison.compare` measures."""


class System(Protocol):
    """A method that classifies specimens, with its training.

    Attributes:
        name: name of the system, as in `systems.SYSTEMS`.
        family: one of `FAMILIES`.
        settings: the configurations and options that determine the results, apart from the specimens. `fingerprint`
            must accept them.
    """

    name: str
    family: str
    settings: Any

    def fit(self, fields: FieldSet, train: Sequence[int], directory: pathlib.Path) -> None:
        """Train on the training specimens. Results for the same specimens and settings in the directory are reused.

        Args:
            fields: all fields of the data set; fields that are not in `train` must not be used.
            train: indices of the fields of the training specimens.
            directory: directory of this partition of the data set. All systems share it. Each system stores its
                results in separate folders there, and systems that use the same network share the folder of the
                network.

        Raises:
            UsageError: something that this system needs (weights, a package) is missing, or there are too few
                specimens.
        """
        ...

    def read(self, fields: Sequence[Field]) -> Reading:
        """Read one specimen from all its fields, of which there is at least one; `fit` must have been called.

        A specimen that cannot be read does not raise an error: `Reading.left_out` gives the reason.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageNetFeatures:
    """The published network that provides features to the systems `cells-*-pretrained_svm-*` and `forest`."""

    network: str = pretrained.DEFAULT
    """One of `pretrained.NAMES`."""
    weights: pathlib.Path | None = None
    """File with its weights; None: use the installed package, which is possible for the default network only."""


Factory = Callable[[Mapping[str, Config], ImageNetFeatures], System]
"""Makes a system from the published network and the configurations of the other networks, which are keyed by part:
`cells`, `pixels`, `mil` or `joint`. Raises KeyError if a part that the system needs is not in the mapping."""


def without_pattern(fields: Sequence[Field], num_patterns: int, why: str, **rest) -> Reading:
    """The result for a specimen that cannot be read, with the reason `why`; `rest` may contain its masks."""
    return Reading(
        specimen=fields[0].specimen_id,
        truth=fields[0].pattern,
        pattern=None,
        probabilities=np.zeros(num_patterns),
        left_out=why,
        **rest,
    )


def by_specimen(fields: Iterable[Field]) -> dict[str, list[Field]]:
    """The fields of each specimen, ordered by field number; specimens are in order of their first appearance."""
    groups = group_by(fields, lambda field: field.specimen_id)
    return {name: sorted(group, key=lambda field: field.number) for name, group in groups.items()}


def training_split(fields: FieldSet, train: Sequence[int]) -> FieldSet:
    """A set that contains only the fields of the training specimens, all assigned to the split `train`.

    With `data.protocol=contest`, a task that is made from this set trains on exactly the specimens that the comparison
    trains on.
    """
    training_fields = tuple(dataclasses.replace(fields.fields[i], split="train") for i in train)
    return FieldSet(
        name=f"{fields.name}, the comparison's training specimens", classes=fields.classes, fields=training_fields
    )


def prepare_field(field: Field, data: DataConfig) -> Field:
    """The field with the working resolution and normalisation of another configuration; the channel does not change."""
    return field_sets.make_field(
        config=data,
        **{
            column.name: getattr(field, column.name)
            for column in dataclasses.fields(Field)
            if column.name not in ("working_image", "working_classes", "grey_offset", "grey_gain")
        },
    )


def prepare_fields(fields: FieldSet, data: DataConfig) -> FieldSet:
    """Apply `prepare_field` to every field of a set."""
    return dataclasses.replace(fields, fields=tuple(prepare_field(field, data) for field in fields.fields))


def train(directory: pathlib.Path, config: Config, task: Task) -> None:
    """Train on a task that contains only the training specimens (see `training_split`).

    A training run that was interrupted continues; one that is complete is not repeated.

    Raises:
        UsageError: the directory holds another experiment, or a network that was trained on other specimens.
    """
    contest_config = dataclasses.replace(config, data=dataclasses.replace(config.data, protocol="contest", fold=0))
    loop.complete(contest_config, directory, task)


def train_on_fields(
    config: Config,
    fields: FieldSet,
    indices: Sequence[int],
    directory: pathlib.Path,
    make_task: Callable[[Config, FieldSet], Task],
) -> pathlib.Path:
    """Train the configured network on the fields with these indices; returns its folder in `directory`."""
    folder = directory / f"network-{config.model.name}"
    train(folder, config, make_task(config, prepare_fields(training_split(fields, indices), config.data)))
    return folder
