import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, traverse_util

from hep2jax.config import LossConfig, ModelConfig
from hep2jax.errors import UsageError
from hep2jax.models import SEGMENTERS, SegmenterOutput, Settings, build
from hep2jax.training import losses

NAMES = tuple(SEGMENTERS)
COMPILED = [name if name == "unet" else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
"""For tests that compile: the larger networks are in the slow lane."""
FLOAT32, BFLOAT16 = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)
CLASSES = 9
BATCH, SIZE = 4, 64

# Compiling takes longer here than running, so LLVM does not optimise.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def abstract(name: str, *, width: float = 1.0, in_channels: int = 1, **settings) -> nnx.Module:
    """The network without memory or arithmetic: shapes only."""
    config = ModelConfig(name=name, width=width, **settings)

    def make():
        return build(config, num_outputs=CLASSES, in_channels=in_channels, rngs=nnx.Rngs(0), dtype=FLOAT32)

    return nnx.eval_shape(make)


def flat_params(module: nnx.Module) -> dict[tuple, jax.Array]:
    return traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(module, nnx.Param)))


def trace(name: str, shape: tuple[int, ...], *, train: bool, **settings) -> SegmenterOutput:
    module = abstract(name, **settings)
    graphdef, state = nnx.split(module)

    def run(state, image):
        return nnx.merge(graphdef, state)(image, train=train)

    return jax.eval_shape(run, state, jax.ShapeDtypeStruct(shape, jnp.float32))


class Network(NamedTuple):
    """A `small` network and its compiled steps, made once for all tests."""

    params: dict
    stats: dict
    step: object
    predict: object


def small(name: str, dtype: jnp.dtype, num_outputs: int = CLASSES) -> nnx.Module:
    """Minimal width, and one residual module in each stage: compiling 88 layers would take most of the time."""
    depths = {"depths": (1, 1, 1, 1)} if name in ("fcrn", "dsfcn") else {}
    settings = Settings(num_outputs=num_outputs, width=0.01, dtype=dtype)
    return SEGMENTERS[name](settings, **depths, rngs=nnx.Rngs(0))


@functools.cache
def network(name: str) -> Network:
    graphdef, _, _ = nnx.split(nnx.eval_shape(lambda: small(name, FLOAT32)), nnx.Param, nnx.BatchStat)

    @quick_jit
    def initial():
        _, *states = nnx.split(small(name, FLOAT32), nnx.Param, nnx.BatchStat)
        return [nnx.to_pure_dict(state) for state in states]

    def loss(params, stats, image, labels):
        module = nnx.merge(graphdef, params, stats)
        output = module(image, train=True)
        terms = losses.segmentation_loss(output, labels, jnp.ones(CLASSES), LossConfig())
        return losses.combine(terms, LossConfig()), nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

    def predict(params, stats, image):
        return nnx.merge(graphdef, params, stats)(image, train=False)

    step = quick_jit(jax.value_and_grad(loss, has_aux=True))
    return Network(*initial(), step, quick_jit(predict))


@pytest.fixture(scope="module")
def batch() -> tuple[jax.Array, jax.Array]:
    """Discs: bright ones are pattern 3, striped ones pattern 7."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    image = 0.05 * rng.normal(size=(BATCH, SIZE, SIZE))
    labels = np.zeros((BATCH, SIZE, SIZE), np.uint8)
    textures = {3: np.ones((SIZE, SIZE)), 7: (columns % 4 < 2).astype(float)}
    for index in range(BATCH):
        for label, texture in textures.items():
            row, column = rng.integers(14, SIZE - 14, 2)
            disc = (rows - row) ** 2 + (columns - column) ** 2 < 12**2
            image[index][disc] = texture[disc]
            labels[index][disc] = label
    return jnp.asarray(image[..., None], jnp.float32), jnp.asarray(labels)


# --- Published size. Kernels have no bias but in heads; the norm after a convolution to C channels has 2 C parameters.


def conv(side: int, inputs: int, outputs: int) -> int:
    """Parameters of a convolution and its norm."""
    return side**2 * inputs * outputs + 2 * outputs


def heads(*inputs: int) -> int:
    return sum((channels + 1) * CLASSES for channels in inputs)


def double_convs(levels: list[tuple[int, int]]) -> int:
    return sum(conv(3, a, b) + conv(3, b, b) for a, b in levels)


def trunk(depths: tuple[int, ...], middle) -> int:
    """Stem, projections, and modules whose layers between the 1x1 ones are counted by `middle(stage channels)`."""
    total, inputs = conv(7, 1, 64), 64
    for depth, channels in zip(depths, (256, 512, 1024, 2048), strict=True):
        total += conv(1, inputs, channels)  # projection
        total += conv(1, inputs, channels // 4) + (depth - 1) * conv(1, channels, channels // 4)
        total += depth * (middle(channels) + conv(1, channels // 4, channels))
        inputs = channels
    return total


def size_of_fcn() -> int:
    # VGG-16's trunk holds 14,714,688 parameters with RGB and biases: less 2 * 9 * 64 for grey, the biases turn into
    # norms of twice as many.
    pairs = [(1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 512)]
    pairs += [(512, 512)] * 5
    return sum(conv(3, a, b) for a, b in pairs) + conv(3, 512, 1024) + conv(1, 1024, 1024) + heads(256, 512, 1024)


def size_of_fcrn() -> int:
    sand_clock = lambda c: conv(3, c // 4, c // 8) + conv(3, c // 8, c // 4)  # noqa: E731
    return trunk((3, 4, 11, 3), sand_clock) + heads(512, 1024, 2048)


def size_of_dsfcn() -> int:
    # ResNet-50 without its classifier holds 23,508,032 parameters with RGB, 2 * 49 * 64 less with grey.
    encoder = trunk((3, 4, 6, 3), lambda c: conv(3, c // 4, c // 4))
    assert encoder == 23_508_032 - 2 * 49 * 64
    steps = sum(9 * 256 * 4 * 256 + skip * 256 + 2 * 256 for skip in (1024, 512, 256))
    last = (9 * 256 + 1) * 16 * CLASSES
    return encoder + conv(1, 2048, 256) + steps + last + heads(256, 512, 1024)


def size_of_unet() -> int:
    down = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
    up = [(1024, 512), (512, 256), (256, 128), (128, 64)]
    lifts = sum(4 * a * b for a, b in up)
    return double_convs(down) + lifts + double_convs(up) + heads(64)


@pytest.mark.parametrize(
    ("name", "derived", "total"),
    [
        ("fcn", size_of_fcn, 20_505_179),
        ("fcrn", size_of_fcrn, 29_125_019),
        ("dsfcn", size_of_dsfcn, 31_912_811),
        ("unet", size_of_unet, 31_036_041),
    ],
)
def test_published_size(name, derived, total):
    assert derived() == total
    assert sum(math.prod(leaf.shape) for leaf in flat_params(abstract(name)).values()) == total


def test_the_trunk_of_dsfcn_can_be_shallower():
    # ResNet-34 without its classifier holds 21,284,672 parameters with RGB.
    shallow = sum(math.prod(leaf.shape) for leaf in flat_params(abstract("dsfcn", depth=34)).values())
    laterals = (1024 + 512 + 256 - 256 - 128 - 64) * 256
    sides = heads(256, 512, 1024) - heads(64, 128, 256)
    trunks = 23_508_032 - 21_284_672 + conv(1, 2048, 256) - conv(1, 512, 256)
    assert size_of_dsfcn() - shallow == trunks + laterals + sides


def test_an_rgb_image_adds_two_channels_of_first_kernels():
    count = {
        c: sum(math.prod(leaf.shape) for leaf in flat_params(abstract("fcn", in_channels=c)).values()) for c in (1, 3)
    }
    assert count[3] - count[1] == 2 * 9 * 64


@pytest.mark.parametrize(
    ("name", "layers"),
    # 13 convolutions + conv6, conv7 + 3 scores; 88; ResNet-50's 49 + 1 + 3 x 2 + 1 + 3 side heads; 23 of the U-Net.
    [("fcn", 13 + 2 + 3), ("fcrn", 88), ("dsfcn", 49 + 1 + 6 + 1 + 3), ("unet", 23)],
)
def test_number_of_weighted_layers(name, layers):
    """As ResNet counts: the projections of shortcuts do not."""
    kernels = [path for path in flat_params(abstract(name)) if path[-1] == "kernel"]
    assert sum("projection" not in path for path in kernels) == layers


def test_the_trunk_of_fcn_is_vgg16():
    shapes = [
        leaf.shape for path, leaf in flat_params(abstract("fcn")).items() if path[0] == "stages" and "kernel" in path
    ]
    assert len(shapes) == 13
    assert {shape[:2] for shape in shapes} == {(3, 3)}
    assert sorted(shape[3] for shape in shapes) == sorted([64] * 2 + [128] * 2 + [256] * 3 + [512] * 6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [0.01, 0.3])
def test_narrow_networks_have_multiples_of_8_channels(name, width):
    norms = [leaf for path, leaf in flat_params(abstract(name, width=width)).items() if path[-1] == "scale"]
    assert all(leaf.shape[0] % 8 == 0 and leaf.shape[0] >= 8 for leaf in norms)
    if width == 0.01:
        assert max(leaf.shape[0] for leaf in norms) <= 24


@pytest.mark.parametrize("name", NAMES)
def test_what_depends_on_the_patterns_is_named_head(name):
    outputs = (CLASSES, CLASSES + 1)
    some, more = (flat_params(nnx.eval_shape(lambda k=k: small(name, FLOAT32, num_outputs=k))) for k in outputs)
    differ = {path for path in some if some[path].shape != more[path].shape}
    assert differ
    assert all(path[0].startswith("head") for path in differ)


# --- Shapes and refusals, at trace time.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("train", "in_channels"), [(True, 1), (False, 3)])
def test_output_shapes(name, train, in_channels):
    output = trace(name, (2, 96, 160, in_channels), train=train, in_channels=in_channels)
    strides = (4, 8, 16) if train and name == "dsfcn" else ()
    shapes = [(2, 24, 40, 16, CLASSES) if strides else (2, 96, 160, CLASSES)]
    shapes += [(2, 96 // stride, 160 // stride, CLASSES) for stride in strides]
    assert [logits.shape for logits in (output.logits, *output.side_logits)] == shapes
    assert {logits.dtype for logits in (output.logits, *output.side_logits)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(2, 40, 64, 1), (2, 64, 72, 1), (2, 0, 64, 1), (2, 64, 64, 3), (64, 64, 1)])
@pytest.mark.usefixtures("unchecked")
def test_unfit_images_are_refused(name, shape):
    with pytest.raises(UsageError, match="must be"):
        trace(name, shape, train=False)


def test_the_stride_of_the_configuration_check_fits_every_network():
    assert {name: SEGMENTERS[name].stride for name in NAMES} == {"fcn": 32, "fcrn": 32, "dsfcn": 32, "unet": 16}


def test_an_unknown_name_is_refused():
    with pytest.raises(UsageError, match="model.name='vgg'"):
        build(ModelConfig(name="vgg"), num_outputs=2, in_channels=1, rngs=nnx.Rngs(0), dtype=FLOAT32)


@pytest.mark.parametrize("name", COMPILED)
def test_dropout_needs_rngs_in_training_only(name):
    with pytest.raises(ValueError, match="rngs"):
        trace(name, (1, 64, 64, 1), train=True, dropout=0.5)
    assert trace(name, (1, 64, 64, 1), train=False, dropout=0.5).logits.shape == (1, 64, 64, CLASSES)


@pytest.mark.parametrize("name", NAMES)
def test_state_is_parameters_and_statistics_in_float32(name):
    """`nnx.split` refuses to leave anything over."""
    _, params, stats = nnx.split(abstract(name, dropout=0.5), nnx.Param, nnx.BatchStat)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, stats))} == {FLOAT32}


# --- Training, on the smallest networks.


@pytest.mark.parametrize("name", COMPILED)
def test_gradient_reaches_every_parameter(name, batch):
    """At the start a residual branch is 0 by its last scale; with all scales at 1 every tensor gets a gradient."""
    net = network(name)
    flat = traverse_util.flatten_dict(net.params)
    alive = {path: jnp.ones_like(leaf) if path[-1] == "scale" else leaf for path, leaf in flat.items()}
    for start, may_rest in ((flat, {"branch"}), (alive, set())):
        _, grads = net.step(traverse_util.unflatten_dict(start), net.stats, *batch)
        grads = traverse_util.flatten_dict(grads)
        assert all(np.isfinite(leaf).all() for leaf in grads.values())
        resting = [path for path, leaf in grads.items() if not np.any(leaf)]
        assert [path for path in resting if not may_rest & set(path)] == []


@pytest.mark.parametrize("name", COMPILED)
def test_overfits_a_batch_and_evaluates_with_its_averages(name, batch):
    net = network(name)
    optimizer = optax.adam(0.04)
    params, stats, state = net.params, net.stats, optimizer.init(net.params)

    @jax.jit
    def update(params, state, grads):
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state

    for _ in range(60):
        (loss, stats), grads = net.step(params, stats, *batch)
        params, state = update(params, state, grads)
    right = net.predict(params, stats, batch[0]).logits.argmax(-1) == batch[1]
    # At first log(9) = 2.2 for each head, times its weight; coarse side heads cannot reach 0 at the borders of cells.
    assert float(loss) < 0.25
    assert np.mean(right) > 0.85
    assert np.mean(right[np.asarray(batch[1]) > 0]) > 0.8


@pytest.mark.parametrize("name", COMPILED)
def test_an_example_does_not_see_its_neighbours_in_evaluation(name, batch):
    net = network(name)
    image = batch[0]
    alone = net.predict(net.params, net.stats, image.at[1:].set(jnp.nan)).logits
    np.testing.assert_array_equal(alone[0], net.predict(net.params, net.stats, image).logits[0])
    assert np.isnan(alone[1:]).all()


@pytest.mark.parametrize("name", COMPILED)
def test_bfloat16_stays_close_to_float32(name, batch):
    net = network(name)
    graphdef, _, _ = nnx.split(nnx.eval_shape(lambda: small(name, BFLOAT16)), nnx.Param, nnx.BatchStat)

    @quick_jit
    def predict(params, stats, image):
        return nnx.merge(graphdef, params, stats)(image, train=False).logits

    exact, rounded = net.predict(net.params, net.stats, batch[0]).logits, predict(net.params, net.stats, batch[0])
    assert rounded.dtype == jnp.float32
    assert np.abs(rounded - exact).max() < 0.15 * np.std(exact)


@pytest.mark.slow
def test_bfloat16_gradients_are_finite_float32(batch):
    """`dsfcn` holds every kind of layer."""
    graphdef, params, stats = nnx.split(small("dsfcn", BFLOAT16), nnx.Param, nnx.BatchStat)

    def loss(params):
        output = nnx.merge(graphdef, params, nnx.to_pure_dict(stats))(batch[0], train=True)
        terms = losses.segmentation_loss(output, batch[1], jnp.ones(CLASSES), LossConfig(dice_weight=1.0))
        return losses.combine(terms, LossConfig(dice_weight=1.0))

    value, grads = quick_jit(jax.value_and_grad(loss))(nnx.to_pure_dict(params))
    assert 2.0 < float(value) < 8.0
    for leaf in jax.tree.leaves(grads):
        assert leaf.dtype == jnp.float32
        assert np.isfinite(leaf).all()


def test_blocks_of_pixels_keep_the_size_of_the_logits():
    output = trace("unet", (1, 64, 64, 1), train=False, pixel_block=2)
    assert output.logits.shape == (1, 64, 64, CLASSES)
    with pytest.raises(UsageError, match="multiples of 32"):
        trace("unet", (1, 48, 48, 1), train=False, pixel_block=2)
    with pytest.raises(UsageError, match=r"model.pixel_block=2: gao"):
        abstract("gao", pixel_block=2)
