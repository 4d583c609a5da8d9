"""Builds HTML from elements. Text that is not yet `Html` is escaped automatically.

This module also defines the format of numbers, intervals and missing values.
"""

import html
import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

MISSING = "–"
_WITHOUT_END_TAG = frozenset({"br", "img", "input", "meta"})


class Html(str):
    """A string that is already markup: `element` inserts it without escaping."""


def escape(value: Any) -> Html:
    """`value` as text of an element or an attribute; `Html` is returned unchanged, None becomes an empty string."""
    if isinstance(value, Html):
        return value
    return Html("" if value is None else html.escape(str(value)))


def join(parts: Iterable[Any]) -> Html:
    """Concatenate the parts; each is escaped unless it is `Html`."""
    return Html("".join(escape(part) for part in parts))


def element(tag: str, /, *children: Any, **attributes: Any) -> Html:
    """Make one element. A trailing underscore of an attribute name is removed, other underscores become hyphens.

    Attributes with the value None or False are left out; True gives an attribute without a value.
    """
    text = "".join(_attribute(key, value) for key, value in attributes.items())
    if tag in _WITHOUT_END_TAG:
        return Html(f"<{tag}{text}>")
    return Html(f"<{tag}{text}>{join(children)}</{tag}>")


def _attribute(key: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    key = key.rstrip("_").replace("_", "-")
    return f" {key}" if value is True else f' {key}="{html.escape(str(value))}"'


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]], **attributes: Any) -> Html:
    """A table that scrolls horizontally on a narrow screen; the first cell of each row is its header."""
    head = element("thead", element("tr", *(element("th", cell, scope="col") for cell in header)))
    body = element("tbody", *(_row(cells) for cells in rows))
    return element("div", element("table", head, body, **attributes), class_="scroll")


def _row(cells: Sequence[Any]) -> Html:
    first, *rest = cells
    return element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in rest))


def is_number(value: Any) -> bool:
    """True for a finite number; False for None, NaN, infinities, booleans, integers beyond floats, and all else."""
    try:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def format_value(value: Any, digits: int = 3) -> str:
    """A number with `digits` decimals, an integer in full, or a dash for a missing or non-finite value."""
    if not is_number(value):
        return MISSING
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.{digits}f}"


def percent(share: float) -> str:
    """Format a share in [0, 1] as a percentage without decimals."""
    return f"{100 * share:.0f}\u202f%"


def interval(bounds: Any) -> str:
    """Format `[low, high]` with three decimals; empty if a bound is missing or not finite."""
    if not is_interval(bounds):
        return ""
    return f"{bounds[0]:.3f}\u2009–\u2009{bounds[1]:.3f}"


def is_interval(bounds: Any) -> bool:
    """True for a pair of finite numbers."""
    return isinstance(bounds, list | tuple) and len(bounds) == 2 and all(map(is_number, bounds))


def count(number: int, noun: str) -> str:
    """`1 specimen`, `2 specimens`."""
    return f"{format_value(number)} {noun}{'' if number == 1 else 's'}"
