"""Estimates the training step of every published configuration on one chip of each TPU generation.

    python -m scripts.tpu_zoo [--configs=fcn,unet] [--generations=v5e,v5p,v6e] [--images=128] [--output=FILE]

No TPU is used: the TPU compiler (the extra `aot`) compiles the `published` variant of each configuration and estimates
its cycles, as `--mode=compile` does. The batch of a chip, 128 images by default, is halved until the program fits in
its memory. `of the roofline`: the step that the network's FLOPs at the published peak and the bytes that the program
reads and writes at the published bandwidth would allow, whichever is longer, as a share of the estimated one. Some of
these bytes stay on the chip, so that this share can exceed 100 %. `largest parts`: the modules that take most of the
step, with its backward pass. Compiled programs are kept, and a second run reads them.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from hep2jax import cli, config_files, files, tasks
from hep2jax.models import JOINT_READERS, SEGMENTERS
from hep2jax.perf import chips
from hep2jax.perf.aot import Options, compiler, estimate, slices, tables
from hep2jax.perf.aot.compiler import Compiler
from hep2jax.perf.aot.estimate import Estimate
from scripts import bench_common, bench_zoo

PUBLISHED = (*bench_zoo.OF_CELLS, *SEGMENTERS, *JOINT_READERS)  # `mil` has no published size
LIMIT_SECONDS = 900.0
_LARGEST_PARTS = 3
_HEAD = ("configuration", "chip", "images a chip", "step, ms", "images/s", "MFU, %", "of the roofline, %")
_HEAD += ("HBM, GB", "compiled in, s", "largest parts")


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_list("configs", list(PUBLISHED), "Configurations in configs/ that have a variant `published`.")
    flags.DEFINE_list("generations", ["v5e", "v5p", "v6e"], "TPU generations.")
    flags.DEFINE_integer("images", 128, "Images on a chip.")
    flags.DEFINE_string("output", "", "JSON file that is written after every row, or empty.")


def main(argv: Sequence[str]) -> None:
    """Compile, printing rows as they come, then print the table."""
    del argv
    cli.prepare_runtime()
    compiler.check_installed()
    print(f"{tables.NOTICE}; {json.dumps(compiler.versions())}", flush=True)
    results: list[dict[str, Any]] = []
    for generation in flags.FLAGS.generations:
        for name in flags.FLAGS.configs:
            results.append(row := measure(name, slices.parse(f"{generation}:1"), flags.FLAGS.images))
            print(bench_common.table(_HEAD, [list(row.values())]).splitlines()[-1], flush=True)
            if flags.FLAGS.output:
                with files.replaced(pathlib.Path(flags.FLAGS.output)) as unfinished:
                    unfinished.write_text(json.dumps(results, indent=1))
    print(bench_common.table(_HEAD, [list(row.values()) for row in results]))


def measure(name: str, target: slices.Slice, images: int) -> dict[str, Any]:
    """The row of a configuration on one chip, in the order of the columns; with empty cells if it does not compile."""
    config = tasks.resolve(config_files.load(f"{name}:published"))
    step_compiler = Compiler(config=config, cache=Options(slices=()).cache.expanduser(), limit_seconds=LIMIT_SECONDS)
    while (compiled := step_compiler.compile(target, images)).record["status"] == "out of memory" and images > 1:
        images //= 2
    head = {"configuration": f"`{name}`", "chip": target.generation_name, "images": images}
    if not compiled.is_done:
        status = compiled.record["status"]
        return head | dict.fromkeys(_HEAD[3:-2], "–") | {"compiled in": compiled.record["seconds"], "parts": status}
    chip = chips.find(target.generation.device_kind)
    assert chip is not None, target.name
    return head | columns(estimate.estimate(compiled, chip), chip)


def columns(found: Estimate, chip: chips.Chip) -> dict[str, Any]:
    """The columns of a row that follow from an estimate."""
    bound = max(found.model_flops / found.peak_flops, found.bytes_accessed / chip.hbm_bandwidth)
    parts = [f"{row.module} {100 * row.total / found.cycles:.0f} %" for row in found.modules[:_LARGEST_PARTS]]
    return {
        "step": 1e3 * found.step_seconds,
        "images/s": found.images_per_second_per_chip,
        "MFU": 100 * found.mfu,
        "roofline": 100 * bound / found.step_seconds,
        "HBM": found.memory.total / 1e9,
        "compiled in": found.compile_seconds,
        "parts": ", ".join(parts),
    }


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
