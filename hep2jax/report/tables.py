"""Tables that can be printed in the terminal or written to an HTML page."""

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
    """A table of text cells; the first column contains the names of the rows."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def text(tables: Sequence[Table], notice: str = "") -> str:
    """The tables as text for the terminal; `notice` is shown in parentheses after every title."""
    return "\n".join(_text(sheet, notice) for sheet in tables)


def _text(sheet: Table, notice: str) -> str:
    lines = [sheet.header, *sheet.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(sheet.header))]
    body = ["  ".join(_aligned(line, widths)).rstrip() for line in lines] if sheet.rows else []
    return "\n".join(["", _title(sheet, notice), *body, *([sheet.note] if sheet.note else [])])


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]


def _title(sheet: Table, notice: str) -> str:
    return f"{sheet.title} ({notice})" if notice else sheet.title


def html(tables: Sequence[Table], notice: str = "") -> Html:
    """The tables as HTML."""
    return join(_html(sheet, notice) for sheet in tables)


def _html(sheet: Table, notice: str) -> Html:
    heading, note = element("h3", _title(sheet, notice)), element("p", sheet.note, class_="muted") if sheet.note else ""
    return join([heading, table(sheet.header, sheet.rows) if sheet.rows else "", note])


def page(title: str, *parts: Any) -> str:
    """A complete HTML document that needs no other file, with `parts` below the heading."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(_STYLE)),
    )
    body = element("body", element("h1", title), *parts)
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


LEAST_SHOWN = 5e-6
"""Seconds; less would read 0.00 ms."""


def milliseconds(seconds: float) -> str:
    """Format seconds as `12.34 ms`."""
    return f"{1e3 * seconds:,.2f} ms"


def percent(share: float) -> str:
    """Format a share in [0, 1] as `12.3 %`."""
    return f"{100 * share:.1f} %"


def megabytes(number: float) -> str:
    """Format bytes as `12.34 MB`."""
    return f"{number / 1e6:,.2f} MB"


def gigabytes(number: float) -> str:
    """Format bytes as `12.34 GB`."""
    return f"{number / 1e9:,.2f} GB"
