"""`--mode=compile`: what the TPU compiler says of a configuration's training step, for chips that are not there."""

import collections
import dataclasses
import pathlib
from collections.abc import Sequence

from hep2jax import tasks
from hep2jax.config import Config
from hep2jax.errors import UsageError
from hep2jax.perf import chips
from hep2jax.perf.aot import compiler, estimate, page, slices, tables
from hep2jax.perf.aot.compiler import Compiler
from hep2jax.perf.aot.estimate import Generation
from hep2jax.progress import say
from hep2jax.training import workdir

__all__ = ["DEFAULT_SLICES", "Options", "run"]

DEFAULT_SLICES = "v5e:1,v5e:4,v5e:16,v5e:64,v5e:256"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to compile."""

    slices: Sequence[slices.Slice]
    batches: Sequence[int] = ()
    """Images per chip of the sweep on the smallest slice of each generation; empty: those of the task."""
    limit_seconds: float = 3600.0
    """A compilation that takes longer is given up."""
    cache: pathlib.Path = pathlib.Path("~/.cache/hep2jax/aot")

    @staticmethod
    def parse(slice_names: str = DEFAULT_SLICES, batches: str = "") -> "Options":
        """From flags: `v5e:1,v5e:4` and `16,32`; UsageError names what is wrong."""
        parts = [part.strip() for part in batches.split(",") if part.strip()]
        if not all(part.isdigit() and int(part) for part in parts):
            raise UsageError(f"batches '{batches}': must be positive whole numbers with commas between them")
        wanted = [slices.parse(name) for name in slice_names.split(",") if name.strip()]
        if not wanted:
            raise UsageError("no slice to compile for: name some, such as v5e:1,v5e:4")
        return Options(slices=wanted, batches=[int(part) for part in parts])


def run(config: Config, directory: pathlib.Path, options: Options | None = None) -> None:
    """Compile, print the tables, write `profile/compile.json` and `profile/compile.html` in the work directory.

    First the batches of the sweep on the smallest slice of each generation, then every slice with the best of them.

    Raises:
        UsageError: libtpu is not installed.
    """
    options = options or Options.parse()
    compiler.check_installed()
    say(tables.NOTICE)
    this = Compiler(config=config, cache=options.cache.expanduser(), limit_seconds=options.limit_seconds)
    by_generation = collections.defaultdict(list)
    for target in sorted(options.slices, key=lambda target: target.chips):
        by_generation[target.generation_name].append(target)
    default = tasks.kind(config).compile_batches
    found = [_generation(this, targets, options.batches or default) for targets in by_generation.values()]
    for generation in found:
        say(tables.text(tables.of_generation(generation)))
    page.write(directory / workdir.PROFILE, config, this.num_outputs, found, compiler.versions())
    say(f"written: {directory / 'profile' / 'compile.html'}, compile.json")


def _generation(this: Compiler, targets: Sequence[slices.Slice], batches: Sequence[int]) -> Generation:
    smallest = targets[0]
    chip = chips.find(smallest.generation.device_kind)
    assert chip is not None, smallest.name
    sweep = [this.compile(smallest, batch) for batch in sorted(batches)]
    swept = [estimate.estimate(one, chip) for one in sweep if one.is_done]
    best = estimate.recommended(swept)
    compiled = [this.compile(target, best.images_per_chip) for target in targets] if best else []
    estimates = [estimate.estimate(one, chip) for one in compiled if one.is_done]
    return Generation(
        name=smallest.generation_name,
        chip=chip,
        sweep=sweep,
        sweep_estimates=swept,
        slices=compiled,
        estimates=estimates,
    )
