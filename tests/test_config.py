import importlib
import pathlib

import jax
import numpy as np
import pytest

from hep2jax import config as configs
from hep2jax import optimizers, steps
from hep2jax import state as states
from hep2jax.config import Config
from hep2jax.errors import UsageError

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_json_round_trip(tmp_path):
    config = Config(seed=5)
    config.data.manual_dir = "somewhere"
    config.model.width = 0.25
    configs.save(config, tmp_path / "config.json")
    assert configs.load(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("data.crop_sise", "data.crop_size"),
        ("train.numsteps", "train.num_steps"),
        ("dat.fold", "data.fold"),
        ("learning_rate", "optimizer.learning_rate"),
    ],
)
def test_nearest_key(key: str, nearest: str):
    assert configs.nearest_key(key) == nearest


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(UsageError, match=r"'model.widht': did you mean 'model.width'"):
        configs.from_dict({"model": {"widht": 1}})


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("data", "protocol", "los", "nearest is 'loso'"),
        ("data", "name", "icpr2013", "nearest is 'icpr2012'"),
        ("data", "crop_size", 100, "multiple of 32"),
        ("data", "scale", 1.5, "between"),
        ("data", "num_folds", 1, "at least 2"),
        ("model", "width", 0.0, "between"),
        ("train", "num_steps", 0, "at least 1"),
        ("train", "compute_dtype", "float16", "nearest"),
        ("evaluation", "tile_overlap", 500, "between"),
        ("augment", "scale_min", 2.0, "between"),
    ],
)
def test_a_bad_value_is_refused_by_name(section: str, key: str, value, message: str):
    config = Config()
    setattr(getattr(config, section), key, value)
    with pytest.raises(UsageError, match=message) as error:
        configs.validate(config)
    assert f"{section}.{key}" in str(error.value)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path: pathlib.Path):
    config = configs.validate(importlib.import_module(f"configs.{path.stem}").get_config())
    assert configs.from_dict(configs.to_dict(config)) == config


@pytest.mark.parametrize("name", ["fcn", "fcrn", "dsfcn", "unet"])
def test_published_segmenters_lower_to_a_training_step(name: str):
    state = _trace_step(name, labels_per_row=(None, None))
    assert states.num_parameters(state.params) > 2e7


@pytest.mark.parametrize("name", ["cnn", *configs.CLASSIFIERS[1:]])
def test_published_classifiers_lower_to_a_training_step(name: str):
    state = _trace_step(name, labels_per_row=())
    assert states.num_parameters(state.params) > (50_000 if name == "cnn" else 1e6)


def _trace_step(name: str, labels_per_row: tuple) -> states.TrainState:
    """Traces the step of the published network with its published batch; nothing is compiled or allocated."""
    config = importlib.import_module(f"configs.{name}_published").get_config()
    network = states.make_network(config, 9)
    optimizer = optimizers.make_optimizer(config.optimizer, config.train.num_steps)
    state = jax.eval_shape(lambda: states.fresh_state(network, optimizer, jax.random.key(0)))
    rows, size = config.train.global_batch_size, config.data.crop_size
    batch = {"image": jax.ShapeDtypeStruct((rows, size, size), np.uint8)}
    batch["labels"] = jax.ShapeDtypeStruct((rows, *(size for _ in labels_per_row)), np.uint8)
    batch["greys"] = jax.ShapeDtypeStruct((rows, 4), np.float32)
    step = steps.make_train_step(config, network)
    constants = {"class_weights": jax.ShapeDtypeStruct((9,), np.float32)}
    after, metrics = jax.eval_shape(step, state, batch, constants)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert metrics["loss"].shape == ()
    return state
