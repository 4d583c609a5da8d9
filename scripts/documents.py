"""Writes tables into documents, each between the lines `<!-- table NAME -->` and `<!-- end NAME -->`."""

import pathlib
from collections.abc import Mapping

from hep2jax.errors import UsageError


def write(path: pathlib.Path, texts: Mapping[str, str]) -> None:
    """Replace the text between the two marks of each named table.

    Raises:
        UsageError: the document has no marks for a table.
    """
    text = path.read_text()
    for name, table in texts.items():
        start, end = f"<!-- table {name} -->", f"<!-- end {name} -->"
        if start not in text or end not in text:
            raise UsageError(f"--write={path}: has no lines '{start}' and '{end}'")
        before, rest = text.split(start, 1)
        after = rest.split(end, 1)[1]
        text = f"{before}{start}\n{table}\n{end}{after}"
    path.write_text(text)
