"""Operations that have several formulations behind one name.

An operation chooses its formulation by the platform that it is traced for (see `target`) and by the shapes. Its
docstring says which it chooses, and which alternatives were slower. All formulations of an operation give the same
numbers within rounding; tests compare them with those of `target(PLAIN)`.
"""

from hep2jax.ops.convolution import conv2d, depthwise_conv2d, doubled_conv2d
from hep2jax.ops.dihedral import dihedral_views, mean_of_views
from hep2jax.ops.lanes import AnyImage, Image, stage
from hep2jax.ops.norms import PerGroup, moments, norm_pool, relu, scale_and_shift
from hep2jax.ops.pooled_convolution import conv_pool
from hep2jax.ops.pooling import max_pool
from hep2jax.ops.targets import PLAIN, Target, current, target
from hep2jax.ops.upsampling import depth_to_space, interpolation_matrix, space_to_depth, upsample
from hep2jax.ops.warp import crops

__all__ = [
    "PerGroup",
    "PLAIN",
    "AnyImage",
    "Image",
    "Target",
    "conv2d",
    "conv_pool",
    "crops",
    "current",
    "depth_to_space",
    "depthwise_conv2d",
    "dihedral_views",
    "doubled_conv2d",
    "interpolation_matrix",
    "max_pool",
    "mean_of_views",
    "moments",
    "norm_pool",
    "relu",
    "scale_and_shift",
    "space_to_depth",
    "stage",
    "target",
    "upsample",
]
