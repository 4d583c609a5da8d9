"""A network's compiled forward pass over the overlapping tiles of whole images."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data import tiles
from hep2jax.data.streams import feeding
from hep2jax.tasks.reading import Parameters
from hep2jax.training import steps
from hep2jax.training.state import Network


class TileReader:
    """Compiles once for batches of tiles; `config.evaluation` sets the tiling and the batch size."""

    def __init__(self, config: Config, network: Network, mesh: jax.sharding.Mesh, decode: steps.Decode) -> None:
        self._tiling, self._mesh = config.evaluation, mesh
        self._rows = meshes.local_rows(mesh, config.evaluation.batch_size)
        self._predict = steps.predict_program(network, decode, mesh, dihedral=config.evaluation.dihedral)

    def read(
        self, parameters: Parameters, images: Iterable[tuple[np.ndarray, np.ndarray]]
    ) -> Iterator[tuple[tiles.Tile, Any]]:
        """Each tile and the network's decoded output for it (see `steps.make_predict_step`), image by image.

        Args:
            parameters: (params, batch_stats).
            images: (uint8 [h, w], tone_curve float32 [4]) pairs, see `steps.normalise`.
        """
        size, tile, overlap = self._tiling.batch_size, self._tiling.tile_size, self._tiling.tile_overlap
        batches = tiles.batches(images, batch_size=size, tile=tile, overlap=overlap)
        dispatched = ((batch.tiles, self._start(parameters, batch)) for batch in batches)
        for batch_tiles, outputs in feeding.fetched(dispatched):
            for row, place in enumerate(batch_tiles):  # the last batch is padded; its padding rows have no tile
                yield place, jax.tree.map(lambda leaf, row=row: leaf[row], outputs)

    def _start(self, parameters: Parameters, batch: tiles.TileBatch) -> Any:
        inputs = feeding.put({"image": batch.image[self._rows], "tone_curve": batch.tone_curve[self._rows]}, self._mesh)
        return self._predict(*parameters, inputs["image"], inputs["tone_curve"])
