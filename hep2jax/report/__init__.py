"""Writes `report/index.html`, a single file with the results of a run that can be opened from disk.

`page.py` assembles it from `page.html`, `style.css`, `script.js` and the parts that the other modules make. The page
loads nothing from elsewhere and is readable without its script.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from hep2jax import files
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

    Reads `workdir/metrics.jsonl` and `workdir/config.json` where they exist. Parts without input are left out. The
    file is replaced atomically, so it is never incomplete.

    Args:
        workdir: work directory of the run; `report/` is created in it.
        metrics: contents of `report/metrics.json`: split → metrics.
        gallery: split → fields or cells to show.
        layout: the parts of the page for this kind of task.
        environment: versions and devices, may be nested.
        timings: phase → seconds; `total` is the wall time that the shares of the phases refer to.

    Raises:
        UsageError: the file cannot be written (for example, the disk is full or permission is missing).
    """
    text = render(workdir, metrics, gallery, layout, environment, timings)
    path = workdir / "report" / "index.html"
    try:
        files.write_text(path, text)
    except OSError as error:
        raise UsageError(
            f"cannot write the report {path}: {error.strerror or error}; free space there or choose another --workdir"
        ) from error
    return path
