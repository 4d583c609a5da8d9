"""PyTorch part of `scripts.gpu_report`, with one process per network: `python -m scripts.peers.process FILE`.

FILE is a JSON request: `config`, `num_outputs`, `kind` (`peer` or `reference`), `network`, `directory`, `seconds`. The
directory contains `<network>_probe.npz` and `<network>_parameters.npz`, written by the report. Each completed row is
appended to `<network>_<kind>.jsonl`.
"""

import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import filelock
import numpy as np
import torch  # pyright: ignore[reportMissingImports]

from hep2jax import config as configs
from hep2jax.config import Config
from scripts import bench_common
from scripts.peers import networks, protocol, training

WAYS = {"PyTorch, eager": "bfloat16", "torch.compile": "compile_bfloat16"}


class Process:
    """The common parts of both kinds of processes: the request, the network with our parameters, and the rows."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.directory, self.network = pathlib.Path(request["directory"]), request["network"]
        self.config: Config = configs.from_dict(request["config"])
        self.num_outputs, self.seconds, self.kind = request["num_outputs"], request["seconds"], request["kind"]
        self.lock = filelock.FileLock(self.directory / protocol.LOCK)
        self.probe = protocol.load_arrays(self.directory / f"{self.network}_probe.npz")
        self.weights = torch.ones(self.num_outputs)

    def trainer(self, way: str, device: str) -> tuple[training.Trainer, torch.nn.Module]:
        """A trainer that starts with our parameters, and its network."""
        model = networks.build(self.config.model, self.num_outputs)
        ours = protocol.load_arrays(self.directory / f"{self.network}_parameters.npz")
        networks.copy_parameters(model, protocol.nested(ours), {})
        return training.Trainer(model, self.config, training.WAYS[way], device), model

    def say(self, **row: Any) -> None:
        """Append a row to the file of this process."""
        with (self.directory / f"{self.network}_{self.kind}.jsonl").open("a") as file:
            file.write(json.dumps({"network": self.network, **row}) + "\n")

    def batch(self) -> dict[str, np.ndarray]:
        """A batch of noise with the size of the training batch."""
        from scripts import synthetic_step

        return synthetic_step.noise(self.config)


def peer(process: Process) -> None:
    """Time training step and prediction, eager and compiled, in bfloat16, and save the gradients of the probe.

    Everything is compiled before the lock is taken, because compilation may run in parallel with other processes.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True  # shapes are constant
    functions = {}
    for side, way in WAYS.items():
        for what, make in (("train", _train), ("predict", _predict)):
            start = time.perf_counter()
            try:
                functions[what, side] = make(process, way, device)
                process.say(what=what, side=side, compile_seconds=time.perf_counter() - start)
            except Exception as error:  # for example, out of memory, or a missing requirement of torch.compile
                text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                process.say(what=what, side=side, failed=text)
    with process.lock:
        for (what, side), run_steps in functions.items():
            _measure(process, what, side, run_steps)
        trainer, _ = process.trainer("bfloat16", device)
        loss, gradients = trainer.gradients(trainer.put(process.probe), process.weights.to(device))
        arrays = {name: value.float().cpu().numpy() for name, value in gradients.items()}
    protocol.save_arrays(
        process.directory / f"{process.network}_peer.npz", arrays | {"loss": loss.float().cpu().numpy()}
    )


def _measure(process: Process, what: str, side: str, run_steps: Callable[[int], None]) -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    measured = bench_common.time_steps(run_steps, process.seconds)
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    size = process.config.train.global_batch_size
    times = {"seconds": measured.median, "low": measured.low, "high": measured.high, "rounds": measured.rounds}
    process.say(what=what, side=side, batch=size, **times, memory_bytes=memory)


def _train(process: Process, way: str, device: str) -> Callable[[int], None]:
    trainer, _ = process.trainer(way, device)
    batch, weights = trainer.put(process.batch()), process.weights.to(device)

    def run_steps(steps: int) -> None:
        for _ in range(steps):
            trainer.step(batch, weights)
        trainer.wait()

    run_steps(2)
    return run_steps


def _predict(process: Process, way: str, device: str) -> Callable[[int], None]:
    trainer, _ = process.trainer(way, device)
    batch = trainer.put(process.batch())

    def run_steps(steps: int) -> None:
        for _ in range(steps):
            trainer.predict(batch)
        trainer.wait()

    run_steps(2)
    return run_steps


def reference(process: Process) -> None:
    """Compare gradients of the probe with float64 on the CPU: ours in both precisions, and those of the peer."""
    trainer, model = process.trainer("reference", "cpu")
    loss, gradients = trainer.gradients(trainer.put(process.probe), process.weights.double())
    truth = {name: value.numpy() for name, value in gradients.items()}
    for side, name in (("ours, bfloat16", "bfloat16"), ("ours, float32", "float32"), ("PyTorch, bfloat16", "peer")):
        arrays = protocol.load_arrays(process.directory / f"{process.network}_{name}.npz")
        computed_loss = float(arrays.pop("loss"))
        if name != "peer":
            arrays = {key: value.numpy() for key, value in networks.renamed(model, protocol.nested(arrays)).items()}
        process.say(
            what="probe",
            side=side,
            loss_error=abs(computed_loss - loss.item()) / abs(loss.item()),
            gradient_error=relative_error(arrays, truth),
        )


def relative_error(arrays: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> float:
    """Norm of the differences of all arrays relative to the norm of the truth; NaN if a value is NaN.

    Raises:
        ValueError: the names of the arrays differ.
    """
    if arrays.keys() != truth.keys():
        raise ValueError(f"not the same arrays: {sorted(arrays.keys() ^ truth.keys())[:5]}")
    squared_error = sum(float(np.square(arrays[name].astype(np.float64) - truth[name]).sum()) for name in truth)
    return (squared_error / sum(float(np.square(values).sum()) for values in truth.values())) ** 0.5


if __name__ == "__main__":
    torch.set_num_threads(bench_common.num_threads())
    process = Process(json.loads(pathlib.Path(sys.argv[1]).read_text()))
    {"peer": peer, "reference": reference}[process.kind](process)
