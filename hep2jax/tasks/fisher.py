"""Reading single cells by their texture: `fisher`, which is fitted in one piece instead of trained by steps."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from typing_extensions import override

from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data.streams import cells as cell_stream
from hep2jax.data.streams import feeding
from hep2jax.errors import UsageError
from hep2jax.fisher import fitting
from hep2jax.fisher import reader as texture
from hep2jax.fisher.descriptors import Descriptor
from hep2jax.fisher.encoding import Codebook
from hep2jax.fisher.ridge import Cells
from hep2jax.tasks.cells import CellEvaluator, CellReader, CellTask
from hep2jax.tasks.reading import Parameters
from hep2jax.training import fitted
from hep2jax.training.state import Tree

_SIDE = 84
_features = jax.jit(texture.features)  # one program for the fit and for evaluation


class FisherEvaluator(CellEvaluator):
    """The compiled texture reader. Turned and mirrored copies are part of its features, whatever the configuration."""

    def __init__(self, config: Config, network: Any, mesh: jax.sharding.Mesh) -> None:
        del network
        self._config, self._mesh = config, mesh
        decide = jax.jit(texture.probabilities, out_shardings=meshes.replicated(mesh))

        def predict(parameters: Any, stats: Any, image: jax.Array, tone_curve: jax.Array) -> jax.Array:
            del stats, tone_curve
            codebooks = {name: Codebook(**book) for name, book in parameters["codebooks"].items()}
            return decide({k: v for k, v in parameters.items() if k != "codebooks"}, _features(codebooks, image))

        self._predict = predict


class FisherReader(CellReader):
    """Reads cells with their masks."""

    evaluator_class = FisherEvaluator


class FisherTask(CellTask):
    """Classification of cells by the texture reader, and of specimens by the most frequent pattern of their cells."""

    networks: ClassVar[Any] = {"fisher": FisherReader}
    classifies_cells = False
    is_fitted = True
    reader_class = FisherReader
    evaluator_class = FisherEvaluator

    @override
    @classmethod
    def resolve(cls, config: Config) -> Config:
        """Replaces a `data.crop_size` of 0 by 84."""
        side = config.data.crop_size or _SIDE
        if config.data.cell_fit != "frame":
            raise UsageError(f"data.cell_fit='{config.data.cell_fit}': fisher needs the mask; take data.cell_fit=frame")
        if not 32 <= side <= 512:
            raise UsageError(f"data.crop_size={side}: fisher takes frames of 32 to 512 pixels, or 0 for {_SIDE}")
        return dataclasses.replace(config, data=dataclasses.replace(config.data, crop_size=side))

    @override
    def fit(self, indices: Sequence[int], mesh: jax.sharding.Mesh) -> tuple[Parameters, Tree]:
        """Fit the reader to these cells: projections, mixtures, scales and weights come from them alone.

        With `model.init_from`, projections and mixtures are those of that work directory, and the cells that it keeps
        are learned from along with these.

        Returns:
            The parameters, and what the work directory keeps for such runs.
        """
        config, rng = self.config, np.random.default_rng(self.config.seed)
        settings = fitting.Settings(
            strength=config.fisher.ridge,
            class_power=config.loss.class_balance,
            rings=config.fisher.rings,
            shape=config.fisher.shape,
        )
        start = fitted.load(pathlib.Path(config.model.init_from), fitted.ALONG) if config.model.init_from else None
        if start:
            codebooks = {name: Codebook(**book) for name, book in start["codebooks"].items()}
        else:
            codebooks = self._fit_codebooks(settings.descriptors, rng.permutation(np.asarray(indices)), mesh, rng)
        units = [self.items[i].group or self.items[i].specimen for i in indices]
        chosen = np.asarray(indices)[fitting.some_of_each(units, config.fisher.cells_per_specimen, rng)]
        own = self._describe(codebooks, chosen.tolist(), mesh)
        along, others = (_read_cells(start), tuple(start["classes"].tolist())) if start else (None, ())
        parameters = fitting.fit_reader(own, self.classes, settings, along, others)
        books = {name: dataclasses.asdict(book) for name, book in codebooks.items()}
        kept = own.chosen(fitting.some_of_each(own.specimens, config.fisher.cells_along, rng))
        return ({"codebooks": books, **parameters}, {}), _written_cells(kept, self.classes) | {"codebooks": books}

    def _fit_codebooks(
        self, descriptors: Sequence[Descriptor], indices: np.ndarray, mesh: jax.sharding.Mesh, rng: np.random.Generator
    ) -> dict[str, Codebook]:
        some, codebooks = indices[: self.config.fisher.codebook_cells], {}
        for descriptor in descriptors:
            describe = jax.jit(functools.partial(texture.describe, descriptor=descriptor))
            batches = self._batches(describe, some.tolist(), mesh)
            vectors = np.concatenate([fitting.sample(found, depth, len(some), rng) for found, depth in batches])
            codebooks[descriptor.name] = fitting.fit_codebook(descriptor, vectors, self.config.fisher.gaussians, rng)
        return codebooks

    def _describe(self, codebooks: dict[str, Codebook], indices: Sequence[int], mesh: jax.sharding.Mesh) -> Cells:
        """The features of cells; Fisher vectors are kept in half precision."""

        batches = [
            {name: block.astype(np.float16 if name in codebooks else np.float32) for name, block in batch.items()}
            for batch in self._batches(functools.partial(_features, codebooks), indices, mesh)
        ]
        items = [self.items[i] for i in indices]
        return Cells(
            features={name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]},
            patterns=np.array([item.pattern for item in items]),
            specimens=[item.group or item.specimen for item in items],
        )

    def _batches(
        self, function: Callable[[jax.Array], Any], indices: Sequence[int], mesh: jax.sharding.Mesh
    ) -> Iterator[Any]:
        """The outputs of a compiled function of frames, batch by batch and without the padding of the last."""
        cells, size = [self.cells.cells[i] for i in indices], self.config.evaluation.batch_size
        batches = cell_stream.plain_batches(
            [cell.ready for cell in cells],
            [cell.tone_curve for cell in cells],
            size=size,
            side=self.config.data.crop_size,
            mesh=mesh,
        )
        shared = jax.jit(lambda output: output, out_shardings=meshes.replicated(mesh))
        for first, output in zip(
            range(0, len(cells), size), feeding.fetched(shared(function(b["image"])) for b in batches), strict=True
        ):
            rows = min(size, len(cells) - first)
            yield jax.tree.map(lambda leaf, rows=rows: leaf[:rows], output)


def _written_cells(cells: Cells, classes: Sequence[str]) -> Tree:
    """The cells as arrays."""
    return {
        "features": dict(cells.features),
        "patterns": cells.patterns,
        "specimens": np.array(cells.specimens),
        "classes": np.array(classes),
    }


def _read_cells(tree: Tree) -> Cells:
    """What `_written_cells` wrote."""
    return Cells(features=tree["features"], patterns=tree["patterns"], specimens=tree["specimens"].tolist())
