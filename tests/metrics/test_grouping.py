import numpy as np
import pytest

from hep2jax.metrics.grouping import evenly_spread, group_by, group_indices


def test_groups_and_their_members_stay_in_order():
    groups = group_by(["b1", "a1", "b0", "c1", "a0"], lambda name: name[0])
    assert list(groups.items()) == [("b", ["b1", "b0"]), ("a", ["a1", "a0"]), ("c", ["c1"])]
    assert group_by([], str) == {}


def test_a_few_of_many_are_spread_from_the_first_to_the_last():
    assert evenly_spread("abcdefg", 3) == ["a", "d", "g"]
    assert evenly_spread("abc", 5) == ["a", "b", "c"]
    assert evenly_spread("abc", 1) == ["a"]
    assert evenly_spread("abc", 0) == evenly_spread("", 4) == []


def test_the_order_of_ids_does_not_depend_on_that_of_the_items():
    for ids in (["s2", "s1", "s2"], ["s1", "s2", "s2"]):
        distinct, indices = group_indices(ids, 3)
        assert distinct == ["s1", "s2"]
        assert [distinct[i] for i in indices] == ids
    assert group_indices(np.array([7, 3, 7]), 3)[0] == [3, 7]
    with pytest.raises(ValueError, match="2 items but 1 specimen ids"):
        group_indices(["s1"], 2)
