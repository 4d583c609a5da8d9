import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util
from jax import lax

from hep2jax.config import ModelConfig
from hep2jax.errors import UsageError
from hep2jax.models import CLASSIFIERS, Classifier, ClassifierOutput, Settings, build
from hep2jax.models.dcae import gradient_magnitude
from hep2jax.models.gao import scaled_tanh
from hep2jax.models.layers import region_averages
from hep2jax.training.state import leaves_by_path

NAMES = tuple(name for name in CLASSIFIERS if name not in ("efficientnet_lite1", "efficientnet_lite2"))
"""Without the larger sizes of `efficientnet_lite0`, which differ from it in two numbers."""
QUICK = ("gao", "resnet", "dcae")
COMPILED = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
"""For tests that compile: the larger networks are in the slow lane."""
FLOAT32, BFLOAT16 = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)
PATTERNS = 6
SIDES = {"gao": 78, "dacn": 80, "dcae": 80}
"""Input side in these tests, 32 for the networks not listed."""
SIDE_HEADS = {"dsrn": 2, "dri": 2}
RECONSTRUCTED = {"dacn": 1, "dcae": 2}
"""Channels of the reconstruction over those of the image."""

# Compiling takes longer here than running, so LLVM does not optimise.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def made(
    name: str, dtype: jnp.dtype = FLOAT32, num_outputs: int = PATTERNS, in_channels: int = 1, **settings
) -> Classifier:
    defaults = {"depth": 18} if name in ("resnet", "dsrn") else {}
    config = ModelConfig(name=name, **{"width": 0.01, **defaults, **settings})
    network = build(config, num_outputs=num_outputs, in_channels=in_channels, rngs=nnx.Rngs(0), dtype=dtype)
    assert isinstance(network, Classifier)
    return network


@functools.cache
def abstract(name: str, **settings) -> Classifier:
    """The network without memory or arithmetic: shapes only."""
    return nnx.eval_shape(lambda: made(name, **settings))


def side_of(name: str) -> int:
    return SIDES.get(name, 32)


def flat_params(module: nnx.Module) -> dict[str, jax.Array]:
    return leaves_by_path(nnx.to_pure_dict(nnx.state(module, nnx.Param)))


def count(module: nnx.Module) -> int:
    return sum(math.prod(leaf.shape) for leaf in flat_params(module).values())


def trace(module: nnx.Module, shape: tuple[int, ...], *, method: str = "__call__", **arguments):
    graphdef, state = nnx.split(module)

    def run(state, image):
        return getattr(nnx.merge(graphdef, state), method)(image, **arguments)

    return jax.eval_shape(run, state, jax.ShapeDtypeStruct(shape, jnp.float32))


class Network(NamedTuple):
    """A small network and its functions, compiled once for all tests."""

    params: dict
    stats: dict
    gradients: Callable
    """Of the naming and, where there is one, of the reconstruction."""
    predict: Callable
    """Logits and features."""


def small(name: str, dtype: jnp.dtype = FLOAT32) -> Classifier:
    """Minimal width, and one block in each stage of the deep networks: compiling would take most of the time."""
    shallow = {
        "dcrnet": {"depths": (1, 1, 1, 1)},
        "dri": {"modules": 1},
        "efficientnet_lite0": {"repeats": (1,) * 7},
    }.get(name, {})
    settings = Settings(num_outputs=PATTERNS, width=0.01, depth=18, dtype=jnp.dtype(dtype))
    return CLASSIFIERS[name](settings, rngs=nnx.Rngs(0), **shallow.get(name, {}))


@functools.cache
def network(name: str) -> Network:
    graphdef, _, _ = nnx.split(nnx.eval_shape(lambda: small(name)), nnx.Param, nnx.BatchStat)

    @quick_jit
    def initial():
        _, *states = nnx.split(small(name), nnx.Param, nnx.BatchStat)
        return [nnx.to_pure_dict(state) for state in states]

    def named(params, stats, image, labels):
        output = nnx.merge(graphdef, params, stats)(image, train=True)
        one_hot = jax.nn.one_hot(labels, PATTERNS)
        return sum(-(one_hot * jax.nn.log_softmax(x)).sum() for x in (output.logits, *output.side_logits))

    def reconstructed(params, stats, image, labels):
        module = nnx.merge(graphdef, params, stats)
        return jnp.square(module(image, train=True).reconstruction - module.target(image)).sum()

    losses = (named, reconstructed) if name in RECONSTRUCTED else (named,)
    gradients = quick_jit(lambda *arguments: [jax.grad(loss)(*arguments) for loss in losses])

    @quick_jit
    def predict(params, stats, image):
        module = nnx.merge(graphdef, params, stats)
        return module(image, train=False).logits, module.features(image)

    return Network(*initial(), gradients, predict)


def cells(name: str, number: int = 4) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(number, side_of(name), side_of(name), 1))
    return jnp.asarray(image, jnp.float32), jnp.arange(number) % PATTERNS


# --- Published sizes.


def test_gao_has_the_published_layers_and_parameters():
    shapes = {path: leaf.shape for path, leaf in flat_params(abstract("gao", width=1.0)).items()}
    assert shapes == {
        "layers/0/conv/kernel": (7, 7, 1, 6),
        "layers/0/bias": (6,),
        "layers/1/conv/kernel": (4, 4, 6, 16),
        "layers/1/bias": (16,),
        "layers/2/conv/kernel": (3, 3, 16, 32),
        "layers/2/bias": (32,),
        "hidden/kernel": (288, 150),
        "hidden/bias": (150,),
        "head/linear/kernel": (150, 6),
        "head/linear/bias": (6,),
    }
    assert count(abstract("gao", width=1.0)) == 300 + 1552 + 4640 + 43_350 + 906 == 50_748


def test_gao_computes_what_the_published_order_of_its_layers_gives():
    """Convolution, bias, activation, pool: the network pools before it adds and bends."""
    net, (image, _) = network("gao"), cells("gao", 2)
    layers = net.params["layers"]
    params = {
        **net.params,
        "layers": {i: {**layers[i], "bias": 0.1 * jnp.arange(layers[i]["bias"].size)} for i in layers},
    }

    @quick_jit
    def published(params, x):
        for index, (size, pool) in enumerate(((36, 2), (11, 3), (3, 3))):
            kernel, bias = params["layers"][index]["conv"]["kernel"], params["layers"][index]["bias"]
            x = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = 1.7159 * jnp.tanh(2 / 3 * (x + bias))
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, pool, pool, 1), (1, pool, pool, 1), "VALID")
            assert x.shape[1:3] == (size, size)
        return 1.7159 * jnp.tanh(2 / 3 * (x.reshape(2, -1) @ params["hidden"]["kernel"] + params["hidden"]["bias"]))

    np.testing.assert_allclose(net.predict(params, net.stats, image)[1], published(params, image), atol=1e-5)


def test_the_scaled_tanh_keeps_one():
    np.testing.assert_allclose(scaled_tanh(jnp.array([-1.0, 0.0, 1.0, 100.0])), [-1, 0, 1, 1.7159], atol=1e-4)


@pytest.mark.parametrize(
    # Of the networks for RGB images and ImageNet, without the classifier: torchvision's 11,689,512, 21,797,672 and
    # 25,557,032 less 513,000, 513,000 and 2,049,000.
    ("depth", "trunk"),
    [(18, 11_176_512), (34, 21_284_672), (50, 23_508_032), (0, 23_508_032)],
)
@pytest.mark.parametrize("name", ["resnet", "dsrn"])
def test_residual_networks_have_their_published_size(name, depth, trunk):
    last = 512 if depth in (18, 34) else 2048
    inputs = [last, last // 4, last // 2] if name == "dsrn" else [last]
    heads = sum((channels + 1) * PATTERNS for channels in inputs)
    stem = 64 * (5 * 5 - 7 * 7 * 3)  # 5x5 and grey instead of 7x7 and RGB
    assert count(abstract(name, width=1.0, depth=depth)) == trunk + stem + heads


def test_an_unknown_depth_is_refused():
    with pytest.raises(UsageError, match="model.depth=19: must be 0 or one of 18, 34, 50"):
        abstract("resnet", depth=19)


def test_dacn_has_the_layers_of_the_public_table():
    kernels = {path: leaf.shape for path, leaf in flat_params(abstract("dacn", width=1.0)).items() if "kernel" in path}
    assert sorted(shape for path, shape in kernels.items() if path.startswith("encoder")) == sorted(
        [(7, 7, 1, 16), (5, 5, 16, 32), (3, 3, 32, 64)] + [(3, 3, 64, 64)] * 3
    )
    assert sorted(shape for path, shape in kernels.items() if path.startswith("decoder")) == sorted(
        [(3, 3, 64, 64)] * 3 + [(3, 3, 64, 128), (5, 5, 128, 1)]
    )
    assert kernels["hidden/kernel"] == (5 * 5 * 64, 1024)
    assert kernels["head/linear/kernel"] == (1024, PATTERNS)


@pytest.mark.parametrize("name", NAMES)
def test_narrow_networks_have_multiples_of_8_channels(name):
    params = flat_params(abstract(name, width=0.3))
    inner = [leaf.shape[-1] for path, leaf in params.items() if "head" not in path and "decoder" not in path]
    inner = [channels for channels in inner if channels > 1]  # the images that `dcae` decodes
    assert all(channels % 8 == 0 for channels in inner)
    assert count(abstract(name)) < count(abstract(name, width=0.3)) < count(abstract(name, width=1.0))


@pytest.mark.parametrize("name", NAMES)
def test_what_depends_on_the_patterns_is_named_head(name):
    some, more = (flat_params(abstract(name, num_outputs=number)) for number in (PATTERNS, PATTERNS + 1))
    differ = {path for path in some if some[path].shape != more[path].shape}
    assert differ
    assert differ == {path for path in some if path.startswith("head")}


# --- Shapes and refusals, at trace time.


@pytest.mark.parametrize("name", NAMES)
def test_training_adds_side_logits_and_reconstruction(name):
    side = side_of(name)
    logits = ((3, PATTERNS), jnp.float32)
    output = trace(abstract(name, dtype=BFLOAT16), (3, side, side, 1), train=True)
    assert isinstance(output, ClassifierOutput)
    assert (output.logits.shape, output.logits.dtype) == logits
    assert [(x.shape, x.dtype) for x in output.side_logits] == [logits] * SIDE_HEADS.get(name, 0)
    assert (output.reconstruction is not None) == (name in RECONSTRUCTED)
    if output.reconstruction is not None:
        assert output.reconstruction.shape == (3, side, side, RECONSTRUCTED[name])
        assert output.reconstruction.dtype == jnp.float32
    output = trace(abstract(name), (3, side, side, 1), train=False)
    assert (output.logits.shape, output.side_logits, output.reconstruction) == (logits[0], (), None)


@pytest.mark.parametrize("name", NAMES)
def test_colour_images(name):
    config = ModelConfig(name=name, width=0.01, depth=18 if name in ("resnet", "dsrn") else 0)

    def make():
        return build(config, num_outputs=PATTERNS, in_channels=3, rngs=nnx.Rngs(0), dtype=FLOAT32)

    side = side_of(name)
    output = trace(nnx.eval_shape(make), (2, side, side, 3), train=True)
    assert output.logits.shape == (2, PATTERNS)
    if output.reconstruction is not None:
        assert output.reconstruction.shape[-1] == 3 * RECONSTRUCTED[name]


@pytest.mark.parametrize(
    ("name", "fit", "unfit", "rule"),
    [
        ("gao", (78,), (80, 77), "must be 78"),
        ("dacn", (80,), (78, 96), "must be 80"),
        ("dcae", (80,), (78, 96), "must be 80"),
        ("vggcell", (16, 64, 80), (78, 0), "multiples of 16|at least 16"),
        ("resnet", (16, 78, 80), (8,), "at least 16"),
        ("dsrn", (16, 78, 80), (8,), "at least 16"),
        ("dcrnet", (16, 78, 80), (8,), "at least 16"),
        ("dri", (16, 78, 80), (8,), "at least 16"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_each_network_says_which_images_it_takes(name, fit, unfit, rule):
    for side in fit:
        assert trace(abstract(name), (2, side, side, 1), train=False).logits.shape == (2, PATTERNS)
    for side in unfit:
        for method in ("__call__", "features"):
            with pytest.raises(UsageError, match=rf"{side}x{side} pixels: height and width .*({rule}).*data.crop_size"):
                trace(abstract(name), (2, side, side, 1), method=method, train=False)
    for shape in ((2, fit[0], fit[0], 3), (fit[0], fit[0], 1)):
        with pytest.raises(UsageError, match="must be \\(batch, height, width, 1\\)"):
            trace(abstract(name), shape, train=False)


@pytest.mark.parametrize("name", COMPILED)
def test_dropout_needs_rngs_in_training_only(name):
    side = side_of(name)
    with pytest.raises(ValueError, match="rngs"):
        trace(abstract(name, dropout=0.5), (2, side, side, 1), train=True)
    assert trace(abstract(name, dropout=0.5), (2, side, side, 1), train=False).logits.shape == (2, PATTERNS)


@pytest.mark.parametrize("name", NAMES)
def test_state_is_parameters_and_statistics_in_float32(name):
    """`nnx.split` refuses to leave anything over."""
    _, params, stats = nnx.split(abstract(name, dropout=0.5, dtype=BFLOAT16), nnx.Param, nnx.BatchStat)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, stats))} == {FLOAT32}


# --- Figures, on the smallest networks.


@pytest.mark.parametrize("name", COMPILED)
def test_features_are_what_the_head_reads(name):
    net = network(name)
    image, _ = cells(name)
    logits, features = net.predict(net.params, net.stats, image)
    head = net.params["head"]["linear"]
    assert features.dtype == jnp.float32
    assert features.shape == (len(image), head["kernel"].shape[0])
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"], logits, atol=1e-5)


@pytest.mark.parametrize("name", COMPILED)
def test_a_cell_does_not_see_its_neighbours_in_evaluation(name):
    net = network(name)
    image, _ = cells(name)
    alone, _ = net.predict(net.params, net.stats, image.at[1:].set(jnp.nan))
    np.testing.assert_array_equal(alone[0], net.predict(net.params, net.stats, image)[0][0])


@pytest.mark.parametrize("name", COMPILED)
def test_bfloat16_stays_close_to_float32(name):
    net = network(name)
    image, _ = cells(name)
    graphdef, _, _ = nnx.split(nnx.eval_shape(lambda: small(name, BFLOAT16)), nnx.Param, nnx.BatchStat)

    @quick_jit
    def predict(params, stats, image):
        return nnx.merge(graphdef, params, stats)(image, train=False).logits

    exact, rounded = net.predict(net.params, net.stats, image)[0], predict(net.params, net.stats, image)
    assert rounded.dtype == jnp.float32
    assert 0 < np.abs(rounded - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("name", COMPILED)
def test_gradient_reaches_every_parameter(name):
    """With all scales at 1; at the start those of residual branches and cross connections are 0."""
    net = network(name)
    flat = traverse_util.flatten_dict(net.params)
    alive = {path: jnp.ones_like(leaf) if path[-1] == "scale" else leaf for path, leaf in flat.items()}
    params = traverse_util.unflatten_dict(alive)
    losses = [traverse_util.flatten_dict(tree) for tree in net.gradients(params, net.stats, *cells(name))]
    assert all(np.isfinite(leaf).all() for gradients in losses for leaf in gradients.values())
    assert [path for path in alive if not any(np.any(gradients[path]) for gradients in losses)] == []


def test_the_classifier_of_dcae_does_not_teach_the_encoders():
    net = network("dcae")
    named, reconstructed = (
        {part for part, tree in gradients.items() if any(map(np.any, jax.tree.leaves(tree)))}
        for gradients in net.gradients(net.params, net.stats, *cells("dcae"))
    )
    assert named == {"hidden", "head"}
    assert reconstructed == {"of_image", "of_gradient"}


# --- Targets of the reconstruction.


@pytest.mark.parametrize("name", ["gao", "dacn"])
def test_the_target_is_the_image(name):
    image, _ = cells(name)
    np.testing.assert_array_equal(abstract(name).target(image), image)


def test_the_target_of_dcae_is_the_image_and_its_gradient():
    image, _ = cells("dcae")
    target = abstract("dcae", dtype=BFLOAT16).target(image)
    assert target.dtype == jnp.float32
    np.testing.assert_array_equal(target[..., :1], image)
    np.testing.assert_array_equal(target[..., 1:], gradient_magnitude(image))


def test_the_gradient_is_one_at_a_unit_step_in_any_direction():
    magnitude = quick_jit(gradient_magnitude)
    step = np.zeros((1, 8, 8, 1), np.float32)
    step[:, 4:] = 1.0
    for image in (step, step.swapaxes(1, 2), 1.0 - step):
        got = np.asarray(magnitude(image))
        np.testing.assert_allclose(got.max(), 1.0, rtol=1e-5)
        assert (got > 0.5).sum() == 16  # the two rows, or columns, beside the step, up to the frame
        np.testing.assert_allclose(got[got < 0.5], 0.0, atol=1e-5)
    slope = quick_jit(jax.grad(lambda image: gradient_magnitude(image).sum()))(np.zeros((1, 4, 4, 1), np.float32))
    assert np.isfinite(slope).all()


# --- Regions of a cell.


def test_region_averages_are_means_over_the_inside_the_border_and_the_ring_outside():
    maps = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    radius = np.hypot(*(np.mgrid[:8, :8] - 3.5)) / 3
    depth = np.stack([1 - radius, 0.9 - radius]).astype(np.float32)
    found = np.asarray(region_averages(jnp.asarray(maps), jnp.asarray(depth))).reshape(2, 3, 3)
    for image in range(2):
        for region, (low, high) in enumerate([(0.45, 9), (0, 0.45), (-0.4, 0)]):
            chosen = maps[image][(depth[image] > low) & (depth[image] <= high)]
            assert len(chosen) >= 4
            np.testing.assert_allclose(found[image, region], chosen.mean(0), rtol=1e-5)


def test_a_pixel_of_a_coarse_map_counts_by_its_share_of_the_region():
    depth = np.full((1, 8, 8), -1.0, np.float32)
    depth[0, :, :5] = 0.2  # all of the left half, and a quarter of the right
    coarse = np.array([1.0, 5.0], np.float32).reshape(1, 1, 2, 1)
    found = np.asarray(region_averages(jnp.asarray(coarse), jnp.asarray(depth))).ravel()
    assert found[0] == found[2] == 0  # no pixel lies there
    assert 1.5 < found[1] < 2.5  # 1.8 if the weights were sharp, 3 if both pixels counted alike


@pytest.mark.parametrize("name", ["vggcell", "resnet", "dsrn", "dcrnet", "dri", "efficientnet_lite0"])
def test_networks_that_average_can_average_over_regions(name: str):
    plain, regions = (abstract(name, in_channels=3, regions=value) for value in (False, True))
    shape = (2, 32, 32, 3)
    assert trace(regions, shape, train=False).logits.shape == (2, PATTERNS)
    inputs = {key: leaf.shape for key, leaf in flat_params(regions).items()}
    before = {key: leaf.shape for key, leaf in flat_params(plain).items()}
    assert inputs.keys() == before.keys()
    changed = {key for key in inputs if inputs[key] != before[key]}
    assert changed
    assert all(inputs[key][0] % 3 == 0 for key in changed)
