import re

import cv2
import numpy as np
import pytest

from tests.tfds_builders.test_icpr2014_task1 import add_profile, build, cell_mask, native, read, save, write_table
from tfds_builders.snphep2 import layout
from tfds_builders.snphep2.snphep2_dataset_builder import Builder

CLASSES = ("Centromere", "Coarse Speckled", "fine_speckled", "Homogeneous", "Nucleolar")
PATTERNS = ("centromere", "coarse_speckled", "fine_speckled", "homogeneous", "nucleolar")
CELLS = range(1, 21)  # two to a specimen, two specimens to a class
HEAD = "image,mask,class,specimen,intensity"


def specimen_of(cell):
    return 1 + (cell - 1) // 2


def row(cell):
    intensity = ("positive", "Intermediate", "")[cell % 3]
    label = CLASSES[(specimen_of(cell) - 1) // 2]
    return f"cells/c{cell}.png,cells/c{cell}_mask.png,{label},{specimen_of(cell)},{intensity}"


def side_of(specimen, fold):
    """One specimen of each class on either side."""
    return "train" if (specimen + fold) % 2 else "test"


def write_cells(root, cells=CELLS):
    for cell in cells:
        save(root / "cells" / f"c{cell}.png", native(cell))
        save(root / "cells" / f"c{cell}_mask.png", cell_mask(native(cell).shape))
    write_table(root / "index.csv", [row(cell) for cell in cells], head=(HEAD,))
    return root


def fold_rows(specimens=range(1, 11), folds=range(1, 6)):
    return [f"{fold},{specimen:02d},{side_of(specimen, fold)}" for fold in folds for specimen in specimens]


def write_fold_table(root):
    write_table(root / "folds.csv", fold_rows(), head=("fold,specimen,side",))


def write_fold_folders(root, head=("specimen",)):
    for fold in range(1, 6):
        for side in ("train", "test"):
            specimens = [str(s) for s in range(1, 11) if side_of(s, fold) == side]
            write_table(root / f"fold{fold}" / f"{side}.csv", specimens, head=head)


def contents(manual_dir):
    return layout.read_contents(layout.find_tree(manual_dir))


def missing(manual_dir):
    """What is said besides the number of cells."""
    return contents(manual_dir).missing[1:]


@pytest.mark.parametrize("folder", [".", "SNPHEp2"])
@pytest.mark.parametrize("write_folds", [write_fold_table, write_fold_folders])
def test_cells_and_folds(tmp_path, folder, write_folds, capfd):
    root = write_cells(tmp_path / "manual" / folder)
    write_folds(root)
    add_profile(root / "cells" / "c1.png")
    builder = build(tmp_path / "data", tmp_path / "manual", Builder)
    assert "iCCP" not in capfd.readouterr().err
    assert list(builder.info.splits) == ["train"]
    assert tuple(builder.info.features["pattern"].names) == PATTERNS
    for cell, example in zip(CELLS, read(builder), strict=True):
        np.testing.assert_array_equal(example["image"][..., 0], native(cell))
        np.testing.assert_array_equal(example["mask"][..., 0], cell_mask(native(cell).shape))
        assert example["pattern"] == PATTERNS[(specimen_of(cell) - 1) // 2]
        assert example["intensity"] == ("positive", "intermediate", "unknown")[cell % 3]
        assert example["specimen_id"] == f"s{specimen_of(cell):03d}"
        assert (example["cell_id"], example["location"]) == (cell, -1)
        assert example["fold_sides"].dtype == np.int8
        sides = [side_of(specimen_of(cell), fold) for fold in range(1, 6)]
        assert example["fold_sides"].tolist() == [("train", "test").index(side) for side in sides]
    assert Builder(config="cells", data_dir=str(tmp_path / "data")).info.metadata["missing"] == [
        "20 of 1884 cells of 10 of 40 specimens found: centromere 4, coarse_speckled 4, fine_speckled 4, "
        "homogeneous 4, nucleolar 4",
        "7 of 20 cells have no intensity",
    ]


def test_source_files_are_all_that_is_read(tmp_path):
    write_fold_folders(write_cells(tmp_path, cells=(1,)))
    sources = Builder(config="cells", data_dir=str(tmp_path / "data")).source_files(tmp_path)
    lists = [f"fold{fold}/{side}.csv" for fold in range(1, 6) for side in ("test", "train")]
    assert sorted(sources) == ["cells/c1.png", "cells/c1_mask.png", *lists, "index.csv"]
    assert all(path == tmp_path / name for name, path in sources.items())


def test_the_least_index(tmp_path):
    save(tmp_path / "manual" / "a.bmp", native(1))
    save(tmp_path / "manual" / "b.bmp", native(2))
    write_table(
        tmp_path / "manual" / "list.csv", ["b.bmp,nucleolar,x 1", "a.bmp,nucleolar,y"], head=("File,Label,Specimen",)
    )
    builder = build(tmp_path / "data", tmp_path / "manual", Builder)
    examples = read(builder)
    assert [example["specimen_id"] for example in examples] == ["x 1", "y"]
    assert [example["cell_id"] for example in examples] == [1, 2]
    assert [example["fold_sides"].tolist() for example in examples] == [[-1] * 5] * 2
    assert not examples[0]["mask"].any()
    np.testing.assert_array_equal(examples[0]["image"][..., 0], native(2))
    assert builder.info.metadata["missing"][1:] == [
        "2 of 2 cells have no mask (their mask is all 0)",
        "2 of 2 cells have no intensity",
        "no list of the five published folds: fold_sides is -1",
    ]


def test_numbers_of_cells_set_the_order(tmp_path):
    for cell in (5, 30):
        save(tmp_path / f"{cell}.png", native(cell))
    write_table(
        tmp_path / "index.csv", ["30.png,golgi,1,30", "5.png,golgi,1,5"], head=("image,class,specimen,cell_id",)
    )
    with pytest.raises(
        ValueError, match="line 2: unknown pattern 'golgi'; expected one of centromere, coarse_speckled"
    ):
        contents(tmp_path)
    rows = ["30.png,centromere,1,30", "5.png,centromere,1,5"]
    write_table(tmp_path / "index.csv", rows, head=("image,class,specimen,cell_id",))
    assert [cell.image.name for cell in contents(tmp_path).cells] == ["5.png", "30.png"]


def test_what_is_missing_is_said(tmp_path):
    root = write_cells(tmp_path)
    rows = [row_ for row_ in fold_rows() if not row_.startswith("2,03")]
    write_table(root / "folds.csv", [*rows, "4,77,test"], head=("fold,specimen,side",))
    (root / "cells" / "c1.png").unlink()
    (root / "cells" / "c2_mask.png").unlink()
    save(root / "more" / "c99.png", native(99))
    assert missing(tmp_path) == [
        "1 rows of index.csv have no image",
        "1 images have no row in index.csv, left out",
        "1 of 19 cells have no mask (their mask is all 0)",
        "7 of 19 cells have no intensity",
        "fold 2: 1 of 10 specimens have no side",
        "fold 4: 1 listed specimens have no cell",
    ]
    assert layout.fold_sides(contents(tmp_path).cells[4], contents(tmp_path).splits)[1] == -1


def test_an_index_without_any_image(tmp_path):
    write_table(tmp_path / "manual" / "index.csv", [row(1)], head=(HEAD,))
    with pytest.raises(FileNotFoundError, match="index.csv: none of the images that it names exists"):
        build(tmp_path / "data", tmp_path / "manual", Builder)


def test_repeated_specimens_are_found(tmp_path):
    root = write_cells(tmp_path / "manual")
    save(root / "cells" / "c4.png", native(1))
    save(root / "cells" / "c4_mask.png", cell_mask(native(1).shape))
    builder = build(tmp_path / "data", root, Builder)
    assert builder.info.metadata["repeated_specimens"] == [["s001", "s002"]]
    assert "specimens s001 and s002 share 1 cells" in builder.info.metadata["notes"][0]


INDEX, FOLDS = "index.csv", "folds.csv"
FOLDS_HEAD = "fold,specimen,side"
BAD_TABLES = {
    "unknown pattern": (INDEX, [HEAD, "a.png,,Golgi,1,"], "line 2: unknown pattern 'Golgi'"),
    "unknown intensity": (INDEX, [HEAD, "a.png,,nucleolar,1,weak"], "line 2: unknown intensity 'weak'"),
    "no specimen": (INDEX, [HEAD, "a.png,,nucleolar,,"], "line 2: no specimen"),
    "no image": (INDEX, [HEAD, ",,nucleolar,1,"], "line 2: '' is not the path"),
    "elsewhere": (INDEX, [HEAD, "../a.png,,nucleolar,1,"], "line 2: '../a.png' is not the path"),
    "too long": (INDEX, [HEAD, f"{'a' * 300}.png,,nucleolar,1,"], "is not the path of a file"),
    "twice": (INDEX, [HEAD, "a.png,,nucleolar,1,", "a.png,,nucleolar,1,"], "a.png is listed twice"),
    "number": (INDEX, ["image,class,specimen,cell_id", "a.png,nucleolar,1,x"], "line 2: 'x' is not the id of a cell"),
    "number twice": (
        INDEX,
        ["image,class,specimen,cell_id", "a.png,nucleolar,1,7", "b.png,nucleolar,1,7"],
        "the cell_id 7 is listed twice",
    ),
    "two patterns": (INDEX, [HEAD, "a.png,,nucleolar,1,", "b.png,,centromere,1,"], "specimen s001 has cells of two"),
    "sixth fold": (FOLDS, [FOLDS_HEAD, "6,1,train"], "line 2: there is no fold 6; the 5"),
    "no fold": (FOLDS, [FOLDS_HEAD, "one,1,train"], "line 2: fold 'one' is not a number"),
    "unknown side": (FOLDS, [FOLDS_HEAD, "1,1,left"], "line 2: unknown side 'left'; expected one of train, test"),
    "both sides": (FOLDS, [FOLDS_HEAD, "1,1,train", "1,01,test"], "line 3: specimen s001 is listed twice in fold 1"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_damaged_tables_are_named(tmp_path, name):
    table, lines, said = BAD_TABLES[name]
    write_cells(tmp_path, cells=(1,))
    write_table(tmp_path / table, lines, head=())
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        contents(tmp_path)
    assert str(tmp_path / table) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_of_folds_without_a_header_and_on_both_sides(tmp_path):
    write_fold_folders(write_cells(tmp_path), head=())
    assert len(contents(tmp_path).splits) == 50
    with (tmp_path / "fold3" / "test.csv").open("a") as file:
        file.write("".join(f"{specimen}\n" for specimen in range(1, 11) if side_of(specimen, 3) == "train"))
    with pytest.raises(ValueError, match=r"fold3/train.csv, line 1: specimen s\d+ is listed twice in fold 3"):
        contents(tmp_path)


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [("other.csv", [HEAD], "2 indices of cells"), ("folds.csv", [FOLDS_HEAD], "2 lists of the folds")],
)
def test_two_tables_of_a_kind_are_refused(tmp_path, name, lines, said):
    write_fold_folders(write_cells(tmp_path))
    write_table(tmp_path / name, lines, head=())
    with pytest.raises(ValueError, match=said) as caught:
        layout.find_tree(tmp_path)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("c1.png", lambda path: path.write_bytes(path.read_bytes()[:100]), "truncated"),
        ("c1_mask.png", lambda path: cv2.imwrite(str(path), cell_mask((48, 60))), "60 x 48 pixels, its image 56 x 55"),
    ],
)
def test_damaged_files_are_named_and_leave_nothing(tmp_path, name, change, said):
    path = write_cells(tmp_path / "manual", cells=(1,)) / "cells" / name
    change(path)
    with pytest.raises(ValueError, match=said) as caught:
        build(tmp_path / "data", tmp_path / "manual", Builder)
    assert str(path) in str(caught.value)
    assert not list((tmp_path / "data" / "snphep2" / "cells").iterdir())


@pytest.mark.parametrize("made", [True, False])
def test_no_data_names_directory_files_and_source(tmp_path, made):
    manual_dir = tmp_path / "nothing here"
    if made:
        write_table(manual_dir / "other.csv", ["a table, of another shape"], head=("one column",))
        (manual_dir / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileNotFoundError) as caught:
        build(tmp_path / "data", manual_dir, Builder)
    said = str(caught.value)
    assert "\n" not in said
    for part in (str(manual_dir), "image, class, specimen", "fold,specimen,side", "lovell/snphep2"):
        assert part in said
