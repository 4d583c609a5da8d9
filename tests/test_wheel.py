"""What a wheel of the project holds, and that it works where nothing else of the project is."""

import os
import pathlib
import subprocess
import sys

import pytest

import tfds_builders
from tests.conftest import REPOSITORY

CONFIGURATIONS = sorted(path.name for path in (REPOSITORY / "configs").glob("*.py"))


def _call(*command: str | pathlib.Path, cwd: pathlib.Path, code: int = 0, **environment: str) -> str:
    """What a command prints, which must end with that exit code."""
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=settings, capture_output=True, text=True, timeout=900)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_wheel_would_ship_packages_of_specific_names_and_every_configuration(tmp_path):
    library = tmp_path / "lib"
    build = ("egg_info", "--egg-base", tmp_path, "build_py", "--build-lib", library)
    _call(sys.executable, "setup.py", "--quiet", *build, cwd=REPOSITORY)
    assert sorted(path.name for path in library.iterdir()) == ["hep2jax", "tfds_builders"]
    shipped = {str(path.relative_to(library)) for path in library.rglob("*") if path.is_file()}
    code = {path for room in ("hep2jax", "tfds_builders") for path in (REPOSITORY / room).rglob("*.py")}
    assert {str(path.relative_to(REPOSITORY)) for path in code} <= shipped
    assert sorted(path.name for path in (library / "hep2jax" / "configs").iterdir()) == CONFIGURATIONS
    assert {f"hep2jax/report/{name}" for name in ("page.html", "style.css", "theme.css", "script.js")} <= shipped
    assert {f"hep2jax/view/{name}" for name in ("page.html", "page.css", "page.js")} <= shipped
    assert {f"tfds_builders/{name}/CITATIONS.bib" for name in tfds_builders.BUILDERS} <= shipped


@pytest.mark.slow
def test_the_installed_wheel_trains_by_name_in_an_empty_folder(tmp_path, data_dir, tiny_flags):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    source = tmp_path / "source"
    source.mkdir()
    files = _call("git", "ls-files", "-co", "--exclude-standard", cwd=REPOSITORY).splitlines()
    for name in files:  # the build writes beside the sources
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((REPOSITORY / name).read_bytes())
    install = ("install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", site, source)
    _call(sys.executable, "-m", "pip", *install, cwd=empty)
    command, environment = site / "bin" / "hep2jax", {"PYTHONPATH": str(site)}
    flags = ["--config=unet", "--config.train.num_steps=2", *tiny_flags[1:]]
    said = _call(command, "train", *flags, cwd=empty, **environment)
    assert "params_digest" in said
    assert (empty / "runs" / "unet" / "report" / "index.html").is_file()
    assert "continuing at step 2 of 2" in _call(command, "train", *flags, cwd=empty, **environment)
    assert "checkpoint of step 2" in _call(command, "evaluate", *flags, cwd=empty, **environment)
    assert "no such file" in _call(command, "train", "--config=unett", cwd=empty, code=2, **environment)
    program = """if True:
        import pathlib, sys
        import hep2jax
        for name in sys.argv[1:]:
            hep2jax.load_config(pathlib.Path(name).stem)
        hep2jax.load("runs/unet")
        print(hep2jax.__file__)
    """
    names = [name for name in CONFIGURATIONS if not name.startswith("_")]
    assert str(site) in _call(sys.executable, "-c", program, *names, cwd=empty, **environment)
    (empty / "unet.py").write_text(
        "from hep2jax.configs import mil\n\n\ndef get_config(name):\n    return mil.get_config()\n"
    )
    program = "import hep2jax; print(hep2jax.load_config('unet:any').model.name)"
    assert _call(sys.executable, "-c", program, cwd=empty, **environment) == "mil\n"
