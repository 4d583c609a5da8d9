"""Checks the published networks on one GPU in a few minutes, and compares their speed with PyTorch.

    python -m scripts.gpu_report --minutes=8 [--networks=fcn,gao,resnet,dsfcn,unet] [--output=runs/gpu_report]

Every network trains in bfloat16 on batches of noise at its published size, and so does the same network in PyTorch on
the same card: eager and with `torch.compile`, channels last, autocast to bfloat16, with the same batch and initial
parameters. Then steps with their input pipeline (host and device warp), several steps per call, and prediction are
timed. Gradients of a small batch are compared with those of PyTorch in float64 on the CPU, by relative norm. PyTorch
runs in separate processes, one per network. A lock prevents simultaneous timings, but compilations run in parallel to
use the available time on the card. Each row is written to `rows.jsonl` and `table.md` in the output directory as soon
as it is complete, so the results of an interrupted run are kept.

`--tiny` runs everything with small sizes on any device, as a rehearsal. `python -m scripts.fetch_wheels` fetches the
missing packages for a machine that has jax, flax, optax, orbax and PyTorch, but no network.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import filelock
import jax
import numpy as np
from absl import flags

from hep2jax import cli, config_files, tasks
from hep2jax import config as configs
from hep2jax.config import Config
from hep2jax.perf import chips, model_flops
from hep2jax.training import packing, steps, timing
from hep2jax.training import state as states
from scripts import bench_common, bench_zoo, synthetic_step
from scripts.peers import protocol

CONFIGURATIONS = {
    "fcn": "fcn:published",
    "gao": "cnn:published",
    "resnet": "resnet:published",
    "dsfcn": "dsfcn:published",
    "unet": "unet:published",
}
"""The configuration of each network, most informative first."""
BATCH = {"unet": 64}
"""Batch sizes of networks whose configured batch is too large for two frameworks on a card with 80 GB."""
DATA = "specimens"
"""The synthetic data set of the steps with data. Its fields are small: large ones take minutes to generate."""
PER_CALL = 8
KINDS = ("train", "data", "gradients", "predict", "several")
_TINY_SIDE = {"gao": 78, "resnet": 32}
_MEMORY_SHARE = "0.5"  # share of the card's memory for JAX; PyTorch uses the rest
_MAX_PROCESSES = 2
_HEAD = (
    "network",
    "what",
    "side",
    "batch",
    "ms",
    "images/s",
    "ours / this",
    "MFU",
    "roofline",
    "memory, GB",
    "compiled in, s",
)


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_float("minutes", 8.0, "Time limit; measurements that are not finished are skipped.")
    flags.DEFINE_list("networks", list(CONFIGURATIONS), f"Networks, from {', '.join(CONFIGURATIONS)}.")
    flags.DEFINE_list("rows", list(KINDS), f"Kinds of measurements, from {', '.join(KINDS)}.")
    flags.DEFINE_string("output", "runs/gpu_report", "Directory for rows.jsonl and table.md.")
    flags.DEFINE_float("seconds", 2.0, "Duration of each measurement.")
    flags.DEFINE_boolean(
        "peers", True, "Measure PyTorch, too; if not, gradients are compared with those of an earlier run."
    )
    flags.DEFINE_boolean("tiny", False, "Use narrow networks and small batches, as a rehearsal.")


def configuration(name: str, *, tiny: bool) -> Config:
    """The published configuration of a network; with `tiny`, small enough for a CPU."""
    config = config_files.load(CONFIGURATIONS[name])
    config.train.global_batch_size = BATCH.get(name, config.train.global_batch_size)
    if name == "resnet":
        config.model.depth = 18
    if tiny:
        config.model.width = 1.0 if name == "gao" else 0.05
        config.data.crop_size = _TINY_SIDE.get(name, 64)
        config.train.global_batch_size = config.evaluation.batch_size = 4
    return tasks.resolve(config)


@dataclasses.dataclass
class Report:
    """The completed rows, in memory and on disk."""

    directory: pathlib.Path
    where: dict[str, Any]
    end: float
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def seconds_left(self) -> float:
        """Seconds until the time limit."""
        return self.end - time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        """Store a row, write the files, and print the row."""
        self.rows.append(row)
        with (self.directory / "rows.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        (self.directory / "table.md").write_text(self.text() + "\n")
        print(json.dumps(row), flush=True)

    def text(self) -> str:
        """Two Markdown tables, of speed and of errors of gradients, and the failures."""
        ours = {
            (row["network"], row["what"]): row["seconds"]
            for row in self.rows
            if row.get("side") == "ours" and "seconds" in row
        }
        speed = [self._speed(row, ours) for row in self._ordered() if "seconds" in row]
        errors = [
            (f"`{row['network']}`", row["side"], f"{row['loss_error']:.1e}", f"{row['gradient_error']:.1e}")
            for row in self._ordered()
            if "gradient_error" in row
        ]
        failed = [
            f"* `{row['network']}`, {row['what']}, {row['side']}: failed: {row['failed']}"
            for row in self.rows
            if "failed" in row
        ]
        where = ", ".join(f"{name} {value}" for name, value in self.where.items())
        tables = [
            bench_common.table(_HEAD, speed),
            bench_common.table(("network", "side", "error of the loss", "error of the gradients"), errors),
        ]
        return "\n\n".join([where, *tables, *failed])

    def _ordered(self) -> list[dict[str, Any]]:
        """The rows by network, in the order of `CONFIGURATIONS`, then by kind of measurement."""
        return sorted(
            self.rows, key=lambda row: (list(CONFIGURATIONS).index(row["network"]), row["what"] != "train", row["what"])
        )

    def _compile_seconds(self, row: dict[str, Any]) -> Any:
        """Duration of the compilation in seconds; the PyTorch processes write it in an earlier row."""
        key = (row["network"], row["what"], row["side"])
        matches = [other for other in self.rows if (other["network"], other["what"], other["side"]) == key]
        return next((other["compile_seconds"] for other in matches if "compile_seconds" in other), "–")

    def _speed(self, row: dict[str, Any], ours: dict[tuple[str, str], float]) -> tuple[Any, ...]:
        base = ours.get((row["network"], row["what"]))
        rate = row["batch"] / row["seconds"]
        share = base / row["seconds"] if base else "–"
        utilisation = [f"{row[name]:.1%}" if row.get(name) else "–" for name in ("mfu", "roofline_fraction")]
        memory = row["memory_bytes"] / 1e9 if row.get("memory_bytes") else "–"
        return (
            f"`{row['network']}`",
            row["what"],
            row["side"],
            row["batch"],
            1e3 * row["seconds"],
            rate,
            share,
            *utilisation,
            memory,
            self._compile_seconds(row),
        )


class Peers:
    """The PyTorch processes: at most `_MAX_PROCESSES` run at a time, in order; `poll` reads their rows."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._waiting: list[pathlib.Path] = []
        self._running: dict[pathlib.Path, subprocess.Popen] = {}
        self._num_lines_read: dict[pathlib.Path, int] = {}

    def ask(self, kind: str, name: str, config: Config, num_outputs: int, seconds: float) -> None:
        """Queue a request of one kind, `peer` or `reference`, for a network."""
        path = self._report.directory / f"{name}_{kind}.json"
        request = {
            "kind": kind,
            "network": name,
            "config": configs.to_dict(config),
            "num_outputs": num_outputs,
            "seconds": seconds,
            "directory": str(self._report.directory),
        }
        path.write_text(json.dumps(request))
        self._waiting.append(path)
        self.poll()

    def poll(self) -> bool:
        """Read new rows and start waiting requests; returns whether any process is running."""
        for path, process in list(self._running.items()):
            if process.poll() is not None:
                del self._running[path]
                if process.returncode:
                    log = " ".join(path.with_suffix(".log").read_text()[-500:].split())
                    name, kind = path.stem.rsplit("_", 1)
                    self._report.add(
                        {
                            "network": name,
                            "what": kind,
                            "side": "PyTorch",
                            "failed": f"exit {process.returncode}: {log}",
                        }
                    )
            self._read_rows(path.with_suffix(".jsonl"))
        for path in [path for path in self._waiting if self._is_ready(path)]:
            if len(self._running) < _MAX_PROCESSES:
                self._waiting.remove(path)
                self._start(path)
        return bool(self._running)

    def _is_ready(self, path: pathlib.Path) -> bool:
        """A reference also checks the gradients of the peer, so it must wait for them."""
        name, kind = path.stem.rsplit("_", 1)
        return kind == "peer" or (path.parent / f"{name}_peer.npz").exists()

    def _start(self, path: pathlib.Path) -> None:
        # The twins import configurations and layer tables from our package and thus JAX, which must not use the card.
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "scripts.peers.process", str(path)]
        with path.with_suffix(".log").open("w") as log:
            self._running[path] = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def _read_rows(self, path: pathlib.Path) -> None:
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines[self._num_lines_read.get(path, 0) :]:
            self._report.add(json.loads(line))
        self._num_lines_read[path] = len(lines)

    def close(self) -> None:
        """Stop the running processes."""
        for process in self._running.values():
            process.kill()


class Card:
    """Our own measurements on the card."""

    def __init__(self, report: Report, seconds: float) -> None:
        self.report, self.seconds = report, seconds
        self.lock = filelock.FileLock(report.directory / protocol.LOCK)
        self.chip = chips.find(jax.devices()[0].device_kind)

    def row(self, name: str, what: str, side: str, batch: int, timing_: bench_common.Timing, **more: Any) -> None:
        """Add the row of a timing to the report."""
        self.report.add(
            {
                "network": name,
                "what": what,
                "side": side,
                "batch": batch,
                "seconds": timing_.median,
                "low": timing_.low,
                "high": timing_.high,
                "rounds": timing_.rounds,
                **more,
            }
        )

    def save_probe(self, name: str, synthetic: synthetic_step.SyntheticStep) -> None:
        """Save the parameters, and a small batch for gradients, for PyTorch."""
        trees = packing.unpack((synthetic.state.params, synthetic.state.batch_stats))
        leaves = {path: np.asarray(leaf) for tree in trees for path, leaf in states.leaves_by_path(tree).items()}
        protocol.save_arrays(self.report.directory / f"{name}_parameters.npz", leaves)
        protocol.save_arrays(self.report.directory / f"{name}_probe.npz", synthetic_step.noise(probe(synthetic.config)))

    def train(self, name: str, config: Config, synthetic: synthetic_step.SyntheticStep, side: str = "ours") -> None:
        """Time the compiled training step on a batch that stays on the card."""
        per_call, size = config.train.steps_per_call, config.train.global_batch_size
        flops = model_flops.model_flops(config, synthetic.num_outputs, size)
        with self.lock:  # the compiler benchmarks algorithms on the card
            start = time.perf_counter()
            compiled = synthetic.compile()[1]
            seconds = time.perf_counter() - start
            dispatch = synthetic_step.runner(compiled, synthetic)

            def run_steps(count: int) -> None:
                jax.block_until_ready([dispatch() for _ in range(count)][-1])

            measured = bench_common.time_steps(run_steps, self.seconds)
        measured = dataclasses.replace(
            measured, median=measured.median / per_call, low=measured.low / per_call, high=measured.high / per_call
        )
        program = timing.analyse(compiled, flops)
        efficiency = timing.efficiency(
            program, measured.median, devices=1, chip=self.chip, dtype=states.compute_dtype(config).name
        )
        self.row(
            name,
            "train",
            side,
            size,
            measured,
            memory_bytes=program.memory_bytes,
            compile_seconds=seconds,
            flops=flops,
            bytes_accessed=program.bytes_accessed,
            **efficiency,
        )

    def predict(self, name: str, config: Config, synthetic: synthetic_step.SyntheticStep) -> None:
        """Time the prediction of a batch with the size of the training batch."""
        parameters = packing.unpack((synthetic.state.ema_params, synthetic.state.ema_batch_stats))
        run = jax.jit(steps.make_predict_step(synthetic.network, tasks.kind(config).decode))
        with self.lock:
            start = time.perf_counter()
            jax.block_until_ready(run(*parameters, synthetic.batch["image"], synthetic.batch["tone_curve"]))
            seconds = time.perf_counter() - start

            def run_steps(count: int) -> None:
                for _ in range(count):
                    result = run(*parameters, synthetic.batch["image"], synthetic.batch["tone_curve"])
                jax.block_until_ready(result)

            measured = bench_common.time_steps(run_steps, self.seconds)
        self.row(name, "predict", "ours", config.train.global_batch_size, measured, compile_seconds=seconds)

    def gradients(self, name: str, config: Config, synthetic: synthetic_step.SyntheticStep) -> None:
        """Save the gradients of the small batch in bfloat16, and in float32 at the highest precision."""
        batch = synthetic_step.noise(probe(config))
        weights = np.ones(synthetic.num_outputs, np.float32)
        params, stats = packing.unpack((synthetic.state.params, synthetic.state.batch_stats))
        for dtype, precision in (("bfloat16", "default"), ("float32", "highest")):
            chosen = dataclasses.replace(config, train=dataclasses.replace(config.train, compute_dtype=dtype))
            loss_fn = steps.make_loss(
                chosen, states.make_network(chosen, synthetic.num_outputs), tasks.kind(chosen).loss
            )
            with self.lock, jax.default_matmul_precision(precision):
                grad_fn = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
                (loss, _), gradients = jax.device_get(grad_fn(params, stats, batch, weights, jax.random.key(0)))
            arrays = {path: np.asarray(leaf, np.float32) for path, leaf in states.leaves_by_path(gradients).items()}
            protocol.save_arrays(self.report.directory / f"{name}_{dtype}.npz", arrays | {"loss": np.asarray(loss)})

    def fed(self, name: str, config: Config, warp: str) -> None:
        """Time the step with its input pipeline, and measure how long it waits for data."""
        data = dataclasses.replace(config.data, warp=warp, builder_config=DATA)
        config = dataclasses.replace(config, data=data)
        result = bench_zoo.measure(config, calls=20, repeats=5, lock=self.lock)
        size = config.train.global_batch_size
        for side, key in ((f"{warp} warp, alone", "alone_ms"), (f"{warp} warp, with data", "fed_ms")):
            row = {"network": name, "what": "data", "side": side, "batch": size, "seconds": result[key] / 1e3}
            self.report.add(row | {"waiting_percent": result["waiting_percent"], "ratio": result["ratio"]})


def probe(config: Config) -> Config:
    """The configuration with a small batch, for which a CPU computes float64 gradients in seconds."""
    side = config.data.crop_size if config.model.name in ("gao", "resnet") else 64
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, crop_size=side),
        train=dataclasses.replace(config.train, global_batch_size=8),
    )


def work(
    card: Card, peers: Peers, networks: Sequence[str], *, tiny: bool, with_peers: bool
) -> Iterator[tuple[str, str, Callable[[], None]]]:
    """Yield (network, kind of measurement, function that measures), most important first."""
    configurations = {name: configuration(name, tiny=tiny) for name in networks}

    def step(name: str) -> None:
        synthetic = synthetic_step.make(configurations[name])
        card.save_probe(name, synthetic)
        if with_peers:
            peers.ask("peer", name, configurations[name], synthetic.num_outputs, card.seconds)
        card.train(name, configurations[name], synthetic)

    def gradients(name: str) -> None:
        synthetic = synthetic_step.make(configurations[name])
        card.gradients(name, configurations[name], synthetic)
        peers.ask("reference", name, configurations[name], synthetic.num_outputs, card.seconds)

    def several(name: str) -> None:
        config = dataclasses.replace(
            configurations[name], train=dataclasses.replace(configurations[name].train, steps_per_call=PER_CALL)
        )
        card.train(name, config, synthetic_step.make(config), f"ours, {PER_CALL} steps a call")

    for name in networks:
        yield name, "train", lambda name=name: step(name)
    for name in [name for name in ("fcn", "gao") if name in networks]:
        for warp in ("host", "device"):
            yield name, "data", lambda name=name, warp=warp: card.fed(name, configurations[name], warp)
    for name in networks:
        yield name, "gradients", lambda name=name: gradients(name)
        yield (
            name,
            "predict",
            lambda name=name: card.predict(name, configurations[name], synthetic_step.make(configurations[name])),
        )
    for name in [name for name in ("gao", "resnet", "fcn") if name in networks]:
        yield name, "several", lambda name=name: several(name)


def main(argv: Sequence[str]) -> None:
    """Measure until the time limit, then print the table and, as the last line, one JSON object."""
    del argv
    options = flags.FLAGS
    end = time.monotonic() + 60 * options.minutes
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", _MEMORY_SHARE)
    directory = pathlib.Path(options.output).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    data = _prepare(directory)
    cli.prepare_runtime()
    report = Report(directory, bench_common.machine(), end)
    card, peers = Card(report, options.seconds), Peers(report)
    try:
        for name, what, run in work(card, peers, options.networks, tiny=options.tiny, with_peers=options.peers):
            if report.seconds_left < 5:
                break
            if what not in options.rows:
                continue
            if what == "data":
                data.wait(max(1.0, report.seconds_left))
            _attempt(report, name, what, run)
            peers.poll()
            time.sleep(0.5)  # let a waiting process get the lock, for which it polls twenty times per second
        while peers.poll() and report.seconds_left > 0:
            time.sleep(0.2)
    finally:
        peers.close()
        data.kill()
    print(report.text())
    print(json.dumps({"benchmark": "gpu_report", **report.where, "rows": report.rows}))


def _attempt(report: Report, name: str, what: str, run: Callable[[], None]) -> None:
    try:
        run()
    except Exception as error:  # continue with the other measurements
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        report.add({"network": name, "what": what, "side": "ours", "failed": text})


def _prepare(directory: pathlib.Path) -> subprocess.Popen:
    """Build the synthetic data set in a separate process during the first measurements."""
    command = [sys.executable, "-m", "scripts.prepare_data", "--name=hep2_synthetic", f"--builder_config={DATA}"]
    with (directory / "prepare.log").open("w") as log:
        return subprocess.Popen(
            command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stdout=log, stderr=subprocess.STDOUT
        )


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
