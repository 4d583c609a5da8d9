import dataclasses
import json

import pytest

from hep2jax.config import Config
from hep2jax.errors import UsageError
from hep2jax.specimens.nuclear_size import NuclearSize
from hep2jax.training import workdir


def test_rhythm_and_places_may_change_between_restarts(tmp_path):
    config = Config()
    workdir.open_for_training(tmp_path / "w", config)
    config.train.log_every, config.train.checkpoint_every = 3, 7
    config.data.data_dir, config.evaluation.batch_size = "elsewhere", 2
    workdir.open_for_training(tmp_path / "w", config)
    assert workdir.open_for_reading(tmp_path / "w") == config


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("data", "fold", 3), ("augment", "gain", 0.0), ("loss", "dice_weight", 1.0), ("train", "num_steps", 5)],
)
def test_what_changes_the_parameters_may_not(section: str, key: str, value, tmp_path):
    config = Config()
    workdir.open_for_training(tmp_path, config)
    (tmp_path / "checkpoints" / "100").mkdir(parents=True)
    setattr(getattr(config, section), key, value)
    with pytest.raises(UsageError, match=f"{section}.{key} was"):
        workdir.open_for_training(tmp_path, config)


def test_a_run_that_never_trained_may_be_mended(tmp_path):
    workdir.open_for_training(tmp_path, Config())
    (tmp_path / "checkpoints" / "100.orbax-checkpoint-tmp").mkdir(parents=True)  # a save that was killed
    workdir.open_for_training(tmp_path, Config(seed=5))
    assert workdir.open_for_reading(tmp_path).seed == 5


def test_a_second_run_is_kept_out(tmp_path):
    with workdir.lock(tmp_path / "w"):
        workdir.open_for_training(tmp_path / "w", Config())
        with pytest.raises(UsageError, match="another run is training in it"):
            workdir.lock(tmp_path / "w")
    workdir.lock(tmp_path / "w").release()


def test_no_lock_is_left_in_a_folder_of_something_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"holds files that hep2jax did not write \(thesis.tex"):
        workdir.lock(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_configuration_is_said(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": ')
    (tmp_path / "checkpoints" / "100").mkdir(parents=True)
    with pytest.raises(UsageError, match="cannot be read as JSON"):
        workdir.open_for_training(tmp_path, Config())


CONFIGURATIONS = {
    "[1]": "must be an object of sections",
    '{"data": 3}': "section 'data': must be an object of keys",
    '{"model": {"name": 5}}': "model.name=5: must be of type str",
    '{"train": {"num_steps": -3}}': "train.num_steps=-3: must be",
    "[" * 100_000: "cannot be read as JSON",
    '{"seed": ' + "9" * 5000 + "}": "cannot be read as JSON",
    "\udcff": "cannot be read as JSON",
}


@pytest.mark.parametrize("text", CONFIGURATIONS, ids=lambda text: text[:12])
def test_configurations_that_no_run_has_saved_are_named(text: str, tmp_path):
    (tmp_path / "config.json").write_text(text, errors="surrogateescape")
    with pytest.raises(UsageError) as caught:
        workdir.open_for_reading(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'config.json'}: ")
    assert CONFIGURATIONS[text] in str(caught.value)


@pytest.mark.parametrize(
    "text", ["3", "[]", "[1]", '{"a": 1}', "[" * 100_000, "[", "\udcff"], ids=lambda text: text[:9]
)
def test_classes_that_no_run_has_saved_are_named(text: str, tmp_path):
    (tmp_path / "classes.json").write_text(text, errors="surrogateescape")
    with pytest.raises(UsageError, match=r"classes\.json: .*train in a new directory"):
        workdir.read_classes(tmp_path)


def test_a_damaged_fingerprint_is_named(tmp_path):
    (tmp_path / "checkpoints" / "100").mkdir(parents=True)
    (tmp_path / "trained_on.json").write_text("[")
    with pytest.raises(UsageError, match=r"trained_on\.json: cannot be read as JSON"):
        workdir.check_same_data(tmp_path, "digest")


@pytest.mark.parametrize("line", ["[1]", "3", '{"step": "a"}', '{"step": null}', '{"step": Infinity}', "[" * 100_000])
def test_the_log_is_kept_up_to_a_line_that_is_no_record(line: str, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 2}}\n{line}\n{{"step": 4}}\n')
    workdir.MetricsWriter(tmp_path, 4).close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 2}\n'


def test_lines_of_a_killed_run_are_dropped(tmp_path):
    writer = workdir.MetricsWriter(tmp_path, 0)
    for step in (2, 4, 6):
        writer.write(step, "train", {"loss": 1.0 / step})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "spl')
    workdir.MetricsWriter(tmp_path, 4).close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]


def test_same_network_compares_name_and_width():
    saved, given = Config(), Config()
    given.model = dataclasses.replace(given.model, width=0.5)
    with pytest.raises(UsageError, match="model.width is 1.0 there and 0.5"):
        workdir.check_same_network(workdir.pathlib.Path("w"), saved, given)


def test_what_the_compile_mode_wrote_first_is_no_stranger(tmp_path):
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "compile.html").write_text("<html>")
    workdir.open_for_training(tmp_path, Config())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds files that hep2jax did not write"):
        workdir.open_for_training(tmp_path / "other", Config())


@pytest.mark.parametrize("diameter", [76.5, None])
def test_the_nuclear_size_is_kept(tmp_path, diameter):
    size = NuclearSize(measured=83.0, spread=0.2, nuclear_diameter=diameter)
    workdir.write_nuclear_size(tmp_path, size)
    assert workdir.read_nuclear_size(tmp_path) == size


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"measured": 80.0}', '{"measured": -1.0, "spread": 0.2, "nuclear_diameter": null}'],
)
def test_a_damaged_nuclear_size_counts_as_unknown(tmp_path, text):
    (tmp_path / workdir.NUCLEAR_SIZE).write_text(text)
    assert workdir.read_nuclear_size(tmp_path) is None
