"""A trained network on a user's own images.

python -m hep2jax.predict --workdir=DIR --images='PATTERN' --output=DIR
"""

import csv
import dataclasses
import glob
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import jax
import numpy as np
from absl import flags
from PIL import Image

from hep2jax import cli, evaluation, metrics, specimen, tasks, workdir
from hep2jax import mesh as meshes
from hep2jax import state as states
from hep2jax.config import BAG_READERS, CLASSIFIERS, JOINT_READERS, Config
from hep2jax.data import cells, sources
from hep2jax.data.joint_stream import GRADES
from hep2jax.errors import UsageError
from hep2jax.progress import say
from hep2jax.report import palette
from hep2jax.tasks.bag_task import BagEvaluator, pooled
from hep2jax.tasks.cell_task import CellEvaluator
from hep2jax.tasks.field_task import FieldEvaluator
from hep2jax.tasks.joint_task import JointEvaluator, majority
from hep2jax.tasks.labels_task import probabilities
from tfds_builders import icap

_WORKDIR = flags.DEFINE_string("workdir", None, "A finished run.")
_IMAGES = flags.DEFINE_string("images", None, "Shell pattern of the images to read, quoted; ** goes into folders.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the masks, overlays and predictions.csv.")

_DECIMALS = 6  # of shares and probabilities, as in `report/records.json`

_UNREADABLE = (OSError, SyntaxError, ValueError)  # what Pillow raises for files that are no images, or broken ones


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """What the network says about one image."""

    image: str
    pattern: str
    """The pattern with most votes (foreground pixels or patches); 'none' where no cell was found."""
    icap: str
    """Its consensus codes, such as `AC-4, AC-5`; empty for a pattern that has none."""
    share: float
    """Share of the votes that it has; 0 where no cell was found."""
    num_objects: int
    """Connected foreground objects; touching cells count as one."""
    foreground: float
    """Share of the image's pixels that are cell."""


def run(argv: Sequence[str]) -> None:
    """Read every image; one that cannot be read is named and the rest goes on."""
    del argv
    directory, pattern, output = (_required(flag) for flag in (_WORKDIR, _IMAGES, _OUTPUT))
    cli.prepare_runtime()
    paths = sorted(path for path in glob.glob(pattern, recursive=True) if pathlib.Path(path).is_file())
    if not paths:
        raise UsageError(f"--images={pattern}: no file matches; quote the pattern so that the shell leaves it")
    predict(pathlib.Path(directory), paths, pathlib.Path(output))


def _required(flag: flags.FlagHolder) -> str:
    if not flag.value:
        raise UsageError(f"--{flag.name} is missing: predict needs --workdir=DIR --images='PATTERN' --output=DIR")
    return flag.value


def predict(directory: pathlib.Path, paths: Sequence[str], output: pathlib.Path) -> list[dict[str, Any]]:
    """Read every image and write `predictions.csv`; returns its rows.

    A network that segments fields also writes `<image>_classes.png` (0 background, 1+i pattern i of the work
    directory's `classes.json`) and `<image>_overlay.png`. A network for cells takes each image as the crop of one cell;
    a file `<image>_mask.png` beside it is the cell's mask, and a cell whose mask cannot be read is left out. A network
    for images of several patterns names those above `evaluation.pattern_threshold` of the run.
    """
    config, classes = workdir.open_for_reading(directory), workdir.read_classes(directory)
    reads_cells = config.model.name in CLASSIFIERS
    paths = [path for path in paths if not (reads_cells and _is_mask(path))]
    images = {path: image for path in paths if (image := _read(path, config)) is not None}
    masks = _masks_beside(images) if reads_cells else {}
    images = {path: image for path, image in images.items() if path in masks or not reads_cells}
    if not images:
        raise UsageError(f"none of the {len(paths)} images could be read; nothing written")
    try:
        output.mkdir(parents=True, exist_ok=True)
        if reads_cells:
            readings = _read_cells(config, directory, classes, images, masks)
        elif config.model.name in BAG_READERS:
            readings = _read_bags(config, directory, classes, images)
        else:
            read = _read_patches if config.model.name in JOINT_READERS else _read_pixels
            readings = list(read(config, directory, classes, images, output))
        _write_table(output / "predictions.csv", readings)
    except OSError as error:
        raise UsageError(f"--output={output}: cannot be written ({error.strerror})") from error
    say(f"{len(readings)} of {len(paths)} images read: {output / 'predictions.csv'}")
    return readings


def _read(path: str, config: Config) -> np.ndarray | None:
    try:
        pixels = _decode(path)
    except _UNREADABLE:
        print(f"hep2jax: {path}: not an image that can be decoded, or truncated; left out", file=sys.stderr)
        return None
    if pixels.dtype != np.uint8:
        print(f"hep2jax: {path}: {pixels.dtype} pixels; convert it to 8 bits a channel; left out", file=sys.stderr)
        return None
    return sources.select_channel(pixels, config.data.channel)


def _decode(path: str | pathlib.Path) -> np.ndarray:
    """Pixels [H, W] or [H, W, 3], RGB. Not OpenCV: its PNG library writes a warning for every colour profile."""
    with Image.open(path) as image:
        plain = image.convert("RGB") if image.mode in ("P", "LA", "RGBA", "CMYK", "YCbCr") else image
        pixels = np.asarray(plain)
    return pixels.astype(np.uint8) * 255 if pixels.dtype == np.bool_ else pixels


def _trained(
    config: Config, directory: pathlib.Path, classes: Sequence[str]
) -> tuple[states.Network, jax.sharding.Mesh, tasks.Parameters]:
    mesh = meshes.make_mesh()
    network = states.make_network(config, tasks.num_outputs(config, classes))
    state, _ = evaluation.restore(config, directory, network, mesh)
    return network, mesh, (state.ema_params, state.ema_batch_stats)


def _is_mask(path: str) -> bool:
    return pathlib.Path(path).stem.lower().endswith("_mask")


def _masks_beside(images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The masks of cells, but of those whose mask cannot be decoded."""
    masks = {path: _mask_beside(path, image.shape) for path, image in images.items()}
    return {path: mask for path, mask in masks.items() if mask is not None}


def _mask_beside(path: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """The cell's mask, bool [h, w]; all false where there is no file for it, or one of another size.

    None where the file cannot be decoded: that is said.
    """
    image = pathlib.Path(path)
    for mask in (image.with_name(f"{image.stem}{ending}.png") for ending in ("_mask", "_Mask")):
        try:
            if mask.is_file() and (pixels := sources.select_channel(_decode(mask), "grey")).shape == shape:
                return pixels > 127
        except _UNREADABLE:
            said = f"{mask}: not a mask that can be decoded, or truncated; {image.name} left out"
            print(f"hep2jax: {said}", file=sys.stderr)
            return None
    return np.zeros(shape, bool)


def _read_cells(
    config: Config,
    directory: pathlib.Path,
    classes: Sequence[str],
    images: dict[str, np.ndarray],
    masks: dict[str, np.ndarray],
) -> list[dict[str, Any]]:
    network, mesh, parameters = _trained(config, directory, classes)
    ready = [cells.make_ready(image, masks[path], config.data, name=path) for path, image in images.items()]
    evaluator = CellEvaluator(config, network, mesh)
    probabilities = evaluator.predict(parameters, [image for image, _ in ready], [greys for _, greys in ready])
    return [_named(path, row, classes) for path, row in zip(images, probabilities, strict=True)]


def _named(path: str, probabilities: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    best = int(probabilities.argmax())
    shares = {name: round(float(p), _DECIMALS) for name, p in zip(classes, probabilities, strict=True)}
    pattern = {"pattern": classes[best], "icap": icap.describe(classes[best])}
    return {"image": path, **pattern, "probability": shares[classes[best]], **shares}


def _labelled(path: str, probabilities: np.ndarray, classes: Sequence[str], threshold: float) -> dict[str, Any]:
    """The patterns of at least the threshold, the most probable first, and the probability of every pattern."""
    found: list[str] = [
        classes[int(k)] for k in np.argsort(-probabilities, kind="stable") if probabilities[k] >= threshold
    ]
    read = {"patterns": " + ".join(found) or "none", "icap": " + ".join(filter(None, map(icap.describe, found)))}
    shares = {name: round(float(p), _DECIMALS) for name, p in zip(classes, probabilities, strict=True)}
    return {"image": path, **read, **shares}


def _read_bags(
    config: Config, directory: pathlib.Path, classes: Sequence[str], images: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    network, mesh, parameters = _trained(config, directory, classes)
    rows = BagEvaluator(config, network, mesh).measure_fields(parameters, _fields(images, config))
    if tasks.reads_labels(config):
        threshold = config.evaluation.pattern_threshold
        pairs = zip(images, rows, strict=True)
        return [_labelled(path, probabilities(row), classes, threshold) for path, row in pairs]
    return [_named(path, pooled([row]), classes) for path, row in zip(images, rows, strict=True)]


def _read_patches(
    config: Config, directory: pathlib.Path, classes: Sequence[str], images: dict[str, np.ndarray], output: pathlib.Path
) -> Iterator[dict[str, Any]]:
    network, mesh, parameters = _trained(config, directory, classes)
    votes = JointEvaluator(config, network, mesh).read(parameters, _fields(images, config))
    for (path, image), name, row in zip(images.items(), _output_names(list(images)), votes, strict=True):
        pattern, grade = majority([row])
        _save_masks(output / name, image, row.foreground, np.full(image.shape, pattern or 0))
        reading = _reading(path, row.foreground, row.patterns, classes, config)
        yield dataclasses.asdict(reading) | {"intensity": "none" if grade is None else GRADES[grade]}


def _fields(images: dict[str, np.ndarray], config: Config) -> list[sources.Field]:
    """The images as fields of which nothing is known."""
    return [
        sources.make_field(
            image=image,
            classes=np.zeros(image.shape, np.uint8),
            instances=np.zeros(image.shape, np.uint16),
            specimen_id=path,
            number=0,
            split="",
            pattern=0,
            intensity="",
            config=config.data,
        )
        for path, image in images.items()
    ]


def _read_pixels(
    config: Config, directory: pathlib.Path, classes: Sequence[str], images: dict[str, np.ndarray], output: pathlib.Path
) -> Iterator[dict[str, Any]]:
    network, mesh, parameters = _trained(config, directory, classes)
    readings = FieldEvaluator(config, network, mesh).read_pixels(parameters, _fields(images, config))
    for (path, image), name, read in zip(images.items(), _output_names(list(images)), readings, strict=True):
        _save_masks(output / name, image, read.foreground, read.pattern)
        yield dataclasses.asdict(_reading(path, read.foreground, read.votes, classes, config))


def _save_masks(stem: pathlib.Path, image: np.ndarray, foreground: np.ndarray, pattern: np.ndarray) -> None:
    mask = np.where(foreground, pattern + 1, 0).astype(np.uint8)
    _save(stem.with_name(f"{stem.name}_classes.png"), mask)
    _save(stem.with_name(f"{stem.name}_overlay.png"), overlay(image, mask))


def _output_names(paths: Sequence[str]) -> list[str]:
    """The stems, or whole paths written flat where two images share a stem."""
    stems = [pathlib.Path(path).stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    return [str(pathlib.Path(path).with_suffix("")).strip("/").replace("/", "_") for path in paths]


def _reading(path: str, foreground: np.ndarray, votes: np.ndarray, classes: Sequence[str], config: Config) -> Reading:
    winner = specimen.vote(votes)
    name = "none" if winner is None else classes[winner]
    return Reading(
        image=path,
        pattern=name,
        icap=icap.describe(name),
        share=round(float(specimen.vote_shares(votes).max()), _DECIMALS),
        num_objects=int(metrics.connected_objects(foreground, config.evaluation.min_object_pixels).max()),
        foreground=round(float(foreground.mean()), _DECIMALS),
    )


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image, stretched, with the outline of each predicted region in its pattern's colour: BGR uint8 [H, W, 3].

    Args:
        image: uint8 [H, W].
        mask: uint8 [H, W], 0 background, 1+i pattern i.
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
    cli.run_app(run)
