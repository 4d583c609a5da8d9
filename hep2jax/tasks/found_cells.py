"""The single cells that a network's mask of a field holds, one record for each."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundCell:
    """One cell of a field; all lengths are in pixels of the image."""

    label: int
    """Its value in the label map of the field."""
    centre: tuple[float, float]
    """(y, x), the mean of its pixels."""
    area: int
    box: tuple[int, int, int, int]
    """(top, left, bottom, right) of its bounding box; bottom and right are the first row and column outside."""
    pattern: str
    probability: float
    """The share of its pattern: of the cell's pixels for a network that labels pixels, of the field's patches for one
    that reads patches; the probability of the pattern for a network of cells."""

    def resized(self, old: tuple[int, int], new: tuple[int, int]) -> "FoundCell":
        """The same cell in the image brought from one (height, width) to another."""
        down, right = new[0] / old[0], new[1] / old[1]
        top, left, bottom, end = self.box
        y, x = self.centre
        return dataclasses.replace(
            self,
            centre=((y + 0.5) * down - 0.5, (x + 0.5) * right - 0.5),  # the middle of a pixel is its position
            area=max(1, round(self.area * down * right)),
            box=(math.floor(top * down), math.floor(left * right), math.ceil(bottom * down), math.ceil(end * right)),
        )


def by_pixels(
    labels: Int[np.ndarray, "height width"],
    pattern: Int[np.ndarray, "height width"],
    classes: Sequence[str],
    scores: Float[np.ndarray, "label pattern"] | None = None,
) -> tuple[FoundCell, ...]:
    """The cells of a label map, each with the pattern of most of its pixels; of tied patterns the first wins.

    Args:
        labels: 0 is background; any positive numbers are cells.
        pattern: index into `classes` of each pixel; meaningful on the cells.
        classes: the names of the patterns.
        scores: what a reader of single cells says of each label; its rows of zeros leave the pixels to decide.
    """
    boxes = _boxes(labels)
    votes = np.zeros((len(boxes) + 1, len(classes)))
    for label, box in enumerate(boxes, start=1):
        if box is not None:
            votes[label] = np.bincount(pattern[box][labels[box] == label], minlength=len(classes))
            if scores is not None and scores[label].any():
                votes[label] = scores[label]
    return _cells(labels, boxes, votes, classes)


def by_votes(
    labels: Int[np.ndarray, "height width"], votes: np.ndarray, classes: Sequence[str]
) -> tuple[FoundCell, ...]:
    """The cells of a label map by the votes for their patterns.

    Args:
        labels: 0 is background; any positive numbers are cells.
        votes: [labels, patterns], not negative: the row of each label; that of 0 is not used.
        classes: the names of the patterns.
    """
    return _cells(labels, _boxes(labels), votes, classes)


def _boxes(labels: np.ndarray) -> list[tuple[slice, slice] | None]:
    """The bounding box of each label from 1; None for those that no pixel has."""
    boxes: Any = ndimage.find_objects(labels.astype(np.int32, copy=False))
    return boxes


def _cells(
    labels: np.ndarray, boxes: Sequence[tuple[slice, slice] | None], votes: np.ndarray, classes: Sequence[str]
) -> tuple[FoundCell, ...]:
    shares = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1e-12)
    cells = []
    for label, box in enumerate(boxes, start=1):
        if box is None:
            continue
        inside = labels[box] == label
        area, (top, left) = int(np.count_nonzero(inside)), (side.start for side in box)
        winner = int(shares[label].argmax())
        cells.append(
            FoundCell(
                label=label,
                centre=(top + _sum_of_places(inside, 0) / area, left + _sum_of_places(inside, 1) / area),
                area=area,
                box=(top, left, box[0].stop, box[1].stop),
                pattern=classes[winner],
                probability=float(shares[label, winner]),
            )
        )
    return tuple(cells)


def _sum_of_places(inside: np.ndarray, axis: int) -> int:
    """The sum of the rows (axis 0) or columns (axis 1) of the true pixels."""
    counts = np.count_nonzero(inside, axis=1 - axis)
    return int(counts @ np.arange(len(counts)))
