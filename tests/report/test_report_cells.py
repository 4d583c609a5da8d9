"""The report of a run that reads single cells: words of cells, specimens worst first, errors by confusion."""

import base64
import json
import math
import pathlib
import re

import cv2
import numpy as np
import pytest

from hep2jax.config import Config, to_dict
from hep2jax.report import CellItem, cells, write_report
from hep2jax.tasks.cells import CellTask
from tests.report.test_report import HOSTILE, Page

CLASSES = ["homogeneous", "nucleolar", "nuclear_membrane"]
CONFUSION = [[90, 2, 8], [30, 60, 10], [0, 1, 99]]
NOTE = "cells of one specimen are in train and test (12 of 83 specimens)"
UNKNOWN = "specimen ids are not at hand: that cells of one specimen are in train and test cannot be excluded"


def make_cell(number=0, *, truth=0, read=None, specimen="s01", probability=0.9, size=(70, 62)) -> CellItem:
    """A disc, a disc with two dots or a ring on noise."""
    noise = np.random.default_rng(number).integers(20, 60, size).astype(np.uint8)
    centre, radius = (size[1] // 2, size[0] // 2), min(size) // 3
    image = cv2.circle(noise, centre, radius, 110, 5 if truth == 2 else -1)
    for shift in (-radius // 2, radius // 2) if truth == 1 else ():
        cv2.circle(image, (centre[0] + shift, centre[1]), 4, 140, -1)
    return CellItem(
        identifier=f"c{number}",
        specimen_id=specimen,
        intensity="intermediate",
        truth=CLASSES[truth],
        prediction=CLASSES[truth if read is None else read],
        probability=probability,
        image=image,
    )


def make_cells() -> list[CellItem]:
    right = [make_cell(100 * k + i, truth=k, specimen=f"s{k}{i % 4}") for k in range(3) for i in range(12)]
    wrong = [
        make_cell(400, truth=0, read=1),
        *(make_cell(410 + i, truth=0, read=2, probability=0.5 + i / 10) for i in range(3)),
        *(make_cell(420 + i, truth=1, read=0, probability=0.9 - i / 10) for i in range(2)),
        make_cell(430, truth=1, read=2),
    ]
    return [*right, *wrong]


def figures(confusion: list[list[int]], examples: str | None = None, specimens: int | None = 14) -> dict:
    support = [sum(row) for row in confusion]
    per_class = {
        name: {"recall": confusion[i][i] / support[i], "precision": 0.8, "support": support[i]}
        for i, name in enumerate(CLASSES)
    }
    values = {"aca": 0.83, "mca": 0.82, "aca_ci95": [0.71, 0.92], "mca_ci95": [0.7, 0.91], "per_class": per_class}
    values |= {"confusion": confusion, "classes": CLASSES, "num_examples": sum(support), "num_specimens": specimens}
    return values | {"ci_method": "Wilson's", "num_undecided": 0, "examples": examples}


SPECIMENS = [
    {"specimen": "s-fine", "pattern": "nucleolar", "prediction": "nucleolar", "num_cells": 40, "right": 38},
    {"specimen": "s-wrong", "pattern": "homogeneous", "prediction": "nucleolar", "num_cells": 50, "right": 10},
    {"specimen": "s-tight", "pattern": "homogeneous", "prediction": "homogeneous", "num_cells": 10, "right": 6},
]


def make_section() -> dict:
    whole = figures([[5, 1, 0], [0, 4, 0], [0, 0, 4]])
    return figures(CONFUSION, "cell") | {
        "protocol": "kfold",
        "specimen_leakage": False,
        "leakage_note": "no specimen on two sides",
        "specimen": whole,
        "specimens": SPECIMENS,
    }


def write(directory: pathlib.Path, section: dict, shown: list[CellItem], protocol: str = "kfold") -> Page:
    directory.mkdir(exist_ok=True)
    config = to_dict(Config())
    config["data"]["protocol"] = protocol
    (directory / "config.json").write_text(json.dumps(config))
    lines = [{"step": step, "split": "train", "images_per_second": 900.0 + step} for step in (20, 40)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = write_report(
        directory,
        metrics={"test": section},
        layout=CellTask.layout,
        gallery={"test": shown} if shown else {},
        environment={},
        timings={},
    )
    return Page(path.read_text())


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    return write(tmp_path_factory.mktemp("runs") / "gao", make_section(), make_cells())


def words(text: str) -> str:
    return " ".join(text.split())


def test_headline_speaks_of_cells_and_specimens(page):
    tiles = [words(tile) for tile in page.by_class["tile"]]
    assert [tile[:13] for tile in tiles] == ["Cells, MCA0.8", "Cells, ACA0.8", "Specimens, MC", "Specimens, AC"]
    assert "0.700 – 0.910" in tiles[0]
    assert "Measured on test: 300 cells of 14 specimens." in "".join(page.pieces)
    assert "Cells per second" in page.text
    assert not re.search(r"\bimages?\b", page.text.split("Marked keys")[0])  # the configuration has keys of that name


def test_matrices_and_tables_stand_by_cell_and_by_specimen(page):
    assert len(page.by_class["cell"]) == 2 * len(CLASSES) ** 2
    assert [int(cell) for cell in page.by_class["cell"][:9]] == sum(CONFUSION, [])
    assert "30 of 100 cells of nucleolar read as homogeneous (30\u202f%)" in page.attributes("title")
    panels = page.by_class["panel"]
    assert [panel[:9] for panel in panels] == ["By cell M", "By specim", "Specimens"]


def test_specimens_stand_worst_first_and_wrong_ones_are_marked(page):
    table = words(page.by_class["specimens"][0])
    assert re.findall("s-wrong|s-tight|s-fine", table) == ["s-wrong", "s-tight", "s-fine"]
    assert "s-wronghomogeneous✕ nucleolar0.20010 of 50" in table
    assert page.by_class["wrong"] == ["✕ nucleolar"]
    assert "2 of 3 specimens read correctly" in page.text


def test_specimens_without_counts_are_shown_all_the_same(tmp_path):
    rows = [{"specimen": "s-empty", "pattern": "x", "prediction": "x", "num_cells": 0, "right": 0}, *SPECIMENS]
    table = words(write(tmp_path, make_section() | {"specimens": rows}, []).by_class["specimens"][0])
    assert table.endswith("s-emptyxx–0 of 0")


def test_without_specimen_ids_the_page_says_so_and_shows_cells(tmp_path):
    section = figures(CONFUSION, "cell", specimens=None) | {"specimen_leakage": True, "leakage_note": UNKNOWN}
    page = write(tmp_path, section, [make_cell(1, specimen=""), make_cell(2, truth=1, specimen="")])
    assert page.by_class["badge"] == [UNKNOWN]
    assert [words(tile)[:10] for tile in page.by_class["tile"]] == ["Cells, MCA", "Cells, ACA"]
    assert "300 cells ·" in page.text
    assert "specimens" not in page.by_class
    assert words(page.by_class["crop"][0]) == "c190 %"


@pytest.mark.parametrize(
    ("section", "badge"),
    [
        ({"specimen_leakage": True, "leakage_note": NOTE}, NOTE),
        ({"specimen_leakage": True}, "cells of one specimen are in train and test"),
        ({"specimen_leakage": False, "leakage_note": ""}, "no specimen on two sides"),
    ],
)
def test_leakage_is_said_in_the_words_of_the_protocol(tmp_path, section, badge):
    page = write(tmp_path, figures(CONFUSION, "cell") | section, [])
    assert page.by_class["badge"] == [badge]
    kinds = [tag["class"] for tag in page.tags("span") if (tag.get("class") or "").startswith("badge")]
    assert kinds == ["badge bad" if section["specimen_leakage"] else "badge ok"]
    assert (badge in page.by_class["chapter"][0]) == section["specimen_leakage"]


@pytest.mark.parametrize(
    ("protocol", "explained"),
    [
        ("contest", "the data set's own split"),
        ("holdout", "split by lists of ids"),
        ("kfold", "7-fold over specimens, fold 0 held out"),
        ("loso", "leave one specimen out, number 0 held out"),
        ("blocked", "7 contiguous blocks of ids in each pattern, block 0 held out"),
        ("random_cells", "7 parts of the cells drawn at random, part 0 held out"),
    ],
)
def test_protocols_are_explained_where_the_figures_do_not(tmp_path, protocol, explained):
    assert explained in write(tmp_path, figures(CONFUSION, "cell"), [], protocol).by_class["facts"][0]
    own = figures(CONFUSION, "cell") | {"protocol": "83 folds pooled"}
    assert explained not in write(tmp_path, own, [], protocol).by_class["facts"][0]


def test_a_few_right_cells_of_each_pattern_come_first(page):
    groups = [words(group) for group in page.by_class["cell-group"]]
    assert [re.split(r"c\d", group)[0] for group in groups[:3]] == ["homogeneous", "nucleolar", "nuclear membrane"]
    right = [tag["alt"] for tag in page.tags("img") if "homogeneous, read as homogeneous" in tag["alt"]]
    assert len(right) == cells.MOSAIC + cells.NUM_CORRECT_SHOWN
    assert {alt.split()[4] for alt in right[: cells.MOSAIC]} == {"s00,", "s01,", "s02,", "s03,"}  # of all specimens


def test_errors_stand_by_pair_with_the_most_frequent_confusion_first(page):
    groups = [words(group) for group in page.by_class["cell-group"]][3:]
    assert [group.split("c4")[0] for group in groups] == [
        "nucleolarread ashomogeneous2 of 30",
        "nucleolarread asnuclear membrane1 of 10",
        "homogeneousread asnuclear membrane3 of 8",
        "homogeneousread asnucleolar1 of 2",
    ]
    assert re.findall(r"c\d+", groups[2]) == ["c412", "c411", "c410"]  # the surest error first
    assert "7 of 51 cells shown" in page.text


def test_without_a_matrix_the_cells_shown_are_counted(tmp_path):
    shown = make_cells()
    path = write_report(
        tmp_path, metrics={}, layout=CellTask.layout, gallery={"test": shown}, environment={}, timings={}
    )
    page = Page(path.read_text())
    assert "Cells read wrongly 7 cells shown" in words(page.text)
    groups = [words(group) for group in page.by_class["cell-group"]]
    assert groups[3].startswith("homogeneousread asnuclear membrane3 cells")
    all_right = write_report(
        tmp_path, metrics={}, layout=CellTask.layout, gallery={"test": shown[:20]}, environment={}, timings={}
    )
    assert "Cells read wrongly none" in words(Page(all_right.read_text()).text)


def test_captions_and_alternative_texts_tell_the_cell(page):
    caption = next(text for text in page.by_class["crop"] if "c412" in text)
    assert words(caption) == "c412s0170 %"
    alt = next(tag["alt"] for tag in page.tags("img") if "c412" in tag["alt"])
    assert alt == ("cell c412 of specimen s01, intermediate: homogeneous, read as nuclear membrane (70\u202f%)")
    assert all(tag["alt"] for tag in page.tags("img"))


def test_every_reference_has_its_target_and_nothing_is_loaded(page):
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    assert {link[1:] for link in page.attributes("href")} <= set(ids)
    assert all(source.startswith("data:image/png;base64,") for source in page.attributes("src"))


def test_pictures_keep_their_pixels_and_fill_the_grey_range(page):
    shown = next(tag for tag in page.tags("img") if "c412" in tag["alt"])
    encoded = np.frombuffer(base64.b64decode(shown["src"].split(",")[1]), np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    assert image is not None
    assert image.shape == (70, 62)
    assert (shown["height"], shown["width"]) == ("70", "62")
    assert (image.min(), image.max()) == (0, 255)


@pytest.mark.parametrize(
    ("size", "expected"), [((70, 62), (70, 62)), ((500, 480), (96, 92)), ((40, 400), (10, 96)), ((1, 2000), (1, 96))]
)
def test_large_cells_shrink_and_small_ones_do_not_grow(size, expected):
    assert cells.shrink(np.zeros(size, np.uint8)).shape == expected


def test_order_of_the_cells_does_not_matter(tmp_path):
    shown = make_cells()
    pages = []
    for order in (shown, shown[::-1]):
        path = write_report(
            tmp_path,
            metrics={"test": make_section()},
            layout=CellTask.layout,
            gallery={"test": order},
            environment={},
            timings={},
        )
        pages.append(path.read_bytes())
    assert pages[0] == pages[1]


def test_150_noisy_cells_stay_under_3_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (150, 130, 130), np.uint8)
    shown = [
        CellItem(**{**vars(make_cell(i, truth=i % 3, read=i // 3 % 3)), "image": image})
        for i, image in enumerate(noise)
    ]
    path = write_report(
        tmp_path,
        metrics={"test": make_section()},
        layout=CellTask.layout,
        gallery={"test": shown},
        environment={},
        timings={},
    )
    assert path.stat().st_size < 3e6


def test_pooled_folds_need_no_gallery(tmp_path):
    page = write(tmp_path, make_section(), [])
    assert not page.tags("img")
    assert "gallery" not in page.by_class
    assert len(page.by_class["panel"]) == 3


def test_hostile_names_and_undefined_probabilities_do_no_harm(tmp_path):
    odd = CellItem(
        identifier=HOSTILE,
        specimen_id=HOSTILE,
        intensity=HOSTILE,
        truth=HOSTILE,
        prediction="b",
        probability=math.nan,
        image=np.zeros((60, 60), np.uint8),
    )
    rows = [{"specimen": HOSTILE, "pattern": HOSTILE, "prediction": HOSTILE}]
    section = {"examples": "cell", "specimens": rows, "leakage_note": HOSTILE, "specimen_leakage": True}
    page = write(tmp_path, section, [odd])
    assert len(page.tags("script")) == 1
    assert "probability unknown" in page.text
    assert page.by_class["badge"] == [HOSTILE]
    assert page.text.count(HOSTILE) >= 6
