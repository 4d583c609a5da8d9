"""Exports a trained network for programs that do not have hep2jax.

python -m hep2jax.export --workdir=DIR --output=DIR [--formats=stablehlo,onnx,bioimageio,card --onnx_python=PYTHON]
"""

import contextlib
import pathlib
import tempfile
from collections.abc import Collection, Iterator, Sequence

from absl import flags

from hep2jax import cli, files, remote
from hep2jax import config as configs
from hep2jax.errors import UsageError
from hep2jax.handover import bioimageio_package, card, description, onnx_network, programs, reference, stablehlo
from hep2jax.prediction.outputs import errors_of
from hep2jax.progress import say
from hep2jax.training import evaluation, workdir

FORMATS = ("stablehlo", "onnx", "bioimageio", "card")


def define_flags() -> None:
    """Define the command's flags."""
    flags.DEFINE_string("workdir", None, "Work directory of a finished run, also gs://… or s3://….")
    flags.DEFINE_string("output", None, "New or empty folder for the exported network.")
    flags.DEFINE_list("formats", ["stablehlo", "card"], f"What to write, of {', '.join(FORMATS)}.")
    flags.DEFINE_string("onnx_python", None, "Python of an environment with jax2onnx (docs/export.md).")


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
        write(directory, output, options.formats, onnx_python=options.onnx_python)


def write(
    directory: pathlib.Path, output: pathlib.Path, formats: Collection[str], *, onnx_python: str | None = None
) -> None:
    """Export the network of a work directory to a folder, whose files appear when all of them are made.

    Args:
        directory: the work directory.
        output: a folder that does not exist or is empty.
        formats: of `FORMATS`.
        onnx_python: the interpreter of an environment with jax2onnx and bioimageio.core, if `formats` asks for ONNX or
            bioimage.io, which holds ONNX.

    Raises:
        UsageError: there is no trained network, it cannot be exported, or the folder cannot be written or is not empty.
        RunError: what was exported differs from hep2jax.
    """
    config = workdir.open_for_reading(directory)
    programs.check(config)
    python = ""
    if {"onnx", "bioimageio"} & set(formats):
        onnx_network.check(config)
        packages = onnx_network.PACKAGES + (bioimageio_package.PACKAGES if "bioimageio" in formats else ())
        python = onnx_network.check_environment(onnx_python, packages)
    with errors_of(output), _finished(output) as folder:
        _write_all(folder, directory, set(formats), python)
    say(f"{output}: {', '.join(sorted(path.name for path in output.iterdir()))}")


def _write_all(folder: pathlib.Path, directory: pathlib.Path, formats: set[str], python: str) -> None:
    trained = reference.in_float32(evaluation.load(directory))
    program = programs.make(trained)
    about = description.common(trained, program)
    text = card.make(directory, trained, program) if {"card", "bioimageio"} & formats else ""
    if "card" in formats:
        files.write_text(folder / card.FILE, text)
    if "stablehlo" in formats:
        about["stablehlo"] = stablehlo.write(folder, program, reference.make(trained))
    if {"onnx", "bioimageio"} & formats:
        tile = reference.make_tile(trained)
        about["onnx"] = onnx_network.write(folder, trained, tile, python)
        if "bioimageio" in formats:
            about["bioimageio"] = bioimageio_package.write(folder, trained, program, tile, text, python)
    files.write_json(folder / description.FILE, about)


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
            made = sorted(pathlib.Path(temporary).iterdir(), key=lambda path: path.name == description.FILE)
            for path in made:
                path.replace(output / path.name)
    except BaseException:
        if created:
            output.rmdir()
        raise


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
