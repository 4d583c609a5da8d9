"""Readers take images a few batches ahead, and end specimens where the next one begins."""

import numpy as np
import pytest

from hep2jax.tasks import reading
from hep2jax.tasks.reading import _Field, _with_specimens, in_groups


def _fields(specimens):
    return [_Field((1, 1), name, None, number) for number, name in enumerate(specimens)]


@pytest.mark.parametrize(
    ("specimens", "whole"),
    [
        ("", []),
        ("a", [[0]]),
        ("aab", [[], [0, 1], [2]]),
        ("a-b-", [[0], [], [2], []]),
        ("---", [[], [], []]),
        ("abba", [[0], [], [1, 2], [3]]),
    ],
)
def test_a_specimen_comes_with_its_last_field(specimens, whole):
    fields = _fields([None if name == "-" else name for name in specimens])
    read = list(_with_specimens(fields))
    assert [field.output for field, _ in read] == list(range(len(specimens)))
    assert [[field.output for field in together] for _, together in read] == whole


def test_groups_are_bounded_by_images_and_pixels(monkeypatch):
    monkeypatch.setattr(reading, "_GROUP_PIXELS", 100)
    monkeypatch.setattr(reading, "_GROUP_IMAGES", 3)
    sizes = [40, 60, 1, 250, 10, 10, 10, 10, 99]
    groups = list(in_groups(sizes, lambda size: size))
    assert groups == [[40, 60], [1], [250], [10, 10, 10], [10], [99]]


def test_images_are_taken_only_as_they_are_needed():
    taken = []

    def sizes():
        for size in (60, 60, 60):
            taken.append(size)
            yield np.int64(size)

    groups = in_groups(sizes(), lambda size: 10_000_000)
    assert len(next(groups)) == 1
    assert len(taken) == 2
