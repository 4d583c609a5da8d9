"""A second set of cells that a network learns from along with its own: more specimens of the patterns that both know.

Data sets name their patterns differently, so a cell of the second set says only which of the own patterns it may have:
one that is speckled there may be fine or coarse speckled here. Cells of patterns that the own set does not know are
left out.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from hep2jax.config import DataConfig
from hep2jax.data.sets import cells as cell_sets
from hep2jax.data.sets.cells import Cell, CellSet
from hep2jax.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Along:
    """The cells of the second set.

    Attributes:
        cells: the cells. Their patterns are numbered after the own ones, so that both sets are drawn alike, and their
            specimens are named after their set.
        possible: bool [label, pattern], which patterns a cell may have: own patterns first, each only itself; then
            those of the second set.
    """

    cells: tuple[Cell, ...]
    possible: Bool[np.ndarray, "label pattern"]


def broad(pattern: str) -> str:
    """The pattern under which data sets agree: fine and coarse speckled are speckled."""
    return "speckled" if pattern.endswith("speckled") else pattern


def load(config: DataConfig, classes: Sequence[str]) -> Along | None:
    """Read the training cells of the data set `along`, preprocessed as the own ones at the scale `along_scale`.

    Args:
        config: `along`, `along_manual_dir`, `along_scale`, and how cells are preprocessed.
        classes: the own patterns.

    Returns:
        None if no second set is configured.

    Raises:
        UsageError: the sets have no pattern in common, or the second one cannot be read.
    """
    if not config.along:
        return None
    theirs = dataclasses.replace(
        config,
        name=config.along,
        builder_config="",
        manual_dir=config.along_manual_dir or config.manual_dir,
        scale=config.along_scale,
        channel="grey",
    )
    return of_set(cell_sets.load(theirs), classes)


def of_set(cells: CellSet, classes: Sequence[str]) -> Along:
    """The training cells of a set whose patterns are among `classes`, the own patterns.

    Raises:
        UsageError: there are none.
    """
    shared = [[broad(own) == broad(other) for own in classes] for other in cells.classes]
    possible = np.concatenate([np.eye(len(classes), dtype=bool), np.array(shared, bool)])
    chosen = [cell for cell in cells.cells if cell.item.split == "train" and any(shared[cell.item.pattern])]
    if not chosen:
        raise UsageError(f"data.along={cells.name}: has no training cell of the patterns {', '.join(classes)}")
    return Along(cells=tuple(_renamed(cell, cells.name, len(classes)) for cell in chosen), possible=possible)


def _renamed(cell: Cell, set_name: str, num_own: int) -> Cell:
    specimen = f"{set_name}/{cell.item.specimen}"
    return dataclasses.replace(
        cell,
        item=dataclasses.replace(
            cell.item,
            identifier=f"{set_name}/{cell.item.identifier}",
            specimen=specimen,
            group=specimen,
            pattern=num_own + cell.item.pattern,
        ),
    )
