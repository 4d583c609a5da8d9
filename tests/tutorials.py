"""Runs the commands of the tutorials in docs/, as they stand there, with networks and data of a few seconds."""

import pathlib
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence

from tests.conftest import REPOSITORY

TINY = [
    "--config.train.num_steps=2",
    "--config.train.global_batch_size=8",
    "--config.evaluation.batch_size=8",
    "--config.evaluation.dihedral=False",
]
TINY_FIELDS = [
    "--config.model.name=unet",
    "--config.model.width=0.01",
    "--config.data.crop_size=32",
    "--config.evaluation.tile_size=64",
    "--config.evaluation.tile_overlap=16",
]
_PATHS = r"output|workdir|segmenter|images|specimens|[\w.]*manual_dir"


def commands(page: str) -> list[list[str]]:
    """The words of the commands of a page in docs/, in order: those in its blocks without a language."""
    blocks = (REPOSITORY / "docs" / page).read_text().split("```")[1::2]
    lines = "".join(block for block in blocks if block.startswith("\n")).replace("\\\n", "").strip().splitlines()
    return [shlex.split(line.removeprefix(".venv/bin/")) for line in lines if line.startswith(".venv/bin/")]


def run(
    command: Callable[..., subprocess.CompletedProcess], words: list[str], place: pathlib.Path, tiny: Sequence[str]
) -> str:
    """The output of a command, run with its relative paths in `place` and, if it has a configuration, `tiny` flags."""
    module, *flags = words[2:] if words[0] == "python" else words
    flags = [re.sub(f"^(--(?:{_PATHS}))=", rf"\1={place}/", flag) for flag in flags]
    done = command(module, *flags, *(tiny if any(flag.startswith("--config=") for flag in flags) else ()))
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    return done.stdout
