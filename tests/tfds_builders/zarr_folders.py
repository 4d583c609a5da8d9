"""Writes OME-Zarr folders with TensorStore."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorstore

TYPES = {"t": "time", "c": "channel"}


def write_zarr(
    folder: pathlib.Path,
    pixels: np.ndarray,
    *,
    axes: str = "yx",
    version: int = 3,
    chunks: Sequence[int] = (),
    array: dict[str, Any] | None = None,
    **image,
) -> pathlib.Path:
    """Write an image: NGFF 0.5 in Zarr 3, or 0.4 in Zarr 2. `array` is further metadata of the array, `image` of it."""
    folder.mkdir(parents=True, exist_ok=True)
    described = [{"name": name, "type": TYPES.get(name, "space"), "unit": "micrometer"} for name in axes]
    steps = [{"type": "scale", "scale": [1.0] * (len(axes) - 2) + [0.75, 0.5]}]
    multiscales = [{"axes": described, "datasets": [{"path": "0", "coordinateTransformations": steps}], **image}]
    write_attributes(folder, {"multiscales": multiscales}, version)
    metadata: dict[str, Any] = {"shape": pixels.shape}
    if version == 3:
        grid = {"name": "regular", "configuration": {"chunk_shape": chunks or pixels.shape}}
        metadata |= {"chunk_grid": grid, "data_type": pixels.dtype.name}
    else:
        metadata |= {"chunks": chunks or pixels.shape, "dtype": pixels.dtype.str}
    spec = {
        "driver": "zarr" if version == 2 else "zarr3",
        "kvstore": {"driver": "file", "path": f"{folder / '0'}/"},
        "metadata": metadata | (array or {}),
    }
    tensorstore.open(spec, create=True).result().write(pixels).result()
    return folder


def write_attributes(folder: pathlib.Path, attributes: dict[str, Any], version: int = 3) -> None:
    """Write the metadata of a group."""
    if version == 2:
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
        (folder / ".zattrs").write_text(json.dumps(attributes))
    else:
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5", **attributes}}}
        (folder / "zarr.json").write_text(json.dumps(group))


def shards(chunk: Sequence[int], *codecs: dict[str, Any], at: str = "end") -> dict[str, Any]:
    """Further metadata of an array whose files hold chunks of the given shape."""
    configuration = {"chunk_shape": chunk, "codecs": [{"name": "bytes"}, *codecs], "index_location": at}
    return {"codecs": [{"name": "sharding_indexed", "configuration": configuration}]}
