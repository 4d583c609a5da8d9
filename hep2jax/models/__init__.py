"""The networks; `build` makes the one that a configuration names."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx

from hep2jax import config as configs
from hep2jax.config import ModelConfig
from hep2jax.errors import UsageError
from hep2jax.models.classifier import Classifier, ClassifierOutput
from hep2jax.models.dacn import Dacn
from hep2jax.models.dcae import Dcae
from hep2jax.models.dcrnet import DcrNet
from hep2jax.models.dri import Dri
from hep2jax.models.dsfcn import Dsfcn
from hep2jax.models.efficientnet import EfficientNetLite0, EfficientNetLite1, EfficientNetLite2
from hep2jax.models.fcn import Fcn
from hep2jax.models.fcrn import Fcrn
from hep2jax.models.gao import Gao
from hep2jax.models.joint import JointOutput, JointUNet
from hep2jax.models.mil import Mil, TileOutput
from hep2jax.models.network import ImageNetwork, Settings
from hep2jax.models.resnet import Dsrn, ResNet
from hep2jax.models.segmenter import Segmenter, SegmenterOutput
from hep2jax.models.unet import UNet
from hep2jax.models.vggcell import VggCell

__all__ = [
    "BAG_READERS",
    "CLASSIFIERS",
    "JOINT_READERS",
    "NETWORKS",
    "SEGMENTERS",
    "Classifier",
    "ClassifierOutput",
    "ImageNetwork",
    "JointOutput",
    "Segmenter",
    "SegmenterOutput",
    "Settings",
    "TileOutput",
    "build",
]

SEGMENTERS: dict[str, Callable[..., Segmenter]] = {"fcn": Fcn, "fcrn": Fcrn, "dsfcn": Dsfcn, "unet": UNet}
"""Networks that label the pixels of fields, by `model.name`."""

CLASSIFIERS: dict[str, type[Classifier]] = {
    "gao": Gao,
    "dacn": Dacn,
    "vggcell": VggCell,
    "resnet": ResNet,
    "dsrn": Dsrn,
    "dcrnet": DcrNet,
    "dri": Dri,
    "dcae": Dcae,
    "efficientnet_lite0": EfficientNetLite0,
    "efficientnet_lite1": EfficientNetLite1,
    "efficientnet_lite2": EfficientNetLite2,
}
"""Networks that classify the pattern of a cell, by `model.name`."""

BAG_READERS: dict[str, Callable[..., Mil]] = {"mil": Mil}
"""Networks that read the tiles of a specimen, by `model.name`."""

JOINT_READERS: dict[str, Callable[..., JointUNet]] = {"joint": JointUNet}
"""Networks that segment, classify the pattern and grade the intensity at once, by `model.name`."""


NETWORKS: dict[str, Callable[..., ImageNetwork]] = {
    **SEGMENTERS,
    **CLASSIFIERS,
    **BAG_READERS,
    **JOINT_READERS,
}
"""All networks, by `model.name`."""


def build(
    config: ModelConfig,
    *,
    num_outputs: int,
    in_channels: int,
    rngs: nnx.Rngs,
    dtype: jnp.dtype,
) -> ImageNetwork:
    """Make a network with fresh parameters.

    Args:
        config: name, width, depth, block of pixels and drop rate.
        num_outputs: the number of patterns; for a segmenter one more, because channel 0 is background.
        in_channels: channels of the image, 1 or 3.
        rngs: needs the stream `params` (or a default one).
        dtype: compute dtype, float32 or bfloat16; parameters and BatchNorm statistics are float32 in either case.

    Returns:
        A module that splits into `nnx.Param` and `nnx.BatchStat` with nothing left over.

    Raises:
        UsageError: there is no network of this name, or not with this depth or this block of pixels.
    """
    configs.check_choice("model.name", config.name, tuple(NETWORKS))
    if config.pixel_block > 1 and config.name not in SEGMENTERS:
        raise UsageError(f"model.pixel_block={config.pixel_block}: {config.name} does not label pixels")
    pixels = config.pixel_block**2
    settings = Settings(
        num_outputs=num_outputs * pixels,
        in_channels=in_channels * pixels,
        pixel_block=config.pixel_block,
        width=config.width,
        depth=config.depth,
        flatten_side=config.flatten_side,
        dropout=config.dropout,
        regions=config.regions,
        dtype=dtype,
    )
    return NETWORKS[config.name](settings, rngs=rngs)
