import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.tfds_builders import icpr2014_task2_layout
from tfds_builders.hep2_synthetic.hep2_synthetic_dataset_builder import Builder as Synthetic
from tfds_builders.icpr2014_task2 import layout
from tfds_builders.icpr2014_task2.icpr2014_task2_dataset_builder import Builder, connected_objects

PATTERNS = ("homogeneous", "speckled", "nucleolar", "centromere", "nuclear_membrane", "golgi", "mitotic_spindle")


def build(data_dir, manual_dir):
    builder = Builder(config="specimens", data_dir=str(data_dir))
    tfds.disable_progress_bar()
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir)))
    return builder


def missing(manual_dir):
    """What is said besides the number of images."""
    return layout.read_contents(manual_dir).missing[1:]


def test_records(tmp_path, capfd):
    icpr2014_task2_layout.write_archive(tmp_path / "manual")
    builder = build(tmp_path / "data", tmp_path / "manual")
    assert "libpng" not in capfd.readouterr().err
    assert list(builder.info.splits) == ["train"]
    features = builder.info.features
    assert tuple(features["pattern"].names) == PATTERNS
    places = [(specimen, field) for specimen in icpr2014_task2_layout.SPECIMENS for field in range(4)]
    for (specimen, field), example in zip(places, builder.as_data_source("train"), strict=True):
        mask = icpr2014_task2_layout.mask(specimen, field) > 0
        label = (specimen - 1) // 2
        np.testing.assert_array_equal(example["image"][..., 0], icpr2014_task2_layout.image(specimen, field))
        np.testing.assert_array_equal(example["class_mask"][..., 0], np.where(mask, 1 + label, 0))
        np.testing.assert_array_equal(example["instance_mask"][..., 0] > 0, mask)
        assert (example["pattern"], example["field"]) == (label, field)
        assert features["intensity"].int2str(example["intensity"]) == icpr2014_task2_layout.intensity_of(specimen)
        assert example["specimen_id"].decode() == f"icpr2014_task2-{specimen:05d}"
        assert list(example["objects"]["instance"]) == [1, 2, 3, 4]  # of five discs two touch
        assert {features["objects"]["kind"].int2str(kind) for kind in example["objects"]["kind"]} == {"cell"}
    # Another builder reads from disk what the first one has said.
    assert Builder(config="specimens", data_dir=str(tmp_path / "data")).info.metadata["missing"] == [
        "56 of 1008 images of 14 of 252 specimens found: " + ", ".join(f"{name} 2" for name in PATTERNS)
    ]


def test_the_records_have_the_features_of_the_other_sets_of_specimens(tmp_path):
    ours, theirs = (make(data_dir=str(tmp_path)).info.features for make in (Builder, Synthetic))
    assert {name: (f.shape, f.np_dtype) for name, f in ours.items() if name != "objects"} == {
        name: (f.shape, f.np_dtype) for name, f in theirs.items() if name != "objects"
    }
    assert ours["objects"]["kind"].names == theirs["objects"]["kind"].names


def test_objects_are_regions_that_touch_at_sides_or_corners():
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
    objects = connected_objects(mask)
    assert objects.dtype == np.uint16
    np.testing.assert_array_equal(objects, [[1, 0, 0, 2], [0, 1, 0, 2], [0, 0, 0, 0], [3, 0, 0, 0]])


def test_source_files_are_all_that_is_read(tmp_path):
    icpr2014_task2_layout.write_archive(tmp_path, specimens=(3,), fields=1)
    (tmp_path / "notes.txt").write_text("no part of the data")
    sources = Builder(config="specimens", data_dir=str(tmp_path / "data")).source_files(tmp_path)
    folder = "train_ICPR2014_task2/train"
    assert sorted(sources) == ["gt.csv", f"{folder}/00003_p0.tif", f"{folder}/00003_p0_Mask.tif"]
    assert all(path == tmp_path / name for name, path in sources.items())


TABLES = {
    "no header": ["00001,homogeneous ,positive", "00002,homogeneous ,intermediate"],
    "another order": ["Intensity,Label,Patient", "positive ,Homogeneous ,1", "intermediate ,homogeneous ,2"],
    "a row an image": [
        f"{specimen:05d}_p{field}.tif,{specimen:05d}_p{field}_Mask.tif,homogeneous ,{grade}"
        for specimen, grade in ((1, "positive"), (2, "intermediate"))
        for field in range(4)
    ],
    "paths": [
        "image,class,intensity",
        "a/b/00001_p0.tif,homogeneous ,positive",
        "a\\00002_p3.tif,homogeneous,intermediate",
    ],
}


@pytest.mark.parametrize("name", TABLES)
def test_shapes_of_the_table(tmp_path, name):
    icpr2014_task2_layout.write_images(tmp_path, (1, 2))
    icpr2014_task2_layout.write_table(tmp_path, TABLES[name])
    fields = layout.read_contents(tmp_path).fields
    assert [(f.specimen, f.number, f.pattern) for f in fields] == [
        (s, k, "homogeneous") for s in (1, 2) for k in range(4)
    ]
    assert [f.intensity for f in fields] == ["positive"] * 4 + ["intermediate"] * 4


def test_class_and_intensity_in_two_tables_and_others_beside_them(tmp_path):
    icpr2014_task2_layout.write_images(tmp_path, (1, 14))
    icpr2014_task2_layout.write_table(tmp_path, ["1,homogeneous ", "14,mitsp "], "classes.csv")
    icpr2014_task2_layout.write_table(tmp_path, ["id,intensity", "1,positive", "14,intermediate"], "intensities.csv")
    icpr2014_task2_layout.write_table(tmp_path, ["x,y", "a,b"], "other.csv")
    icpr2014_task2_layout.write_table(tmp_path, [], "empty.csv")
    found = {f.specimen: (f.pattern, f.intensity) for f in layout.read_contents(tmp_path).fields}
    assert found == {1: ("homogeneous", "positive"), 14: ("mitotic_spindle", "intermediate")}
    assert missing(tmp_path) == []


def test_what_is_missing_is_said_and_the_rest_goes_on(tmp_path, caplog):
    root = icpr2014_task2_layout.write_images(tmp_path / "manual", (1, 2, 3, 4, 5, 6, 7))
    icpr2014_task2_layout.path_of(root, 1, 2).unlink()
    icpr2014_task2_layout.path_of(root, 2, 0, "_Mask").unlink()
    lines = icpr2014_task2_layout.rows((1, 2, 3, 4, 5))
    lines[2] = "00003,granular ,positive"
    lines[3] = "00004,speckled ,weak"
    lines[4] = "00005,nucleolar ,"
    icpr2014_task2_layout.write_table(root, [*lines, "00099,golgi ,positive"])
    builder = build(tmp_path / "data", root)
    assert builder.info.metadata["missing"] == [
        "14 of 1008 images of 4 of 252 specimens found: homogeneous 2, speckled 1, nucleolar 1, centromere 0, "
        "nuclear_membrane 0, golgi 0, mitotic_spindle 0",
        "2 specimens have fewer than 4 fields: 00001, 00002",
        "1 images have no mask, left out: 00002_p0",
        "1 masks have no image, left out: 00001_p2",
        "1 specimens of the tables have no image: 00099",
        "2 specimens have no class in a table, left out: 00006, 00007",
        "1 specimens of the unknown class 'granular', left out: 00003",
        "2 specimens have no intensity: 00006, 00007",
        "1 specimens of the unknown intensity '', taken as unknown: 00005",
        "1 specimens of the unknown intensity 'weak', taken as unknown: 00004",
    ]
    assert "icpr2014_task2/specimens: 1 specimens of the unknown class 'granular'" in caplog.text
    ids = {example["specimen_id"].decode()[-5:] for example in builder.as_data_source("train")}
    assert ids == {"00001", "00002", "00004", "00005"}


def test_a_field_without_a_cell_stays_and_is_named(tmp_path):
    root = icpr2014_task2_layout.write_archive(tmp_path / "manual", (1,))
    icpr2014_task2_layout.save(
        icpr2014_task2_layout.path_of(root, 1, 2, "_Mask"), np.zeros(icpr2014_task2_layout.SHAPE, np.uint8)
    )
    builder = build(tmp_path / "data", root)
    examples = list(builder.as_data_source("train"))
    assert [len(example["objects"]["instance"]) for example in examples] == [4, 4, 0, 4]
    assert not examples[2]["class_mask"].any()
    assert builder.info.metadata["missing"][-1] == "00001-2: its mask is empty, so it holds no cell"


DAMAGES = {
    "truncated image": ("", lambda path: path.write_bytes(path.read_bytes()[:200]), "damaged"),
    "text for a mask": ("_Mask", lambda path: path.write_text("mask"), "not a PNG, BMP, TIFF or JPEG image"),
    "mask of another size": (
        "_Mask",
        lambda p: icpr2014_task2_layout.save(p, np.full((9, 8), 255, np.uint8)),
        "mask is 8 x 9 pixels",
    ),
    "deep image": (
        "",
        lambda p: icpr2014_task2_layout.save(p, np.ones(icpr2014_task2_layout.SHAPE, np.uint16)),
        "expected an 8-bit grey image",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named_and_leave_nothing(tmp_path, damage):
    ending, change, said = DAMAGES[damage]
    root = icpr2014_task2_layout.write_archive(tmp_path / "manual", (1, 2))
    path = icpr2014_task2_layout.path_of(root, 2, 1, ending)
    change(path)
    with pytest.raises(ValueError, match=said) as caught:
        build(tmp_path / "data", root)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "data" / "icpr2014_task2" / "specimens").iterdir())


def test_contradictions_are_refused(tmp_path):
    root = icpr2014_task2_layout.write_archive(tmp_path, (1, 2))
    icpr2014_task2_layout.write_table(root, ["00001,homogeneous ", "00001_p3.tif,golgi "])
    with pytest.raises(
        ValueError, match=re.escape("gt.csv, line 2: specimen 00001 is golgi, but homogeneous elsewhere")
    ):
        layout.read_contents(root)
    icpr2014_task2_layout.save(root / "copy" / "00001_p0.tif", icpr2014_task2_layout.image(1, 0))
    with pytest.raises(ValueError, match="two files of one field") as caught:
        layout.read_contents(root)
    assert "copy/00001_p0.tif" in str(caught.value)


@pytest.mark.parametrize("there", ["nothing", "no table", "no mask", "no known class"])
def test_no_usable_data_names_directory_files_and_source(tmp_path, there):
    root = tmp_path / "nothing here"
    if there != "nothing":
        icpr2014_task2_layout.write_images(root, (1,))
    if there == "no mask":
        icpr2014_task2_layout.write_table(root, icpr2014_task2_layout.rows((1,)))
        for field in range(4):
            icpr2014_task2_layout.path_of(root, 1, field, "_Mask").unlink()
    if there == "no known class":
        icpr2014_task2_layout.write_table(root, ["00001,granular ,positive"])
    with pytest.raises(FileNotFoundError) as caught:
        build(tmp_path / "data", root)
    said = str(caught.value)
    assert "\n" not in said
    parts = {
        "no table": "1 specimens have no class in a table",
        "no mask": "4 images have no mask",
        "no known class": "1 specimens have no class in a table",
    }
    for part in (str(root), "NNNNN_pK.tif", "NNNNN_pK_Mask.tif", ".csv", "https://hep2.unisa.it", parts.get(there, "")):
        assert part in said
