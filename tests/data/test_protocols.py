import numpy as np
import pytest

from hep2jax.config import DataConfig
from hep2jax.data import protocols
from hep2jax.errors import UsageError
from tests.data.fields import field_set


def _specimens(fields, indices) -> set[str]:
    return {fields.fields[i].specimen_id for i in indices}


@pytest.mark.parametrize("protocol", ["contest", "kfold", "loso"])
@pytest.mark.parametrize("shape", [(1, 4, 1), (3, 2, 2), (6, 3, 4)])
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_no_specimen_on_two_sides(protocol: str, shape: tuple[int, int, int], share: float):
    fields = field_set(*shape, splits=("train", "test"))
    config = DataConfig(protocol=protocol, num_folds=3, validation_fraction=share)
    folds = 1 if protocol == "contest" else len(protocols.folds(config, fields))
    tested = []
    for fold in range(folds):
        config.fold = fold
        sides = protocols.partition(config, fields)
        train, validation, test = (_specimens(fields, s) for s in (sides.train, sides.validation, sides.test))
        assert len(train | validation | test) == len(train) + len(validation) + len(test)
        assert not sides.specimen_leakage
        assert bool(validation) == bool(round(share * len(train | validation)))
        tested += test
    whole = "test" if protocol == "contest" else "train"
    assert sorted(tested) == sorted({f.specimen_id for f in fields.fields if f.split == whole})


@pytest.mark.parametrize("protocol", ["kfold", "loso"])
def test_inner_protocols_never_touch_the_test_split(protocol: str):
    fields = field_set(2, 3, 1, splits=("train", "test"))
    for fold in range(3):
        sides = protocols.partition(DataConfig(protocol=protocol, num_folds=3, fold=fold), fields)
        used = {fields.fields[i].split for i in sides.train + sides.validation + sides.test}
        assert used == {"train"}


def test_folds_are_even_and_spread_every_pattern():
    fields = field_set(3, 4, 1)
    groups = protocols.folds(DataConfig(protocol="kfold", num_folds=4), fields)
    assert [len(g) for g in groups] == [3, 3, 3, 3]
    for group in groups:
        assert len({name.split("-")[1] for name in group}) == 3


def test_validation_never_takes_a_patterns_last_specimen():
    fields = field_set(3, 2, 1)
    sides = protocols.partition(DataConfig(protocol="contest", validation_fraction=0.5), fields)
    assert {fields.fields[i].pattern for i in sides.train} == {0, 1, 2}
    assert len(_specimens(fields, sides.validation)) == 3
    with pytest.raises(UsageError, match="smaller share"):
        protocols.partition(DataConfig(protocol="contest", validation_fraction=0.8), fields)


def test_contest_uses_the_sets_own_validation_split():
    fields = field_set(2, 2, 1, splits=("train", "validation", "test"))
    sides = protocols.partition(DataConfig(protocol="contest", validation_fraction=0.5), fields)
    assert {fields.fields[i].split for i in sides.validation} == {"validation"}
    assert len(sides.train) == 4


def test_a_missing_half_is_said():
    only_train = protocols.partition(DataConfig(protocol="contest"), field_set())
    assert only_train.test == ()
    assert "test split is not at hand" in only_train.description
    only_test = protocols.partition(DataConfig(protocol="contest"), field_set(splits=("test",)))
    assert only_test.train == ()
    assert len(only_test.test) == 18


def test_bad_folds_are_refused():
    fields = field_set(2, 2, 1)
    with pytest.raises(UsageError, match="has 4 folds"):
        protocols.partition(DataConfig(protocol="loso", fold=4), fields)
    with pytest.raises(UsageError, match="only 4 specimens"):
        protocols.partition(DataConfig(protocol="kfold", num_folds=5), fields)


def test_folds_do_not_depend_on_the_order_of_fields():
    fields = field_set(3, 3, 2)
    order = np.random.default_rng(0).permutation(len(fields))
    shuffled = type(fields)(name=fields.name, classes=fields.classes, fields=tuple(fields.fields[i] for i in order))
    config = DataConfig(protocol="kfold", num_folds=3)
    assert protocols.folds(config, fields) == protocols.folds(config, shuffled)
