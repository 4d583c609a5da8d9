"""Pictures of single cells: some correctly classified cells of each pattern, then the errors by confused patterns."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from hep2jax.metrics.grouping import evenly_spread
from hep2jax.report import overlays
from hep2jax.report.markup import Html, count, element, format_value, is_number, join, percent
from hep2jax.report.terms import pattern_label, pattern_name

MAX_SIDE = 96
"""Maximum side of an embedded cell image in pixels."""
NUM_CORRECT_SHOWN = 8
"""Number of correctly classified cells to show for each pattern."""
MOSAIC = 4
"""Number of cells in a picture of the atlas: two rows of two."""

Confusion = Sequence[Sequence[float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellItem:
    """One cell and its prediction."""

    identifier: str
    """Name of the cell within its data set."""
    specimen_id: str
    """Specimen of the cell; empty if unknown."""
    intensity: str
    """`positive`, `intermediate` or `unknown`."""
    truth: str
    """Annotated pattern."""
    prediction: str
    """Predicted pattern."""
    probability: float
    """Probability of the prediction, in [0, 1]."""
    image: np.ndarray
    """Grey image, uint8 [height, width]: the crop of the data set at native resolution."""

    @property
    def wrong(self) -> bool:
        """Whether the prediction differs from the annotation."""
        return self.truth != self.prediction


class CellPictures:
    """Draws single cells (see `layout.Pictures`)."""

    def prepare(self, items: Mapping[str, Sequence[CellItem]]) -> dict[str, Sequence[CellItem]]:
        """Return the cells unchanged."""
        return dict(items)

    def names(self, prepared: Sequence[CellItem]) -> list[str]:
        """The annotated and predicted patterns of the cells, in alphabetical order."""
        return names(prepared)

    def atlas(self, prepared: Sequence[CellItem], classes: Sequence[str]) -> Html:
        """A few cells of each pattern."""
        return atlas(prepared, classes)

    def gallery(self, prepared: Sequence[CellItem], classes: Sequence[str], section: Mapping[str, Any]) -> Html:
        """Correctly classified cells, then the errors."""
        return gallery(prepared, classes, section.get("confusion") or [])


def names(cells: Iterable[CellItem]) -> list[str]:
    """The annotated and predicted patterns of the cells, in alphabetical order."""
    return sorted({name for cell in cells for name in (cell.truth, cell.prediction)})


def atlas(cells: Sequence[CellItem], classes: Sequence[str]) -> Html:
    """A strip with a picture of correctly classified cells for each pattern; empty if fewer than two patterns have any.

    Args:
        cells: cells in any order.
        classes: pattern names in class order.
    """
    correct = [(index, _correct_cells(cells, pattern)) for index, pattern in enumerate(classes)]
    pictures = [_mosaic(shown, pattern_label(index, classes[index])) for index, shown in correct if shown]
    if len(pictures) < 2:
        return Html("")
    caption = "Cells of each pattern that were read correctly, each with its own contrast."
    return element("div", element("div", *pictures, class_="atlas"), element("p", caption, class_="muted"))


def _mosaic(cells: Sequence[CellItem], title: Html) -> Html:
    """A picture of two by two cells, or of one cell if there are fewer than four."""
    # The cells are sorted by specimen, so that evenly spread ones cover the specimens.
    shown = evenly_spread(cells, MOSAIC) if len(cells) >= MOSAIC else cells[:1]
    pictures = element("div", *map(_picture, shown), class_="mosaic" if len(shown) > 1 else "single")
    return element("figure", pictures, element("figcaption", title))


def gallery(cells: Sequence[CellItem], classes: Sequence[str], confusion: Confusion) -> Html:
    """Some correctly classified cells of each pattern, then the errors, starting with the most frequent confusion.

    Args:
        cells: cells in any order.
        classes: pattern names in class order; every name of `cells` must be among them.
        confusion: counts over all evaluated cells, [K, K], rows are the truth; empty: unknown.
    """
    if not cells:
        return Html("")
    return element("section", _strips(cells, classes), _errors(cells, classes, confusion), class_="gallery")


def _strips(cells: Sequence[CellItem], classes: Sequence[str]) -> Html:
    """One row of cells for each pattern with correctly classified cells."""
    correct = [
        (index, evenly_spread(_correct_cells(cells, name), NUM_CORRECT_SHOWN)) for index, name in enumerate(classes)
    ]
    rows = [_row_of_cells(pattern_label(index, classes[index]), shown) for index, shown in correct if shown]
    if not rows:
        return Html("")
    heading = element("h3", "Cells read correctly ", element("small", "a few of each pattern"))
    return join([heading, element("div", *rows, class_="cell-groups")])


def _errors(cells: Sequence[CellItem], classes: Sequence[str], confusion: Confusion) -> Html:
    totals = _pair_totals(classes, confusion)
    groups = _pairs(cells, classes, totals)
    num_shown, num_wrong = sum(len(group) for group in groups.values()), sum(totals.values())
    heading = element("h3", "Cells read wrongly ", element("small", _summary(num_shown, num_wrong)))
    rows = [_pair_row(pair, group, classes, totals.get(pair, 0)) for pair, group in groups.items()]
    return join([heading, element("div", *rows, class_="cell-groups errors") if rows else None])


def _summary(num_shown: int, num_wrong: float) -> str:
    if not (num_shown or num_wrong):
        return "none"
    number = (
        count(num_shown, "cell")
        if num_wrong <= num_shown
        else f"{format_value(num_shown)} of {format_value(num_wrong)} cells"
    )
    return f"{number} shown; most frequent confusion first, then by the probability of the wrong pattern"


def _pair_row(pair: tuple[int, int], group: Sequence[CellItem], classes: Sequence[str], total: float) -> Html:
    truth, read = pair
    number = f"{format_value(len(group))} of {format_value(total)}" if total > len(group) else count(len(group), "cell")
    title = join(
        [
            pattern_label(truth, classes[truth]),
            element("small", "read as"),
            pattern_label(read, classes[read]),
            element("small", number),
        ]
    )
    return _row_of_cells(title, group)


def _row_of_cells(title: Html, cells: Sequence[CellItem]) -> Html:
    captioned = (element("figure", _picture(cell), _caption(cell), class_="crop") for cell in cells)
    return element("article", element("h4", title), element("div", *captioned, class_="crops"), class_="cell-group")


def _pair_totals(classes: Sequence[str], confusion: Confusion) -> dict[tuple[int, int], float]:
    """Number of errors by (truth, prediction) among all evaluated cells, without pairs that have no errors."""
    size = min(len(classes), len(confusion))
    return {
        (truth, read): confusion[truth][read]
        for truth in range(size)
        for read in range(size)
        if truth != read and confusion[truth][read]
    }


def _pairs(
    cells: Iterable[CellItem], classes: Sequence[str], totals: dict[tuple[int, int], float]
) -> dict[tuple[int, int], list[CellItem]]:
    """Misclassified cells by (truth, prediction), most frequent pair first, most confident error of a pair first."""
    order = {name: index for index, name in enumerate(classes)}
    groups = collections.defaultdict(list)
    for cell in sorted((cell for cell in cells if cell.wrong), key=lambda cell: (-_confidence(cell), _key(cell))):
        groups[order[cell.truth], order[cell.prediction]].append(cell)
    return dict(sorted(groups.items(), key=lambda pair: (-max(totals.get(pair[0], 0), len(pair[1])), pair[0])))


def _correct_cells(cells: Iterable[CellItem], pattern: str) -> list[CellItem]:
    return sorted((cell for cell in cells if cell.truth == pattern and not cell.wrong), key=_key)


def _key(cell: CellItem) -> tuple[str, str]:
    return cell.specimen_id, cell.identifier


def _confidence(cell: CellItem) -> float:
    return cell.probability if is_number(cell.probability) else -1.0


def _picture(cell: CellItem) -> Html:
    shown = shrink(cell.image)
    height, width = shown.shape
    description = _describe(cell)
    source = overlays.png(overlays.stretch_contrast(shown))
    return element("img", src=source, alt=description, title=description, width=width, height=height)


def _describe(cell: CellItem) -> str:
    specimen = f" of specimen {cell.specimen_id}" if cell.specimen_id else ""
    intensity = f", {cell.intensity}" if cell.intensity not in ("", "unknown") else ""
    return (
        f"cell {cell.identifier}{specimen}{intensity}: {pattern_name(cell.truth)}, "
        f"read as {pattern_name(cell.prediction)} ({_probability(cell)})"
    )


def _caption(cell: CellItem) -> Html:
    specimen = element("span", cell.specimen_id) if cell.specimen_id else None
    return element("figcaption", element("b", cell.identifier), specimen, element("span", _probability(cell)))


def _probability(cell: CellItem) -> str:
    return percent(cell.probability) if is_number(cell.probability) else "probability unknown"


def shrink(image: np.ndarray) -> np.ndarray:
    """Shrink a cell to at most `MAX_SIDE` by area averaging; smaller cells are returned unchanged.

    Args:
        image: uint8 [height, width].

    Returns:
        uint8 [height', width'] with the same aspect ratio except for rounding, neither side longer than `MAX_SIDE`.
    """
    scale = MAX_SIDE / max(image.shape)
    if scale >= 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
