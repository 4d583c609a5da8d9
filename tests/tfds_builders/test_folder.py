import csv
import os

import cv2
import numpy as np
import pytest
import tifffile

from hep2jax.data.sets import prepare
from hep2jax.errors import UsageError
from tfds_builders.folder import layout, pictures

SHAPE = (14, 20)
HEAD = ("image", "mask", "pattern", "specimen")
NUMBERED = np.zeros(SHAPE, np.uint16)
NUMBERED[2:6, 2:8], NUMBERED[6:10, 2:8], NUMBERED[3:9, 12:17] = 300, 7, 1000  # the first two touch
WHITE = np.where(NUMBERED, np.uint8(255), np.uint8(0))


def picture(number, shape=SHAPE):
    return np.random.default_rng(number).integers(0, 256, shape, np.uint8)


def save(path, pixels):
    path.parent.mkdir(exist_ok=True)
    (tifffile.imwrite if path.suffix == ".tif" else lambda p, a: cv2.imwrite(str(p), a))(path, pixels)


def save_table(folder, rows, **options):
    with (folder / layout.TABLE).open("w", newline="") as file:
        csv.writer(file, **options).writerows(rows)


def rows_of(folder):
    with (folder / layout.TABLE).open(newline="") as file:
        return list(csv.reader(file))


def change(folder, row, **entries):
    """Write other entries into a row of the table, which spreadsheets number from 1."""
    rows = rows_of(folder)
    for column, entry in entries.items():
        rows[row - 1][HEAD.index(column)] = entry
    save_table(folder, rows)


@pytest.fixture
def folder(tmp_path):
    """Four fields of as many specimens, of two patterns."""
    rows = [HEAD]
    for number in range(4):
        save(tmp_path / "images" / f"{number}.png", picture(number))
        save(tmp_path / "masks" / f"{number}.png", WHITE)
        rows.append((f"images/{number}.png", f"masks/{number}.png", ("golgi", "AC-1")[number % 2], f"s{number}"))
    save_table(tmp_path, rows)
    return tmp_path


def built(folder, kind, tmp_path_factory):
    builder = prepare.prepare("folder", kind, str(tmp_path_factory.mktemp("data")), str(folder))
    return builder, {split: list(builder.as_data_source(split)) for split in builder.info.splits}


def test_fields_with_masks_of_each_kind_and_none(folder, tmp_path_factory):
    save(folder / "images" / "0.png", picture(7, (*SHAPE, 3)))  # OpenCV writes BGR
    save(folder / "masks" / "0.png", NUMBERED)
    save(folder / "images" / "2.tif", picture(2).astype(np.uint16) * 16)  # a camera of 12 bits
    text = "\ufeffImage;MASK;pattern;specimen;intensity;split\r\n"
    text += "images/0.png;masks/0.png;Fine Speckled;b;positive;test\r\n\r\n"
    text += "images\\1.png;masks/1.png;my own;a;;train\r\nimages/2.tif;;fine_speckled;b;Intermediate;val\r\n"
    (folder / layout.TABLE).write_text(text, encoding="utf-8", newline="")
    builder, examples = built(folder, "specimens", tmp_path_factory)
    assert builder.info.features["pattern"].names == ["fine_speckled", "my own"]
    assert builder.info.features["intensity"].names == ["positive", "intermediate", "unknown"]
    assert {split: len(found) for split, found in examples.items()} == {"train": 1, "validation": 1, "test": 1}
    (first,), (second,), (third,) = examples["test"], examples["train"], examples["validation"]
    np.testing.assert_array_equal(first["image"], picture(7, (*SHAPE, 3))[..., ::-1])
    numbers = np.select([NUMBERED == 7, NUMBERED == 300, NUMBERED == 1000], [1, 2, 3])
    np.testing.assert_array_equal(first["instance_mask"][..., 0], numbers)
    np.testing.assert_array_equal(first["class_mask"][..., 0], numbers > 0)
    assert (first["specimen_id"], first["field"], first["pattern"], first["intensity"]) == (b"b", 0, 0, 0)
    np.testing.assert_array_equal(second["image"], np.repeat(picture(1)[..., None], 3, axis=-1))
    regions = np.select([(NUMBERED == 7) | (NUMBERED == 300), NUMBERED == 1000], [1, 2])
    np.testing.assert_array_equal(second["instance_mask"][..., 0], regions)
    np.testing.assert_array_equal(second["class_mask"][..., 0], 2 * (regions > 0))
    assert list(second["objects"]["instance"]) == [1, 2]
    assert (second["specimen_id"], second["field"], second["pattern"], second["intensity"]) == (b"a", 0, 1, 2)
    np.testing.assert_array_equal(third["image"][..., 0], np.rint(picture(2).astype(float) * 16 * 255 / 4095))
    assert not third["instance_mask"].any()
    assert (third["class_mask"] == 255).all()
    assert (third["specimen_id"], third["field"], third["pattern"], third["intensity"]) == (b"b", 1, 0, 1)


def test_cells_whose_specimen_may_be_unknown(folder, tmp_path_factory):
    change(folder, 2, mask="", specimen="")
    builder, examples = built(folder, "cells", tmp_path_factory)
    first, second = examples["train"][:2]
    assert (first["name"], first["cell_id"], first["specimen_id"]) == (b"images/0.png", 2, b"")
    assert not first["mask"].any()
    assert (second["name"], second["cell_id"], second["specimen_id"]) == (b"images/1.png", 3, b"s1")
    np.testing.assert_array_equal(second["mask"][..., 0], WHITE)
    assert prepare.notes(builder)[0].startswith("1 of 4 cells have no specimen: no division can keep")


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def mask_of(pixels):
    return lambda folder: save(folder / "masks" / "0.png", pixels)


def entry(**entries):
    return lambda folder: change(folder, 2, **entries)


def head(*names):
    return lambda folder: save_table(folder, [names, *rows_of(folder)[1:]])


def append(*entries):
    return lambda folder: save_table(folder, [*rows_of(folder), entries])


def add_column(name, entries):
    return lambda folder: save_table(
        folder, [[*row, value] for row, value in zip(rows_of(folder), [name, *entries], strict=True)]
    )


def link(name, target):
    def make(folder):
        os.symlink(target, folder / "images" / name)
        change(folder, 2, image=f"images/{name}")

    return make


NO_PATH = "is not a path below the folder; write it from there, such as images/a.png"
FAULTS = {
    "no column": (head("image", "mask", "label", "specimen"), ["row 1: has no column pattern"]),
    "no columns": (
        head("a", "b", "c", "d"),
        ["row 1: has no column image and no column pattern and no column specimen"],
    ),
    "misspelt column": (
        head("image", "mask", "patern", "specimen"),
        ["row 1: unknown column 'patern': did you mean 'pattern'?"],
    ),
    "a column twice": (head("image", "image", "pattern", "specimen"), ["row 1: two columns are called 'image'"]),
    "no row": (lambda folder: save_table(folder, [HEAD]), [": has no row below its header"]),
    "short row": (append("images/0.png", ""), ["row 6: has 2 entries instead of 4"]),
    "no image named": (entry(image=""), ["row 2: names no image"]),
    "no such image": (entry(image="images/9.png"), ["row 2: there is no file 'images/9.png'"]),
    "other ending": (entry(image="images/0.tif"), ["row 2: there is no file 'images/0.tif'; there is '0.png'"]),
    "no such folder": (
        entry(image="pictures/0.png"),
        ["row 2: there is no file 'pictures/0.png' (no folder 'pictures')"],
    ),
    "a folder as image": (entry(image="images"), ["row 2: 'images' is not a regular file"]),
    "outside": (entry(image="../0.png"), [f"row 2: '../0.png' {NO_PATH}"]),
    "absolute": (entry(mask="/etc/passwd"), [f"row 2: '/etc/passwd' {NO_PATH}"]),
    "drive": (entry(image="C:\\0.png"), [f"row 2: 'C:\\0.png' {NO_PATH}"]),
    "link to elsewhere": (
        link("a.png", "/etc/passwd"),
        ["row 2: 'images/a.png' is a link that leads out of the folder or nowhere"],
    ),
    "loop of links": (
        link("a.png", "a.png"),
        ["row 2: 'images/a.png' is a link that leads out of the folder or nowhere"],
    ),
    "control characters": (entry(image="a\x01\nb"), ["row 2: 'a\\x01\\nb' is not the name of a file"]),
    "long name": (entry(image="x" * 300), [f"row 2: '{'x' * 200}' is not the name of a file"]),
    "own mask": (entry(mask="images/0.png"), ["row 2: the image is named as its own mask"]),
    "image twice": (append("images/1.png", "", "AC-1", "s1"), ["row 6: the image '1.png' is that of row 3, too"]),
    "mask twice": (entry(mask="masks/1.png"), ["row 3: the mask '1.png' is that of row 2, too"]),
    "no pattern": (entry(pattern=""), ["row 2: names no pattern"]),
    "reserved pattern": (
        entry(pattern="None"),
        ["row 2: the pattern cannot be called 'None', which means that no cell was found; take 'negative'"],
    ),
    "one pattern": (
        lambda folder: [change(folder, row, pattern="golgi") for row in range(2, 6)],
        [": has one pattern only, golgi; a network needs two or more to tell apart"],
    ),
    "no specimen": (entry(specimen=""), ["row 2: names no specimen"]),
    "one specimen": (
        lambda folder: [change(folder, row, specimen="s") for row in range(2, 6)],
        [
            f"row {row}: specimen s has the pattern AC-1 here and golgi in row 2; a specimen has one pattern"
            for row in (3, 5)
        ],
    ),
    "unknown intensity": (
        add_column("intensity", ["strong", "", "positive", "Intermediate"]),
        ["row 2: the intensity 'strong' is not one of positive, intermediate, unknown"],
    ),
    "unknown split": (
        add_column("split", ["train", "tset", "validation", ""]),
        [
            "row 3: the split 'tset' is not one of train, validation, test; did you mean test?",
            "row 5: the split '' is not one of train, validation, test",
        ],
    ),
    "damaged image": (
        write("images/0.png", "no image"),
        ["row 2: '0.png': not a PNG, JPEG, BMP or TIFF image, or damaged"],
    ),
    "empty image": (write("images/0.png", ""), ["row 2: '0.png': the file is empty"]),
    "mask of another size": (
        mask_of(WHITE[:, :13]),
        ["row 2: the mask '0.png' has 13 x 14 pixels, its image 20 x 14"],
    ),
    "empty mask": (mask_of(0 * WHITE), ["row 2: the mask '0.png' is empty: no pixel is above 0"]),
    "coloured mask": (
        mask_of(picture(1, (*SHAPE, 3))),
        ["row 2: the mask '0.png' has colours; save it with white cells or with numbered ones"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_one_line(folder, name):
    spoil, expected = FAULTS[name]
    spoil(folder)
    wanted = [f"{layout.TABLE}{'' if line.startswith(':') else ', '}{line}" for line in expected]
    assert list(pictures.survey(folder, layout.SPECIMENS).faults) == wanted


def test_all_faults_are_found_at_once(folder):
    change(folder, 2, image="images/9.png")
    change(folder, 3, mask="/1.png", specimen="")
    save(folder / "masks" / "2.png", 0 * WHITE)
    change(folder, 5, specimen="s2")
    head("image", "mask", "patern", "specimen")(folder)
    faults = pictures.survey(folder, layout.SPECIMENS).faults
    assert [fault.removeprefix(f"{layout.TABLE}, ") for fault in faults] == [
        "row 1: unknown column 'patern': did you mean 'pattern'?",
        "row 2: there is no file 'images/9.png'",
        f"row 3: '/1.png' {NO_PATH}",
        "row 3: names no specimen",
        "row 5: specimen s2 has the pattern AC-1 here and golgi in row 4; a specimen has one pattern",
        "row 4: the mask '2.png' is empty: no pixel is above 0",
    ]


def test_training_names_the_first_fault_and_the_command_that_lists_all(folder, tmp_path):
    advice = "`hep2jax prepare --check --name=folder --builder_config=specimens --manual_dir=DIR` lists every fault"
    save(folder / "masks" / "2.png", 0 * WHITE)
    with pytest.raises(UsageError) as error:
        prepare.prepare("folder", "", str(tmp_path / "data"), str(folder))
    assert str(error.value) == f"{folder}: labels.csv, row 4: the mask '2.png' is empty: no pixel is above 0; {advice}"
    change(folder, 2, image="", mask="a")
    with pytest.raises(UsageError) as error:
        prepare.prepare("folder", "", str(tmp_path / "data"), str(folder))
    assert str(error.value) == f"{folder}: labels.csv, row 2: names no image (1 more); {advice}"
    assert not list((tmp_path / "data").rglob("*.array_record*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "it holds no labels.csv with the columns image and pattern; there is Labels.csv"),
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"image,pattern\n\xfc.png,golgi\n", "is not UTF-8 text .* save it as 'CSV UTF-8'"),
        ("image,pattern\n".encode("utf-16"), "is not UTF-8 text"),
        (b'image,pattern\n"a.png,golgi\n', "is not a table"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, content, message):
    (tmp_path / "Labels.csv").touch()
    if content is not None:
        (tmp_path / layout.TABLE).write_bytes(content)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        layout.read_contents(tmp_path, layout.SPECIMENS)


def test_a_folder_that_is_absent_or_empty(tmp_path):
    for name, message in (("none", "there is no such folder with a labels.csv"), ("", "it holds no labels.csv")):
        for call in (prepare.survey, lambda *arguments: prepare.prepare(*arguments[:2], None, arguments[2])):
            with pytest.raises(UsageError, match=f"^folder '{tmp_path / name}': {message}"):
                call("folder", "", str(tmp_path / name))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_spreadsheets_write(folder, delimiter):
    rows = rows_of(folder)
    save_table(folder, rows, delimiter=delimiter)
    text = (folder / layout.TABLE).read_text()
    for start, ending in (("\ufeff", "\r\n"), (f"sep={delimiter}\n", "\r"), ("", "\n")):
        (folder / layout.TABLE).write_bytes((start + text).replace("\n", ending).encode())
        contents = layout.read_contents(folder, layout.SPECIMENS)
        assert (contents.faults, contents.notes) == ([], ())
        assert [(row.name, row.specimen) for row in contents.rows] == [(row[0], row[3]) for row in rows[1:]]


def test_the_survey_counts_and_measures(folder):
    disc = np.zeros(SHAPE, np.uint8)
    cv2.circle(disc, (10, 7), 4, 255, -1)
    for number in range(4):
        save(folder / "masks" / f"{number}.png", disc)
        green = np.stack([picture(number) // 3, picture(number), picture(number) // 4], axis=-1)
        save(folder / "images" / f"{number}.png", green)
    found = pictures.survey(folder, layout.CELLS)
    assert (found.faults, found.notes, found.num_objects, found.green) == ((), (), 4, True)
    assert found.sizes == ((20, 14),) * 4
    assert found.nuclear_diameter == pytest.approx(2 * np.sqrt((disc > 0).sum() / np.pi))
    assert found.contents.patterns == ("AC-1", "golgi")


def test_notes_on_what_is_allowed_and_rarely_meant(folder):
    save(folder / "images" / "1.png", picture(0))
    save(folder / "images" / "unlisted.png", picture(9))
    change(folder, 4, pattern="homogenous", mask="")
    add_column("age", ["30"] * 4)(folder)
    assert list(pictures.survey(folder, layout.SPECIMENS).notes) == [
        "the column 'age' is not used; the columns are image, pattern, mask, specimen, intensity, split",
        "1 of 4 images have no mask: only the network mil can learn from them",
        "one specimen only: pattern golgi, homogenous; nothing of it is left to train on while it is tested",
        "the pattern 'homogenous' has no consensus code; is it a misspelling of homogeneous?",
        "1 images have no row in labels.csv: images/unlisted.png",
        "images that repeat another one pixel for pixel: row 3 = row 2",
    ]


def test_notes_on_cells(folder):
    change(folder, 3, specimen="s0")
    add_column("split", ["train", "train", "train", "test"])(folder)
    change(folder, 5, specimen="s2")
    notes = pictures.survey(folder, layout.CELLS).notes
    assert notes[0] == "in two splits, which the report will call leakage: specimen s2"
    assert notes[1].startswith("cells of several patterns: specimen s0, s2; reports by specimen take the most frequent")
    assert notes[-1] == "8 objects in 4 masks: are these not specimens? Then take builder_config=specimens"


def test_a_field_is_too_large_for_a_cell(folder):
    save(folder / "images" / "0.png", np.zeros((12, pictures.MAX_CELL_SIDE + 1), np.uint8))
    (fault,) = pictures.survey(folder, layout.CELLS).faults
    assert fault.startswith(
        "labels.csv, row 2: 'images/0.png' has 1025 x 12 pixels and cannot be one cell (at most 1024)"
    )
