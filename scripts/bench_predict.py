"""Compares the rate of `hep2jax.predict` on files with that of the evaluation on images in memory, and its memory.

    python -m scripts.bench_predict --workdir=DIR [--images=1000] [--repeats=1]

DIR is a finished run of a network that labels the pixels of synthetic fields, such as `configs/fcn.py`. The images are
synthetic fields of five sizes, drawn once and repeated. Every measurement is a process of its own that has compiled
before its clock starts:

* `network`: the compiled forward pass alone, on the tiles of images in memory;
* `evaluate`: the evaluation of these images, which measures masks and patterns against the truth;
* `predict`: the command, which decodes files, decides, and writes everything that it writes;
* `PyTorch`, if it is installed and has this network: a loop of the same network over the same files (batches of tiles,
  channels last, one after another), which blends and decides like ours and writes nothing.

Peaks are those of whole processes, of all images and of a tenth of them. The share of waiting is that of the time in
which the network could have computed, by its rate alone, and did not.
"""

import importlib.util
import itertools
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from absl import flags

from hep2jax import api, cli, predict, tasks
from hep2jax import mesh as meshes
from hep2jax.config import Config, DataConfig
from hep2jax.data import tiles
from hep2jax.data.sets import fields as field_sets
from hep2jax.data.sets.fields import Field
from hep2jax.errors import UsageError
from hep2jax.tasks.fields import FieldEvaluator, FieldTask, decide, to_native, working_pair
from hep2jax.tasks.reading import as_field
from hep2jax.tasks.tile_reader import TileReader
from hep2jax.training import evaluation
from hep2jax.training import workdir as workdirs
from hep2jax.training.evaluation import Trained
from scripts import bench_common
from tfds_builders import image_files
from tfds_builders.hep2_synthetic import generator

SIZES = ((416, 416), (300, 500), (520, 694), (260, 347), (150, 210))
"""Heights and widths of the images, in turn."""
_DISTINCT = 40
_PARTS = ("network", "evaluate", "predict", "PyTorch")


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
    if not _has_peer(workdir):
        del parts["PyTorch"]
    rounds = bench_common.interleaved(parts, repeats)
    return rounds | {"predict, a tenth": [_process("predict", workdir, folder, images // 10)()]}


def _has_peer(workdir: str) -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    from scripts.peers import networks

    return workdirs.open_for_reading(pathlib.Path(workdir)).model.name in networks.TWINS


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
    trained = evaluation.load(workdir)
    if not issubclass(tasks.kind(trained.config), FieldTask):
        raise UsageError(f"--workdir={workdir}: its network does not label pixels")
    measure = {"network": _network, "evaluate": _evaluate, "predict": _predict, "PyTorch": _peer}[part]
    seconds = measure(trained, folder, images)
    num_tiles = sum(_num_tiles(SIZES[index % len(SIZES)], trained.config) for index in range(images))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"images_per_second": images / seconds, "tiles_per_second": num_tiles / seconds, "peak_mb": peak}


def _num_tiles(size: tuple[int, int], config: Config) -> int:
    height, width = field_sets.resize_image(np.zeros(size, np.uint8), config.data.scale).shape
    options = config.evaluation
    return len(tiles.plan(0, (height, width), options.tile_size, options.tile_overlap))


def _network(trained: Trained, folder: pathlib.Path, images: int) -> float:
    del folder
    reader = TileReader(trained.config, trained.network, meshes.make_mesh(), FieldEvaluator.decode)
    drawn = [working_pair(_field(index, trained.config.data)) for index in range(min(_DISTINCT, images))]
    for _ in reader.read(trained.parameters, drawn[:1]):
        pass
    started = time.perf_counter()
    for _ in reader.read(trained.parameters, (drawn[index % len(drawn)] for index in range(images))):
        pass
    return time.perf_counter() - started


def _evaluate(trained: Trained, folder: pathlib.Path, images: int) -> float:
    del folder
    evaluator = FieldEvaluator(trained.config, trained.network, meshes.make_mesh())
    drawn = [_field(index, trained.config.data) for index in range(min(_DISTINCT, images))]
    evaluator.measure(trained.parameters, drawn[:1], trained.classes)
    started, size = time.perf_counter(), 100
    numbers = itertools.cycle(range(len(drawn)))
    for first in range(0, images, size):  # the results of an evaluation hold masks, which add up
        fields = [drawn[next(numbers)] for _ in range(min(size, images - first))]
        evaluator.measure(trained.parameters, fields, trained.classes)
    return time.perf_counter() - started


def _peer(trained: Trained, folder: pathlib.Path, images: int) -> float:
    import torch  # pyright: ignore[reportMissingImports]

    from scripts.peers import networks, training

    config = trained.config
    model = networks.build(config.model, 1 + len(trained.classes))
    networks.copy_parameters(model, *trained.parameters)
    trainer = training.Trainer(
        model, config, training.WAYS["channels_last"], "cuda" if torch.cuda.is_available() else "cpu"
    )
    options = config.evaluation

    def read(paths: Iterable[pathlib.Path]) -> None:
        fields, ahead = itertools.tee(
            as_field(image_files.read_first(path).pixels_8_bit, path.name, config) for path in paths
        )
        side, overlap = options.tile_size, options.tile_overlap
        blender, pairs = tiles.Blender(side, overlap), map(working_pair, ahead)
        for batch in tiles.batches(pairs, batch_size=options.batch_size, tile=side, overlap=overlap):
            found = trainer.predict(trainer.put({"image": batch.image, "tone_curve": batch.tone_curve}))
            for tile, pixels in zip(batch.tiles, found.permute(0, 2, 3, 1).cpu().numpy(), strict=False):
                if (blended := blender.add(tile, pixels)) is not None:
                    image = next(fields).image
                    decide(to_native(blended, image.shape), image, options)

    read([folder / "000000.png"])
    started = time.perf_counter()
    read(folder / f"{index:06d}.png" for index in range(images))
    return time.perf_counter() - started


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


def _predict(trained: Trained, folder: pathlib.Path, images: int) -> float:
    reader = api.reader_of(trained)
    reader(np.zeros((64, 64), np.uint8))
    paths = [str(folder / f"{index:06d}.png") for index in range(images)]
    # It stays until all is measured: file systems create files slowly where thousands were removed a moment ago.
    output = tempfile.mkdtemp(prefix="output-", dir=folder)
    started = time.perf_counter()
    predict.predict(reader, paths, pathlib.Path(output))
    return time.perf_counter() - started


def _report(rounds: dict[str, list[dict[str, float]]], images: int) -> None:
    rates = {name: [row["images_per_second"] for row in rows] for name, rows in rounds.items()}
    of_tiles = {name: [row["tiles_per_second"] for row in rows] for name, rows in rounds.items()}
    peaks = {name: max(row["peak_mb"] for row in rows) for name, rows in rounds.items()}
    several = {name: values for name, values in rates.items() if name != "predict, a tenth"}
    ratios = bench_common.ratios(several, "evaluate")
    growth = peaks["predict"] / peaks["predict, a tenth"]
    busy = bench_common.ratios({name: of_tiles[name] for name in several}, "network")
    where = bench_common.machine()
    bench_common.say_where({"images": images, **where})
    medians, tiles_a_second = bench_common.medians(rates), bench_common.medians(of_tiles)
    rows = [
        (name, medians[name], tiles_a_second[name], f"{1 - busy[name]:.1%}" if name in busy else "", peaks[name])
        for name in rates
    ]
    print(bench_common.table(("variant", "images/s", "tiles/s", "waiting", "peak in MB"), rows))
    print(f"predict over evaluate: {ratios['predict']:.2f}; peak over that of a tenth: {growth:.3f}")
    result = {"benchmark": "predict", "images": images, **where, "images_per_second": medians}
    print(json.dumps({**result, "peak_mb": peaks, "ratio": ratios["predict"], "peak_ratio": growth}))


if __name__ == "__main__":
    define_flags()
    cli.run_app(main)
