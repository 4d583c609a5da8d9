"""What one GPU says of the published networks in a few minutes: are they right on it, and how fast beside PyTorch?

    python -m scripts.gpu_report --minutes=8 [--networks=fcn,gao,resnet,dsfcn,unet] [--output=runs/gpu_report]

Every network trains in bfloat16 on batches of noise at its published size, beside the same network in PyTorch on the
same card: eager and `torch.compile`, channels last, autocast to bfloat16, same batch, same parameters at the start.
Then steps with their data (host and device warp), several steps a call, and prediction. Gradients of a small batch are
compared with PyTorch in float64 on the CPU, by norm. PyTorch works in processes of its own, one a network; a lock keeps
timings apart, and compilations run beside each other, so that a short lease is used. Each row is written to
`rows.jsonl` and `table.md` in the output directory as soon as it is had: a run that is cut off still tells.

`--tiny` rehearses all of it in small sizes, on whatever device there is. `python -m scripts.fetch_wheels` fetches what
a machine lacks that has jax, flax, optax, orbax and PyTorch, and no network.
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
"""The configuration of each network, the most telling first."""
BATCH = {"unet": 64}
"""Where the configuration's batch leaves no room for two frameworks on a card of 80 GB."""
DATA = "specimens"
"""The synthetic set that steps are fed from: small fields, as whole camera frames take minutes to make."""
PER_CALL = 8
KINDS = ("train", "data", "gradients", "predict", "several")
_TINY_SIDE = {"gao": 78, "resnet": 32}
_MEMORY_SHARE = "0.5"  # of the card for JAX; PyTorch takes the rest
_CHILDREN = 2
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
    """The command's own flags."""
    flags.DEFINE_float("minutes", 8.0, "When to end, whatever is not yet had.")
    flags.DEFINE_list("networks", list(CONFIGURATIONS), f"Of {', '.join(CONFIGURATIONS)}.")
    flags.DEFINE_list("rows", list(KINDS), f"Of {', '.join(KINDS)}.")
    flags.DEFINE_string("output", "runs/gpu_report", "Directory for rows.jsonl and table.md.")
    flags.DEFINE_float("seconds", 2.0, "How long each thing is timed.")
    flags.DEFINE_boolean("peers", True, "Measure PyTorch, too; without, its gradients of an earlier run are compared.")
    flags.DEFINE_boolean("tiny", False, "Narrow networks on small batches: a rehearsal.")


def configuration(name: str, *, tiny: bool) -> Config:
    """The published configuration of a network; `tiny`: the same, small enough for a CPU."""
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
    """The rows that are had, on disk and in memory."""

    directory: pathlib.Path
    where: dict[str, Any]
    end: float
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row, write it down, show it."""
        self.rows.append(row)
        with (self.directory / "rows.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        (self.directory / "table.md").write_text(self.text() + "\n")
        print(json.dumps(row), flush=True)

    def text(self) -> str:
        """Two tables: speed, and errors of gradients."""
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
        """By network, in the order of `CONFIGURATIONS`, then by what was measured."""
        return sorted(
            self.rows, key=lambda row: (list(CONFIGURATIONS).index(row["network"]), row["what"] != "train", row["what"])
        )

    def _compiled(self, row: dict[str, Any]) -> Any:
        """Seconds that the compilation took; PyTorch's processes say it before the step's time."""
        what = (row["network"], row["what"], row["side"])
        said = [one for one in self.rows if (one["network"], one["what"], one["side"]) == what]
        return next((one["compile_seconds"] for one in said if "compile_seconds" in one), "–")

    def _speed(self, row: dict[str, Any], ours: dict[tuple[str, str], float]) -> tuple[Any, ...]:
        base = ours.get((row["network"], row["what"]))
        rate = row["batch"] / row["seconds"]
        share = base / row["seconds"] if base else "–"
        figures = [f"{row[name]:.1%}" if row.get(name) else "–" for name in ("mfu", "roofline_fraction")]
        memory = row["memory_bytes"] / 1e9 if row.get("memory_bytes") else "–"
        return (
            f"`{row['network']}`",
            row["what"],
            row["side"],
            row["batch"],
            1e3 * row["seconds"],
            rate,
            share,
            *figures,
            memory,
            self._compiled(row),
        )


class Peers:
    """PyTorch's processes: at most `_CHILDREN` at a time, in order; their rows are taken in by `poll`."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._waiting: list[pathlib.Path] = []
        self._running: dict[pathlib.Path, subprocess.Popen] = {}
        self._read: dict[pathlib.Path, int] = {}

    def ask(self, kind: str, name: str, config: Config, num_outputs: int, seconds: float) -> None:
        """Queue a request."""
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
        """Take in new rows, start what waits; whether anything is still to come."""
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
            self._take(path.with_suffix(".jsonl"))
        for path in [path for path in self._waiting if self._is_ready(path)]:
            if len(self._running) < _CHILDREN:
                self._waiting.remove(path)
                self._start(path)
        return bool(self._running)

    def _is_ready(self, path: pathlib.Path) -> bool:
        """A reference is compared with the gradients of the peer, too, which come first."""
        name, kind = path.stem.rsplit("_", 1)
        return kind == "peer" or (path.parent / f"{name}_peer.npz").exists()

    def _start(self, path: pathlib.Path) -> None:
        # The twins take configurations and layer tables from our package: its JAX must leave the card alone.
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "scripts.peers.process", str(path)]
        with path.with_suffix(".log").open("w") as log:
            self._running[path] = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def _take(self, path: pathlib.Path) -> None:
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines[self._read.get(path, 0) :]:
            self._report.add(json.loads(line))
        self._read[path] = len(lines)

    def close(self) -> None:
        """End what runs."""
        for process in self._running.values():
            process.kill()


class Card:
    """Our side of the measurements."""

    def __init__(self, report: Report, seconds: float) -> None:
        self.report, self.seconds = report, seconds
        self.lock = filelock.FileLock(report.directory / protocol.LOCK)
        self.chip = chips.find(jax.devices()[0].device_kind)

    def row(self, name: str, what: str, side: str, batch: int, timing_: bench_common.Timing, **more: Any) -> None:
        """Write down a timing."""
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

    def save_probe(self, name: str, made: synthetic_step.SyntheticStep) -> None:
        """The parameters, and a small batch for gradients, for PyTorch."""
        trees = packing.unpack((made.state.params, made.state.batch_stats))
        leaves = {path: np.asarray(leaf) for tree in trees for path, leaf in states.leaves_by_path(tree).items()}
        protocol.save_arrays(self.report.directory / f"{name}_parameters.npz", leaves)
        protocol.save_arrays(self.report.directory / f"{name}_probe.npz", synthetic_step.noise(probe(made.config)))

    def train(self, name: str, config: Config, made: synthetic_step.SyntheticStep, side: str = "ours") -> None:
        """The compiled training step on a batch that stays on the card."""
        per_call, size = config.train.steps_per_call, config.train.global_batch_size
        flops = model_flops.model_flops(config, made.num_outputs, size)
        with self.lock:  # the compiler tries algorithms out on the card
            start = time.perf_counter()
            compiled = made.compile()[1]
            seconds = time.perf_counter() - start
            dispatch = synthetic_step.runner(compiled, made)

            def several(count: int) -> None:
                jax.block_until_ready([dispatch() for _ in range(count)][-1])

            measured = bench_common.timed(several, self.seconds)
        measured = dataclasses.replace(
            measured, median=measured.median / per_call, low=measured.low / per_call, high=measured.high / per_call
        )
        program = timing.analyse(compiled, flops)
        figures = timing.efficiency(
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
            **figures,
        )

    def predict(self, name: str, config: Config, made: synthetic_step.SyntheticStep) -> None:
        """Probabilities of a batch of the training's size."""
        parameters = packing.unpack((made.state.ema_params, made.state.ema_batch_stats))
        run = jax.jit(steps.make_predict_step(made.network, tasks.kind(config).decode))
        with self.lock:
            start = time.perf_counter()
            jax.block_until_ready(run(*parameters, made.batch["image"], made.batch["tone_curve"]))
            seconds = time.perf_counter() - start

            def several(count: int) -> None:
                for _ in range(count):
                    result = run(*parameters, made.batch["image"], made.batch["tone_curve"])
                jax.block_until_ready(result)

            measured = bench_common.timed(several, self.seconds)
        self.row(name, "predict", "ours", config.train.global_batch_size, measured, compile_seconds=seconds)

    def gradients(self, name: str, config: Config, made: synthetic_step.SyntheticStep) -> None:
        """Gradients of the small batch in bfloat16 and in float32 at the highest precision, for the comparison."""
        batch = synthetic_step.noise(probe(config))
        weights = np.ones(made.num_outputs, np.float32)
        params, stats = packing.unpack((made.state.params, made.state.batch_stats))
        for dtype, precision in (("bfloat16", "default"), ("float32", "highest")):
            chosen = dataclasses.replace(config, train=dataclasses.replace(config.train, compute_dtype=dtype))
            loss_fn = steps.make_loss(chosen, states.make_network(chosen, made.num_outputs), tasks.kind(chosen).loss)
            with self.lock, jax.default_matmul_precision(precision):
                grad_fn = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
                (loss, _), gradients = jax.device_get(grad_fn(params, stats, batch, weights, jax.random.key(0)))
            arrays = {path: np.asarray(leaf, np.float32) for path, leaf in states.leaves_by_path(gradients).items()}
            protocol.save_arrays(self.report.directory / f"{name}_{dtype}.npz", arrays | {"loss": np.asarray(loss)})

    def fed(self, name: str, config: Config, warp: str) -> None:
        """The step with its data, and how long it waits for them."""
        data = dataclasses.replace(config.data, warp=warp, builder_config=DATA)
        config = dataclasses.replace(config, data=data)
        found = bench_zoo.measure(config, calls=20, repeats=5, lock=self.lock)
        size = config.train.global_batch_size
        for side, key in ((f"{warp} warp, alone", "alone_ms"), (f"{warp} warp, with data", "fed_ms")):
            row = {"network": name, "what": "data", "side": side, "batch": size, "seconds": found[key] / 1e3}
            self.report.add(row | {"waiting_percent": found["waiting_percent"], "ratio": found["ratio"]})


def probe(config: Config) -> Config:
    """The same network on a batch that a CPU computes in float64 in seconds."""
    side = config.data.crop_size if config.model.name in ("gao", "resnet") else 64
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, crop_size=side),
        train=dataclasses.replace(config.train, global_batch_size=8),
    )


def work(
    card: Card, peers: Peers, networks: Sequence[str], *, tiny: bool, with_peers: bool
) -> Iterator[tuple[str, str, Callable[[], None]]]:
    """(network, what, how), the most important first."""
    chosen = {name: configuration(name, tiny=tiny) for name in networks}

    def step(name: str) -> None:
        made = synthetic_step.make(chosen[name])
        card.save_probe(name, made)
        if with_peers:
            peers.ask("peer", name, chosen[name], made.num_outputs, card.seconds)
        card.train(name, chosen[name], made)

    def gradients(name: str) -> None:
        made = synthetic_step.make(chosen[name])
        card.gradients(name, chosen[name], made)
        peers.ask("reference", name, chosen[name], made.num_outputs, card.seconds)

    def several(name: str) -> None:
        config = dataclasses.replace(
            chosen[name], train=dataclasses.replace(chosen[name].train, steps_per_call=PER_CALL)
        )
        card.train(name, config, synthetic_step.make(config), f"ours, {PER_CALL} steps a call")

    for name in networks:
        yield name, "train", lambda name=name: step(name)
    for name in [name for name in ("fcn", "gao") if name in networks]:
        for warp in ("host", "device"):
            yield name, "data", lambda name=name, warp=warp: card.fed(name, chosen[name], warp)
    for name in networks:
        yield name, "gradients", lambda name=name: gradients(name)
        yield name, "predict", lambda name=name: card.predict(name, chosen[name], synthetic_step.make(chosen[name]))
    for name in [name for name in ("gao", "resnet", "fcn") if name in networks]:
        yield name, "several", lambda name=name: several(name)


def main(argv: Sequence[str]) -> None:
    """Measure until the time is up; the table and, last, one JSON object."""
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
            if report.left < 5:
                break
            if what not in options.rows:
                continue
            if what == "data":
                data.wait(max(1.0, report.left))
            _attempt(report, name, what, run)
            peers.poll()
            time.sleep(0.5)  # whoever waits for the card asks for it twenty times a second
        while peers.poll() and report.left > 0:
            time.sleep(0.2)
    finally:
        peers.close()
        data.kill()
    print(report.text())
    print(json.dumps({"benchmark": "gpu_report", **report.where, "rows": report.rows}))


def _attempt(report: Report, name: str, what: str, run: Callable[[], None]) -> None:
    try:
        run()
    except Exception as error:  # one network's failure must not cost the others their time on the card
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        report.add({"network": name, "what": what, "side": "ours", "failed": text})


def _prepare(directory: pathlib.Path) -> subprocess.Popen:
    """Builds the synthetic data set in a process beside the first measurements."""
    command = [sys.executable, "-m", "scripts.prepare_data", "--name=hep2_synthetic", f"--builder_config={DATA}"]
    with (directory / "prepare.log").open("w") as log:
        return subprocess.Popen(
            command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stdout=log, stderr=subprocess.STDOUT
        )


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
