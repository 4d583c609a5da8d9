"""Images that lie open, and the folders of corrections: pages, equal names, resizing, and networks of single cells."""

import csv
import io
import zipfile
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import tifffile

from hep2jax.prediction import inputs
from hep2jax.specimens.nuclear_size import NuclearSize, Scales
from hep2jax.view import downloads
from hep2jax.view.desk import NOT_A_CELL, Desk, DeskError
from tests.view.conftest import small, untrained
from tfds_builders.folder import pictures


def _unzip(data: bytes) -> tuple[list[dict[str, str]], dict[str, bytes]]:
    """The rows of `labels.csv`, and all files."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return list(csv.DictReader(io.StringIO(files["labels.csv"].decode()))), files


def test_files_of_one_name_and_pages_of_one_file(desk, image, tmp_path):
    pixels = cv2.imread(str(image), cv2.IMREAD_GRAYSCALE)
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([pixels, pixels[::-1]]))
    first, second = desk.add(tmp_path / "stack.tif", "stack.tif")
    (other,) = desk.add(image, "stack.png")
    for number, entry in enumerate((first, second, other)):
        desk.correct(entry, {cell["label"]: number for cell in entry.cells[:1]})
    rows, files = _unzip(downloads.corrections(desk.entries, desk.reader.classes, "cells"))
    assert [row["specimen"] for row in rows] == ["stack", "stack", "stack_2"]
    assert [row["pattern"] for row in rows] == list(desk.reader.classes[:3])
    assert len({row["image"] for row in rows}) == 3
    assert set(files) == {"labels.csv", *(row[part] for row in rows for part in ("image", "mask"))}

    for entry in (first, second):  # seen as a whole, the file has more cells of the pattern 1
        desk.correct(entry, {cell["label"]: 1 for cell in entry.cells})
    desk.correct(first, {cell["label"]: 0 for cell in first.cells[:1]} | {cell["label"]: 1 for cell in first.cells[1:]})
    rows, _ = _unzip(downloads.corrections(desk.entries, desk.reader.classes, "fields"))
    assert [row["pattern"] for row in rows[:2]] == [desk.reader.classes[1]] * 2
    assert [row["image"] for row in rows] == [
        "images/stack_page001.png",
        "images/stack_page002.png",
        "images/stack_2.png",
    ]


@pytest.mark.parametrize(("form", "kind"), [("fields", "specimens"), ("cells", "cells")])
def test_corrections_are_a_folder_without_fault(form, kind, desk, image, tmp_path):
    for number, name in enumerate(("Ä .png", "b.png")):
        (entry,) = desk.add(image, name)
        desk.correct(entry, {cell["label"]: number for cell in entry.cells} | {entry.cells[0]["label"]: NOT_A_CELL})
    data = downloads.corrections(desk.entries, desk.reader.classes, form)
    zipfile.ZipFile(io.BytesIO(data)).extractall(tmp_path)
    assert pictures.survey(tmp_path, kind).faults == ()


def test_a_field_in_which_nothing_is_a_cell_is_left_out(desk, image):
    (entry,) = desk.add(image, "a.png")
    desk.correct(entry, dict.fromkeys((cell["label"] for cell in entry.cells), NOT_A_CELL))
    for form in downloads.FORMS:
        assert _unzip(downloads.corrections(desk.entries, desk.reader.classes, form)) == (
            [],
            {"labels.csv": b"image,pattern,mask,specimen,intensity\r\n"},
        )


def test_resizing_is_said(reader, image, tmp_path):
    desk = Desk(reader, Scales(NuclearSize(measured=50.0, spread=0.2, nuclear_diameter=46.0), 92.0), tmp_path)
    (entry,) = desk.add(image, "a.png")
    (note,) = desk.notes
    assert "resized by 0.50" in note
    assert entry.labels.shape == entry.pixels.shape == (150, 210)
    desk.close()


@pytest.fixture(scope="module")
def cells(data_dir, tmp_path_factory) -> Iterator[Desk]:
    """The images of a network of single cells."""
    desk = Desk(untrained(small("cnn", data_dir)), Scales(None), tmp_path_factory.mktemp("cells"))
    yield desk
    desk.close()


def test_a_network_of_single_cells_takes_masks(cells, image, tmp_path):
    pixels = cv2.imread(str(image), cv2.IMREAD_GRAYSCALE)[:64, :70]
    mask = np.zeros(pixels.shape, np.uint8)
    mask[10:50, 10:55] = 255
    for name, array in (("cell.png", pixels), ("mask.png", mask), ("wrong.png", mask[:-1])):
        cv2.imwrite(str(tmp_path / name), array)
    (entry,) = cells.add(tmp_path / "cell.png", "cell.png", tmp_path / "mask.png")
    (bare,) = cells.add(tmp_path / "cell.png", "bare.png")
    assert (entry.unit, [cell["label"] for cell in entry.cells]) == ("image", [1])
    assert sum(entry.cells[0]["shares"]) == pytest.approx(1, abs=1e-4)
    for each in (entry, bare):
        cells.correct(each, {1: 2})
    rows, files = _unzip(downloads.corrections(cells.entries, cells.reader.classes, "cells"))
    assert [(row["image"], row["mask"]) for row in rows] == [
        ("images/cell.png", "masks/cell.png"),
        ("images/bare.png", ""),
    ]
    stored = cv2.imdecode(np.frombuffer(files["masks/cell.png"], np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored, mask)
    assert len(cells.nearest(entry, 1)) == 6
    with pytest.raises(DeskError, match="only cells with a mask"):
        cells.nearest(bare, 1)
    with pytest.raises(DeskError, match="^the mask of wrong.png: has another size than the image"):
        cells.add(tmp_path / "cell.png", "wrong.png", tmp_path / "wrong.png")


@pytest.mark.parametrize(("key", "value"), [("masked", True), ("cell_margin", 0.1), ("cell_fit", "frame")])
def test_networks_that_need_masks_say_so(key, value, cells, image, tmp_path, monkeypatch):
    monkeypatch.setattr(cells.reader.config.data, key, value)
    with pytest.raises(DeskError, match="^a.png: this network needs the mask of its cell"):
        cells.add(image, "a.png")
    refused: list[str] = []
    assert list(inputs.load([str(image)], [None], cells.reader, refused)) == []
    assert refused == [str(image)]
