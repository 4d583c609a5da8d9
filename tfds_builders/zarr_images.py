"""Reads images in OME-Zarr folders (NGFF 0.4 in Zarr 2, NGFF 0.5 in Zarr 3), at their finest level.

Each plane of the axes before y and x is a frame, in the order of the axes, except that three channels are red, green
and blue. A chunk without a file has the array's fill value, as the Zarr specification wants it. TensorStore decodes.

Sizes are checked before memory is taken. TensorStore stops decoding where a chunk must end, but takes the memory that
the header of a Blosc chunk asks for, and reads as many bytes as the index of a shard says; both are checked before.

Source: https://ngff.openmicroscopy.org/0.4 and https://ngff.openmicroscopy.org/0.5
"""

import itertools
import json
import math
import os
import pathlib
import re
import stat
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tensorstore

from tfds_builders.frames import MAX_PAGES, Frame, ImageFileError, check_size, micrometres
from tfds_builders.pixels import MAX_PIXELS

MAX_PAGE_BYTES = 8 * MAX_PIXELS
"""Most that the chunks of a page decode to: four channels of 16 bits, or parts of other pages."""
MAX_CHUNKS = 100_000
"""Most chunks of a page, or of a shard."""

_MAX_JSON_BYTES = 16_000_000
_MARGIN = 65_536  # bytes by which an encoded chunk may be longer than its pixels
_CHUNK_NAME = re.compile(r"(c\.)?\d+(\.\d+)*")
_MISSING = 2**64 - 1  # start and length of a chunk that a shard does not have
_INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


def frames(folder: pathlib.Path) -> Iterator[Frame]:
    """The frames of the image in a folder, decoded one after another; all sizes are checked before the first.

    Raises:
        ImageFileError: the folder holds no image, several, one of another kind than uint8 or uint16, one that is too
            large or damaged, or refers to what is outside it.
    """
    image = _image(folder, _attributes(folder))
    try:
        level = image["datasets"][0]
        axes = [(str(axis["name"]).lower(), axis.get("type"), axis.get("unit")) for axis in image["axes"]]
        array_folder, size = _below(folder, level["path"]), _micrometres_per_pixel(level, image, axes)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ImageFileError(f"damaged OME-Zarr metadata, or older than NGFF 0.4 ({error!r})") from error
    array = _open(array_folder)
    selections = _selections(array, axes)
    if _check_chunks(array, selections[0]):
        array = _open(array_folder, MAX_PAGE_BYTES)
    _check_files(array_folder, _encoding(array))
    for number, selection in enumerate(selections, start=1):
        yield Frame(
            pixels=_pixels(array, selection, number),
            page=number,
            num_pages=len(selections),
            micrometres_per_pixel=size,
        )


def _attributes(folder: pathlib.Path) -> dict[str, Any]:
    """What OME metadata say of a group; empty if there are none."""
    if (folder / "zarr.json").exists():
        attributes = _json(folder / "zarr.json").get("attributes")
        attributes = attributes.get("ome") if isinstance(attributes, dict) else None
    else:
        attributes = _json(folder / ".zattrs") if os.path.lexists(folder / ".zattrs") else None
    return attributes if isinstance(attributes, dict) else {}


def _json(file: pathlib.Path) -> dict[str, Any]:
    _check_file(file, file.lstat(), _MAX_JSON_BYTES)
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ImageFileError(f"{file.name} is damaged ({error})") from error
    if not isinstance(content, dict):
        raise ImageFileError(f"{file.name} is damaged (no object)")
    return content


def _check_file(path: pathlib.Path, status: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ImageFileError(f"{path.name} in it is a link or no file, which is not read")
    if status.st_size > most:
        raise ImageFileError(f"damaged: {path.name} has {status.st_size} bytes, at most {most} are expected")


def _image(folder: pathlib.Path, attributes: dict[str, Any]) -> dict[str, Any]:
    """The metadata of the only image of a folder."""
    for key, kind, fields in (
        ("plate", "plate of several images", "*/*/*"),
        ("well", "well of several images", "*"),
        ("bioformats2raw.layout", "collection of images", "[0-9]*"),
    ):
        if key in attributes:
            raise ImageFileError(f"a {kind}; name these instead, by the pattern '{folder}/{fields}'")
    images = attributes.get("multiscales")
    if not isinstance(images, list) or not images or not isinstance(images[0], dict):
        raise ImageFileError("the folder holds no OME-Zarr image (no multiscales in .zattrs or zarr.json)")
    return images[0]


def _below(folder: pathlib.Path, path: str) -> pathlib.Path:
    """The folder of an array, which must be in its image's folder and not be reached by links."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ImageFileError(f"damaged: the path {path!r} of its pixels leads out of the folder")
    for part in parts:
        folder = folder / part
        if not folder.is_dir() or folder.is_symlink():
            raise ImageFileError(f"damaged: {path!r}, where its pixels should be, is a link or no folder")
    return folder


def _micrometres_per_pixel(level: Any, image: Any, axes: Sequence[tuple[Any, ...]]) -> float | None:
    """Width of a pixel as the transformations of the level, and of all levels, scale it."""
    steps = [*level.get("coordinateTransformations", []), *image.get("coordinateTransformations", [])]
    scales = [step["scale"][len(axes) - 1] for step in steps if step["type"] == "scale"]
    return micrometres(math.prod(map(float, scales)), axes[-1][2]) if scales else None


def _open(folder: pathlib.Path, cache_bytes: int = 0) -> Any:
    """The array of a folder; nothing of it is read yet except its metadata."""
    version = next((v for v, name in ((3, "zarr.json"), (2, ".zarray")) if os.path.lexists(folder / name)), None)
    if version is None:
        raise ImageFileError(f"damaged: {folder.name!r}, where its pixels should be, has no zarr.json or .zarray")
    _json(folder / {2: ".zarray", 3: "zarr.json"}[version])
    spec = {
        "driver": {2: "zarr", 3: "zarr3"}[version],
        "kvstore": {"driver": "file", "path": f"{folder.absolute()}/"},
        "recheck_cached_data": "open",
        "context": {
            "cache_pool": {"total_bytes_limit": cache_bytes},
            "data_copy_concurrency": {"limit": 1},  # decodes a chunk at a time
            "file_io_concurrency": {"limit": 4},
        },
    }
    try:
        return tensorstore.open(spec, open=True, read=True).result()
    except Exception as error:
        raise ImageFileError(_damage(error)) from error


def _damage(error: Exception) -> str:
    return f"damaged, or of a kind that is not supported ({str(error).partition(' [')[0]})"


def _selections(array: Any, axes: Sequence[tuple[Any, ...]]) -> list[tuple[int | slice, ...]]:
    """The index of each page along the axes before y and x; that of three channels is a slice."""
    names = [name for name, _, _ in axes]
    channels = [i for i, (name, kind, _) in enumerate(axes[:-2]) if kind == "channel" or name == "c"]
    if names[-2:] != ["y", "x"] or len(names) != array.ndim or len(channels) > 1:
        raise ImageFileError(f"axes {names} of an array of {array.ndim}; they must be t, c, z, y, x or some of these")
    if array.dtype.name not in ("uint8", "uint16"):
        raise ImageFileError(f"pixels of the kind {array.dtype.name}; convert it to 8 or 16 bits")
    check_size(array.shape[-1], array.shape[-2])
    leading: list[Sequence[int | slice]] = [range(length) for length in array.shape[:-2]]
    if channels and array.shape[channels[0]] == 3:
        leading[channels[0]] = [slice(None)]
    if not 1 <= math.prod(map(len, leading)) <= MAX_PAGES:
        raise ImageFileError(f"{math.prod(map(len, leading))} pages; 1 to {MAX_PAGES} are read")
    return list(itertools.product(*leading))


def _check_chunks(array: Any, selection: Sequence[int | slice]) -> bool:
    """Whether chunks hold parts of several pages; raises ImageFileError if they are too large or too many."""
    page = [1 if isinstance(index, int) else 3 for index in selection] + list(array.shape[-2:])
    chunk = array.chunk_layout.read_chunk.shape
    counts = [math.ceil(length / side) for length, side in zip(page, chunk, strict=True)]
    num_bytes = math.prod(counts) * math.prod(chunk) * array.dtype.numpy_dtype.itemsize
    if math.prod(counts) > MAX_CHUNKS or num_bytes > MAX_PAGE_BYTES:
        raise ImageFileError(
            f"chunks of {' x '.join(map(str, chunk))}: a page needs {math.prod(counts)} of them, which hold "
            f"{num_bytes // 10**6} MB; at most {MAX_CHUNKS} and {MAX_PAGE_BYTES // 10**6} MB are read"
        )
    return any(side > length for side, length in zip(chunk[:-2], page, strict=False))


class _Encoding(NamedTuple):
    """How chunks are stored in files."""

    max_bytes: int
    """Most bytes of an encoded chunk."""
    blosc: bool
    """Whether an encoded chunk starts with the header of Blosc."""
    per_shard: int
    """Number of chunks in a file; 0 where a file is a chunk."""
    index_at_end: bool
    index_bytes: int


def _encoding(array: Any) -> _Encoding:
    layout, codec = array.chunk_layout, array.codec.to_json()
    chunk, shard = layout.read_chunk.shape, layout.write_chunk.shape
    compressor, codecs, sharding = codec.get("compressor"), codec.get("codecs", []), {}
    names = [compressor["id"]] if compressor else [part["name"] for part in codecs]
    per_shard = 0
    if names[:1] == ["sharding_indexed"]:
        sharding = codecs[0]["configuration"]
        names += [part["name"] for part in sharding["codecs"]]
        per_shard = math.prod(whole // part for whole, part in zip(shard, chunk, strict=True))
        if sharding["index_codecs"] not in (_INDEX_CODECS, _INDEX_CODECS[:1]) or per_shard > MAX_CHUNKS:
            raise ImageFileError("an index of shards of a kind that is not supported")
    outer = [name for name in names if name != "crc32c"]
    if "sharding_indexed" in outer[1:] or "blosc" in outer[:-1] or (per_shard and len(codecs) > 1):
        raise ImageFileError(f"codecs {names} in this order are not supported")
    num_bytes = math.prod(chunk) * array.dtype.numpy_dtype.itemsize
    return _Encoding(
        max_bytes=num_bytes + num_bytes // 8 + _MARGIN,
        blosc="blosc" in outer,
        per_shard=per_shard,
        index_at_end=sharding.get("index_location", "end") == "end",
        index_bytes=16 * per_shard + 4 * (len(sharding.get("index_codecs", [])) - 1),
    )


def _check_files(folder: pathlib.Path, encoding: _Encoding) -> None:
    """Raise ImageFileError for links in a folder, and for chunks that would take more memory than they may."""
    for directory, folders, files in os.walk(folder):
        path = pathlib.Path(directory)
        for name in folders:
            if (path / name).is_symlink():
                raise ImageFileError(f"{name} in it is a link, which is not read")
        for name in files:
            status = (path / name).lstat()
            _check_file(path / name, status, 2**63)
            if _CHUNK_NAME.fullmatch(name) and (encoding.blosc or encoding.per_shard):
                _check_chunk_file(path / name, status.st_size, encoding)
            elif _CHUNK_NAME.fullmatch(name):
                _check_file(path / name, status, encoding.max_bytes)


def _check_chunk_file(path: pathlib.Path, size: int, encoding: _Encoding) -> None:
    with path.open("rb") as file:
        chunks = _shard_index(file, size, encoding) if encoding.per_shard else np.array([[0, size]], np.uint64)
        start, length = chunks.T
        damaged = (length > encoding.max_bytes).any() or (start > size).any() or (start + length > size).any()
        for offset in start if encoding.blosc and not damaged else ():
            file.seek(int(offset) + 4)  # the header's number of bytes that the chunk decodes to
            damaged |= int.from_bytes(file.read(4), "little") > encoding.max_bytes
    if damaged:
        raise ImageFileError(f"damaged: {path.name} has chunks that are larger than it or than their pixels")


def _shard_index(file: BinaryIO, size: int, encoding: _Encoding) -> np.ndarray:
    """Start and length of each chunk that a shard has, uint64 [chunks, 2]."""
    file.seek(max(size - encoding.index_bytes, 0) if encoding.index_at_end else 0)
    index = np.frombuffer(file.read(16 * encoding.per_shard).ljust(16 * encoding.per_shard), "<u8").reshape(-1, 2)
    return index[(index != _MISSING).any(axis=1)]


def _pixels(array: Any, selection: tuple[int | slice, ...], number: int) -> np.ndarray:
    try:
        pixels = array[(*selection, ...)].read().result()
    except Exception as error:
        raise ImageFileError(f"page {number}: {_damage(error)}") from error
    return np.ascontiguousarray(np.moveaxis(pixels, 0, -1) if pixels.ndim == 3 else pixels)
