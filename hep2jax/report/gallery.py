"""Pictures of the specimens: image, truth, prediction and errors of every field, worst first.

The grey image of a field and its two overlays are embedded once; other drawings of the field refer to them.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from hep2jax.report import overlays
from hep2jax.report.markup import Html, count, element, format_value, is_number, join, percent
from hep2jax.report.overlays import Display, GalleryItem
from hep2jax.report.palette import FALSE_NEGATIVE, FALSE_POSITIVE, WRONG_PATTERN, pattern_colour
from hep2jax.report.terms import pattern_name, swatch

ATLAS_CROP = 0.62
"""Side of the square crop of a field in the atlas strip, as a share of the shorter side of the field."""


class FieldPictures:
    """Draws fields, grouped by specimen (see `layout.Pictures`)."""

    def prepare(self, items: Mapping[str, Sequence[GalleryItem]]) -> dict[str, list[list[Display]]]:
        """Shrink the fields for the page; their width depends on the number of fields on the page."""
        width = display_width(sum(map(len, items.values())))
        return {split: prepare(f"split{i}", shown, width) for i, (split, shown) in enumerate(items.items())}

    def names(self, prepared: Sequence[Sequence[Display]]) -> list[str]:
        """The patterns in the order of their first appearance in the votes of the fields."""
        return list(dict.fromkeys(name for fields in prepared for field in fields for name in field.item.votes))

    def atlas(self, prepared: Sequence[Sequence[Display]], classes: Sequence[str]) -> Html:
        """A strip with one field of each pattern."""
        return atlas(prepared, classes)

    def gallery(
        self, prepared: Sequence[Sequence[Display]], classes: Sequence[str], section: Mapping[str, Any]
    ) -> Html:
        """All specimens that are shown."""
        return gallery(prepared, classes, section.get("num_specimens"))


def display_width(num_fields: int) -> int:
    """Width of embedded fields in pixels; with many fields it is smaller, to keep the page below about 8 MB."""
    return 480 if num_fields <= 64 else 320 if num_fields <= 160 else 208


def prepare(name: str, items: Sequence[GalleryItem], width: int) -> list[list[Display]]:
    """Shrink fields for the page and group them by specimen: misclassified ones first, then by their lowest Dice.

    Args:
        name: name of the split in element ids: letters, digits and hyphens.
        items: fields in any order.
        width: width of the embedded images in pixels.
    """
    specimens = collections.defaultdict(list)
    for item in sorted(items, key=lambda item: (_dice(item), item.field)):
        specimens[item.specimen_id].append(item)
    groups = sorted(specimens.values(), key=_worst_first)
    return [
        [overlays.display(item, width, f"{name}-{row}-{column}") for column, item in enumerate(group)]
        for row, group in enumerate(groups)
    ]


def _worst_first(fields: Sequence[GalleryItem]) -> tuple[bool, float, str]:
    return not _any_wrong(fields), _dice(fields[0]), fields[0].specimen_id


def _any_wrong(fields: Sequence[GalleryItem]) -> bool:
    return any(item.wrong for item in fields)


def _dice(item: GalleryItem) -> float:
    """Dice as a sort key: fields without Dice come last."""
    return float(item.dice) if item.dice is not None and is_number(float(item.dice)) else 2.0


def gallery(specimens: Sequence[Sequence[Display]], classes: Sequence[str], num_measured: int | None = None) -> Html:
    """Legend, filter and one card for each specimen; empty if there are none.

    Args:
        specimens: specimens from `prepare`.
        classes: pattern names in class order.
        num_measured: number of evaluated specimens; None: unknown.
    """
    if not specimens:
        return Html("")
    num_wrong = sum(_any_wrong([field.item for field in fields]) for fields in specimens)
    return element(
        "section",
        element("h3", "Specimens ", element("small", _summary(len(specimens), num_measured, num_wrong))),
        _legends(specimens, classes),
        _controls(specimens),
        element("div", *(_card(fields, classes) for fields in specimens), class_="cards"),
        class_="gallery",
    )


def _summary(num_shown: int, num_measured: int | None, num_wrong: int) -> str:
    """The number of specimens shown, and the total number if it is larger."""
    total = max(num_measured or 0, num_shown)
    number = f"{num_shown} of {count(total, 'specimen')}" if total > num_shown else count(total, "specimen")
    wrong = f"{num_wrong} of them read wrongly" if num_wrong else "all of them read correctly"
    return f"{number} shown, {wrong}; wrong ones first, then by lowest Dice"


def _legends(specimens: Sequence[Sequence[Display]], classes: Sequence[str]) -> Html:
    items = [field.item for fields in specimens for field in fields]
    present = {name for item in items for name in (item.truth, item.prediction, *item.votes)}
    patterns = [_entry(swatch(i), pattern_name(name)) for i, name in enumerate(classes) if name in present]
    void = _entry(element("i", class_="swatch void"), "artefact, not measured")
    errors = (
        (FALSE_NEGATIVE, "cell missed"),
        (FALSE_POSITIVE, "background taken for cell"),
        (WRONG_PATTERN, "cell found, wrong pattern"),
    )
    marks = [_entry(element("i", class_="swatch", style=f"background:{colour}"), text) for colour, text in errors]
    return element(
        "div",
        element("p", element("b", "Patterns"), *patterns, void, class_="legend"),
        element("p", element("b", "Errors"), *marks, class_="legend"),
        class_="legends",
    )


def _entry(mark: Html, text: str) -> Html:
    return element("span", mark, text, class_="entry")


def _controls(specimens: Sequence[Sequence[Display]]) -> Html:
    """Filters; they are hidden until the script of the page runs."""
    patterns = sorted({fields[0].item.truth for fields in specimens})
    options = [element("option", pattern_name(name), value=name) for name in patterns]
    return element(
        "form",
        element("label", element("input", type="checkbox", name="wrong"), " only wrong specimens"),
        element("label", "pattern ", element("select", element("option", "all", value=""), *options, name="pattern")),
        element("output", class_="shown"),
        class_="controls",
        hidden=True,
    )


def _card(fields: Sequence[Display], classes: Sequence[str]) -> Html:
    items = [field.item for field in fields]
    first, wrong = items[0], _any_wrong(items)
    predictions = ", ".join(dict.fromkeys(item.prediction for item in items))
    verdict = "read wrongly" if wrong else "read correctly"
    header = element(
        "header",
        element("h4", first.specimen_id, title=first.specimen_id),
        element("span", verdict, class_="badge bad" if wrong else "badge ok"),
        _reading("truth", first.truth, classes),
        _reading("read as", predictions, classes),
        _reading("intensity", first.intensity, ()),
    )
    shown, *rest = [_field(field, classes) for field in fields]
    more = element("details", element("summary", count(len(rest), "more field")), *rest) if rest else None
    body = element("div", shown, more, class_="fields")
    return element("article", header, body, class_="card", data_wrong=int(wrong), data_pattern=first.truth)


def _reading(label: str, value: str, classes: Sequence[str]) -> Html:
    colour = swatch(list(classes).index(value)) if value in classes else None
    return element("p", element("small", label), colour, pattern_name(value), class_="reading-of")


def _field(field: Display, classes: Sequence[str]) -> Html:
    image = overlays.reuse(field, "image")
    panels = [
        _panel(field, "image", overlays.image_layer(field)),
        _panel(field, "truth", image, *overlays.truth_contours(field.truth)),
        _panel(field, "prediction", image, overlays.prediction_layer(field)),
        _panel(field, "errors", element("g", image, class_="dim"), overlays.error_layer(field)),
    ]
    caption = f"field {field.item.field} · Dice {format_value(field.item.dice)}"
    votes = element("div", element("span", caption), votes_bar(field.item.votes, classes), class_="votes")
    return element("div", element("div", *panels, class_="panels"), votes, class_="field")


def _panel(field: Display, title: str, *layers: Html) -> Html:
    width, height = field.size
    label = f"specimen {field.item.specimen_id}, field {field.item.field}: {title}"
    drawing = element("svg", *layers, viewBox=f"0 0 {width} {height}", role="img", aria_label=label, class_=title)
    return element("figure", drawing, element("figcaption", title), tabindex=0, class_="zoomable")


def votes_bar(votes: Mapping[str, float], classes: Sequence[str]) -> Html:
    """Shares of the patterns, in [0, 1], as one bar, and the three largest as text."""
    order = {name: index for index, name in enumerate(classes)}
    shares = {name: float(share) for name, share in votes.items() if is_number(float(share))}
    parts = [
        element("i", style=f"width:{100 * share:.1f}%;background:{pattern_colour(order[name])}")
        for name, share in shares.items()
        if name in order and share > 0
    ]
    largest = sorted(shares.items(), key=lambda vote: -vote[1])[:3]
    text = ", ".join(f"{pattern_name(name)} {percent(share)}" for name, share in largest if share >= 0.005)
    return join([element("span", *parts, class_="vote-bar"), element("span", text or "no foreground")])


def atlas(specimens: Sequence[Sequence[Display]], classes: Sequence[str]) -> Html:
    """A strip with the field of median Dice for each pattern, coloured by its prediction."""
    pictures = []
    for index, pattern in enumerate(classes):
        fields = [field for group in specimens for field in group if field.item.truth == pattern]
        if fields:
            median_field = sorted(fields, key=lambda field: _dice(field.item))[len(fields) // 2]
            pictures.append(_atlas_picture(median_field, index))
    if len(pictures) < 2:
        return Html("")
    caption = "For each pattern, the field of median Dice, coloured by the predicted pattern."
    return element("div", element("div", *pictures, class_="atlas"), element("p", caption, class_="muted"))


def _atlas_picture(field: Display, index: int) -> Html:
    width, height = field.size
    side = ATLAS_CROP * min(width, height)
    item = field.item
    label = f"{pattern_name(item.truth)}, read as {pattern_name(item.prediction)}"
    drawing = element(
        "svg",
        overlays.reuse(field, "image"),
        overlays.reuse(field, "read"),
        viewBox=f"{(width - side) / 2:.1f} {(height - side) / 2:.1f} {side:.1f} {side:.1f}",
        role="img",
        aria_label=f"specimen {item.specimen_id}: {label}",
    )
    wrong = element("small", "read as ", pattern_name(item.prediction)) if item.wrong else None
    return element("figure", drawing, element("figcaption", swatch(index), pattern_name(item.truth), wrong))
