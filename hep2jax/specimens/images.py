"""Multi-cell processing of images: fields are classified without segmenting cells or labelling pixels."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import jax
import numpy as np
from jaxtyping import Float
from sklearn.ensemble import RandomForestClassifier

from hep2jax import files
from hep2jax import mesh as meshes
from hep2jax.config import Config, DataConfig
from hep2jax.data.sets.fields import Field, FieldSet, grey_normalisation
from hep2jax.errors import UsageError
from hep2jax.fingerprint import fingerprint
from hep2jax.models import pretrained
from hep2jax.specimens import base, texture
from hep2jax.specimens.base import Reading
from hep2jax.tasks.bags import BagEvaluator, BagTask, pooled
from hep2jax.training import evaluation, steps


class BagSystem:
    """Multiple-instance learning with attention pooling: all tiles of a specimen are one bag (see `models.mil`)."""

    family = "images"

    def __init__(self, name: str, config: Config) -> None:
        self.name, self.settings = name, config

    def fit(self, fields: FieldSet, train: Sequence[int], directory: pathlib.Path) -> None:
        """Train the network, with the patterns of the specimens as the only labels; see `base.System`."""
        config = self.settings
        trained = evaluation.load(base.train_on_fields(config, fields, train, directory, BagTask))
        self._parameters = trained.parameters
        self._evaluator = BagEvaluator(config, trained.network, meshes.make_mesh())

    def read(self, fields: Sequence[Field]) -> Reading:
        """Read one specimen."""
        prepared = [base.prepare_field(field, self.settings.data) for field in fields]
        probabilities = pooled(self._evaluator.measure(self._parameters, prepared))
        return _reading(fields, probabilities)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForestOptions:
    """Options of `ForestSystem`."""

    network: str = pretrained.DEFAULT
    """One of `pretrained.NAMES`. The paper uses VGG-19; `vgg16` is closest, if its weights are available."""
    weights: pathlib.Path | None = None
    """File with the weights of the network; None: the installed package."""
    layer: str = ""
    """Layer of the network; empty: the last layer before the logits."""
    num_trees: int = 1000
    """Number of trees of each forest, as published."""
    seed: int = 0


class ForestSystem:
    """Two random forests, on features of a pre-trained network and on texture features, with late fusion.

    Oraibi, Irio, Hafiane, Palaniappan (ICIP 2018; AIPR 2017). From the source: VGG-19 features, RIC-LBP and joint motif
    labels, random forests of 1,000 trees, late fusion. The source gives no further details, so the following is our
    interpretation: both kinds of features are computed on the complete field, which is resized to the input size of
    the network for the network features; fusion is the mean of the probabilities over the forests and over the fields
    of a specimen; all patterns have equal weight. Joint motif labels are not implemented, because their definition was
    not available.
    """

    family = "images"

    def __init__(self, name: str, options: ForestOptions) -> None:
        self.name, self.settings = name, options

    def fit(self, fields: FieldSet, train: Sequence[int], directory: pathlib.Path) -> None:
        """Compute the features of the training fields and fit the forests; see `base.System`.

        The features are stored, but not the forests: refitting takes seconds and gives identical forests, and a file of
        plain arrays is safe to load.
        """
        self._describe, self._num_patterns = _describer(self.settings), len(fields.classes)
        training_fields = [fields.fields[i] for i in train]
        path = directory / f"forests-{self.settings.network}" / "descriptions.npz"
        features = self._stored_features(path, training_fields)
        patterns = np.array([field.pattern for field in training_fields])
        if len(np.unique(patterns)) < 2:
            raise UsageError(f"{self.name}: a forest needs training specimens of at least two patterns")
        self._forests = {name: self._fit_forest(rows, patterns) for name, rows in features.items()}

    def _stored_features(self, path: pathlib.Path, fields: Sequence[Field]) -> dict[str, np.ndarray]:
        """Features of exactly these fields: read from the file if it matches, else computed and written to it."""
        identity = fingerprint(self.settings, fields)
        stored = files.kept_arrays(path)
        if str(stored.pop("identity", "")) == identity:
            return stored
        features = self._describe(fields)
        arrays: dict[str, Any] = features | {"identity": np.array(identity)}
        with files.replaced(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, **arrays)
        return features

    def _fit_forest(self, rows: np.ndarray, patterns: np.ndarray) -> RandomForestClassifier:
        options = self.settings
        forest = RandomForestClassifier(options.num_trees, class_weight="balanced", random_state=options.seed)
        return forest.fit(rows, patterns)

    def read(self, fields: Sequence[Field]) -> Reading:
        """Read one specimen."""
        features = self._describe(fields)
        shares = [self._shares(forest, features[name]) for name, forest in self._forests.items()]
        return _reading(fields, np.mean(shares, axis=(0, 1)))

    def _shares(self, forest: RandomForestClassifier, rows: np.ndarray) -> Float[np.ndarray, "field pattern"]:
        shares = np.zeros((len(rows), self._num_patterns))
        shares[:, forest.classes_] = forest.predict_proba(rows)
        return shares


Describer = Callable[[Sequence[Field]], dict[str, np.ndarray]]
"""Function: fields → arrays [fields, features], by kind of features."""

_BATCH_SIZE = 8
_NORMALISATION = DataConfig(normalise="field", top_percentile=99.5)  # background → 0, brightest structures → 1


def _describer(options: ForestOptions) -> Describer:
    network, params = pretrained.load(options.network, options.weights)
    layer = options.layer or network.layers[-2]
    network.check_layer(layer)

    @jax.jit
    def features(params: Any, image: jax.Array, tone_curve: jax.Array) -> jax.Array:
        grey = steps.normalise(image, tone_curve)[..., 0]
        return network.features(params, network.prepare(grey), layer)

    def describe(fields: Sequence[Field]) -> dict[str, np.ndarray]:
        images = np.stack([_resize(field, network.side) for field in fields])
        tone_curve = np.array(
            [[*grey_normalisation(field.image, _NORMALISATION), 1.0, 0.0] for field in fields], np.float32
        )
        deep = []
        for first in range(0, len(fields), _BATCH_SIZE):
            # Repeat rows in the last batch: all batches have the same shape, so the function is compiled once.
            rows = np.resize(np.arange(first, min(first + _BATCH_SIZE, len(fields))), _BATCH_SIZE)
            deep.append(np.asarray(features(params, images[rows], tone_curve[rows])))
        textures = np.stack([texture.ric_lbp(field.image) for field in fields])
        return {"deep": np.concatenate(deep)[: len(fields)], "texture": textures}

    return describe


def _resize(field: Field, side: int) -> np.ndarray:
    return cv2.resize(field.image, (side, side), interpolation=cv2.INTER_AREA)


def _reading(fields: Sequence[Field], probabilities: np.ndarray) -> Reading:
    return Reading(
        specimen=fields[0].specimen_id,
        truth=fields[0].pattern,
        pattern=int(probabilities.argmax()),
        probabilities=probabilities,
    )
