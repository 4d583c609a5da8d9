"""Wheels for a GPU machine that has jax, flax, optax, orbax and PyTorch, and cannot reach a package registry.

    python -m scripts.fetch_wheels --output=DIR [--python=3.12]

There: `python3 -m pip install --no-index --no-deps --target SITE DIR/*.whl`, then the benchmark with SITE in
PYTHONPATH. The versions are those of constraints.txt.
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
"""What jax, flax, optax, orbax, PyTorch, OpenCV, SciPy and their needs do not bring."""
SOURCE_ONLY = ("promise",)
"""Published without wheels: they are built here, and are pure Python."""
_GLIBC = (17, 24, 27, 28, 31, 34)


def define_flags() -> None:
    """The command's own flags."""
    flags.DEFINE_string("output", "build/wheels", "Where the wheels go.")
    flags.DEFINE_string("python", "3.12", "Version of the machine's Python.")


def commands(versions: dict[str, str], output: pathlib.Path, python: str) -> list[list[str]]:
    """pip's command lines: one that downloads wheels for Linux on x86-64, one that builds the others."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in _GLIBC] + ["--platform=manylinux2014_x86_64"]
    target = ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *platforms]
    wanted, built = ([f"{name}=={versions[name]}" for name in names] for names in (PACKAGES, SOURCE_ONLY))
    return [
        [*pip, "download", "--no-deps", *target, f"--dest={output}", *wanted],
        [*pip, "wheel", "--no-deps", f"--wheel-dir={output}", *built],
    ]


def pinned(text: str) -> dict[str, str]:
    """Version of each package that constraints.txt pins for every Python."""
    return dict(re.findall(r"^([\w.\-]+)==([\w.]+)$", text, re.MULTILINE))


def main(argv: Sequence[str]) -> None:
    """Fetch, and say how many there are."""
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
