import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from hep2jax import tasks
from hep2jax.perf import chips
from hep2jax.progress import Pace, TrainingDisplay, scaled
from hep2jax.report import provenance
from hep2jax.training import loop, timing
from hep2jax.training.timing import PHASES, Program, StepClock
from tests import product


@dataclasses.dataclass
class Hands:
    """Time that passes when a test says so; whole seconds, so that sums are exact."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hands():
    return Hands()


@pytest.fixture
def clock(hands):
    return StepClock(now=hands)


def spend(clock, hands, phase, seconds):
    with clock.phase(phase):
        hands.now += seconds


def test_every_second_belongs_to_one_phase(clock, hands):
    for seconds, phase in enumerate(PHASES[:-1], 1):
        spend(clock, hands, phase, seconds)
        hands.now += 10  # in no phase
    seconds = clock.seconds()
    assert [seconds[phase] for phase in PHASES] == [1, 2, 3, 4, 5, 6, 7, 8, 80]
    assert set(seconds) == {*PHASES, "total"}
    assert sum(seconds[phase] for phase in PHASES) == seconds["total"] == hands.now - 1000


def test_a_phase_inside_another_is_not_counted_twice(clock, hands):
    with clock.phase("init"):
        hands.now += 1
        spend(clock, hands, "host_to_device", 2)
        hands.now += 4
    seconds = clock.seconds()
    assert (seconds["init"], seconds["host_to_device"], seconds["total"]) == (5, 2, 7)


def test_the_sum_holds_while_a_phase_is_open(clock, hands):
    with clock.phase("evaluation"):
        hands.now += 3
        assert clock.seconds()["evaluation"] == clock.seconds()["total"] == 3


def test_a_phase_counts_even_if_it_fails(clock, hands):
    def fail():
        hands.now += 2
        raise OSError("full")

    with pytest.raises(OSError, match="full"), clock.phase("checkpoint"):
        fail()
    hands.now += 1
    assert (clock.seconds()["checkpoint"], clock.seconds()["idle"]) == (2, 1)


def test_an_unknown_phase_is_refused(clock):
    with pytest.raises(KeyError), clock.phase("lunch"):
        pass


def test_a_wait_that_the_devices_did_not_feel_is_recounted(clock, hands):
    with clock.phase("data_wait"):
        hands.now += 2
        clock.recount("step")
    spend(clock, hands, "data_wait", 1)
    assert (clock.seconds()["step"], clock.seconds()["data_wait"]) == (2, 1)


def test_waiting_counts_only_while_the_devices_have_nothing_to_do(clock, hands):
    def batches():
        while True:
            hands.now += 1
            yield {}

    stream = batches()
    slow = jax.jit(lambda x: jax.lax.fori_loop(0, 400, lambda _, y: y @ x, x)).lower(jnp.eye(400)).compile()
    loss = slow(jnp.eye(400))  # a good fraction of a second, and returns at once
    loop.next_batch(clock, stream, {"loss": loss})
    jax.block_until_ready(loss)
    assert (clock.seconds()["step"], clock.seconds()["data_wait"]) == (1, 0)
    loop.next_batch(clock, stream, {"loss": loss})  # the step is done
    loop.next_batch(clock, stream, None)  # the window's metrics were fetched: nothing runs
    assert (clock.seconds()["step"], clock.seconds()["data_wait"]) == (1, 2)


def test_windows_forget_and_the_run_remembers(clock, hands):
    spend(clock, hands, "compile", 5)
    first = clock.window()
    spend(clock, hands, "step", 3)
    hands.now += 1
    second = clock.window()
    assert {name for name, value in first.items() if value} == {"compile"}
    assert {name: value for name, value in second.items() if value} == {"step": 3, "idle": 1}
    assert not any(clock.window().values())
    assert clock.seconds()["total"] == 9


def test_rates_of_a_window():
    seconds = dict.fromkeys(PHASES, 0.0) | {"data_wait": 1, "step": 3, "evaluation": 5, "checkpoint": 2, "idle": 9}
    assert timing.rates(seconds, steps=8, batch=16, devices=4) == {
        "images_per_second": 32,
        "images_per_second_per_device": 8,
        "step_seconds": 0.5,
        "data_wait_share": 0.25,
        "evaluation_share": 0.25,
        "checkpoint_share": 0.1,
    }


def test_efficiency_of_a_program_bound_by_arithmetic_and_of_one_bound_by_memory():
    v5e = chips.find("TPU v5 lite")  # 197 TFLOP/s, 819 GB/s
    busy = Program(flops=197e9, bytes_accessed=81.9e6, memory_bytes=0)
    figures = timing.efficiency(busy, 0.004, devices=8, chip=v5e, dtype="bfloat16")
    assert figures == pytest.approx({"model_flops_per_second": 394e12, "mfu": 0.25, "roofline_fraction": 0.25})
    hungry = Program(flops=19.7e9, bytes_accessed=1.638e9, memory_bytes=0)
    figures = timing.efficiency(hungry, 0.004, devices=8, chip=v5e, dtype="bfloat16")
    assert figures == pytest.approx({"model_flops_per_second": 39.4e12, "mfu": 0.025, "roofline_fraction": 0.5})


def test_only_flops_where_the_chip_is_not_known():
    program = Program(flops=4e9, bytes_accessed=1.0, memory_bytes=0)
    cpu = chips.find(jax.devices("cpu")[0].device_kind)
    figures = timing.efficiency(program, 2.0, devices=2, chip=cpu, dtype="float32")
    assert figures == {"model_flops_per_second": 4e9}


def test_every_log_line_says_where_the_time_went(cell_config, tmp_path, capsys):
    run = loop.prepare(cell_config, tmp_path, StepClock(), tasks.load(cell_config))
    try:
        loop._train(run)
    finally:
        loop.close(run)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3, 4, 6]
    for line in lines:
        assert line["images_per_second"] * line["step_seconds"] == pytest.approx(8)
        assert line["images_per_second_per_device"] == line["images_per_second"]
        assert line["model_flops_per_second"] * line["step_seconds"] == pytest.approx(run.program.flops)
        assert 0 <= line["data_wait_share"] < 1
        assert line["evaluation_share"] == 0
        assert not {"mfu", "roofline_fraction"} & line.keys()  # a CPU's peaks are not in the table
    assert lines[2]["checkpoint_share"] > 0  # the one after step 3
    seconds = run.clock.seconds()
    assert min(seconds[phase] for phase in ("compile", "step", "checkpoint")) > 0
    assert 50e6 < run.program.flops < 500e6
    assert "a step on each device: " in capsys.readouterr().out


def test_the_report_has_a_name_for_every_phase():
    assert set(provenance.PHASES) == set(PHASES)


def test_analysis_of_a_product_on_one_device():
    program = product.analyse()
    assert program.flops == 2 * 128 * 256 * 64
    assert program.bytes_accessed == 4 * (128 * 256 + 256 * 64 + 128 * 64)
    assert program.memory_bytes >= program.bytes_accessed  # every operand and the result have their own buffer


def test_analysis_on_a_mesh_is_of_one_device(together):
    (done,) = together("tests.product", processes=1, devices=2)
    program = Program(**json.loads(done.stdout))
    assert program.flops == 2 * 64 * 256 * 64
    assert program.bytes_accessed == 4 * (64 * 256 + 256 * 64 + 64 * 64)


FIGURES = {"loss": 0.0489, "model_flops_per_second": 7.0e9, "images_per_second": 699.7, "data_wait_share": 0.009}


def show(capsys, *windows: dict[str, float], enabled: bool = True) -> list[str]:
    display = TrainingDisplay(0, 8000, enabled=enabled)
    for step, figures in enumerate(windows, 1):
        display.window(250 * step, FIGURES | figures, 16)
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out.splitlines()


def test_the_line_of_a_window(capsys):
    lines = show(capsys, {}, {"mfu": 0.351, "model_flops_per_second": 69.1e12})
    assert lines == [
        "step 250/8000  loss 0.0489  7.0 GFLOP/s  699.7 img/s  waiting for data 0.9 %  177 s left",
        "step 500/8000  loss 0.0489  69.1 TFLOP/s  MFU 35.1 %  699.7 img/s  waiting for data 0.9 %  172 s left",
    ]


def test_starving_is_said_once_with_advice(capsys):
    lines = show(capsys, {}, {"data_wait_share": 0.12}, {"data_wait_share": 0.5})
    (warning,) = (line for line in lines if line.startswith("warning"))
    assert lines.index(warning) == 2  # under the line of the window that it is about
    for word in ("12 %", "train.prefetch", "data.warp", "few cores", "train.global_batch_size"):
        assert word in warning


def test_filling_the_pipeline_is_no_starving(capsys):
    assert len(show(capsys, {"data_wait_share": 0.9}, {"data_wait_share": 0.05})) == 2


def test_only_the_chief_speaks(capsys):
    assert show(capsys, {}, {"data_wait_share": 0.9}, enabled=False) == []


def test_the_pace_of_a_job(hands, capsys):
    pace = Pace(200, "images", clock=hands)
    for done, seconds in ((1, 20.0), (1, 0.0), (2, 9.0), (50, 1.0), (60, 5.0)):
        hands.now += seconds
        pace.advance(done)
    assert capsys.readouterr().out.splitlines() == [
        "50 of 200 images  4.9/s  31 s left",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5 B"), (99.96, "100 B"), (999.6, "1.0 kB"), (41.5e6, "41.5 MB"), (350e9, "350 GB"), (2e21, "2000 EB")],
)
def test_scaled(value, text):
    assert scaled(value, "B") == text
