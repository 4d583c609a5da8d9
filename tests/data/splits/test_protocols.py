import pathlib

import numpy as np
import pytest

from hep2jax.config import DataConfig
from hep2jax.data.sets.items import Item
from hep2jax.data.splits import protocols
from hep2jax.errors import UsageError
from tests.data.tables import cells, change


def _divide(items: list[Item], protocol: str, classes: tuple[str, ...] = (), **keys) -> protocols.Partition:
    return protocols.partition(DataConfig(protocol=protocol, **keys), "made_up", items, classes)


def _specimens(items: list[Item], indices) -> set[str]:
    return {items[i].specimen for i in indices}


def _ids(items: list[Item], indices) -> list[int]:
    return [int(items[i].identifier) for i in indices]


def _fields(splits: tuple[str, ...] = ("train",), specimens: int = 3, patterns: int = 3, fields: int = 2) -> list[Item]:
    """`fields` fields of each of `specimens` specimens of each pattern in each split."""
    made = []
    for split in splits:
        own = cells(specimens, fields, patterns, split=split)
        own = change(own, specimen=lambda item, split=split: f"{split}-{item.pattern}-{item.specimen}")
        made += change(
            own, group=lambda item: item.specimen, identifier=lambda item: f"{item.specimen}.{item.identifier}"
        )
    return made


# The set's own splits


def test_contest_is_the_sets_own_splits():
    items = _fields(("train", "test"))
    sides = _divide(items, "contest")
    assert {items[i].split for i in sides.train} == {"train"}
    assert {items[i].split for i in sides.test} == {"test"}
    assert sides.description == "the splits of made_up, by specimen"
    assert (sides.specimen_leakage, sides.leakage_note) == (False, "no specimen on two sides")
    assert list(sides.splits()) == ["train", "test"]


def test_contest_uses_the_sets_own_validation_split():
    items = _fields(("train", "validation", "test"), specimens=2)
    sides = _divide(items, "contest", validation_fraction=0.5)
    assert {items[i].split for i in sides.validation} == {"validation"}
    assert len(sides.train) == 12


def test_a_missing_half_is_said():
    only_train = _divide(_fields(), "contest")
    assert only_train.test == ()
    assert only_train.description == "the splits of made_up, by specimen; its test split is not at hand"
    only_test = _divide(_fields(("test",)), "contest")
    assert only_test.train == ()
    assert len(only_test.test) == 18


def test_contest_says_where_the_owners_splits_tear_specimens():
    items = cells(specimens=3, size=4, patterns=1)
    items[0:1] = change(items[0:1], split="test")
    items[4:6] = change(items[4:6], split="test")
    items[5:6] = change(items[5:6], split="validation")
    sides = _divide(items, "contest")
    note = (
        "cells of one specimen are in train and test (2 of 3 specimens), in train and validation (1 of 3 specimens), "
        "in validation and test (1 of 3 specimens)"
    )
    assert (sides.specimen_leakage, sides.leakage_note) == (True, note)
    assert sides.description == f"the splits of made_up; {note}"


def test_contest_without_specimen_ids_says_that_leakage_cannot_be_excluded():
    items = cells(known=False) + cells(split="test", known=False, first=100)
    sides = _divide(items, "contest")
    note = "specimen ids are not at hand: that cells of one specimen are in train and test cannot be excluded"
    assert (sides.specimen_leakage, sides.leakage_note) == (True, note)
    assert sides.description == f"the splits of made_up; {note}"
    one_side = _divide(items[:40], "contest")
    assert (one_side.specimen_leakage, one_side.leakage_note) == (False, "no specimen on two sides")
    assert one_side.description == "the splits of made_up; its test split is not at hand"
    with pytest.raises(
        UsageError, match=r"data.validation_fraction=0.2: contest .* made_up does not have specimen ids"
    ):
        _divide(items, "contest", validation_fraction=0.2)


def test_published_folds_are_the_contest():
    items = cells(specimens=4, size=2, patterns=1)
    items = change(items, folds=lambda item: ((0, 1, 1, -1)[int(item.specimen[-1])], int(item.specimen[-1]) % 2))
    first = _divide(items, "contest", fold=0)
    assert _specimens(items, first.train) == {"s00"}
    assert _specimens(items, first.test) == {"s01", "s02"}
    assert first.description == "published fold 1 of 2 of made_up, by specimen"
    assert _specimens(items, _divide(items, "contest", fold=1).test) == {"s01", "s03"}
    config = DataConfig(protocol="contest")
    assert protocols.folds(config, "made_up", items) == [("published fold 1",), ("published fold 2",)]
    with pytest.raises(UsageError, match=r"data.fold=2: contest has 2 folds on made_up, numbered from 0"):
        _divide(items, "contest", fold=2)
    with pytest.raises(UsageError, match="the list of this published fold of made_up is not available"):
        _divide(change(items, folds=(-1, 0)), "contest", fold=0)


# By specimen


def test_folds_are_even_and_spread_every_pattern():
    items = _fields(specimens=4)
    groups = protocols.folds(DataConfig(protocol="kfold", num_folds=4), "made_up", items)
    assert [len(g) for g in groups] == [3, 3, 3, 3]
    for group in groups:
        assert len({name.split("-")[1] for name in group}) == 3


@pytest.mark.parametrize("protocol", ["kfold", "loso", "blocked", "random_cells"])
def test_inner_protocols_never_touch_the_test_split(protocol: str):
    items = _fields(("train", "test"))
    for fold in range(3):
        sides = _divide(items, protocol, num_folds=3, fold=fold)
        assert {items[i].split for i in sides.train + sides.validation + sides.test} == {"train"}


@pytest.mark.parametrize("protocol", ["kfold", "loso"])
def test_specimens_that_repeat_each_other_go_together(protocol: str):
    items = change(cells(patterns=1), group=lambda item: "s01" if item.specimen == "s02" else item.specimen)
    config = DataConfig(protocol=protocol, num_folds=3)
    folds = protocols.folds(config, "made_up", items)
    assert ("s01", "s02") in folds
    assert len(folds) == 3
    sides = _divide(items, protocol, num_folds=3, fold=folds.index(("s01", "s02")))
    assert _specimens(items, sides.test) == {"s01", "s02"}
    assert sides.description == (
        f"{protocol}, by specimen, fold 2 of 3: s01, s02; specimens that repeat each other pixel for pixel go "
        "together: s01+s02"
    )


def test_a_copy_in_the_sets_own_test_split_is_no_part_of_a_fold():
    items = cells(patterns=1) + change(cells(1, 5, 1, first=100), specimen="copy", split="test")
    assert ("s00",) in protocols.folds(DataConfig(protocol="loso"), "made_up", items)
    assert "copy" not in _divide(items, "loso").description


def test_validation_never_takes_a_patterns_last_specimen():
    items = _fields(specimens=2)
    sides = _divide(items, "contest", validation_fraction=0.5)
    assert _specimens(items, sides.train) == {"train-0-s00", "train-1-s10", "train-2-s20"}
    assert _specimens(items, sides.validation) == {"train-0-s01", "train-1-s11", "train-2-s21"}
    with pytest.raises(UsageError, match="5 of 6 specimens would leave a pattern without .* smaller share"):
        _divide(items, "contest", validation_fraction=0.8)


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_validation_is_spread_over_the_patterns(fold: int):
    items = _fields(specimens=5)
    sides = _divide(items, "kfold", num_folds=3, fold=fold, validation_fraction=0.3)
    assert {items[i].pattern for i in sides.validation} == {0, 1, 2}
    assert len(_specimens(items, sides.validation)) == 3


def test_a_pattern_of_one_specimen_is_said_to_be_untrained():
    items = cells(patterns=1) + change(cells(1, 5, 1, first=100), specimen="only", group="only", pattern=1)
    fold = protocols.folds(DataConfig(protocol="loso"), "made_up", items).index(("only",))
    sides = _divide(items, "loso", classes=("homogeneous", "golgi"), fold=fold)
    assert sides.description.endswith("only; nothing to train on of golgi")


def test_bad_folds_are_refused():
    items = _fields(specimens=2, patterns=2)
    with pytest.raises(UsageError, match="data.fold=4: loso has 4 folds on made_up, numbered from 0"):
        _divide(items, "loso", fold=4)
    with pytest.raises(UsageError, match="data.num_folds=5: made_up has only 4 specimens"):
        _divide(items, "kfold", num_folds=5)
    with pytest.raises(UsageError, match="data.protocol=kfold: the training split of made_up is not available"):
        _divide(_fields(("test",)), "kfold")


@pytest.mark.parametrize("protocol", protocols.LEAK_FREE)
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_clean_protocols_need_specimen_ids(protocol: str, share: float):
    items = cells()
    lost = round(share * len(items))
    items = cells(known=False)[:lost] + items[lost:]
    line = f"data.protocol={protocol} needs specimen ids, which made_up does not have here; take blocked"
    with pytest.raises(UsageError, match=line):
        _divide(items, protocol)


def test_a_specimen_in_two_groups_is_refused():
    items = cells(patterns=1)
    items[0:1] = change(items[0:1], group="other")
    with pytest.raises(UsageError, match="specimen s00 is in two groups, other and s00"):
        _divide(items, "random_cells", num_folds=2)


# By place in the order of ids


def test_blocks_are_cut_from_each_pattern_in_order_of_ids():
    items = cells(specimens=2, size=6, patterns=2, known=False)  # ids 1 to 12 and 13 to 24
    items = change(items, identifier=lambda item: str(int(item.identifier)))  # "10" stands before "9" by letters
    order = np.random.default_rng(0).permutation(len(items))
    items = [items[i] for i in order]
    sides = _divide(items, "blocked", num_folds=3, fold=1)
    assert sorted(_ids(items, sides.test)) == [5, 6, 7, 8, 17, 18, 19, 20]
    assert sides.description == (
        "blocked, fold 2 of 3, blocks of adjacent ids in each pattern; specimen ids are not known: at most one "
        "specimen at each of the 4 borders can stand on two sides"
    )
    assert sides.specimen_leakage
    assert protocols.folds(DataConfig(protocol="blocked", num_folds=3), "made_up", items) == [
        ("1 to 4", "13 to 16"),
        ("5 to 8", "17 to 20"),
        ("9 to 12", "21 to 24"),
    ]


def test_a_gap_is_left_out_of_training_at_every_border():
    items = cells(specimens=1, size=20, patterns=1, known=False)
    middle = _divide(items, "blocked", num_folds=4, fold=1, block_gap=2)
    assert _ids(items, middle.test) == [6, 7, 8, 9, 10]
    assert _ids(items, middle.train) == [1, 2, 3, 13, 14, 15, 16, 17, 18, 19, 20]
    assert "2 left out at each border" in middle.description
    first = _divide(items, "blocked", num_folds=4, fold=0, block_gap=2)
    assert _ids(items, first.train) == list(range(8, 21))  # the ends of the order are no border
    with pytest.raises(UsageError, match="data.block_gap=15: leaves no golgi for training in fold 0"):
        _divide(items, "blocked", classes=("golgi",), num_folds=4, block_gap=15)


@pytest.mark.parametrize(
    ("fold", "gap", "validation", "train"),
    [
        (0, 0, [6, 7, 8], list(range(9, 21))),
        (3, 0, [1, 2, 3], list(range(4, 16))),
        (0, 2, [8, 9, 10], list(range(13, 21))),
        (3, 2, [1, 2, 3], list(range(6, 14))),
    ],
)
def test_validation_is_what_follows_the_test_block(fold: int, gap: int, validation: list[int], train: list[int]):
    items = cells(specimens=1, size=20, patterns=1, known=False)
    sides = _divide(items, "blocked", num_folds=4, fold=fold, block_gap=gap, validation_fraction=0.2)
    assert _ids(items, sides.validation) == validation
    assert _ids(items, sides.train) == train


def test_blocks_count_the_specimens_that_they_tear():
    items = cells(specimens=4, size=5, patterns=1)  # borders after 6 and 13 of 20: in the second and third specimen
    torn = _divide(items, "blocked", num_folds=3, fold=1)
    assert torn.specimen_leakage
    assert torn.leakage_note == "cells of one specimen are in train and test (2 of 4 specimens)"
    assert "2 specimens stand on both sides: blocks are cut without looking at specimen ids" in torn.description
    whole = _divide(items, "blocked", num_folds=4, fold=1)
    assert (whole.specimen_leakage, whole.leakage_note) == (False, "no specimen on two sides")


def test_copies_on_two_sides_are_leakage():
    items = change(cells(specimens=4, size=5, patterns=1), group=lambda item: "s0" if item.specimen < "s02" else "s1")
    sides = _divide(items, "blocked", num_folds=4, fold=0)
    assert sides.specimen_leakage
    assert sides.leakage_note == (
        "cells of one specimen are in train and test (2 of 4 specimens), all through specimens that repeat each other "
        "pixel for pixel"
    )


def test_random_cells_leak_and_say_so():
    items = cells(specimens=4, size=10, patterns=2)
    sides = _divide(items, "random_cells", num_folds=4, fold=1, validation_fraction=0.1)
    assert [len(side) for side in (sides.train, sides.validation, sides.test)] == [54, 6, 20]
    assert "cells shuffled within each pattern (seed 0)" in sides.description
    assert "in train and test (8 of 8 specimens)" in sides.leakage_note
    again, other = (_divide(items, "random_cells", num_folds=4, fold=1, protocol_seed=seed) for seed in (0, 1))
    assert again.test == sides.test
    assert other.test != sides.test
    names = protocols.folds(DataConfig(protocol="random_cells", num_folds=4), "made_up", items)
    assert names == [("20 cells at random",)] * 4


@pytest.mark.parametrize("protocol", ["blocked", "random_cells"])
def test_too_few_of_a_pattern_are_refused(protocol: str):
    with pytest.raises(UsageError, match="data.num_folds=7: made_up has only 5 of pattern 0 to divide"):
        _divide(cells(specimens=1, size=5), protocol)
    with pytest.raises(UsageError, match="data.fold=2"):
        _divide(cells(specimens=1, size=5), protocol, num_folds=2, fold=2)


def test_blocks_need_ids():
    with pytest.raises(UsageError, match="blocked on made_up needs a unique id for every example, but one has no id"):
        _divide(change(cells(), identifier=""), "blocked")
    with pytest.raises(UsageError, match="two examples have the id 00001"):
        _divide(cells() + cells(), "blocked")
    assert _divide(change(cells(), identifier=""), "random_cells").test  # a shuffle needs none


# Lists


def test_holdout_states_exactly_which_specimens_leak(tmp_path: pathlib.Path):
    items = cells(specimens=4, size=3, patterns=1)
    (tmp_path / "training.csv").write_text("1\n2\n3\n4\n5\n")
    (tmp_path / "test.csv").write_text("6\n7\n")
    sides = _divide(items, "holdout", split_lists=str(tmp_path))
    assert _ids(items, sides.train) == [1, 2, 3, 4, 5]
    assert sides.leakage_note == "cells of one specimen are in train and test (1 of 3 specimens)"
    assert sides.description == (
        f"the split lists of {tmp_path.name}; validation.csv is not there; 5 of 12 ids of made_up are in no list and "
        "left out"
    )
    assert protocols.folds(DataConfig(protocol="holdout"), "made_up", items) == [("test.csv",)]


# Real lists

REAL = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "icpr2014_task1"


@pytest.mark.skipif(not REAL.exists(), reason="real cells are not at hand")
def test_protocols_on_the_table_of_the_real_cells():
    items = _real_items()
    lists = _divide(items, "holdout", _REAL_CLASSES, split_lists=str(REAL / "holdout_64_16_20"))
    assert [len(side) for side in (lists.train, lists.validation, lists.test)] == [8701, 2175, 0]
    assert "in train and validation (83 of 83 specimens)" in lists.leakage_note

    folds = protocols.folds(DataConfig(protocol="loso"), "made_up", items)
    assert len(folds) == 82
    assert ("068", "069") in folds

    random = _divide(items, "random_cells", num_folds=5)
    assert "(83 of 83 specimens)" in random.leakage_note
    blocked = [_divide(items, "blocked", num_folds=5, fold=fold, block_gap=20) for fold in range(5)]
    assert all("specimens stand on both sides" in sides.description for sides in blocked)
    assert sum(len(sides.test) for sides in blocked) == len(items) == 10876


_REAL_CLASSES = ("homogeneous", "speckled", "nucleolar", "centromere", "nuclear_membrane", "golgi")
_OWNERS_CLASSES = ("Homogeneous", "Speckled", "Nucleolar", "Centromere", "NuMem", "Golgi")


def _real_items() -> list[Item]:
    specimens = dict(line.split(",")[:2] for line in (REAL / "specimens.csv").read_text().split()[1:])
    labels = [line.split(",") for line in (REAL / "gt_training.csv").read_text().splitlines()[1:]]
    return [
        Item(
            identifier=f"{int(number):05d}",
            specimen=f"{int(specimens[number]):03d}",
            group="068" if specimens[number] == "69" else f"{int(specimens[number]):03d}",
            pattern=_OWNERS_CLASSES.index(label),
            split="train",
        )
        for number, label in labels
    ]
