"""Measures what a network trained on synthetic specimens knows of its own doubt, on new specimens and on other images.

Usage: python -m scripts.calibration --workdir=DIR [--specimens=24] [--seed=900000]

Draws new synthetic specimens of each pattern, none of which is in the data set, and prints the calibration error of
their images (of their cells, for a network of cells). Then it shows the reader what is no HEp-2 image: pictures that
scikit-image brings along, noise, gradients and flat images; and negative specimens. The last line is one JSON object.
"""

import argparse
import json
import pathlib
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
import skimage

import hep2jax
from hep2jax.data.sets import cells as cell_sets
from hep2jax.errors import UsageError
from hep2jax.metrics.calibration import auroc, describe
from hep2jax.tasks import Reader
from hep2jax.tasks.calibration import FAINT, UNLIKE, Outcome
from tfds_builders.hep2_synthetic import generator

SIDE, CELL_SIDE = 416, 72
PICTURES = ("grass", "gravel", "horse", "hubble_deep_field", "ihc", "microaneurysms", "moon", "motorcycle_left", "page")
PICTURES += ("phantom", "retina", "rocket", "text")
"""The score was chosen on others: astronaut, brick, camera, cell, chelsea, clock_motion, coffee, coins, color."""
Named = list[tuple[str, np.ndarray]]


def pictures(rng: np.random.Generator) -> Named:
    """Four cuttings of each picture, the whole picture, and the whole picture at a quarter of its brightness."""
    found: Named = []
    for name in PICTURES:
        (path,) = (pathlib.Path(skimage.__file__).parent / "data").glob(f"{name}.*")
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert image is not None, path
        enlarged = max(1.0, SIDE / min(image.shape))
        image = cv2.resize(image, None, fx=enlarged, fy=enlarged) if enlarged > 1 else image
        for _ in range(4):
            top, left = (int(rng.integers(0, length - SIDE + 1)) for length in image.shape)
            found.append((name, np.ascontiguousarray(image[top : top + SIDE, left : left + SIDE])))
        whole = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        found += [(name, whole), (name, whole // 4)]
    return found


def noise(rng: np.random.Generator) -> Named:
    """Noise of several kinds, gradients and flat images."""
    shape = (SIDE, SIDE)
    found: Named = []
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for mean, deviation in ((128, 40), (20, 5), (30, 15), (60, 30)):
        found.append(("gaussian noise", rng.normal(mean, deviation, shape)))
    found += [("uniform noise", rng.uniform(0, 255, shape)), ("salt", np.where(rng.random(shape) < 0.05, 255, 20))]
    for sigma in (2, 5, 12):
        smooth = cv2.GaussianBlur(rng.normal(0, 1, shape), (0, 0), sigma)
        found.append(("blurred noise", 200 * (smooth - smooth.min()) / np.ptp(smooth)))
    found += [("gradient", rows * 255 / SIDE), ("halo", 255 - np.hypot(rows - SIDE / 2, columns - SIDE / 2))]
    found += [("flat", np.full(shape, level)) for level in (0, 20, 60, 128, 255)]
    return [(name, np.clip(image, 0, 255).astype(np.uint8)) for name, image in found]


def for_cells(images: Named, rng: np.random.Generator) -> Named:
    """Each image shrunk to the size of a cell, and a cutting of this size."""
    found: Named = []
    for name, image in images:
        top, left = (int(rng.integers(0, SIDE - CELL_SIDE)) for _ in range(2))
        found.append((name, cv2.resize(image, (CELL_SIDE, CELL_SIDE), interpolation=cv2.INTER_AREA)))
        found.append((name, np.ascontiguousarray(image[top : top + CELL_SIDE, left : left + CELL_SIDE])))
    return found


def specimens(reader: Reader, number: int, seed: int) -> Iterator[tuple[int, str, generator.Field]]:
    """The pattern, the name and each field of new specimens, half of them positive, half intermediate."""
    for k, pattern in enumerate(reader.classes):
        for i in range(number):
            intensity = ("positive", "intermediate")[i % 2]
            drawn = generator.generate_specimen(
                seed + 1000 * k + i, pattern, intensity, height=SIDE, width=SIDE, fields=2
            )
            yield from ((k, f"{pattern}-{i}", field) for field in drawn)


def examples(reader: Reader, field: generator.Field) -> list[np.ndarray]:
    """The field itself, or its cells if the reader reads cells."""
    if not reader.takes_masks:
        return [field.image]
    numbers = [found.instance for found in field.objects if found.kind == "cell"]
    return [cut.image for cut in cell_sets.cut_out(field.image, field.instance_mask, numbers).cuts]


def run(workdir: str, number: int, seed: int) -> dict[str, float]:
    """Print what was found, and return it.

    Raises:
        UsageError: the network is uncalibrated, needs masks, or has patterns that the generator does not draw.
    """
    reader = hep2jax.load(workdir)
    if reader.calibration is None:
        raise UsageError(f"--workdir={workdir}: its network is not calibrated")
    if set(reader.classes) - set(generator.PATTERNS) or reader.config.data.masked or reader.calibration.several:
        raise UsageError(f"--workdir={workdir}: its network does not read images of the patterns that are drawn here")
    inside, measured = _on_specimens(reader, number, seed)
    rng = np.random.default_rng(seed)
    for kind, images in (("pictures", pictures(rng)), ("noise", noise(rng))):
        shown = for_cells(images, rng) if reader.takes_masks else images
        outside = list(reader.read([image for _, image in shown]))
        measured[f"auroc_{kind}"] = auroc(inside, np.array([reading.novelty for reading in outside]))
        measured[f"flagged_{kind}"] = _flagged(reading.verdict for reading in outside)
    if not reader.takes_masks:
        measured["flagged_negatives"] = _negatives(reader, number, seed)
    for name, value in measured.items():
        print(f"{name}: {value:.3f}")
    return measured


def _on_specimens(reader: Reader, number: int, seed: int) -> tuple[np.ndarray, dict[str, float]]:
    """The novelty of each example of new specimens, and how well its confidence holds."""
    assert reader.calibration is not None
    drawn = [(k, name, e) for k, name, field in specimens(reader, number, seed) for e in examples(reader, field)]
    readings = list(reader.read([image for _, _, image in drawn]))
    outcomes = [
        Outcome(np.array([reading.probabilities[c] for c in reader.classes]), k, name)
        for (k, name, _), reading in zip(drawn, readings, strict=True)
    ]
    unit = "cell" if reader.takes_masks else "image"
    found = reader.calibration.measure(outcomes, [], unit=unit, in_sample=False)
    print(f"{found.num_examples} new {unit}s of {found.num_specimens} specimens: {describe(found)}")
    errors = {"ece": found.after.ece, "ece_before": found.before.ece, "ece_by_chance": found.ece_by_chance}
    alarms = {"false_alarms": _flagged(reading.verdict for reading in readings)}
    return np.array([reading.novelty for reading in readings]), errors | alarms


def _negatives(reader: Reader, number: int, seed: int) -> float:
    kind = generator.NEGATIVE
    drawn = [
        generator.generate_specimen(seed + i, kind, kind, height=SIDE, width=SIDE, fields=1)[0] for i in range(number)
    ]
    return _flagged(reading.verdict for reading in reader.read([field.image for field in drawn]))


def _flagged(verdicts: Iterable[str]) -> float:
    return float(np.mean([verdict in (FAINT, UNLIKE) for verdict in verdicts]))


def main() -> None:
    """Measure, and print one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="Work directory of a network trained on synthetic specimens.")
    parser.add_argument("--specimens", type=int, default=24, help="Number of new specimens of each pattern.")
    parser.add_argument("--seed", type=int, default=900_000, help="Seed of the new specimens.")
    options = parser.parse_args()
    print(json.dumps(run(options.workdir, options.specimens, options.seed)))


if __name__ == "__main__":
    main()
