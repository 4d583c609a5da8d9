"""Fetches wheels for a GPU machine that has jax, flax, optax, orbax and PyTorch, but no access to a package registry.

    python -m scripts.fetch_wheels --output=DIR [--python=3.12]

On the GPU machine, run `python3 -m pip install --no-index --no-deps --target SITE DIR/*.whl`, then the benchmark with
SITE in PYTHONPATH. The versions are those of constraints.txt.
"""

import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence

from absl import flags

from hep2jax import cli

PACKAGES = (
    "array-record",
    "dm-tree",
    "docstring-parser",
    "grain",
    "googleapis-common-protos",
    "imagecodecs",
    "immutabledict",
    "importlib-resources",
    "ml-collections",
    "portpicker",
    "simple-parsing",
    "tensorboardx",
    "tensorflow-datasets",
    "tensorflow-metadata",
    "termcolor",
    "toml",
)
"""Required packages that are not dependencies of jax, flax, optax, orbax, PyTorch, OpenCV or SciPy."""
SOURCE_ONLY = ("promise",)
"""Pure Python packages that are published without wheels; the wheels are built locally."""
_GLIBC = (17, 24, 27, 28, 31, 34)


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_string("output", "build/wheels", "Directory for the wheels.")
    flags.DEFINE_string("python", "3.12", "Python version of the GPU machine.")


def commands(versions: dict[str, str], output: pathlib.Path, python: str) -> list[list[str]]:
    """The command lines of pip: one downloads wheels for Linux on x86-64, the other builds the remaining wheels."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in _GLIBC] + ["--platform=manylinux2014_x86_64"]
    target = ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *platforms]
    downloaded, built = ([f"{name}=={versions[name]}" for name in names] for names in (PACKAGES, SOURCE_ONLY))
    return [
        [*pip, "download", "--no-deps", *target, f"--dest={output}", *downloaded],
        [*pip, "wheel", "--no-deps", f"--wheel-dir={output}", *built],
    ]


def pinned(text: str) -> dict[str, str]:
    """The version of each package that constraints.txt pins for all Python versions."""
    return dict(re.findall(r"^([\w.\-]+)==([\w.]+)$", text, re.MULTILINE))


def main(argv: Sequence[str]) -> None:
    """Fetch the wheels, then print their number and size."""
    del argv
    output = pathlib.Path(flags.FLAGS.output)
    output.mkdir(parents=True, exist_ok=True)
    constraints = pathlib.Path(__file__).resolve().parents[1] / "constraints.txt"
    for command in commands(pinned(constraints.read_text()), output, flags.FLAGS.python):
        subprocess.run(command, check=True)
    wheels = sorted(output.glob("*.whl"))
    megabytes = sum(path.stat().st_size for path in wheels) / 1e6
    print(f"{len(wheels)} wheels, {megabytes:.0f} MB, in {output}")


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
