"""Compares systems: all of them are tested on the same held-out specimens, and their results are stored and pooled."""

import collections
import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hep2jax import files
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoredReading:
    """A reading with the pixel counts of its masks; it can be stored as JSON."""

    reading: Reading
    """The reading without its masks."""
    intensity: str
    """The annotated grade of the specimen."""
    pixels: PixelCounts | None
    """Cell against background over all fields, without void pixels; None if the system returns no masks."""
    alone: tuple[int | None, ...]
    """The pattern predicted from each field alone; empty if the specimen has one field."""


def compare(
    systems: Sequence[System],
    fields: FieldSet,
    partitions: Sequence[Partition],
    directory: pathlib.Path,
) -> dict[str, Any]:
    """Train every system on each partition, read the test specimens and pool the results.

    Results are stored in `directory/division-NN/readings/<system>.json`. They are computed again only if the specimens
    or the settings of the system differ. If a system cannot be trained (weights are missing, or its folder holds a
    network that was trained on other specimens), the reason is reported and the other systems continue.

    Args:
        systems: systems with different names.
        fields: the fields of the data set.
        partitions: partitions of the fields; each specimen is tested at most once.
        directory: directory for this data set and these partitions only.

    Returns:
        `classes`; `num_divisions`; `specimen_leakage`; `leakage_note`; `missing_fields` (list of lines);
        `unavailable` {system: reason}; `systems` {name: `SystemMetrics` as a dictionary}.

    Raises:
        UsageError: a partition has no specimens to train or test on, or no system could be trained.
    """
    for number, part in enumerate(partitions):
        if not part.train or not part.test:
            raise UsageError(f"{fields.name}: division {number + 1} has no specimens to train on, or none to test")
    fingerprints = [fingerprint(field) for field in fields.fields]
    measured: dict[str, list[ScoredReading]] = {}
    unavailable: dict[str, str] = {}
    for system in systems:
        try:
            measured[system.name] = [
                row
                for number, part in enumerate(partitions)
                for row in _division(
                    system, fields, fingerprints, part, directory / f"division-{number:02d}", len(partitions)
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
    fingerprints: Sequence[str],
    part: Partition,
    directory: pathlib.Path,
    count: int,
) -> list[ScoredReading]:
    """The readings of the test specimens of one partition, from the stored file if it matches."""
    path = directory / "readings" / f"{system.name}.json"
    splits = [[fingerprints[i] for i in indices] for indices in (part.train, part.test)]
    identity = fingerprint(system.settings, fields.classes, splits)
    stored = files.kept(path)
    if stored.get("identity") != identity:
        say(f"{system.name}, {directory.name} of {count}")
        system.fit(fields, part.train, directory)
        groups = base.by_specimen(fields.fields[i] for i in part.test)
        system.read(next(iter(groups.values())))  # compile first, so that the timings do not include it
        rows = [_measure(system.read, group, fields.classes) for group in groups.values()]
        stored = {"identity": identity, "readings": [to_record(row) for row in rows]}
        files.write_json(path, stored)
    return [from_record(record) for record in stored["readings"]]


def _measure(
    read: Callable[[Sequence[Field]], Reading], group: Sequence[Field], classes: Sequence[str]
) -> ScoredReading:
    started = time.perf_counter()
    reading = read(group)
    seconds = time.perf_counter() - started
    pixels = None
    if reading.masks:
        pairs = zip(group, reading.masks, strict=True)
        pixels = sum((_count(field, mask) for field, mask in pairs), PixelCounts())
    if reading.pattern is not None and not 0 <= reading.pattern < len(classes):
        raise ValueError(f"{reading.specimen}: pattern {reading.pattern} is not one of the {len(classes)}")
    return ScoredReading(
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
    """Metrics of a system over specimens; a specimen that could not be read counts as an error."""

    family: str
    """One of `base.FAMILIES`."""
    accuracy: Estimate
    """Accuracy over specimens, called ACA in the contests."""
    mca: Estimate
    ci_method: str
    """Method of the confidence intervals of `accuracy` and `mca`."""
    per_class: Mapping[str, ClassMetrics]
    confusion: tuple[tuple[int, ...], ...]
    num_specimens: int | None
    Dice: Estimate
    JA: Estimate
    """Dice and JA of the foreground, see `segmentation_metrics`; undefined if the system returns no masks."""
    intensity_accuracy: Estimate
    """Accuracy with Wilson's interval; undefined if the system does not grade intensity."""
    one_field_accuracy: Estimate
    """Accuracy from a single field, averaged over the fields of each specimen, with `clustered_interval`. It covers the
    specimens with several fields and is undefined if there are none."""
    gain_of_fields: Estimate
    """Accuracy from all fields minus `one_field_accuracy` on the same specimens, with `paired_interval`."""
    seconds_per_specimen: float
    """The median over the specimens."""
    left_out: Mapping[str, str]
    """Specimens that could not be read, each with the reason."""


_UNDEFINED = Estimate(value=None)


def system_metrics(family: str, rows: Sequence[ScoredReading], classes: Sequence[str]) -> SystemMetrics:
    """Metrics of a system of this family over all specimens that it was tested on."""
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


def _segmentation(rows: Sequence[ScoredReading], classes: Sequence[str]) -> tuple[Estimate, Estimate]:
    """Dice and JA of the foreground, in this order."""
    no_objects = np.zeros(0)
    scores = [
        ImageScore(row.reading.specimen, classes[row.reading.truth], row.pixels, no_objects, no_objects)
        for row in rows
        if row.pixels is not None
    ]
    if not scores:
        return _UNDEFINED, _UNDEFINED
    segmentation = segmentation_metrics(scores)
    return segmentation.Dice, segmentation.JA


def _intensity(rows: Sequence[ScoredReading]) -> Estimate:
    graded = [row for row in rows if row.reading.intensity]
    if not graded:
        return _UNDEFINED
    accuracy = sum(row.reading.intensity == row.intensity for row in graded) / len(graded)
    return Estimate(value=accuracy, ci95=score_interval(accuracy, len(graded)))


def _fields_alone(rows: Sequence[ScoredReading]) -> tuple[Estimate, Estimate]:
    """The accuracy from one field, and the gain from using all fields."""
    several = [row for row in rows if row.alone]
    if not several:
        return _UNDEFINED, _UNDEFINED
    alone = np.array([np.mean([pattern == row.reading.truth for pattern in row.alone]) for row in several])
    gain = np.array([row.reading.pattern == row.reading.truth for row in several]) - alone
    interval = clustered_interval(alone[:, None], np.ones((len(alone), 1)), np.ones(1))
    return (
        Estimate(value=float(alone.mean()), ci95=interval),
        Estimate(value=float(gain.mean()), ci95=paired_interval(gain)),
    )


def missing_fields(fields: Sequence[Field]) -> list[str]:
    """A line for each specimen without a field that most specimens have; it is read from its other fields."""
    numbers = {name: {f.number for f in group} for name, group in base.by_specimen(fields).items()}
    counts = collections.Counter(number for present in numbers.values() for number in present)
    usual = {number for number, count in counts.items() if 2 * count > len(numbers)}
    return [
        f"{name}: field {', '.join(map(str, sorted(usual - present)))} is missing; read from the other {len(present)}"
        for name, present in numbers.items()
        if usual - present
    ]


def to_record(row: ScoredReading) -> dict[str, Any]:
    """Convert a row to a dictionary that can be written as JSON."""
    reading = {f.name: getattr(row.reading, f.name) for f in dataclasses.fields(Reading) if f.name != "masks"}
    reading["probabilities"] = [round(float(p), 6) for p in row.reading.probabilities]
    pixels = None if row.pixels is None else list(dataclasses.astuple(row.pixels))
    return {"reading": reading, "intensity": row.intensity, "pixels": pixels, "alone": list(row.alone)}


def from_record(record: Mapping[str, Any]) -> ScoredReading:
    """Inverse of `to_record`."""
    values = {**record["reading"], "probabilities": np.array(record["reading"]["probabilities"], np.float64)}
    pixels = None if record["pixels"] is None else PixelCounts(*record["pixels"])
    return ScoredReading(
        reading=Reading(**values), intensity=record["intensity"], pixels=pixels, alone=tuple(record["alone"])
    )
