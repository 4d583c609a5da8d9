"""Fills the results tables: runs missing rows, then writes every table with our results and published ones.

    python -m scripts.results --manual_dir=icpr2014_task1=DIR --manual_dir=icpr2012=DIR --split_lists=DIR \\
        [--only=PATTERN] [--write=RESULTS.md]

A table contains one data set under one protocol (see `scripts/tables.py`), and never mixes rows with and without
specimen leakage. Finished rows are not run again, and interrupted rows continue. Rows with missing data are reported
and left out. Each row shows the commit at which it was finished. Without --write, the tables are printed.
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

_RUNS = flags.DEFINE_string("runs", "runs/results", "Directory of the rows' work directories.")
_MANUAL = flags.DEFINE_multi_string(
    "manual_dir", [], "NAME=DIR: directory of the original files of a data set; repeat it for each set."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Directory of the prepared data sets.")
_LISTS = flags.DEFINE_string("split_lists", None, "Directory of the 64/16/20 lists, for the tables with this protocol.")
_ONLY = flags.DEFINE_string("only", "*", "Shell pattern of TABLE/ROW: run these rows only. All tables are written.")
_RUN = flags.DEFINE_bool("run", True, "Run missing rows; if false, write the tables from finished rows only.")
_WRITE = flags.DEFINE_string(
    "write", None, "A file to write the tables into, between lines <!-- table NAME --> and <!-- end NAME -->."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """The directories of data and results."""

    runs: pathlib.Path
    manual: dict[str, str] = dataclasses.field(default_factory=dict)
    """The directory of the original files of each available data set."""
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
            raise UsageError(
                f"--manual_dir={'='.join(pair)}: write NAME=DIR, where NAME is one of {', '.join(BUILDERS)}"
            )
    return {name: directory for name, directory in pairs}


def run_missing(tables: Sequence[Table], place: Place, only: str = "*") -> None:
    """Run each unfinished row with a TABLE/ROW that matches the shell pattern `only`, as a separate command."""
    for table, row in _rows(tables):
        directory, name = place.runs / table.name / row.name, f"{table.name}/{row.name}"
        if (directory / "report" / "metrics.json").exists() or not fnmatch.fnmatch(name, only):
            continue
        arguments = _average(table, row, place) if row.members else _training(table, row, place)
        if not arguments:
            missing = "not all of its members are finished" if row.members else "its data are not available"
            say(f"{name}: left out, {missing} (--manual_dir, --split_lists)")
            continue
        say(f"{name}: {arguments[0]}")
        command = [sys.executable, "-m", *arguments, f"--workdir={directory}"]
        if subprocess.run(command, cwd=ROOT).returncode:
            raise UsageError(f"{name}: the run failed; see its output above")
        (directory / _COMMIT).write_text(_commit())


def _commit() -> str:
    """The commit of the running code, with a star if there are uncommitted changes."""
    command = ["git", "describe", "--always", "--dirty=*", "--exclude=*"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


def _training(table: Table, row: Row, place: Place) -> list[str]:
    """The module that trains and evaluates the row, and its arguments; empty if the data are not available."""
    values = settings(table, row, place)
    if values is None:
        return []
    module = "scripts.cross_validate" if values["data.protocol"] in MANY_FOLDS else "hep2jax.main"
    file, colon, variant = row.config.partition(":")
    config = f"--config=configs/{file}.py{colon}{variant}"
    return [module, config, *(f"--config.{key}={value}" for key, value in values.items())]


def _average(table: Table, row: Row, place: Place) -> list[str]:
    """The module that averages the members of the row, and its arguments; empty if a member is not finished."""
    runs = [place.runs / table.name / member for member in row.members]
    finished = all((run / "report" / "metrics.json").exists() for run in runs)
    return ["scripts.average", *(f"--member={run}" for run in runs)] if finished else []


def _rows(tables: Sequence[Table]) -> Iterator[tuple[Table, Row]]:
    return ((table, row) for table in tables for row in table.rows)


def settings(table: Table, row: Row, place: Place) -> dict[str, Any] | None:
    """Configuration of a row by dotted keys; None if its data are not available."""
    values = {**table.common, **row.overrides}
    values = {k: v.format(runs=place.runs) if isinstance(v, str) else v for k, v in values.items()}
    paths = {}
    if values["data.name"] != "hep2_synthetic":
        paths["data.manual_dir"] = place.manual.get(values["data.name"])
    if values["data.protocol"] == "holdout":
        paths["data.split_lists"] = place.split_lists
    if None in paths.values():
        return None
    return values | paths | ({"data.data_dir": place.data_dir} if place.data_dir else {})


def render(table: Table, runs: pathlib.Path) -> str:
    """A table as Markdown. Raises UsageError if some of its finished rows have specimen leakage and others do not."""
    finished = [(row, runs / table.name / row.name) for row in table.rows]
    finished = [(row, path) for row, path in finished if (path / "report" / "metrics.json").exists()]
    sections = [_metrics(path, table.split) for _, path in finished]
    notes = {section["specimen_leakage"]: section["leakage_note"] for section in sections}
    if len(notes) > 1:
        raise UsageError(f"table {table.name}: some rows leak specimens and some do not; they belong in two tables")
    head = [f"### {table.title}", ""]
    if not sections:
        head += ["Not run yet.", ""]
    else:
        protocol = f"Protocol: {sections[0]['protocol']}; {next(iter(notes.values()))}. {table.note}".strip()
        head += [f"{protocol} {_intervals(sections)}", ""]
    if not sections and not table.published:
        return "\n".join(head).rstrip()
    lines = [
        "| method | parameters | ACA | MCA | ACA of specimens | MCA of specimens | minutes | commit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(row, path, section) for (row, path), section in zip(finished, sections, strict=True)]
    lines += [_published(entry) for entry in table.published]
    return "\n".join(head + lines)


def _intervals(sections: Sequence[dict[str, Any]]) -> str:
    """The methods of the confidence intervals in the table."""
    methods = {"cells": {section["ci_method"] for section in sections}}
    methods["specimens"] = {section["specimen"]["ci_method"] for section in sections if "specimen" in section}
    return " ".join(f"Intervals of {unit}: {' or '.join(sorted(names))}." for unit, names in methods.items() if names)


def _metrics(directory: pathlib.Path, split: str) -> dict[str, Any]:
    """The metrics of one split of a finished run."""
    metrics = json.loads((directory / "report" / "metrics.json").read_text())
    if split not in metrics:
        raise UsageError(f"{directory}: has no split '{split}', only {', '.join(metrics)}")
    return metrics[split]


def _line(row: Row, directory: pathlib.Path, section: dict[str, Any]) -> str:
    method = row.words or f"`{configs.load(directory / 'config.json').model.name}`"
    specimens = section.get("specimen", {})
    efforts = [_effort(directory.with_name(member)) for member in row.members or (row.name,)]
    parameters, minutes = map(sum, zip(*efforts, strict=True))
    cells = [_percent(section, "aca"), _percent(section, "mca"), _percent(specimens, "aca"), _percent(specimens, "mca")]
    return f"| {method} | {parameters:,} | {' | '.join(cells)} | {minutes:.0f} | {_finished_at(directory)} |"


def _finished_at(directory: pathlib.Path) -> str:
    path = directory / _COMMIT
    return path.read_text() if path.exists() else "unknown"


def _published(entry: Published) -> str:
    cells = [value or "–" for value in (entry.aca, entry.mca, entry.specimen_aca, entry.specimen_mca)]
    return f"| *{entry.method}* ({entry.source}; protocol: {entry.protocol}) | – | {' | '.join(cells)} | – | – |"


def _percent(section: dict[str, Any], name: str) -> str:
    value, interval = section.get(name), section.get(f"{name}_ci95")
    if value is None:
        return "–"
    return f"{100 * value:.2f}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")


def _effort(directory: pathlib.Path) -> tuple[int, float]:
    """Number of parameters of the network, and total duration of its runs in minutes."""
    finals = []
    for path in sorted(directory.glob("**/metrics.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        finals += [row for row in rows if row["split"] == "final"]
    return finals[0]["num_parameters"], sum(row["seconds"] for row in finals) / 60


if __name__ == "__main__":
    cli.run_app(main)
