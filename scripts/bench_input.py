"""Compares input pipelines for the same network: ours, ours without the warp, and PyTorch's DataLoader.

    python -m scripts.bench_input --config=configs/cnn.py [--workers=2] [--repeats=7] [--seconds=2]

`configs/fcn.py` measures crops of fields with masks instead of cells; both use the embedded synthetic set. For real
cells: `--config=configs/icpr2014_gao.py --config.data.manual_dir=DIR --config.data.split_lists=LISTS`. Every variant
makes batches as fast as possible, and the batches are not used; on a machine with few cores, a training step would also
need its share of the cores.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import jax
import numpy as np
from absl import flags

from hep2jax import cli, tasks
from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data.splits import protocols
from hep2jax.data.streams import cells as cell_stream
from hep2jax.data.streams import feeding
from hep2jax.tasks import Task
from hep2jax.tasks.cells import CellTask
from hep2jax.tasks.fields import FieldTask
from scripts import bench_common

_STEPS = 10**9
PEERS = ("DataLoader", "DataLoader, no workers")
"""The variants of the peer. Rates are compared with the fastest of them: which one that is depends on the machine."""


def define_flags() -> None:
    """Define the flags of an experiment and of this command."""
    cli.define_experiment_flags()
    flags.DEFINE_integer("workers", 2, "Number of processes of the DataLoader, and of threads of our stream.")
    flags.DEFINE_integer("repeats", 7, "Number of rounds; every variant is measured once in each.")
    flags.DEFINE_float("seconds", 2.0, "Duration of one measurement of a variant.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """The input of every variant: the training split of a data set, decoded and in memory."""

    task: Task
    indices: Sequence[int]
    workers: int

    @property
    def batch_size(self) -> int:
        """Number of examples in a batch."""
        return self.task.config.train.global_batch_size

    def dataset(self, warp: str = "host") -> grain.MapDataset:
        """The batches of a training run; with `warp="device"`, they consist of indices and matrices."""
        config = self.task.config
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, warp=warp))
        return _with_config(self.task, config).stream(self.indices, slice(0, self.batch_size)).dataset(0, _STEPS)


def _with_config(task: Task, config: Config) -> Task:
    if isinstance(task, CellTask):
        return CellTask(config, task.cells)
    assert isinstance(task, FieldTask)
    return FieldTask(config, task.fields)


def loader(source: Source, workers: int) -> Iterator[Any]:
    """A DataLoader with this number of processes; with 0, it works in the calling thread."""
    from scripts.peers import loader as peer

    task = source.task
    if isinstance(task, CellTask):
        examples = peer.Cells([task.cells.cells[i] for i in source.indices], task.config)
    else:
        assert isinstance(task, FieldTask)
        examples = peer.Crops([task.fields.fields[i] for i in source.indices], task.config)
    return peer.batches(examples, source.batch_size, workers)


def threaded(dataset: grain.MapDataset, threads: int) -> Iterator[Any]:
    """Batches from this number of threads, each prefetching two; with 0, the calling thread makes them."""
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))


def prefetched(source: Source, warp: str = "host") -> Iterator[Any]:
    """Batches as in training: one thread makes them and puts them on the devices."""
    return feeding.prefetched(source.dataset(warp), meshes.make_mesh(), source.task.config.train.prefetch)


def from_memory(source: Source) -> Iterator[Any]:
    """Batches gathered from prepared examples by random indices, without augmentation."""
    arrays = _network_inputs(source)
    count, size = len(source.indices), source.batch_size

    def batch(step: int) -> dict[str, np.ndarray]:
        indices = np.random.default_rng((source.task.config.seed, step)).integers(count, size=size)
        return {name: values.take(indices, axis=0) for name, values in arrays.items()}

    return threaded(grain.MapDataset.range(0, _STEPS).map(batch), 0)


def _network_inputs(source: Source) -> dict[str, np.ndarray]:
    """All examples as network inputs without augmentation; a field is represented by its top left crop."""
    task, side = source.task, source.task.config.data.crop_size
    if isinstance(task, CellTask):
        cells = [task.cells.cells[i] for i in source.indices]
        images = [cell_stream.plain_input(cell.ready, side) for cell in cells]
        labels = np.array([cell.item.pattern for cell in cells], np.int32)
        return {
            "image": np.stack(images),
            "labels": labels,
            "tone_curve": np.stack([cell.tone_curve for cell in cells]),
        }
    assert isinstance(task, FieldTask)
    fields = [task.fields.fields[i] for i in source.indices]
    return {
        "image": np.stack([field.working_image[:side, :side] for field in fields]),
        "labels": np.stack([field.working_classes[:side, :side] for field in fields]),
        "tone_curve": np.array([(field.grey_offset, field.grey_gain, 1, 0) for field in fields], np.float32),
    }


VARIANTS: dict[str, Callable[[Source], Iterator[Any]]] = {
    # The DataLoader must be first: it forks, which is unsafe after JAX has started its threads.
    PEERS[0]: lambda source: loader(source, source.workers),
    PEERS[1]: lambda source: loader(source, 0),
    "stream, no threads": lambda source: threaded(source.dataset(), 0),
    "stream": lambda source: threaded(source.dataset(), source.workers),
    "stream, as device arrays": prefetched,
    "indices (warp on the device), no threads": lambda source: threaded(source.dataset("device"), 0),
    "indices, as device arrays": lambda source: prefetched(source, "device"),
    "memory, no warp, no threads": from_memory,
}
"""The ways to make the same batches, by name; those with `workers` use this number of processes or threads."""


def main(argv: Sequence[str]) -> None:
    """Measure, then print the table and, as the last line, one JSON object."""
    del argv
    bench_common.need_torch()
    config, _ = cli.experiment()
    cli.prepare_runtime()
    task = tasks.load(config)
    train = protocols.partition(config.data, task.name, task.items, task.classes).train
    source = Source(task=task, indices=train, workers=flags.FLAGS.workers)
    rounds = measure(source, flags.FLAGS.repeats, flags.FLAGS.seconds)
    rates = bench_common.medians(rounds)
    peer = max(PEERS, key=lambda name: rates[name])
    ratios = bench_common.ratios(rounds, peer)
    where = bench_common.machine()
    description = {
        "data": config.data.name,
        "model": config.model.name,
        "examples": len(train),
        "side": config.data.crop_size,
    }
    bench_common.say_where({**description, "batch": source.batch_size, "workers": source.workers, **where})
    rows = [(name, rate, ratios[name]) for name, rate in rates.items()]
    print(bench_common.table(("variant", "examples/s", f"over {peer}"), rows))
    result = {"benchmark": "input", **description, "batch": source.batch_size, "workers": source.workers, **where}
    print(json.dumps({**result, "examples_per_second": rates, "peer": peer, "ratio": ratios}))


def measure(source: Source, repeats: int, seconds: float) -> bench_common.Rounds:
    """Examples/s of every variant, by round."""
    iterators = {name: make(source) for name, make in VARIANTS.items()}
    measurements = {name: _measurement(batches, source, seconds) for name, batches in iterators.items()}
    try:
        return bench_common.interleaved(measurements, repeats)
    finally:
        for batches in iterators.values():
            if isinstance(batches, grain.DatasetIterator):
                batches.close()


def _measurement(batches: Iterator[Any], source: Source, seconds: float) -> Callable[[], float]:
    """A function that measures one round."""
    # While other variants were measured, the workers filled their queues. These batches would be free, so skip them.
    queued = max(2 * source.workers, source.task.config.train.prefetch) + 1

    def run() -> float:
        for batch in itertools.islice(batches, 2 * queued):
            jax.block_until_ready(batch)
        count, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            jax.block_until_ready(next(batches))
            count += 1
        return count * source.batch_size / elapsed

    return run


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
