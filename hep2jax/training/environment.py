"""The environment of a run: its date, command and commit, the machine, and the versions of the packages."""

import datetime
import os
import pathlib
import platform
import shlex
import socket
import subprocess
import sys
from importlib import metadata as packages
from typing import Any

import jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy", "hep2jax")


def describe() -> dict[str, Any]:
    """The environment of this process as nested dictionaries, ready for JSON."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "commit": commit(pathlib.Path(__file__).parent),
        "python": platform.python_version(),
        "machine": {
            "host": socket.gethostname(),
            "system": platform.system(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
        "devices": [str(device.device_kind) for device in jax.devices()],
        "backend": jax.default_backend(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def version(name: str) -> str:
    """The version of a package; `not installed` for one that only lies on the path, as hep2jax itself may."""
    try:
        return packages.version(name)
    except packages.PackageNotFoundError:
        return "not installed"


def commit(folder: pathlib.Path) -> str:
    """The git commit of the folder's files, with a note if tracked files differ; `none: …` outside a checkout."""
    revision = _git(folder, "ls-files", "--error-unmatch", ".") and _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{revision}{', with changes' if changed else ''}" if revision else "none: not in a git checkout"


def _git(folder: pathlib.Path, *arguments: str) -> str:
    """The output of a git command; empty if git is not installed or there is no checkout."""
    try:
        completed = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return completed.stdout.strip() if completed.returncode == 0 else ""


def _processor() -> str:
    """The name of the processor's model if Linux reports it, else the architecture."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
