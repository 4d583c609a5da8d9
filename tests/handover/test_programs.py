"""Exported programs say what hep2jax says."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from jax import export

from hep2jax import mesh as meshes
from hep2jax import tasks
from hep2jax.config import Config, DataConfig, EvaluationConfig, ModelConfig
from hep2jax.data.sets import cells as cell_sets
from hep2jax.errors import UsageError
from hep2jax.handover import programs, stablehlo
from hep2jax.handover.reference import TOLERANCE
from hep2jax.tasks.fields import to_native, working_pair
from hep2jax.tasks.reading import as_field
from tests.handover import networks


def _field_config(**data) -> Config:
    return Config(
        data=DataConfig(**{"scale": 0.5, "crop_size": 32, **data}),
        model=ModelConfig(name="unet", width=0.01),
        evaluation=EvaluationConfig(tile_size=32, tile_overlap=8, batch_size=4),
    )


def _decided(**evaluation: Any) -> Config:
    config = _field_config()
    config.evaluation = dataclasses.replace(config.evaluation, nuclear_diameter=20.0, **evaluation)
    return config


def _cell_config(**data) -> Config:
    return Config(
        data=DataConfig(**{"normalise": "contrast_stretch", "crop_size": 0, **data}),
        model=ModelConfig(name="gao"),
        evaluation=EvaluationConfig(batch_size=4),
    )


def _image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise of large grains, so that a pixel that is read otherwise does not matter much."""
    grains = np.random.default_rng(seed).integers(0, 200, (-(-height // 8), -(-width // 8)), np.uint8)
    return np.kron(grains, np.ones((8, 8), np.uint8))[:height, :width]


def _exported(program: programs.Program):
    return jax.jit(export.deserialize(stablehlo.serialise(program)).call)


SMALLER_THAN_A_TILE, OF_SIX_TILES, OF_FOUR_TILES = (20, 31), (131, 90), (40, 45)


@pytest.mark.parametrize(
    ("normalise", "scale", "shapes"),
    [("field", 0.5, (SMALLER_THAN_A_TILE, OF_SIX_TILES)), ("none", 1.0, (OF_FOUR_TILES,))],
)
def test_fields_of_any_number_and_size(normalise: str, scale: float, shapes: tuple[tuple[int, int], ...]):
    trained = networks.stirred(_field_config(normalise=normalise, scale=scale), 0.1)
    program = programs.make(trained)
    run = _exported(program)
    evaluator = tasks.kind(trained.config).reader_class.evaluator_class(
        trained.config, trained.network, meshes.make_mesh()
    )
    for shape in shapes:
        images = [_image(*shape, seed) for seed in range(2)]
        pairs = [working_pair(as_field(image, "a", trained.config)) for image in images]
        maps = evaluator.predict(trained.parameters, pairs)
        wanted = np.stack([to_native(working, shape) for working in maps])
        assert wanted.std() > 0.01
        np.testing.assert_allclose(run(np.stack(images)), wanted, rtol=0, atol=TOLERANCE)
    assert program.channels == ("background", *networks.CLASSES)


@pytest.mark.parametrize("masked", [False, True])
def test_cells_with_and_without_masks(masked: bool):
    trained = networks.stirred(_cell_config(masked=masked, mean_centring=masked, top_percentile=99.5), 0.2)
    program = programs.make(trained)
    run = _exported(program)
    evaluator = tasks.kind(trained.config).reader_class.evaluator_class(
        trained.config, trained.network, meshes.make_mesh()
    )
    images = np.stack([_image(156, 156, seed) for seed in range(3)])
    masks = images > 60
    data = trained.config.data
    ready = [cell_sets.preprocess(image, mask, data) for image, mask in zip(images, masks, strict=True)]
    wanted = evaluator.predict(trained.parameters, *map(list, zip(*ready, strict=True)))
    assert wanted.std() > 0.01
    inputs = (images, masks.astype(np.uint8))[: 1 + masked]
    np.testing.assert_allclose(run(*inputs), wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Config(model=ModelConfig(name="mil")), "'mil', which cannot be exported"),
        (Config(model=ModelConfig(name="fisher")), "'fisher', which cannot be exported"),
        (_field_config(normalise="log", background_window=60.0), "data.normalise=log, which cannot be exported; field"),
        (_decided(unsure_band=0.1), r"evaluation.unsure_band=0.1, which cannot be exported; 0.0 can"),
        (_decided(cell_reader="runs/c"), r"evaluation.cell_reader=runs/c, which cannot be exported; '' can"),
        (_cell_config(normalise="clahe"), "data.normalise=clahe, which"),
        (_cell_config(cell_fit="native"), "data.cell_fit=native, which cannot be exported; stretch can"),
        (_cell_config(cell_margin=0.1), "data.cell_margin=0.1, which"),
    ],
)
def test_what_cannot_be_exported_is_refused(config: Config, words: str):
    with pytest.raises(UsageError, match=words):
        programs.check(config)
