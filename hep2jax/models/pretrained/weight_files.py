"""Reads weight files as {name: array}: safetensors, and PyTorch's two formats without PyTorch or running pickles.

A pickle can call any function when it is loaded. The unpickler here knows the few names that a dictionary of tensors
needs, builds descriptions of the tensors from them, and refuses every other name before anything is called.
"""

import collections
import dataclasses
import io
import math
import pickle
import pickletools
import zipfile
from typing import Any, cast

import numpy as np
from safetensors import numpy as safetensors

from hep2jax.errors import UsageError

_ZIP_HEAD = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_HEAD = pickle.dumps(_LEGACY_MAGIC, protocol=2)
_LEGACY_PROTOCOL = 1001
_MAX_TUPLES = 20_000
_ELEMENT_TYPES = {"FloatStorage": "<f4", "HalfStorage": "<f2", "DoubleStorage": "<f8", "LongStorage": "<i8"}


def parse(data: bytes, source: str) -> dict[str, np.ndarray]:
    """The tensors of a weight file, by name; read-only views where the format allows.

    Args:
        data: content of the file: safetensors, or a state dict saved by `torch.save` (the zip archive of PyTorch 1.6
            and later, or the stream of earlier versions, in which the classic ImageNet weights are published).
        source: name of the file, for messages.

    Raises:
        UsageError: the file has another format, is damaged, or holds more than tensors by name.
    """
    if data.startswith(_ZIP_HEAD):
        read = _read_zip
    elif data.startswith(_LEGACY_HEAD):
        read = _read_legacy
    elif data[8:9] == b"{":
        read = safetensors.load
    else:
        raise UsageError(
            f"{source}: neither safetensors nor a file of torch.save; export the state dict as one of them"
        )
    try:
        return read(data)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error
    except Exception as error:  # a damaged pickle or archive can raise anything
        raise UsageError(
            f"{source}: damaged or incomplete ({type(error).__name__}: {error}); download it again"
        ) from error


@dataclasses.dataclass
class _Storage:
    """The numbers of one or more tensors. `numbers` is read from the file after the pickle."""

    element_type: str
    count: int
    numbers: np.ndarray | None = None

    def fill(self, data: bytes, offset: int = 0) -> int:
        """Read the numbers from `data`; returns the offset after them."""
        self.numbers = np.frombuffer(data, self.element_type, self.count, offset)
        return offset + self.numbers.nbytes


@dataclasses.dataclass
class _Tensor:
    """The place of a tensor in its storage; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        numbers = self.storage.numbers
        assert numbers is not None
        reach = sum((side - 1) * step for side, step in zip(self.shape, self.strides, strict=True))
        if min((self.offset, *self.shape, *self.strides)) < 0 or self.offset + reach >= len(numbers):
            raise ValueError("a tensor reaches beyond its storage")
        if math.prod(self.shape) > len(numbers):
            raise ValueError("a tensor has more elements than its storage")
        steps = [step * numbers.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, steps, writeable=False)


def _tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _Tensor:
    """Takes the arguments of `_rebuild_tensor_v2`; those about gradients and hooks are ignored."""
    return _Tensor(storage, offset, shape, strides)


def _parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


def _check_pickle(stream: io.BytesIO) -> None:
    """Raise ValueError for a pickle that would take memory or stack without bounds; the stream stays where it is.

    The unpickler keeps a table as long as the largest index of its memo, and hashes nested tuples recursively.
    """
    start, tuples = stream.tell(), 0
    for count, (code, argument, _) in enumerate(pickletools.genops(stream), start=1):
        tuples += "TUPLE" in code.name or code.name == "FROZENSET"
        if "PUT" in code.name and not 0 <= int(argument or 0) <= count or tuples > _MAX_TUPLES:
            raise ValueError("its pickle is not one of a dictionary of tensors")
    stream.seek(start)


class _TensorUnpickler(pickle.Unpickler):
    """Builds dictionaries, numbers, strings and `_Tensor`s, and nothing else."""

    _KNOWN = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor"): _tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
    }

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, encoding="utf-8")
        self._stream = stream
        self.storages: dict[str, _Storage] = {}

    def load(self) -> Any:
        _check_pickle(self._stream)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _ELEMENT_TYPES:
            return _ELEMENT_TYPES[name]
        if (module, name) not in self._KNOWN:
            raise UsageError(
                f"refers to {module}.{name}, which a dictionary of tensors does not need: refused, nothing was run; "
                "save only the state dict, or save it as safetensors"
            )
        return self._KNOWN[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, element_type, key, _, count, *views = pid
        if kind != "storage" or any(view is not None for view in views):
            raise UsageError("holds views of storages, which are not supported; save its state dict again")
        return self.storages.setdefault(key, _Storage(element_type, count))


def _read_zip(data: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > len(data):
            raise UsageError("is compressed, which torch.save never does; save its state dict again")
        names = archive.namelist()
        (pickled,) = (name for name in names if name.count("/") == 1 and name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise UsageError("was written on a big-endian machine; save it again on a little-endian one")
        unpickler = _TensorUnpickler(io.BytesIO(archive.read(pickled)))
        tensors = unpickler.load()
        for key, storage in unpickler.storages.items():
            storage.fill(archive.read(f"{folder}data/{key}"))
    return _arrays(tensors)


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
    """Read pickles of a magic number, the version, the byte order, the dictionary and the keys of the storages.

    The length and the numbers of each storage follow them.
    """
    stream = io.BytesIO(data)
    _, version, system = (_TensorUnpickler(stream).load() for _ in range(3))
    if version != _LEGACY_PROTOCOL or not system["little_endian"]:
        raise UsageError("has an unknown version or byte order; save its state dict again")
    unpickler = _TensorUnpickler(stream)
    tensors = unpickler.load()
    keys = _TensorUnpickler(stream).load()
    offset = stream.tell()
    for key in keys:
        storage = unpickler.storages[key]
        if int.from_bytes(data[offset : offset + 8], "little") != storage.count:
            raise ValueError("the length of a storage differs from what its tensors state")
        offset = storage.fill(data, offset + 8)
    return _arrays(tensors)


def _arrays(tensors: Any) -> dict[str, np.ndarray]:
    named = cast(dict[Any, Any], tensors) if isinstance(tensors, dict) else {"": tensors}
    if not all(isinstance(value, _Tensor) for value in named.values()):
        raise UsageError("is not a dictionary of tensors by name; save only the network's state_dict()")
    return {str(name): tensor.array() for name, tensor in named.items()}
