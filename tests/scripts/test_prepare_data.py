import os
import pathlib
import subprocess
import sys

import pytest

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
