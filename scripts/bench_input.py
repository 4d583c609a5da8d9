"""Input pipelines side by side, each feeding the same network: ours, ours without the warp, PyTorch's DataLoader.

    python -m scripts.bench_input --config=configs/cnn.py [--workers=2] [--repeats=7] [--seconds=2]

`configs/fcn.py`: crops of fields with their masks instead of cells; both on the embedded synthetic set. Real cells:
`--config=configs/icpr2014_gao.py --config.data.manual_dir=DIR --config.data.split_lists=LISTS`. Every variant makes
whole batches as fast as it can and nobody uses them: on a machine with few cores the step takes its share of them.
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
PEER = "DataLoader"


def define_flags() -> None:
    """The experiment's flags and the command's own."""
    cli.define_experiment_flags()
    flags.DEFINE_integer("workers", 2, "Processes of the DataLoader; threads of our stream beside it.")
    flags.DEFINE_integer("repeats", 7, "Rounds; every variant is measured once in each.")
    flags.DEFINE_float("seconds", 2.0, "How long a variant is measured in a round.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """What every variant reads: the training side of a data set, decoded, in memory."""

    task: Task
    indices: Sequence[int]
    workers: int

    @property
    def batch_size(self) -> int:
        """Examples in a batch."""
        return self.task.config.train.global_batch_size

    def dataset(self, warp: str = "host") -> grain.MapDataset:
        """The batches of a training run; `warp`, `device`: as indices and matrices."""
        config = self.task.config
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, warp=warp))
        return _with(self.task, config).stream(self.indices, slice(0, self.batch_size)).dataset(0, _STEPS)


def _with(task: Task, config: Config) -> Task:
    if isinstance(task, CellTask):
        return CellTask(config, task.cells)
    assert isinstance(task, FieldTask)
    return FieldTask(config, task.fields)


def loader(source: Source, workers: int) -> Iterator[Any]:
    """A DataLoader with so many processes; none: in the calling thread."""
    from scripts.peers import loader as peer

    task = source.task
    if isinstance(task, CellTask):
        examples = peer.Cells([task.cells.cells[i] for i in source.indices], task.config)
    else:
        assert isinstance(task, FieldTask)
        examples = peer.Crops([task.fields.fields[i] for i in source.indices], task.config)
    return peer.batches(examples, source.batch_size, workers)


def threaded(dataset: grain.MapDataset, threads: int) -> Iterator[Any]:
    """Batches made by so many threads, two ahead of each; none: by the calling thread."""
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))


def prefetched(source: Source, warp: str = "host") -> Iterator[Any]:
    """As in training: one thread makes batches and puts them on the devices."""
    return feeding.prefetched(source.dataset(warp), meshes.make_mesh(), source.task.config.train.prefetch)


def from_memory(source: Source) -> Iterator[Any]:
    """Batches by random index alone, gathered from examples that are ready."""
    ready = _ready(source)
    count, size = len(source.indices), source.batch_size

    def batch(step: int) -> dict[str, np.ndarray]:
        chosen = np.random.default_rng((source.task.config.seed, step)).integers(count, size=size)
        return {name: values.take(chosen, axis=0) for name, values in ready.items()}

    return threaded(grain.MapDataset.range(0, _STEPS).map(batch), 0)


def _ready(source: Source) -> dict[str, np.ndarray]:
    """Every example as the network takes it without augmentation; of a field, its first crop."""
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
    # The DataLoader comes first: it forks, which must not happen after JAX has started its threads.
    PEER: lambda source: loader(source, source.workers),
    "DataLoader, no workers": lambda source: loader(source, 0),
    "stream, no threads": lambda source: threaded(source.dataset(), 0),
    "stream": lambda source: threaded(source.dataset(), source.workers),
    "stream, as device arrays": prefetched,
    "indices (warp on the device), no threads": lambda source: threaded(source.dataset("device"), 0),
    "indices, as device arrays": lambda source: prefetched(source, "device"),
    "memory, no warp, no threads": from_memory,
}
"""Ways to make the same batches; those with `workers` use so many processes or threads."""


def main(argv: Sequence[str]) -> None:
    """Measure, print the table and, last, one JSON object."""
    del argv
    bench_common.need_torch()
    config, _ = cli.experiment()
    cli.prepare_runtime()
    task = tasks.load(config)
    train = protocols.partition(config.data, task.name, task.items, task.classes).train
    source = Source(task=task, indices=train, workers=flags.FLAGS.workers)
    rounds = measure(source, flags.FLAGS.repeats, flags.FLAGS.seconds)
    rates, ratios = bench_common.medians(rounds), bench_common.ratios(rounds, PEER)
    where = bench_common.machine()
    what = {"data": config.data.name, "model": config.model.name, "examples": len(train), "side": config.data.crop_size}
    bench_common.say_where({**what, "batch": source.batch_size, "workers": source.workers, **where})
    rows = [(name, rate, ratios[name]) for name, rate in rates.items()]
    print(bench_common.table(("variant", "examples/s", f"over {PEER}"), rows))
    figures = {"benchmark": "input", **what, "batch": source.batch_size, "workers": source.workers, **where}
    print(json.dumps({**figures, "examples_per_second": rates, "ratio": ratios}))


def measure(source: Source, repeats: int, seconds: float) -> bench_common.Rounds:
    """Examples/s of every variant, round by round."""
    iterators = {name: make(source) for name, make in VARIANTS.items()}
    sides = {name: _side(batches, source, seconds) for name, batches in iterators.items()}
    try:
        return bench_common.interleaved(sides, repeats)
    finally:
        for batches in iterators.values():
            if isinstance(batches, grain.DatasetIterator):
                batches.close()


def _side(batches: Iterator[Any], source: Source, seconds: float) -> Callable[[], float]:
    """A function that measures one round."""
    # While the others were measured, workers filled their queues: those batches cost this round nothing.
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
