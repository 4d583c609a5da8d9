"""The frame of a page: style, script, the bar at the top, headline and chapters, in one file that loads nothing."""

import importlib.resources
import string
from collections.abc import Mapping, Sequence
from typing import Any

from hep2jax.report.markup import Html, element, escape, join


def document(
    *, title: str, headline: Html, summary: Html, chapters: Sequence[tuple[str, Html]], parts: Sequence[str] = ()
) -> str:
    """The page as a string.

    Args:
        title: of the window.
        headline: the heading and the facts below it.
        summary: what stands below the headline.
        chapters: from `chapter`; those without a body are left out.
        parts: names of further style sheets and scripts, without their endings.
    """
    shown = [(name, body) for name, body in chapters if body]
    values = {
        "title": escape(title),
        "style": "".join(_resource(f"{name}.css") for name in ("theme", "style", *parts)),
        "script": "".join(_resource(f"{name}.js") for name in ("script", *parts)),
        "navigation": join(element("a", name, href=f"#{_anchor(name)}") for name, _ in shown),
        "headline": headline,
        "summary": summary,
        "sections": join(body for _, body in shown),
    }
    return string.Template(_resource("page.html")).substitute(values)


def _resource(name: str) -> str:
    return importlib.resources.files("hep2jax.report").joinpath(name).read_text(encoding="utf-8")


def facts(entries: Mapping[str, Any]) -> Html:
    """Names and values beside each other; entries without a value are left out."""
    shown = [element("div", element("dt", key), element("dd", value)) for key, value in entries.items() if value]
    return element("dl", *shown, class_="facts")


def chapter(title: str, body: Html, note: str = "") -> tuple[str, Html]:
    """A title and its chapter, which is empty if the body is."""
    if not body:
        return title, Html("")
    heading = element("h2", title, element("small", note) if note else None)
    return title, element("section", heading, body, id=_anchor(title), class_="chapter")


def _anchor(title: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())
