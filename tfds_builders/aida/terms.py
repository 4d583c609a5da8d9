"""Parses the consensus patterns in an entry of AIDA's table. How it lists several patterns is our interpretation."""

import re
from collections.abc import Iterator

from tfds_builders import icap
from tfds_builders.tables import plain

CODES = tuple(code for code, pattern in icap.PATTERNS.items() if pattern.group != "negative")
"""Labels of an image, AC-1 to AC-29; an image without any is negative or not labelled."""

_NONE = ("", "negative", "neg", "none", "na")  # in the form that `plain` returns
_SEPARATORS = re.compile(r"[;+&|\n]|,(?!\s*\d)")
_LOOSE_SEPARATORS = (r"/", r"\s+and\s+")  # also parts of names: "large/coarse speckled", "rods and rings"
_CODE = re.compile(r"\bAC[\s_-]*(\d+(?:\s*[,/]\s*\d+)*)", re.IGNORECASE)
_AROUND = re.compile(r"^(nuclear|cytoplasmic)\s+|\s+patterns?$", re.IGNORECASE)


def read_terms(entry: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The codes in an entry, in order, and its unknown terms as they are written.

    A term is a code (`AC-4`, `AC4`, `AC-8/9`, with or without words beside it) or the name of a pattern. Terms are
    separated by comma, semicolon, plus, ampersand, line end, slash or "and". An empty entry, "negative" and AC-0 name
    no pattern.
    """
    codes, unknown = set(), []
    for term in (part.strip() for part in _SEPARATORS.split(entry)):
        codes_of_term, unknown_of_term = _read(term)
        codes |= codes_of_term
        unknown += unknown_of_term
    return tuple(code for code in CODES if code in codes), tuple(unknown)


def _read(term: str) -> tuple[set[str], list[str]]:
    """The codes of a term, split at loose separators if it is not known as it is; otherwise the term as unknown."""
    if plain(term) in _NONE:
        return set(), []
    for parts in ([term], *(re.split(separator, term) for separator in _LOOSE_SEPARATORS)):
        named = [_codes(part.strip()) for part in parts]
        if None not in named:
            return set().union(*filter(None, named)) & set(CODES), []
    return set(), [term]


def _codes(term: str) -> set[str] | None:
    """The codes of one term; None if it is not known."""
    numbers = [int(number) for match in _CODE.finditer(term) for number in re.findall(r"\d+", match[1])]
    if numbers:
        codes = {f"AC-{number}" for number in numbers}
        return codes if codes <= icap.PATTERNS.keys() else None
    bare = _AROUND.sub("", term)
    return next(({_NAMES[plain(name)]} for name in (term, bare) if plain(name) in _NAMES), None)


def _spellings() -> Iterator[tuple[str, str]]:
    """Spellings with their codes: names of patterns, parts around a slash, without "-like"; labels of a single code."""
    for label, meaning in icap.LABELS.items():
        if len(meaning.codes) == 1:
            yield plain(label), meaning.codes[0]
    for code, pattern in icap.PATTERNS.items():
        for name in (pattern.name, *pattern.name.split("/")):
            yield plain(name), code
            yield plain(name.removesuffix("-like")), code
    yield plain("coarse speckled"), "AC-5"
    yield plain("large speckled"), "AC-5"


_NAMES = {name: code for name, code in _spellings() if name != plain("large")}
