"""Who trains, who validates, who tests. The specimen is the unit: its fields never stand on two sides."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from hep2jax.config import DataConfig
from hep2jax.data.sources import Field, FieldSet
from hep2jax.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Partition:
    """Indices of fields on each side, and what to say about it in a report."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    description: str
    specimen_leakage: bool

    def sides(self) -> dict[str, tuple[int, ...]]:
        """The non-empty sides by name."""
        sides = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: indices for name, indices in sides.items() if indices}


def partition(config: DataConfig, fields: FieldSet) -> Partition:
    """Divide the fields by the configured protocol.

    contest: the data set's own splits (for icpr2012 the contest's, by specimen).
    kfold: `num_folds` folds over the specimens of the training split, every pattern spread over the folds.
    loso: one specimen of the training split is left out.
    The two inner protocols never touch the data set's own test split.
    """
    if config.protocol == "contest":
        return _contest(config, fields)
    groups = folds(config, fields)
    if config.fold >= len(groups):
        raise UsageError(
            f"data.fold={config.fold}: {config.protocol} has {len(groups)} folds on {fields.name}, numbered from 0"
        )
    held_out = set(groups[config.fold])
    rest = [s for group in groups for s in group if s not in held_out]
    what = f"fold {config.fold + 1} of {len(groups)}: {', '.join(sorted(held_out))}"
    return _assemble(
        fields, *_split_validation(config, fields, rest), held_out, f"{config.protocol}, by specimen, {what}"
    )


def folds(config: DataConfig, fields: FieldSet) -> list[tuple[str, ...]]:
    """The held-out specimens of each fold of `kfold` or `loso`, inside the training split."""
    specimens = _by_pattern(f for f in fields.fields if f.split == "train")
    if config.protocol == "loso":
        return [(name,) for name in sorted(s for names in specimens.values() for s in names)]
    # One running counter over the patterns spreads each pattern and keeps the folds even.
    ordered = [name for pattern in sorted(specimens) for name in specimens[pattern]]
    if len(ordered) < config.num_folds:
        raise UsageError(f"data.num_folds={config.num_folds}: {fields.name} has only {len(ordered)} specimens")
    return [tuple(ordered[i :: config.num_folds]) for i in range(config.num_folds)]


def _contest(config: DataConfig, fields: FieldSet) -> Partition:
    by_split = {split: {f.specimen_id for f in fields.fields if f.split == split} for split in _splits(fields)}
    if "train" not in by_split:
        train, validation = set(), set()
    elif "validation" in by_split:
        train, validation = by_split["train"], by_split["validation"]
    else:
        train, validation = _split_validation(config, fields, by_split["train"])
    said = f"the splits of {fields.name}, by specimen"
    if "test" not in by_split:
        said += "; its test split is not at hand"
    return _assemble(fields, train, validation, by_split.get("test", set()), said)


def _split_validation(config: DataConfig, fields: FieldSet, specimens: Iterable[str]) -> tuple[set[str], set[str]]:
    """Set `validation_fraction` of the specimens aside, spread over the patterns, never a pattern's last one."""
    chosen = set(specimens)
    groups = _by_pattern(f for f in fields.fields if f.specimen_id in chosen)
    spare = [name for pattern in sorted(groups) for name in groups[pattern][1:]]
    wanted = round(config.validation_fraction * len(chosen))
    if wanted > len(spare):
        raise UsageError(
            f"data.validation_fraction={config.validation_fraction}: {wanted} of {len(chosen)} specimens would leave "
            "a pattern without a training specimen; take a smaller share"
        )
    positions = np.linspace(0, len(spare) - 1, wanted).round().astype(int) if wanted else []
    validation = {spare[i] for i in positions}
    return chosen - validation, validation


def _assemble(
    fields: FieldSet, train: Iterable[str], validation: Iterable[str], test: Iterable[str], description: str
) -> Partition:
    sides = [set(train), set(validation), set(test)]
    overlap = (sides[0] & sides[1]) | (sides[0] & sides[2]) | (sides[1] & sides[2])
    indices = [tuple(i for i, f in enumerate(fields.fields) if f.specimen_id in side) for side in sides]
    return Partition(
        train=indices[0],
        validation=indices[1],
        test=indices[2],
        description=description,
        specimen_leakage=bool(overlap),
    )


def _splits(fields: FieldSet) -> Sequence[str]:
    return sorted({f.split for f in fields.fields})


def _by_pattern(fields: Iterable[Field]) -> dict[int, list[str]]:
    """Specimen ids of each pattern, sorted."""
    groups: dict[int, set[str]] = {}
    for field in fields:
        groups.setdefault(field.pattern, set()).add(field.specimen_id)
    return {pattern: sorted(names) for pattern, names in groups.items()}
