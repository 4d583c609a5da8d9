"""Fills the results tables: runs what is missing, then writes every table with the published figures beside ours.

    python -m scripts.results --manual_dir=icpr2014_task1=DIR --manual_dir=icpr2012=DIR --split_lists=DIR \\
        [--only=PATTERN] [--write=RESULTS.md]

A table is one data set under one protocol (`scripts/tables.py` lists them): rows that leak specimens and rows that do
not never stand in one table. A finished row is not run again, an interrupted one goes on where it stopped. Rows whose
data are not at hand are named and left out. Each row carries the commit that it was finished at. Without --write the
tables are printed.
"""

import dataclasses
import fnmatch
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from hep2jax import cli
from hep2jax import config as configs
from hep2jax.errors import UsageError
from hep2jax.progress import say
from scripts.documents import write
from scripts.tables import TABLES, Published, Row, Table
from tfds_builders import BUILDERS

ROOT = pathlib.Path(__file__).resolve().parents[1]
_COMMIT = "commit.txt"
MANY_FOLDS = ("kfold", "loso", "blocked", "random_cells")

_RUNS = flags.DEFINE_string("runs", "runs/results", "Where the rows' work directories live.")
_MANUAL = flags.DEFINE_multi_string("manual_dir", [], "NAME=DIR: the owner's directory of a data set; once a set.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where prepared sets are kept.")
_LISTS = flags.DEFINE_string("split_lists", None, "Folder of the 64/16/20 lists, for the tables of that protocol.")
_ONLY = flags.DEFINE_string("only", "*", "Shell pattern over TABLE/ROW: run these only. Every table is written.")
_RUN = flags.DEFINE_bool("run", True, "False: write the tables from what is finished.")
_WRITE = flags.DEFINE_string("write", None, "A file with the lines <!-- table NAME --> and <!-- end NAME -->.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where data and results are."""

    runs: pathlib.Path
    manual: dict[str, str] = dataclasses.field(default_factory=dict)
    """The owner's directory of each data set at hand."""
    data_dir: str | None = None
    split_lists: str | None = None


def main(argv: Sequence[str]) -> None:
    """Run the missing rows, then write the tables."""
    del argv
    place = Place(
        runs=pathlib.Path(_RUNS.value).absolute(),
        manual=_manual_dirs(),
        data_dir=_DATA_DIR.value,
        split_lists=_LISTS.value,
    )
    if _RUN.value:
        run_missing(TABLES, place, _ONLY.value)
    texts = {table.name: render(table, place.runs) for table in TABLES}
    if _WRITE.value:
        write(pathlib.Path(_WRITE.value), texts)
    else:
        print("\n\n".join(texts.values()))


def _manual_dirs() -> dict[str, str]:
    pairs = [text.split("=", 1) for text in _MANUAL.value]
    for pair in pairs:
        if len(pair) != 2 or pair[0] not in BUILDERS:
            raise UsageError(f"--manual_dir={'='.join(pair)}: write NAME=DIR with NAME of {', '.join(BUILDERS)}")
    return {name: directory for name, directory in pairs}


def run_missing(tables: Sequence[Table], place: Place, only: str = "*") -> None:
    """Run each unfinished row whose TABLE/ROW matches the shell pattern `only`, as a command of its own."""
    for table, row in _rows(tables):
        directory, name = place.runs / table.name / row.name, f"{table.name}/{row.name}"
        if (directory / "report" / "metrics.json").exists() or not fnmatch.fnmatch(name, only):
            continue
        arguments = _average(table, row, place) if row.members else _training(table, row, place)
        if not arguments:
            missing = "not all that it averages is finished" if row.members else "its data are not at hand"
            say(f"{name}: left out, {missing} (--manual_dir, --split_lists)")
            continue
        say(f"{name}: {arguments[0]}")
        line = [sys.executable, "-m", *arguments, f"--workdir={directory}"]
        if subprocess.run(line, cwd=ROOT).returncode:
            raise UsageError(f"{name}: the run failed; its last words stand above")
        (directory / _COMMIT).write_text(_commit())


def _commit() -> str:
    """Of the code that runs; with a star where it was changed since."""
    line = ["git", "describe", "--always", "--dirty=*", "--exclude=*"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def _training(table: Table, row: Row, place: Place) -> list[str]:
    """The module that trains and measures the row, and its arguments; none where the data are not at hand."""
    values = settings(table, row, place)
    if values is None:
        return []
    module = "scripts.cross_validate" if values["data.protocol"] in MANY_FOLDS else "hep2jax.main"
    file, colon, variant = row.config.partition(":")
    config = f"--config=configs/{file}.py{colon}{variant}"
    return [module, config, *(f"--config.{key}={value}" for key, value in values.items())]


def _average(table: Table, row: Row, place: Place) -> list[str]:
    """The module that averages the row's members, and its arguments; none where a member is not finished."""
    runs = [place.runs / table.name / member for member in row.members]
    finished = all((run / "report" / "metrics.json").exists() for run in runs)
    return ["scripts.average", *(f"--member={run}" for run in runs)] if finished else []


def _rows(tables: Sequence[Table]) -> Iterator[tuple[Table, Row]]:
    return ((table, row) for table in tables for row in table.rows)


def settings(table: Table, row: Row, place: Place) -> dict[str, Any] | None:
    """Dotted keys of a row's run; None where its data are not at hand."""
    values = {**table.common, **row.overrides}
    values = {k: v.format(runs=place.runs) if isinstance(v, str) else v for k, v in values.items()}
    needed = {}
    if values["data.name"] != "hep2_synthetic":
        needed["data.manual_dir"] = place.manual.get(values["data.name"])
    if values["data.protocol"] == "holdout":
        needed["data.split_lists"] = place.split_lists
    if None in needed.values():
        return None
    return values | needed | ({"data.data_dir": place.data_dir} if place.data_dir else {})


def render(table: Table, runs: pathlib.Path) -> str:
    """A table as Markdown. Raises UsageError where its finished rows do not agree on whether specimens leak."""
    finished = [(row, runs / table.name / row.name) for row in table.rows]
    finished = [(row, path) for row, path in finished if (path / "report" / "metrics.json").exists()]
    figures = [_figures(path, table.side) for _, path in finished]
    notes = {section["specimen_leakage"]: section["leakage_note"] for section in figures}
    if len(notes) > 1:
        raise UsageError(f"table {table.name}: some rows leak specimens and some do not; they belong in two tables")
    head = [f"### {table.title}", ""]
    if not figures:
        head += ["Not run yet.", ""]
    else:
        said = f"Protocol: {figures[0]['protocol']}; {next(iter(notes.values()))}. {table.note}".strip()
        head += [f"{said} {_intervals(figures)}", ""]
    if not figures and not table.published:
        return "\n".join(head).rstrip()
    lines = [
        "| method | parameters | ACA | MCA | ACA of specimens | MCA of specimens | minutes | commit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(row, path, section) for (row, path), section in zip(finished, figures, strict=True)]
    lines += [_published(entry) for entry in table.published]
    return "\n".join(head + lines)


def _intervals(figures: Sequence[dict[str, Any]]) -> str:
    """Which intervals stand in the table."""
    methods = {"cells": {own["ci_method"] for own in figures}}
    methods["specimens"] = {own["specimen"]["ci_method"] for own in figures if "specimen" in own}
    return " ".join(f"Intervals of {unit}: {' or '.join(sorted(own))}." for unit, own in methods.items() if own)


def _figures(directory: pathlib.Path, side: str) -> dict[str, Any]:
    sections = json.loads((directory / "report" / "metrics.json").read_text())
    if side not in sections:
        raise UsageError(f"{directory}: has no side '{side}', only {', '.join(sections)}")
    return sections[side]


def _line(row: Row, directory: pathlib.Path, section: dict[str, Any]) -> str:
    words = row.words or f"`{configs.load(directory / 'config.json').model.name}`"
    whole = section.get("specimen", {})
    efforts = [_effort(directory.with_name(member)) for member in row.members or (row.name,)]
    parameters, minutes = map(sum, zip(*efforts, strict=True))
    cells = [_percent(section, "aca"), _percent(section, "mca"), _percent(whole, "aca"), _percent(whole, "mca")]
    return f"| {words} | {parameters:,} | {' | '.join(cells)} | {minutes:.0f} | {_finished_at(directory)} |"


def _finished_at(directory: pathlib.Path) -> str:
    path = directory / _COMMIT
    return path.read_text() if path.exists() else "unknown"


def _published(entry: Published) -> str:
    cells = [figure or "–" for figure in (entry.aca, entry.mca, entry.specimen_aca, entry.specimen_mca)]
    return f"| *{entry.method}* ({entry.source}; protocol: {entry.protocol}) | – | {' | '.join(cells)} | – | – |"


def _percent(section: dict[str, Any], name: str) -> str:
    value, interval = section.get(name), section.get(f"{name}_ci95")
    if value is None:
        return "–"
    return f"{100 * value:.2f}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")


def _effort(directory: pathlib.Path) -> tuple[int, float]:
    """Parameters of the network and minutes of all its runs."""
    finals = []
    for path in sorted(directory.glob("**/metrics.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        finals += [row for row in rows if row["split"] == "final"]
    return finals[0]["num_parameters"], sum(row["seconds"] for row in finals) / 60


if __name__ == "__main__":
    cli.run_app(main)
