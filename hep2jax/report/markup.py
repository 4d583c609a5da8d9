"""HTML made of small pieces: text is escaped unless it is already `Html`, so nothing has to be remembered.

Also the one place that says how a figure, an interval and a missing value look.
"""

import html
import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

MISSING = "–"
_WITHOUT_END_TAG = frozenset({"br", "img", "input", "meta"})


class Html(str):
    """A string that is markup already: `element` puts it in as it stands."""


def escape(value: Any) -> Html:
    """`value` as text inside an element or an attribute; `Html` passes unchanged, None is empty."""
    if isinstance(value, Html):
        return value
    return Html("" if value is None else html.escape(str(value)))


def join(parts: Iterable[Any]) -> Html:
    """The parts one after the other, each escaped unless it is `Html`."""
    return Html("".join(escape(part) for part in parts))


def element(tag: str, /, *children: Any, **attributes: Any) -> Html:
    """One element. A trailing underscore of an attribute is dropped, others become hyphens.

    Attributes that are None or False are left out; True gives the bare name.
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
    """A table in a box that scrolls sideways on a narrow screen; first cell of a row is its header."""
    head = element("thead", element("tr", *(element("th", cell, scope="col") for cell in header)))
    body = element("tbody", *(_row(cells) for cells in rows))
    return element("div", element("table", head, body, **attributes), class_="scroll")


def _row(cells: Sequence[Any]) -> Html:
    first, *rest = cells
    return element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in rest))


def is_number(value: Any) -> bool:
    """True for a finite number; False for None, NaN, infinities, booleans and everything else."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def format_value(value: Any, digits: int = 3) -> str:
    """A figure with `digits` decimals, integers as they are, a dash for what is absent or not finite."""
    if not is_number(value):
        return MISSING
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.{digits}f}"


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage without decimals."""
    return f"{100 * share:.0f}\u202f%"


def interval(bounds: Any) -> str:
    """`[low, high]` with three decimals, empty if a bound is absent or not finite."""
    if not is_interval(bounds):
        return ""
    return f"{bounds[0]:.3f}\u2009–\u2009{bounds[1]:.3f}"


def is_interval(bounds: Any) -> bool:
    """True for a pair of finite numbers."""
    return isinstance(bounds, list | tuple) and len(bounds) == 2 and all(map(is_number, bounds))


def count(number: int, noun: str) -> str:
    """`1 specimen`, `2 specimens`."""
    return f"{format_value(number)} {noun}{'' if number == 1 else 's'}"
