"""Divides examples into training, validation and test splits, and reports whether specimens leak between them.

Examples are cells, fields or images. The specimen is the independent unit: if a protocol puts examples of one specimen
into two splits, the partition reports it.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Int

from hep2jax.config import DataConfig
from hep2jax.data.sets.items import Item, identifier_key, specimens, unique_keys, units
from hep2jax.data.splits import lists
from hep2jax.errors import UsageError
from hep2jax.metrics.grouping import evenly_spread

LEAK_FREE = ("kfold", "loso")
"""Protocols that never put a specimen into two splits; they need specimen ids."""

_LEFT_OUT, _TRAIN, _VALIDATION, _TEST = -1, 0, 1, 2  # gaps are taken from the lower code (see `_leave_gaps`)
_MAX_NAMES = 24
_CODES = {"train": _TRAIN, "validation": _VALIDATION, "test": _TEST}
_PAIRS = (("train", "test"), ("train", "validation"), ("validation", "test"))

Splits = Int[np.ndarray, " items"]
"""The code of each item's split: `_TRAIN`, `_VALIDATION`, `_TEST` or `_LEFT_OUT`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Partition:
    """Indices of the items in each split, with notes for the report.

    The notes are recorded in `metrics.json`, and runs are averaged only if their notes agree (`scripts/average.py`), so
    changing their wording separates new runs from old ones.
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    description: str
    specimen_leakage: bool
    """Whether a specimen, or a copy of it that is equal pixel for pixel, is in two splits, or this is not known."""
    leakage_note: str
    """The same in words."""

    def splits(self) -> dict[str, tuple[int, ...]]:
        """The non-empty splits by name."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: indices for name, indices in splits.items() if indices}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Table:
    """The items as columns."""

    name: str
    items: tuple[Item, ...]
    classes: tuple[str, ...]
    pattern: Int[np.ndarray, " items"]
    specimen: np.ndarray
    unit: np.ndarray
    """What must stay in one split: the group of specimens; empty if it is not known."""
    training: Bool[np.ndarray, " items"]
    """Whether each item is in the data set's own training split."""

    def class_name(self, pattern: int) -> str:
        """Name of a pattern, for messages."""
        if not self.classes:
            return f"pattern {pattern}"
        return self.classes[pattern] if pattern < len(self.classes) else "images without pattern"

    def patterns_of(self, chosen: Bool[np.ndarray, " items"]) -> set[int]:
        """All patterns of the chosen items."""
        return {pattern for i in np.flatnonzero(chosen) for pattern in self.items[i].patterns}

    def specimens_of(self, names: Iterable[str]) -> tuple[str, ...]:
        """The specimens of the training split that belong to these units, sorted."""
        return tuple(sorted(set(self.specimen[self.training & np.isin(self.unit, sorted(names))].tolist())))


def partition(config: DataConfig, name: str, items: Sequence[Item], classes: Sequence[str] = ()) -> Partition:
    """Divide the items of the data set `name` by the configured protocol.

    contest: the data set's own splits; if it has published folds, fold number `fold`.
    holdout: the lists in `split_lists`, see `hep2jax.data.splits.lists`.
    kfold: `num_folds` folds of specimens, with every pattern spread over the folds.
    loso: one specimen is left out.
    blocked: for data sets without specimen ids in which the cells of a specimen have adjacent ids within a pattern.
        The items of each pattern are sorted by id and cut into `num_folds` blocks. At every border, `block_gap` items
        are left out of training (at the border between validation and test, out of validation). The validation block
        follows the test block.
    random_cells: the same blocks after a shuffle within each pattern (`protocol_seed`), as in much of the literature.
        It leaks.
    The last four divide the data set's own training split. The protocols in `LEAK_FREE` never separate specimens that
    repeat each other pixel for pixel.

    Args:
        config: `protocol` and the keys named above; `validation_fraction` if the protocol has no validation split.
        name: name of the data set, for messages.
        items: the examples.
        classes: pattern names, for messages and for comparison with those in split lists.

    Raises:
        UsageError: the protocol cannot be applied to the items, or does not have the fold.
    """
    table = _tabulate(name, items, classes)
    splits, description = _PROTOCOLS[config.protocol](config, table)
    leaks, note = _leakage(table, splits)
    train, validation, test = (tuple(np.flatnonzero(splits == code).tolist()) for code in (_TRAIN, _VALIDATION, _TEST))
    return Partition(
        train=train,
        validation=validation,
        test=test,
        description="; ".join([description, *_describe_untrained(table, splits)]),
        specimen_leakage=leaks,
        leakage_note=note,
    )


def folds(config: DataConfig, name: str, items: Sequence[Item]) -> list[tuple[str, ...]]:
    """What each fold of the protocol holds out, in words: specimens if these are the unit, otherwise ranges or lists.

    Raises:
        UsageError: for the same reasons as `partition`.
    """
    table = _tabulate(name, items, ())
    if config.protocol in LEAK_FREE:
        return [table.specimens_of(group) for group in _held_out_units(config, table)]
    if config.protocol == "contest":
        published = range(_num_published(table))
        return [(f"published fold {k + 1}",) for k in published] or [("the test split",)]
    if config.protocol == "holdout":
        return [(lists.FILES["test"],)]
    orders = _orders(config, table)
    shuffled = config.protocol == "random_cells"
    return [_block_names(table, orders, config, fold, shuffled) for fold in range(config.num_folds)]


def shortened(names: Sequence[str]) -> str:
    """The names, separated by commas; if there are very many, the first few and the total number."""
    if len(names) <= _MAX_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[:3])}, ... ({len(names):,} specimens)"


def _tabulate(name: str, items: Sequence[Item], classes: Sequence[str]) -> _Table:
    return _Table(
        name=name,
        items=tuple(items),
        classes=tuple(classes),
        pattern=np.array([item.pattern for item in items], int),
        specimen=np.array(specimens(items), str),
        unit=np.array(units(items), str),
        training=np.array([item.split == "train" for item in items], bool),
    )


def _check_fold(config: DataConfig, table: _Table, count: int) -> None:
    if config.fold >= count:
        raise UsageError(
            f"data.fold={config.fold}: {config.protocol} has {count} folds on {table.name}, numbered from 0"
        )


# The set's own splits, and lists


def _contest(config: DataConfig, table: _Table) -> tuple[Splits, str]:
    published = _num_published(table)
    if published:
        _check_fold(config, table, published)
        splits = _published_splits(config, table)
        description = f"published fold {config.fold + 1} of {published} of {table.name}"
    else:
        splits = np.array([_CODES.get(item.split, _LEFT_OUT) for item in table.items], int)
        description = f"the splits of {table.name}"
    _set_aside_validation(config, table, splits)
    leaks, note = _leakage(table, splits)
    if leaks:
        description += f"; {note}"
    elif (table.unit[splits != _LEFT_OUT] != "").all():
        description += ", by specimen"
    return splits, description + ("" if (splits == _TEST).any() else "; its test split is not at hand")


def _num_published(table: _Table) -> int:
    return max((len(item.folds) for item in table.items), default=0)


def _published_splits(config: DataConfig, table: _Table) -> Splits:
    published = [item.folds[config.fold] if config.fold < len(item.folds) else -1 for item in table.items]
    splits = np.array([{0: _TRAIN, 1: _TEST}.get(split, _LEFT_OUT) for split in published], int)
    if (splits == _LEFT_OUT).all():
        raise UsageError(
            f"data.fold={config.fold}: the list of this published fold of {table.name} is not available here"
        )
    return splits


def _holdout(config: DataConfig, table: _Table) -> tuple[Splits, str]:
    assigned = lists.assign(config.split_lists, table.name, table.items, table.classes)
    splits = np.array([_CODES.get(split, _LEFT_OUT) for split in assigned.splits], int)
    _set_aside_validation(config, table, splits)
    folder = pathlib.Path(config.split_lists).resolve().name
    return splits, "; ".join([f"the split lists of {folder}", *assigned.notes])


# By specimen


def _by_specimen(config: DataConfig, table: _Table) -> tuple[Splits, str]:
    groups = _held_out_units(config, table)
    _check_fold(config, table, len(groups))
    splits = np.where(table.training, _TRAIN, _LEFT_OUT)
    splits[table.training & np.isin(table.unit, groups[config.fold])] = _TEST
    _set_aside_validation(config, table, splits)
    names = shortened(table.specimens_of(groups[config.fold]))
    description = f"{config.protocol}, by specimen, fold {config.fold + 1} of {len(groups)}: {names}"
    return splits, "; ".join([description, *_describe_repeats(table)])


def _held_out_units(config: DataConfig, table: _Table) -> list[tuple[str, ...]]:
    """The units in the test split of each fold of `kfold` or `loso`."""
    _check_training_split(config, table)
    if (table.unit[table.training] == "").any():
        raise UsageError(
            f"data.protocol={config.protocol} needs specimen ids, which {table.name} does not have here; take blocked"
        )
    patterns = _patterns_of_units(table, table.training)
    if config.protocol == "loso":
        required, key, groups = 2, "protocol=loso", [(unit,) for unit in sorted(patterns)]
    else:
        # Dealing out the units in order of their patterns spreads each pattern and keeps the folds equally large.
        required, key, ordered = config.num_folds, f"num_folds={config.num_folds}", list(patterns)
        groups = [tuple(ordered[i::required]) for i in range(required)]
    if len(patterns) < required:
        raise UsageError(f"data.{key}: {table.name} has only {len(patterns)} specimens")
    return groups


def _check_training_split(config: DataConfig, table: _Table) -> None:
    if not table.training.any():
        raise UsageError(f"data.protocol={config.protocol}: the training split of {table.name} is not available")


def _patterns_of_units(table: _Table, chosen: Bool[np.ndarray, " items"]) -> dict[str, set[int]]:
    """The patterns of each unit among the chosen items, ordered by its (least) `Item.pattern`, then by name."""
    patterns: dict[str, set[int]] = {}
    least: dict[str, int] = {}
    for i in np.flatnonzero(chosen):
        unit, item = str(table.unit[i]), table.items[i]
        patterns.setdefault(unit, set()).update(item.patterns)
        least[unit] = min(least.get(unit, item.pattern), item.pattern)
    return {unit: patterns[unit] for unit in sorted(patterns, key=lambda unit: (least[unit], unit))}


def _describe_repeats(table: _Table) -> list[str]:
    """A note on which specimens of the training split repeat each other; none if there are none."""
    groups = [table.specimens_of([unit]) for unit in sorted(set(table.unit[table.training].tolist()))]
    merged = ["+".join(names) for names in groups if len(names) > 1]
    return [f"specimens that repeat each other pixel for pixel go together: {', '.join(merged)}"] if merged else []


def _set_aside_validation(config: DataConfig, table: _Table, splits: Splits) -> None:
    """Move `validation_fraction` of the training units to the validation split, if it is empty.

    A unit that is the last one of a pattern is never moved.
    """
    training = splits == _TRAIN
    if not config.validation_fraction or not training.any() or (splits == _VALIDATION).any():
        return
    share = f"data.validation_fraction={config.validation_fraction}"
    if (table.unit[training] == "").any():
        raise UsageError(
            f"{share}: {config.protocol} sets validation aside by specimen, and {table.name} does not have specimen "
            "ids here; take 0, or the protocol blocked"
        )
    patterns = _patterns_of_units(table, training)
    movable = _movable_units(patterns)
    count = round(config.validation_fraction * len(patterns))
    if count > len(movable):
        raise UsageError(
            f"{share}: {count} of {len(patterns)} specimens would leave a pattern without a training specimen; "
            "take a smaller share"
        )
    splits[training & np.isin(table.unit, evenly_spread(movable, count))] = _VALIDATION


def _movable_units(patterns: dict[str, set[int]]) -> list[str]:
    """Units that can leave the training split: all except the first unit of each pattern."""
    first_units: dict[int, str] = {}
    for unit, patterns_of_unit in patterns.items():
        for pattern in patterns_of_unit:
            first_units.setdefault(pattern, unit)
    return [unit for unit in patterns if unit not in first_units.values()]


# By position in the order of ids


def _in_blocks(config: DataConfig, table: _Table) -> tuple[Splits, str]:
    """The protocols `blocked` and `random_cells`."""
    orders = _orders(config, table)
    _check_fold(config, table, config.num_folds)
    shuffled = config.protocol == "random_cells"
    gap = 0 if shuffled else config.block_gap
    splits = np.full(len(table.items), _LEFT_OUT)
    borders = 0
    for pattern, order in orders.items():
        without_gaps = _assign_blocks(len(order), config, gap)
        borders += int(np.count_nonzero(np.diff(without_gaps)))
        splits[order] = _leave_gaps(without_gaps, gap)
        if not (splits[order] == _TRAIN).any():
            raise UsageError(
                f"data.block_gap={gap}: leaves no {table.class_name(pattern)} for training in fold {config.fold}; take "
                "a smaller gap, or a smaller data.validation_fraction"
            )
    description = f"{config.protocol}, fold {config.fold + 1} of {config.num_folds}"
    if shuffled:
        return splits, f"{description}, cells shuffled within each pattern (seed {config.protocol_seed})"
    gaps = f", {gap} left out at each border" if gap else ""
    leakage = _describe_block_leakage(table, splits, borders)
    return splits, f"{description}, blocks of adjacent ids in each pattern{gaps}; {leakage}"


def _orders(config: DataConfig, table: _Table) -> dict[int, Int[np.ndarray, " items"]]:
    """Positions of the training split's items of each pattern, in the order that is cut into blocks."""
    _check_training_split(config, table)
    shuffled = config.protocol == "random_cells"
    training = np.flatnonzero(table.training)
    if not shuffled:
        unique_keys([table.items[i] for i in training], f"data.protocol=blocked on {table.name}")
    training = np.array(sorted(training, key=lambda i: identifier_key(table.items[i].identifier)), int)
    orders = {}
    for pattern in sorted(set(table.pattern[training].tolist())):
        order = training[table.pattern[training] == pattern]
        if len(order) < config.num_folds:
            few = f"only {len(order)} of {table.class_name(pattern)}"
            raise UsageError(f"data.num_folds={config.num_folds}: {table.name} has {few} to divide")
        rng = np.random.default_rng((config.protocol_seed, pattern))
        orders[pattern] = rng.permutation(order) if shuffled else order
    return orders


def _block(length: int, fold: int, num_folds: int) -> tuple[int, int]:
    """First position of a block, and the position after its last; the sizes of blocks differ by at most one."""
    return fold * length // num_folds, (fold + 1) * length // num_folds


def _assign_blocks(length: int, config: DataConfig, gap: int) -> Int[np.ndarray, " length"]:
    """Splits along the order of one pattern, before gaps are left out.

    For placing the validation block only, the order is treated as a ring.
    """
    first, last = _block(length, config.fold, config.num_folds)
    splits = np.full(length, _TRAIN)
    splits[first:last] = _TEST
    after = np.r_[last:length, 0:first]
    count = min(round(config.validation_fraction * len(after)), len(after) - 1)
    if count:  # more by the gap that will be left out at the border to the test block
        splits[after[: count + min(gap, length - last)]] = _VALIDATION
    return splits


def _leave_gaps(splits: Int[np.ndarray, " length"], gap: int) -> Int[np.ndarray, " length"]:
    """Leave out the items within `gap` positions of an item with a higher split code."""
    gap = min(gap, len(splits))
    padded = np.pad(splits, gap, constant_values=_LEFT_OUT)
    highest = np.lib.stride_tricks.sliding_window_view(padded, 2 * gap + 1).max(axis=-1)
    return np.where(highest > splits, _LEFT_OUT, splits)


def _describe_block_leakage(table: _Table, splits: Splits, borders: int) -> str:
    """A note on how many specimens are in two splits after cutting blocks."""
    if (table.unit[splits != _LEFT_OUT] == "").any():
        where = f"each of the {borders} borders"
        return f"specimen ids are not known: at most one specimen at {where} can stand on two sides"
    leaking = set().union(*(_specimens_in_both(table, splits, pair) for pair in _PAIRS))
    count = "1 specimen stands" if len(leaking) == 1 else f"{len(leaking)} specimens stand"
    return f"{count} on both sides: blocks are cut without looking at specimen ids"


def _block_names(table: _Table, orders: dict, config: DataConfig, fold: int, shuffled: bool) -> tuple[str, ...]:
    blocks = [order[slice(*_block(len(order), fold, config.num_folds))] for order in orders.values()]
    if shuffled:
        return (f"{sum(map(len, blocks)):,} cells at random",)
    ends = [(table.items[block[0]].identifier, table.items[block[-1]].identifier) for block in blocks]
    return tuple(f"{first} to {last}" if first != last else first for first, last in ends)


# Leakage


def _leakage(table: _Table, splits: Splits) -> tuple[bool, str]:
    """Whether a specimen or group is in two splits, and a note with the numbers; this is counted, not assumed."""
    pairs = [p for p in _PAIRS if all((splits == _CODES[name]).any() for name in p)]
    used = splits != _LEFT_OUT
    unknown = bool((table.unit[used] == "").any())
    leaking = {pair: specimens for pair in pairs if (specimens := _specimens_in_both(table, splits, pair))}
    if leaking:
        total = len(set(table.specimen[used].tolist()) - {""})
        counts = [f"in {' and '.join(pair)} ({len(names)} of {total} specimens)" for pair, names in leaking.items()]
        without_copies = any(_names_in_both(table.specimen, splits, pair) for pair in pairs)
        how = "" if without_copies else ", all through specimens that repeat each other pixel for pixel"
        more = "; some cells have no specimen id" if unknown else ""
        return True, f"cells of one specimen are {', '.join(counts)}{how}{more}"
    if pairs and unknown:
        where = " and ".join(pairs[0])
        return True, f"specimen ids are not at hand: that cells of one specimen are in {where} cannot be excluded"
    return False, "no specimen on two sides"


def _specimens_in_both(table: _Table, splits: Splits, pair: tuple[str, str]) -> set[str]:
    """Specimens that are in both splits of the pair, themselves or through a copy."""
    within = np.isin(splits, [_CODES[name] for name in pair])
    return set(table.specimen[within & np.isin(table.unit, sorted(_names_in_both(table.unit, splits, pair)))].tolist())


def _names_in_both(names: np.ndarray, splits: Splits, pair: tuple[str, str]) -> set[str]:
    first, second = (set(names[splits == _CODES[name]].tolist()) for name in pair)
    return (first & second) - {""}


def _describe_untrained(table: _Table, splits: Splits) -> list[str]:
    """A note on the patterns that are evaluated but not trained on; none if there are none."""
    trained, evaluated = (table.patterns_of(chosen) for chosen in (splits == _TRAIN, splits > _TRAIN))
    names = [table.class_name(pattern) for pattern in sorted(evaluated - trained)]
    return [f"nothing to train on of {', '.join(names)}"] if trained and names else []


_PROTOCOLS: dict[str, Callable[[DataConfig, _Table], tuple[Splits, str]]] = {
    "contest": _contest,
    "holdout": _holdout,
    "kfold": _by_specimen,
    "loso": _by_specimen,
    "blocked": _in_blocks,
    "random_cells": _in_blocks,
}
