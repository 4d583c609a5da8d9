"""`calibration.json`: fitted on the validation split at the end of a run, and used for that checkpoint alone."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from hep2jax import files
from hep2jax.data.sets.appearance import Detector
from hep2jax.data.splits import protocols
from hep2jax.fingerprint import fingerprint
from hep2jax.metrics.calibration import CalibrationMetrics
from hep2jax.metrics.grouping import evenly_spread
from hep2jax.progress import warn
from hep2jax.tasks import Task
from hep2jax.tasks import calibration as calibrations
from hep2jax.tasks.calibration import Calibration, Identity
from hep2jax.training import workdir

_MOST_PICTURES = 1000  # each costs milliseconds


def read(directory: pathlib.Path, step: int) -> Calibration | None:
    """The calibration of the checkpoint of this step; None if there is none. A warning names a damaged file."""
    path = directory / calibrations.FILE
    if not path.exists():
        return None
    try:
        found = Calibration.from_record(files.read_json(path))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        warn(f"{path}: is damaged, so nothing is said of confidence; --mode=evaluate makes it again")
        return None
    return found if found.identity.step == step else None


def prepare(
    task: Task,
    directory: pathlib.Path,
    partition: protocols.Partition,
    step: int,
    results: Mapping[str, Sequence[Any]],
    *,
    renews: bool,
) -> Calibration | None:
    """The calibration of a network that was just measured: the one in the work directory, or a new one, written there.

    Only the process that writes files calls this.

    Args:
        task: the data that it was measured on.
        directory: its work directory.
        partition: the division of these data.
        step: the step of its checkpoint.
        results: by split.
        renews: whether one for other evaluation settings is replaced, as at the end of a training run.

    Returns:
        None if there is none, and these data are not those of the training run or have no validation split.
    """
    kept = read(directory, step)
    if kept is not None and not renews:
        return kept
    trained_on = task.fingerprint(partition.train)
    if not partition.validation or files.read_json(directory / workdir.TRAINED_ON) != trained_on:
        return kept
    identity = Identity(
        step=step,
        trained_on=trained_on,
        validated_on=task.fingerprint(partition.validation),
        settings=fingerprint(dataclasses.replace(task.config.evaluation, refer_below=-1.0, gallery_specimens=0)),
    )
    if kept is not None and kept.identity == identity:
        return kept
    made = _fit(task, partition, identity, results["validation"])
    files.write_json(directory / calibrations.FILE, made.to_record())
    return made


def _fit(task: Task, partition: protocols.Partition, identity: Identity, results: Sequence[Any]) -> Calibration:
    detector = Detector.fit(
        (task.picture(i) for i in evenly_spread(partition.train, _MOST_PICTURES)),
        (task.picture(i) for i in evenly_spread(partition.validation, _MOST_PICTURES)),
        judges_signal=task.layout.unit == "image",
    )
    return calibrations.fit(
        [task.outcome(result) for result in results],
        detector,
        identity=identity,
        least=task.least_probability,
        several=task.several,
        pattern_threshold=task.config.evaluation.pattern_threshold,
        knows_negatives=task.has_negatives(partition.train),
    )


def measure(calibration: Calibration, task: Task, indices: Sequence[int], results: Sequence[Any]) -> CalibrationMetrics:
    """How well the confidences hold on the examples of a split."""
    return calibration.with_threshold(task.config.evaluation.refer_below).measure(
        [task.outcome(result) for result in results],
        [task.picture(i) for i in evenly_spread(indices, _MOST_PICTURES)],
        unit=task.layout.unit,
        in_sample=task.fingerprint(indices) == calibration.identity.validated_on,
    )
