"""`python -m tests.elastic`: what a run restores on these processes and devices, and the batch that it takes next.

Process 0 writes `restored.npz` into the work directory: the parameters' digest and the rows of the batch of the step
after the checkpoint.
"""

import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from hep2jax import cli, distributed, main, tasks
from hep2jax import mesh as meshes
from hep2jax.data.streams import packed
from hep2jax.training import loop, packing
from hep2jax.training import state as states
from hep2jax.training.timing import StepClock
from tests import scattered


def run(argv: Sequence[str]) -> None:
    del argv
    options = flags.FLAGS
    config, name = cli.experiment()
    directory = pathlib.Path(name)
    cli.prepare_runtime()
    names = ("coordinator", "num_processes", "process_id")
    processes = distributed.parse(cluster=False, **{name: getattr(options, name) for name in names})
    with distributed.joined(processes, options.join_timeout):
        this = loop.prepare(config, directory, StepClock(), tasks.load(config))
        gather = jax.jit(packed.unpack, out_shardings=meshes.replicated(this.mesh))
        with loop.open_feed(this, this.step, this.step + config.train.steps_per_call) as feed:
            batch = jax.device_get(gather(next(feed.batches)))
        if this.is_chief:
            digest = states.params_digest(packing.unpack(this.state.params))
            np.savez(directory / "restored.npz", digest=digest, step=this.step, devices=jax.device_count(), **batch)
        for part in (this.checkpoints, this.writer):
            part.close()


if __name__ == "__main__":
    main.define_flags()
    meshes.make_mesh = scattered.make_mesh
    cli.run_app(run)
