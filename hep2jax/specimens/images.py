"""Multi-cell processing, image-wise: whole fields are read without looking for cells or pixels."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import jax
import numpy as np
from jaxtyping import Float
from sklearn.ensemble import RandomForestClassifier

from hep2jax import mesh as meshes
from hep2jax import tasks
from hep2jax.config import Config, DataConfig
from hep2jax.data.sets.fields import Field, FieldSet, grey_normalisation
from hep2jax.errors import UsageError
from hep2jax.fingerprint import fingerprint
from hep2jax.models import pretrained
from hep2jax.specimens import base, texture
from hep2jax.specimens.base import Reading
from hep2jax.tasks.bags import BagEvaluator, BagTask, pooled
from hep2jax.training import evaluation, steps
from hep2jax.training import state as states


class BagSystem:
    """Attention-pooled multiple-instance learning: all tiles of a specimen's fields are one bag (see `models.mil`)."""

    family = "images"

    def __init__(self, name: str, config: Config) -> None:
        self.name, self.settings = name, config

    def fit(self, fields: FieldSet, train: Sequence[int], directory: pathlib.Path) -> None:
        """Train the network on the specimens' patterns alone; see `base.System`."""
        config = self.settings
        self._parameters, classes = evaluation.load_parameters(
            base.train_on_fields(config, fields, train, directory, BagTask)
        )
        network = states.make_network(config, tasks.num_outputs(config, classes))
        self._evaluator = BagEvaluator(config, network, meshes.make_mesh())

    def read(self, fields: Sequence[Field]) -> Reading:
        """One specimen."""
        ready = [base.prepared(field, self.settings.data) for field in fields]
        probabilities = pooled(self._evaluator.measure(self._parameters, ready))
        return _reading(fields, probabilities)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForestOptions:
    """What `ForestSystem` consists of."""

    network: str = pretrained.DEFAULT
    """One of `pretrained.NAMES`; published: VGG-19. `vgg16` comes nearest, where its weights are at hand."""
    weights: pathlib.Path | None = None
    """File of the network's weights; None: those of the installed package."""
    layer: str = ""
    """Of the network; empty: the last before the logits."""
    num_trees: int = 1000
    """Of each forest; as published."""
    seed: int = 0


class ForestSystem:
    """Features of a pre-trained network and texture, a random forest on each, late fusion.

    Oraibi, Irio, Hafiane, Palaniappan (ICIP 2018; AIPR 2017). Sourced: VGG-19 features, RIC-LBP and joint motif labels,
    random forests of 1,000 trees, late fusion. Our reading, as no more was available: both are taken of the whole
    field, for the network shrunk to its input's side; fusion is the mean of the forests' probabilities, and fields of a
    specimen are fused alike; patterns weigh equally. Left out: joint motif labels, whose definition is not at hand.
    """

    family = "images"

    def __init__(self, name: str, options: ForestOptions) -> None:
        self.name, self.settings = name, options

    def fit(self, fields: FieldSet, train: Sequence[int], directory: pathlib.Path) -> None:
        """Describe the training fields, once, and grow the forests; see `base.System`.

        The descriptions are kept, not the forests: these grow again in seconds, alike, and a file of numbers is safe to
        read.
        """
        self._describe, self._num_patterns = _describer(self.settings), len(fields.classes)
        chosen = [fields.fields[i] for i in train]
        path = directory / f"forests-{self.settings.network}" / "descriptions.npz"
        described = self._kept(path, chosen)
        patterns = np.array([field.pattern for field in chosen])
        if len(np.unique(patterns)) < 2:
            raise UsageError(f"{self.name}: a forest needs specimens of two patterns or more to learn from")
        self._forests = {name: self._grow(rows, patterns) for name, rows in described.items()}

    def _kept(self, path: pathlib.Path, fields: Sequence[Field]) -> dict[str, np.ndarray]:
        """Descriptions of these very fields: from the file, or made and written there."""
        identity = fingerprint(self.settings, fields)
        if path.exists():
            with np.load(path) as arrays:
                kept = dict(arrays)
            if str(kept.pop("identity")) == identity:
                return kept
        described = self._describe(fields)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name("unfinished.npz")
        arrays: dict[str, Any] = described | {"identity": np.array(identity)}
        np.savez(unfinished, **arrays)
        unfinished.replace(path)
        return described

    def _grow(self, rows: np.ndarray, patterns: np.ndarray) -> RandomForestClassifier:
        options = self.settings
        forest = RandomForestClassifier(options.num_trees, class_weight="balanced", random_state=options.seed)
        return forest.fit(rows, patterns)

    def read(self, fields: Sequence[Field]) -> Reading:
        """One specimen."""
        described = self._describe(fields)
        shares = [self._shares(forest, described[name]) for name, forest in self._forests.items()]
        return _reading(fields, np.mean(shares, axis=(0, 1)))

    def _shares(self, forest: RandomForestClassifier, rows: np.ndarray) -> Float[np.ndarray, "field pattern"]:
        shares = np.zeros((len(rows), self._num_patterns))
        shares[:, forest.classes_] = forest.predict_proba(rows)
        return shares


Describer = Callable[[Sequence[Field]], dict[str, np.ndarray]]
"""Fields → by kind of description, [fields, features]."""

_BATCH = 8
_AS_CELLS = DataConfig(normalise="field", top_percentile=99.5)  # background to 0, the brightest structures to 1


def _describer(options: ForestOptions) -> Describer:
    network, params = pretrained.load(options.network, options.weights)
    layer = options.layer or network.layers[-2]
    network.check_layer(layer)

    @jax.jit
    def features(params: Any, image: jax.Array, tone_curve: jax.Array) -> jax.Array:
        grey = steps.normalise(image, tone_curve)[..., 0]
        return network.features(params, network.prepare(grey), layer)

    def describe(fields: Sequence[Field]) -> dict[str, np.ndarray]:
        images = np.stack([_shrunk(field, network.side) for field in fields])
        tone_curve = np.array([[*grey_normalisation(field.image, _AS_CELLS), 1.0, 0.0] for field in fields], np.float32)
        deep = []
        for first in range(0, len(fields), _BATCH):
            rows = np.resize(np.arange(first, min(first + _BATCH, len(fields))), _BATCH)  # one shape: compiled once
            deep.append(np.asarray(features(params, images[rows], tone_curve[rows])))
        textures = np.stack([texture.ric_lbp(field.image) for field in fields])
        return {"deep": np.concatenate(deep)[: len(fields)], "texture": textures}

    return describe


def _shrunk(field: Field, side: int) -> np.ndarray:
    return cv2.resize(field.image, (side, side), interpolation=cv2.INTER_AREA)


def _reading(fields: Sequence[Field], probabilities: np.ndarray) -> Reading:
    return Reading(
        specimen=fields[0].specimen_id,
        truth=fields[0].pattern,
        pattern=int(probabilities.argmax()),
        probabilities=probabilities,
    )
