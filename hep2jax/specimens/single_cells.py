"""Single-cell processing: cells are segmented, cut out, normalised and classified, then combined for the specimen."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Integer

from hep2jax import files
from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data.sets import cells as cell_data
from hep2jax.data.sets.cells import CellSet
from hep2jax.data.sets.fields import Field, FieldSet
from hep2jax.data.sets.items import units
from hep2jax.errors import UsageError
from hep2jax.fingerprint import fingerprint
from hep2jax.models import pretrained
from hep2jax.specimens import base, cell_readers, classical, features, pixels, voting
from hep2jax.specimens.base import Reading
from hep2jax.specimens.cell_readers import CellReader, FeatureReader, Grid, NetworkReader, SvmKnn
from hep2jax.specimens.features import Extractor, FeatureNetwork
from hep2jax.tasks import CellTask, FisherTask, cell_patterns
from hep2jax.tasks.cell_patterns import FieldCells
from hep2jax.training import evaluation

FINDERS = ("true", "predicted", "otsu")
"""Sources of the cell masks: the annotation; a segmentation network followed by a watershed; or Otsu's threshold of the
logarithm of intensity over background, also followed by a watershed (`classical.segment`)."""
READERS = ("network", "own_svm", "pretrained_svm")
"""Cell classifiers: a cell network; SVMs and nearest neighbours on the features of this network; or the same on the
features of a published ImageNet network."""
RULES = ("prevalence", "mean_probability", "histogram_svm")
"""Rules that combine the cells into the pattern of the specimen; see `hep2jax.specimens.voting`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellOptions:
    """Options of a single-cell system."""

    finder: str = "true"
    """One of `FINDERS`, used on the specimens that are read. Every reader is trained on the annotated cells of the
    training specimens."""
    reader: str = "network"
    """One of `READERS`."""
    rule: str = "prevalence"
    """One of `RULES`. histogram_svm is trained on out-of-fold predictions of the training cells. A network has no such
    predictions, so this rule needs an SVM reader. With own_svm the predictions are still optimistic, because the
    network that provides the features was trained on these cells. The rule needs several specimens of each pattern: if
    a pattern has only one, its out-of-fold cells are never predicted as this pattern, and the rule learns that."""
    use_mitotic: bool = False
    """Use annotated mitotic cells as well. Other finders cannot distinguish mitotic cells and always use them."""
    size_slack: float = 2.0
    """Segmented objects are dropped if their area is below the 1st percentile of the training cells' areas divided by
    this factor, or above the 99th percentile times this factor: they are specks, or clumps that the watershed did not
    separate. This is our addition; annotated cells are never dropped."""
    drop_cut_cells: bool = False
    """Remove cells that the image border cuts from the masks of the finder `otsu`, too (see
    `EvaluationConfig.drop_cut_cells`). Cells that reach the border are never classified."""
    pretrained: str = pretrained.DEFAULT
    """One of `pretrained.NAMES`, for pretrained_svm."""
    weights: pathlib.Path | None = None
    """File with the weights of this network; None: the installed package."""
    side: int | None = None
    """Side of the input of this network in pixels; None: as published."""
    layers: tuple[str, ...] = ()
    """Layers of this network to select from; empty: all except the logits."""
    grid: Grid = dataclasses.field(default_factory=Grid)
    """Hyperparameters that the inner cross-validation compares."""

    def __post_init__(self) -> None:
        for name, choices in (("finder", FINDERS), ("reader", READERS), ("rule", RULES)):
            if getattr(self, name) not in choices:
                raise UsageError(f"{name}='{getattr(self, name)}': must be one of {', '.join(choices)}")
        if self.rule == "histogram_svm" and self.reader == "network":
            raise UsageError(
                "rule=histogram_svm needs readings of cells held out: set reader=own_svm or pretrained_svm"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the annotated complete cells of the training specimens."""

    diameter: float
    """Diameter of a circle with the median area, in native pixels."""
    low: float
    high: float
    """1st and 99th percentile of the areas, in native pixels."""


class CellSystem:
    """Segments and classifies single cells, and classifies the specimen by its cells.

    The reader pretrained_svm with the rule prevalence is the method of Cascio, Taormina, Raso (Appl. Sci. 9:1618,
    2019); the rule histogram_svm is from Li, Huang, Zheng, Xie, Zhang (ICPR 2016).
    """

    family = "single cells"

    def __init__(self, name: str, options: CellOptions, cells: Config, segmenter: Config | None = None) -> None:
        """Make an untrained system.

        Args:
            name: name of the system.
            options: its options.
            cells: configuration of the cell network; its `data` also determines how cells are prepared.
            segmenter: configuration of the segmentation network, for the finder `predicted`.

        Raises:
            UsageError: the finder is `predicted` and there is no segmenter.
        """
        if options.finder == "predicted" and segmenter is None:
            raise UsageError("finder=predicted needs a network for pixels")
        self.name, self._options, self._config, self._segmenter = name, options, cells, segmenter
        self.settings = options, cells, segmenter

    def fit(self, fields: FieldSet, train: Sequence[int], directory: pathlib.Path) -> None:
        """Train the segmentation network, the cell classifier and the rule; see `base.System`."""
        training_set = base.training_split(fields, train)
        self._num_patterns, self._sizes = len(fields.classes), _sizes(training_set)
        self._pixels = None
        if self._options.finder == "predicted":
            assert self._segmenter is not None
            self._pixels = pixels.fit_network(self._segmenter, fields, train, directory)
        self._reader, self._rule = self._fit_reader(cell_data.from_fields(training_set, self._config.data), directory)

    def _fit_reader(self, cells: CellSet, directory: pathlib.Path) -> tuple[CellReader, voting.Rule]:
        options = self._options
        rules: dict[str, voting.Rule] = {
            "prevalence": voting.by_prevalence,
            "mean_probability": voting.by_mean_probability,
        }
        if options.reader == "pretrained_svm":
            source = features.from_pretrained(options.pretrained, self._config.data, options.weights, side=options.side)
            folder = directory / f"svm-{options.pretrained}"
        else:
            network = _fit_network(self._config, cells, directory)
            if options.reader == "network":
                return _open_network(network), rules[options.rule]
            source, folder = features.from_workdir(network), directory / f"svm-{self._config.model.name}"
        layers = options.layers if options.reader == "pretrained_svm" else ()
        fitted = _fit_svm_knn(source, layers or source.layers, cells, folder, options.grid, self._num_patterns)
        extractor = _extractor(source, (fitted.classifier.layer,))
        reader = FeatureReader(extractor=extractor, classifier=fitted.classifier)
        return reader, rules.get(options.rule) or fitted.histogram_svm()

    def read(self, fields: Sequence[Field]) -> Reading:
        """Read one specimen; without any usable cell, it gets no pattern."""
        instances = self._find(fields)
        masks = () if self._options.finder == "true" else tuple(cells > 0 for cells in instances)
        field_cells = [self._cut(field, cells) for field, cells in zip(fields, instances, strict=True)]
        cuts = [cut for found in field_cells for cut in found.cuts]
        if not cuts:
            return base.without_pattern(fields, self._num_patterns, _reason_without_cells(field_cells), masks=masks)
        prepared = [cell_data.preprocess(cut.image, cut.mask, self._config.data) for cut in cuts]
        scores = self._reader.read([image for image, _ in prepared], [tone_curve for _, tone_curve in prepared])
        name = fields[0].specimen_id
        result = voting.read_specimens(
            scores,
            [name] * len(cuts),
            self._rule,
            mitotic=np.concatenate([found.mitotic for found in field_cells]),
            use_mitotic=self._options.use_mitotic,
        )
        if result.left_out:
            return base.without_pattern(fields, self._num_patterns, result.left_out[name], masks=masks)
        reading = result.readings[0]
        return Reading(
            specimen=name,
            truth=fields[0].pattern,
            pattern=reading.pattern,
            probabilities=reading.scores.astype(np.float64),
            masks=masks,
        )

    def _find(self, fields: Sequence[Field]) -> list[Integer[np.ndarray, "_ _"]]:
        """The instance map of each field."""
        diameter = self._sizes.diameter
        if self._options.finder == "true":
            return [field.instances.astype(np.int32) for field in fields]
        if self._pixels is not None:
            return [classical.separate(reading.foreground, diameter) for reading in self._pixels.read(fields)]
        instances = [find_by_threshold(field.image, diameter) for field in fields]
        if self._options.drop_cut_cells:
            instances = [classical.drop_cut_cells(cells, diameter) for cells in instances]
        return instances

    def _cut(self, field: Field, instances: Integer[np.ndarray, "height width"]) -> FieldCells:
        """Cut out the cells of one field."""
        if self._options.finder == "true":
            mitotic = cell_data.of_kind(field, "mitotic_cell")
            cut_outs = cell_data.cut_out(field.image, instances, [*cell_data.of_kind(field, "cell"), *mitotic])
            is_mitotic = np.array([cut.number in mitotic for cut in cut_outs.cuts], bool)
            return FieldCells(
                cuts=cut_outs.cuts, mitotic=is_mitotic, num_cut_by_frame=cut_outs.num_cut_by_frame, num_wrong_size=0
            )
        slack = self._options.size_slack
        return cell_patterns.cut_cells(field.image, instances, self._sizes.low / slack, self._sizes.high * slack)


def find_by_threshold(image: np.ndarray, nuclear_diameter: float) -> Integer[np.ndarray, "height width"]:
    """The cells of one field, without a network; see `classical.segment`."""
    return classical.segment(image, variant="otsu_log_watershed", nuclear_diameter=nuclear_diameter)


def _reason_without_cells(found: Sequence[FieldCells]) -> str:
    """Why no field has a usable cell."""
    cut, wrong_size = sum(f.num_cut_by_frame for f in found), sum(f.num_wrong_size for f in found)
    if not cut + wrong_size:
        return voting.NO_CELL
    reasons = [(cut, "cut by the frame of the image"), (wrong_size, "too small or too large for a cell")]
    return "no whole cell was found in it: " + ", ".join(f"{number} {reason}" for number, reason in reasons if number)


def _sizes(training_set: FieldSet) -> Sizes:
    """Sizes of the annotated cells."""
    cuts = (cell_data.cut_out(f.image, f.instances, cell_data.of_kind(f, "cell")).cuts for f in training_set.fields)
    areas = [np.count_nonzero(cut.mask) for field_cuts in cuts for cut in field_cuts]
    if not areas:
        raise UsageError(f"{training_set.name}: no whole cell is annotated, so a cell classifier cannot be trained")
    low, median, high = np.percentile(areas, [1, 50, 99]).tolist()
    return Sizes(diameter=2 * math.sqrt(median / math.pi), low=low, high=high)


# The cell network


def _fit_network(config: Config, cells: CellSet, directory: pathlib.Path) -> pathlib.Path:
    """Train the cell network in its own folder, if it is not yet trained."""
    folder = directory / f"network-{config.model.name}"
    base.train(folder, config, _kind(config)(config, cells))
    return folder


def _kind(config: Config) -> type[CellTask]:
    return FisherTask if FisherTask.reads(config) else CellTask


@functools.lru_cache(maxsize=2)
def _open_network(folder: pathlib.Path) -> NetworkReader:
    """Load a trained network. It can be cached: a finished folder does not change, and several systems share it."""
    trained = evaluation.load(folder)
    evaluator = _kind(trained.config).evaluator_class(trained.config, trained.network, meshes.make_mesh())
    return NetworkReader(evaluator=evaluator, parameters=trained.parameters)


# SVMs and neighbours on features

_CHOICE, _FEATURES = "choice.json", "features.npz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _FittedSvmKnn:
    """The classifier, with the patterns and specimens of its training cells."""

    classifier: SvmKnn
    patterns: Int[np.ndarray, " cell"]
    specimens: tuple[str, ...]

    def histogram_svm(self) -> voting.HistogramSvm:
        """The rule that is trained on the out-of-fold predictions of the training cells."""
        names, first = np.unique(self.specimens, return_index=True)
        groups = [self.classifier.out_of_fold[np.asarray(self.specimens) == name] for name in names]
        return voting.fit_histogram_svm(groups, self.patterns[first].tolist())


def _fit_svm_knn(
    source: FeatureNetwork,
    layers: Sequence[str],
    cells: CellSet,
    folder: pathlib.Path,
    grid: Grid,
    num_patterns: int,
) -> _FittedSvmKnn:
    """Select hyperparameters by cross-validation and fit the classifier.

    The selected hyperparameters and features are stored. If they were stored for the same cells, network and grid,
    only the final fit is repeated.
    """
    identity = fingerprint(source.name, source.data, source.parameters, layers, grid, cells.classes, cells.cells)
    path = folder / _CHOICE
    choice = files.kept(path)
    arrays = files.kept_arrays(folder / _FEATURES)
    if choice.get("identity") != identity or arrays.keys() != {"features", "patterns", "specimens"}:
        choice = _choose(_extractor(source, layers), cells, folder, grid, num_patterns)
        files.write_json(path, choice | {"identity": identity})
        arrays = files.kept_arrays(folder / _FEATURES)
    rows, patterns, names = arrays["features"], arrays["patterns"], tuple(arrays["specimens"].tolist())
    selected = Grid(costs=(choice["cost"],), neighbours=(choice["neighbours"],), folds=grid.folds)
    fitted = cell_readers.fit_svm_knn({choice["layer"]: rows}, patterns, names, num_patterns, grid=selected)
    return _FittedSvmKnn(classifier=fitted, patterns=patterns, specimens=names)


def _choose(
    extractor: Extractor, cells: CellSet, folder: pathlib.Path, grid: Grid, num_patterns: int
) -> dict[str, Any]:
    """Run the inner cross-validation, and store the training features of the selected layer."""
    extracted = extractor.extract([c.ready for c in cells.cells], [c.tone_curve for c in cells.cells])
    patterns, names = np.array([item.pattern for item in cells.items]), units(cells.items)
    fitted = cell_readers.fit_svm_knn(extracted.layers, patterns, names, num_patterns, grid=grid)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / _FEATURES, features=extracted.layers[fitted.layer], patterns=patterns, specimens=np.array(names))
    choice = {name: getattr(fitted, name) for name in ("layer", "cost", "neighbours", "inner_mca")}
    return choice | {"cells_per_second": extracted.cells_per_second}


def _extractor(source: FeatureNetwork, layers: Sequence[str]) -> Extractor:
    # A specimen has a few dozen cells: larger batches would be mostly padding.
    return Extractor(source, meshes.make_mesh(), batch_size=math.lcm(32, meshes.make_mesh().size), layers=layers)
