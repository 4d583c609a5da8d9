import os
import pathlib
import re
import shutil
import struct
import zlib

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image, ImageCms

from tfds_builders import pixels, tables
from tfds_builders.icpr2014_task1 import layout
from tfds_builders.icpr2014_task1.icpr2014_task1_dataset_builder import Builder, is_stretched

PATTERNS = ("homogeneous", "speckled", "nucleolar", "centromere", "nuclear_membrane", "golgi")
CLASSES = ("Homogeneous", "Speckled", "Nucleolar", "Centromere", "NuMem", "Golgi")
IDS = range(1, 19)
REAL = pathlib.Path(
    os.environ.get("HEP2_ICPR2014_DIR", pathlib.Path(__file__).parents[3] / "shared" / "data" / "icpr2014_task1")
)


def class_of(number):
    """Three cells a class, in the order of ids."""
    return CLASSES[(number - 1) // 3]


def native(number):
    """Grey noise of a native cell's levels, of a size that changes with the id."""
    shape = (54 + number % 7, 55 + number % 5)
    return np.random.default_rng(number).integers(9, 200, shape).astype(np.uint8)


def stretched(number):
    image = np.random.default_rng(number).integers(0, 256, (78, 78)).astype(np.uint8)
    image[0, :2] = 0, 255
    return image


def cell_mask(shape):
    mask = np.zeros(shape, np.uint8)
    mask[10:-10, 10:-10] = 255
    return mask


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


def add_profile(path):
    """Put the chunk into a grey PNG for which libpng warns: an RGB colour profile."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    body = b"iCCP" + b"RGB\0\0" + zlib.compress(profile)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    data = path.read_bytes()
    path.write_bytes(data[:33] + chunk + data[33:])  # after the signature and IHDR


def write_class_folders(root, ids=IDS, image=native, masks=True):
    for number in ids:
        pixels_ = image(number)
        save(root / class_of(number) / f"{number:05d}.png", pixels_)
        if masks:
            save(root / class_of(number) / f"{number:05d}_Mask.png", cell_mask(pixels_.shape))
    return root


def write_flat(root, ids=IDS, image=native):
    for number in ids:
        save(root / f"{number:05d}.png", image(number))
    return root


def write_table(path, rows, head=("Image ID,Image class",), ending="\n", last="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(ending.join([*head, *rows]) + last, newline="")


def labels(ids=IDS):
    return [f"{number},{class_of(number)}" for number in ids]


def write_places(path, ids=IDS, head="Image ID,specimen,location,intensity_inferred"):
    rows = [f"{n},{(n + 2) // 3},{1 + n % 3},{'intermediate' if n % 2 else 'positive'}" for n in ids]
    write_table(path, rows, head=(head,))


def build(data_dir, manual_dir, make=Builder):
    builder = make(config="cells", data_dir=str(data_dir))
    tfds.disable_progress_bar()
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir)))
    return builder


def read(builder, split="train"):
    """Decoded examples in their order; labels by name."""
    examples = []
    for example in builder.as_data_source(split):
        for name in ("pattern", "intensity"):
            example[name] = builder.info.features[name].int2str(example[name])
        examples.append({**example, "specimen_id": example["specimen_id"].decode()})
    return examples


def contents(manual_dir):
    return layout.read_contents(layout.find_copy(manual_dir))


def missing(manual_dir):
    """What is said besides the number of cells."""
    return contents(manual_dir).missing[1:]


COUNTS = (
    "18 of 13596 cells found: homogeneous 3 of 2494, speckled 3 of 2831, nucleolar 3 of 2598, centromere 3 of 2741, "
    "nuclear_membrane 3 of 2208, golgi 3 of 724"
)


@pytest.mark.parametrize("folder", ["ICPR_HEp2016", "."])
def test_class_folders_with_both_tables(tmp_path, folder):
    manual_dir = tmp_path / "manual"
    write_class_folders(manual_dir / folder)
    write_table(manual_dir / "gt_training.csv", labels())
    write_places(manual_dir / "specimens.csv")
    builder = build(tmp_path / "data", manual_dir)
    assert list(builder.info.splits) == ["train"]
    assert tuple(builder.info.features["pattern"].names) == PATTERNS
    assert tuple(builder.info.features["intensity"].names) == ("positive", "intermediate", "unknown")
    for number, example in zip(IDS, read(builder), strict=True):
        np.testing.assert_array_equal(example["image"][..., 0], native(number))
        np.testing.assert_array_equal(example["mask"][..., 0], cell_mask(native(number).shape))
        assert example["pattern"] == PATTERNS[CLASSES.index(class_of(number))]
        assert example["intensity"] == ("intermediate" if number % 2 else "positive")
        assert example["specimen_id"] == f"s{(number + 2) // 3:03d}"
        assert (example["cell_id"], example["location"]) == (number, 1 + number % 3)
    # Another builder reads from disk what the first one has said.
    metadata = Builder(config="cells", data_dir=str(tmp_path / "data")).info.metadata
    assert metadata["missing"] == [COUNTS]
    assert metadata["repeated_specimens"] == []
    inferred, orientation = metadata["notes"]
    assert "intensity is inferred" in inferred
    assert "orientation of nuclear_membrane" in orientation


def test_bare_class_folders(tmp_path):
    write_class_folders(tmp_path / "manual", masks=False)
    builder = build(tmp_path / "data", tmp_path / "manual")
    for example in read(builder):
        assert (example["intensity"], example["specimen_id"], example["location"]) == ("unknown", "", -1)
        assert example["mask"].shape == example["image"].shape
        assert not example["mask"].any()
    assert builder.info.metadata["missing"] == [
        COUNTS,
        "18 of 18 cells have no mask (their mask is all 0)",
        "18 of 18 cells have no specimen id",
        "18 of 18 cells have no intensity",
    ]


def test_source_files_are_all_that_is_read(tmp_path):
    write_class_folders(tmp_path / "cells", ids=(1, 4))
    write_table(tmp_path / "gt_training.csv", labels((1, 4)))
    write_table(tmp_path / "holdout" / "training.csv", labels((1, 4)))  # read by protocols, not by the builder
    save(tmp_path / "cells" / "whole" / "Homogeneous_00001.png", native(1))  # a second picture of the same cell
    sources = Builder(config="cells", data_dir=str(tmp_path / "data")).source_files(tmp_path)
    assert sorted(sources) == [
        "cells/Homogeneous/00001.png",
        "cells/Homogeneous/00001_Mask.png",
        "cells/Speckled/00004.png",
        "cells/Speckled/00004_Mask.png",
        "gt_training.csv",
    ]
    assert all(path == tmp_path / name for name, path in sources.items())


HEADLESS = [f"train/{n:05d}.png,train/{n:05d}_Mask.png,{class_of(n)}" for n in IDS]
SHAPES = {
    "unpadded, LF": {"rows": labels()},
    "unpadded, CRLF": {"rows": labels(), "ending": "\r\n"},
    "padded, no last newline": {"rows": [f"{n:05d},{class_of(n)}" for n in IDS], "last": ""},
    "other spellings": {"rows": [row.replace("NuMem", "nuclear membrane") + " " for row in labels()]},
    "byte order mark": {"rows": labels(), "head": ("\ufeffImage ID,Image class",)},
    "headless": {"rows": HEADLESS, "head": ()},
    "headless, id and class": {"rows": labels(), "head": ()},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_the_table(tmp_path, shape):
    write_flat(tmp_path / "cells")
    write_table(tmp_path / "cells" / "gt_training.csv", **SHAPES[shape])
    assert [cell.pattern for cell in contents(tmp_path).cells] == [PATTERNS[(n - 1) // 3] for n in IDS]


def test_flat_folder_builds(tmp_path):
    write_flat(tmp_path / "manual", ids=(1, 4))
    save(tmp_path / "manual" / "00004_Mask.png", cell_mask(native(4).shape))
    write_table(tmp_path / "manual" / "gt_training.csv", labels((1, 4)))
    one, other = read(build(tmp_path / "data", tmp_path / "manual"))
    assert (one["pattern"], other["pattern"]) == ("homogeneous", "speckled")
    assert not one["mask"].any()
    np.testing.assert_array_equal(other["mask"][..., 0], cell_mask(native(4).shape))


def contest_rows(*columns):
    return [",".join([row, *(column(n) for column in columns)]) for row, n in zip(HEADLESS, IDS, strict=True)]


def further(tmp_path, *columns, ids=IDS):
    """First cell, and remarks, for a contest table with these further columns."""
    write_flat(tmp_path, ids=ids)
    write_table(tmp_path / "gt_training.csv", [contest_rows(*columns)[n - 1] for n in ids], head=())
    read_ = contents(tmp_path)
    return read_.cells[0], [note.removeprefix("gt_training.csv: ") for note in read_.notes]


def intensity_column(number):
    return "Positive" if number % 2 else "intermediate"


def test_further_columns_are_read_by_their_values(tmp_path):
    ids = range(1, 10)  # 3 classes

    def specimen(number):  # four specimens: two of the first class
        return "7" if number == 3 else str(8 + (number - 1) // 3)

    cell, remarks = further(tmp_path, specimen, intensity_column, lambda n: "x", ids=ids)
    assert (cell.specimen_id, cell.intensity) == ("s008", "positive")
    assert remarks == [
        "column 4 is read as the specimen, by its values",
        "column 5 is read as the intensity, by its values",
        "column 6 is not read",
    ]


NOT_SPECIMENS = {
    "the cell again": lambda n: str(n),
    "the class again": lambda n: str((n - 1) // 3),
    "values of two classes": lambda n: str(n % 7),
    "blanks": lambda n: "" if n == 2 else str((n - 1) // 3 + 10 * (n == 3)),
}


@pytest.mark.parametrize("name", NOT_SPECIMENS)
def test_columns_that_may_be_something_else_are_not_taken_for_specimens(tmp_path, name):
    cell, remarks = further(tmp_path, NOT_SPECIMENS[name])
    assert cell.specimen_id == ""
    assert remarks == ["column 4 is not read"]


def test_two_columns_of_one_kind_are_not_read(tmp_path):
    cell, remarks = further(tmp_path, intensity_column, intensity_column)
    assert cell.intensity == "unknown"
    assert remarks == ["column 4 is not read", "column 5 is not read"]


def test_intensities_of_a_single_class_are_not_its_specimens(tmp_path):
    ids = (1, 2, 3)
    cell, remarks = further(tmp_path, intensity_column, ids=ids)
    assert (cell.intensity, cell.specimen_id) == ("positive", "")
    assert remarks == ["column 4 is read as the intensity, by its values"]


def test_specimens_of_two_numberings_never_meet(tmp_path):
    write_class_folders(tmp_path, ids=range(1, 11))
    rows = [f"{n},{class_of(n)},{7 if n == 3 else 8 + (n - 1) // 3}" for n in range(1, 10)]
    write_table(tmp_path / "gt_training.csv", rows, head=("Image ID,Image class,Patient",))
    write_places(tmp_path / "specimens.csv", range(1, 11))
    cells = contents(tmp_path).cells
    assert [cell.specimen_id for cell in cells] == ["s008"] * 2 + ["s007"] + ["s009"] * 3 + ["s010"] * 3 + [""]
    assert [cell.location for cell in cells] == [1 + n % 3 for n in range(1, 11)]


def test_intensity_that_is_no_inferred_one_has_no_note(tmp_path):
    write_class_folders(tmp_path)
    write_places(tmp_path / "specimens.csv", head="Image ID,specimen,location,intensity")
    assert contents(tmp_path).notes == []
    assert contents(tmp_path).cells[0].intensity == "intermediate"


def write_split_folders(root, flat=False, image=stretched):
    parts = {"tra": [], "val": [], "tes": []}
    for number in IDS:
        parts[("tra", "val", "tes")[number % 3]].append(number)
    for name, ids in parts.items():
        write_flat(root / name, ids, image) if flat else write_class_folders(root / name, ids, image, masks=False)
    return root


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("folder", [".", "dataset"])
def test_split_folders(tmp_path, folder, flat):
    write_split_folders(tmp_path / "manual" / folder, flat)
    write_table(tmp_path / "manual" / "gt_training.csv", labels())
    builder = build(tmp_path / "data", tmp_path / "manual")
    assert set(builder.info.splits) == {"train", "validation", "test"}
    for index, split in enumerate(("train", "validation", "test")):
        examples = read(builder, split)
        assert [example["cell_id"] for example in examples] == [n for n in IDS if n % 3 == index]
        for example in examples:
            np.testing.assert_array_equal(example["image"][..., 0], stretched(example["cell_id"]))
            assert example["pattern"] == PATTERNS[(example["cell_id"] - 1) // 3]
    (note,) = builder.info.metadata["notes"]
    for part in ("78 x 78", "intensity and size are lost", "do not mix", "nuclear_membrane is turned"):
        assert part in note


def test_split_folders_in_part(tmp_path):
    root = write_split_folders(tmp_path / "manual")
    shutil.rmtree(root / "tra")
    shutil.rmtree(root / "val")
    builder = build(tmp_path / "data", tmp_path / "manual")
    assert list(builder.info.splits) == ["test"]
    assert builder.info.metadata["missing"][1:3] == [
        "split train: no cell found, not built",
        "split validation: no cell found, not built",
    ]


def test_a_lone_training_folder_is_no_partition(tmp_path):
    write_flat(tmp_path / "training", ids=(1, 4))
    write_table(tmp_path / "gt_training.csv", labels((1, 4)))
    copy = layout.find_copy(tmp_path)
    assert not copy.partitioned
    assert {files.split for files in copy.files} == {"train"}


def two_copies(manual_dir):
    return {
        "class and split folders": lambda: (
            write_class_folders(manual_dir / "ICPR_HEp2016"),
            write_split_folders(manual_dir / "dataset"),
        ),
        "class folders above, split folders below": lambda: (
            write_class_folders(manual_dir),
            write_split_folders(manual_dir / "dataset"),
        ),
        "two sets of class folders": lambda: (
            write_class_folders(manual_dir / "a"),
            write_class_folders(manual_dir / "b"),
        ),
        "class folders and flat cells": lambda: (
            write_class_folders(manual_dir),
            write_flat(manual_dir),
        ),
        "class folders and flat cells in split folders": lambda: (
            write_split_folders(manual_dir),
            write_split_folders(manual_dir, flat=True),
        ),
    }


@pytest.mark.parametrize("name", two_copies(pathlib.Path()))
def test_two_copies_are_refused(tmp_path, name):
    two_copies(tmp_path)[name]()
    with pytest.raises(ValueError, match="2 copies, .* must not be mixed.*name the directory of one") as caught:
        layout.find_copy(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_stretched_cells_beside_native_ones_are_refused(tmp_path):
    write_class_folders(tmp_path / "manual", image=lambda n: stretched(n) if n > 15 else native(n), masks=False)
    with pytest.raises(ValueError, match="two copies must not be mixed") as caught:
        build(tmp_path / "data", tmp_path / "manual")
    assert "Golgi/00016.png" in str(caught.value)
    assert "Homogeneous/00001.png" in str(caught.value)


def test_a_native_cell_of_78_pixels_is_no_mixture(tmp_path):
    image = np.random.default_rng(0).integers(9, 255, (78, 78)).astype(np.uint8)
    write_class_folders(tmp_path / "manual", ids=(1, 2), image=lambda n: image if n == 1 else native(n))
    assert len(read(build(tmp_path / "data", tmp_path / "manual"))) == 2
    assert not is_stretched(image)
    assert is_stretched(stretched(1))
    assert not is_stretched(stretched(1)[:-1])


def test_a_cell_that_stands_there_twice_is_refused(tmp_path):
    write_class_folders(tmp_path)
    shutil.copy(tmp_path / "Homogeneous" / "00001.png", tmp_path / "Golgi" / "1.png")
    with pytest.raises(ValueError, match="cell 00001 occurs twice") as caught:
        layout.find_copy(tmp_path)
    assert "Golgi/1.png" in str(caught.value)


def test_an_unknown_class_folder_is_refused(tmp_path):
    write_class_folders(tmp_path / "cells")
    (tmp_path / "cells" / "Golgi").rename(tmp_path / "cells" / "Golgy")
    with pytest.raises(ValueError, match=r"Golgy: the folder holds cells .* none of homogeneous, speckled") as caught:
        layout.find_copy(tmp_path)
    assert "\n" not in str(caught.value)


def test_tables_that_do_not_cover_the_cells_are_said(tmp_path):
    write_class_folders(tmp_path)
    write_table(tmp_path / "gt_training.csv", [*labels(range(3, 19)), "99,Golgi"])
    write_places(tmp_path / "specimens.csv", [*range(2, 19), 97, 98])
    (tmp_path / "Golgi" / "00017_Mask.png").unlink()
    save(tmp_path / "Golgi" / "00077_Mask.png", cell_mask((60, 60)))
    assert missing(tmp_path) == [
        "2 images have no row in gt_training.csv",
        "1 rows of gt_training.csv have no image",
        "1 images have no row in specimens.csv",
        "2 rows of specimens.csv have no image",
        "1 of 18 cells have no mask (their mask is all 0)",
        "1 of 18 cells have no specimen id",
        "1 of 18 cells have no intensity",
        "1 masks have no image, left out",
    ]
    assert len(contents(tmp_path).cells) == 18


def test_flat_cells_without_a_label_are_left_out_and_said(tmp_path):
    write_flat(tmp_path)
    write_table(tmp_path / "gt_training.csv", labels(range(3, 19)))
    assert missing(tmp_path)[0] == "2 images have no row in gt_training.csv, left out"
    assert [cell.number for cell in contents(tmp_path).cells] == list(range(3, 19))


def test_flat_cells_without_any_label(tmp_path):
    write_flat(tmp_path / "manual", ids=(1, 2))
    with pytest.raises(FileNotFoundError, match="no gt_training.csv that names their classes"):
        layout.find_copy(tmp_path / "manual")
    write_table(tmp_path / "manual" / "gt_training.csv", labels((3, 4)))
    with pytest.raises(ValueError, match="none of its rows has an image"):
        build(tmp_path / "data", tmp_path / "manual")


def test_a_table_that_contradicts_the_folders_is_refused(tmp_path):
    write_class_folders(tmp_path)
    write_table(tmp_path / "gt_training.csv", [*labels(range(1, 18)), "18,Speckled"])
    with pytest.raises(ValueError, match=r"cell 00018 is speckled in .*gt_training.csv, line 19, .*Golgi/00018.png"):
        contents(tmp_path)


def test_a_specimen_of_two_patterns_is_refused(tmp_path):
    write_class_folders(tmp_path)
    write_table(tmp_path / "specimens.csv", ["3,1", "4,1"], head=("Image ID,specimen",))
    with pytest.raises(
        ValueError, match=r"specimens.csv: specimen s001 has cells of two patterns, .*\(00003\) .*00004"
    ):
        contents(tmp_path)


LABELS, PLACES = "gt_training.csv", "specimens.csv"
PLACES_HEAD = "Image ID,specimen,location,intensity"
BAD_TABLES = {
    "unknown class": (LABELS, ["Image ID,Image class", "1,Homogenous"], "line 2: unknown pattern 'Homogenous'"),
    "no number": (LABELS, ["Image ID,Image class", "one,Golgi"], "line 2: 'one' is not the id of a cell"),
    "twice": (LABELS, ["Image ID,Image class", "1,Homogeneous", "00001,Homogeneous"], "line 3: cell 00001 is listed"),
    "no class": (LABELS, ["Image ID,Kind", "1,Golgi"], "no column 'Image class'"),
    "semicolons": (LABELS, ["Image ID;Image class", "1;Golgi"], "no column 'Image ID'"),
    "short row": (LABELS, ["Image ID,Image class", "1"], "line 2: 1 entries instead of 2"),
    "empty": (LABELS, [""], "no column 'Image ID'"),
    "headless, unknown class": (LABELS, ["1.png,1_Mask.png,Mitosis"], "line 1: unknown pattern 'Mitosis'"),
    "no specimen": (PLACES, ["Image ID,location", "1,1"], "no column 'specimen'"),
    "location": (PLACES, [PLACES_HEAD, "1,1,left,positive"], "line 2: location 'left' is not a number"),
    "intensity": (PLACES, [PLACES_HEAD, "1,1,1,negative"], "line 2: unknown intensity 'negative'"),
    "place twice": (PLACES, [PLACES_HEAD, "1,1,1,positive", "1,1,1,positive"], "line 3: cell 00001 is listed twice"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_damaged_tables_are_named(tmp_path, name):
    table, lines, said = BAD_TABLES[name]
    write_class_folders(tmp_path, ids=(1,))
    write_table(tmp_path / table, lines, head=())
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        contents(tmp_path)
    assert str(tmp_path / table) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_binary_table_is_named(tmp_path):
    write_class_folders(tmp_path, ids=(1,))
    (tmp_path / LABELS).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="gt_training.csv is not a text table"):
        contents(tmp_path)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def replace_by(array):
    return lambda path: save(path, array)


COLOUR = np.random.default_rng(0).integers(0, 255, (54, 56, 3)).astype(np.uint8)
IMAGE, MASK = "Homogeneous/00001.png", "Homogeneous/00001_Mask.png"
DAMAGES = {
    "truncated image": (IMAGE, truncate, "truncated"),
    "end lost": (IMAGE, lambda path: path.write_bytes(path.read_bytes()[:-12]), "truncated"),
    "wrong byte": (IMAGE, flip, "wrong checksum"),
    "empty file": (IMAGE, lambda path: path.write_bytes(b""), "not a PNG, BMP, TIFF or JPEG image"),
    "text for an image": (IMAGE, lambda path: path.write_text("GIF89a"), "not a PNG, BMP, TIFF or JPEG image"),
    "colours": (IMAGE, replace_by(COLOUR), "whose colours differ"),
    "16 bits": (IMAGE, replace_by(np.ones((60, 60), np.uint16)), "expected an 8-bit grey image"),
    "truncated mask": (MASK, truncate, "truncated"),
    "mask of another size": (MASK, replace_by(cell_mask((48, 60))), "60 x 48 pixels, its image 56 x 55"),
    "empty mask": (MASK, replace_by(np.zeros((55, 56), np.uint8)), "the mask is empty"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named_and_leave_nothing(tmp_path, damage):
    name, change, said = DAMAGES[damage]
    write_class_folders(tmp_path / "manual", ids=(1, 4))
    change(tmp_path / "manual" / name)
    with pytest.raises(ValueError, match=said) as caught:
        build(tmp_path / "data", tmp_path / "manual")
    assert str(tmp_path / "manual" / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "data" / "icpr2014_task1" / "cells").iterdir())


def test_grey_images_in_other_dress_are_taken(tmp_path):
    grey = native(1)
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(tmp_path / "colour.png")
    Image.fromarray(grey).quantize(256).save(tmp_path / "palette.png")
    Image.fromarray(grey).save(tmp_path / "grey.bmp")
    Image.fromarray(grey).save(tmp_path / "grey.tif")
    for name in ("colour.png", "palette.png", "grey.bmp", "grey.tif"):
        np.testing.assert_array_equal(pixels.read_grey(tmp_path / name), grey)
    Image.fromarray(cell_mask((30, 40))).convert("1").save(tmp_path / "mask.png")
    np.testing.assert_array_equal(pixels.read_mask(tmp_path / "mask.png", (30, 40)), cell_mask((30, 40)) > 0)


def test_colour_profiles_are_stripped_in_silence(tmp_path, capfd):
    manual_dir = write_class_folders(tmp_path / "manual", ids=(1, 4))
    path = manual_dir / "Homogeneous" / "00001.png"
    plain = path.read_bytes()
    add_profile(path)
    cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert "iCCP" in capfd.readouterr().err  # what users would see without care
    assert pixels.strip_png(path.read_bytes()) == plain
    example = read(build(tmp_path / "data", manual_dir))[0]
    np.testing.assert_array_equal(example["image"][..., 0], native(1))
    raw = {name: tfds.decode.SkipDecoding() for name in ("image", "mask")}
    builder = Builder(config="cells", data_dir=str(tmp_path / "data"))
    stored = next(iter(builder.as_data_source("train", decoders=raw)))["image"]
    assert cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_UNCHANGED).ndim == 2
    assert "iCCP" not in capfd.readouterr().err


def test_specimens_that_repeat_each_other_are_found(tmp_path):
    # Cells 16 to 18 are one specimen; 13 to 15 another, which repeats two of the first one's.
    twins = {17: 13, 18: 14}
    folder = {n: class_of(min(n, 15)) for n in IDS}
    for number in IDS:
        save(tmp_path / "manual" / folder[number] / f"{number:05d}.png", native(twins.get(number, number)))
    write_places(tmp_path / "manual" / "specimens.csv")
    builder = build(tmp_path / "data", tmp_path / "manual")
    assert builder.info.metadata["notes"][-1] == (
        "specimens s005 and s006 share 2 cells pixel for pixel: never put them into different splits"
    )
    assert builder.info.metadata["repeated_specimens"] == [["s005", "s006"]]


def test_repeated_cells_in_two_splits_are_said(tmp_path):
    write_split_folders(tmp_path / "manual", image=lambda n: stretched(7 if n == 8 else n))
    builder = build(tmp_path / "data", tmp_path / "manual")
    assert builder.info.metadata["notes"][1:] == [
        "1 cells repeat another one pixel for pixel: 00008 = 00007",
        "1 repeated cells are in two splits: 00008 in test = 00007 in validation",
    ]
    assert builder.info.metadata["repeated_specimens"] == []


@pytest.mark.parametrize("made", [True, False])
def test_no_data_names_directory_files_and_source(tmp_path, made):
    manual_dir = tmp_path / "nothing here"
    if made:
        (manual_dir / "other" / "Homogeneous").mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as caught:
        build(tmp_path / "data", manual_dir)
    said = str(caught.value)
    assert "\n" not in said
    for part in (str(manual_dir), "<Class>/NNNNN.png", "NNNNN_Mask.png", "gt_training.csv", "https://hep2.unisa.it"):
        assert part in said


@pytest.mark.parametrize("entry", ["7", "00007", "00007.png", "a/b/00007.PNG", "a\\7.png"])
def test_ids_of_cells(entry):
    assert tables.cell_number(entry, "here") == 7


needs_real = pytest.mark.skipif(
    not REAL.is_dir(), reason="needs the cells: set HEP2_ICPR2014_DIR to the directory that holds them"
)


@needs_real
def test_real_layout():
    cells = contents(REAL).cells
    counts = [sum(cell.pattern == pattern for cell in cells) for pattern in PATTERNS]
    # All cells, or those outside the test part of the 64/16/20 lists.
    assert counts in ([2494, 2831, 2598, 2741, 2208, 724], [1971, 2256, 2069, 2254, 1767, 559])
    assert all(cell.mask for cell in cells)
    assert {cell.intensity for cell in cells} == {"positive", "intermediate"}
    specimens = {cell.specimen_id: cell.pattern for cell in cells}
    assert [list(specimens.values()).count(pattern) for pattern in PATTERNS] == [16, 16, 16, 16, 15, 4]
    assert len({(cell.specimen_id, cell.location) for cell in cells}) == 4 * 83


@needs_real
@pytest.mark.slow
def test_real_cells(tmp_path, capfd):
    builder = build(tmp_path, REAL)
    assert builder.info.splits["train"].num_examples == len(contents(REAL).cells)
    assert builder.info.metadata["repeated_specimens"] == [["s068", "s069"]]
    assert "libpng" not in capfd.readouterr().err
