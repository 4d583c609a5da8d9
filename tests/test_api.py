"""The public functions of the package, as a stranger calls them."""

import json
import subprocess
import sys

import fsspec
import numpy as np
import pytest

import hep2jax
from hep2jax import models, remote, tasks
from hep2jax.errors import UsageError
from hep2jax.training import state as states
from tests.conftest import REPOSITORY


def _python(program: str, *arguments: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=200, check=True).stdout


def test_three_lines_in_a_fresh_interpreter(unet_run, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (70, 90), np.uint8)
    np.save(tmp_path / "image.npy", image)
    program = """if True:
        import sys
        import numpy as np
        image = np.load(sys.argv[2])

        import hep2jax
        reader = hep2jax.load(sys.argv[1])
        reading = reader(image)

        import json
        (classes,), (cells,) = reading.class_masks, reading.cell_masks
        assert (classes.dtype, cells.dtype, classes.shape, cells.shape) == (np.uint8, bool, image.shape, image.shape)
        assert isinstance(reading, hep2jax.Reading) and isinstance(reader, hep2jax.Reader)
        both = reader([image, image])
        assert len(both.class_masks) == 2 and both.pattern == reading.pattern
        print(json.dumps([reading.pattern, reading.icap, reading.probabilities, reader.classes]))
    """
    pattern, icap, probabilities, classes = json.loads(_python(program, str(unet_run), str(tmp_path / "image.npy")))
    assert list(probabilities) == classes == json.loads((unet_run / "classes.json").read_text())
    assert pattern in (*classes, "none")
    assert bool(icap) == (pattern != "none")
    assert sum(probabilities.values()) == pytest.approx(float(pattern != "none"))


def test_the_import_is_cheap_and_leaves_devices_alone():
    program = """if True:
        import sys, hep2jax
        assert not {"jax", "numpy", "tensorflow_datasets"} & set(sys.modules)
        import hep2jax.main, hep2jax.predict, hep2jax.prepare, hep2jax.__main__
        from jax._src import xla_bridge
        assert not xla_bridge._backends
        print(*(name for name in hep2jax.__all__ if getattr(hep2jax, name) is None))
    """
    assert _python(program) == "\n"
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        hep2jax.trian  # noqa: B018


def test_training_and_evaluation_return_the_figures_of_the_report(cell_config, tmp_path):
    figures = hep2jax.train(cell_config, tmp_path / "w")
    assert figures == json.loads((tmp_path / "w" / "report" / "metrics.json").read_text())
    assert hep2jax.evaluate(tmp_path / "w")["test"]["confusion"] == figures["test"]["confusion"]


def test_a_run_in_object_storage(unet_run, monkeypatch):
    monkeypatch.setattr(remote, "PACKAGES", {"memory": "fsspec"})
    fsspec.filesystem("memory").put(str(unet_run), "bucket/api", recursive=True)
    there, here = hep2jax.load("memory://bucket/api"), hep2jax.load(unet_run)
    assert there.classes == here.classes
    image = np.random.default_rng(0).integers(0, 255, (70, 90), np.uint8)
    np.testing.assert_array_equal(there(image).class_masks, here(image).class_masks)
    with pytest.raises(UsageError, match=r"^--workdir=memory://bucket/other: holds no run"):
        hep2jax.load("memory://bucket/other")


def test_a_data_set_and_a_model(tiny_config):
    data = hep2jax.load_dataset(tiny_config)
    assert len(data.items) == len(data.examples) == 32
    model = hep2jax.build_model(tiny_config)
    network = states.make_network(tiny_config, data.num_outputs)
    assert type(model).__name__ == "UNet"
    assert network.graphdef is not None


def test_a_configuration_by_name():
    config = hep2jax.load_config("fcn")
    assert config == hep2jax.load_config("configs/fcn.py")
    assert config.model.name == "fcn"
    with pytest.raises(UsageError, match="nearest of the shipped configurations is 'fcn'"):
        hep2jax.load_config("fncn")


def test_every_network_has_a_reader():
    assert {name for kind in tasks.KINDS for name in kind.networks} == {*models.NETWORKS, "fisher", "mean"}


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8), np.float32), r"must be uint8 .*, not float32 \[8, 8\]"),
        (np.zeros((8, 8, 4), np.uint8), r"not uint8 \[8, 8, 4\]"),
        (np.zeros((0, 8), np.uint8), r"not uint8 \[0, 8\]"),
        ([], "0 images"),
    ],
)
def test_what_is_no_image(image, message: str, unet_run):
    with pytest.raises(ValueError, match=message):
        hep2jax.load(unet_run)(image)


def test_masks_are_for_networks_of_cells(unet_run):
    with pytest.raises(ValueError, match="a mask was given, but unet reads whole images"):
        hep2jax.load(unet_run)(np.zeros((40, 40), np.uint8), np.ones((40, 40), bool))


def test_no_run_there(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        hep2jax.load(tmp_path)
