"""Exports a trained network for programs that do not have hep2jax.

python -m hep2jax.export --workdir=DIR --output=DIR
"""

import contextlib
import pathlib
import tempfile
from collections.abc import Collection, Iterator, Sequence

from absl import flags

from hep2jax import cli, remote
from hep2jax import config as configs
from hep2jax.errors import UsageError
from hep2jax.handover import card, programs, reference, stablehlo
from hep2jax.prediction.outputs import errors_of
from hep2jax.progress import say
from hep2jax.training import evaluation, workdir

FORMATS = ("stablehlo", "card")


def define_flags() -> None:
    """Define the command's flags."""
    flags.DEFINE_string("workdir", None, "Work directory of a finished run, also gs://… or s3://….")
    flags.DEFINE_string("output", None, "New or empty folder for the exported network.")
    flags.DEFINE_list("formats", list(FORMATS), f"What to write, of {', '.join(FORMATS)}.")


def main(argv: Sequence[str]) -> None:
    """Export the network of a work directory."""
    del argv
    options = flags.FLAGS
    for name in ("workdir", "output"):
        if not options[name].value:
            raise UsageError(f"--{name} is missing: export needs --workdir=DIR --output=DIR")
    for name in options.formats or [""]:
        configs.check_choice("--formats", name, FORMATS)
    cli.prepare_runtime()
    output = remote.local_folder(options.output, "--output")
    with remote.opened(options.workdir) as directory:
        write(directory, output, options.formats)


def write(directory: pathlib.Path, output: pathlib.Path, formats: Collection[str]) -> None:
    """Export the network of a work directory to a folder, whose files appear when all of them are made.

    Raises:
        UsageError: there is no trained network, it cannot be exported, or the folder cannot be written or is not empty.
        RunError: what was exported differs from hep2jax.
    """
    programs.check(workdir.open_for_reading(directory))
    with errors_of(output), _finished(output) as folder:
        trained = reference.in_float32(evaluation.load(directory))
        program = programs.make(trained)
        if "card" in formats:
            card.write(folder, directory, trained, program)
            say(f"{output / card.FILE}: the model card")
        if "stablehlo" in formats:
            difference = stablehlo.write(folder, trained, program, reference.make(trained))
            say(f"{output / stablehlo.FILE}: differs from hep2jax by at most {difference:.2g} on the test image")


@contextlib.contextmanager
def _finished(output: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder whose files move to `output`, `io.json` last, when the block ends without an error.

    Raises:
        UsageError: `output` is not empty.
    """
    created = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    if any(output.iterdir()):
        raise UsageError(f"--output={output}: is not empty; name a new folder")
    try:
        with tempfile.TemporaryDirectory(dir=output, prefix=".unfinished-") as temporary:
            yield pathlib.Path(temporary)
            made = sorted(pathlib.Path(temporary).iterdir(), key=lambda path: path.name == stablehlo.DESCRIPTION)
            for path in made:
                path.replace(output / path.name)
    except BaseException:
        if created:
            output.rmdir()
        raise


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
