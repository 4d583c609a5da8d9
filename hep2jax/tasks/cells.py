"""Reading single cells: one pattern for each cell, and for each specimen the most frequent pattern of its cells."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import jax
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from typing_extensions import override

from hep2jax import config as configs
from hep2jax import mesh as meshes
from hep2jax import models, report
from hep2jax.config import Config
from hep2jax.data.sets import along as along_sets
from hep2jax.data.sets import appearance
from hep2jax.data.sets import cells as cell_sets
from hep2jax.data.sets.along import Along
from hep2jax.data.sets.cells import Cell, CellSet
from hep2jax.data.streams import cells as cell_stream
from hep2jax.data.streams import feeding
from hep2jax.data.streams.stream import Stream
from hep2jax.errors import UsageError
from hep2jax.fingerprint import fingerprint
from hep2jax.metrics.classification import ClassificationMetrics, classification_metrics, describe_recalls
from hep2jax.metrics.estimates import defined_values
from hep2jax.metrics.grouping import evenly_spread, group_by
from hep2jax.metrics.serialise import INLINE
from hep2jax.models import ClassifierOutput
from hep2jax.models.classifier import Classifier, PoolingClassifier
from hep2jax.specimens import voting
from hep2jax.tasks.base import BatchShapes, Evaluator, Task, image_shapes
from hep2jax.tasks.calibration import Outcome
from hep2jax.tasks.reading import Parameters, PatternReader, Reading, Ready, in_groups
from hep2jax.training import losses, steps
from hep2jax.training.state import Network


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellResult:
    """What one cell contributes to the metrics."""

    identifier: str
    specimen: str
    intensity: str
    truth: int
    probabilities: Float32[np.ndarray, " pattern"]
    group: str = ""
    """Common name of specimens that repeat each other (see `Item.group`); empty if no other repeats this specimen."""

    @property
    def unit(self) -> str:
        """The name of what counts as one specimen: the group, or the specimen if it has none."""
        return self.group or self.specimen

    @property
    def prediction(self) -> int:
        """The most probable pattern; of equally probable ones the first."""
        return int(self.probabilities.argmax())


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecimenRow:
    """One specimen, or several that repeat each other, read from the most frequent pattern of its cells."""

    specimen: str
    """As `CellResult.unit`."""
    pattern: str
    """The true pattern."""
    prediction: str
    num_cells: int
    right: int
    """The number of cells whose predicted pattern is right."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecimensOfCells:
    """The metrics of specimens, each read from the most frequent pattern of its cells."""

    specimen: ClassificationMetrics
    """Specimens that repeat each other count as one, with all their cells."""
    specimens: tuple[SpecimenRow, ...]
    repeated_specimens: tuple[tuple[str, ...], ...]
    """The names of specimens that repeat each other, one tuple for each group of them."""
    specimen_by_log_probability: ClassificationMetrics
    """Specimens by the mean log-probability of their cells (see `voting.by_mean_log_probability`)."""
    cells_transductive: ClassificationMetrics
    """Cells read again in the light of the other cells of their specimen (see `voting.reread`): transductive."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellMetrics:
    """The metrics of some cells and of their specimens."""

    cells: ClassificationMetrics = dataclasses.field(metadata=INLINE)
    examples: Literal["cell"] = "cell"
    """What was classified, for `report/metrics.json`."""
    of_specimens: SpecimensOfCells | None = dataclasses.field(metadata=INLINE)
    """None if the specimen of any cell is unknown."""


@runtime_checkable
class CutCell(Protocol):
    """A cell that was cut out of an image, before any preprocessing."""

    @property
    def image(self) -> UInt8[np.ndarray, "height width"]:
        """Its grey levels."""
        ...

    @property
    def mask(self) -> Bool[np.ndarray, "height width"]:
        """True on the cell; false everywhere if there is no mask."""
        ...

    @property
    def name(self) -> str:
        """Its name, for messages."""
        ...


Scores = Float[np.ndarray, "cell pattern"]
"""One row of pattern scores for each cell; they are not negative, and each row sums to 1. The prediction is the pattern
with the highest score, or the first such pattern in a tie."""


class CellEvaluator:
    """A network's compiled forward pass over cells."""

    def __init__(self, config: Config, network: Network, mesh: jax.sharding.Mesh) -> None:
        self._config = config
        self._mesh = mesh
        self._predict = steps.predict_program(network, CellTask.decode, mesh, dihedral=config.evaluation.dihedral)

    def predict(
        self, parameters: Parameters, images: Sequence[np.ndarray], tone_curve: Sequence[np.ndarray]
    ) -> Float32[np.ndarray, "cell pattern"]:
        """The probability of each pattern for each cell, in order.

        Args:
            parameters: (params, batch_stats).
            images: images of cells as `cells.preprocess` returns them, uint8.
            tone_curve: the tone curve of each image, float32 [4].
        """
        size, side = self._config.evaluation.batch_size, self._config.data.crop_size
        batches = cell_stream.plain_batches(images, tone_curve, size=size, side=side, mesh=self._mesh)
        outputs = (self._predict(*parameters, batch["image"], batch["tone_curve"]) for batch in batches)
        return np.concatenate(list(feeding.fetched(outputs)))[: len(images)]  # the rest is padding of the last batch

    def read(self, parameters: Parameters, cells: Sequence[CutCell]) -> Scores:
        """The probabilities of at least one cell, which is prepared as in training."""
        data = self._config.data
        prepared = [cell_sets.preprocess(cell.image, cell.mask, data, name=cell.name) for cell in cells]
        images, tone_curves = zip(*prepared, strict=True)
        return self.predict(parameters, images, tone_curves)

    def measure(self, parameters: Parameters, cells: Sequence[Cell]) -> list[CellResult]:
        """The results of the cells, in order."""
        probabilities = self.predict(parameters, [cell.ready for cell in cells], [cell.tone_curve for cell in cells])
        return [result_of(cell, row) for cell, row in zip(cells, probabilities, strict=True)]


def result_of(cell: Cell, probabilities: Float32[np.ndarray, " pattern"]) -> CellResult:
    """The result of a cell that was read so."""
    return CellResult(
        identifier=cell.item.identifier,
        specimen=cell.item.specimen,
        group=cell.item.group,
        intensity=cell.intensity,
        truth=cell.item.pattern,
        probabilities=probabilities,
    )


class CellReader(PatternReader):
    """Reads with networks that classify the image of one cell."""

    reads_specimens = False
    takes_masks = True
    evaluator_class = CellEvaluator

    @override
    def _outputs(self, images: Iterable[Ready]) -> Iterable[Any]:
        for group in in_groups(images, lambda given: given.image.size):
            yield from self._evaluator.read(self._parameters, group)

    @override
    def picture(self, image: np.ndarray) -> np.ndarray:
        return appearance.of_cell(image)

    @override
    def _decide(self, outputs: Sequence[Any]) -> Reading:
        (values,) = outputs
        return self._most_probable(values)


class CellTask(Task[CellResult, CellMetrics]):
    """Classification of cells, and of specimens by the most frequent pattern of their cells."""

    networks: ClassVar[Mapping[str, type[Classifier]]] = models.CLASSIFIERS
    classifies_cells = True
    reader_class = CellReader
    evaluator_class: ClassVar[type[CellEvaluator]] = CellEvaluator
    layout = report.Layout(
        unit="cell",
        key_metrics=(
            report.KeyMetrics(prefix="Cells, ", names=("mca", "aca")),
            report.KeyMetrics(prefix="Specimens, ", section="specimen", names=("mca", "aca")),
        ),
        classifications=(
            report.Classification(title="By cell", unit="cell"),
            report.Classification(title="By specimen", unit="specimen", section="specimen"),
        ),
        pictures=report.CellPictures(),
    )
    compile_batches = (64, 128, 256)

    def __init__(self, config: Config, cells: CellSet, along: Along | None = None) -> None:
        """`along` holds cells of another data set, from which a network learns too."""
        self.config = config
        self.cells, self._along = cells, along
        self.name, self.classes, self.items = cells.name, cells.classes, cells.items
        self.examples = cells.cells

    @override
    @classmethod
    def load(cls, config: Config) -> Self:
        cells = cell_sets.load(config.data)
        return cls(config, cells, along_sets.load(config.data, cells.classes))

    @override
    @classmethod
    def patterns(cls, config: Config) -> tuple[str, ...]:
        data = dataclasses.replace(config.data, builder_config=cell_sets.builder_config(config.data))
        return super().patterns(dataclasses.replace(config, data=data))

    @override
    @classmethod
    def resolve(cls, config: Config) -> Config:
        """Replaces a `data.crop_size` of 0 by the network's own input side; the network checks other sides itself."""
        configs.check_choice("data.normalise", config.data.normalise, configs.CELL_NORMALISATIONS)
        network = cls.networks[config.model.name]
        if config.model.regions and not (config.data.cell_fit == "frame" and issubclass(network, PoolingClassifier)):
            raise UsageError(
                "model.regions needs data.cell_fit=frame and a network that averages its feature maps, not "
                f"data.cell_fit={config.data.cell_fit} and {config.model.name}"
            )
        side = config.data.crop_size or network.side
        return dataclasses.replace(config, data=dataclasses.replace(config.data, crop_size=side))

    @override
    @classmethod
    def batch_shapes(cls, config: Config, size: int) -> BatchShapes:
        labels = ((size, len(cls.patterns(config))), np.bool_) if config.data.along else ((size,), np.int32)
        return image_shapes(config, size) | {"labels": jax.ShapeDtypeStruct(*labels)}

    @override
    @staticmethod
    def loss(
        config: Config, model: Any, image: jax.Array, output: Any, batch: dict[str, jax.Array], class_weights: jax.Array
    ) -> jax.Array:
        return losses.cell_loss(output, batch["labels"], model.target(image), class_weights, config.loss)

    @override
    @staticmethod
    def decode(output: ClassifierOutput) -> jax.Array:
        """Probabilities, float32 [cells, patterns]."""
        return jax.nn.softmax(output.logits.astype(np.float32), axis=-1)

    @override
    def fingerprint(self, indices: Sequence[int]) -> str:
        """Covers the cells of the second data set too, if there is one."""
        own = super().fingerprint(indices)
        return fingerprint(own, self._along) if self._along else own

    @override
    def stream(self, indices: Sequence[int], rows: meshes.Rows) -> Stream:
        return Stream(cell_stream.CellPlan(self.config, self.cells, indices, self._along), rows=rows)

    @override
    def evaluator(self, network: Network, mesh: jax.sharding.Mesh) -> Evaluator[CellResult]:
        return Evaluator(self.examples, self.evaluator_class(self.config, network, mesh).measure)

    @override
    def metrics(self, results: Sequence[CellResult]) -> CellMetrics:
        """The metrics of the cells and, if the specimen of every cell is known, those of the specimens.

        Specimens that repeat each other also count as one for the intervals.
        """
        known = all(row.specimen for row in results)
        cells = self._classification(
            [row.truth for row in results],
            [row.prediction for row in results],
            [row.unit if known else row.identifier for row in results],
        )
        if not known:
            return CellMetrics(cells=dataclasses.replace(cells, num_specimens=None), of_specimens=None)
        return CellMetrics(cells=cells, of_specimens=self._specimens(results))

    def _specimens(self, results: Sequence[CellResult]) -> SpecimensOfCells:
        specimens = group_by(results, lambda row: row.unit)
        votes = [prevalent(rows) for rows in specimens.values()]
        names_by_unit = [tuple(sorted({row.specimen for row in rows})) for rows in specimens.values()]
        truth, probabilities = [_truth(rows) for rows in specimens.values()], [_stack(r) for r in specimens.values()]
        together = [voting.by_mean_log_probability(scores)[0] for scores in probabilities]
        again = [voting.reread(scores).argmax(axis=1) for scores in probabilities]
        cells = [row for rows in specimens.values() for row in rows]
        return SpecimensOfCells(
            specimen=self._classification(truth, votes, list(specimens)),
            specimen_by_log_probability=self._classification(truth, together, list(specimens)),
            cells_transductive=self._classification(
                [row.truth for row in cells], np.concatenate(again).tolist(), [row.unit for row in cells]
            ),
            specimens=tuple(self._row(rows, vote) for rows, vote in zip(specimens.values(), votes, strict=True)),
            repeated_specimens=tuple(names for names in names_by_unit if len(names) > 1),
        )

    def _classification(self, truth: list[int], prediction: list[int], groups: list[str]) -> ClassificationMetrics:
        return classification_metrics(truth, prediction, groups, self.classes)

    def _row(self, rows: Sequence[CellResult], vote: int) -> SpecimenRow:
        return SpecimenRow(
            specimen=rows[0].unit,
            pattern=self.classes[_truth(rows)],
            prediction=self.classes[vote],
            num_cells=len(rows),
            right=sum(row.prediction == row.truth for row in rows),
        )

    @override
    def summary(self, measured: CellMetrics) -> dict[str, float]:
        estimates = {"aca": measured.cells.aca, "mca": measured.cells.mca}
        if measured.of_specimens:
            specimen = measured.of_specimens.specimen
            estimates |= {"specimen_aca": specimen.aca, "specimen_mca": specimen.mca}
        return defined_values(estimates)

    @override
    def score(self, measured: CellMetrics) -> float:
        """MCA of the cells."""
        return float(measured.cells.mca)

    @override
    def describe(self, split: str, measured: CellMetrics) -> str:
        cells = measured.cells
        line = f"{split}: {cells.num_examples} cells: ACA {cells.aca}, MCA {cells.mca}"
        if not measured.of_specimens:
            return line
        specimen = measured.of_specimens.specimen
        return f"{line}; {specimen.num_specimens} specimens: ACA {specimen.aca}, MCA {specimen.mca}"

    @override
    def details(self, measured: CellMetrics) -> list[str]:
        """The recall of each pattern and, if specimens are known, how many of them are right."""
        lines = [describe_recalls(measured.cells)]
        if measured.of_specimens:
            found = measured.of_specimens
            rows, together, again = found.specimens, found.specimen_by_log_probability, found.cells_transductive
            right = sum(row.pattern == row.prediction for row in rows)
            lines.append(f"specimens by the prevalence of their cells: {right} of {len(rows)} right")
            lines.append(f"specimens by the mean log-probability: ACA {together.aca}, MCA {together.mca}")
            lines.append(f"transductive, cells with the others of their specimen: ACA {again.aca}, MCA {again.mca}")
            repeated = found.repeated_specimens
            lines += [f"counted as one specimen: {', '.join(names)}" for names in repeated]
        return lines

    @override
    def to_record(self, result: CellResult) -> dict[str, Any]:
        probabilities = [round(float(p), 6) for p in result.probabilities]
        return dataclasses.asdict(result) | {"probabilities": probabilities}

    @override
    def from_record(self, record: dict[str, Any]) -> CellResult:
        values: dict[str, Any] = record | {"probabilities": np.array(record["probabilities"], np.float32)}
        return CellResult(**values)

    @override
    def outcome(self, result: CellResult) -> Outcome:
        return Outcome(result.probabilities, result.truth, result.unit)

    @override
    def picture(self, index: int) -> np.ndarray:
        return appearance.of_cell(self.cells.cells[index].image)

    @override
    def gallery(self, indices: Sequence[int], results: Sequence[CellResult]) -> list[report.CellItem]:
        """Up to `gallery_specimens` cells of each pattern: the surest errors, then correct cells, evenly spread."""
        limit = self.config.evaluation.gallery_specimens
        items = []
        for pattern in range(len(self.classes)):
            rows = [(i, row) for i, row in zip(indices, results, strict=True) if row.truth == pattern]
            errors = sorted((p for p in rows if p[1].prediction != pattern), key=lambda p: -p[1].probabilities.max())
            errors = errors[: limit * 2 // 3]
            right = [pair for pair in rows if pair[1].prediction == pattern]
            chosen = [*errors, *evenly_spread(right, limit - len(errors))]
            items += [self._gallery_item(i, row) for i, row in chosen]
        return items

    def _gallery_item(self, index: int, row: CellResult) -> report.CellItem:
        return report.CellItem(
            identifier=row.identifier,
            specimen_id=row.specimen,
            intensity=row.intensity,
            truth=self.classes[row.truth],
            prediction=self.classes[row.prediction],
            probability=float(row.probabilities.max()),
            image=self.cells.cells[index].image,
        )


def _stack(rows: Sequence[CellResult]) -> Float32[np.ndarray, "cell pattern"]:
    return np.stack([row.probabilities for row in rows])


def _truth(rows: Sequence[CellResult]) -> int:
    """The true pattern of most cells of a specimen: in a user's folder, cells of one specimen may differ."""
    return int(np.bincount([row.truth for row in rows]).argmax())


def prevalent(rows: Sequence[CellResult]) -> int:
    """The pattern of most cells (Cascio, Taormina, Raso 2019); the mean probability decides between tied patterns."""
    counts = np.bincount([row.prediction for row in rows], minlength=len(rows[0].probabilities))
    return voting.prevalent(counts, np.mean([row.probabilities for row in rows], axis=0))
