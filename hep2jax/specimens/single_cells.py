"""Single-cell processing: find the cells, cut and normalise them, read each, then read the specimen from its cells."""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data.sets import cells as cell_data
from hep2jax.data.sets.cells import CellSet, Cut
from hep2jax.data.sets.fields import Field, FieldSet
from hep2jax.data.sets.items import units
from hep2jax.errors import UsageError
from hep2jax.fingerprint import fingerprint
from hep2jax.models import pretrained
from hep2jax.specimens import base, cell_readers, classical, features, pixels, voting
from hep2jax.specimens.base import Reading
from hep2jax.specimens.cell_readers import CellReader, FeatureReader, Grid, NetworkReader, SvmKnn
from hep2jax.specimens.features import Extractor, FeatureNetwork
from hep2jax.tasks import CellTask
from hep2jax.tasks.cells import CellEvaluator
from hep2jax.training import evaluation, workdir
from hep2jax.training import state as states

FINDERS = ("true", "predicted", "otsu")
"""Whose cells: the annotators'; those of a network for pixels, split by a watershed; those of Otsu's threshold of the
log intensity over its background, split likewise (`classical.segment`)."""
READERS = ("network", "own_svm", "pretrained_svm")
"""Who reads a cell: a cell network; SVMs and nearest neighbours on that network's features; the same on features of a
published ImageNet network."""
RULES = ("prevalence", "mean_probability", "histogram_svm")
"""How the cells make the specimen's pattern; see `hep2jax.specimens.voting`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellOptions:
    """What a system of single cells consists of."""

    finder: str = "true"
    """One of `FINDERS`. Every reader trains on the annotators' cells of the training specimens, whoever finds those
    that are read."""
    reader: str = "network"
    """One of `READERS`."""
    rule: str = "prevalence"
    """One of `RULES`. histogram_svm trains on readings of cells held out, which a network has none of: it needs an SVM
    reader. With own_svm these are too good all the same: the network behind the features has seen every training cell.
    It needs several specimens of each pattern: held out, the only one of a pattern is never read as that pattern, and
    the rule learns just this."""
    use_mitotic: bool = False
    """Count annotated mitotic cells as well. Other finders cannot tell them: theirs are always counted."""
    size_slack: float = 2.0
    """Found cells are dropped if smaller than the 1st percentile of the training cells' areas divided by this, or
    larger than the 99th times this: specks, and clumps that the watershed did not divide. Ours; annotated cells all
    stay."""
    drop_cut_cells: bool = False
    """Leave the cells that the frame cuts out of Otsu's masks too (see `EvaluationConfig.drop_cut_cells`); cells that
    reach the frame are never read."""
    pretrained: str = pretrained.DEFAULT
    """One of `pretrained.NAMES`, for pretrained_svm."""
    weights: pathlib.Path | None = None
    """File of its weights; None: the installed package."""
    side: int | None = None
    """Of its input in pixels; None: as published."""
    layers: tuple[str, ...] = ()
    """Of the published network, to choose from; empty: all but the logits."""
    grid: Grid = dataclasses.field(default_factory=Grid)
    """What the inner cross-validation chooses from."""

    def __post_init__(self) -> None:
        for name, known in (("finder", FINDERS), ("reader", READERS), ("rule", RULES)):
            if getattr(self, name) not in known:
                raise UsageError(f"{name}='{getattr(self, name)}': must be one of {', '.join(known)}")
        if self.rule == "histogram_svm" and self.reader == "network":
            raise UsageError("rule=histogram_svm needs readings of cells held out, so reader=own_svm or pretrained_svm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """The annotated whole cells of the training specimens."""

    diameter: float
    """Median diameter of a circle of their area, in native pixels."""
    low: float
    high: float
    """1st and 99th percentile of their areas, in native pixels."""


class CellSystem:
    """Cells found, read one by one, and the specimen read from them.

    Cascio, Taormina, Raso (Appl. Sci. 9:1618, 2019) is the reader pretrained_svm with the rule prevalence; Li, Huang,
    Zheng, Xie, Zhang (ICPR 2016) the rule histogram_svm.
    """

    family = "single cells"

    def __init__(self, name: str, options: CellOptions, cells: Config, segmenter: Config | None = None) -> None:
        """`cells`: of the cell network, also how cells are made ready; `segmenter`: for the finder `predicted`."""
        if options.finder == "predicted" and segmenter is None:
            raise UsageError("finder=predicted needs a network for pixels")
        self.name, self._options, self._config, self._segmenter = name, options, cells, segmenter
        self.settings = options, cells, segmenter

    def fit(self, fields: FieldSet, train: Sequence[int], directory: pathlib.Path) -> None:
        """Train what finds, reads and decides; see `base.System`."""
        side = base.training_split(fields, train)
        self._num_patterns, self._sizes = len(fields.classes), _sizes(side)
        self._pixels = None
        if self._options.finder == "predicted":
            assert self._segmenter is not None
            self._pixels = pixels.fit_network(self._segmenter, fields, train, directory)
        self._reader, self._rule = self._fit_reader(cell_data.from_fields(side, self._config.data), directory)

    def _fit_reader(self, cells: CellSet, directory: pathlib.Path) -> tuple[CellReader, voting.Rule]:
        options = self._options
        rules: dict[str, voting.Rule] = {
            "prevalence": voting.by_prevalence,
            "mean_probability": voting.by_mean_probability,
        }
        if options.reader == "pretrained_svm":
            source = features.of_pretrained(options.pretrained, self._config.data, options.weights, side=options.side)
            folder = directory / f"svm-{options.pretrained}"
        else:
            network = _fit_network(self._config, cells, directory)
            if options.reader == "network":
                return _open_network(network), rules[options.rule]
            source, folder = features.of_workdir(network), directory / f"svm-{self._config.model.name}"
        layers = options.layers if options.reader == "pretrained_svm" else ()
        fitted = _fit_svm_knn(source, layers or source.layers, cells, folder, options.grid, self._num_patterns)
        extractor = _extractor(source, (fitted.classifier.layer,))
        reader = FeatureReader(extractor=extractor, classifier=fitted.classifier)
        return reader, rules.get(options.rule) or fitted.histogram_svm()

    def read(self, fields: Sequence[Field]) -> Reading:
        """One specimen; one without a cell to read is left out."""
        instances = self._find(fields)
        given = self._options.finder == "true"
        masks = () if given else tuple(cells > 0 for cells in instances)
        found = [self._cut(field, cells) for field, cells in zip(fields, instances, strict=True)]
        cuts = [cut for part in found for cut in part.cuts]
        if not cuts:
            return base.without_pattern(fields, self._num_patterns, _nothing(found), masks=masks)
        ready = [cell_data.preprocess(cut.image, cut.mask, self._config.data) for cut in cuts]
        scores = self._reader.read([image for image, _ in ready], [tone_curve for _, tone_curve in ready])
        name = fields[0].specimen_id
        read = voting.read_specimens(
            scores,
            [name] * len(cuts),
            self._rule,
            mitotic=np.concatenate([part.mitotic for part in found]),
            use_mitotic=self._options.use_mitotic,
        )
        if read.left_out:
            return base.without_pattern(fields, self._num_patterns, read.left_out[name], masks=masks)
        result = read.readings[0]
        return Reading(
            specimen=name,
            truth=fields[0].pattern,
            pattern=result.pattern,
            probabilities=result.scores.astype(np.float64),
            masks=masks,
        )

    def _find(self, fields: Sequence[Field]) -> list[Int[np.ndarray, "height width"]]:
        """The map of instances of each field."""
        diameter = self._sizes.diameter
        if self._options.finder == "true":
            return [field.instances.astype(np.int32) for field in fields]
        if self._pixels is not None:
            return [classical.split_touching(read.foreground, diameter) for read in self._pixels.read(fields)]
        found = [
            classical.segment(field.image, variant="otsu_log_watershed", nuclear_diameter=diameter) for field in fields
        ]
        if self._options.drop_cut_cells:
            found = [classical.drop_cut_cells(cells, diameter) for cells in found]
        return found

    def _cut(self, field: Field, instances: Int[np.ndarray, "height width"]) -> "_Found":
        if self._options.finder == "true":
            mitotic = cell_data.of_kind(field, "mitotic_cell")
            out = cell_data.cut_out(field.image, instances, [*cell_data.of_kind(field, "cell"), *mitotic])
            flags = np.array([cut.number in mitotic for cut in out.cuts], bool)
            return _Found(cuts=out.cuts, mitotic=flags, num_cut_by_frame=out.num_cut_by_frame, num_absurd=0)
        out = cell_data.cut_out(field.image, instances)
        kept = tuple(cut for cut in out.cuts if self._is_cell_sized(cut))
        return _Found(
            cuts=kept,
            mitotic=np.zeros(len(kept), bool),
            num_cut_by_frame=out.num_cut_by_frame,
            num_absurd=len(out.cuts) - len(kept),
        )

    def _is_cell_sized(self, cut: Cut) -> bool:
        slack = self._options.size_slack
        return self._sizes.low / slack <= int(np.count_nonzero(cut.mask)) <= self._sizes.high * slack


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Found:
    """The cells of a field, and those that are not read."""

    cuts: tuple[Cut, ...]
    mitotic: Bool[np.ndarray, " cuts"]
    num_cut_by_frame: int
    num_absurd: int


def _nothing(found: Sequence[_Found]) -> str:
    """Why there is no cell to read."""
    at_frame, absurd = sum(f.num_cut_by_frame for f in found), sum(f.num_absurd for f in found)
    if not at_frame + absurd:
        return voting.NO_CELL
    parts = [(at_frame, "cut by the frame of the image"), (absurd, "too small or too large for a cell")]
    return "no whole cell was found in it: " + ", ".join(f"{number} {words}" for number, words in parts if number)


def _sizes(side: FieldSet) -> Sizes:
    """Sizes of the annotated cells."""
    cuts = (cell_data.cut_out(f.image, f.instances, cell_data.of_kind(f, "cell")).cuts for f in side.fields)
    areas = [np.count_nonzero(cut.mask) for whole in cuts for cut in whole]
    if not areas:
        raise UsageError(f"{side.name}: no whole cell is annotated, so there is nothing to train a reader of cells on")
    low, median, high = np.percentile(areas, [1, 50, 99]).tolist()
    return Sizes(diameter=2 * math.sqrt(median / math.pi), low=low, high=high)


# The cell network


def _fit_network(config: Config, cells: CellSet, directory: pathlib.Path) -> pathlib.Path:
    """Train the cell network in a folder of its own, once."""
    folder = directory / f"network-{config.model.name}"
    base.train(folder, config, CellTask(config, cells))
    return folder


@functools.lru_cache(maxsize=2)
def _open_network(folder: pathlib.Path) -> NetworkReader:
    """A finished folder does not change, and several systems read with the same network."""
    config, classes = workdir.open_for_reading(folder), workdir.read_classes(folder)
    parameters, _ = evaluation.load_parameters(folder)
    evaluator = CellEvaluator(config, states.make_network(config, len(classes)), meshes.make_mesh())
    return NetworkReader(evaluator=evaluator, parameters=parameters)


# SVMs and neighbours on features

_CHOICE, _FEATURES = "choice.json", "features.npz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _FittedSvmKnn:
    """The classifier, and whose cells it was fitted on."""

    classifier: SvmKnn
    patterns: Int[np.ndarray, " cell"]
    specimens: tuple[str, ...]

    def histogram_svm(self) -> voting.HistogramSvm:
        """The rule that learns from the training cells' readings out of fold."""
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
    """Choose and fit once; afterwards only the chosen point is fitted again, on the features that were kept.

    What was kept of other cells, of another network or of another grid is not used: it is chosen again.
    """
    identity = fingerprint(source.name, source.data, source.parameters, layers, grid, cells.classes, cells.cells)
    path = folder / _CHOICE
    choice = json.loads(path.read_text()) if path.exists() else {}
    if choice.get("identity") != identity:
        choice = _choose(_extractor(source, layers), cells, folder, grid, num_patterns)
        workdir.write_json(path, choice | {"identity": identity})
    with np.load(folder / _FEATURES, allow_pickle=False) as arrays:
        rows, patterns, names = arrays["features"], arrays["patterns"], tuple(arrays["specimens"].tolist())
    point = Grid(costs=(choice["cost"],), neighbours=(choice["neighbours"],), folds=grid.folds)
    fitted = cell_readers.fit_svm_knn({choice["layer"]: rows}, patterns, names, num_patterns, grid=point)
    return _FittedSvmKnn(classifier=fitted, patterns=patterns, specimens=names)


def _choose(
    extractor: Extractor, cells: CellSet, folder: pathlib.Path, grid: Grid, num_patterns: int
) -> dict[str, Any]:
    """The choice of the inner cross-validation; keeps the training cells' features of the layer that it chooses."""
    found = extractor.extract([c.ready for c in cells.cells], [c.tone_curve for c in cells.cells])
    patterns, names = np.array([item.pattern for item in cells.items]), units(cells.items)
    fitted = cell_readers.fit_svm_knn(found.layers, patterns, names, num_patterns, grid=grid)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / _FEATURES, features=found.layers[fitted.layer], patterns=patterns, specimens=np.array(names))
    choice = {name: getattr(fitted, name) for name in ("layer", "cost", "neighbours", "inner_mca")}
    return choice | {"cells_per_second": found.cells_per_second}


def _extractor(source: FeatureNetwork, layers: Sequence[str]) -> Extractor:
    # A specimen has a few dozen cells: fuller batches would be mostly padding.
    return Extractor(source, meshes.make_mesh(), batch_size=math.lcm(32, meshes.make_mesh().size), layers=layers)
