"""The rules of the advice, and profiles of programs that are slow in one known way."""

import dataclasses
import json
import time

import jax
import pytest

from hep2jax import tasks
from hep2jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    ModelConfig,
    TrainConfig,
)
from hep2jax.perf import advice, profiling
from hep2jax.perf.advice import Change, Evidence, Padding
from hep2jax.tasks.cells import CellTask
from tests.data.cell_tables import cell_set

STEP = 0.1
CORES = "JAX_NUM_CPU_DEVICES=2 before the command"
CONFIG = Config(model=ModelConfig(name="gao"), train=TrainConfig(global_batch_size=64))


def _evidence(platform: str = "gpu", **values) -> Evidence:
    known = {"arithmetic": 0.05, "traffic": 0.02} if platform != "cpu" else {"products": 0.06}
    return Evidence(**{"platform": platform, "step": STEP, **known, **values})


def _first(evidence: Evidence, config: Config = CONFIG) -> Change:
    return advice.changes(evidence, config)[0]


@pytest.mark.parametrize(
    ("values", "bound"),
    [
        ({"waiting": 0.03}, "input"),
        ({"waiting": 0.03, "idle": 0.05}, "dispatch"),
        ({"idle": 0.02}, "dispatch"),
        ({"collectives": 0.02}, "communication"),
        ({}, "compute"),
        ({"traffic": 0.08}, "memory"),
        ({"arithmetic": 0.002, "traffic": 0.01}, advice.SMALL),
        ({"platform": "cpu"}, "compute"),
        ({"platform": "cpu", "products": 0.01}, "memory"),
        ({"platform": "cpu", "products": 0.01, "waiting": 0.085}, "input"),
    ],
)
def test_what_bounds_a_step(values, bound: str):
    evidence = _evidence(**values)
    assert advice.bound(evidence) == bound
    assert advice.verdict(evidence).startswith(f"Bound by {bound}: of a step of 100.00 ms, ")


def test_the_verdict_names_the_figures_that_it_follows_from():
    text = advice.verdict(_evidence(waiting=0.03))
    assert "waiting for data 30.0 %" in text
    assert "the network's arithmetic at the published peak 50.0 %" in text
    assert "between chips" not in text


@pytest.mark.parametrize(
    ("values", "flag", "saves"),
    [
        ({"waiting": 0.03}, "--config.train.prefetch=6", 0.03),
        ({"platform": "cpu", "waiting": 0.03}, "--config.data.warp=device", 0.03),
        ({"idle": 0.08}, "--config.train.steps_per_call=8", 0.07),
        ({"platform": "cpu", "idle": 0.08}, "--config.train.global_batch_size=128", 0.04),
        ({"platform": "cpu", "cores_busy": 1.0, "cores": 4}, "JAX_NUM_CPU_DEVICES=4 before the command", 0.075),
        ({"optimizer": 0.06, "memory_share": 0.2}, "--config.train.global_batch_size=128", 0.03),
        (
            {"arithmetic": 0.002, "traffic": 0.01, "memory_share": 0.1},
            "--config.train.global_batch_size=128",
            0.045,
        ),
        ({"padding": [Padding(module="layers.0", waste=0.9, seconds=0.05)]}, "--config.model.width=2", 0.045),
        ({"slowest_module": "layers.0", "slowest_seconds": 0.05}, "--config.model.width=0.5", 0.025),
    ],
)
def test_each_cause_has_its_change(values, flag: str, saves: float):
    change = _first(_evidence(**{"platform": "tpu", **values} if "platform" not in values else values))
    assert change.flag == flag
    assert change.saves == pytest.approx(saves)
    assert any(character.isdigit() for character in change.figure)


def test_what_is_done_already_is_not_advised():
    waiting = _evidence(waiting=0.03, platform="cpu")
    assert _first(waiting, dataclasses.replace(CONFIG, data=DataConfig(warp="device"))).flag.endswith("prefetch=6")
    several = dataclasses.replace(CONFIG, train=TrainConfig(steps_per_call=8))
    assert not advice.changes(_evidence(idle=0.08), several)
    full = {"optimizer": 0.06, "memory_share": 0.8}
    assert not advice.changes(_evidence(**full), CONFIG)
    assert not advice.changes(_evidence(**{**full, "memory_share": 0.2, "larger_batches_tried": True}), CONFIG)
    assert not advice.changes(_evidence("cpu", cores_busy=1.0, cores=2, devices=2), CONFIG)
    idle_cores = _evidence("cpu", waiting=0.09, cores_busy=0.15, cores=2)
    assert [change.flag for change in advice.changes(idle_cores, CONFIG)] == ["--config.data.warp=device", CORES]
    assert advice.changes(idle_cores, CONFIG)[1].saves == pytest.approx(0.0025)
    assert _first(_evidence(), dataclasses.replace(CONFIG, train=TrainConfig(compute_dtype="float32"))).saves == 0.05


def test_three_changes_at_most_the_largest_first_and_none_that_is_not_worth_it():
    evidence = _evidence(
        "tpu", waiting=0.02, idle=0.04, optimizer=0.03, memory_share=0.1, slowest_module="a", slowest_seconds=0.08
    )
    found = advice.changes(evidence, CONFIG)
    assert [change.saves for change in found] == pytest.approx([0.04, 0.035, 0.02])
    assert not advice.changes(_evidence(waiting=0.001), CONFIG)
    table = advice.table(evidence, CONFIG)
    assert [row[1] for row in table.rows] == ["40.0 %", "35.0 %", "20.0 %"]
    assert table.note.startswith("Bound by dispatch")
    assert "No change" in advice.table(_evidence(), CONFIG).note


def test_networks_of_pixels_are_advised_to_take_blocks():
    evidence = _evidence(slowest_module="stages.0", slowest_seconds=0.08)
    assert _first(evidence, Config()).flag == "--config.model.pixel_block=2"
    taken = Config(model=ModelConfig(pixel_block=2))
    assert _first(evidence, taken).flag == "--config.model.width=0.5"


class _SlowSource(CellTask):
    """Cells from a source that takes 50 ms for a batch, such as a slow disk."""

    def stream(self, indices, rows):
        stream = super().stream(indices, rows)
        make = stream.batch

        def batch(step: int):
            time.sleep(0.05)
            return make(step)

        stream.batch = batch
        return stream


def _profile(monkeypatch, folder, task_class: type[CellTask], *, batch: int, width: float) -> dict:
    config = tasks.resolve(
        Config(
            data=DataConfig(crop_size=0, normalise="none", protocol="kfold", num_folds=3, warp="host"),
            augment=AugmentConfig(),
            model=ModelConfig(name="gao", width=width),
            train=TrainConfig(num_steps=100, global_batch_size=batch, prefetch=1),
        )
    )
    monkeypatch.setattr(tasks, "load", lambda config: task_class(config, cell_set(config.data)))
    profiling.run(config, folder, num_steps=6)
    return json.loads((folder / "profile" / "profile.json").read_text())


@pytest.mark.parametrize(
    ("task_class", "batch", "width", "bound"),
    [
        (_SlowSource, 4, 1.0, "input"),
        pytest.param(CellTask, 256, 4.0, "compute", marks=pytest.mark.slow),
    ],
)
def test_a_program_that_is_slow_in_one_way_is_found_out(
    monkeypatch, tmp_path, capsys, task_class, batch: int, width: float, bound: str
):
    if jax.default_backend() != "cpu":
        pytest.skip("the programs are slow in this way on a CPU")
    values = _profile(monkeypatch, tmp_path, task_class, batch=batch, width=width)
    printed, page = capsys.readouterr().out, (tmp_path / "profile" / "profile.html").read_text()
    assert f"Bound by {bound}" in printed
    assert f"Bound by {bound}" in page
    assert values["advice"]["bound"] == bound
    if bound == "input":
        assert values["advice"]["changes"][0]["flag"] == "--config.data.warp=device"
        assert "--config.data.warp=device" in page
