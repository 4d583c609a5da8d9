"""Who trains, who validates, who tests, and whether specimens leak. Works on items, cells and fields alike.

The specimen is the unit of truth: where a protocol puts its cells on two sides, the partition says so.
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

CLEAN = ("kfold", "loso")
"""Protocols that never put a specimen on two sides; they need specimen ids."""

_LEFT_OUT, _TRAIN, _VALIDATION, _TEST = -1, 0, 1, 2  # the nearer to the test, the higher
_MOST_NAMES = 24
_SIDE = {"train": _TRAIN, "validation": _VALIDATION, "test": _TEST}
_PAIRS = (("train", "test"), ("train", "validation"), ("validation", "test"))

Sides = Int[np.ndarray, " items"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Partition:
    """Indices of items on each side, and what to say about it in a report."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    description: str
    specimen_leakage: bool
    """A specimen, or one that repeats it pixel for pixel, stands on two sides, or nobody can tell."""
    leakage_note: str
    """The same in words."""

    def splits(self) -> dict[str, tuple[int, ...]]:
        """The non-empty sides by name."""
        sides = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: indices for name, indices in sides.items() if indices}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Table:
    """The items in columns."""

    name: str
    items: tuple[Item, ...]
    classes: tuple[str, ...]
    pattern: Int[np.ndarray, " items"]
    specimen: np.ndarray
    unit: np.ndarray
    """What must stay on one side: groups of specimens; empty where unknown."""
    training: Bool[np.ndarray, " items"]
    """Items of the set's own training split."""

    def class_name(self, pattern: int) -> str:
        """For messages."""
        if not self.classes:
            return f"pattern {pattern}"
        return self.classes[pattern] if pattern < len(self.classes) else "images without pattern"

    def patterns_on(self, chosen: Bool[np.ndarray, " items"]) -> set[int]:
        """Every pattern of these items."""
        return {pattern for i in np.flatnonzero(chosen) for pattern in self.items[i].patterns}

    def specimens_of(self, names: Iterable[str]) -> tuple[str, ...]:
        """The specimens of the training split that belong to these units, sorted."""
        return tuple(sorted(set(self.specimen[self.training & np.isin(self.unit, sorted(names))].tolist())))


def partition(config: DataConfig, name: str, items: Sequence[Item], classes: Sequence[str] = ()) -> Partition:
    """Divide the items of the set `name` by the configured protocol.

    contest: the set's own splits; where it has published folds, number `fold` of them.
    holdout: the lists in `split_lists`, see `hep2jax.data.splits.lists`.
    kfold: `num_folds` folds of specimens, every pattern spread over the folds.
    loso: one specimen is left out.
    blocked: for sets whose ids follow the specimens inside a pattern while the specimen ids are lost. Within each
        pattern the items in order of their ids are cut into `num_folds` blocks; `block_gap` items of the lesser side
        (training, then validation) are left out at every border. Validation is what follows the test block.
    random_cells: the same blocks after a shuffle within each pattern (`protocol_seed`): what much of the literature
        did. It leaks.
    The last four stay inside the set's own training split. Specimens that repeat each other pixel for pixel are never
    parted by the protocols in `CLEAN`.

    Args:
        config: `protocol` and the keys named above; `validation_fraction` where the protocol has no validation side.
        name: of the data set, for messages.
        items: the examples.
        classes: pattern names, for messages and to compare with those in split lists.

    Raises:
        UsageError: the items do not allow this protocol, or a fold that it does not have is asked for.
    """
    table = _tabulate(name, items, classes)
    sides, description = _DIVIDE[config.protocol](config, table)
    leaks, note = _leakage(table, sides)
    train, validation, test = (tuple(np.flatnonzero(sides == side).tolist()) for side in (_TRAIN, _VALIDATION, _TEST))
    return Partition(
        train=train,
        validation=validation,
        test=test,
        description="; ".join([description, *_untrained(table, sides)]),
        specimen_leakage=leaks,
        leakage_note=note,
    )


def folds(config: DataConfig, name: str, items: Sequence[Item]) -> list[tuple[str, ...]]:
    """What each fold of the protocol holds out, in words: specimens where these are the unit, else ranges or lists.

    Raises:
        UsageError: as `partition`.
    """
    table = _tabulate(name, items, ())
    if config.protocol in CLEAN:
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
    """The names with commas between them; of very many, the first few and how many there are."""
    if len(names) <= _MOST_NAMES:
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


def _contest(config: DataConfig, table: _Table) -> tuple[Sides, str]:
    published = _num_published(table)
    if published:
        _check_fold(config, table, published)
        sides = _published_sides(config, table)
        said = f"published fold {config.fold + 1} of {published} of {table.name}"
    else:
        sides = np.array([_SIDE.get(item.split, _LEFT_OUT) for item in table.items], int)
        said = f"the splits of {table.name}"
    _set_validation_aside(config, table, sides)
    leaks, note = _leakage(table, sides)
    if leaks:
        said += f"; {note}"
    elif (table.unit[sides != _LEFT_OUT] != "").all():
        said += ", by specimen"
    return sides, said + ("" if (sides == _TEST).any() else "; its test split is not at hand")


def _num_published(table: _Table) -> int:
    return max((len(item.folds) for item in table.items), default=0)


def _published_sides(config: DataConfig, table: _Table) -> Sides:
    said = [item.folds[config.fold] if config.fold < len(item.folds) else -1 for item in table.items]
    sides = np.array([{0: _TRAIN, 1: _TEST}.get(side, _LEFT_OUT) for side in said], int)
    if (sides == _LEFT_OUT).all():
        raise UsageError(f"data.fold={config.fold}: {table.name} does not say who is in its published fold here")
    return sides


def _holdout(config: DataConfig, table: _Table) -> tuple[Sides, str]:
    assigned = lists.assign(config.split_lists, table.name, table.items, table.classes)
    sides = np.array([_SIDE.get(side, _LEFT_OUT) for side in assigned.sides], int)
    _set_validation_aside(config, table, sides)
    folder = pathlib.Path(config.split_lists).resolve().name
    return sides, "; ".join([f"the split lists of {folder}", *assigned.notes])


# By specimen


def _by_specimen(config: DataConfig, table: _Table) -> tuple[Sides, str]:
    groups = _held_out_units(config, table)
    _check_fold(config, table, len(groups))
    sides = np.where(table.training, _TRAIN, _LEFT_OUT)
    sides[table.training & np.isin(table.unit, groups[config.fold])] = _TEST
    _set_validation_aside(config, table, sides)
    names = shortened(table.specimens_of(groups[config.fold]))
    said = f"{config.protocol}, by specimen, fold {config.fold + 1} of {len(groups)}: {names}"
    return sides, "; ".join([said, *_together(table)])


def _held_out_units(config: DataConfig, table: _Table) -> list[tuple[str, ...]]:
    """The units that each fold of `kfold` or `loso` tests."""
    _check_training_split(config, table)
    if (table.unit[table.training] == "").any():
        raise UsageError(
            f"data.protocol={config.protocol} needs specimen ids, which {table.name} does not have here; take blocked"
        )
    patterns = _patterns_of_units(table, table.training)
    if config.protocol == "loso":
        wanted, key, groups = 2, "protocol=loso", [(unit,) for unit in sorted(patterns)]
    else:
        # One running counter over the patterns spreads each pattern and keeps the folds even.
        wanted, key, ordered = config.num_folds, f"num_folds={config.num_folds}", list(patterns)
        groups = [tuple(ordered[i::wanted]) for i in range(wanted)]
    if len(patterns) < wanted:
        raise UsageError(f"data.{key}: {table.name} has only {len(patterns)} specimens")
    return groups


def _check_training_split(config: DataConfig, table: _Table) -> None:
    if not table.training.any():
        raise UsageError(f"data.protocol={config.protocol}: the training split of {table.name} is not at hand")


def _patterns_of_units(table: _Table, chosen: Bool[np.ndarray, " items"]) -> dict[str, set[int]]:
    """The patterns of each unit among the chosen items, ordered by its (least) `Item.pattern`, then by name."""
    patterns: dict[str, set[int]] = {}
    least: dict[str, int] = {}
    for i in np.flatnonzero(chosen):
        unit, item = str(table.unit[i]), table.items[i]
        patterns.setdefault(unit, set()).update(item.patterns)
        least[unit] = min(least.get(unit, item.pattern), item.pattern)
    return {unit: patterns[unit] for unit in sorted(patterns, key=lambda unit: (least[unit], unit))}


def _together(table: _Table) -> list[str]:
    """Which specimens of the training split repeat each other."""
    merged = [table.specimens_of([unit]) for unit in sorted(set(table.unit[table.training].tolist()))]
    said = ["+".join(names) for names in merged if len(names) > 1]
    return [f"specimens that repeat each other pixel for pixel go together: {', '.join(said)}"] if said else []


def _set_validation_aside(config: DataConfig, table: _Table, sides: Sides) -> None:
    """Move `validation_fraction` of the training units to validation, if it is empty; never a pattern's last unit."""
    training = sides == _TRAIN
    if not config.validation_fraction or not training.any() or (sides == _VALIDATION).any():
        return
    share = f"data.validation_fraction={config.validation_fraction}"
    if (table.unit[training] == "").any():
        raise UsageError(
            f"{share}: {config.protocol} sets validation aside by specimen, and {table.name} does not have specimen "
            "ids here; take 0, or the protocol blocked"
        )
    patterns = _patterns_of_units(table, training)
    spare = _spare_units(patterns)
    wanted = round(config.validation_fraction * len(patterns))
    if wanted > len(spare):
        raise UsageError(
            f"{share}: {wanted} of {len(patterns)} specimens would leave a pattern without a training specimen; "
            "take a smaller share"
        )
    positions = np.linspace(0, len(spare) - 1, wanted).round().astype(int) if wanted else []
    sides[training & np.isin(table.unit, [spare[i] for i in positions])] = _VALIDATION


def _spare_units(patterns: dict[str, set[int]]) -> list[str]:
    """Units that can all leave and every pattern still has one: all but the first of each pattern."""
    kept: dict[int, str] = {}
    for unit, own in patterns.items():
        for pattern in own:
            kept.setdefault(pattern, unit)
    return [unit for unit in patterns if unit not in kept.values()]


# By place in the order of ids


def _in_blocks(config: DataConfig, table: _Table) -> tuple[Sides, str]:
    """`blocked` and `random_cells`."""
    orders = _orders(config, table)
    _check_fold(config, table, config.num_folds)
    shuffled = config.protocol == "random_cells"
    gap = 0 if shuffled else config.block_gap
    sides = np.full(len(table.items), _LEFT_OUT)
    borders = 0
    for pattern, order in orders.items():
        whole = _cut(len(order), config, gap)
        borders += int(np.count_nonzero(np.diff(whole)))
        sides[order] = _leave_gaps(whole, gap)
        if not (sides[order] == _TRAIN).any():
            raise UsageError(
                f"data.block_gap={gap}: leaves no {table.class_name(pattern)} for training in fold {config.fold}; take "
                "a smaller gap, or fewer for validation"
            )
    said = f"{config.protocol}, fold {config.fold + 1} of {config.num_folds}"
    if shuffled:
        return sides, f"{said}, cells shuffled within each pattern (seed {config.protocol_seed})"
    gaps = f", {gap} left out at each border" if gap else ""
    return sides, f"{said}, blocks of adjacent ids in each pattern{gaps}; {_torn(table, sides, borders)}"


def _orders(config: DataConfig, table: _Table) -> dict[int, Int[np.ndarray, " items"]]:
    """Positions of each pattern's items of the training split, in the order that blocks are cut from."""
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
    """First and past-the-last position of a block; the sizes of blocks differ by one at most."""
    return fold * length // num_folds, (fold + 1) * length // num_folds


def _cut(length: int, config: DataConfig, gap: int) -> Int[np.ndarray, " length"]:
    """Sides along one pattern's order, gaps not yet left out; the order counts as a ring for validation alone."""
    first, last = _block(length, config.fold, config.num_folds)
    sides = np.full(length, _TRAIN)
    sides[first:last] = _TEST
    after = np.r_[last:length, 0:first]
    wanted = min(round(config.validation_fraction * len(after)), len(after) - 1)
    if wanted:  # with what the border to the test block will cost
        sides[after[: wanted + min(gap, length - last)]] = _VALIDATION
    return sides


def _leave_gaps(sides: Int[np.ndarray, " length"], gap: int) -> Int[np.ndarray, " length"]:
    """Leave out what lies within `gap` places of a higher side."""
    gap = min(gap, len(sides))
    padded = np.pad(sides, gap, constant_values=_LEFT_OUT)
    highest = np.lib.stride_tricks.sliding_window_view(padded, 2 * gap + 1).max(axis=-1)
    return np.where(highest > sides, _LEFT_OUT, sides)


def _torn(table: _Table, sides: Sides, borders: int) -> str:
    """What blocks do to specimens."""
    if (table.unit[sides != _LEFT_OUT] == "").any():
        where = f"each of the {borders} borders"
        return f"specimen ids are not known: at most one specimen at {where} can stand on two sides"
    torn = set().union(*(_parted(table, sides, pair) for pair in _PAIRS))
    count = "1 specimen stands" if len(torn) == 1 else f"{len(torn)} specimens stand"
    return f"{count} on both sides: blocks are cut without looking at specimen ids"


def _block_names(table: _Table, orders: dict, config: DataConfig, fold: int, shuffled: bool) -> tuple[str, ...]:
    blocks = [order[slice(*_block(len(order), fold, config.num_folds))] for order in orders.values()]
    if shuffled:
        return (f"{sum(map(len, blocks)):,} cells at random",)
    ends = [(table.items[block[0]].identifier, table.items[block[-1]].identifier) for block in blocks]
    return tuple(f"{first} to {last}" if first != last else first for first, last in ends)


# Leakage


def _leakage(table: _Table, sides: Sides) -> tuple[bool, str]:
    """Whether a specimen or group stands on two sides, counted, never assumed; and the words for it."""
    pairs = [p for p in _PAIRS if all((sides == _SIDE[name]).any() for name in p)]
    used = sides != _LEFT_OUT
    unknown = bool((table.unit[used] == "").any())
    parted = {pair: found for pair in pairs if (found := _parted(table, sides, pair))}
    if parted:
        total = len(set(table.specimen[used].tolist()) - {""})
        counts = [f"in {' and '.join(pair)} ({len(found)} of {total} specimens)" for pair, found in parted.items()]
        itself = any(_on_both(table.specimen, sides, pair) for pair in pairs)
        how = "" if itself else ", all through specimens that repeat each other pixel for pixel"
        more = "; some cells have no specimen id" if unknown else ""
        return True, f"cells of one specimen are {', '.join(counts)}{how}{more}"
    if pairs and unknown:
        where = " and ".join(pairs[0])
        return True, f"specimen ids are not at hand: that cells of one specimen are in {where} cannot be excluded"
    return False, "no specimen on two sides"


def _parted(table: _Table, sides: Sides, pair: tuple[str, str]) -> set[str]:
    """Specimens which stand on both sides, themselves or by a copy."""
    within = np.isin(sides, [_SIDE[name] for name in pair])
    return set(table.specimen[within & np.isin(table.unit, sorted(_on_both(table.unit, sides, pair)))].tolist())


def _on_both(names: np.ndarray, sides: Sides, pair: tuple[str, str]) -> set[str]:
    first, second = (set(names[sides == _SIDE[name]].tolist()) for name in pair)
    return (first & second) - {""}


def _untrained(table: _Table, sides: Sides) -> list[str]:
    """Patterns that are measured and were not trained on, said."""
    trained, measured = (table.patterns_on(side) for side in (sides == _TRAIN, sides > _TRAIN))
    names = [table.class_name(pattern) for pattern in sorted(measured - trained)]
    return [f"nothing to train on of {', '.join(names)}"] if trained and names else []


_DIVIDE: dict[str, Callable[[DataConfig, _Table], tuple[Sides, str]]] = {
    "contest": _contest,
    "holdout": _holdout,
    "kfold": _by_specimen,
    "loso": _by_specimen,
    "blocked": _in_blocks,
    "random_cells": _in_blocks,
}
