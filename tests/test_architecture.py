"""Imports go one way: a room may import only the rooms named here."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

ALLOWED = {
    "errors": set(),
    "environment": set(),
    "fingerprint": set(),
    "config": {"errors"},
    "mesh": {"errors"},
    "intervals": set(),
    "metrics": {"intervals"},
    "multilabel": {"intervals"},
    "specimen": set(),
    "classical": {"metrics"},
    "texture": set(),
    "models": {"config", "errors", "ops"},
    "ops": set(),
    "losses": {"config", "models"},
    "optimizers": {"config"},
    "packing": set(),
    "chips": set(),
    "aot": {
        "chips",
        "config",
        "errors",
        "mesh",
        "model_flops",
        "models",
        "ops",
        "optimizers",
        "packing",
        "progress",
        "report",
        "state",
        "steps",
        "tasks",
        "workdir",
    },
    "timing": {"chips"},
    "progress": set(),
    "data": {"config", "errors", "fingerprint", "mesh"},
    "report": {"config", "errors"},
    "workdir": {"config", "errors"},
    "state": {"config", "models"},
    "features": {
        "config",
        "data",
        "errors",
        "evaluation",
        "mesh",
        "models",
        "progress",
        "state",
        "steps",
        "tasks",
        "workdir",
    },
    "cell_readers": {"errors", "features", "tasks"},
    "steps": {"config", "losses", "models", "ops", "optimizers", "packing", "state"},
    "model_flops": {"config", "ops", "optimizers", "packing", "state", "steps"},
    "tasks": {
        "classical",
        "config",
        "data",
        "fingerprint",
        "mesh",
        "metrics",
        "models",
        "multilabel",
        "report",
        "specimen",
        "state",
        "steps",
    },
    "checkpoints": {"config", "errors", "packing", "state"},
    "config_files": {"config", "errors"},
    "cli": {"config", "config_files", "errors", "models"},
}
ENTRIES = {
    "evaluation",
    "training",
    "profiling",
    "folds",
    "systems",
    "readers",
    "api",
    "predict",
    "main",
    "prepare",
    "__main__",
}  # may import any room, and each other in this order


def _imported_rooms(path: pathlib.Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "hep2jax":
            parts = node.module.split(".")
            rooms |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            rooms |= {a.name.split(".")[1] for a in node.names if a.name.startswith("hep2jax.")}
    return rooms - {"__version__"}


def _files() -> list[pathlib.Path]:
    return sorted((ROOT / "hep2jax").rglob("*.py"))


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_direction_of_imports(path: pathlib.Path):
    room = path.relative_to(ROOT / "hep2jax").parts[0].removesuffix(".py")
    rooms = _imported_rooms(path) - {room}
    if room in ENTRIES:
        order = ["evaluation", "training", "profiling", "folds", "systems", "readers", "api"]
        order += ["predict", "main", "prepare", "__main__"]
        later = set(order[order.index(room) + 1 :])
        assert not rooms & later
    elif room != "__init__":
        assert rooms <= ALLOWED[room], f"{room} may not import {rooms - ALLOWED[room]}"


def test_builders_import_nothing_of_ours():
    for path in (ROOT / "tfds_builders").rglob("*.py"):
        assert not _imported_rooms(path), path


@pytest.mark.parametrize(
    "room",
    ["steps", "losses", "intervals", "metrics", "multilabel", "optimizers", "packing", "models", "ops", "texture"],
)
def test_the_pure_rooms_do_no_io_and_know_no_process(room: str):
    path = ROOT / "hep2jax" / room
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
        text = file.read_text()
        for word in ("open(", "print(", "process_index", "process_count", "logging"):
            assert word not in text, f"{file}: {word}"
