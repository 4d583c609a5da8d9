"""Applies a trained network to a user's own images.

python -m hep2jax.predict --workdir=DIR --images='PATTERN' --output=DIR
"""

import collections
import contextlib
import csv
import dataclasses
import glob
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from absl import flags

from hep2jax import api, cli, files, image_files, remote
from hep2jax.config import Config
from hep2jax.data.sets import fields as field_sets
from hep2jax.errors import RunError, UsageError
from hep2jax.image_files import ImageFileError
from hep2jax.progress import Pace, say, warn
from hep2jax.report import palette
from hep2jax.tasks import Reader

TABLE = "predictions.csv"
_OWN_ENDINGS = ("_classes.png", "_overlay.png")
_GROUP_PIXELS, _GROUP_IMAGES = 32_000_000, 256  # bound the memory; a batch of tiles spans the images of a group


def define_flags() -> None:
    """Define the command's flags."""
    flags.DEFINE_string("workdir", None, "Work directory of a finished run, also gs://… or s3://….")
    flags.DEFINE_string("images", None, "Quoted shell pattern of the images to read (** descends), or their folder.")
    flags.DEFINE_string("output", None, "Folder for the masks, overlays and predictions.csv.")


def main(argv: Sequence[str]) -> None:
    """Read every image. An image that cannot be read is reported, and the others are read nevertheless."""
    del argv
    directory, pattern, output = (_required(name) for name in ("workdir", "images", "output"))
    cli.prepare_runtime()
    paths = find_images(pattern, pathlib.Path(output))
    if not paths:
        raise UsageError(
            f"--images={pattern}: no file matches, apart from masks and images that predict wrote; quote a pattern so "
            "that the shell leaves it"
        )
    predict(directory, paths, remote.local_folder(output, "--output"))


def _required(name: str) -> str:
    value = flags.FLAGS[name].value
    if not value:
        raise UsageError(f"--{name} is missing: predict needs --workdir=DIR --images='PATTERN' --output=DIR")
    return value


def find_images(pattern: str, output: pathlib.Path) -> list[str]:
    """The files that a pattern names, sorted, without masks of cells and without what this program has written.

    A folder stands for the files in it whose names end like those of images; a file is itself, whatever its name.
    Files in the folder `output` are left out, unless the pattern starts in that folder.
    """
    if pathlib.Path(pattern).is_dir():
        named = (path for path in pathlib.Path(pattern).iterdir() if path.suffix.lower() in image_files.SUFFIXES)
        found, start = map(str, named), pathlib.Path(pattern)
    else:
        found = [pattern] if pathlib.Path(pattern).is_file() else glob.glob(pattern, recursive=True)
        start = next((p for p in pathlib.Path(pattern).parents if not glob.has_magic(str(p))), pathlib.Path())
    inside = output.resolve() if start.resolve() != output.resolve() else None
    images = [path for path in found if pathlib.Path(path).is_file() and not _is_mask(path) and not _is_own(path)]
    return sorted(path for path in images if inside not in pathlib.Path(path).resolve().parents)


def _is_mask(path: str) -> bool:
    return pathlib.Path(path).stem.lower().endswith("_mask")


def _is_own(path: str) -> bool:
    return path.endswith(_OWN_ENDINGS) or pathlib.Path(path).name == TABLE


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Image:
    """One frame of a file, ready for the reader."""

    path: str
    page: int
    name: str
    """Start of the names of its output files, relative to the output folder."""
    file: int
    """Number of files before this one."""
    pixels: np.ndarray
    mask: np.ndarray | None
    """The mask of the cell, bool; None if the reader takes no masks."""


def predict(directory: str | os.PathLike[str], paths: Sequence[str], output: pathlib.Path) -> list[dict[str, Any]]:
    """Read every image and write `predictions.csv`; returns its rows, one for each page of each file.

    For a network that segments fields, `<image>_classes.png` (0 background, 1+i pattern i of the work directory's
    `classes.json`) and `<image>_overlay.png` are written too, as soon as an image is read. The table is written at the
    end; that of an earlier run is removed at the start. For a network that classifies cells, each image is the crop of
    one cell; a file `<image>_mask.png` beside it is the mask of the cell. A network for images with several patterns
    predicts those above the run's `evaluation.pattern_threshold`.

    Raises:
        UsageError: no image could be read, or the output folder cannot be written.
        RunError: some images could not be read; they are named on stderr, and the table has the others.
    """
    reader = api.load(directory)
    say(_origin(reader))
    refused: list[str] = []
    rows: list[dict[str, Any]] = []
    with _output_errors(output):
        created = _open_output(output)
        pace = Pace(len(paths), "images")
        for group in _groups(_load(paths, reader, refused)):
            for image, row in _read(reader, group, output):
                rows.append(row)
                pace.advance(image.file)
        if rows:
            _write_table(output / TABLE, rows)
        elif created:
            output.rmdir()
    if not rows:
        raise UsageError(f"none of the {len(paths)} images could be read; nothing was written")
    say(f"{len(paths) - len(refused)} of {len(paths)} images read: {output / TABLE}")
    say(_verdicts(rows))
    if refused:
        raise RunError(
            f"{len(refused)} of {len(paths)} images could not be read, or not completely; they are named above"
        )
    return rows


def _origin(reader: Reader) -> str:
    """One line: what the network was trained on, and whether it can say how sure it is."""
    name = reader.config.data.name
    trained = "synthetic specimens only; it has never seen a real one" if name == "hep2_synthetic" else name
    calibrated = "" if reader.calibration else "; it is uncalibrated, because it was trained without validation data"
    return f"{reader.config.model.name} was trained on {trained}{calibrated}"


def _verdicts(rows: Sequence[dict[str, Any]]) -> str:
    """One line: how many readings have which verdict."""
    counts = collections.Counter(row["verdict"] for row in rows)
    named = [f"{number} {verdict}" for verdict, number in counts.most_common() if verdict]
    return f"verdicts on {len(rows)} images: " + "; ".join([*named, f"{counts['']} without objection"])


@contextlib.contextmanager
def _output_errors(output: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if files.is_disk_full(error):
            raise
        raise UsageError(f"--output={output}: cannot be written ({error.strerror})") from error


def _open_output(output: pathlib.Path) -> bool:
    """Create the folder or check that it can be written to, and remove an old table; returns whether it is new."""
    created = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output):
        pass
    (output / TABLE).unlink(missing_ok=True)
    return created


def _load(paths: Sequence[str], reader: Reader, refused: list[str]) -> Iterator[_Image]:
    """The images, one after another; files that cannot be read are named on stderr and added to `refused`."""
    taken: set[str] = set()
    for number, (path, name) in enumerate(zip(paths, output_names(paths), strict=True)):
        try:
            for frame in image_files.read(pathlib.Path(path)):
                pixels = field_sets.select_channel(frame.pixels_8_bit, reader.config.data.channel)
                mask = _mask_beside(pathlib.Path(path), pixels.shape, reader.config) if reader.takes_masks else None
                paged = name if frame.num_pages == 1 else f"{name}_page{frame.page:03d}"
                unique = _untaken(paged, taken)
                yield _Image(path=path, page=frame.page, name=unique, file=number, pixels=pixels, mask=mask)
        except ImageFileError as error:
            warn(str(error))
            refused.append(path)


def _untaken(name: str, taken: set[str]) -> str:
    """The name, with a number where it is taken already, for example by a page of another file."""
    unique, number = name, 2
    while unique.casefold() in taken:
        unique, number = f"{name}_{number}", number + 1
    taken.add(unique.casefold())
    return unique


def _groups(images: Iterator[_Image]) -> Iterator[list[_Image]]:
    """Lists of images that are read together."""
    group: list[_Image] = []
    for image in images:
        group.append(image)
        if len(group) == _GROUP_IMAGES or sum(member.pixels.size for member in group) >= _GROUP_PIXELS:
            yield group
            group = []
    if group:
        yield group


def _read(reader: Reader, images: Sequence[_Image], output: pathlib.Path) -> Iterator[tuple[_Image, dict[str, Any]]]:
    """Each image with its row, after its masks are written."""
    masks = [image.mask for image in images if image.mask is not None] if reader.takes_masks else None
    readings = reader.read([image.pixels for image in images], masks, [image.path for image in images])
    for image, reading in zip(images, readings, strict=True):
        for mask in reading.class_masks:
            _save(output / f"{image.name}_classes.png", mask)
            _save(output / f"{image.name}_overlay.png", overlay(image.pixels, mask))
        row = reader.row(image.path, reading)
        yield image, {"image": row.pop("image"), "page": image.page, **row}


def _mask_beside(image: pathlib.Path, shape: tuple[int, ...], config: Config) -> np.ndarray:
    """The cell's mask, bool [h, w]; all false if there is no mask file and the network needs none.

    Raises:
        ImageFileError: the file cannot be read, has another size than the image, or is missing where one is needed.
    """
    for path in (image.with_name(f"{image.stem}{ending}.png") for ending in ("_mask", "_Mask")):
        if path.is_file():
            try:
                pixels = field_sets.select_channel(image_files.read_first(path).pixels_8_bit, "grey")
            except ImageFileError as error:
                raise ImageFileError(f"{error}; {image.name} is left out") from error
            if pixels.shape != shape:
                raise ImageFileError(f"{path}: has another size than {image.name}")
            return pixels > 127
    if config.data.masked or config.data.cell_margin >= 0:
        raise ImageFileError(f"{image}: has no {image.stem}_mask.png beside it, which this network needs")
    return np.zeros(shape, bool)


def output_names(paths: Sequence[str]) -> list[str]:
    """For each image the start of the names of its output files: the stem of its file.

    Images that share a stem keep the ending of their name and their folder below the folder that all images share.
    """
    stems = [pathlib.Path(path).stem for path in paths]
    count = collections.Counter(stem.casefold() for stem in stems)
    absolute = [pathlib.Path(os.path.abspath(path)) for path in paths]
    common = os.path.commonpath([path.parent for path in absolute]) if paths else ""
    return [
        stem if count[stem.casefold()] == 1 else str(path.relative_to(common))
        for stem, path in zip(stems, absolute, strict=True)
    ]


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw the outline of each predicted region, in the colour of its pattern, on the contrast-stretched image.

    Args:
        image: uint8 [H, W].
        mask: uint8 [H, W], 0 background, 1+i pattern i.

    Returns:
        uint8 [H, W, 3], BGR.
    """
    low, high = np.percentile(image, [1, 99.8])
    stretched = np.clip((image.astype(np.float32) - low) / max(high - low, 1.0), 0, 1)
    picture = np.repeat((255 * stretched).astype(np.uint8)[..., None], 3, axis=-1)
    inside = mask > 0
    eroded = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=2, borderValue=1) > 0
    outline = inside & ~eroded
    colours = np.array([palette.bgr(palette.pattern_colour(i)) for i in range(mask.max())], np.uint8).reshape(-1, 3)
    picture[outline] = colours[mask[outline] - 1]
    return picture


def _save(path: pathlib.Path, pixels: np.ndarray) -> None:
    _, encoded = cv2.imencode(".png", pixels)
    with files.replaced(path) as unfinished:
        unfinished.write_bytes(encoded.tobytes())


def _write_table(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    # Names of files may hold bytes that are no text, which `surrogateescape` writes as they are.
    with (
        files.replaced(path) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
