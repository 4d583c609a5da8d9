"""What every kind of network is fed and says, on one process or several, for `test_devices`.

JAX_NUM_CPU_DEVICES=2 python -m tests.processes FOLDER cells,bags 127.0.0.1:PORT 2 0     # and 1, the second process
"""

import json
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
import numpy as np
from absl import flags

from hep2jax import mesh as meshes
from hep2jax.config import AugmentConfig, Config, DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from hep2jax.data.streams import packed
from hep2jax.specimens import features
from hep2jax.specimens.features import Extractor
from hep2jax.tasks import Parameters, Task
from hep2jax.tasks.bags import BagTask
from hep2jax.tasks.cells import CellTask
from hep2jax.tasks.joint import JointTask
from hep2jax.tasks.labels import LabelsTask
from hep2jax.training import checkpoints, loop, packing
from hep2jax.training import state as states
from hep2jax.training.loop import Run
from hep2jax.training.timing import StepClock
from tests import scattered
from tests.data import labelled
from tests.data.blobs import blob_set
from tests.data.cell_tables import cell_set


def _config(name: str, **data) -> Config:
    return Config(
        data=DataConfig(protocol="kfold", num_folds=2, crop_size=32, bag_tiles=2, **data),
        augment=AugmentConfig(rotation_step=90.0),
        model=ModelConfig(name=name, width=0.05),
        train=TrainConfig(num_steps=4, global_batch_size=8, log_every=2),
        evaluation=EvaluationConfig(tile_size=32, tile_overlap=8, batch_size=8),
    )


def _cells() -> CellTask:
    config = _config("vggcell", warp="device", normalise="contrast_stretch")
    config.train.steps_per_call = 2
    return CellTask(config, cell_set(config.data, specimens=2, cells=3))


def _bags() -> BagTask:
    return BagTask(_config("mil"), blob_set(specimens=2))


def _labels() -> LabelsTask:
    return LabelsTask(_config("mil", warp="device"), labelled.image_set(repeats=2))


def _joint() -> JointTask:
    return JointTask(_config("joint"), blob_set(specimens=2, fields=1))


KINDS: dict[str, Callable[[], Task]] = {"cells": _cells, "bags": _bags, "labels": _labels, "joint": _joint}


def run(folder: pathlib.Path, kinds: Sequence[str]) -> None:
    """Write what comes of each of `kinds` to `folder`.

    <kind>.npz: the first batch of the training step, all rows, as the devices had it. <kind>.json: what the evaluator
    says of every example. features.npz: of every cell. cells/checkpoints: the fresh state; cells.digest: its digest
    when it is read back.
    """
    for kind in kinds:
        task = KINDS[kind]()
        this = loop.prepare(task.config, folder / kind, StepClock(), task)
        try:
            parameters = _stirred(this)
            batch, results = _first_batch(this), this.evaluator.measure(parameters, range(len(task.items)))
            if this.is_chief:
                np.savez(folder / f"{kind}.npz", **batch)
                (folder / f"{kind}.json").write_text(json.dumps([task.to_record(row) for row in results]))
            if isinstance(task, CellTask):
                _extract_features(this, task, parameters, folder)
                _save(this, folder)
        finally:
            loop.close(this)


def _stirred(this: Run) -> Parameters:
    """Parameters with which the network tells its inputs apart, and is not sure: fresh heads are zero."""
    scale = 0.12 if this.config.model.name == "vggcell" else 0.2  # its features are large numbers

    def stir(leaf: jax.Array) -> jax.Array:
        return leaf + scale * jax.random.normal(jax.random.key(leaf.size), leaf.shape)

    params, stats = this.parameters
    return jax.jit(lambda tree: jax.tree.map(stir, tree))(params), stats


def _first_batch(this: Run) -> dict[str, np.ndarray]:
    gather = jax.jit(packed.unpack, out_shardings=meshes.replicated(this.mesh))
    with loop.open_feed(this, 0, this.config.train.num_steps) as feed:
        return jax.device_get(gather(next(feed.batches)))


def _extract_features(this: Run, task: CellTask, parameters: Parameters, folder: pathlib.Path) -> None:
    extractor = Extractor(features.from_network(task.config, this.network, parameters), this.mesh, batch_size=8)
    cells = task.cells.cells
    found = extractor.extract([cell.ready for cell in cells], [cell.tone_curve for cell in cells], quiet=True)
    if this.is_chief:
        np.savez(folder / "features.npz", **found.layers)


def _save(this: Run, folder: pathlib.Path) -> None:
    this.checkpoints.save(1, this.state)
    this.checkpoints.wait()
    restored = checkpoints.restore(checkpoints.find(folder / "cells" / "checkpoints")[0], this.state)
    if this.is_chief:
        (folder / "cells.digest").write_text(states.params_digest(packing.unpack(restored.params)))


if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()  # grain reads a flag of its own outside absl's app
    jax.distributed.initialize(sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    meshes.make_mesh = scattered.make_mesh
    run(pathlib.Path(sys.argv[1]), sys.argv[2].split(","))
