import json
import pathlib
import re

import pytest

from hep2jax import config as configs
from hep2jax import config_files, tasks
from hep2jax.config import Config
from hep2jax.errors import UsageError
from scripts import results
from scripts.results import Place
from scripts.tables import TABLES, Published, Row, Table

TABLE = Table(
    name="made_up",
    title="A made-up table",
    split="test",
    common={"data.name": "hep2_synthetic", "data.protocol": "kfold"},
    rows=(Row(name="first", config="cnn"), Row(name="second", config="cnn", words="`gao`, wider")),
    published=(Published(method="Somebody 2015", source="abstract", protocol="cells at random", mca="87.1"),),
)


def _finish(directory: pathlib.Path, *, leaks: bool = False, aca: float = 0.5) -> None:
    """A finished work directory with two folds."""
    section = {
        "aca": aca,
        "aca_ci95": [aca - 0.1, aca + 0.1],
        "mca": None,
        "mca_ci95": None,
        "protocol": "kfold, 2 folds pooled",
        "specimen_leakage": leaks,
        "leakage_note": "they leak" if leaks else "no specimen on two sides",
        "ci_method": "by the spread of specimens",
        "specimen": {"aca": 0.75, "aca_ci95": None, "mca": 0.7, "mca_ci95": None, "ci_method": "by trials"},
    }
    (directory / "report").mkdir(parents=True)
    (directory / "report" / "metrics.json").write_text(json.dumps({"test": section}))
    configs.save(Config(), directory / "config.json")
    for fold in ("fold-00", "fold-01"):
        (directory / fold).mkdir()
        rows = [{"step": 1, "split": "train"}, {"split": "final", "num_parameters": 1234, "seconds": 90.0}]
        (directory / fold / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_table_has_a_line_for_each_finished_row_and_each_published_figure(tmp_path):
    _finish(tmp_path / "made_up" / "second")
    lines = results.render(TABLE, tmp_path).splitlines()
    assert lines[0] == "### A made-up table"
    assert "kfold, 2 folds pooled; no specimen on two sides" in lines[2]
    assert lines[2].endswith("Intervals of cells: by the spread of specimens. Intervals of specimens: by trials.")
    assert lines[-2] == "| `gao`, wider | 1,234 | 50.00 [40.0, 60.0] | – | 75.00 | 70.00 | 3 | unknown |"
    assert lines[-1] == "| *Somebody 2015* (abstract; protocol: cells at random) | – | – | 87.1 | – | – | – | – |"
    assert len(lines) == 8


def test_leaking_and_clean_rows_do_not_stand_in_one_table(tmp_path):
    _finish(tmp_path / "made_up" / "first", leaks=True)
    _finish(tmp_path / "made_up" / "second")
    with pytest.raises(UsageError, match="some rows leak specimens and some do not"):
        results.render(TABLE, tmp_path)


def test_tables_are_written_between_their_marks_and_nothing_else_changes(tmp_path):
    page = tmp_path / "RESULTS.md"
    page.write_text("before\n<!-- table made_up -->\nold\n<!-- end made_up -->\nafter\n")
    results.write(page, {"made_up": "new"})
    assert page.read_text() == "before\n<!-- table made_up -->\nnew\n<!-- end made_up -->\nafter\n"
    with pytest.raises(UsageError, match="has no lines"):
        results.write(page, {"other": "new"})


def test_a_row_whose_data_are_not_at_hand_has_no_settings(tmp_path):
    row = Row(name="r", config="cnn", overrides={"model.init_from": "{runs}/made_up/first"})
    values = results.settings(TABLE, row, Place(runs=tmp_path))
    assert values["model.init_from"] == f"{tmp_path}/made_up/first"
    real = Table(name="t", title="t", split="test", common={"data.name": "icpr2012", "data.protocol": "kfold"}, rows=())
    assert results.settings(real, row, Place(runs=tmp_path)) is None
    at_hand = Place(runs=tmp_path, manual={"icpr2012": "somewhere"})
    assert results.settings(real, row, at_hand)["data.manual_dir"] == "somewhere"


def test_the_command_prints_what_is_finished_and_names_what_it_cannot_run(command, tmp_path):
    _finish(tmp_path / "icpr2012_half" / "base")
    done = command("scripts.results", f"--runs={tmp_path}", "--only=icpr2012_half/*")
    assert done.returncode == 0, done.stderr
    assert "icpr2012_half/equalise: left out, its data are not available" in done.stdout
    assert "| 1,234 | 50.00 [40.0, 60.0] |" in done.stdout
    wrong = command("scripts.results", "--manual_dir=icpr2013=somewhere")
    assert wrong.returncode == 2
    assert "write NAME=DIR" in wrong.stderr


def test_the_shipped_tables_name_configurations_and_keys_that_exist():
    names = [f"{table.name}/{row.name}" for table in TABLES for row in table.rows]
    assert len(names) == len(set(names)) > 0
    for table in TABLES:
        for row in table.rows:
            assert bool(row.config) != bool(row.members)
            assert set(row.members) <= {other.name for other in table.rows if other.config}
            assert {**table.common, **row.overrides}.keys() <= set(configs.valid_keys())
            if row.config:
                config = config_files.load(row.config)
                for key, value in {**table.common, **row.overrides}.items():
                    section, _, leaf = key.partition(".")
                    setattr(getattr(config, section), leaf, value)
                tasks.resolve(config)
            assert {"data.name", "data.protocol"} <= table.common.keys()
            assert not {"data.name", "data.protocol"} & row.overrides.keys()
    page = (results.ROOT / "RESULTS.md").read_text()
    for table in TABLES:
        assert f"<!-- table {table.name} -->" in page
        assert f"<!-- end {table.name} -->" in page


def test_tables_say_whose_specimens_and_whose_protocol():
    for table in TABLES:
        assert ("recovered from the time stamps" in table.note) == (table.common["data.name"] == "icpr2014_task1")
        partly = table.name in ("icpr2014_blocked", "icpr2014_by_specimen", "icpr2014_whole")
        assert ("10,876 were at hand" in table.note) == partly
        assert not any("LOSO" in entry.method and entry.mca for entry in table.published), "87.1 is another protocol's"


def test_rows_on_the_page_carry_their_commit():
    page = (pathlib.Path(results.__file__).parents[1] / "RESULTS.md").read_text()
    for table in TABLES:
        _, rest = page.split(f"<!-- table {table.name} -->")
        lines = [line for line in rest.split("<!-- end")[0].splitlines() if line.startswith("| ")][1:]
        assert lines
        for line in lines:
            assert re.search(r"protocol: .* \| – \|$" if line.startswith("| *") else r" \| [0-9a-f]{7}\*? \|$", line), (
                line
            )


@pytest.mark.slow
def test_a_missing_row_is_run_once(data_dir, tmp_path):
    row = Row(
        name="tiny",
        config="cnn",
        overrides={
            "data.builder_config": "specimens_tiny",
            "train.num_steps": 1,
            "train.global_batch_size": 8,
            "evaluation.batch_size": 8,
        },
    )
    contest = {"data.name": "hep2_synthetic", "data.protocol": "contest"}
    mean = Row(name="mean", members=("tiny", "tiny"), words="the mean of it and itself")
    table = Table(name="t", title="T", split="test", common=contest, rows=(row, mean))
    place = Place(runs=tmp_path, data_dir=str(data_dir))
    results.run_missing([table], place, only="other/*")
    results.run_missing([table], place, only="t/mean")
    assert not (tmp_path / "t").exists(), "what is to be averaged is not finished"
    results.run_missing([table], place)
    stamp = (tmp_path / "t" / "tiny" / "report" / "metrics.json").stat().st_mtime_ns
    results.run_missing([table], place)
    assert (tmp_path / "t" / "tiny" / "report" / "metrics.json").stat().st_mtime_ns == stamp
    alone, twice = (line.split(" | ") for line in results.render(table, tmp_path).splitlines()[-2:])
    assert (alone[0], twice[0]) == ("| `gao`", "| the mean of it and itself")
    assert int(twice[1].replace(",", "")) == 2 * int(alone[1].replace(",", ""))
    assert twice[2:-2] == alone[2:-2]
    assert twice[-1] == alone[-1] == f"{results._commit()} |"
