"""Applies a trained network to a user's own images.

python -m hep2jax.predict --workdir=DIR --images='PATTERN' --output=DIR

A network of single cells reads whole fields by their cells with --fields --nuclear_diameter=PIXELS.
"""

import collections
import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from absl import flags

from hep2jax import api, cli, remote
from hep2jax.errors import RunError, UsageError
from hep2jax.prediction import inputs, outputs, specimens
from hep2jax.prediction.inputs import Image
from hep2jax.prediction.outputs import Outputs
from hep2jax.progress import Pace, say
from hep2jax.specimens.nuclear_size import Scales
from hep2jax.tasks import Input, Reader, Reading

_PIXELS_UNTIL_RETURN = 8_000_000  # often enough to bound the peak, and rarely enough


def define_reader_flags() -> None:
    """Define the flags that `open_reader` takes."""
    flags.DEFINE_string("workdir", None, "Work directory of a finished run, also gs://… or s3://….")
    flags.DEFINE_bool("fields", False, "The images are whole fields, which a network of cells reads cell by cell.")
    flags.DEFINE_string("segmenter", None, "With --fields: work directory of the network that finds the cells.")
    flags.DEFINE_float(
        "nuclear_diameter", None, "Typical diameter of a nucleus in pixels of the images, instead of measuring it."
    )


def define_flags() -> None:
    """Define the command's flags."""
    define_reader_flags()
    flags.DEFINE_string("images", None, "Quoted shell pattern of the images to read (** descends), or their folder.")
    flags.DEFINE_string("output", None, "Folder for the page, the tables, the masks and the overlays.")
    flags.DEFINE_string("specimens", None, "CSV file with the columns image and specimen: fields to read together.")


def main(argv: Sequence[str]) -> None:
    """Read every image. An image that cannot be read is reported, and the others are read nevertheless."""
    del argv
    directory, pattern, output = (_required(name) for name in ("workdir", "images", "output"))
    cli.prepare_runtime()
    paths = inputs.find_images(pattern, pathlib.Path(output))
    if not paths:
        raise UsageError(
            f"--images={pattern}: no file matches, apart from masks and images that predict wrote; quote a pattern so "
            "that the shell leaves it"
        )
    folder, table = remote.local_folder(output, "--output"), flags.FLAGS.specimens
    reader, diameter = open_reader(directory)
    predict(reader, paths, folder, specimens.read(table, paths) if table else None, nuclear_diameter=diameter)


def _required(name: str) -> str:
    value = flags.FLAGS[name].value
    if not value:
        raise UsageError(f"--{name} is missing: predict needs --workdir=DIR --images='PATTERN' --output=DIR")
    return value


def open_reader(directory: str) -> tuple[Reader, float | None]:
    """The reader that the flags name, and the nuclear diameter by which it resizes images, if that is given."""
    segmenter, diameter = flags.FLAGS.segmenter, flags.FLAGS.nuclear_diameter
    if flags.FLAGS.fields:
        if diameter is None:
            raise UsageError("--nuclear_diameter is missing: --fields finds cells by the diameter of their nuclei")
        return api.load_single_cell_system(directory, nuclear_diameter=diameter, segmenter=segmenter), None
    if segmenter is not None:
        raise UsageError("--segmenter: is for networks of cells that read whole fields; add --fields")
    return api.load(directory), diameter


def predict(
    network: Reader | str | os.PathLike[str],
    paths: Sequence[str],
    output: pathlib.Path,
    specimens: Sequence[str | None] | None = None,
    *,
    nuclear_diameter: float | None = None,
) -> None:
    """Read every image and write what is read; docs/predict.md describes the files.

    Masks and overlays are written as soon as an image is read, the tables and the page appear at the end; those of an
    earlier run are removed at the start. For a network of cells, each image is the crop of one cell, and a file
    `<image>_mask.png` beside it is the mask of the cell.

    Args:
        network: the reader, or the work directory of its run.
        paths: the files of the images.
        output: the folder to write to.
        specimens: the specimen of each image, whose images are then read together too; None for images of none.
        nuclear_diameter: that of the nuclei in pixels, by which images are resized; None: it is measured.

    Raises:
        UsageError: no image could be read, the output folder cannot be written, or the network reads no specimens.
        RunError: some images could not be read; they are named on stderr, and the tables have the others.
    """
    reader = network if isinstance(network, Reader) else api.load(network)
    if specimens and not reader.reads_specimens:
        raise UsageError(
            f"--specimens: {reader.config.model.name} was trained to read one image at a time; a network of cells "
            "reads specimens from their fields with --fields"
        )
    scales = scales_of(reader, nuclear_diameter)
    say(origin(reader))
    files = _by_specimen(paths, specimens or [None] * len(paths))
    refused: list[str] = []
    with outputs.errors_of(output), outputs.folder(output):
        written = Outputs(output, reader)
        with written.tables(of_specimens=specimens is not None):
            _read_all(reader, scales, files, written, refused)
            if not written.num_images:
                raise UsageError(f"none of the {len(paths)} images could be read; nothing was written")
    say(f"{len(paths) - len(refused)} of {len(paths)} images read: {output / outputs.PREDICTIONS}")
    say(_verdicts(written))
    if refused:
        raise RunError(
            f"{len(refused)} of {len(paths)} images could not be read, or not completely; they are named above"
        )


def origin(reader: Reader) -> str:
    """One line: what the network was trained on, and whether it can say how sure it is."""
    name = reader.config.data.name
    trained = "synthetic specimens only; it has never seen a real one" if name == "hep2_synthetic" else name
    calibrated = "" if reader.calibration else "; its readings are uncalibrated: see docs/calibration.md"
    return f"{reader.config.model.name} was trained on {trained}{calibrated}"


def _verdicts(written: Outputs) -> str:
    """One line: how many readings have which verdict."""
    named = [f"{number} {verdict or 'without objection'}" for verdict, number in written.verdicts.most_common()]
    return f"verdicts on {written.num_images} images: {'; '.join(named)}"


def _by_specimen(paths: Sequence[str], specimens: Sequence[str | None]) -> list[tuple[str, str | None]]:
    """Each path with its specimen; those of one specimen follow each other, where the first of them stands."""
    pairs = list(zip(paths, specimens, strict=True))
    first: dict[str, int] = {}
    for number, (_, specimen) in enumerate(pairs):
        if specimen is not None:
            first.setdefault(specimen, number)
    order = sorted(range(len(pairs)), key=lambda number: (first.get(pairs[number][1] or "", number), number))
    return [pairs[number] for number in order]


def scales_of(reader: Reader, nuclear_diameter: float | None) -> Scales:
    """How images are resized for a reader; raises UsageError for a diameter that it cannot use."""
    try:
        return Scales(reader.nuclear_size, nuclear_diameter)
    except ValueError as error:
        raise UsageError(
            f"--nuclear_diameter: {reader.config.model.name} of this work directory cannot use it; {error} (networks "
            "of cells read fields with --fields)"
        ) from error


def _read_all(
    reader: Reader, scales: Scales, files: Sequence[tuple[str, str | None]], written: Outputs, refused: list[str]
) -> None:
    pace, num_fields, num_pixels = Pace(len(files), "images"), 0, 0
    images = inputs.load([path for path, _ in files], [specimen for _, specimen in files], reader, refused)
    with contextlib.closing(inputs.groups(images)) as groups:
        for image, reading, whole in _readings(reader, scales, groups):
            written.add(image, reading)
            num_fields += 1
            if whole is not None:
                assert image.specimen is not None
                written.add_specimen(image.specimen, num_fields, whole)
            num_fields = num_fields if image.specimen is not None and whole is None else 0
            pace.advance(image.file)
            num_pixels += image.pixels.size
            if num_pixels >= _PIXELS_UNTIL_RETURN:
                cli.return_memory()
                num_pixels = 0


def _readings(
    reader: Reader, scales: Scales, groups: Iterable[Sequence[Image]]
) -> Iterator[tuple[Image, Reading, Reading | None]]:
    """Each image with its reading and, after the last field of a specimen, the specimen's.

    The images of a group decide together how those of one shape are resized.
    """
    waiting = collections.deque[Image]()

    def taken() -> Iterator[Input]:
        for group in groups:
            scales.learn([image.pixels for image in group])
            for image in group:
                waiting.append(image)
                yield Input(image.pixels, image.path, image.mask, image.specimen)

    for reading, whole in reader.stream(taken(), scales):
        for message in scales.messages():
            say(message)
        yield waiting.popleft(), reading, whole


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
