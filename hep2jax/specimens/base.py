"""The interface of whole-specimen reading: all fields of a specimen in; pattern, scores, intensity and masks out."""

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
"""The families of the survey's specimen level (its section 3.2): single-cell processing; multi-cell processing, of
pixels and of images; and networks that do several things at once."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """What a system says of one specimen."""

    specimen: str
    truth: int
    """The specimen's pattern."""
    pattern: int | None
    """What was read; None where the specimen was left out."""
    probabilities: Float[np.ndarray, " patterns"]
    """A score of every pattern, float64, none negative, of sum 1; zeros where the specimen was left out."""
    intensity: str = ""
    """One of the set's grades; empty where the system grades none."""
    masks: tuple[Bool[np.ndarray, "height width"], ...] = ()
    """What the system takes for cells, one mask a field in the order given, at native resolution; empty where it
    segments nothing itself."""
    left_out: str = ""
    """Why the specimen could not be read; else empty."""
    seconds: float = 0.0
    """Wall time of the reading; `comparison.compare` measures it."""


class System(Protocol):
    """A way of reading specimens, from training to the reading.

    Attributes:
        name: of the system, as in `systems.SYSTEMS`.
        family: one of `FAMILIES`.
        settings: all that decides its readings except the specimens: configurations and options, as `fingerprint`
            takes them.
    """

    name: str
    family: str
    settings: Any

    def fit(self, fields: FieldSet, train: Sequence[int], directory: pathlib.Path) -> None:
        """Learn from some specimens; what the directory keeps of the same specimens and settings is not learned again.

        Args:
            fields: every field at hand; those that `train` does not name must not be looked at.
            train: indices of the fields of the training specimens.
            directory: of this division of this set's specimens. All systems share it: each keeps what it learns in
                folders of its own there, and systems with a part in common (a network) share that part's folder.

        Raises:
            UsageError: something is missing that this system needs (weights, a package), or too few specimens.
        """
        ...

    def read(self, fields: Sequence[Field]) -> Reading:
        """Read one specimen from all its fields, at least one, once `fit` was called.

        A specimen that cannot be read is no error: the reading says why (`left_out`).
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageNetFeatures:
    """The published network whose features the systems `cells-*-pretrained_svm-*` and `forest` read."""

    network: str = pretrained.DEFAULT
    """One of `pretrained.NAMES`."""
    weights: pathlib.Path | None = None
    """File of its weights; None: the installed package, for the default network alone."""


Factory = Callable[[Mapping[str, Config], ImageNetFeatures], System]
"""Makes a system from the configurations of the networks by part (`cells`, `pixels`, `mil`, `joint`) and the published
network. KeyError where the part that the system needs has none for this data set."""


def without_pattern(fields: Sequence[Field], num_patterns: int, why: str, **rest) -> Reading:
    """The reading of a specimen that cannot be read; `rest` may give its masks."""
    return Reading(
        specimen=fields[0].specimen_id,
        truth=fields[0].pattern,
        pattern=None,
        probabilities=np.zeros(num_patterns),
        left_out=why,
        **rest,
    )


def by_specimen(fields: Iterable[Field]) -> dict[str, list[Field]]:
    """The fields of each specimen in order of their numbers, specimens in order of appearance."""
    groups = group_by(fields, lambda field: field.specimen_id)
    return {name: sorted(group, key=lambda field: field.number) for name, group in groups.items()}


def training_split(fields: FieldSet, train: Sequence[int]) -> FieldSet:
    """The training specimens' fields alone, all in the split `train`.

    A task made from it, with `data.protocol=contest`, is divided by `train` as the comparison divides.
    """
    chosen = tuple(dataclasses.replace(fields.fields[i], split="train") for i in train)
    return FieldSet(name=f"{fields.name}, the comparison's training specimens", classes=fields.classes, fields=chosen)


def prepared(field: Field, data: DataConfig) -> Field:
    """The field with working resolution and normalisation of another configuration; its channel stays."""
    return field_sets.make_field(
        config=data,
        **{
            column.name: getattr(field, column.name)
            for column in dataclasses.fields(Field)
            if column.name not in ("working_image", "working_classes", "grey_offset", "grey_gain")
        },
    )


def prepared_set(fields: FieldSet, data: DataConfig) -> FieldSet:
    """`prepared` of every field."""
    return dataclasses.replace(fields, fields=tuple(prepared(field, data) for field in fields.fields))


def train(directory: pathlib.Path, config: Config, task: Task) -> None:
    """Train on a task of the training specimens alone (see `training_split`), once; it goes on where it stopped.

    Raises:
        UsageError: the directory holds another experiment, or a network of other specimens.
    """
    divided = dataclasses.replace(config, data=dataclasses.replace(config.data, protocol="contest", fold=0))
    loop.complete(divided, directory, task)


def train_on_fields(
    config: Config,
    fields: FieldSet,
    chosen: Sequence[int],
    directory: pathlib.Path,
    make_task: Callable[[Config, FieldSet], Task],
) -> pathlib.Path:
    """Train the configured network on the training specimens' fields, once; its folder in the division's directory."""
    folder = directory / f"network-{config.model.name}"
    train(folder, config, make_task(config, prepared_set(training_split(fields, chosen), config.data)))
    return folder
