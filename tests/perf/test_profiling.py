import hashlib
import json
import pathlib

import jax
import jax.numpy as jnp
import pytest
from jax.profiler import ProfileData

from hep2jax import config as configs
from hep2jax import tasks
from hep2jax.errors import UsageError
from hep2jax.perf import profiling
from hep2jax.perf.aot import hlo
from hep2jax.perf.profiling import flops, places, summary, tables, trace
from hep2jax.perf.profiling.trace import IDLE, OTHER, WINDOW, Span, Trace
from hep2jax.training import loop, workdir
from hep2jax.training.timing import StepClock


def _program(*lines: str, others: str = "") -> str:
    body = "\n".join(f"  {line}" for line in lines)
    return f"HloModule jit_step\n\n{others}\nENTRY %main (x: f32[8]) -> f32[8] {{\n{body}\n}}\n"


@pytest.mark.parametrize(
    ("source", "kernel", "options"),
    [
        ((2, 9, 7, 4), (3, 3, 4, 5), {"window_strides": (1, 1), "padding": "SAME"}),
        ((2, 9, 7, 4), (3, 2, 4, 5), {"window_strides": (2, 3), "padding": "VALID"}),
        ((2, 9, 7, 4), (3, 3, 4, 5), {"window_strides": (1, 1), "padding": [(1, 2), (0, 1)], "lhs_dilation": (2, 2)}),
        ((2, 9, 7, 4), (3, 3, 4, 5), {"window_strides": (1, 1), "padding": "SAME", "rhs_dilation": (2, 1)}),
        ((2, 9, 7, 4), (3, 3, 2, 6), {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": 2}),
    ],
)
def test_flops_of_a_convolution_are_those_of_xla(source, kernel, options):
    def convolve(source, kernel):
        return jax.lax.conv_general_dilated(source, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)

    shapes = jax.ShapeDtypeStruct(source, jnp.float32), jax.ShapeDtypeStruct(kernel, jnp.float32)
    lowered = jax.jit(convolve).lower(*shapes)
    cost = lowered.cost_analysis()
    assert cost is not None
    program = hlo.parse(lowered.compile().as_text() or "")
    counted = flops.by_instruction(program)
    assert sum(counted.get(line.name, 0) for line in program.computations[program.entry]) == cost["flops"]


def test_flops_of_a_fusion_are_those_inside_it():
    inner = (
        "%fused (a: f32[4,6], b: f32[6,5]) -> f32[4,5] {\n"
        "  %a = f32[4,6]{1,0} parameter(0)\n"
        "  %b = f32[6,5]{1,0} parameter(1)\n"
        "  ROOT %d = f32[4,5]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}\n"
        "}\n"
    )
    found = flops.by_instruction(
        hlo.parse(_program("%f = f32[4,5]{1,0} fusion(%x, %y), kind=kOutput, calls=%fused", others=inner))
    )
    assert found["f"] == 2 * 4 * 5 * 6


def test_cudnn_calls_of_a_convolution_and_its_gradients_have_the_same_flops():
    """The labels are the forward convolution's in all three: our understanding of such programs, not seen on a GPU."""
    sides = {"image": "f32[2,8,8,4]{3,2,1,0}", "kernel": "f32[3,3,4,6]{3,2,1,0}", "output": "f32[2,8,8,6]{3,2,1,0}"}
    lines = [f"%{name} = {shape} parameter({index})" for index, (name, shape) in enumerate(sides.items())]
    attributes = "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f"
    for target, operands, result in (
        ("Forward", "%image, %kernel", "output"),
        ("BackwardInput", "%output, %kernel", "image"),
        ("BackwardFilter", "%image, %output", "kernel"),
    ):
        call = f'custom-call({operands}), {attributes}, custom_call_target="__cudnn$conv{target}"'
        lines.append(f"%{target} = ({sides[result]}, u8[0]{{0}}) {call}")
    found = flops.by_instruction(hlo.parse(_program(*lines)))
    valid = 22 * 22  # of 3 x 8 pairs (tap, output) on each axis, two meet padding
    assert found == dict.fromkeys(("Forward", "BackwardInput", "BackwardFilter"), 2 * 2 * 4 * 6 * valid)


def test_operations_without_a_name_take_the_place_of_their_neighbours():
    kernel = "f32[3,3,8,4]{3,2,1,0}"
    path = r"state.params[\'up\'][0][\'conv\'][\'kernel\']"
    found = places.by_instruction(
        hlo.parse(
            _program(
                f'%w = {kernel} parameter(0), metadata={{op_name="{path}"}}',
                "%i = f32[8]{0} parameter(1)",
                "%copied = f32[8]{0} copy(%i)",
                '%inside = f32[8]{0} add(%copied, %i), metadata={op_name="jit(step)/jvp(module.down.1)/add"}',
                "%gradient = f32[8,3,3,4]{3,2,1,0} convolution(%inside, %inside)",
                '%norm = f32[] fusion(%gradient), metadata={op_name="jit(step)/reduce_sum"}',
                f'%new = {kernel} fusion(%w, %norm, %gradient), metadata={{op_name="jit(step)/sub"}}',
                "%last = f32[8]{0} copy(%inside)",
                "%alone = f32[8]{0} iota()",
            )
        )
    )
    assert found["copied"] == places.Place(module="down.1", backward=False)
    assert found["gradient"] == places.Place(module="up.0", backward=True)
    assert found["new"].module == hlo.OPTIMIZER
    assert found["last"].module == "down.1"
    assert found["alone"].module == hlo.COMPILER


def _span(name: str, start: float, end: float, device: int = 0) -> Span:
    return Span(name=name, device=device, start=start, end=end)


def test_operations_that_run_together_share_the_time():
    spans = [_span("a", 10, 30), _span("b", 20, 50), _span("a", 60, 70)]
    times = trace.divide(Trace(start=0, end=100, spans=spans), ())
    assert times == {"a": 10 + 5 + 10, "b": 5 + 20, IDLE: 50}


def test_a_loop_gets_only_the_time_in_which_nothing_of_it_runs():
    spans = [_span("loop", 0, 90), _span("body", 10, 30), _span("body", 30, 70)]
    times = trace.divide(Trace(start=0, end=100, spans=spans), {"loop"})
    assert times == {"loop": 30, "body": 60, IDLE: 10}


def test_times_and_counts_are_means_over_devices():
    spans = [_span("a", 0, 40), _span("a", 0, 20, device=1), _span("a", 20, 60, device=1)]
    found = Trace(start=0, end=100, spans=spans)
    assert trace.divide(found, ()) == {"a": 50, IDLE: 50}
    assert trace.executions(found) == {"a": 1.5}


class _Space:
    """The text of an XSpace: planes of lines of events (name, start and length in ns, stats)."""

    def __init__(self) -> None:
        self.text = ""

    def plane(self, name: str, lines: dict[str, list[tuple]]) -> None:
        events, stats, body = {}, {}, ""
        for number, (line, rows) in enumerate(lines.items()):
            body += f'lines {{ id: {number} name: "{line}" timestamp_ns: 1000\n'
            for event, start, length, values in rows:
                key = events.setdefault(event, len(events) + 1)
                body += f"events {{ metadata_id: {key} offset_ps: {start * 1000} duration_ps: {length * 1000}\n"
                for stat, value in values.items():
                    kind, shown = ("str_value", f'"{value}"') if isinstance(value, str) else ("int64_value", value)
                    body += f"stats {{ metadata_id: {stats.setdefault(stat, len(stats) + 1)} {kind}: {shown} }}\n"
                body += "}\n"
            body += "}\n"
        for field, names in (("event_metadata", events), ("stat_metadata", stats)):
            for text, key in names.items():
                body += f'{field} {{ key: {key} value {{ id: {key} name: "{text}" }} }}\n'
        self.text += f'planes {{ name: "{name}"\n{body}}}\n'

    def read(self) -> Trace:
        return trace.read(ProfileData.from_text_proto(self.text), "jit_step")


def _rows(found: Trace) -> list[tuple]:
    return sorted((span.name, span.device, span.start - found.start, span.end - found.start) for span in found.spans)


def _host(space: _Space, *lines: list[tuple]) -> None:
    others = {f"tf_XLAEigen/{number}": line for number, line in enumerate(lines)}
    space.plane("/host:CPU", {"python": [(WINDOW, 0, 100, {})], **others})


def _stats(name: str, number: int, module: str = "jit_step") -> dict:
    return {"hlo_op": name, "hlo_module": module, "device_ordinal": 0, "_p": number}


def test_on_cpu_an_operation_lasts_until_its_end_mark():
    space = _Space()
    _host(
        space,
        [("conv", 10, 2, _stats("conv", 7)), ("Region", 10, 90, {}), ("add", 40, 5, _stats("add", 8))],
        [("end: conv", 35, 0, {"_c": 7}), ("mul", 50, 5, _stats("mul", 9, "jit_put")), ("mul", 150, 5, _stats("m", 1))],
    )
    assert _rows(space.read()) == [(OTHER, 0, 50, 55), ("add", 0, 40, 45), ("conv", 0, 10, 35)]


def test_of_a_gpu_the_kernels_on_its_streams_are_read():
    """An XSpace made up for the purpose."""
    space, ours = _Space(), {"hlo_module": "jit_step"}
    _host(space, [("other", 0, 100, _stats("other", 1))])
    kernels = [("cutlass_kernel", 10, 20, ours | {"hlo_op": "fusion.1"}), ("MemcpyH2D", 40, 5, {})]
    space.plane("/device:GPU:1", {"Stream #13(Compute)": kernels, "Steps": [("1", 0, 100, {})]})
    found = space.read()
    rows = _rows(found)
    assert rows[0] == ("MemcpyH2D", 1, 40, 45)
    assert rows[1] == ("fusion.1", 1, 10, 30)
    times = summary.summarise(found, _program("%fusion.1 = f32[8]{0} fusion(%x)"), 1)
    assert {row.module for row in times.modules} == {hlo.COMPILER, OTHER, IDLE}


def test_of_a_tpu_only_the_line_of_operations_is_read():
    """An XSpace made up for the purpose."""
    space = _Space()
    _host(space)
    whole = "%fusion.3 = bf16[8,128]{1,0} fusion(%x)"
    lines = {"Steps": [("0", 0, 100, {})], "XLA Modules": [("jit_step", 0, 90, {})], "XLA Ops": [(whole, 5, 50, {})]}
    space.plane("/device:TPU:0", lines)
    space.plane("/device:TPU:0 SparseCore 0", {"XLA Ops": [("x", 0, 90, {})]})
    assert _rows(space.read()) == [("fusion.3", 0, 5, 55)]


def _files(directory: pathlib.Path) -> dict[str, str]:
    """Digests of all files but those of the profile."""
    paths = (path for path in directory.rglob("*") if path.is_file())
    names = {str(path.relative_to(directory)): path for path in paths}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
        if not name.startswith("profile/")
    }


@pytest.fixture
def started(tiny_config, tmp_path) -> pathlib.Path:
    """A work directory as a run leaves it that was killed after its checkpoint of step 0 and one line more."""
    directory = tmp_path / "run"
    workdir.open_for_training(directory, tiny_config)
    run = loop.prepare(tiny_config, directory, StepClock(), tasks.load(tiny_config))
    run.checkpoints.save(0, run.state)
    run.checkpoints.close()
    run.writer.write(2, "train", {"loss": 1.0})
    run.writer.close()
    return directory


def test_a_profile_of_a_run(command, started, tiny_config, tmp_path):
    configs.save(tiny_config, tmp_path / "config.json")
    file = tmp_path / "tiny.py"
    load = f"config.load(pathlib.Path({str(tmp_path / 'config.json')!r}))"
    file.write_text(f"import pathlib\nfrom hep2jax import config\n\ndef get_config():\n    return {load}\n")
    before = _files(started)
    flags = [f"--config={file}", f"--workdir={started}", "--mode=profile", "--profile_steps=3"]
    done = command("hep2jax.main", *flags)
    assert done.returncode == 0, done.stderr
    assert _files(started) == before
    values = json.loads((started / "profile" / "profile.json").read_text())
    assert (started / "profile" / values["trace"]).stat().st_size > 0
    assert not (started / "profile" / "scratch").exists()
    _check_figures(values)
    page = (started / "profile" / "profile.html").read_text()
    for text in (done.stdout, page):
        for title in ("Modules, mean step", "Slowest operations", "Memory of a device", "What to change"):
            assert title in text
        assert " 0.00 ms " not in text
    assert "http" not in page


def _check_figures(values: dict) -> None:
    assert sum(row["share"] for row in values["modules"]) == pytest.approx(1)
    assert values["step_seconds"] == pytest.approx(values["with_trace"]["step_seconds"], rel=0.05)
    named = [row for row in values["modules"] if not row["module"].startswith("(")]
    assert {row["module"].split(".")[0] for row in named} == {"down", "up", "lift", "head"}
    assert values["operations"][0]["seconds"] <= values["modules"][0]["seconds"] + values["modules"][1]["seconds"]
    # Modules count what the program computes: the zeros of convolutions in blocks too, elementwise work not.
    whole = values["with_trace"]["model_flops_per_second"] * values["with_trace"]["step_seconds"]
    assert 0.5 < sum(row["flops"] for row in values["modules"]) / whole < 2
    memory = values["memory"]
    assert 0 <= memory["other_arguments"] < 1000
    assert memory["averages"] == memory["parameters"] + memory["normalisation_statistics"]


def test_a_directory_of_another_run_is_refused(started, tiny_config):
    before = _files(started)
    tiny_config.train.log_every = 7
    profiling._open(started, tiny_config)
    assert _files(started) == before
    tiny_config.seed = 5
    with pytest.raises(UsageError, match="another run: seed"):
        profiling._open(started, tiny_config)


def test_rows_of_the_module_table_add_up_to_the_step():
    names = [f"m.{number}" for number in range(tables.MAX_MODULES + 3)]
    lines = [
        f'%op.{number} = f32[8]{{0}} add(%x), metadata={{op_name="jit(step)/jvp(module.{name})/add"}}'
        for number, name in enumerate(names)
    ]
    spans = [_span(f"op.{number}", 1e5 * number, 1e5 * number + 5e4) for number in range(len(names))]
    profile = summary.summarise(Trace(start=0, end=1e8, spans=spans), _program(*lines), 1)
    rows = tables.modules(profile).rows
    assert len(rows) == tables.MAX_MODULES + 2
    assert rows[-2][0] == "(3 faster ones)"
    assert rows[-1][0] == IDLE
    assert sum(row.seconds for row in profile.modules) == pytest.approx(profile.step_seconds) == pytest.approx(0.1)
