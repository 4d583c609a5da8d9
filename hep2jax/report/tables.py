"""Tables of figures that look alike on the terminal and on a page of their own."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from hep2jax.report.markup import Html, element, join, table

_STYLE = """
:root { color-scheme: light dark; --rule: light-dark(#e1e3de, #2a3236); --muted: light-dark(#5c666b, #97a3a7); }
body { font: .9375rem/1.5 system-ui, sans-serif; max-width: 1180px; margin: 0 auto; padding: 1.5rem;
  font-variant-numeric: tabular-nums; background: light-dark(#f7f7f4, #0f1315); color: light-dark(#1d2326, #e4e8e6); }
h1, h2 { line-height: 1.2; } section { margin-top: 2rem; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; }
th, td { text-align: left; font-weight: 400; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--rule); }
td { white-space: nowrap; }
thead th, .muted { color: var(--muted); font-size: .8125rem; }
.notice { font-weight: 600; color: light-dark(#b4500f, #f0914a); }
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as text, the first column names the row."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def text(tables: Sequence[Table], notice: str = "") -> str:
    """For the terminal; `notice` stands beside every title, in parentheses."""
    return "\n".join(_text(one, notice) for one in tables)


def _text(one: Table, notice: str) -> str:
    lines = [one.header, *one.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(one.header))]
    body = ["  ".join(_aligned(line, widths)).rstrip() for line in lines] if one.rows else []
    return "\n".join(["", _title(one, notice), *body, *([one.note] if one.note else [])])


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]


def _title(one: Table, notice: str) -> str:
    return f"{one.title} ({notice})" if notice else one.title


def html(tables: Sequence[Table], notice: str = "") -> Html:
    """For a page."""
    return join(_html(one, notice) for one in tables)


def _html(one: Table, notice: str) -> Html:
    heading, note = element("h3", _title(one, notice)), element("p", one.note, class_="muted") if one.note else ""
    return join([heading, table(one.header, one.rows) if one.rows else "", note])


def page(title: str, *parts: Any) -> str:
    """A whole document that needs no other file; `parts` come below its heading."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(_STYLE)),
    )
    body = element("body", element("h1", title), *parts)
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def milliseconds(seconds: float) -> str:
    """`12.34 ms`."""
    return f"{1e3 * seconds:,.2f} ms"


def percent(share: float) -> str:
    """A share in [0, 1] as `12.3 %`."""
    return f"{100 * share:.1f} %"


def megabytes(number: float) -> str:
    """Bytes as `12.34 MB`."""
    return f"{number / 1e6:,.2f} MB"


def gigabytes(number: float) -> str:
    """Bytes as `12.34 GB`."""
    return f"{number / 1e9:,.2f} GB"
