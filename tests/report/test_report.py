"""The report: one well-formed, self-contained file that says what was measured and shows it rightly."""

import base64
import datetime
import html.parser
import json
import math
import pathlib
import re
import socket
import subprocess
import sys

import cv2
import numpy as np
import pytest

from hep2jax.config import Config, to_dict
from hep2jax.errors import UsageError
from hep2jax.prediction import outputs
from hep2jax.report import GalleryItem, charts, overlays, palette, provenance, write_report
from hep2jax.report.gallery import prepare
from hep2jax.report.history import read_history
from hep2jax.tasks.joint import JointTask
from hep2jax.training import environment

CLASSES = ["homogeneous", "fine_speckled", "nucleolar", "golgi", "cytoplasmic", "centromere"]
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
HOSTILE = "<script>alert(1)</script>\"'&{$title}"
WITHOUT_END_TAG = {"meta", "input", "img"}


class Page(html.parser.HTMLParser):
    """Reads a page, failing on tags that do not nest; keeps text, attributes and the text by class."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._open: list[tuple[str, dict]] = []
        self.elements: list[tuple[str, dict]] = []
        self.pieces: list[str] = []
        self.by_class: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        assert len({key for key, _ in attrs}) == len(attrs), f"attribute twice in {tag}"
        element = (tag, dict(attrs))
        self.elements.append(element)
        if tag in WITHOUT_END_TAG:
            return
        self._open.append(element)
        for name in (element[1].get("class") or "").split():
            self.by_class.setdefault(name, []).append("")

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1][0] == tag, f"</{tag}> closes <{self._open[-1][0]}>"
        self._open.pop()

    def handle_data(self, data):
        if self._open and self._open[-1][0] in ("script", "style"):
            return
        self.pieces.append(data)
        for _, attributes in self._open:
            for name in (attributes.get("class") or "").split():
                self.by_class[name][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.elements if name in attributes]

    def tags(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def make_item(
    specimen_id="s-0", *, field=0, truth=0, prediction=None, dice: float | None = 0.9, size=(90, 120), seed=0
) -> GalleryItem:
    """A field with three elliptic cells, an artefact, a cell that was missed and one that is not there."""
    height, width = size
    read = truth if prediction is None else prediction
    image = np.random.default_rng(seed).integers(0, 30, size).astype(np.uint8)
    classes, predicted = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    for k, (x, y) in enumerate(((0.2, 0.3), (0.5, 0.6), (0.8, 0.3))):
        ellipse = ((x * width, y * height), (0.16 * width, 0.2 * height), 20.0 * k)
        cv2.ellipse(image, ellipse, 150, -1)
        cv2.ellipse(classes, ellipse, truth + 1, -1)
        if k:
            cv2.ellipse(predicted, ellipse, read + 1, -1)
    cv2.circle(classes, (width // 10, height * 9 // 10), height // 12, overlays.VOID, -1)
    cv2.circle(predicted, (width * 9 // 10, height * 8 // 10), height // 12, read + 1, -1)
    return GalleryItem(
        specimen_id=specimen_id,
        field=field,
        truth=CLASSES[truth],
        prediction=CLASSES[read],
        intensity="positive",
        dice=dice,
        votes={name: 0.8 if i == read else 0.04 for i, name in enumerate(CLASSES)},
        image=image,
        truth_classes=classes,
        predicted_classes=predicted,
    )


def classification(num_per_class: int, wrong: int) -> dict:
    confusion = (np.eye(len(CLASSES), dtype=int) * num_per_class).tolist()
    confusion[0][0] -= wrong
    confusion[0][3] += wrong
    support = [sum(row) for row in confusion]
    right = sum(row[i] for i, row in enumerate(confusion))
    per_class = {
        name: {"recall": confusion[i][i] / support[i], "precision": 0.9 if i else math.nan, "support": support[i]}
        for i, name in enumerate(CLASSES)
    }
    return {
        "aca": right / sum(support),
        "mca": right / sum(support),
        "aca_ci95": [0.712, 0.987],
        "mca_ci95": None,
        "per_class": per_class,
        "confusion": confusion,
        "classes": CLASSES,
        "num_examples": sum(support),
        "num_specimens": 24,
        "ci_method": "Wilson's",
    }


def make_metrics() -> dict:
    pixel = {"Dice": 0.9384, "JA": 0.8839, "SE": 0.92, "SP": 0.98, "AC": 0.97, "SEG": 0.8123, "SEG_instances": None}
    pixel |= {"Dice_ci95": [0.9211, 0.9502], "pixel_accuracy": 0.97, "num_images": 48}
    pixel |= {"Dice_per_pattern": dict.fromkeys(CLASSES, 0.93), "classes": {"iou": dict.fromkeys(CLASSES, 0.71)}}
    return {
        "test": {
            **classification(8, wrong=3),
            "protocol": "contest",
            "specimen_leakage": False,
            "pixel": pixel,
            "specimen": {**classification(4, wrong=1), "num_undecided": 2},
            "baselines": {
                "otsu_watershed": {"pixel": {"Dice": 0.8517}},
                "otsu_log_watershed": {"pixel": {"Dice": 0.7311}},
            },
        }
    }


def make_workdir(path: pathlib.Path) -> pathlib.Path:
    path.mkdir()
    config = to_dict(Config())
    config["model"]["width"] = 0.125
    config["train"]["num_steps"] = 600
    (path / "config.json").write_text(json.dumps(config))
    lines = [
        {"step": s, "split": "train", "loss": 2 / s, "learning_rate": 1e-3, "images_per_second": 40.0,
         "data_wait_share": 0.01, "grad_norm": 1.0, "note": "x"}
        for s in range(20, 601, 20)
    ]  # fmt: skip
    lines += [{"step": s, "split": "validation", "Dice": 0.9, "specimen_mca": s / 600} for s in (200, 400, 600)]
    lines.append({"step": 600, "split": "final", "params_digest": DIGEST})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 620, "lo')
    return path


ENVIRONMENT = {"python": "3.11.9", "devices": ["cpu"], "packages": {"jax": "0.10.2"}}
TIMINGS = {"init": 20.0, "compile": 14.0, "data_wait": 2.0, "step": 230.0, "evaluation": 30.0, "total": 300.0}


def make_gallery() -> list[GalleryItem]:
    items = [make_item(f"s-{k}", truth=k % 6, dice=0.9 + k / 100, seed=k) for k in range(6)]
    return [*items, make_item("s-wrong", truth=0, prediction=3, dice=0.97), make_item("s-0", field=1, dice=None)]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> pathlib.Path:
    workdir = make_workdir(tmp_path_factory.mktemp("runs") / "fcn_demo")
    return write_report(
        workdir,
        metrics=make_metrics(),
        layout=JointTask.layout,
        gallery={"test": make_gallery()},
        environment=ENVIRONMENT,
        timings=TIMINGS,
    )


@pytest.fixture(scope="module")
def page(report) -> Page:
    return Page(report.read_text())


def test_page_lies_in_the_work_directory_and_nothing_else_is_left(report):
    assert report.parts[-3:] == ("fcn_demo", "report", "index.html")
    assert [path.name for path in report.parent.iterdir()] == ["index.html"]


def test_page_is_self_contained(report, page):
    text = report.read_text()
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert not page.attributes("src")
    assert not page.tags("link")
    assert len(page.tags("script")) == 1
    assert all(link.startswith(("#", "data:image/")) for link in page.attributes("href"))


def test_every_reference_has_its_target(page):
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    assert {link[1:] for link in page.attributes("href") if link.startswith("#")} <= set(ids)


def test_embedded_images_decode(page):
    sources = [attributes["href"] for attributes in page.tags("image")]
    assert len(sources) == 3 * 8  # image, prediction and errors of eight fields
    for source in sources[:3]:
        encoded = np.frombuffer(base64.b64decode(source.split(",")[1]), np.uint8)
        image = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
        assert image is not None
        assert image.shape[:2] == (90, 120)


def test_headline_says_what_was_run(page):
    for words in ("fcn_demo", "hep2_synthetic", "fcn, width × 0.125", "the data set's own split", "600 steps", DIGEST):
        assert words in page.text
    assert "no specimen on two sides" in page.text


def test_leakage_is_said(tmp_path):
    path = write_report(
        tmp_path,
        metrics={"test": {"specimen_leakage": True}},
        layout=JointTask.layout,
        gallery={},
        environment={},
        timings={},
    )
    assert "cells of one specimen are in train and test" in Page(path.read_text()).by_class["badge"][0]


def test_key_figures_stand_in_tiles_with_their_intervals(page):
    tiles = [" ".join(tile.split()) for tile in page.by_class["tile"]]
    assert len(tiles) == 7
    dice = next(tile for tile in tiles if "Dice" in tile)
    assert "0.938" in dice
    assert "0.921\u2009–\u20090.950".replace("\u2009", " ") in dice.replace("\u2009", " ")
    assert "Otsu + watershed: 0.852" in dice
    assert "no interval" in next(tile for tile in tiles if tile.startswith("Specimens, MCA"))


def test_confusion_matrix_shows_every_count(page):
    cells = page.by_class["cell"]
    assert len(cells) == 2 * len(CLASSES) ** 2  # by specimen and by image
    assert [int(cell) for cell in cells[:6]] == [3, 0, 0, 1, 0, 0]
    assert [int(cell) for cell in cells[36:42]] == [5, 0, 0, 3, 0, 0]
    titles = page.attributes("title")
    assert "3 of 8 images of homogeneous read as golgi (38\u202f%)" in titles


def test_patterns_carry_their_consensus_codes(page):
    names = dict(zip(CLASSES, ("AC-1", "AC-4", "AC-8 to AC-10", "AC-22", "AC-19 to AC-21", "AC-3"), strict=True))
    matrix_and_table = list(names.values()) * 2
    assert page.by_class["codes"] == matrix_and_table * 2 + list(names.values())  # specimens, images, pixels by pattern
    assert "ICAP AC-4; very dense ones count here, so AC-2 is not apart" in page.attributes("title")


def test_missing_figures_are_dashes(page):
    assert not re.search(r"\b(nan|None|null)\b", page.text)
    pixel_rows = page.by_class["panel"][2]
    assert "SEG, single cells–" in pixel_rows


def test_undecided_specimens_are_said(page):
    assert "2 specimens without a decision" in page.by_class["note"][0]


def test_gallery_puts_wrong_specimens_first(page):
    cards = [attributes for attributes in page.tags("article") if attributes["class"] == "card"]
    assert len(cards) == 7  # the eighth field is a second one of s-0
    assert [card["data-wrong"] for card in cards] == ["1"] + ["0"] * 6
    assert page.by_class["card"][0].startswith("s-wrong")
    assert "1 more field" in page.by_class["card"][1]


def test_configuration_marks_what_differs_from_the_default(page):
    changed = page.by_class["changed"]
    assert len(changed) == 2
    assert changed[0].startswith("width0.125default 1")
    assert changed[1].startswith("num_steps600default 400")


def test_curves_are_drawn_with_their_values(page):
    lines = page.tags("polyline")
    loss = lines[0]
    assert loss["data-steps"].split() == [str(step) for step in range(20, 601, 20)]
    assert float(loss["data-values"].split()[-1]) == pytest.approx(2 / 600, rel=1e-3)
    assert [title.split(" over")[0] for title in page.attributes("aria-label") if title.endswith("over steps")] == [
        "Loss",
        "Metrics on validation",
        "Learning rate",
        "Images per second",
        "Share of the time waiting for data",
        "Gradient norm",
    ]


def test_timings_account_for_the_total(page):
    rows = page.by_class["timing"]
    assert [row for row in rows if row.startswith("training steps")] == ["training steps3 min 50 s77\u202f%"]
    assert any(row.startswith("everything else4.0 s") for row in rows)
    assert rows[-1].startswith("total5 min 00 s")


def test_same_input_gives_the_same_bytes(report):
    again = write_report(
        report.parents[1],
        metrics=make_metrics(),
        layout=JointTask.layout,
        gallery={"test": make_gallery()},
        environment=ENVIRONMENT,
        timings=TIMINGS,
    )
    first = again.read_bytes()
    write_report(
        report.parents[1],
        metrics=make_metrics(),
        layout=JointTask.layout,
        gallery={"test": make_gallery()[::-1]},
        environment=ENVIRONMENT,
        timings=TIMINGS,
    )
    assert again.read_bytes() == first  # nor does the order of the fields matter


def test_hostile_text_stays_text(tmp_path):
    workdir = tmp_path / "run & <b>"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps({"data": {"name": HOSTILE, HOSTILE: 1}, HOSTILE: HOSTILE}))
    (workdir / "metrics.jsonl").write_text(json.dumps({"step": 1, "params_digest": HOSTILE}) + "\n")
    item = make_item(HOSTILE)
    metrics = {HOSTILE: {"confusion": [[1]], "classes": [HOSTILE], "protocol": HOSTILE, "pixel": {HOSTILE: 0.5}}}
    metrics[HOSTILE] |= {"notes": [HOSTILE], "specimen_leakage": True, "leakage_note": HOSTILE}
    path = write_report(
        workdir,
        metrics=metrics,
        layout=JointTask.layout,
        gallery={"test": [item]},
        environment={HOSTILE: HOSTILE},
        timings={HOSTILE: 1.0},
    )
    page = Page(path.read_text())
    assert len(page.tags("script")) == 1
    assert not page.tags("b") or all("class" not in tag for tag in page.tags("b"))
    assert page.by_class["card"][0].startswith(HOSTILE)
    assert page.text.count(HOSTILE) >= 8


def test_nothing_to_show_is_still_a_page(tmp_path):
    page = Page(
        write_report(tmp_path, metrics={}, layout=JointTask.layout, gallery={}, environment={}, timings={}).read_text()
    )
    assert "Nothing was evaluated" in page.text
    assert not page.tags("polyline")
    assert not page.by_class.get("chapter")


def test_sections_may_be_absent_or_undefined(tmp_path):
    metrics = {
        "validation": {"aca": math.nan, "mca": None, "per_class": {}, "pixel": None, "specimen": None},
        "test": {"confusion": [[0, 0], [1, 2]], "pixel": {"Dice": None, "Dice_ci95": [None, None]}},
        "train": {},
    }
    flat = make_item(truth=1, dice=math.nan)
    blank = np.zeros_like(flat.truth_classes)
    empty = GalleryItem(
        **{**vars(flat), "image": blank, "truth_classes": blank, "predicted_classes": blank, "votes": {}}
    )
    page = Page(
        write_report(
            tmp_path, metrics=metrics, layout=JointTask.layout, gallery={"test": [empty]}, environment={}, timings={}
        ).read_text()
    )
    assert [section["id"] for section in page.tags("section") if section["class"] == "chapter"] == [
        "test",
        "validation",
    ]
    assert "MCA – · ACA –" in page.text
    assert "class 1" in page.text
    assert "no foreground" in page.text
    assert "nan" not in page.text.split()


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "report" / "index.html").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"cannot write the report .*index\.html: .*; free space"):
        write_report(tmp_path, metrics={}, layout=JointTask.layout, gallery={}, environment={}, timings={})
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["index.html"]


def test_24_full_size_specimens_stay_under_8_megabytes(tmp_path):
    items = [make_item(f"s-{k}", truth=k % 6, size=(1040, 1388), seed=k) for k in range(24)]
    path = write_report(
        tmp_path, metrics={}, layout=JointTask.layout, gallery={"test": items}, environment={}, timings={}
    )
    assert path.stat().st_size < 8e6


# The parts


def test_history_takes_the_later_line_and_sets_aside_what_is_not_finite(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 10, "split": "train", "loss": 3.0}\n'
        "not json\n[1, 2]\n"
        '{"step": 20, "split": "train", "loss": NaN, "pixel": {"Dice": 0.5}, "flag": true}\n'
        '{"step": 10, "split": "train", "loss": 2.5}\n'
        '{"params_digest": "abc"}\n{"step": 3'
        "\n" + "[" * 100_000 + "\n" + "9" * 5000 + "\n" + '{"step": 30, "loss": 1' + "0" * 400 + "}"
    )
    history = read_history(path)
    assert history.series == {("train", "loss"): {10: 2.5}, ("train", "pixel.Dice"): {20: 0.5}}
    assert history.not_finite == {("train", "loss"): [20, 30]}
    assert (history.last_step, history.params_digest) == (30, "abc")


def test_a_loss_that_is_not_finite_is_said(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 20, "split": "train", "loss": NaN}\n')
    page = Page(
        write_report(tmp_path, metrics={}, layout=JointTask.layout, gallery={}, environment={}, timings={}).read_text()
    )
    assert page.by_class["warning"] == ["train: 1 value not finite"]


def test_long_curves_are_averaged_in_groups():
    points = [(float(step), float(step % 2)) for step in range(10_000)]
    thinned = charts.thin(points)
    assert len(thinned) == 295  # groups of 34
    assert thinned[0] == (16.5, 0.5)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.0, 3e-3), (0.37, 1.0), (20, 600), (-0.2, 7_300.0)])
def test_ticks_are_round_and_cover_the_values(bounds):
    ticks = charts.nice_ticks(*bounds)
    steps = np.diff(ticks)
    assert 2 <= len(ticks) <= 6
    assert np.allclose(steps, steps[0])
    assert f"{steps[0]:.0e}"[0] in "125"
    assert ticks[0] <= bounds[0] < ticks[0] + steps[0]
    assert ticks[-1] - steps[0] < bounds[1] <= ticks[-1]


def test_error_overlay_tells_the_kinds_of_error_apart():
    truth = np.array([[0, 0, 1, 1, 1, 255, 255]], np.uint8)
    predicted = np.array([[0, 2, 0, 1, 2, 0, 2]], np.uint8)
    overlay = overlays.error_overlay(truth, predicted)[0]
    colours = [None, palette.FALSE_POSITIVE, palette.FALSE_NEGATIVE, None, palette.WRONG_PATTERN, None, None]
    for pixel, colour in zip(overlay, colours, strict=True):
        expected = (*palette.rgb(colour)[::-1], overlays.ERROR_ALPHA) if colour else (0, 0, 0, 0)
        assert tuple(pixel) == expected


def test_prediction_overlay_fills_thinly_inside_an_opaque_edge():
    classes = np.zeros((9, 9), np.uint8)
    classes[2:7, 2:7] = 3
    overlay = overlays.prediction_overlay(classes)
    assert (overlay[..., 3] > 0).sum() == 25
    assert (overlay[..., 3] == 255).sum() == 16
    assert tuple(overlay[4, 4]) == (*palette.rgb(palette.pattern_colour(2))[::-1], overlays.FILL_ALPHA)


def test_contours_outline_each_class_and_mark_void():
    classes = np.zeros((20, 20), np.uint8)
    classes[2:8, 2:8] = 2
    classes[12:18, 12:18] = overlays.VOID
    pattern, void = overlays.truth_contours(classes)
    assert f'stroke="{palette.pattern_colour(1)}"' in pattern
    assert 'class="void"' in void
    corners = sorted(set(re.findall(r"[\d.]+ [\d.]+", pattern)))
    assert corners == ["2.5 2.5", "2.5 7.5", "7.5 2.5", "7.5 7.5"]


def test_contrast_is_stretched_and_an_even_image_is_black():
    ramp = np.tile(np.arange(40, 140, dtype=np.uint8), (50, 1))
    stretched = overlays.stretch_contrast(ramp)
    assert stretched.min() == 0
    assert stretched.max() == 255
    assert not overlays.stretch_contrast(np.full((8, 8), 77, np.uint8)).any()


def test_specimens_come_worst_first_and_large_images_shrink():
    items = [
        make_item("b", dice=0.8, size=(200, 960)),
        make_item("a", dice=0.9),
        make_item("c", prediction=2, dice=0.99),
        make_item("a", field=1, dice=0.7),
        make_item("d", dice=None),
    ]
    groups = prepare("test", items, width=480)
    order = [[(shown.item.specimen_id, shown.item.field) for shown in group] for group in groups]
    assert order == [[("c", 0)], [("a", 1), ("a", 0)], [("b", 0)], [("d", 0)]]
    assert [group[0].size for group in groups] == [(120, 90), (120, 90), (480, 100), (120, 90)]


def test_durations_read_as_people_say_them():
    assert [provenance.duration(s) for s in (0.042, 3.21, 725, 7380)] == ["42 ms", "3.2 s", "12 min 05 s", "2 h 03 min"]


def _oklab(linear: np.ndarray) -> np.ndarray:
    """Ottosson's OKLab of linear sRGB [..., 3]."""
    to_cone = [
        [0.41222147, 0.53633254, 0.05144599],
        [0.2119035, 0.68069955, 0.10739696],
        [0.08830246, 0.28171884, 0.6299787],
    ]
    to_lab = [
        [0.21045426, 0.79361779, -0.00407205],
        [1.9779985, -2.42859221, 0.45059371],
        [0.02590404, 0.78277177, -0.80867577],
    ]
    return np.cbrt(linear @ np.transpose(to_cone)) @ np.transpose(to_lab)


# Machado, Oliveira, Fernandes 2009, severity 1, on linear sRGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("vision", VISION)
def test_colours_of_patterns_and_errors_stay_apart(vision):
    errors = (palette.FALSE_POSITIVE, palette.FALSE_NEGATIVE, palette.WRONG_PATTERN)
    encoded = np.array([palette.rgb(colour) for colour in (*palette.PATTERNS, *errors)]) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = _oklab(np.clip(linear @ np.transpose(VISION[vision]), 0, 1))
    distance = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(len(seen), 1)]
    assert distance.min() > 0.11  # the palette of Okabe and Ito comes to 0.08 under deuteranopia


def test_no_two_of_many_patterns_have_the_same_colour():
    assert len({palette.pattern_colour(i) for i in range(32)} - set(palette.ERRORS)) == 32


def test_predictions_are_drawn_in_the_colours_of_the_report():
    mask = np.zeros((12, 8 * 12), np.uint8)
    for k in range(8):
        mask[2:10, 12 * k + 2 : 12 * k + 10] = k + 1
    drawn = outputs.overlay(np.zeros(mask.shape, np.uint8), mask).bgr()
    seen = [tuple(drawn[2, 12 * k + 5].tolist()) for k in range(8)]
    assert seen == [palette.rgb(palette.pattern_colour(k))[::-1] for k in range(8)]
    assert len(set(seen)) == 8


def test_a_prediction_without_cells_is_drawn_in_grey_and_one_of_many_patterns_in_colours():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    nothing = outputs.overlay(image, np.zeros_like(image)).bgr()
    assert (nothing == nothing[..., :1]).all()
    np.testing.assert_array_equal(nothing[..., 0], overlays.stretch_contrast(image))
    for pattern in (palette.NUM_DISTINCT - 1, palette.NUM_DISTINCT, 254):
        mask = np.zeros_like(image)
        mask[4:12, 4:12] = pattern + 1
        drawn = outputs.overlay(image, mask).bgr()
        assert tuple(drawn[4, 8].tolist()) == palette.bgr(palette.pattern_colour(pattern))
        assert np.abs(drawn[:4].astype(int) - nothing[:4]).max() <= 5  # fewer grey levels


@pytest.mark.parametrize(("shown", "said"), [(3, "3 of 24 specimens shown"), (24, "24 specimens shown")])
def test_the_page_says_how_many_specimens_it_shows(shown: int, said: str, tmp_path):
    items = [make_item(f"s-{k}", prediction=1 if k == 0 else None) for k in range(shown)]
    path = write_report(
        tmp_path, metrics=make_metrics(), layout=JointTask.layout, gallery={"test": items}, environment={}, timings={}
    )
    assert f"{said}, 1 of them read wrongly" in Page(path.read_text()).text


def test_the_report_says_when_where_and_with_which_code_it_was_made(tmp_path, monkeypatch):
    """The command line, the host, and the commit of this checkout where it is one."""
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3.11", "-m", "hep2jax.main", "--workdir=a b"])
    facts = environment.describe()
    page = Page(
        write_report(
            tmp_path, metrics={}, layout=JointTask.layout, gallery={}, environment=facts, timings={}
        ).read_text()
    )
    made = datetime.datetime.strptime(facts["date"], "%Y-%m-%d %H:%M UTC").replace(tzinfo=datetime.UTC)
    assert abs((datetime.datetime.now(datetime.UTC) - made).total_seconds()) < 120
    assert f"Measured {facts['date']}" in page.text
    assert facts["command"] == "python -m hep2jax.main '--workdir=a b'"
    for word in (facts["command"], facts["commit"], socket.gethostname(), facts["machine"]["processor"]):
        assert " ".join(word.split()) in page.text


def test_the_commit_is_that_of_the_checkout_and_tells_changes(tmp_path):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    file = tmp_path / "code" / "one.py"
    file.parent.mkdir()
    file.write_text("a = 1\n")
    assert environment.commit(file.parent).startswith("none")
    git("init")
    assert environment.commit(file.parent).startswith("none")  # a checkout around files that it does not hold
    git("add", ".")
    git("commit", "-m", "one")
    assert environment.commit(file.parent) == git("rev-parse", "HEAD")
    file.write_text("a = 2\n")
    assert environment.commit(file.parent) == f"{git('rev-parse', 'HEAD')}, with changes"


def test_grades_of_intensity_carry_no_patterns_colour(tmp_path):
    grades = {**classification(4, wrong=1), "classes": ["intermediate", "positive"], "confusion": [[3, 1], [0, 4]]}
    grades["per_class"] = {name: {"recall": 0.9, "support": 4} for name in grades["classes"]}
    path = write_report(
        tmp_path,
        metrics={"test": {"intensity": grades}},
        layout=JointTask.layout,
        gallery={},
        environment={},
        timings={},
    )
    text = path.read_text()
    assert "Intensity" in Page(text).text
    assert 'class="swatch"' not in text
