"""What a run was made with: when, by which command and code, on which machine, with which versions."""

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
    """Nested facts for a report, ready for JSON."""
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
        "packages": {name: packages.version(name) for name in _PACKAGES},
    }


def commit(folder: pathlib.Path) -> str:
    """The git commit that holds the folder's files, and whether tracked files differ from it; `none` without one."""
    found = _git(folder, "ls-files", "--error-unmatch", ".") and _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{found}{', with changes' if changed else ''}" if found else "none: not in a git checkout"


def _git(folder: pathlib.Path, *arguments: str) -> str:
    """What git prints; empty where there is no git or no checkout."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    """The model's name, where Linux tells it; else the architecture."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
