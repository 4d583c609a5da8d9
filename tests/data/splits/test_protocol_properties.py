"""Properties of every protocol over made-up tables of any shape; what is expected is computed here from scratch."""

import collections
import csv
import functools
import inspect
import itertools
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hep2jax.config import DataConfig
from hep2jax.data.sets.items import Item
from hep2jax.data.splits import protocols
from hep2jax.errors import UsageError
from tests.data.tables import any_table

TABLES = 100


def over_tables(test: Callable) -> Callable:
    """Run the test on 100 tables and configurations (its last two parameters); a failure names its table."""

    def run(**given):
        for seed in range(TABLES):
            try:
                test(**given, items=list(_table(seed)), config=_any_config(seed))
            except Exception as error:
                error.add_note(f"table {seed}")
                raise

    signature = inspect.signature(test)
    others = [p for p in signature.parameters.values() if p.name not in ("items", "config")]
    decorated: Any = functools.wraps(test)(run)
    decorated.__signature__ = signature.replace(parameters=others)  # what pytest fills in
    return decorated


@functools.cache
def _table(seed: int) -> tuple[Item, ...]:
    return tuple(any_table(np.random.default_rng(seed)))


def _any_config(seed: int) -> DataConfig:
    rng = np.random.default_rng((seed, 1))
    return DataConfig(
        num_folds=int(rng.integers(2, 7)),
        validation_fraction=float(rng.choice([0.0, 0.0, 0.1, 0.3, 0.8])),
        block_gap=int(rng.choice([0, 1, 5, 40])),
        protocol_seed=int(rng.integers(4)),
    )


def _try(config: DataConfig, items: list[Item]) -> protocols.Partition | str:
    """The partition, or the message that refuses it."""
    try:
        return protocols.partition(config, "made_up", items)
    except UsageError as error:
        return str(error)


def _names(items: list[Item], indices) -> set[str]:
    """Specimens and groups, told apart."""
    chosen = [items[i] for i in indices]
    return {f"specimen {item.specimen}" for item in chosen if item.specimen} | {
        f"group {item.group}" for item in chosen if item.group
    }


def _leaks(items: list[Item], partition: protocols.Partition) -> bool:
    return any(_names(items, a) & _names(items, b) for a, b in itertools.combinations(partition.splits().values(), 2))


def _unknown(items: list[Item], indices) -> bool:
    return any(not items[i].specimen and not items[i].group for i in indices)


def _used(partition: protocols.Partition) -> list[int]:
    used = [i for side in partition.splits().values() for i in side]
    assert len(used) == len(set(used)), "sides overlap"
    return used


def _check_note(items: list[Item], partition: protocols.Partition) -> None:
    leaks, unknown = _leaks(items, partition), _unknown(items, _used(partition))
    in_doubt = unknown and len(partition.splits()) > 1
    assert partition.specimen_leakage == (leaks or in_doubt)
    start = "cells of one specimen are in" if leaks else "specimen ids are not at hand" if in_doubt else "no specimen"
    assert partition.leakage_note.startswith(start)


def _all_folds(config: DataConfig, items: list[Item]) -> list[protocols.Partition]:
    """Partitions of all folds; those that validation or gaps make impossible must be refused for that reason."""
    made = []
    for fold in range(len(protocols.folds(config, "made_up", items))):
        config.fold = fold
        partition = _try(config, items)
        if isinstance(partition, str):
            reason = "validation_fraction" if config.protocol in protocols.LEAK_FREE else "block_gap"
            assert getattr(config, reason) > 0
            assert partition.startswith(f"data.{reason}={getattr(config, reason)}: ")
            return []
        made.append(partition)
    return made


def _check_folds(items: list[Item], partitions: list[protocols.Partition], whole: set[int]) -> None:
    tested = collections.Counter(i for partition in partitions for i in partition.test)
    assert tested == collections.Counter(whole)
    for partition in partitions:
        assert partition.train
        assert partition.test
        assert set(_used(partition)) <= whole
        aside = {items[i].pattern for i in partition.validation}
        assert aside <= {items[i].pattern for i in partition.train}
        _check_note(items, partition)


@pytest.mark.parametrize("protocol", protocols.LEAK_FREE)
@over_tables
def test_no_specimen_on_two_sides(protocol: str, items: list[Item], config: DataConfig):
    config.protocol = protocol
    training = {i for i, item in enumerate(items) if item.split == "train"}
    units = {items[i].group or items[i].specimen for i in training}
    needed = 2 if protocol == "loso" else config.num_folds
    if _unknown(items, training) or len(units) < needed:
        for ask in (protocols.folds, protocols.partition):
            with pytest.raises(UsageError, match=r"specimen ids|only \d+ specimens|not available"):
                ask(config, "made_up", items)
        return
    partitions = _all_folds(config, items)
    if not partitions:
        return
    _check_folds(items, partitions, training)
    for partition, held_out in zip(partitions, protocols.folds(config, "made_up", items), strict=True):
        assert not partition.specimen_leakage
        assert not _leaks(items, partition)
        assert set(_used(partition)) == training
        assert set(held_out) == {items[i].specimen or items[i].group for i in partition.test}
        kept = {items[i].group or items[i].specimen for i in (*partition.train, *partition.validation)}
        aside = {items[i].group or items[i].specimen for i in partition.validation}
        assert len(aside) == round(config.validation_fraction * len(kept))


@pytest.mark.parametrize("protocol", ["blocked", "random_cells"])
@over_tables
def test_blocks_test_every_item_once_and_say_what_they_do(protocol: str, items: list[Item], config: DataConfig):
    config.protocol = protocol
    training = {i for i, item in enumerate(items) if item.split == "train"}
    sizes = collections.Counter(items[i].pattern for i in training)
    if not training or min(sizes.values()) < config.num_folds:
        for ask in (protocols.folds, protocols.partition):
            with pytest.raises(UsageError, match=r"data.num_folds=\d|not available"):
                ask(config, "made_up", items)
        return
    partitions = _all_folds(config, items)
    if not partitions:
        return
    _check_folds(items, partitions, training)
    for partition in partitions:
        tested = collections.Counter(items[i].pattern for i in partition.test)
        assert all(abs(tested[p] - n / config.num_folds) < 1 for p, n in sizes.items())
        if protocol == "random_cells" or not config.block_gap:
            assert set(_used(partition)) == training


@over_tables
def test_blocks_are_runs_of_ids_with_gaps(items: list[Item], config: DataConfig):
    config.protocol = "blocked"
    partition = _try(config, items)
    if isinstance(partition, str):
        return
    for pattern in {items[i].pattern for i in partition.test}:
        own = [i for i, item in enumerate(items) if item.pattern == pattern and item.split == "train"]
        order = sorted(
            own, key=lambda i: (len(items[i].identifier) * items[i].identifier.isdecimal(), items[i].identifier)
        )
        place = {index: position for position, index in enumerate(order)}
        tested = sorted(place[i] for i in partition.test if i in place)
        assert tested == list(range(tested[0], tested[0] + len(tested)))
        trained, validated = (
            [place[i] for i in side if i in place] for side in (partition.train, partition.validation)
        )
        for one, other in ((trained, tested), (trained, validated), (validated, tested)):
            distances = np.abs(np.subtract.outer(one, other))
            assert not distances.size or distances.min() > config.block_gap
        if not config.block_gap:
            rest = len(trained) + len(validated)
            assert len(validated) == min(round(config.validation_fraction * rest), rest - 1)


@over_tables
def test_contest_keeps_the_sets_own_splits(items: list[Item], config: DataConfig):
    own = {split: tuple(i for i, item in enumerate(items) if item.split == split) for split in ("train", "test")}
    has_validation = any(item.split == "validation" for item in items)
    partition = _try(config, items)
    if isinstance(partition, str):
        assert partition.startswith("data.validation_fraction=")
        assert config.validation_fraction > 0
        assert not has_validation
        return
    assert partition.test == own["test"]
    _check_note(items, partition)
    if has_validation:
        assert partition.train == own["train"]
    else:
        assert tuple(sorted(partition.train + partition.validation)) == own["train"]
        assert not _names(items, partition.train) & _names(items, partition.validation)


@over_tables
def test_lists_are_followed_to_the_letter(items: list[Item], config: DataConfig):
    chances = np.random.default_rng(len(items)).dirichlet([1.0, 0.3, 0.3, 0.3])
    sides = np.random.default_rng(0).choice(["training", "validation", "test", ""], len(items), p=chances).tolist()
    sides[0] = "training"
    with tempfile.TemporaryDirectory() as folder:
        for side in {*sides} - {""}:
            with (pathlib.Path(folder) / f"{side}.csv").open("w", newline="") as file:
                csv.writer(file).writerows(
                    [[item.identifier] for item, s in zip(items, sides, strict=True) if s == side]
                )
        config = DataConfig(protocol="holdout", split_lists=folder, num_folds=config.num_folds)
        partition = protocols.partition(config, "made_up", items)
    for name, indices in (
        ("training", partition.train),
        ("validation", partition.validation),
        ("test", partition.test),
        ("", set(range(len(items))) - set(_used(partition))),
    ):
        assert sorted(indices) == [i for i, side in enumerate(sides) if side == name]
    _check_note(items, partition)


@pytest.mark.parametrize("protocol", ["contest", "kfold", "loso", "blocked", "random_cells"])
@over_tables
def test_the_order_of_items_does_not_matter(protocol: str, items: list[Item], config: DataConfig):
    config.protocol = protocol
    shuffled = [items[i] for i in np.random.default_rng(0).permutation(len(items))]
    assert _outcome(config, items) == _outcome(config, shuffled)


def _outcome(config: DataConfig, items: list[Item]) -> object:
    partition = _try(config, items)
    if isinstance(partition, str):
        return partition
    sides = {name: sorted(items[i].identifier for i in side) for name, side in partition.splits().items()}
    return sides, partition.description, partition.leakage_note, protocols.folds(config, "made_up", items)


def test_the_tables_reach_every_outcome():
    """Properties of what is never reached hold for nothing."""
    seen: collections.Counter[str] = collections.Counter()
    for seed, protocol in itertools.product(range(TABLES), ["contest", "kfold", "loso", "blocked", "random_cells"]):
        config = _any_config(seed)
        config.protocol = protocol
        partition = _try(config, list(_table(seed)))
        if isinstance(partition, str):
            seen[f"{protocol}: refused"] += 1
            continue
        seen[f"{protocol}: {partition.leakage_note.split(' ')[0]}"] += 1
        seen["through copies alone"] += "pixel for pixel" in partition.leakage_note
        seen["validation and gap"] += bool(protocol == "blocked" and partition.validation and config.block_gap)
    outcomes = [f"{p}: {first}" for p in ("contest", "blocked", "random_cells") for first in ("cells", "specimen")]
    outcomes += ["contest: no", "kfold: no", "loso: no", "kfold: refused", "loso: refused", "blocked: refused"]
    rare = {outcome: seen[outcome] for outcome in [*outcomes, "through copies alone"] if seen[outcome] < 5}
    assert not rare, seen
    assert min(seen["kfold: no"], seen["loso: no"]) > 30
    assert seen["validation and gap"] > 10
