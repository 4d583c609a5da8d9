import csv
import sys
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.tfds_builders.excel import write_xls, write_xlsx
from tfds_builders.aida import layout, terms
from tfds_builders.aida.aida_dataset_builder import Builder
from tfds_builders.sheets import read_sheet

HEAD = ["Patient ID", "ImageFileName", "Fluorescence Intensity", "StainingPatterns", "PatientAge"]
ROWS = [
    [1, "a1.png", "Positive", "AC-1", 40],
    [1, "a2.jpg", "Positive", "AC-1; AC-4", 40],
    [2, "b.tif", "Negative", "", ""],
    [3, "c.bmp", "positive", "Cytoplasmic reticular/AMA + rods and rings", 61],
]
PATTERNS = [["AC-1"], ["AC-1", "AC-4"], [], ["AC-21", "AC-23"]]


def picture(name):
    """RGB, but grey in the .tif."""
    shape = (24, 30) if name.endswith(".tif") else (24, 30, 3)
    return np.random.default_rng(sum(map(ord, name))).integers(0, 256, shape).astype(np.uint8)


def write_images(root, names=("a1.png", "a2.jpg", "b.tif", "c.bmp")):
    (root / "aida_project_database").mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(picture(name)).save(root / "aida_project_database" / name)
    return root


def write_csv(path, rows, delimiter=","):
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)


def write_archive(root, rows=ROWS, write=write_csv, suffix=".csv", head=HEAD):
    names = {row[head.index("ImageFileName")] for row in rows}
    write_images(root, [name for name in ("a1.png", "a2.jpg", "b.tif", "c.bmp") if name in names])
    write(root / f"{layout.TABLE_NAME}{suffix}", [head, *rows])
    return root


def build(data_dir, manual_dir):
    builder = Builder(config="images", data_dir=str(data_dir))
    tfds.disable_progress_bar()
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir)))
    return builder


def check(builder):
    """The records are those of `ROWS`."""
    codes = builder.info.features["patterns"].feature
    grades = builder.info.features["intensity"]
    for row, patterns, example in zip(ROWS, PATTERNS, builder.as_data_source("train"), strict=True):
        name = row[1]
        expected = picture(name) if picture(name).ndim == 3 else np.repeat(picture(name)[..., None], 3, axis=-1)
        if not name.endswith(".jpg"):  # which is lossy
            np.testing.assert_array_equal(example["image"], expected)
        assert [codes.int2str(label) for label in example["patterns"]] == patterns
        assert bool(example["patterns_known"])
        assert grades.int2str(example["intensity"]) == row[2].lower()
        assert example["specimen_id"].decode() == f"aida-{row[0]}"
        assert example["name"].decode() == name


@pytest.mark.parametrize(
    ("write", "suffix"),
    [
        (write_xls, ".xls"),
        (write_xlsx, ".xlsx"),
        (write_csv, ".csv"),
        (lambda path, rows: write_csv(path, rows, ";"), ".csv"),
    ],
    ids=["xls", "xlsx", "comma", "semicolon"],
)
def test_records(tmp_path, write, suffix):
    if suffix != ".csv":
        pytest.importorskip("python_calamine", reason="needs the extra aida, which reads Excel's tables")
    builder = build(tmp_path / "data", write_archive(tmp_path / "manual", write=write, suffix=suffix))
    assert list(builder.info.splits) == ["train"]
    assert builder.info.features["patterns"].feature.names == [f"AC-{number}" for number in range(1, 30)]
    check(builder)
    metadata = Builder(config="images", data_dir=str(tmp_path / "data")).info.metadata
    assert metadata["missing"] == ["4 of 2080 images found"]
    assert metadata["notes"] == [
        "the column 'Patient ID' is read as the patient",
        "the column 'Fluorescence Intensity' is read as the intensity",
    ]


def test_source_files_are_all_that_is_read(tmp_path):
    write_archive(tmp_path, ROWS[:1])
    (tmp_path / "AIDA_HEp-2_Note.pdf").write_text("no part of the data")
    sources = Builder(config="images", data_dir=str(tmp_path / "data")).source_files(tmp_path)
    assert sorted(sources) == ["AIDA_HEp-2_GroundTruth.csv", "aida_project_database/a1.png"]
    assert all(path == tmp_path / name for name, path in sources.items())


@pytest.mark.parametrize(
    ("entry", "codes", "unknown"),
    [
        ("AC-1", [1], []),
        ("AC-4, AC-5", [4, 5], []),
        ("ac 5 & AC_4\nAC2", [2, 4, 5], []),
        ("AC-8,9/10", [8, 9, 10], []),
        ("AC-1 homogeneous; weird", [1], ["weird"]),
        ("AC-31 + AC-3", [3], ["AC-31"]),
        ("Nuclear Homogeneous Pattern", [1], []),
        ("Large/coarse speckled, golgi-like", [5, 22], []),
        ("cytoplasmic fine speckled", [20], []),
        ("nuclear fine-speckled", [4], []),
        ("homogeneous and centromere", [1, 3], []),
        ("rods and rings/NuMA", [23, 26], []),
        ("speckled", [], ["speckled"]),
        ("nuclear dots and golgi", [], ["nuclear dots and golgi"]),
        ("Negative", [], []),
        ("AC-0", [], []),
        (" - ", [], []),
    ],
)
def test_terms(entry, codes, unknown):
    assert terms.read_terms(entry) == (tuple(f"AC-{number}" for number in codes), tuple(unknown))


def test_every_consensus_name_is_known():
    for code, pattern in list(terms.icap.PATTERNS.items())[1:]:
        assert terms.read_terms(pattern.name) == ((code,), ())


def test_what_is_missing_is_said_and_the_rest_goes_on(tmp_path):
    rows = [
        [1, "a1.png", "Positive", "AC-1; strange term", ""],
        ["", "a2.jpg", "", "AC-2", ""],
        [2, "b.tif", "positive", "", ""],
        [3, "c.bmp", "faint", "", ""],
        [4, "lost.png", "negative", "", ""],
        ["", "", "", "", ""],
    ]
    root = write_images(tmp_path / "manual")
    Image.fromarray(picture("x.png")).save(root / "stray.png")
    write_csv(root / f"{layout.TABLE_NAME}.csv", [["AIDA", "", "", "", ""], HEAD, *rows])
    builder = build(tmp_path / "data", root)
    assert builder.info.metadata["missing"] == [
        "4 of 2080 images found",
        "1 images of the table do not exist: lost.png",
        "1 images have no row in the table, left out: stray.png",
        "1 images have the unknown term 'strange term', their patterns are not all known: a1.png",
        "2 images have no pattern and are not negative: b.tif, c.bmp",
        "2 images have no intensity: a2.jpg, c.bmp",
        "1 images have no patient: a2.jpg",
    ]
    examples = list(builder.as_data_source("train"))
    assert [list(example["patterns"]) for example in examples] == [[0], [1], [], []]  # labels: AC-1 is 0
    assert [bool(example["patterns_known"]) for example in examples] == [False, True, False, False]
    assert examples[1]["specimen_id"] == b""


@pytest.mark.parametrize(
    ("head", "patient", "intensity"),
    [
        (["ImageFileName", "StainingPatterns", "x", "y"], None, "y"),
        (["Image File Name", "Staining_Patterns", "SampleID", "Result"], "SampleID", "Result"),
        (["ImageFileName", "StainingPatterns", "ID", "Intensity"], "ID", "Intensity"),
        (["ImageFileName", "StainingPatterns", "AgePatient", "PatientSex"], None, "PatientSex"),
    ],
)
def test_columns_by_names_and_values(tmp_path, head, patient, intensity):
    root = write_images(tmp_path, ["a1.png"])
    write_csv(root / f"{layout.TABLE_NAME}.csv", [head, ["a1.png", "AC-1", "7", "pos"]])
    contents = layout.read_contents(root)
    assert contents.images[0].intensity == "positive"
    assert contents.images[0].specimen_id == ("aida-7" if patient else "")
    said = (
        f"the column '{patient}' is read as the patient" if patient else "no column of the table is read as the patient"
    )
    assert contents.notes == [said, f"the column '{intensity}' is read as the intensity"]


def test_a_table_that_a_user_saved_goes_before_the_owner_s(tmp_path):
    root = write_archive(tmp_path, ROWS)
    (root / f"{layout.TABLE_NAME}.xls").write_bytes(b"not read")
    assert len(layout.read_contents(root).images) == 4


def test_excel_without_its_reader_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "python_calamine", None)  # as if it were not installed
    root = write_archive(tmp_path, ROWS, write=write_xls, suffix=".xls")
    with pytest.raises(
        ValueError, match=r"needs python-calamine; run pip install 'hep2jax\[aida\]', or save it beside as .csv"
    ):
        layout.read_contents(root)


@pytest.mark.parametrize("suffix", [".xls", ".xlsx"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)])
def test_damaged_excel_tables_are_named(tmp_path, suffix, content):
    pytest.importorskip("python_calamine", reason="needs the extra aida, which reads Excel's tables")
    path = tmp_path / f"table{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not an Excel table") as caught:
        read_sheet(path)
    assert str(path) in str(caught.value)


def test_a_spreadsheet_that_names_a_huge_rectangle_is_refused(tmp_path):
    pytest.importorskip("python_calamine", reason="needs the extra aida, which reads Excel's tables")
    write_xlsx(tmp_path / "small.xlsx", [["first"], ["last"]])
    with zipfile.ZipFile(tmp_path / "small.xlsx") as small, zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        for name in small.namelist():
            cells = small.read(name).replace(b"<c t", b'<c r="A1" t', 1)
            archive.writestr(name, cells.replace(b"<c t", b'<c r="XFD1048576" t'))
    with pytest.raises(ValueError, match="a.xlsx is not an Excel table") as caught:
        read_sheet(tmp_path / "a.xlsx")
    assert "\n" not in str(caught.value)


BAD = {
    "short row": ([HEAD, ["1", "a1.png"]], ValueError, "line 2: 2 entries instead of 5"),
    "no column": ([["ImageFileName", "Patterns"], ["a1.png", "AC-1"]], ValueError, "no header with the columns"),
    "binary": (None, ValueError, "not a text table"),
    "twice": ([HEAD, ROWS[0], ROWS[0]], ValueError, "line 3: the image a1.png is listed twice"),
    "no image": ([HEAD, [1, "lost.png", "positive", "AC-1", ""]], FileNotFoundError, "none of the 1 images"),
}


@pytest.mark.parametrize("name", BAD)
def test_unusable_tables_are_named(tmp_path, name):
    rows, kind, said = BAD[name]
    root = write_images(tmp_path / "manual", ["a1.png"])
    path = root / f"{layout.TABLE_NAME}.csv"
    if rows:
        write_csv(path, rows)
    else:
        path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(kind, match=said) as caught:
        build(tmp_path / "data", root)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_image_is_named_and_leaves_nothing(tmp_path):
    root = write_archive(tmp_path / "manual")
    path = root / "aida_project_database" / "a2.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="a2.jpg: damaged"):
        build(tmp_path / "data", root)
    assert not list((tmp_path / "data" / "aida" / "images").iterdir())


def test_no_data_names_directory_files_and_source(tmp_path):
    root = write_images(tmp_path / "nothing here")
    with pytest.raises(FileNotFoundError) as caught:
        build(tmp_path / "data", root)
    said = str(caught.value)
    assert "\n" not in said
    for part in (str(root), "AIDA_HEp-2_GroundTruth.xls", "ImageFileName", "aida_project_database", "aidaproject.net"):
        assert part in said
