"""The benchmarks run at tiny sizes and say what they promise; nothing here is about speed."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

from hep2jax import config as configs
from hep2jax import tasks
from hep2jax.errors import UsageError
from hep2jax.training import state as states
from scripts import bench_common, bench_dispatch, bench_step, bench_zoo, synthetic_step


def test_sides_take_turns_forwards_and_backwards():
    seen = []

    def side(name: str, figure: float):
        return lambda: seen.append(name) or figure

    rounds = bench_common.interleaved({"a": side("a", 1.0), "b": side("b", 3.0)}, 3)
    assert "".join(seen) == "abbaab"
    assert rounds == {"a": [1.0] * 3, "b": [3.0] * 3}


def test_ratios_are_taken_round_by_round():
    rounds = {"a": [1.0, 10.0, 2.0], "b": [2.0, 20.0, 4.0]}
    assert bench_common.ratios(rounds, "a") == {"a": 1.0, "b": 2.0}
    assert bench_common.medians(rounds) == {"a": 2.0, "b": 4.0}


def test_a_table_is_markdown():
    text = bench_common.table(("name", "figure"), [("one", 1234.5), ("two", 0.12345)])
    assert text.splitlines() == ["| name | figure |", "| --- | --- |", "| one | 1,234 |", "| two | 0.123 |"]


def test_noise_has_the_classes_of_the_network():
    config = bench_step.configuration("fcn")
    batch = synthetic_step.noise(config)
    assert set(np.unique(batch["labels"])) == set(range(9))  # eight patterns and background
    assert batch["image"].shape == batch["labels"].shape == (16, 128, 128)
    config.train.steps_per_call = 3
    assert {values.shape[0] for values in synthetic_step.noise(config).values()} == {3}


def test_a_network_without_a_twin():
    with pytest.raises(UsageError, match="must be of gao, resnet, fcn, dsfcn, unet"):
        bench_step.configuration("mil")


def _metrics(name: str) -> dict[str, np.ndarray]:
    """Of the first eight steps on one of the paths."""
    config = bench_step.configuration("gao")
    config.train.global_batch_size = 2 * jax.device_count()
    path = bench_dispatch.PATHS[name](config, idle=False)
    calls = [jax.device_get(path.call()) for _ in range(bench_dispatch.STEPS_PER_CALL // path.steps)]
    return {key: np.concatenate([np.ravel(call[key]) for call in calls]) for key in calls[0]}


@pytest.fixture(scope="module")
def ours() -> dict[str, np.ndarray]:
    return _metrics(bench_dispatch.OURS)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(bench_dispatch.PATHS)[1:])
def test_every_path_takes_the_same_steps(ours, name: str):
    assert len(ours["loss"]) == bench_dispatch.STEPS_PER_CALL
    for key, theirs in _metrics(name).items():
        np.testing.assert_allclose(theirs, ours[key], rtol=2e-3)


def test_the_idle_step_takes_and_gives_every_array():
    config = bench_step.configuration("gao")
    config.train.global_batch_size = jax.device_count()
    made = synthetic_step.make(config)
    old = jax.tree.leaves(made.state)
    run = dataclasses.replace(made, step=bench_dispatch.do_nothing).compile()[1]
    state, _ = run(made.state, made.batch, made.constants)
    assert all(leaf.is_deleted() for leaf in old)  # donated: a program ran, nothing was handed through on the host
    assert int(state.step) == 1


def test_the_hosts_part_is_measured_on_every_path():
    config = bench_step.configuration("gao")
    config.train.global_batch_size = jax.device_count()
    figures = bench_dispatch.measure_idle(config, calls=2, repeats=1)
    assert set(figures) == set(bench_dispatch.PATHS)
    assert all(seconds > 0 for each in figures.values() for seconds in each)


def test_a_configuration_alone_and_with_its_data(cell_config):
    configs.validate(cell_config)
    network = states.make_network(cell_config, tasks.load(cell_config).num_outputs)
    params = nnx.state(nnx.eval_shape(lambda: network.build(jax.random.key(0))), nnx.Param)
    found = bench_zoo.measure(cell_config, calls=2, repeats=2)
    assert found["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert min(found["alone_ms"], found["fed_ms"], found["ratio"], found["mflop_per_image"]) > 0
    assert 0 <= found["waiting_percent"] <= 100
    assert found["images_per_second"] == pytest.approx(1e3 * cell_config.train.global_batch_size / found["fed_ms"])


@pytest.mark.slow
def test_steps_beside_pytorch(command):
    pytest.importorskip("torch", reason="PyTorch, an extra of the benchmarks, is absent")
    tiny = ["--networks=gao", "--batch=2", "--repeats=1", "--steps=1", "--ways=eager"]
    done = command("scripts.bench_step", *tiny, new=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])["networks"]["gao"]
    assert set(figures["ms"]) == set(figures["cpu_ms"]) == set(figures["ratio"]) == {"eager", "ours"}
    assert figures["parameters"] == 51050
    assert not figures["failed"]


@pytest.mark.parametrize("config", ["cnn", pytest.param("fcn", marks=pytest.mark.slow)])
def test_inputs_beside_pytorch(command, data_dir, config: str):
    pytest.importorskip("torch", reason="PyTorch, an extra of the benchmarks, is absent")
    tiny = ["--config.data.builder_config=specimens_tiny", f"--config.data.data_dir={data_dir}", "--workers=1"]
    size = [] if config == "cnn" else ["--config.data.crop_size=32"]
    done = command(
        "scripts.bench_input", f"--config=configs/{config}.py", *tiny, *size, "--repeats=1", "--seconds=0.01", new=True
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["ratio"][figures["peer"]] == 1.0
    assert figures["peer"] in ("DataLoader", "DataLoader, no workers")
    assert min(figures["examples_per_second"].values()) > 0
