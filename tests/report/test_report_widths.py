"""The report in a browser, at the widths of a telephone, a tablet and a desk: nothing is cut off."""

import pathlib
import re
import subprocess

import numpy as np
import pytest

from hep2jax.report import write_report
from hep2jax.report.readings import ReadingRow, ReadingsPage
from hep2jax.tasks import calibration
from hep2jax.tasks.fields import FieldTask
from tests.browser import CHROMIUM
from tests.report import test_report

PATTERNS = ["homogeneous", "fine_speckled", "coarse_speckled", "nucleolar", "centromere", "nuclear_membrane", "golgi"]
FRAME = """<!doctype html><iframe src="{page}" style="width:{width}px;height:900px"></iframe><pre></pre><script>
document.querySelector("iframe").onload = ({{ target }}) => {{
  const page = target.contentDocument, wide = (box) => box.scrollWidth > box.clientWidth + 1;
  const boxes = [page.documentElement, ...page.querySelectorAll(".scroll, .tall, .filtered")];
  document.querySelector("pre").textContent = "measured " + boxes.length + " " +
    boxes.filter(wide).map((box) => box.textContent.slice(0, 40)).join("; ");
}};
</script>"""


def _figures(kind: str) -> dict:
    size = len(PATTERNS) + 1
    counts = [[213 if row == column else 17 for column in range(size)] for row in range(size)]
    names = [*PATTERNS, "cytoplasmic"]
    per_class = {name: {"recall": 0.612, "precision": 0.734, "support": 345} for name in names}
    specimens = [
        {"specimen": f"test-{name}-07", "pattern": name, "prediction": "coarse_speckled", "num_cells": 345, "right": 17}
        for name in names
    ]
    if kind == "labels":
        ranked = {name: {**row, "average_precision": 0.5, "f1": 0.6} for name, row in per_class.items()}
        return {"mAP": 0.5, "classes": names, "per_class": ranked}
    table = {"aca": 0.61, "mca": 0.61, "confusion": counts, "classes": names, "per_class": per_class}
    pixel = {"Dice": 0.93, "Dice_ci95": [0.91, 0.95], "SEG_instances": 0.52, "Dice_mean_per_image": 0.92}
    rest = {"specimens": specimens, "examples": "cell"} if kind == "cells" else {"pixel": pixel}
    return {**table, "specimen": {**table}, **rest}


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("kind", ["fields", "cells", "labels"])
def test_no_table_is_cut_off(kind: str, tmp_path: pathlib.Path):
    items = [test_report.make_item("a"), test_report.make_item("b", prediction=1)] if kind == "fields" else []
    figures = {"test": _figures(kind)}
    page = write_report(
        tmp_path,
        metrics=figures,
        layout=FieldTask.layout,
        gallery={"test": items},
        environment={},
        timings={"step": 1.0},
    )
    assert not _cut_off(page, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_no_table_of_readings_is_cut_off(tmp_path: pathlib.Path):
    """The verdicts are the longest texts of a row."""
    page = ReadingsPage(PATTERNS, one_pattern=True)
    for number, verdict in enumerate((calibration.UNCALIBRATED, calibration.FAINT, calibration.UNLIKE, "")):
        row = ReadingRow(
            name=f"/data/plate-7/specimen_{number:04d}.png",
            patterns=("nuclear_membrane",),
            probabilities={name: 1 / len(PATTERNS) for name in PATTERNS},
            facts={"cells": 120, "entropy (bits)": 2.807, "confidence": 0.912, "novelty": 86.64, "verdict": verdict},
            files={ending: f"specimen_{ending}.png" for ending in ("overlay", "classes", "cells")},
        )
        page.add(row, np.zeros((400, 500), np.uint8))
    path = tmp_path / "index.html"
    path.write_text(page.render("Readings", {"Network": "fcn"}))
    assert not _cut_off(path, tmp_path)


def _cut_off(page: pathlib.Path, tmp_path: pathlib.Path) -> dict[int, str]:
    """The beginnings of what is wider than its box, by the width of the window."""
    cut = {}
    for width in (420, 800, 1100, 1300):
        frame = tmp_path / f"{width}.html"
        frame.write_text(FRAME.format(page=page.as_uri(), width=width))
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [str(CHROMIUM), *flags, profile, "--virtual-time-budget=4000", frame.as_uri()]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        (found,) = re.findall(r"<pre>measured (\d+) (.*?)</pre>", shown, re.DOTALL)
        assert int(found[0]) > 1
        cut |= {width: found[1]} if found[1] else {}
    return cut
