import csv
import os
import pathlib
import subprocess
import sys

import cv2
import pytest

from hep2jax import prepare
from scripts import make_example_folder
from tests.tfds_builders import icpr2012_layout

ROOT = pathlib.Path(__file__).parents[2]


def start(*flags):
    """The command as a user types it."""
    command = [sys.executable, "-m", "scripts.prepare_data", *(str(flag) for flag in flags)]
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return icpr2012_layout.write_archive(
        tmp_path_factory.mktemp("archive"), numbers=(*icpr2012_layout.TRAIN, 4, 10)
    ).parent


def test_parallel_runs_build_once_and_say_what_was_built(tmp_path, archive):
    flags = ("--name=icpr2012", f"--manual_dir={archive}", f"--data_dir={tmp_path}", "--builder_config=cells")
    results = [finish(process) for process in (start(*flags), start(*flags))]
    for code, out, _ in results:
        assert code == 0
        assert out.splitlines() == [
            f"icpr2012/cells/1.0.0 in {tmp_path}/icpr2012/cells/1.0.0",
            "  train: 27 examples of 14 specimens",
            "  test: 4 examples of 2 specimens",
            "  missing: split test: 2 of 14 specimens found, missing 12, 13, 15, 16, 17, 19, 21, 22, 23, 24, 27, 28",
        ]
    said = [line for _, _, err in results for line in err.splitlines() if not line.startswith("waiting for another")]
    assert said == [f"preparing icpr2012/cells from {archive} into {tmp_path}"]


def test_wrong_use_is_one_line_and_exit_2(command, tmp_path):
    uses = {
        "needs a name": ((), "--name"),
        "unknown flag": (("--name=icpr2012", "--manualdir=x"), "manualdir"),
        "unknown set": (("--name=icpr",), "hep2_synthetic|icpr2012"),
        "stray argument": (("--name=icpr2012", "here"), "unexpected argument 'here'"),
        "no data": (("--name=icpr2012", f"--data_dir={tmp_path}"), "no manual_dir is given"),
        "wrong place": (("--name=icpr2012", f"--data_dir={tmp_path}", f"--manual_dir={tmp_path}"), str(tmp_path)),
    }
    for use, (flags, message) in uses.items():
        done = command("scripts.prepare_data", *flags)
        assert (use, done.returncode, done.stdout) == (use, 2, "")
        assert done.stderr.count("\n") == 1, done.stderr
        assert message in done.stderr


@pytest.fixture
def example(tmp_path):
    make_example_folder.write(tmp_path / "my folder", "specimens", specimens=2, side=256, seed=0)
    return tmp_path / "my folder"


def rewrite(folder, change):
    with (folder / "labels.csv").open(newline="") as file:
        rows = [change(number, row) for number, row in enumerate(csv.reader(file))]
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def test_a_folder_without_a_fault_is_described_and_nothing_is_kept(command, example, tmp_path):
    flags = ("--name=folder", f"--manual_dir={example}", f"--data_dir={tmp_path / 'data'}")
    done = command("scripts.prepare_data", *flags, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    options = f"--config=folder --config.data.manual_dir='{example}'"
    head, *table, sizes, objects, following, train, folds = done.stdout.splitlines()
    assert head == f"{example} as a folder of specimens: 6 images, no fault"
    assert table == [
        "  pattern           images  specimens  consensus codes",
        "  centromere             2          2  AC-3",
        "  homogeneous            2          2  AC-1",
        "  nuclear_membrane       2          2  AC-11, AC-12",
    ]
    assert (sizes, following) == ("  pixels of an image: 256 x 256 (6)", "nothing was written; next:")
    diameter = float(objects.split()[-2])
    assert objects.endswith(f"objects in 6 masks; typical diameter {diameter:.0f} pixels")
    options += f" --config.data.scale={24 / diameter:.2f} --config.evaluation.nuclear_diameter={diameter:.0f}"
    assert train == f"  hep2jax train {options} --workdir=runs/mine"
    assert folds == f"  python -m scripts.cross_validate {options} --workdir=runs/mine-folds"
    assert not (tmp_path / "data").exists()


def test_every_fault_is_a_line_and_the_exit_code_is_2(command, example):
    rewrite(example, lambda number, row: [f"images/{number}.png", *row[1:]] if number in (2, 5) else row)
    done = command("scripts.prepare_data", "--name=folder", f"--manual_dir={example}", "--check")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "hep2jax: labels.csv, row 3: there is no file 'images/2.png'",
        "hep2jax: labels.csv, row 6: there is no file 'images/5.png'",
        f"hep2jax: {example}: 2 faults as a folder of specimens; nothing was written",
    ]


def test_what_to_type_next_suits_the_folder(example):
    def following():
        return prepare._survey("folder", "", str(example)).splitlines()

    rewrite(example, lambda number, row: [*row[:3], row[3] if number in (0, 1, 3, 5) else "x" + row[2], *row[4:]])
    assert " --config.data.num_folds=" not in following()[-1]
    rewrite(example, lambda number, row: [*row[:3], row[3] if not number else row[2], *row[4:]])
    assert " --config.data.num_folds=3 " in following()[-1]
    rewrite(example, lambda number, row: [*row, ("train", "test")[number % 2] if number else "split"])
    assert following()[-1].startswith("  hep2jax train ")  # such a division has no folds
    assert " --config.data.protocol=contest " in following()[-1]
    assert "  column split: 3 test, 3 train" in following()
    for path in (example / "images").iterdir():
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(path), cv2.merge([grey // 9, grey, grey // 9]))
    rewrite(example, lambda number, row: [row[0], *row[2:]])
    *_, command = following()
    assert command.startswith("  hep2jax train --config=folder:images ")
    assert " --config.data.channel=green " in command
    assert 0.3 < float(command.split("scale=")[1].split()[0]) < 0.8  # measured without masks; 24 of 48 pixels


def test_cells_of_unknown_specimens_are_divided_at_random(tmp_path):
    make_example_folder.write(tmp_path / "cells", "cells", specimens=1, side=192, seed=0)
    rewrite(tmp_path / "cells", lambda _, row: row[:3])
    said = prepare._survey("folder", "cells", str(tmp_path / "cells")).splitlines()
    assert "--config=folder:cells" in said[-1]
    assert "--config.data.protocol=random_cells" in said[-1]


def test_the_check_of_an_owner_s_set_lists_what_is_missing_and_keeps_nothing(command, archive, tmp_path):
    flags = ("--name=icpr2012", f"--manual_dir={archive}", f"--data_dir={tmp_path / 'data'}", "--check")
    done = command("scripts.prepare_data", *flags)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "icpr2012/specimens/1.0.0, checked; nothing was kept"
    assert lines[-1].startswith("  missing: split test: 2 of 14 specimens found")
    assert not (tmp_path / "data").exists()
