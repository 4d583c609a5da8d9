"""Compiles for one TPU slice in a separate process: `python -m hep2jax.perf.aot.worker REQUEST.json FOLDER`.

Writes FOLDER/record.json and, if the program fits in memory, its compiled text as FOLDER/program.txt.gz. The
environment must contain `hep2jax.perf.aot.compiler.ENVIRONMENT`.
"""

import ctypes
import gzip
import json
import pathlib
import signal
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from hep2jax import config as configs
from hep2jax import mesh as meshes
from hep2jax import ops, tasks
from hep2jax.config import Config
from hep2jax.perf import model_flops
from hep2jax.perf.aot import scopes, slices
from hep2jax.training import optimizers, packing, steps
from hep2jax.training import state as states

_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>; libtpu exists for Linux only


def make_mesh(target: slices.Slice) -> jax.sharding.Mesh:
    """A mesh of the chips of a slice, which do not need to exist on this machine."""
    topology = topologies.get_topology_desc(
        platform="tpu",
        topology_name=target.topology_name,
        chip_config_name=target.generation.chip_config,
        chips_per_host_bounds=target.chips_per_host_bounds,
        num_slices=1,
        wrap=(*target.wraps, False)[:3],
    )
    axis_types = (jax.sharding.AxisType.Auto,)
    return jax.sharding.Mesh(np.array(topology.devices), (meshes.DATA_AXIS,), axis_types=axis_types)


def train_step(config: Config, num_outputs: int) -> tuple[Any, Any]:
    """The step that `hep2jax.training.loop` compiles, with module scopes, and the shapes of its packed state."""
    network = scopes.name_modules(states.make_network(config, num_outputs))
    optimizer = optimizers.make_optimizer(config.optimizer, config.train.num_steps)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda key: packing.pack(states.fresh_state(network, optimizer, key)), key)
    return steps.make_train_step(config, network, tasks.kind(config).loss), state


def compile_step(config: Config, target: slices.Slice, images_per_chip: int, num_outputs: int) -> tuple[dict, str]:
    """Compile the training step; returns the record and the compiled text, which is empty if it does not fit in HBM.

    `model_flops` of the record are those of the network as published, for the share of the batch on one chip, in the
    plain formulation (see `hep2jax.ops`) before optimisation by the compiler; `program_flops` are those of the compiled
    program on one chip.
    """
    config.train.compute_dtype, config.train.steps_per_call = "bfloat16", 1
    step, state = train_step(config, num_outputs)
    constants = {"class_weights": jax.ShapeDtypeStruct((num_outputs,), jnp.float32)}
    record = {"model_flops": model_flops.model_flops(config, num_outputs, images_per_chip)}
    mesh = make_mesh(target)
    replicated, sharded = meshes.replicated(mesh), meshes.batch_sharding(mesh)
    state, constants = _with_sharding((state, constants), replicated)
    batch = _with_sharding(tasks.kind(config).batch_shapes(config, images_per_chip * target.chips), sharded)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(replicated, replicated))
    with ops.target("tpu", devices=target.chips):
        lowered = jitted.lower(state, batch, constants)
    start = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        message = " ".join(str(error).split())[:300]
        return {**record, "status": "out of memory", "message": message, "seconds": time.monotonic() - start}, ""
    record |= {"status": "compiled", "seconds": time.monotonic() - start, **_analysis(compiled)}
    return record, compiled.as_text() or ""


def _with_sharding(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def _analysis(compiled: jax.stages.Compiled) -> dict[str, Any]:
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    assert cost is not None
    assert memory is not None
    return {
        "program_flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "memory": {
            "arguments": memory.argument_size_in_bytes,
            "outputs": memory.output_size_in_bytes,
            "aliased": memory.alias_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "generated_code": memory.generated_code_size_in_bytes,
        },
    }


def main(argv: list[str]) -> None:
    """Read the request, compile, write the record."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # an orphaned compilation would occupy gigabytes
    request, folder = json.loads(pathlib.Path(argv[1]).read_text()), pathlib.Path(argv[2])
    config = configs.from_dict(request["config"])
    target = slices.parse(request["slice"])
    record, text = compile_step(config, target, request["images_per_chip"], request["num_outputs"])
    if text:
        (folder / "program.txt.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "record.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main(sys.argv)
