"""The page of a prediction: every image with its picture, its pattern and the shares of the patterns."""

import collections
import dataclasses
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from hep2jax.report import overlays
from hep2jax.report.document import chapter, document, facts
from hep2jax.report.gallery import votes_bar
from hep2jax.report.markup import MISSING, Html, count, element, format_value, join, percent
from hep2jax.report.terms import coded_label, pattern_name

MAX_PICTURES = 200
"""Number of images with a picture on the page, which they keep below about 6 MB."""
MAX_ROWS = 2_000
"""Number of images on the page: browsers are slow with longer tables."""
PICTURE_SIDE = 320
"""Longest side of a picture in pixels."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadingRow:
    """One image, or one specimen, of the page."""

    name: str
    """Its path, or the name of the specimen; bytes that are no text are escaped as surrogates."""
    note: str = ""
    """Shown below the name."""
    patterns: Sequence[str]
    probabilities: Mapping[str, float]
    facts: Mapping[str, Any]
    """The values of the columns that not every page has, by their names."""
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Its files by their names on the page, as paths relative to the page."""


class ReadingsPage:
    """Collects the images of a page, no more than the page shows, and renders it."""

    def __init__(self, classes: Sequence[str], *, one_pattern: bool) -> None:
        """Begin a page.

        Args:
            classes: the patterns in class order.
            one_pattern: whether the probabilities of an image add up to 1.
        """
        self._classes, self._one_pattern = list(classes), one_pattern
        self._images: list[Html] = []
        self._specimens: list[Html] = []
        self._columns: dict[str, list[str]] = {"image": [], "specimen": []}
        self._patterns = collections.Counter[str]()
        self._num_images = self._num_pictures = self._num_specimens = 0

    @property
    def wants_picture(self) -> bool:
        """Whether the next image is shown with a picture."""
        return self._num_pictures < MAX_PICTURES

    def add(self, row: ReadingRow, picture: np.ndarray | None = None) -> None:
        """Add an image, with its picture: uint8 grey [height, width] or BGR [height, width, 3], of any size."""
        self._num_images += 1
        self._patterns.update(row.patterns or ["none"])
        if len(self._images) < MAX_ROWS:
            self._num_pictures += picture is not None
            self._columns["image"] = list(row.facts)
            shown = None if picture is None else _picture(row, picture)
            self._images.append(self._row(row, element("td", shown, class_="picture")))

    def add_specimen(self, row: ReadingRow) -> None:
        """Add a specimen that was read from several images."""
        self._num_specimens += 1
        if len(self._specimens) < MAX_ROWS:
            self._columns["specimen"] = list(row.facts)
            self._specimens.append(self._row(row))

    def _row(self, row: ReadingRow, first: Html | None = None) -> Html:
        name, labels = _text(row.name), [_label(pattern, self._classes) for pattern in row.patterns]
        links = [element("a", label, href=_link(path)) for label, path in row.files.items()]
        below = element("small", join([_text(row.note), " " if row.note else "", *_spaced(links)]), class_="muted")
        probability = max((row.probabilities[pattern] for pattern in row.patterns), default=0.0)
        extra = [
            element("td", _shown(value), data_value="" if value is None else value, data_label=key)
            for key, value in row.facts.items()
        ]
        return element(
            "tr",
            first,
            element("th", element("span", os.path.basename(name), title=name), below, scope="row", data_value=name),
            element("td", *(labels or ["none"]), data_value=" ".join(row.patterns), data_label="pattern"),
            element("td", self._shares(row), data_value=probability, data_label="shares", class_="shares"),
            *extra,
            data_patterns=" ".join(row.patterns) or "none",
        )

    def _shares(self, row: ReadingRow) -> Html:
        if self._one_pattern:
            return element("div", votes_bar(row.probabilities, self._classes), class_="votes")
        shown = sorted(row.probabilities.items(), key=lambda pair: -pair[1])[:3]
        return element("span", ", ".join(f"{pattern_name(name)} {percent(value)}" for name, value in shown))

    def render(self, title: str, entries: Mapping[str, Any]) -> str:
        """The page as a string; `entries` are the facts below its heading."""
        return document(
            title=f"{title}: hep2jax predict",
            headline=join([element("h1", title), facts(entries)]),
            summary=self._summary(),
            chapters=[
                chapter(
                    "Specimens", self._table("specimen", self._specimens), _shown_of(self._num_specimens, "specimen")
                ),
                chapter("Images", self._table("image", self._images), self._note()),
            ],
            parts=("readings",),
        )

    def _note(self) -> str:
        pictures = f"pictures of the first {self._num_pictures}" if self._num_pictures < self._num_images else ""
        return " · ".join(filter(None, (_shown_of(self._num_images, "image"), pictures)))

    def _summary(self) -> Html:
        """How many images have each pattern."""
        present = [name for name in (*self._classes, "none") if self._patterns[name]]
        most = max(self._patterns.values(), default=1)
        rows = [
            element(
                "div",
                element("span", _label(name, self._classes)),
                element("span", element("i", style=f"width:{100 * self._patterns[name] / most:.1f}%"), class_="bar"),
                element("span", format_value(self._patterns[name]), class_="number"),
                element("span", percent(self._patterns[name] / max(self._num_images, 1)), class_="number muted"),
                class_="timing",
            )
            for name in present
        ]
        note = element("p", "Images by pattern. This is research software and not a medical device.", class_="muted")
        return join([element("div", *rows, class_="timings counts"), note])

    def _table(self, noun: str, rows: Sequence[Html]) -> Html:
        if not rows:
            return Html("")
        with_picture = [element("th", "", scope="col")] if noun == "image" else []
        titles = (noun, "pattern", "shares" if self._one_pattern else "probabilities", *self._columns[noun])
        columns = [
            element("th", element("button", title, type="button"), scope="col", aria_sort="none") for title in titles
        ]
        head = element("thead", element("tr", *with_picture, *columns))
        return element(
            "div",
            self._filters(noun),
            element("table", head, element("tbody", *rows), class_="figures readings"),
            class_="filtered",
        )

    def _filters(self, noun: str) -> Html:
        """Hidden until the script of the page runs."""
        options = [element("option", pattern_name(name), value=name) for name in (*self._classes, "none")]
        return element(
            "form",
            element("label", f"{noun} ", element("input", type="search", name="text")),
            element(
                "label", "pattern ", element("select", element("option", "all", value=""), *options, name="pattern")
            ),
            element("output", class_="shown"),
            class_="controls",
            hidden=True,
        )


def _shown_of(number: int, noun: str) -> str:
    if number <= MAX_ROWS:
        return count(number, noun)
    return f"the first {format_value(MAX_ROWS)} of {count(number, noun)}; the table has all"


def _label(pattern: str, classes: Sequence[str]) -> Html:
    return coded_label(classes.index(pattern), pattern) if pattern in classes else element("span", pattern)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else format_value(value, 2)


def _spaced(links: Sequence[Html]) -> list[Any]:
    return [part for link in links for part in (link, " ")]


def _text(name: str) -> str:
    """A name of a file as text that can be written: bytes that are none become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


def _link(path: str) -> str:
    return urllib.parse.quote(os.fsencode(path))


def _picture(row: ReadingRow, picture: np.ndarray) -> Html:
    scale = min(1.0, PICTURE_SIDE / max(picture.shape[:2]))
    size = [max(1, round(scale * side)) for side in picture.shape[1::-1]]
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    image = element(
        "img",
        src=overlays.jpeg(small),
        width=size[0],
        height=size[1],
        alt=f"{_text(row.name)}: {', '.join(row.patterns) or MISSING}",
        loading="lazy",
    )
    target = next(iter(row.files.values()), None)
    return element("a", image, href=_link(target)) if target else image
