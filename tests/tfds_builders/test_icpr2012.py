import os
import pathlib
import shutil

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.tfds_builders import icpr2012_layout
from tfds_builders import pixels
from tfds_builders.icpr2012 import layout
from tfds_builders.icpr2012.icpr2012_dataset_builder import Builder, paint_objects

PATTERNS = ("homogeneous", "fine_speckled", "coarse_speckled", "nucleolar", "centromere", "cytoplasmatic")
REAL = pathlib.Path(
    os.environ.get("HEP2_ICPR2012_DIR", pathlib.Path(__file__).parents[3] / "shared" / "data" / "icpr2012")
)


def build(data_dir, manual_dir, config="specimens"):
    builder = Builder(config=config, data_dir=str(data_dir))
    tfds.disable_progress_bar()
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir)))
    return builder


def read(builder, split):
    """Decoded examples by specimen id; labels by name."""
    examples = {}
    for example in builder.as_data_source(split):
        for name in ("pattern", "intensity"):
            example[name] = builder.info.features[name].int2str(example[name])
        examples[example["specimen_id"].decode()] = example
    return examples


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return icpr2012_layout.write_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def specimens(archive, tmp_path_factory):
    return build(tmp_path_factory.mktemp("data"), archive.parent)


@pytest.fixture(scope="module")
def train(specimens):
    return read(specimens, "train")


@pytest.fixture(scope="module")
def test(specimens):
    return read(specimens, "test")


def test_splits_are_the_contest_s_and_disjoint_by_specimen(specimens, train, test):
    assert set(specimens.info.splits) == {"train", "test"}
    assert sorted(train) == [f"icpr2012-{number:02d}" for number in icpr2012_layout.TRAIN]
    assert sorted(test) == [f"icpr2012-{number:02d}" for number in icpr2012_layout.TEST]
    assert specimens.info.metadata["missing"] == []


def test_records_keep_the_owner_s_order(train):
    assert list(train) == sorted(train)


def test_labels(specimens, train, test):
    assert tuple(specimens.info.features["pattern"].names) == PATTERNS
    assert tuple(specimens.info.features["intensity"].names) == ("intermediate", "positive")
    for number in (*icpr2012_layout.TRAIN, *icpr2012_layout.TEST):
        example = {**train, **test}[f"icpr2012-{number:02d}"]
        assert example["pattern"] == icpr2012_layout.pattern_of(number)
        assert example["intensity"] == icpr2012_layout.intensity_of(number)
        assert example["field"] == 0


def test_centromeric_is_centromere(train):
    assert [train[f"icpr2012-{number}"]["pattern"] for number in ("03", "07", "14")] == ["centromere"] * 3


def test_image_27_is_positive_as_its_table_says(test):
    assert test["icpr2012-27"]["intensity"] == "positive"


@pytest.mark.parametrize("number", [1, 3, 5, 8, 9, 26])
def test_pixels_and_masks(train, number):
    example = train[f"icpr2012-{number:02d}"]
    np.testing.assert_array_equal(example["image"], icpr2012_layout.specimen_image(number))
    expected = np.zeros(icpr2012_layout.SHAPE, int)
    for key in (1, 2, 4, 3):  # by descending area: 624, 144, 140, 100 pixels
        expected[icpr2012_layout.object_mask(key)] = key
    np.testing.assert_array_equal(example["instance_mask"][..., 0], expected)
    pattern = 1 + PATTERNS.index(icpr2012_layout.pattern_of(number))
    np.testing.assert_array_equal(
        example["class_mask"][..., 0], np.array([0, pattern, pattern, 255, pattern])[expected]
    )
    assert example["instance_mask"].dtype == np.uint16
    assert example["class_mask"].dtype == np.uint8


def test_objects_say_what_is_a_mitotic_cell_and_what_an_artefact(specimens, train):
    kinds = specimens.info.features["objects"]["kind"]
    for number in ("01", "05", "09"):  # 05 spells it artefatto
        objects = train[f"icpr2012-{number}"]["objects"]
        assert list(objects["instance"]) == [1, 2, 3, 4]
        assert [kinds.int2str(kind) for kind in objects["kind"]] == ["cell", "mitotic_cell", "artefact", "cell"]


def test_stored_bytes_are_png_of_the_stated_depth(specimens):
    raw = {name: tfds.decode.SkipDecoding() for name in ("image", "instance_mask", "class_mask")}
    example = next(iter(specimens.as_data_source("train", decoders=raw)))
    found = {
        name: cv2.imdecode(np.frombuffer(example[name], np.uint8), cv2.IMREAD_UNCHANGED)
        for name in ("image", "instance_mask", "class_mask")
    }
    assert {name: (array.dtype, array.ndim) for name, array in found.items()} == {
        "image": (np.uint8, 3),
        "instance_mask": (np.uint16, 2),
        "class_mask": (np.uint8, 2),
    }


def test_paint_keeps_more_objects_than_a_byte_can_count():
    masks = [np.arange(400).reshape(20, 20) == index for index in range(400)]
    np.testing.assert_array_equal(paint_objects(masks, (20, 20)), np.arange(1, 401).reshape(20, 20))


def test_png_and_bmp_give_the_same_set(tmp_path, train):
    root = icpr2012_layout.write_archive(tmp_path / "png", numbers=(1, 9), suffix=".png")
    # The root itself may be named, too.
    examples = read(build(tmp_path / "data", root), "train")
    for name, example in examples.items():
        for key in ("image", "instance_mask", "class_mask"):
            np.testing.assert_array_equal(example[key], train[name][key])


def test_nothing_is_written_to_stderr(archive, capfd):
    mask = archive / "Main_Dataset" / "Cells" / "Cell_Masks" / "01" / "004.png"
    cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    assert "iCCP" in capfd.readouterr().err  # what users would see without care
    pixels.read_mask(mask, icpr2012_layout.SHAPE)
    assert capfd.readouterr().err == ""


def test_cells(archive, tmp_path):
    builder = build(tmp_path, archive.parent, "cells")
    examples = {split: list(builder.as_data_source(split)) for split in ("train", "test")}
    assert {split: len(found) for split, found in examples.items()} == {"train": 27, "test": 28}
    pairs = [(number, key) for number in icpr2012_layout.TRAIN for key in icpr2012_layout.cell_keys(number)]
    for example, (number, key) in zip(examples["train"], pairs, strict=True):
        where = icpr2012_layout.cell_slice(key)
        np.testing.assert_array_equal(example["image"], icpr2012_layout.specimen_image(number)[where])
        np.testing.assert_array_equal(example["mask"][..., 0], 255 * icpr2012_layout.object_mask(key)[where])
        assert example["specimen_id"].decode() == f"icpr2012-{number:02d}"
        assert PATTERNS[example["pattern"]] == icpr2012_layout.pattern_of(number)
    assert [example["cell_id"] for example in examples["train"]] == list(range(1, 28))
    assert [example["cell_id"] for example in examples["test"]] == list(range(1, 29))
    assert {example["set"] for example in examples["test"]} == {1}
    by_split = {split: {example["specimen_id"] for example in found} for split, found in examples.items()}
    assert not by_split["train"] & by_split["test"]


@pytest.mark.parametrize("config", ["specimens", "cells"])
@pytest.mark.parametrize(("half", "absent"), [("train", "test"), ("test", "train")])
def test_a_missing_half_is_said(tmp_path, config, half, absent):
    icpr2012_layout.write_archive(
        tmp_path, numbers={"train": icpr2012_layout.TRAIN, "test": icpr2012_layout.TEST}[half]
    )
    builder = build(tmp_path / "data", tmp_path, config)
    assert list(builder.info.splits) == [half]
    said = [f"split {absent}: 0 of 14 specimens found, not built"]
    assert builder.info.metadata["missing"] == said
    assert Builder(config=config, data_dir=str(tmp_path / "data")).info.metadata["missing"] == said


def test_missing_specimens_are_named(tmp_path):
    icpr2012_layout.write_archive(tmp_path, numbers=(*icpr2012_layout.TRAIN[2:], 4))
    builder = build(tmp_path / "data", tmp_path)
    assert len(builder.as_data_source("train")) == 12
    assert builder.info.metadata["missing"] == [
        "split train: 12 of 14 specimens found, missing 01, 02",
        "split test: 1 of 14 specimens found, missing 10, 12, 13, 15, 16, 17, 19, 21, 22, 23, 24, 27, 28",
    ]


def test_the_contest_without_its_main_data_builds_cells_only(tmp_path):
    root = icpr2012_layout.write_archive(tmp_path, numbers=(1, 4))
    shutil.rmtree(root / "Main_Dataset")
    assert len(build(tmp_path / "data", tmp_path, "cells").as_data_source("train")) == 2
    with pytest.raises(FileNotFoundError, match="Main_Dataset/Images/NN/NN.bmp"):
        build(tmp_path / "data", tmp_path)


def test_objects_without_mask_or_row_are_left_out_and_said(tmp_path):
    root = icpr2012_layout.write_archive(tmp_path, numbers=(1,))
    masks = root / "Main_Dataset" / "Cells" / "Cell_Masks" / "01"
    (masks / "002.png").unlink()
    shutil.copy(masks / "001.png", masks / "017.png")
    builder = build(tmp_path / "data", tmp_path)
    example = read(builder, "train")["icpr2012-01"]
    assert list(example["objects"]["instance"]) == [1, 2, 3]
    assert set(np.unique(example["instance_mask"])) == {0, 1, 2, 3}
    assert (example["instance_mask"][..., 0][icpr2012_layout.object_mask(4)] == 3).all()
    assert not example["instance_mask"][..., 0][icpr2012_layout.object_mask(2)].any()
    assert builder.info.metadata["missing"][2:] == [
        "icpr2012-01: 1 objects have no mask file, left out: 002",
        "icpr2012-01: 1 objects have no row in 01.csv, left out: 017",
    ]


def test_cells_without_files_are_left_out_and_said(tmp_path):
    root = icpr2012_layout.write_archive(tmp_path, numbers=(1, 2))
    (root / icpr2012_layout.CONTEST / "training" / "002_mask.png").unlink()
    builder = build(tmp_path / "data", tmp_path, "cells")
    assert len(builder.as_data_source("train")) == 3
    assert builder.info.metadata["missing"][0] == "split train: 1 of 4 cells lack image or mask: 002"


@pytest.mark.parametrize("config", ["specimens", "cells"])
@pytest.mark.parametrize("made", [True, False])
def test_no_data_names_directory_files_and_source(tmp_path, config, made):
    manual_dir = tmp_path / "nothing here"
    if made:
        (manual_dir / "other").mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as caught:
        build(tmp_path / "data", manual_dir, config)
    said = str(caught.value)
    assert "\n" not in said
    for part in (str(manual_dir), "NN.csv", "Cell_Masks/NN/MMM.png", "cells.csv", "https://mivia.unisa.it", "licence"):
        assert part in said


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace(old, new):
    def change(path):
        text = path.read_bytes().decode()
        assert old in text
        path.write_bytes(text.replace(old, new, 1).encode())

    return change


def save(array):
    return lambda path: Image.fromarray(array).save(path, format="PNG")


IMAGE, TABLE, MASK = "Images/01/01.bmp", "Images/01/01.csv", "Cells/Cell_Masks/01/002.png"
DAMAGES = {
    "truncated image": (IMAGE, truncate, "damaged"),
    "truncated mask": (MASK, truncate, "damaged"),
    "empty file": (IMAGE, lambda path: path.write_bytes(b""), "not a PNG, BMP, TIFF or JPEG image"),
    "text for an image": (IMAGE, lambda path: path.write_text("GIF89a"), "not a PNG, BMP, TIFF or JPEG image"),
    "grey image": (IMAGE, save(np.ones(icpr2012_layout.SHAPE, np.uint8)), "24-bit RGB"),
    "colour mask": (MASK, save(np.full((*icpr2012_layout.SHAPE, 3), (255, 0, 0), np.uint8)), "expected a grey image"),
    "mask of another size": (MASK, save(np.full((48, 60), 255, np.uint8)), "60 x 48 pixels, its image 64 x 48"),
    "empty mask": (MASK, save(np.zeros(icpr2012_layout.SHAPE, np.uint8)), "the mask is empty"),
    "unknown pattern": (TABLE, replace("homogeneous", "speckledd"), "line 2: unknown pattern 'speckledd'"),
    "unknown type": (TABLE, replace("mitotic_cell", "mitosis"), "line 3: unknown object type 'mitosis'"),
    "unknown intensity": (TABLE, replace("positive", "negative"), "line 2: unknown intensity 'negative'"),
    "two patterns": (TABLE, replace("homogeneous", "nucleolar"), "must share one pattern"),
    "commas": (TABLE, lambda path: path.write_text(path.read_text().replace(";", ",")), "no column 'intensity'"),
    "short row": (TABLE, replace(";002;", ";"), "line 3: 9 entries instead of 10"),
    "repeated object": (TABLE, replace(";002;", ";001;"), "cell_ID 1 is listed twice"),
    "no number": (TABLE, replace(";002;", ";two;"), "cell_ID 'two' is not a number"),
    "empty table": (TABLE, lambda path: path.write_bytes(b""), "no column 'intensity'"),
    "binary table": (TABLE, lambda path: path.write_bytes(b"\xff\xfe\x00"), "not a text table"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named_and_leave_nothing(tmp_path, damage):
    name, change, said = DAMAGES[damage]
    path = icpr2012_layout.write_archive(tmp_path, numbers=(1, 2), crops=False) / "Main_Dataset" / name
    change(path)
    with pytest.raises(ValueError, match="restore|expected|entries|not a number") as caught:
        build(tmp_path / "data", tmp_path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "data" / "icpr2012" / "specimens").iterdir())


@pytest.mark.parametrize("part", ["Images/01/01.bmp", "Images/01/01.csv", "Cells/Cell_Masks/01"])
def test_a_specimen_of_which_a_part_is_missing_is_refused(tmp_path, part):
    path = icpr2012_layout.write_archive(tmp_path, numbers=(1, 2)) / "Main_Dataset" / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match="icpr2012-01 is incomplete") as caught:
        build(tmp_path / "data", tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("cells.csv", replace("homogeneous", "golgi"), "line 2: unknown pattern 'golgi'"),
        ("cells.csv", replace("training", "validation"), "line 2: unknown Set 'validation'"),
        ("training/002.png", truncate, "damaged"),
        ("training/002_mask.png", save(np.full((9, 9), 255, np.uint8)), "the mask is 9 x 9 pixels"),
    ],
)
def test_damaged_contest_files_are_named(tmp_path, name, change, said):
    path = icpr2012_layout.write_archive(tmp_path, numbers=(1,)) / icpr2012_layout.CONTEST / name
    change(path)
    with pytest.raises(ValueError, match=said) as caught:
        build(tmp_path / "data", tmp_path, "cells")
    assert str(path) in str(caught.value)
    assert not (tmp_path / "data" / "icpr2012" / "cells" / "1.0.0").exists()


def test_cells_need_the_table_of_specimens(tmp_path):
    (icpr2012_layout.write_archive(tmp_path, numbers=(1,)) / icpr2012_layout.CONTEST / "cells.csv").unlink()
    with pytest.raises(FileNotFoundError, match="gives the specimen of each contest cell"):
        build(tmp_path / "data", tmp_path, "cells")


def test_tables_with_other_line_ends(tmp_path):
    table = icpr2012_layout.write_archive(tmp_path, numbers=(1,)) / "Main_Dataset" / "Images" / "01" / "01.csv"
    rows = layout.read_objects(table)
    assert b"\n" not in table.read_bytes()
    for ending in (b"\n", b"\r\n"):
        table.write_bytes(table.read_bytes().replace(b"\r\n", b"\r").replace(b"\r", ending) + ending)
        assert layout.read_objects(table) == rows
    assert [row.kind for row in rows] == ["cell", "mitotic_cell", "artefact", "cell"]


# Share of the pixels that lie in an object, measured on the owner's files (union of the object masks).
REAL_FOREGROUND = {
    1: 0.21, 2: 0.16, 3: 0.26, 5: 0.15, 6: 0.2, 7: 0.22, 8: 0.22, 9: 0.18, 11: 0.17, 14: 0.2, 18: 0.16, 20: 0.19,
    25: 0.18, 26: 0.31,
}  # fmt: skip
REAL_OBJECTS = {1: 64, 2: 52, 3: 93, 5: 52, 6: 77, 7: 62, 8: 60, 9: 52, 11: 49, 14: 67, 18: 43, 20: 49, 25: 24, 26: 46}
needs_real = pytest.mark.skipif(
    not (REAL / icpr2012_layout.ROOT_NAME).is_dir(),
    reason="needs the owner's training half: set HEP2_ICPR2012_DIR to the directory that holds it",
)


@needs_real
def test_real_specimens(tmp_path):
    examples = read(build(tmp_path, REAL), "train")
    assert sorted(examples) == [f"icpr2012-{number:02d}" for number in REAL_FOREGROUND]
    for number, share in REAL_FOREGROUND.items():
        example = examples[f"icpr2012-{number:02d}"]
        assert example["image"].shape == (1038, 1388, 3)
        assert np.mean(example["instance_mask"] > 0) == pytest.approx(share, abs=0.0051)
        assert len(np.unique(example["instance_mask"])) == 1 + REAL_OBJECTS[number]
        assert len(example["objects"]["instance"]) == REAL_OBJECTS[number]
    # One cell of image 26 is not among the contest's 721.
    kinds = np.concatenate([example["objects"]["kind"] for example in examples.values()])
    assert list(np.bincount(kinds)) == [722, 35, 33]


@needs_real
def test_real_cells(tmp_path):
    source = build(tmp_path, REAL, "cells").as_data_source(
        "train", decoders={"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()}
    )
    patterns = np.bincount([example["pattern"] for example in source])
    assert dict(zip(PATTERNS, patterns, strict=True)) == {
        "homogeneous": 150,
        "fine_speckled": 94,
        "coarse_speckled": 109,
        "nucleolar": 102,
        "centromere": 208,
        "cytoplasmatic": 58,
    }
    intensities = np.bincount([example["intensity"] for example in source])
    assert list(intensities) == [325, 396]
    assert len({example["specimen_id"] for example in source}) == 14
