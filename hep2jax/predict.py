"""Applies a trained network to a user's own images.

python -m hep2jax.predict --workdir=DIR --images='PATTERN' --output=DIR
"""

import csv
import glob
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from absl import flags
from PIL import Image

from hep2jax import api, cli, remote
from hep2jax.config import Config
from hep2jax.data.sets import fields as field_sets
from hep2jax.errors import UsageError
from hep2jax.progress import say
from hep2jax.report import palette
from hep2jax.tasks import Reader

_UNREADABLE = (OSError, SyntaxError, ValueError)  # what Pillow raises for damaged files and files that are not images


def define_flags() -> None:
    """Define the command's flags."""
    flags.DEFINE_string("workdir", None, "Work directory of a finished run, also gs://… or s3://….")
    flags.DEFINE_string("images", None, "Quoted shell pattern of the images to read; ** descends into folders.")
    flags.DEFINE_string("output", None, "Folder for the masks, overlays and predictions.csv.")


def main(argv: Sequence[str]) -> None:
    """Read every image. An image that cannot be read is reported, and the others are read nevertheless."""
    del argv
    directory, pattern, output = (_required(name) for name in ("workdir", "images", "output"))
    cli.prepare_runtime()
    paths = sorted(path for path in glob.glob(pattern, recursive=True) if pathlib.Path(path).is_file())
    if not paths:
        raise UsageError(f"--images={pattern}: no file matches; quote the pattern so that the shell leaves it")
    predict(directory, paths, remote.local_folder(output, "--output"))


def _required(name: str) -> str:
    value = flags.FLAGS[name].value
    if not value:
        raise UsageError(f"--{name} is missing: predict needs --workdir=DIR --images='PATTERN' --output=DIR")
    return value


def predict(directory: str | os.PathLike[str], paths: Sequence[str], output: pathlib.Path) -> list[dict[str, Any]]:
    """Read every image and write `predictions.csv`; returns its rows.

    For a network that segments fields, `<image>_classes.png` (0 background, 1+i pattern i of the work directory's
    `classes.json`) and `<image>_overlay.png` are written too. For a network that classifies cells, each image is the
    crop of one cell; a file `<image>_mask.png` beside it is the mask of the cell, and a cell is left out if its mask
    cannot be read. A network for images with several patterns predicts those above the run's
    `evaluation.pattern_threshold`.
    """
    reader = api.load(directory)
    paths = [path for path in paths if not (reader.takes_masks and _is_mask(path))]
    images = {path: image for path in paths if (image := _read(path, reader.config)) is not None}
    masks = _masks_beside(images) if reader.takes_masks else None
    images = {path: image for path, image in images.items() if masks is None or path in masks}
    if not images:
        raise UsageError(f"none of the {len(paths)} images could be read; nothing was written")
    try:
        output.mkdir(parents=True, exist_ok=True)
        rows = _write_readings(reader, images, masks, output)
    except OSError as error:
        raise UsageError(f"--output={output}: cannot be written ({error.strerror})") from error
    say(f"{len(rows)} of {len(paths)} images read: {output / 'predictions.csv'}")
    return rows


def _write_readings(
    reader: Reader, images: dict[str, np.ndarray], masks: dict[str, np.ndarray] | None, output: pathlib.Path
) -> list[dict[str, Any]]:
    """Write the masks of each image as soon as it is read, and the table at the end; returns its rows."""
    names, rows = list(images), []
    readings = reader.read(list(images.values()), None if masks is None else [masks[name] for name in names], names)
    for name, stem, reading in zip(names, _output_names(names), readings, strict=True):
        for mask in reading.class_masks:
            _save(output / f"{stem}_classes.png", mask)
            _save(output / f"{stem}_overlay.png", overlay(images[name], mask))
        rows.append(reader.row(name, reading))
    _write_table(output / "predictions.csv", rows)
    return rows


def _read(path: str, config: Config) -> np.ndarray | None:
    try:
        pixels = _decode(path)
    except _UNREADABLE:
        print(f"hep2jax: {path}: not an image, or damaged; left out", file=sys.stderr)
        return None
    if pixels.dtype != np.uint8:
        print(f"hep2jax: {path}: {pixels.dtype} pixels; convert it to 8 bits a channel; left out", file=sys.stderr)
        return None
    return field_sets.select_channel(pixels, config.data.channel)


def _decode(path: str | pathlib.Path) -> np.ndarray:
    """The pixels, [H, W] grey or [H, W, 3] RGB.

    Pillow decodes them, because the PNG library of OpenCV writes a warning to stderr for every colour profile.
    """
    with Image.open(path) as image:
        converted = image.convert("RGB") if image.mode in ("P", "LA", "RGBA", "CMYK", "YCbCr") else image
        pixels = np.asarray(converted)
    return pixels.astype(np.uint8) * 255 if pixels.dtype == np.bool_ else pixels


def _is_mask(path: str) -> bool:
    return pathlib.Path(path).stem.lower().endswith("_mask")


def _masks_beside(images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The mask of each cell, except of cells whose mask file cannot be decoded."""
    masks = {path: _mask_beside(path, image.shape) for path, image in images.items()}
    return {path: mask for path, mask in masks.items() if mask is not None}


def _mask_beside(path: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """The cell's mask, bool [h, w]; all false if there is no mask file, or only one of another size.

    None if the file cannot be decoded, which is reported.
    """
    image = pathlib.Path(path)
    for mask in (image.with_name(f"{image.stem}{ending}.png") for ending in ("_mask", "_Mask")):
        try:
            if mask.is_file() and (pixels := field_sets.select_channel(_decode(mask), "grey")).shape == shape:
                return pixels > 127
        except _UNREADABLE:
            print(f"hep2jax: {mask}: not an image, or damaged; {image.name} is left out", file=sys.stderr)
            return None
    return np.zeros(shape, bool)


def _output_names(paths: Sequence[str]) -> list[str]:
    """The stems of the files; if two images share a stem, the full paths with an underscore for each slash."""
    stems = [pathlib.Path(path).stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    return [str(pathlib.Path(path).with_suffix("")).strip("/").replace("/", "_") for path in paths]


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
    if not cv2.imwrite(str(path), pixels):
        raise OSError(28, f"could not write {path}")


def _write_table(path: pathlib.Path, readings: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(readings[0]))
        table.writeheader()
        table.writerows(readings)


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
