"""`hep2jax export`: what it writes is read by a process that cannot import hep2jax."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import hep2jax

WITHOUT_HEP2JAX = """if True:
    import runpy, sys
    sys.modules["hep2jax"] = sys.modules["tfds_builders"] = None  # to import them fails
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def trained(command, cell_flags, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("export") / "w"
    done = command("hep2jax.main", *cell_flags, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(scope="module")
def exported(trained, command, tmp_path_factory):
    output = tmp_path_factory.mktemp("exported") / "new" / "out"
    done = command("hep2jax.export", f"--workdir={trained}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    return output


def _run(script: pathlib.Path, *arguments: str | pathlib.Path) -> str:
    """What a script prints that runs elsewhere, in a process without hep2jax."""
    line = [sys.executable, "-I", "-c", WITHOUT_HEP2JAX, str(script), *map(str, arguments)]
    done = subprocess.run(line, cwd=script.parent, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_process_without_hep2jax_says_what_hep2jax_says(trained, exported, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(exported, elsewhere)
    assert "largest difference to hep2jax" in _run(elsewhere / "run_stablehlo.py", "--check")
    image = np.load(exported / "test_image.npy")[0]
    np.save(tmp_path / "image.npy", image)
    _run(elsewhere / "run_stablehlo.py", tmp_path / "image.npy", tmp_path / "probabilities.npy")
    reading = hep2jax.load(trained)(image)
    description = json.loads((elsewhere / "io.json").read_text())
    assert description["channels"] == list(reading.probabilities)
    found, wanted = np.load(tmp_path / "probabilities.npy"), list(reading.probabilities.values())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=description["stablehlo"]["test"]["tolerance"])
    assert np.std(wanted) > 1e-3


def test_the_description_says_for_how_long_the_program_can_be_read(exported):
    compatibility = json.loads((exported / "io.json").read_text())["stablehlo"]
    assert compatibility["exported_on"] < compatibility["expires"]
    assert "six months" in compatibility["guarantee"]


def test_the_card_has_the_figures_of_the_run(trained, exported):
    card = (exported / "README.md").read_text()
    test = json.loads((trained / "report" / "metrics.json").read_text())["test"]
    for of, values in (("cells", test), ("specimens", test["specimen"])):
        low, high = values["mca_ci95"]
        assert f"| {of} | MCA | {values['mca']:.3f} | {low:.3f} to {high:.3f} |" in card
    assert f"ECE {test['calibration']['after']['ece']:.3f}" in card.replace("| ", "ECE ")
    for words in ("not a medical device", "It was trained on synthetic images", "no specimen on two sides", "AC-1"):
        assert words in card
    assert str(trained.parent) not in card


def test_a_run_that_was_not_evaluated_has_no_card(trained, command, tmp_path):
    unmeasured, output = tmp_path / "w", tmp_path / "o"
    shutil.copytree(trained, unmeasured, ignore=shutil.ignore_patterns("report"))
    flags = [f"--workdir={unmeasured}", f"--output={output}"]
    done = command("hep2jax.export", *flags)
    assert (done.returncode, "evaluate the network (hep2jax evaluate)" in done.stderr) == (2, True)
    assert not output.exists()


def test_wrong_use_is_one_line_and_writes_nothing(trained, exported, command, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "unfinished").mkdir()
    for name in ("config.json", "classes.json"):
        shutil.copyfile(trained / name, tmp_path / "unfinished" / name)
    cases = {
        ("--output=o",): "--workdir is missing",
        (f"--workdir={trained}",): "--output is missing",
        (f"--workdir={tmp_path}/none", f"--output={tmp_path}/o"): "holds no run",
        (f"--workdir={tmp_path}/unfinished", f"--output={tmp_path}/o"): "there is no finished checkpoint yet",
        (f"--workdir={trained}", f"--output={tmp_path}/file"): "cannot be written",
        (f"--workdir={trained}", "--output=/proc/o"): "cannot be written",
        (f"--workdir={trained}", f"--output={exported}"): "is not empty",
        (f"--workdir={trained}", f"--output={tmp_path}/o", "--formats=stablehlo,onx"): "must be one of stablehlo",
        (f"--workdir={trained}", f"--output={tmp_path}/o", "--formats="): "must be one of stablehlo",
        (f"--workdir={trained}", f"--output={tmp_path}/o", "--formats=onnx"): "--onnx_python=: name the Python",
    }
    for flags, words in cases.items():
        done = command("hep2jax.export", *flags)
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.strip().splitlines()
        assert words in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "unfinished"]
