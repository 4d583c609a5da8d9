"""Writes `report/index.html`: one file that opens from disk, with everything a run has to show.

`page.py` puts it together from `page.html`, `style.css`, `script.js` and the parts that the other modules make. Nothing
on the page is loaded from elsewhere, and it reads without its script.
"""

import contextlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from hep2jax.errors import UsageError
from hep2jax.report.cells import CellItem, CellPictures
from hep2jax.report.gallery import FieldPictures
from hep2jax.report.layout import Classification, KeyMetrics, Layout
from hep2jax.report.overlays import GalleryItem
from hep2jax.report.page import Gallery, render

__all__ = [
    "CellItem",
    "CellPictures",
    "Classification",
    "FieldPictures",
    "Gallery",
    "GalleryItem",
    "KeyMetrics",
    "Layout",
    "write_report",
]


def write_report(
    workdir: pathlib.Path,
    *,
    metrics: dict[str, dict[str, Any]],
    gallery: Mapping[str, Gallery],
    layout: Layout,
    environment: dict[str, Any],
    timings: dict[str, Any],
) -> pathlib.Path:
    """Write `workdir/report/index.html` and return its path. The same input gives the same bytes.

    Reads `workdir/metrics.jsonl` and `workdir/config.json` where they exist. Every part that has no input is left out.
    The file appears whole or not at all.

    Args:
        workdir: of the run; `report/` is made in it.
        metrics: contents of `report/metrics.json`: split → figures.
        gallery: split → fields or cells to show.
        layout: what is shown of this kind of reading.
        environment: nested versions and devices.
        timings: phase → seconds; `total` is the wall time that the others are a share of.

    Raises:
        UsageError: the file cannot be written (disk full, no permission).
    """
    text = render(workdir, metrics, gallery, layout, environment, timings)
    path = workdir / "report" / "index.html"
    try:
        _write_whole(path, text)
    except OSError as error:
        raise UsageError(
            f"cannot write the report {path}: {error.strerror or error}; free space there or choose another --workdir"
        ) from error
    return path


def _write_whole(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    try:
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            unfinished.unlink()
