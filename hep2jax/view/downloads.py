"""What the page gives back: the results, and the corrections as a folder that can be a data set."""

import collections
import csv
import io
import pathlib
import re
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from hep2jax.prediction.inputs import untaken
from hep2jax.tasks import Reader
from hep2jax.view.desk import NOT_A_CELL, Entry, png

FORMS = ("fields", "cells")


def results(entries: Sequence[Entry], reader: Reader) -> bytes:
    """A zip file: `predictions.csv`, `cells.csv`, and for each field its label map and its mask of patterns.

    `name` in the tables is the start of the names of the masks; images of one name get different ones. The label maps
    are PNG files of 16 bits; in the masks, 0 is background and 1+i is the pattern i of the work directory's
    `classes.json`.
    """
    files: dict[str, bytes] = {}
    rows, cells = [], []
    for entry, (_, stem) in zip(entries, _names(entries), strict=True):
        row = reader.row(entry.reading)
        named = {"image": entry.name, "page": entry.page, "name": stem}
        rows.append(named | row)
        cells += [named | _cell_row(entry, cell, reader.classes) for cell in entry.cells]
        if entry.reading.cell_labels and entry.labels.max() <= np.iinfo(np.uint16).max:
            files[f"masks/{stem}_cells.png"] = png(entry.labels.astype(np.uint16))
            files[f"masks/{stem}_classes.png"] = png(entry.reading.class_masks[0])
    tables = {"predictions.csv": rows, "cells.csv": cells}
    return _zipped({name: _table(table) for name, table in tables.items() if table} | files)


def _cell_row(entry: Entry, cell: dict[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    (x, y), (top, left, bottom, right) = cell["centre"], cell["box"]
    correction = entry.corrections.get(cell["label"])
    read = cell["pattern"] != NOT_A_CELL
    return {
        "cell": cell["label"],
        "x": x,
        "y": y,
        "top": top,
        "left": left,
        "bottom": bottom,
        "right": right,
        "area": cell["area"],
        "pattern": classes[cell["pattern"]] if read else "none",
        "probability": cell["shares"][cell["pattern"]] if read else "",
        "corrected": "" if correction is None else "not a cell" if correction == NOT_A_CELL else classes[correction],
    }


def corrections(entries: Sequence[Entry], classes: Sequence[str], form: str) -> bytes:
    """A zip file with the corrected images, which the data set `folder` reads: `images/…`, `masks/…`, `labels.csv`.

    Args:
        entries: all images of the page. The pages of one file are one specimen.
        classes: the names of the patterns.
        form: `fields`: each corrected field with the label map of its cells, without the objects that are no cells;
            the pattern of a specimen is that of most of its cells. `cells`: each corrected cell as a crop with its
            mask. An image that was read as a whole is the same in both, except that a specimen has one pattern there.
    """
    files: dict[str, bytes] = {}
    rows: list[dict[str, Any]] = []
    units: list[str] = []
    votes: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for entry, (specimen, stem) in zip(entries, _names(entries), strict=True):
        make = _cell_examples if form == "cells" or entry.unit == "image" else _field_example
        for name, image, mask, patterns in make(entry, stem) if entry.corrections else ():
            row = {"image": f"images/{name}.png", "mask": "" if mask is None else f"masks/{name}.png"}
            files |= {row["image"]: png(image)} | ({} if mask is None else {row["mask"]: png(mask)})
            units.append(name if form == "cells" else specimen)
            votes[units[-1]].update(patterns)
            intensity = "" if entry.reading.intensity == "none" else entry.reading.intensity
            rows.append(row | {"specimen": specimen, "intensity": intensity})
    for row, unit in zip(rows, units, strict=True):
        row["pattern"] = classes[max(sorted(votes[unit]), key=votes[unit].__getitem__)]
    columns = ("image", "pattern", "mask", "specimen", "intensity")
    return _zipped({"labels.csv": _table(rows, columns)} | files)


_Example = tuple[str, np.ndarray, np.ndarray | None, list[int]]
"""The name of an image, its pixels, its mask and the patterns of its cells."""


def _field_example(entry: Entry, stem: str) -> list[_Example]:
    read = {int(cell["label"]): int(cell["pattern"]) for cell in entry.cells}
    patterns = read | entry.corrections
    kept = {label: pattern for label, pattern in patterns.items() if pattern != NOT_A_CELL}
    labels = np.where(np.isin(entry.labels, list(kept)), entry.labels, 0).astype(np.uint16)
    return [(stem, entry.pixels, labels, list(kept.values()))] if kept else []


def _cell_examples(entry: Entry, stem: str) -> list[_Example]:
    found: list[_Example] = []
    for cell in entry.cells:
        pattern = entry.corrections.get(cell["label"], NOT_A_CELL)
        if pattern == NOT_A_CELL:
            continue
        if entry.unit == "image":
            mask = None if entry.mask is None else entry.mask.astype(np.uint8) * 255
            found.append((stem, entry.pixels, mask, [pattern]))
            continue
        pixels, mask = entry.cut_out(cell)
        found.append((f"{stem}_cell{cell['label']:04d}", pixels, mask.astype(np.uint8) * 255, [pattern]))
    return found


def _names(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """For each image the name of its file, which no other file has, and its own, of letters that any system takes."""
    by_file: dict[int, str] = {}
    taken: set[str] = set()
    for entry in entries:
        if entry.file not in by_file:
            plain = re.sub(r"[^A-Za-z0-9.-]+", "_", pathlib.PurePath(entry.name).stem).strip("._-")
            by_file[entry.file] = untaken(plain[:80] or "image", taken)
    names = [by_file[entry.file] for entry in entries]
    return [
        (name, name if entry.num_pages == 1 else untaken(f"{name}_page{entry.page:03d}", taken))
        for name, entry in zip(names, entries, strict=True)
    ]


def _table(rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> bytes:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(columns or rows[0]))
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode("utf-8", "replace")


def _zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data, zipfile.ZIP_STORED if name.endswith(".png") else None)
    return stream.getvalue()
