import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx, traverse_util

from hep2jax.config import ModelConfig
from hep2jax.errors import UsageError
from hep2jax.models import JointOutput, build


def abstract(num_outputs: int = 7, **settings) -> nnx.Module:
    config = ModelConfig(name="joint", **settings)
    return nnx.eval_shape(
        lambda: build(config, num_outputs=num_outputs, in_channels=1, rngs=nnx.Rngs(0), dtype=jnp.dtype(jnp.float32))
    )


def count(module: nnx.Module) -> dict[str, int]:
    params = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    return {name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(part)) for name, part in params.items()}


def trace(shape: tuple[int, ...], **settings) -> JointOutput:
    graphdef, state = nnx.split(abstract(width=0.01, **settings))

    def run(state, image):
        return nnx.merge(graphdef, state)(image, train=False)

    return jax.eval_shape(run, state, jax.ShapeDtypeStruct(shape, jnp.float32))


def conv(inputs: int, outputs: int) -> int:
    """Parameters of a 3x3 convolution without bias and its norm."""
    return 9 * inputs * outputs + 2 * outputs


def test_published_size():
    down = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 512)]
    up = [(1024, 512, 256), (512, 256, 128), (256, 128, 64), (128, 64, 64)]
    unet = sum(conv(a, b) + conv(b, b) for a, b in down) + sum(conv(a, b) + conv(b, c) for a, b, c in up) + 65
    assert unet == 17_261_825  # the public bilinear U-Net for one channel and one class
    heads = sum((294_912 + 1) * 512 + (512 + 1) * outputs for outputs in (7, 1))
    sizes = count(abstract(flatten_side=384))
    assert sizes["down"] + sizes["up"] + sizes["mask"] == unet
    assert sum(sizes.values()) == unet + heads == 319_256_841


@pytest.mark.parametrize(("flatten_side", "side"), [(0, 48), (64, 64)])
def test_output_shapes(flatten_side: int, side: int):
    output = trace((3, side, side, 1), flatten_side=flatten_side)
    assert [leaf.shape for leaf in output] == [(3, side, side, 1), (3, 7), (3,)]
    assert {leaf.dtype for leaf in output} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(("flatten_side", "side", "message"), [(0, 40, "multiples of 16"), (64, 80, "flatten_side=64")])
def test_unfit_patches_are_refused(flatten_side: int, side: int, message: str):
    with pytest.raises(UsageError, match=message):
        trace((1, side, side, 1), flatten_side=flatten_side)


def test_what_depends_on_the_patterns_is_named_head():
    some, more = (flat_shapes(num_outputs) for num_outputs in (7, 8))
    assert {path for path in some if some[path] != more[path]} == {
        ("head", "linear", "bias"),
        ("head", "linear", "kernel"),
    }


def flat_shapes(num_outputs: int) -> dict[tuple, tuple[int, ...]]:
    params = nnx.to_pure_dict(nnx.state(abstract(num_outputs, width=0.01), nnx.Param))
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(params).items()}
