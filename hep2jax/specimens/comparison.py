"""Systems side by side: the same specimens held out for each, readings kept as they come, metrics over all of them."""

import collections
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hep2jax.data.sets.fields import Field, FieldSet
from hep2jax.data.splits.protocols import Partition
from hep2jax.errors import UsageError
from hep2jax.fingerprint import fingerprint
from hep2jax.metrics.classification import ClassMetrics, classification_metrics
from hep2jax.metrics.estimates import Estimate
from hep2jax.metrics.intervals import clustered_interval, paired_interval, score_interval
from hep2jax.metrics.pixels import VOID, PixelCounts, count_pixels
from hep2jax.metrics.segmentation import ImageScore, segmentation_metrics
from hep2jax.metrics.serialise import to_dict
from hep2jax.progress import say
from hep2jax.specimens import base
from hep2jax.specimens.base import Reading, System
from hep2jax.training import workdir


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """A reading and what its masks are worth; goes into JSON."""

    reading: Reading
    """Without its masks."""
    intensity: str
    """The specimen's true grade."""
    pixels: PixelCounts | None
    """Cell against background over all its fields, void left out; None where the system gives no masks."""
    alone: tuple[int | None, ...]
    """What is read from each of its fields by itself; empty where there is one field only."""


def compare(
    systems: Sequence[System],
    fields: FieldSet,
    partitions: Sequence[Partition],
    directory: pathlib.Path,
) -> dict[str, Any]:
    """Fit every system on every partition's training side, read its test specimens, pool.

    Finished readings are kept in `directory/division-NN/readings/<system>.json` and not made again, except where they
    are of other specimens or of other settings of the system. A system that cannot be fitted (weights that are not
    there, a network of other specimens in its folder) is named with the reason, and the others go on.

    Args:
        systems: their names differ.
        fields: of the data set.
        partitions: of its items; each specimen is tested at most once.
        directory: for this data set and these partitions alone.

    Returns:
        `classes`; `num_divisions`; `leakage_note`; `missing_fields` (lines); `unavailable` {system: reason};
        `systems` {name: `SystemMetrics` as a dictionary}.

    Raises:
        UsageError: nothing to train or test on, or no system could be fitted.
    """
    for number, part in enumerate(partitions):
        if not part.train or not part.test:
            raise UsageError(f"{fields.name}: division {number + 1} has no specimens to train on, or none to test")
    prints = [fingerprint(field) for field in fields.fields]
    measured: dict[str, list[Measured]] = {}
    unavailable: dict[str, str] = {}
    for system in systems:
        try:
            measured[system.name] = [
                row
                for number, part in enumerate(partitions)
                for row in _division(
                    system, fields, prints, part, directory / f"division-{number:02d}", len(partitions)
                )
            ]
        except UsageError as error:
            unavailable[system.name] = str(error)
            say(f"{system.name}: left out: {error}")
    if not measured:
        raise UsageError("no system could be fitted: " + "; ".join(f"{n}: {why}" for n, why in unavailable.items()))
    tested = {i for part in partitions for i in part.test}
    leaking = [part for part in partitions if part.specimen_leakage]
    return {
        "classes": list(fields.classes),
        "num_divisions": len(partitions),
        "specimen_leakage": bool(leaking),
        "leakage_note": (leaking or list(partitions))[0].leakage_note,
        "missing_fields": missing_fields([fields.fields[i] for i in sorted(tested)]),
        "unavailable": unavailable,
        "systems": {
            system.name: to_dict(system_metrics(system.family, measured[system.name], fields.classes))
            for system in systems
            if system.name in measured
        },
    }


def _division(
    system: System,
    fields: FieldSet,
    prints: Sequence[str],
    part: Partition,
    directory: pathlib.Path,
    count: int,
) -> list[Measured]:
    """The readings of a division's test specimens, from their file where it holds these."""
    path = directory / "readings" / f"{system.name}.json"
    sides = [[prints[i] for i in side] for side in (part.train, part.test)]
    identity = fingerprint(system.settings, fields.classes, sides)
    kept = json.loads(path.read_text()) if path.exists() else {}
    if not isinstance(kept, dict) or kept.get("identity") != identity:
        say(f"{system.name}, {directory.name} of {count}")
        system.fit(fields, part.train, directory)
        groups = base.by_specimen(fields.fields[i] for i in part.test)
        system.read(next(iter(groups.values())))  # compiles, which is no part of the reading's time
        rows = [_measure(system.read, group, fields.classes) for group in groups.values()]
        kept = {"identity": identity, "readings": [to_record(row) for row in rows]}
        workdir.write_json(path, kept)
    return [from_record(record) for record in kept["readings"]]


def _measure(read: Callable[[Sequence[Field]], Reading], group: Sequence[Field], classes: Sequence[str]) -> Measured:
    started = time.perf_counter()
    reading = read(group)
    seconds = time.perf_counter() - started
    pixels = None
    if reading.masks:
        pairs = zip(group, reading.masks, strict=True)
        pixels = sum((_count(field, mask) for field, mask in pairs), PixelCounts())
    if reading.pattern is not None and not 0 <= reading.pattern < len(classes):
        raise ValueError(f"{reading.specimen}: pattern {reading.pattern} is none of the {len(classes)}")
    return Measured(
        reading=dataclasses.replace(reading, masks=(), seconds=seconds),
        intensity=group[0].intensity,
        pixels=pixels,
        alone=tuple(read([field]).pattern for field in group) if len(group) > 1 else (),
    )


def _count(field: Field, mask: np.ndarray) -> PixelCounts:
    valid = field.classes != VOID
    return count_pixels(mask, (field.classes > 0) & valid, valid)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SystemMetrics:
    """What a system achieves on specimens; one that was left out counts as an error."""

    family: str
    """One of `base.FAMILIES`."""
    accuracy: Estimate
    """Of specimens, the contests' ACA."""
    mca: Estimate
    ci_method: str
    """Of `accuracy` and `mca`."""
    per_class: Mapping[str, ClassMetrics]
    confusion: tuple[tuple[int, ...], ...]
    num_specimens: int | None
    Dice: Estimate
    JA: Estimate
    """Of the foreground, see `segmentation_metrics`; undefined where the system gives no masks."""
    intensity_accuracy: Estimate
    """With Wilson's interval; undefined where the system grades no specimen."""
    one_field_accuracy: Estimate
    """When a specimen is read from one of its fields alone, the mean over its fields; `clustered_interval`. Of the
    specimens with several fields, undefined where there are none."""
    gain_of_fields: Estimate
    """The accuracy from all fields less `one_field_accuracy`, of the same specimens; `paired_interval`."""
    seconds_per_specimen: float
    """The median."""
    left_out: Mapping[str, str]
    """By specimen, why it could not be read."""


_UNDEFINED = Estimate(value=None)


def system_metrics(family: str, rows: Sequence[Measured], classes: Sequence[str]) -> SystemMetrics:
    """The metrics of a system of that family, over all the specimens that it was tested on."""
    readings = [row.reading for row in rows]
    patterns = classification_metrics(
        [reading.truth for reading in readings],
        [reading.pattern for reading in readings],
        [reading.specimen for reading in readings],
        classes,
    )
    dice, jaccard = _segmentation(rows, classes)
    alone, gain = _fields_alone(rows)
    return SystemMetrics(
        family=family,
        accuracy=patterns.aca,
        mca=patterns.mca,
        ci_method=patterns.ci_method,
        per_class=patterns.per_class,
        confusion=patterns.confusion,
        num_specimens=patterns.num_specimens,
        Dice=dice,
        JA=jaccard,
        intensity_accuracy=_intensity(rows),
        one_field_accuracy=alone,
        gain_of_fields=gain,
        seconds_per_specimen=float(np.median([reading.seconds for reading in readings])),
        left_out={reading.specimen: reading.left_out for reading in readings if reading.left_out},
    )


def _segmentation(rows: Sequence[Measured], classes: Sequence[str]) -> tuple[Estimate, Estimate]:
    """Dice and JA of the foreground."""
    nothing = np.zeros(0)
    scores = [
        ImageScore(row.reading.specimen, classes[row.reading.truth], row.pixels, nothing, nothing)
        for row in rows
        if row.pixels is not None
    ]
    if not scores:
        return _UNDEFINED, _UNDEFINED
    pixel = segmentation_metrics(scores)
    return pixel.Dice, pixel.JA


def _intensity(rows: Sequence[Measured]) -> Estimate:
    graded = [row for row in rows if row.reading.intensity]
    if not graded:
        return _UNDEFINED
    accuracy = sum(row.reading.intensity == row.intensity for row in graded) / len(graded)
    return Estimate(value=accuracy, ci95=score_interval(accuracy, len(graded)))


def _fields_alone(rows: Sequence[Measured]) -> tuple[Estimate, Estimate]:
    """The accuracy from one field, and what several fields gain."""
    several = [row for row in rows if row.alone]
    if not several:
        return _UNDEFINED, _UNDEFINED
    alone = np.array([np.mean([pattern == row.reading.truth for pattern in row.alone]) for row in several])
    gain = np.array([row.reading.pattern == row.reading.truth for row in several]) - alone
    of_alone = clustered_interval(alone[:, None], np.ones((len(alone), 1)), np.ones(1))
    return (
        Estimate(value=float(alone.mean()), ci95=of_alone),
        Estimate(value=float(gain.mean()), ci95=paired_interval(gain)),
    )


def missing_fields(fields: Sequence[Field]) -> list[str]:
    """Which specimens lack a field that most of the specimens have; they are read from those that are there."""
    numbers = {name: {f.number for f in group} for name, group in base.by_specimen(fields).items()}
    counts = collections.Counter(number for own in numbers.values() for number in own)
    usual = {number for number, count in counts.items() if 2 * count > len(numbers)}
    return [
        f"{name}: field {', '.join(map(str, sorted(usual - own)))} is not there; read from the other {len(own)}"
        for name, own in numbers.items()
        if usual - own
    ]


def to_record(row: Measured) -> dict[str, Any]:
    """A row for JSON."""
    reading = {f.name: getattr(row.reading, f.name) for f in dataclasses.fields(Reading) if f.name != "masks"}
    reading["probabilities"] = [round(float(p), 6) for p in row.reading.probabilities]
    pixels = None if row.pixels is None else list(dataclasses.astuple(row.pixels))
    return {"reading": reading, "intensity": row.intensity, "pixels": pixels, "alone": list(row.alone)}


def from_record(record: Mapping[str, Any]) -> Measured:
    """Inverse of `to_record`."""
    values = {**record["reading"], "probabilities": np.array(record["reading"]["probabilities"], np.float64)}
    pixels = None if record["pixels"] is None else PixelCounts(*record["pixels"])
    return Measured(
        reading=Reading(**values), intensity=record["intensity"], pixels=pixels, alone=tuple(record["alone"])
    )
