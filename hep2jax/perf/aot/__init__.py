"""`--mode=compile`: compiles the training step of a configuration for TPUs, and estimates its speed without a TPU."""

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
    """Options of the compilation."""

    slices: Sequence[slices.Slice]
    batches: Sequence[int] = ()
    """Batch sizes per chip to try on the smallest slice of each generation; empty: the defaults of the task."""
    limit_seconds: float = 3600.0
    """A compilation that takes longer is stopped."""
    cache: pathlib.Path = pathlib.Path("~/.cache/hep2jax/aot")

    @staticmethod
    def parse(slice_names: str = DEFAULT_SLICES, batches: str = "") -> "Options":
        """Parse the values of flags, such as `v5e:1,v5e:4` and `16,32`; raises UsageError for an invalid value."""
        parts = [part.strip() for part in batches.split(",") if part.strip()]
        if not all(part.isdigit() and int(part) for part in parts):
            raise UsageError(f"batches '{batches}': must be positive whole numbers with commas between them")
        requested = [slices.parse(name) for name in slice_names.split(",") if name.strip()]
        if not requested:
            raise UsageError("no slice to compile for: name at least one, such as v5e:1,v5e:4")
        return Options(slices=requested, batches=[int(part) for part in parts])


def run(config: Config, directory: pathlib.Path, options: Options | None = None) -> None:
    """Compile, print the tables, and write `compile.json` and `compile.html` in `profile/` of the work directory.

    All batch sizes are compiled for the smallest slice of each generation, then every slice with the best batch size.

    Raises:
        UsageError: libtpu is not installed.
    """
    options = options or Options.parse()
    compiler.check_installed()
    say(tables.NOTICE)
    step_compiler = Compiler(config=config, cache=options.cache.expanduser(), limit_seconds=options.limit_seconds)
    by_generation = collections.defaultdict(list)
    for target in sorted(options.slices, key=lambda target: target.chips):
        by_generation[target.generation_name].append(target)
    default = tasks.kind(config).compile_batches
    generations = [
        _generation(step_compiler, targets, options.batches or default) for targets in by_generation.values()
    ]
    for generation in generations:
        say(tables.text(tables.generation_tables(generation, config)))
    page.write(directory / workdir.PROFILE, config, step_compiler.num_outputs, generations, compiler.versions())
    say(f"written: {directory / 'profile' / 'compile.html'}, compile.json")


def _generation(step_compiler: Compiler, targets: Sequence[slices.Slice], batches: Sequence[int]) -> Generation:
    smallest = targets[0]
    chip = chips.find(smallest.generation.device_kind)
    assert chip is not None, smallest.name
    sweep = [step_compiler.compile(smallest, batch) for batch in sorted(batches)]
    swept = [estimate.estimate(compiled, chip) for compiled in sweep if compiled.is_done]
    best = estimate.recommended(swept)
    programs = [step_compiler.compile(target, best.images_per_chip) for target in targets] if best else []
    estimates = [estimate.estimate(compiled, chip) for compiled in programs if compiled.is_done]
    return Generation(
        name=smallest.generation_name,
        chip=chip,
        sweep=sweep,
        sweep_estimates=swept,
        slices=programs,
        estimates=estimates,
    )
