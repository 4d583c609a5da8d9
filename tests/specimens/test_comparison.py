"""The comparison of systems: metrics that can be checked by hand, resuming, and what is said of what is missing."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import pytest

from hep2jax.config import DataConfig
from hep2jax.data.sets.fields import Field, FieldSet
from hep2jax.data.splits import protocols
from hep2jax.errors import UsageError
from hep2jax.metrics import Estimate
from hep2jax.specimens import base, comparison
from hep2jax.specimens.base import Reading
from tests.data.fields import disc_field, field_set


class Guess:
    """Reads every specimen as one pattern, except those named, which it leaves out; counts how often it is asked."""

    family = "images"

    def __init__(self, name: str, pattern: int, *, unreadable: Sequence[str] = (), masks: bool = False) -> None:
        self.name, self._pattern, self._unreadable, self._masks = name, pattern, unreadable, masks
        self.settings = unreadable, masks  # without the pattern, so that a test sees whose readings these are
        self.fits: list[tuple[int, ...]] = []
        self.reads = 0

    def fit(self, fields: FieldSet, train: Sequence[int], directory: pathlib.Path) -> None:
        self.fits.append(tuple(train))

    def read(self, fields: Sequence[Field]) -> Reading:
        self.reads += 1
        if fields[0].specimen_id in self._unreadable:
            return base.without_pattern(fields, 3, "blurred")
        return Reading(
            specimen=fields[0].specimen_id,
            truth=fields[0].pattern,
            pattern=self._pattern,
            probabilities=np.eye(3)[self._pattern],
            intensity="positive" if self._masks else "",
            masks=tuple(field.instances > 3 for field in fields) if self._masks else (),
        )


class NeedsTwoFields(Guess):
    """Reads specimens of pattern 0 from two fields, and from their first field alone; the others never."""

    def read(self, fields: Sequence[Field]) -> Reading:
        right = fields[0].pattern == 0 and (len(fields) == 2 or fields[0].number == 0)
        return dataclasses.replace(super().read(fields), pattern=0 if right else 2 - fields[0].pattern // 2)


class Unavailable(Guess):
    def fit(self, fields: FieldSet, train: Sequence[int], directory: pathlib.Path) -> None:
        raise UsageError("its weights are not there")


@pytest.fixture(scope="module")
def fields() -> FieldSet:
    """Nine specimens of two fields, three of each of three patterns."""
    return field_set()


@pytest.fixture(scope="module")
def partitions(fields) -> list[protocols.Partition]:
    """Three folds: every specimen is tested once."""
    made = []
    for fold in range(3):
        config = DataConfig(protocol="kfold", num_folds=3, fold=fold)
        made.append(protocols.partition(config, fields.name, fields.items, fields.classes))
    return made


def test_metrics_add_up(fields, partitions, tmp_path):
    plain = Guess("plain", 1)
    gaps = Guess("gaps", 1, unreadable=("train-1-0",))
    result = comparison.compare([plain, gaps], fields, partitions, tmp_path)
    row, missing = result["systems"]["plain"], result["systems"]["gaps"]
    assert row["accuracy"] == row["mca"] == pytest.approx(1 / 3)
    assert row["confusion"] == [[0, 3, 0], [0, 3, 0], [0, 3, 0]]
    assert row["num_specimens"] == 9
    assert row["accuracy_ci95"][0] < 1 / 3 < row["accuracy_ci95"][1]
    assert (row["left_out"], row["Dice"], row["JA"], row["intensity_accuracy"]) == ({}, None, None, None)
    assert missing["left_out"] == {"train-1-0": "blurred"}
    assert missing["accuracy"] == pytest.approx(2 / 9), "a specimen that is left out counts as an error"
    assert row["seconds_per_specimen"] > 0
    assert plain.fits == [part.train for part in partitions]
    assert not result["specimen_leakage"]
    assert result["missing_fields"] == []


def test_masks_and_grades_are_measured(fields, partitions, tmp_path):
    result = comparison.compare([Guess("masks", 0, masks=True)], fields, partitions, tmp_path)
    row = result["systems"]["masks"]
    found = sum(int((field.instances > 3).sum()) for field in fields.fields)
    true = sum(int((field.classes > 0).sum()) for field in fields.fields)
    assert row["JA"] == pytest.approx(found / true)
    assert row["Dice"] == pytest.approx(2 * found / (found + true))
    assert row["Dice_ci95"][0] <= row["Dice"] <= row["Dice_ci95"][1]
    assert row["intensity_accuracy"] == 1.0


def test_what_several_fields_gain(fields, partitions, tmp_path):
    row = comparison.compare([NeedsTwoFields("two", 0)], fields, partitions, tmp_path)["systems"]["two"]
    assert row["accuracy"] == pytest.approx(1 / 3)
    assert row["one_field_accuracy"] == pytest.approx(1 / 6)
    assert row["gain_of_fields"] == pytest.approx(1 / 6)
    low, high = row["gain_of_fields_ci95"]
    assert -0.1 < low < 1 / 6 < high < 0.5
    rows = [comparison.ScoredReading(reading=reading("a"), intensity="", pixels=None, alone=())]
    single = comparison.system_metrics("images", rows, "abc")
    assert single.one_field_accuracy == single.gain_of_fields == Estimate(value=None)


def reading(specimen: str) -> Reading:
    return Reading(specimen=specimen, truth=0, pattern=0, probabilities=np.eye(3)[0])


def test_finished_readings_are_not_made_again(fields, partitions, tmp_path):
    first = comparison.compare([Guess("plain", 1)], fields, partitions, tmp_path)
    idle = Guess("plain", 2)
    assert comparison.compare([idle], fields, partitions, tmp_path) == first
    assert (idle.fits, idle.reads) == ([], 0)
    (tmp_path / "division-01" / "readings" / "plain.json").unlink()
    comparison.compare([idle], fields, partitions, tmp_path)
    assert idle.fits == [partitions[1].train]


def _changed(fields: FieldSet, index: int) -> FieldSet:
    """One pixel of one field is another."""
    image = fields.fields[index].image.copy()
    image[0, 0] ^= 1
    rows = [dataclasses.replace(f, image=image) if i == index else f for i, f in enumerate(fields.fields)]
    return dataclasses.replace(fields, fields=tuple(rows))


def test_readings_of_anything_else_are_made_again(fields, partitions, tmp_path):
    """Of other settings, other training or test specimens, or specimens of the same names with other pixels."""

    def fitted(system: Guess, data: FieldSet = fields, parts: Sequence[protocols.Partition] = partitions) -> list:
        comparison.compare([system], data, parts, tmp_path)
        return system.fits

    assert len(fitted(Guess("plain", 1))) == 3
    assert fitted(Guess("plain", 1)) == []
    assert len(fitted(Guess("plain", 1, masks=True))) == 3
    first, _, last = partitions
    assert fitted(Guess("plain", 2, masks=True), parts=partitions[::-1]) == [last.train, first.train]
    assert len(fitted(Guess("plain", 2, masks=True))) == 2
    assert len(fitted(Guess("plain", 2, masks=True), _changed(fields, first.test[0]))) == 3
    result = comparison.compare([Guess("plain", 0, masks=True)], fields, partitions, tmp_path)
    assert result["systems"]["plain"]["confusion"] == [[3, 0, 0]] * 3


def test_a_system_that_cannot_be_fitted_is_named(fields, partitions, tmp_path):
    result = comparison.compare([Unavailable("deep", 0), Guess("plain", 1)], fields, partitions, tmp_path)
    assert result["unavailable"] == {"deep": "its weights are not there"}
    assert list(result["systems"]) == ["plain"]
    with pytest.raises(UsageError, match="no system could be fitted: deep: its weights"):
        comparison.compare([Unavailable("deep", 0)], fields, partitions, tmp_path)
    empty = dataclasses.replace(partitions[0], test=())
    with pytest.raises(UsageError, match="division 1 has no specimens"):
        comparison.compare([Guess("plain", 1)], fields, [empty], tmp_path)


def test_a_field_that_is_missing_is_named():
    whole = [disc_field(name, pattern=0, number=k) for name in ("a", "b", "c") for k in range(4)]
    lacking = [field for field in whole if (field.specimen_id, field.number) not in (("b", 2), ("b", 3))]
    assert comparison.missing_fields(whole) == []
    assert comparison.missing_fields(lacking) == ["b: field 2, 3 is missing; read from the other 2"]


def test_training_side_holds_the_training_specimens_alone(fields, partitions):
    side = base.training_split(fields, partitions[0].train)
    assert len(side) == len(partitions[0].train)
    again = protocols.partition(DataConfig(), side.name, side.items)
    assert len(again.train) == len(side)
    assert not again.test
    tested = {fields.fields[i].specimen_id for i in partitions[0].test}
    assert not tested & {field.specimen_id for field in side.fields}


def test_prepared_fields_have_the_resolution_asked_for(fields):
    field = fields.fields[0]
    small = base.prepare_field(field, DataConfig(scale=0.5))
    assert small.working_image.shape == (80, 80)
    assert small.image is field.image
    assert (small.specimen_id, small.kinds) == (field.specimen_id, field.kinds)
