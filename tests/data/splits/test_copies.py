"""Specimens that repeat each other pixel for pixel stand on one side, whatever the network reads of them."""

import dataclasses

import numpy as np
import pytest

from hep2jax.config import DataConfig
from hep2jax.data.sets import cells
from hep2jax.data.sets.fields import FieldSet
from hep2jax.data.sets.items import group_specimens
from hep2jax.data.splits import protocols
from hep2jax.fingerprint import fingerprint
from tests.data.fields import disc_field, field_set


def _with_copy(masks: bool = True) -> FieldSet:
    """Nine specimens; train-0-2 repeats field 1 of train-0-0 as its field 0, with other masks where these differ."""
    plain = field_set()
    original = plain.fields[1]
    classes, instances = original.classes, original.instances
    if not masks:
        classes, instances = np.roll(classes, 1, axis=1), np.roll(instances, 1, axis=1)
    copied = dataclasses.replace(original, specimen_id="train-0-2", number=0, classes=classes, instances=instances)
    fields = (copied if (f.specimen_id, f.number) == ("train-0-2", 0) else f for f in plain.fields)
    return dataclasses.replace(plain, fields=tuple(fields))


@pytest.mark.parametrize("protocol", ["kfold", "loso"])
@pytest.mark.parametrize("read", ["fields", "cells", "cells by other masks"])
def test_copied_fields_are_never_parted(protocol: str, read: str):
    found = _with_copy(masks=read != "cells by other masks")
    if read != "fields":
        found = cells.from_fields(found, DataConfig(normalise="contrast_stretch"))
    data = DataConfig(protocol=protocol, num_folds=4, validation_fraction=0.2)
    folds = protocols.folds(data, found.name, found.items)
    for fold in range(len(folds)):
        part = protocols.partition(dataclasses.replace(data, fold=fold), found.name, found.items, found.classes)
        sides = {
            side
            for side, indices in part.splits().items()
            for i in indices
            if found.items[i].specimen in ("train-0-0", "train-0-2")
        }
        assert len(sides) == 1
        assert not part.specimen_leakage
    assert any({"train-0-0", "train-0-2"} <= set(names) for names in folds)
    assert sorted(name for names in folds for name in names) == sorted({item.specimen for item in found.items})


def test_a_copy_in_the_test_split_is_counted_and_said():
    fields = field_set(splits=("train", "test"))
    copy = dataclasses.replace(fields.fields[0], specimen_id="test-0-0", split="test")
    found = dataclasses.replace(fields, fields=(*fields.fields[:-1], copy))
    part = protocols.partition(DataConfig(), found.name, found.items, found.classes)
    assert part.specimen_leakage
    assert part.leakage_note == (
        "cells of one specimen are in train and test (2 of 18 specimens), all through specimens that repeat each other "
        "pixel for pixel"
    )
    assert not protocols.partition(DataConfig(), fields.name, fields.items, fields.classes).specimen_leakage


def test_specimens_that_share_a_picture_are_one_group():
    images = [np.full((5, 5), value, np.uint8) for value in range(6)]
    rows = [("a", images[0]), ("a", images[1]), ("b", images[2]), ("c", images[1]), ("d", images[2]), ("c", images[3])]
    assert group_specimens(rows) == {"a": "a", "c": "a", "b": "b", "d": "b"}
    assert group_specimens([("", images[0]), ("", images[0]), ("a", images[0])]) == {"": "", "a": "a"}
    reshaped = [("a", np.zeros((2, 8), np.uint8)), ("b", np.zeros((4, 4), np.uint8))]
    assert group_specimens(reshaped) == {"a": "a", "b": "b"}


def test_fingerprints_tell_everything_apart():
    field = disc_field("a", pattern=0)
    again = disc_field("a", pattern=0)
    assert fingerprint(field) == fingerprint(again)
    changed = field.classes.copy()
    changed[0, 0] ^= 1
    others = [
        dataclasses.replace(field, number=1),
        dataclasses.replace(field, classes=changed),
        dataclasses.replace(field, kinds={1: "cell"}),
        dataclasses.replace(field, grey_gain=field.grey_gain * 1.5),
    ]
    assert len({fingerprint(row) for row in (field, *others)}) == 5
    assert fingerprint(np.zeros((2, 8), np.uint8)) != fingerprint(np.zeros((4, 4), np.uint8))
    assert fingerprint(np.zeros(4, np.uint8)) != fingerprint(np.zeros(4, bool))
    assert fingerprint(["ab", "c"]) != fingerprint(["a", "bc"])
    assert fingerprint([["a"], "b"]) != fingerprint([["a", "b"]])
    assert fingerprint({"x": 1, "y": (1, 2)}) == fingerprint({"y": [1, 2], "x": 1})


def test_pictures_that_differ_in_one_pixel_are_no_copies():
    one = np.random.default_rng(0).integers(0, 255, (6, 7)).astype(np.uint8)
    for place in ((0, 0), (3, 2), (5, 6)):
        other = one.copy()
        other[place] ^= 1
        assert group_specimens([("a", one), ("b", other)]) == {"a": "a", "b": "b"}
