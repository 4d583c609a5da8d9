"""Exact evaluation of whole specimens: overlapping tiles, native resolution, counts first and one division last."""

import dataclasses
import os
import pathlib
import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata as packages
from typing import Any

import cv2
import jax
import numpy as np

from hep2jax import classical, metrics, optimizers, report, specimen, steps, workdir
from hep2jax import config as configs
from hep2jax import mesh as meshes
from hep2jax import state as states
from hep2jax.checkpoints import Checkpoints
from hep2jax.config import Config
from hep2jax.data import feeding, protocols, sources, tiles
from hep2jax.data.sources import VOID, FieldSet
from hep2jax.errors import UsageError
from hep2jax.metrics import ImageScore
from hep2jax.progress import say
from hep2jax.results import FieldResult, by_specimen, describe_side, side_metrics, to_record, vote
from hep2jax.state import Network, TrainState, Tree
from hep2jax.timing import StepClock

Parameters = tuple[Tree, Tree]
"""(params, batch_stats) of the averaged network."""

_DATA_KEYS_OF_EVALUATION = (
    "name",
    "builder_config",
    "data_dir",
    "manual_dir",
    "protocol",
    "fold",
    "num_folds",
    "validation_fraction",
)


class Evaluator:
    """A network's compiled forward pass over tiles, and the figures of fields under it."""

    def __init__(self, config: Config, network: Network, mesh: jax.sharding.Mesh) -> None:
        self._config = config
        self._mesh = mesh
        shared = meshes.replicated(mesh)
        self._predict = jax.jit(
            steps.make_predict_step(network, dihedral=config.evaluation.dihedral), out_shardings=shared
        )

    def predict(
        self, parameters: Parameters, images: Iterable[tuple[np.ndarray, np.ndarray]], shapes: Sequence
    ) -> Iterator[np.ndarray]:
        """Blended probabilities float32 [h, w, K+1] of each working image, in order.

        Args:
            parameters: (params, batch_stats).
            images: (uint8 [h, w], greys float32 [4]) pairs, see `steps.normalise`.
            shapes: (h, w) of each of them.
        """
        tiling = self._config.evaluation
        rows = meshes.process_rows(tiling.batch_size)
        blender = tiles.Blender(tiling.tile_size, tiling.tile_overlap)
        stream = tiles.batches(images, batch_size=tiling.batch_size, tile=tiling.tile_size, overlap=tiling.tile_overlap)
        for batch in stream:
            local = {"image": batch.image[rows], "greys": batch.greys[rows]}
            inputs = feeding.put(local, self._mesh)
            probabilities = jax.device_get(self._predict(*parameters, inputs["image"], inputs["greys"]))
            for tile, pixels in zip(batch.tiles, probabilities, strict=False):  # padded rows have no tile
                blended = blender.add(tile, pixels, shapes[tile.image])
                if blended is not None:
                    yield blended

    def measure(self, parameters: Parameters, fields: FieldSet, indices: Sequence[int]) -> list[FieldResult]:
        """Results of the chosen fields, in order."""
        chosen = [fields.fields[i] for i in indices]
        images = ((f.working_image, plain_greys(f)) for f in chosen)
        predictions = self.predict(parameters, images, [f.working_image.shape for f in chosen])
        return [self._measure_field(f, p, fields) for f, p in zip(chosen, predictions, strict=True)]

    def _measure_field(self, field: sources.Field, working: np.ndarray, fields: FieldSet) -> FieldResult:
        probabilities = to_native(working, field.image.shape)
        foreground, pattern = specimen.decide(probabilities, self._config.evaluation.foreground_threshold)
        foreground, cells = self._cells(foreground)
        predicted = np.where(foreground, pattern + 1, 0).astype(np.uint8)
        valid = field.classes != VOID
        num_patterns = len(fields.classes)
        return FieldResult(
            number=field.number,
            truth=field.pattern,
            intensity=field.intensity,
            score=self._score(field, fields, foreground, cells),
            baselines=self._baselines(field, fields),
            votes=specimen.pattern_counts(foreground, pattern, num_patterns),
            mean_probability=probabilities[..., 1:].mean(axis=(0, 1), dtype=np.float64),
            class_counts=metrics.count_classes(predicted, field.classes, valid, num_patterns),
            predicted=predicted,
        )

    def _cells(self, foreground: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The foreground that counts and its single cells; no cells where the nuclear diameter is unknown."""
        options = self._config.evaluation
        if not options.nuclear_diameter:
            return foreground, None
        cells = classical.split_touching(foreground, options.nuclear_diameter)
        if options.drop_cut_cells:
            cells = classical.drop_cut_cells(cells, options.nuclear_diameter)
        return cells > 0, cells

    def _score(
        self, field: sources.Field, fields: FieldSet, foreground: np.ndarray, cells: np.ndarray | None
    ) -> ImageScore:
        valid = field.classes != VOID
        return metrics.score_image(
            field.specimen_id,
            fields.classes[field.pattern],
            foreground,
            (field.classes > 0) & valid,
            np.where(valid, field.instances, 0).astype(np.int32),
            valid,
            min_pixels=self._config.evaluation.min_object_pixels,
            predicted_instances=cells,
        )

    def _baselines(self, field: sources.Field, fields: FieldSet) -> dict[str, ImageScore]:
        options = self._config.evaluation
        scores = {}
        for name in classical.VARIANTS if options.baselines else ():
            cells = classical.segment(field.image, variant=name, nuclear_diameter=options.nuclear_diameter)
            cells = classical.drop_cut_cells(cells, options.nuclear_diameter) if options.drop_cut_cells else cells
            scores[name] = self._score(field, fields, cells > 0, cells)
        return scores


def plain_greys(field: sources.Field) -> np.ndarray:
    """The grey-level map of a field without augmentation, float32 [4]."""
    return np.array([field.grey_offset, field.grey_gain, 1.0, 0.0], np.float32)


def to_native(probabilities: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Probabilities [h, w, K+1] interpolated bilinearly to `shape`."""
    if probabilities.shape[:2] == shape:
        return probabilities
    return cv2.resize(probabilities, shape[::-1], interpolation=cv2.INTER_LINEAR)


# A whole evaluation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured, side by side: indices of fields, their results and the figures of `report/metrics.json`."""

    fields: FieldSet
    indices: dict[str, tuple[int, ...]]
    results: dict[str, list[FieldResult]]
    figures: dict[str, dict[str, Any]]


def measure_sides(
    config: Config,
    evaluator: Evaluator,
    parameters: Parameters,
    fields: FieldSet,
    partition: protocols.Partition,
) -> Evaluation:
    """Measure every side but the training one; that one where there is no other, and then it is said."""
    sides = {name: rows for name, rows in partition.sides().items() if name != "train"} or partition.sides()
    results = {name: evaluator.measure(parameters, fields, rows) for name, rows in sides.items()}
    figures = {
        name: side_metrics(
            config, fields.classes, rows, _describe(name, partition), partition.specimen_leakage or name == "train"
        )
        for name, rows in results.items()
    }
    return Evaluation(fields=fields, indices=sides, results=results, figures=figures)


def _describe(side: str, partition: protocols.Partition) -> str:
    seen = "; measured on the specimens that it was trained on" if side == "train" else ""
    return partition.description + seen


def write_report(
    config: Config, directory: pathlib.Path, evaluation: Evaluation, clock: StepClock, evaluated_step: int
) -> None:
    """Write `report/` (the process that writes files calls this) and say the headline of every side."""
    folder = directory / "report"
    workdir.write_json(folder / "metrics.json", evaluation.figures)
    records = {name: [to_record(row) for row in rows] for name, rows in evaluation.results.items()}
    workdir.write_json(folder / "fields.json", {"classes": list(evaluation.fields.classes), "sides": records})
    page = report.write_report(
        directory,
        metrics=evaluation.figures,
        gallery={name: _gallery(config, evaluation, name) for name in evaluation.results},
        environment={"evaluated_step": evaluated_step, **environment()},
        timings=clock.seconds(),
    )
    for name, figures in evaluation.figures.items():
        say(describe_side(name, figures))
    say(f"report: {page}")


def _gallery(config: Config, evaluation: Evaluation, side: str) -> list[report.GalleryItem]:
    """Pictures of the first field of up to `gallery_specimens` specimens, spread evenly over the side."""
    results = evaluation.results[side]
    groups = by_specimen(results)
    first = {}
    for index, result in zip(evaluation.indices[side], results, strict=True):
        first.setdefault(result.score.specimen, (index, result))
    pairs = list(first.values())
    count = min(config.evaluation.gallery_specimens, len(pairs))
    chosen = [pairs[i] for i in np.linspace(0, len(pairs) - 1, count).round().astype(int)]
    return [
        _gallery_item(evaluation.fields, index, result, vote(groups[result.score.specimen])) for index, result in chosen
    ]


def _gallery_item(fields: FieldSet, index: int, result: FieldResult, prediction: int | None) -> report.GalleryItem:
    field = fields.fields[index]
    shares = specimen.vote_shares(result.votes)
    assert result.predicted is not None
    return report.GalleryItem(
        specimen_id=field.specimen_id,
        field=field.number,
        truth=fields.classes[field.pattern],
        prediction="none" if prediction is None else fields.classes[prediction],
        intensity=field.intensity,
        dice=result.score.counts.figures()["Dice"],
        votes={name: float(share) for name, share in zip(fields.classes, shares, strict=True)},
        image=field.image,
        truth_classes=field.classes,
        predicted_classes=result.predicted,
    )


def environment() -> dict[str, Any]:
    """What the figures were made with."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")
    return {
        "python": platform.python_version(),
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        "devices": [str(device.device_kind) for device in jax.devices()],
        "backend": jax.default_backend(),
        "packages": {name: packages.version(name) for name in (*names, "hep2jax")},
    }


# A finished work directory


def run(config: Config, directory: pathlib.Path) -> None:
    """Measure the network of a work directory on the data that `config` names, and write its report."""
    saved = workdir.open_for_reading(directory)
    workdir.check_same_network(directory, saved, config)
    config = _evaluation_config(saved, config)
    meshes.check_divides("evaluation.batch_size", config.evaluation.batch_size)
    clock = StepClock()
    with clock.phase("init"):
        fields = sources.load(config.data)
        trained = workdir.read_classes(directory)
        if trained != fields.classes:
            raise UsageError(
                f"--workdir={directory}: was trained on the patterns {', '.join(trained)}; {fields.name} has "
                f"{', '.join(fields.classes)}"
            )
        partition = protocols.partition(config.data, fields)
        network = states.make_network(config, len(fields.classes) + 1)
        mesh = meshes.make_mesh()
        state, step = restore(config, directory, network, mesh)
    say(f"checkpoint of step {step}")
    with clock.phase("evaluation"):
        parameters = (state.ema_params, state.ema_batch_stats)
        evaluation = measure_sides(config, Evaluator(config, network, mesh), parameters, fields, partition)
    if jax.process_index() == 0:
        write_report(config, directory, evaluation, clock, step)


def _evaluation_config(saved: Config, given: Config) -> Config:
    """The trained configuration, but with the data to measure and the way of measuring from the command line."""
    data = dataclasses.replace(saved.data, **{key: getattr(given.data, key) for key in _DATA_KEYS_OF_EVALUATION})
    return configs.validate(dataclasses.replace(saved, data=data, evaluation=given.evaluation))


def restore(
    config: Config, directory: pathlib.Path, network: Network, mesh: jax.sharding.Mesh
) -> tuple[TrainState, int]:
    """The best checkpoint of a work directory (the newest where none was scored) and its step."""
    optimizer = optimizers.make_optimizer(config.optimizer, config.train.num_steps)
    like = states.initial_state(network, optimizer, config.seed, meshes.replicated(mesh))
    checkpoints = Checkpoints(directory / "checkpoints", config.train)
    try:
        step = checkpoints.best_step
        if step is None:
            raise UsageError(f"--workdir={directory}: no finished checkpoint there yet; train longer")
        return checkpoints.restore(step, like), step
    finally:
        checkpoints.close()


def load_parameters(directory: pathlib.Path) -> Parameters:
    """The averaged parameters of another work directory, whatever its patterns are."""
    saved = workdir.open_for_reading(directory)
    network = states.make_network(saved, len(workdir.read_classes(directory)) + 1)
    state, _ = restore(saved, directory, network, meshes.make_mesh())
    return state.ema_params, state.ema_batch_stats
