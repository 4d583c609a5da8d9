"""Compares the rate of `hep2jax.predict` on files with that of the evaluation on images in memory, and its memory.

    python -m scripts.bench_predict --workdir=DIR [--images=1000] [--repeats=1]

DIR is a finished run of a network that labels the pixels of synthetic fields, such as `configs/fcn.py`. The images are
synthetic fields of five sizes, drawn once and repeated. Every measurement is a process of its own that has compiled
before its clock starts. The evaluation measures masks and patterns against the truth; prediction decodes, decides and
writes everything that the command writes. Peaks are those of whole processes, of all images and of a tenth of them.
"""

import itertools
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from absl import flags

import hep2jax
from hep2jax import cli, predict, tasks
from hep2jax import mesh as meshes
from hep2jax.config import DataConfig
from hep2jax.data.sets import fields as field_sets
from hep2jax.data.sets.fields import Field
from hep2jax.errors import UsageError
from hep2jax.tasks.fields import FieldEvaluator, FieldTask
from hep2jax.training import evaluation
from scripts import bench_common
from tfds_builders.hep2_synthetic import generator

SIZES = ((416, 416), (300, 500), (520, 694), (260, 347), (150, 210))
"""Heights and widths of the images, in turn."""
_DISTINCT = 40
_PARTS = ("evaluate", "predict")


def define_flags() -> None:
    """Define the command's flags."""
    flags.DEFINE_string("workdir", None, "Work directory of a finished run of a network that labels pixels.")
    flags.DEFINE_integer("images", 1000, "Number of images, at least ten.")
    flags.DEFINE_integer("repeats", 1, "Number of rounds; both are measured once in each.")
    flags.DEFINE_enum("part", None, _PARTS, "For the processes that this command starts.")
    flags.DEFINE_string("folder", None, "For the processes that this command starts.")


def main(argv: Sequence[str]) -> None:
    """Measure, then print the table and, as the last line, one JSON object."""
    del argv
    options = flags.FLAGS
    if not options.workdir or options.images < (1 if options.part else 10):
        raise UsageError("bench_predict needs --workdir=DIR and --images of at least 10")
    cli.prepare_runtime()
    if options.part:
        print(json.dumps(_measure(options.part, options.workdir, pathlib.Path(options.folder), options.images)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_images(pathlib.Path(folder), options.images)
        _report(_rounds(options.workdir, folder, options.images, options.repeats), options.images)


def write_images(folder: pathlib.Path, number: int) -> None:
    """Write the images as PNG files; those after the first `_DISTINCT` are links to them."""
    for index in range(number):
        path = folder / f"{index:06d}.png"
        if index < _DISTINCT:
            cv2.imwrite(str(path), _draw(index).image)
        else:
            os.link(folder / f"{index % _DISTINCT:06d}.png", path)


def _draw(index: int) -> generator.Field:
    height, width = SIZES[index % len(SIZES)]
    pattern = generator.PATTERNS[index % len(generator.PATTERNS)]
    return generator.generate_specimen(index, pattern, "positive", height=height, width=width, fields=1)[0]


def _rounds(workdir: str, folder: str, images: int, repeats: int) -> dict[str, list[dict[str, float]]]:
    """What the processes of each round say; the last is the prediction of a tenth of the images."""
    parts = {part: _process(part, workdir, folder, images) for part in _PARTS}
    rounds = bench_common.interleaved(parts, repeats)
    return rounds | {"predict, a tenth": [_process("predict", workdir, folder, images // 10)()]}


def _process(part: str, workdir: str, folder: str, images: int) -> Any:
    line = [sys.executable, "-m", "scripts.bench_predict", f"--part={part}", f"--workdir={workdir}"]

    def run() -> dict[str, float]:
        done = subprocess.run(
            [*line, f"--folder={folder}", f"--images={images}"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{part}: {done.stderr.strip()}")
        return json.loads(done.stdout.splitlines()[-1])

    return run


def _measure(part: str, workdir: str, folder: pathlib.Path, images: int) -> dict[str, float]:
    run = {"evaluate": _evaluate, "predict": _predict}[part]
    rate = run(workdir, folder, images)
    return {"images_per_second": rate, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _evaluate(workdir: str, folder: pathlib.Path, images: int) -> float:
    del folder
    trained = evaluation.load(workdir)
    if not issubclass(tasks.kind(trained.config), FieldTask):
        raise UsageError(f"--workdir={workdir}: its network does not label pixels")
    evaluator = FieldEvaluator(trained.config, trained.network, meshes.make_mesh())
    drawn = [_field(index, trained.config.data) for index in range(min(_DISTINCT, images))]
    evaluator.measure(trained.parameters, drawn[:1], trained.classes)
    started, size = time.perf_counter(), 100
    numbers = itertools.cycle(range(len(drawn)))
    for first in range(0, images, size):  # the results of an evaluation hold masks, which add up
        fields = [drawn[next(numbers)] for _ in range(min(size, images - first))]
        evaluator.measure(trained.parameters, fields, trained.classes)
    return images / (time.perf_counter() - started)


def _field(index: int, config: DataConfig) -> Field:
    field = _draw(index)
    return field_sets.make_field(
        image=field.image,
        classes=field.class_mask,
        instances=field.instance_mask,
        specimen_id=str(index),
        number=0,
        split="test",
        pattern=index % len(generator.PATTERNS),
        intensity="positive",
        config=config,
    )


def _predict(workdir: str, folder: pathlib.Path, images: int) -> float:
    reader = hep2jax.load(workdir)
    reader(np.zeros((64, 64), np.uint8))
    paths = [str(folder / f"{index:06d}.png") for index in range(images)]
    # It stays until all is measured: file systems create files slowly where thousands were removed a moment ago.
    output = tempfile.mkdtemp(prefix="output-", dir=folder)
    started = time.perf_counter()
    predict.predict(reader, paths, pathlib.Path(output))
    return images / (time.perf_counter() - started)


def _report(rounds: dict[str, list[dict[str, float]]], images: int) -> None:
    rates = {name: [row["images_per_second"] for row in rounds[name]] for name in _PARTS}
    peaks = {name: max(row["peak_mb"] for row in rows) for name, rows in rounds.items()}
    ratio = bench_common.ratios(rates, "evaluate")["predict"]
    growth = peaks["predict"] / peaks["predict, a tenth"]
    where = bench_common.machine()
    bench_common.say_where({"images": images, **where})
    rows = [(name, rate, peaks[name]) for name, rate in bench_common.medians(rates).items()]
    rows.append(("predict, a tenth", rounds["predict, a tenth"][0]["images_per_second"], peaks["predict, a tenth"]))
    print(bench_common.table(("variant", "images/s", "peak in MB"), rows))
    print(f"predict over evaluate: {ratio:.2f}; peak over that of a tenth: {growth:.3f}")
    result = {"benchmark": "predict", "images": images, **where, "images_per_second": bench_common.medians(rates)}
    print(json.dumps({**result, "peak_mb": peaks, "ratio": ratio, "peak_ratio": growth}))


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
