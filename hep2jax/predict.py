"""A trained network on a user's own images.

python -m hep2jax.predict --workdir=DIR --images='PATTERN' --output=DIR
"""

import csv
import dataclasses
import glob
import pathlib
import sys
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from absl import flags

from hep2jax import cli, evaluate, metrics, specimen, workdir
from hep2jax import mesh as meshes
from hep2jax import state as states
from hep2jax.config import Config
from hep2jax.data import sources
from hep2jax.errors import UsageError
from hep2jax.progress import say

_WORKDIR = flags.DEFINE_string("workdir", None, "A finished run.")
_IMAGES = flags.DEFINE_string("images", None, "Shell pattern of the images to read, quoted; ** goes into folders.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the masks, overlays and predictions.csv.")

_COLOURS = np.array(  # Okabe and Ito's colour-blind safe palette, BGR; then the same again for more patterns
    [[0, 159, 230], [233, 180, 86], [115, 158, 0], [66, 228, 240], [178, 114, 0], [0, 94, 213], [167, 121, 204]],
    np.uint8,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """What the network says about one image."""

    image: str
    pattern: str
    """The pattern with most foreground pixels; 'none' where no cell was found."""
    share: float
    """Share of the foreground that voted for it."""
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


def predict(directory: pathlib.Path, paths: Sequence[str], output: pathlib.Path) -> list[Reading]:
    """Write `<image>_classes.png`, `<image>_overlay.png` and `predictions.csv`; returns the readings.

    Class masks: 0 background, 1+i pattern i of the work directory's `classes.json`.
    """
    config, classes = workdir.open_for_reading(directory), workdir.read_classes(directory)
    images = {path: image for path in paths if (image := _read(path, config)) is not None}
    if not images:
        raise UsageError(f"none of the {len(paths)} images could be read; nothing written")
    try:
        output.mkdir(parents=True, exist_ok=True)
        readings = list(_read_all(config, directory, classes, images, output))
        _write_table(output / "predictions.csv", readings)
    except OSError as error:
        raise UsageError(f"--output={output}: cannot be written ({error.strerror})") from error
    say(f"{len(readings)} of {len(paths)} images read: {output / 'predictions.csv'}")
    return readings


def _read(path: str, config: Config) -> np.ndarray | None:
    pixels = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    problem = None
    if pixels is None:
        problem = "not an image that can be decoded, or truncated"
    elif pixels.dtype != np.uint8:
        problem = f"{pixels.dtype} pixels; convert it to 8 bits a channel"
    if pixels is None or problem:
        print(f"hep2jax: {path}: {problem}; left out", file=sys.stderr)
        return None
    return sources.select_channel(pixels if pixels.ndim == 2 else pixels[..., 2::-1], config.data.channel)


def _read_all(
    config: Config, directory: pathlib.Path, classes: Sequence[str], images: dict[str, np.ndarray], output: pathlib.Path
) -> Iterator[Reading]:
    mesh = meshes.make_mesh()
    network = states.make_network(config, len(classes) + 1)
    state, _ = evaluate.restore(config, directory, network, mesh)
    working = [sources.resize_image(image, config.data.scale) for image in images.values()]
    greys = [np.array([*sources.grey_normalisation(image, config.data), 1.0, 0.0], np.float32) for image in working]
    evaluator = evaluate.Evaluator(config, network, mesh)
    parameters = (state.ema_params, state.ema_batch_stats)
    pairs = zip(working, greys, strict=True)
    predictions = evaluator.predict(parameters, pairs, [image.shape for image in working])
    names = _output_names(list(images))
    for (path, image), name, small in zip(images.items(), names, predictions, strict=True):
        foreground, pattern = specimen.decide(
            evaluate.to_native(small, image.shape), config.evaluation.foreground_threshold
        )
        mask = np.where(foreground, pattern + 1, 0).astype(np.uint8)
        _save(output / f"{name}_classes.png", mask)
        _save(output / f"{name}_overlay.png", overlay(image, mask))
        yield _reading(path, foreground, pattern, classes, config)


def _output_names(paths: Sequence[str]) -> list[str]:
    """The stems, or whole paths written flat where two images share a stem."""
    stems = [pathlib.Path(path).stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    return [str(pathlib.Path(path).with_suffix("")).strip("/").replace("/", "_") for path in paths]


def _reading(path: str, foreground: np.ndarray, pattern: np.ndarray, classes: Sequence[str], config: Config) -> Reading:
    votes = specimen.pattern_counts(foreground, pattern, len(classes))
    winner = specimen.vote(votes)
    return Reading(
        image=path,
        pattern="none" if winner is None else classes[winner],
        share=round(float(specimen.vote_shares(votes).max()), 4),
        num_objects=int(metrics.connected_objects(foreground, config.evaluation.min_object_pixels).max()),
        foreground=round(float(foreground.mean()), 4),
    )


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image, stretched, with the outline of each predicted region in its pattern's colour: BGR uint8 [H, W, 3]."""
    low, high = np.percentile(image, [1, 99.8])
    stretched = np.clip((image.astype(np.float32) - low) / max(high - low, 1.0), 0, 1)
    picture = np.repeat((255 * stretched).astype(np.uint8)[..., None], 3, axis=-1)
    inside = mask > 0
    eroded = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=2, borderValue=1) > 0
    outline = inside & ~eroded
    picture[outline] = _COLOURS[(mask[outline] - 1) % len(_COLOURS)]
    return picture


def _save(path: pathlib.Path, pixels: np.ndarray) -> None:
    if not cv2.imwrite(str(path), pixels):
        raise OSError(28, f"could not write {path}")


def _write_table(path: pathlib.Path, readings: Sequence[Reading]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in dataclasses.fields(Reading)])
        table.writeheader()
        table.writerows(dataclasses.asdict(reading) for reading in readings)


if __name__ == "__main__":
    cli.run_app(run)
