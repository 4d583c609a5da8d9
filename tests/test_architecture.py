"""Imports go one way: a room stands on a floor and imports rooms of lower floors, or to its left on its own."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "hep2jax"

FLOORS = (
    ("errors", "files", "fingerprint", "background", "progress", "grey_levels", "metrics"),
    ("config", "config_files", "mesh", "stopping", "distributed", "remote"),
    ("data.tiles", "data.augment", "data.sets", "data.splits", "data.streams"),
    ("ops", "models", "fisher"),
    (
        "report",
        "perf.chips",
        "perf.advice",
        "specimens.voting",
        "specimens.classical",
        "specimens.nuclear_size",
        "specimens.texture",
    ),
    ("training.workdir", "training.environment", "training.timing", "training.packing", "training.optimizers"),
    (
        "training.goodput",
        "training.losses",
        "training.state",
        "training.fitted",
        "training.checkpoints",
        "training.steps",
        "training.restoring",
    ),
    ("tasks", "perf.model_flops"),
    (
        "training.calibrating",
        "training.evaluation",
        "training.outcome",
        "training.fit",
        "training.loop",
        "training.folds",
    ),
    ("specimens", "perf.aot", "perf.profiling"),
    ("api", "cli", "prediction", "handover"),
    ("predict", "view", "export", "main", "prepare", "__main__"),
)
"""From the lowest to the highest. A room is a module or a package, without those of its parts that are rooms."""

ROOMS = [room for floor in FLOORS for room in floor]
APART = {"models": ("data",), "report": ("data", "models"), "metrics": ("errors", "files", "progress")}
"""Rooms that know nothing of others though these stand below them."""
OPEN_TO_ALL = ("", "training", "perf", "data")  # packages that hold nothing themselves


def _files() -> list[pathlib.Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _module(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


MODULES = {_module(path) for path in _files()}


def _room(module: str) -> str:
    """The room that a module is in: the longest name that it begins with."""
    names = [room for room in ROOMS if module == room or module.startswith(f"{room}.")]
    return max(names, key=len, default=module)


def _imported(path: pathlib.Path) -> set[str]:
    """Modules of the package that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("hep2jax."):
            package = str(node.module)[len("hep2jax.") :]
            names = (f"{package}.{alias.name}".strip(".") for alias in node.names)
            found |= {name if name in MODULES else package for name in names}
        elif isinstance(node, ast.Import):
            found |= {a.name[len("hep2jax.") :] for a in node.names if a.name.startswith("hep2jax.")}
    return found


def test_every_module_is_in_a_room():
    assert {_room(module) for module in MODULES} - set(OPEN_TO_ALL) == set(ROOMS)


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_direction_of_imports(path: pathlib.Path):
    room = _room(_module(path))
    if room in OPEN_TO_ALL:
        return
    below = set(ROOMS[: ROOMS.index(room) + 1]) | set(OPEN_TO_ALL)
    rooms = {_room(module) for module in _imported(path)}
    assert rooms <= below, f"{room} may not import {rooms - below}"
    for forbidden in APART.get(room, ()):
        assert not {name for name in rooms if name.split(".")[0] == forbidden}, f"{room} may not import {forbidden}"


def test_builders_import_nothing_of_ours():
    for path in (ROOT / "tfds_builders").rglob("*.py"):
        assert not _imported(path), path


PURE = ("metrics", "ops", "models", "fisher", "specimens.texture", "specimens.voting", "training.losses")
PURE += ("training.optimizers", "training.packing", "training.steps")


@pytest.mark.parametrize("room", PURE)
def test_the_pure_rooms_do_no_io_and_know_no_process(room: str):
    files = [path for path in _files() if _room(_module(path)) == room]
    assert files
    for file in files:
        used = set()
        for node in ast.walk(ast.parse(file.read_text())):
            used |= {getattr(node, part, None) for part in ("id", "attr", "name", "module")}
        assert not used & {"open", "print", "process_index", "process_count", "logging"}, file
