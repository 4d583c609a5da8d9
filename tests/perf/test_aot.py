import ast
import dataclasses
import importlib
import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hep2jax import ops, tasks
from hep2jax.config import Config
from hep2jax.errors import UsageError
from hep2jax.perf import aot, chips
from hep2jax.perf.aot import compiler, estimate, hlo, page, scopes, slices, tables, worker
from hep2jax.tasks.fields import FieldTask
from hep2jax.training import optimizers, steps
from hep2jax.training import state as states
from scripts import tpu_zoo

# A step of two convolutions for v5e:4, the second in a loop of three rounds, as the compiler wrote it; the insides of
# most fusions and most of the backend's configuration are left out.
TEXT = pathlib.Path(__file__).with_name("test_aot_program.txt").read_text()
PROGRAM = hlo.parse(TEXT)


def _program(*lines: str, others: str = "") -> hlo.Program:
    body = "\n".join(lines)
    return hlo.parse(f"HloModule jit_step\n\n{others}\nENTRY %main (x: f32[8]) -> f32[8] {{\n{body}\n}}\n")


def _line(opcode: str, shape: str = "f32[8]{0:T(128)}", *, cycles: int = 0, op_name: str = "", rest: str = "") -> str:
    config = f'{{"window_config":{{"estimated_cycles":"{cycles}"}}}}' if cycles else "{}"
    return f'  %y = {shape} {opcode}(%x), {rest}metadata={{op_name="{op_name}"}}, backend_config={config}'


def _array(text: str) -> hlo.Array:
    return hlo.parse(f"ENTRY %main () -> f32[] {{\n  %y = {text} copy(%x)\n}}").computations["main"][0].arrays[0]


def test_the_entry_and_its_instructions_are_read():
    entry = PROGRAM.computations[PROGRAM.entry]
    assert PROGRAM.entry == "main.6_spmd"
    assert sum(line.opcode == "while" for line in entry) == 2
    assert sum(line.opcode == "parameter" for line in entry) == 3
    assert len([line for line in TEXT.splitlines() if " = " in line]) == sum(map(len, PROGRAM.computations.values()))


def test_cycles_of_a_loop_count_once_a_round():
    (body,) = (lines for name, lines in PROGRAM.computations.items() if name.startswith("wide.region_0."))
    named = sum(line.cycles for line in body if hlo.module_of(line.op_name) == "second")
    rows = {row.module: row for row in hlo.cycles_by_module(PROGRAM)}
    assert named > 0
    assert rows["second"].forward == 3 * named
    total = sum(times * line.cycles for line, times, fused in hlo.executions(PROGRAM) if not fused)
    assert sum(row.total for row in rows.values()) == total


def test_modules_are_sorted_and_know_their_directions():
    rows = hlo.cycles_by_module(PROGRAM)
    assert rows[0].module == "second"
    assert rows[0].backward > 0
    assert [row.total for row in rows] == sorted((row.total for row in rows), reverse=True)


def test_cycles_inside_a_fusion_do_not_count_twice():
    inner = f"%fused (p: f32[8]) -> f32[8] {{\n{_line('add', cycles=70)}\n}}\n"
    program = _program(_line("fusion", cycles=100, rest="kind=kLoop, calls=%fused, "), others=inner)
    assert sum(row.total for row in hlo.cycles_by_module(program)) == 100


@pytest.mark.parametrize(
    ("op_name", "module"),
    [
        ("jit(step)/jvp(module.stages.0.1)/module.stages.0.1.conv/conv_general_dilated", "stages.0.1"),
        ("jit(step)/transpose(jvp(module.stages.0.1))/module.stages.0.1.norm/mul", "stages.0.1"),
        ("jit(step)/jvp(module.hidden)/dot_general", "hidden"),
        ("jit(step)/jvp()/reduce_sum", hlo.FORWARD),
        ("jit(step)/sub", hlo.OPTIMIZER),
        ("", hlo.COMPILER),
    ],
)
def test_the_module_of_an_operation(op_name: str, module: str):
    assert hlo.module_of(op_name) == module


STACK = """FileNames
1 "/site-packages/hep2jax/ops/pooling.py"
2 "/site-packages/optax/transform.py"

FunctionNames
1 "max_pool.<locals>.<listcomp>"
2 "update"

FileLocations
1 {file_name_id=1 function_name_id=1 line=3 end_line=3 column=1 end_column=2}
2 {file_name_id=2 function_name_id=2 line=4 end_line=4 column=1 end_column=2}

StackFrames
4 {file_location_id=1 parent_frame_id=1}
5 {file_location_id=2 parent_frame_id=1}

"""


def test_what_is_in_no_module_is_named_by_our_function():
    inside, outside = (
        _line("add", cycles=30, op_name="jit(step)/mul").replace('mul"', f'mul" stack_frame_id={frame}')
        for frame in (4, 5)
    )
    rows = hlo.cycles_by_module(_program(inside, outside, others=STACK))
    assert {row.module for row in rows} == {"(pooling.max_pool)", hlo.OPTIMIZER}


def test_collectives_by_kind():
    gradients = 2 * (9 * 24 + 9 * 24 * 24)  # bfloat16 kernels of both layers
    assert hlo.collectives(PROGRAM) == [hlo.Collective(kind="all-reduce", count=2, num_bytes=gradients + 4)]


def test_started_collectives_count_their_results_once():
    program = _program(
        _line("all-gather-start", "(f32[8]{0:T(128)}, f32[32]{0:T(128)})"),
        _line("all-gather-done", "f32[32]{0:T(128)}"),
        _line("collective-permute-start", "(f32[8]{0}, f32[8]{0}, u32[], u32[])"),
    )
    assert {(row.kind, row.count, row.num_bytes) for row in hlo.collectives(program)} == {
        ("all-gather", 1, 128),
        ("collective-permute", 1, 32),
    }


@pytest.mark.parametrize(
    ("text", "num_bytes", "padded"),
    [
        ("bf16[8,64,64,32]{0,3,2,1:T(8,128)(2,1)}", 8 * 64 * 64 * 32 * 2, 128 * 64 * 64 * 32 * 2),
        ("bf16[3,3,24,24]{3,2,1,0:T(8,128)(2,1)S(1)}", 9 * 24 * 24 * 2, 9 * 24 * 128 * 2),
        ("f32[6,130]{1,0:T(8,128)}", 6 * 130 * 4, 8 * 256 * 4),
        ("s32[200]{0:T(128)}", 800, 1024),
        ("pred[32,5]{1,0}", 160, 160),
        ("f32[]{:T(128)}", 4, 4),
    ],
)
def test_bytes_of_a_tiled_layout(text: str, num_bytes: int, padded: int):
    array = _array(text)
    assert (array.num_bytes, array.padded_bytes) == (num_bytes, padded)


def test_padding_names_the_module_and_its_worst_array():
    full, half = "bf16[128,64,64,8]{0,3,2,1:T(8,128)(2,1)}", "bf16[64,64,64,8]{0,3,2,1:T(8,128)(2,1)}"
    program = _program(
        _line("fusion", full, op_name="jit(step)/jvp(module.good)/add"),
        _line("fusion", half, op_name="jit(step)/jvp(module.bad)/add"),
        _line("fusion", full, op_name="jit(step)/jvp(module.bad)/add"),
        _line("copy-done", half, op_name="jit(step)/jvp(module.good)/add"),
        _line("fusion", half.replace("(2,1)}", "(2,1)S(1)}"), op_name="jit(step)/jvp(module.good)/add"),
    )
    (row,) = hlo.padding_by_module(program)
    assert (row.module, row.worst) == ("bad", half)
    assert row.waste == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    ("name", "topology", "hosts"),
    [("v5e:1", "v5e:1x1", (1, 1, 1)), ("v5p:256", "v5:4x8x8", (2, 2, 1)), ("v6e:16", "v6e:4x4", (2, 2, 1))],
)
def test_slices_have_libtpu_names(name: str, topology: str, hosts: tuple[int, int, int]):
    target = slices.parse(name)
    assert (target.name, target.topology_name, target.chips_per_host_bounds) == (name, topology, hosts)


@pytest.mark.parametrize(("name", "said"), [("v7:4", "v4, v5e, v5p, v6e"), ("v5e:3", "1, 4, 8"), ("v5e", "chips")])
def test_a_wrong_slice_names_what_there_is(name: str, said: str):
    with pytest.raises(UsageError, match=said):
        slices.parse(name)


def test_a_chip_reaches_its_published_peak_at_its_clock():
    """The matrix unit's multiply-adds a cycle times the derived clock are the published peak within 1 %."""
    for name, adds in {"v4": 8 * 128**2, "v5e": 4 * 128**2, "v5p": 8 * 128**2, "v6e": 4 * 256**2}.items():
        generation = slices.GENERATIONS[name]
        chip = chips.find(generation.device_kind)
        assert chip is not None
        assert 2 * adds * generation.clock_hz == pytest.approx(chip.bf16_flops, rel=0.01), name


def test_options_from_flags():
    options = aot.Options.parse("v5e:4, v4:1", "16,32")
    assert [target.name for target in options.slices] == ["v5e:4", "v4:1"]
    assert options.batches == [16, 32]
    with pytest.raises(UsageError, match="whole numbers"):
        aot.Options.parse("v5e:4", "16,many")
    with pytest.raises(UsageError, match="no slice"):
        aot.Options.parse("")


def _compiled(name: str = "v5e:4", images: int = 32, *, temporaries: int = 10**9) -> compiler.Compiled:
    memory = {"arguments": 3 * 10**8, "outputs": 2 * 10**8, "aliased": 10**8, "generated_code": 10**7}
    record = {
        "status": "compiled",
        "seconds": 63.0,
        "model_flops": 1e7 * images,
        "program_flops": 1.1e7 * images,
        "bytes_accessed": 1e9,
        "memory": {**memory, "temporaries": temporaries},
    }
    return compiler.Compiled(target=slices.parse(name), images_per_chip=images, record=record, text=TEXT)


CHIP = chips.find("TPU v5 lite")


def _estimate(*args, **kwargs) -> estimate.Estimate:
    assert CHIP is not None
    return estimate.estimate(_compiled(*args, **kwargs), CHIP)


def test_step_seconds_and_mfu_follow_from_cycles_and_bytes():
    found = _estimate()
    cycles = sum(row.total for row in hlo.cycles_by_module(PROGRAM))
    sent = 2 * 3 / 4 * sum(row.num_bytes for row in found.collectives)
    assert found.compute_seconds == pytest.approx(cycles / 1.5e9)
    assert found.collective_seconds == pytest.approx(sent / (1600e9 / 8 / 2))
    assert found.mfu == pytest.approx(3.2e8 / found.step_seconds / found.peak_flops)
    assert found.memory.total == 1_410_000_000
    assert _estimate("v5e:1").collective_seconds == 0


def test_every_configuration_of_the_zoo_has_a_published_variant():
    for name in tpu_zoo.PUBLISHED:
        assert "published" in importlib.import_module(f"configs.{name}").VARIANTS


def test_the_row_of_a_configuration_follows_from_its_estimate():
    assert CHIP is not None
    found = _estimate("v5e:1")
    row = tpu_zoo.columns(found, CHIP)
    assert row["step"] == pytest.approx(1e3 * found.compute_seconds)
    assert row["images/s"] == pytest.approx(32 / found.compute_seconds)
    assert row["roofline"] == pytest.approx(100 * 1e9 / CHIP.hbm_bandwidth / found.compute_seconds)  # bytes take longer
    slowest = found.modules[0]
    assert row["parts"].startswith(f"{slowest.module} {100 * slowest.total / found.cycles:.0f} %, ")


def test_the_fastest_batch_that_fits_is_recommended():
    small, large = _estimate(images=16), _estimate(images=64)
    too_large = _estimate(images=128, temporaries=10**12)
    assert too_large.images_per_second_per_chip > large.images_per_second_per_chip
    assert estimate.recommended([small, too_large, large]) is large
    assert estimate.recommended([too_large]) is None


def test_scaling_is_measured_against_the_smallest_slice():
    points = estimate.scaling([_estimate("v5e:256"), _estimate("v5e:1")])
    assert [point.chips for point in points] == [1, 256]
    assert points[0].efficiency == 1
    assert points[1].efficiency < points[1].efficiency_overlapped == 1


@pytest.mark.parametrize(
    ("name", "wraps", "torus", "ring"),
    [
        ("v5e:1", (False, False), 0, 0),
        ("v5e:16", (False, False), 3 + 3, 8),
        ("v5e:128", (False, True), 7 + 8, 64),
        ("v5e:256", (True, True), 8 + 8, 128),
        ("v5p:32", (False, False, False), 1 + 3 + 3, 16),
        ("v4:64", (True, True, True), 2 + 2 + 2, 32),
    ],
)
def test_the_longest_way_through_a_slice(name: str, wraps: tuple[bool, ...], torus: int, ring: int):
    target = slices.parse(name)
    assert (target.wraps, target.torus_hops, target.ring_hops) == (wraps, torus, ring)


def test_scaling_is_judged_with_the_latency_at_worst():
    """Two all-reduces on 256 chips pass 32 hops of 1 µs each at best, 256 of 8/3 µs at worst."""
    one, many = _estimate("v5e:1"), _estimate("v5e:256")
    assert one.latency_seconds == (0, 0)
    assert many.latency_seconds == pytest.approx((2 * 2 * 16 * 1e-6, 2 * 2 * 128 * 8e-6 / 3))
    _, point = estimate.scaling([one, many])
    assert point.efficiency_best == pytest.approx(one.step_seconds / (many.step_seconds + 64e-6))
    assert point.efficiency > point.efficiency_best > point.efficiency_worst
    assert point.scales == (point.efficiency_worst >= 0.95)
    assert not point.scales  # a step of a fraction of a millisecond
    (row,) = [row for row in tables.scaling_curve(_generation([], [_compiled("v5e:1"), _compiled("v5e:256")])).rows[1:]]
    assert row[-1] == "no"


def _generation(sweep: list[compiler.Compiled], compiled: list[compiler.Compiled]) -> estimate.Generation:
    assert CHIP is not None
    estimates = [[estimate.estimate(one, CHIP) for one in some if one.is_done] for some in (sweep, compiled)]
    return estimate.Generation(
        name="v5e", chip=CHIP, sweep=sweep, sweep_estimates=estimates[0], slices=compiled, estimates=estimates[1]
    )


def test_tables_and_page_say_that_no_tpu_was_used(tmp_path: pathlib.Path):
    failed = dataclasses.replace(_compiled(images=512), record={"status": "out of memory", "seconds": 9.0}, text="")
    found = _generation([_compiled(images=16), failed], [_compiled("v5e:1", 16), _compiled("v5e:4", 16)])
    page.write(tmp_path, Config(), 9, [found], {"jax": "0.10.2", "libtpu": "0.0.52"})
    values, html = json.loads((tmp_path / "compile.json").read_text()), (tmp_path / "compile.html").read_text()
    printed = tables.text(tables.generation_tables(found, Config()))
    assert values["notice"] == tables.NOTICE
    assert values["generations"]["v5e"]["recommended_images_per_chip"] == 16
    assert [row["images_per_chip"] for row in values["generations"]["v5e"]["not_compiled"]] == [512]
    for text in (printed, html):
        assert text.count(tables.NOTICE) >= 7
        assert "recommended" in text
        assert "Slowest: second" in text
        assert "out of memory" in text
        assert "Bound by " in text
    assert "libtpu 0.0.52" in html
    assert "http" not in html


def test_the_only_batch_tried_is_not_recommended():
    text = tables.text([tables.sweep(_generation([_compiled(images=16)], []))])
    assert "only batch tried" in text
    assert "recommended" not in text


def test_without_a_batch_that_fits_the_tables_say_so():
    failed = dataclasses.replace(_compiled(images=512), record={"status": "out of memory", "seconds": 9.0}, text="")
    (table,) = tables.generation_tables(_generation([failed], []), Config())
    assert "No batch size fits" in table.note


@pytest.mark.parametrize(
    ("network", "data", "builder_config", "outputs"),
    [
        ("gao", "hep2_synthetic", "", 8),
        ("fcn", "hep2_synthetic", "", 9),
        ("gao", "icpr2014_task1", "", 6),
        ("mil", "hep2_synthetic", "mixed", 8),
    ],
)
def test_a_network_has_the_outputs_of_its_data_set(network: str, data: str, builder_config: str, outputs: int):
    config = Config()
    config.model.name, config.data.name, config.data.builder_config = network, data, builder_config
    this = compiler.Compiler(config=config, cache=pathlib.Path("nowhere"), limit_seconds=60)
    assert this.num_outputs == outputs


def test_named_modules_compute_the_same():
    config = Config()
    config.model.name, config.model.width = "fcn", 0.125
    network = states.make_network(config, 9)
    named = scopes.name_modules(network)
    optimizer = optimizers.make_optimizer(config.optimizer, 10)
    state = jax.jit(lambda key: states.fresh_state(network, optimizer, key))(jax.random.key(0, impl="rbg"))
    image, tone_curve = np.full((1, 32, 32), 90, np.uint8), np.array([[0, 1 / 255, 1, 0]], np.float32)
    plain, scoped = (
        jax.jit(steps.make_predict_step(one, FieldTask.decode))(state.params, state.batch_stats, image, tone_curve)
        for one in (network, named)
    )
    np.testing.assert_array_equal(plain, scoped)
    step, shapes = worker.train_step(config, 9)
    constants = {"class_weights": jax.ShapeDtypeStruct((9,), jnp.float32)}
    with ops.target(ops.PLAIN):
        lowered = jax.jit(step).lower(shapes, tasks.kind(config).batch_shapes(config, 2), constants)
    text = lowered.as_text(debug_info=True)
    assert "module.stages.3.1/conv_general_dilated" in text


def test_a_batch_has_the_shapes_of_the_task():
    config = Config()
    assert tasks.kind(config).batch_shapes(config, 4)["labels"].shape == (
        4,
        config.data.crop_size,
        config.data.crop_size,
    )
    config.model.name = "gao"
    assert tasks.kind(config).batch_shapes(config, 4)["labels"] == jax.ShapeDtypeStruct((4,), jnp.int32)


libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is absent")


def test_the_key_depends_on_every_source_of_the_step():
    """What a source imports of the rooms that make a step is a source too."""
    root = pathlib.Path(compiler.__file__).parents[2]
    files = {path.relative_to(root).as_posix() for path in compiler.sources()}
    imported = set()
    for path in compiler.sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hep2jax":
                folder = "/".join(str(node.module).split(".")[1:])
                imported |= {folder, *(f"{folder}/{alias.name}".lstrip("/") for alias in node.names)}
    modules = {f"{name}.py" for name in imported} | {f"{name}/__init__.py" for name in imported if name}
    needed = {name for name in modules if (root / name).is_file()}
    assert {"ops/__init__.py", "ops/lanes.py", "models/layers.py", "training/steps.py"} <= needed & files
    assert not {name for name in needed - files if name.split("/")[0] in ("models", "ops", "tasks")}
    # A reader that is fitted in one piece has no step, and nor has one that is opened from its work directory.
    assert {name for name in needed - files if name.startswith("training/")} <= {
        "training/__init__.py",
        "training/fitted.py",
        "training/restoring.py",
        "training/workdir.py",
    }


@libtpu
def test_the_key_changes_with_what_decides_the_program(tmp_path: pathlib.Path):
    config, target = Config(), slices.parse("v5e:4")
    this = compiler.Compiler(config=config, cache=tmp_path, limit_seconds=60)
    keys = [this.key(target, 16), this.key(target, 32), this.key(slices.parse("v5e:1"), 16)]
    config.data.fold = 3
    assert this.key(target, 16) == keys[0]
    config.data.name = "icpr2012"  # other patterns, another number of outputs
    keys.append(this.key(target, 16))
    config.model.width = 0.5
    assert len({*keys, this.key(target, 16)}) == 5


@pytest.mark.slow
@libtpu
def test_a_small_network_compiles_for_one_chip(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    config = Config()
    config.model.name, config.model.width, config.data.crop_size = "fcn", 0.125, 32
    options = dataclasses.replace(aot.Options.parse("v5e:1", "8"), cache=tmp_path / "cache", limit_seconds=300.0)
    aot.run(config, tmp_path / "run", options)
    values = json.loads((tmp_path / "run" / "profile" / "compile.json").read_text())
    (found,) = values["generations"]["v5e"]["slices"]
    assert found["cycles"] > 0
    assert 0 < found["mfu"] < 1
    assert found["fits"]
    assert found["collectives"] == []
    assert any(row["module"].startswith("stages.") for row in found["modules"])
    printed = capsys.readouterr().out
    assert "compiling fcn for v5e:1, 8 images per chip ..." in printed
    assert "already compiled: fcn for v5e:1, 8 images per chip" in printed
