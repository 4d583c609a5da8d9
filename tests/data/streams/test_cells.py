import dataclasses
import time

import cv2
import numpy as np
import pytest

from hep2jax.config import AugmentConfig, Config, DataConfig, TrainConfig
from hep2jax.data.augment import geometry
from hep2jax.data.streams.cells import CellPlan, plain_input
from hep2jax.data.streams.stream import Stream, cut_matrices
from hep2jax.errors import UsageError
from tests.data.cell_tables import cell_set

NO_AUGMENT = AugmentConfig(mirror=False, rotate=False, scale_min=1, scale_max=1, gain=0, gamma=0, offset=0)


def _config(augment: AugmentConfig | None = None, **data) -> Config:
    settings = {"crop_size": 64, "normalise": "contrast_stretch", **data}
    return Config(
        seed=3,
        data=DataConfig(**settings),
        augment=augment or AugmentConfig(),
        train=TrainConfig(global_batch_size=8),
    )


def _stream(config: Config, **table) -> Stream:
    made = cell_set(config.data, **table)
    return Stream(CellPlan(config, made, range(len(made))))


def test_a_batch_is_a_function_of_seed_and_step():
    first, second = _stream(_config()), _stream(_config())
    for step in (5, 0, 17):
        for name, value in first.batch(step).items():
            np.testing.assert_array_equal(value, second.batch(step)[name])
    assert not np.array_equal(first.batch(1)["image"], first.batch(2)["image"])
    other = _stream(dataclasses.replace(_config(), seed=4))
    assert not np.array_equal(first.batch(1)["image"], other.batch(1)["image"])


def test_processes_share_one_global_batch():
    config = _config()
    made = cell_set(config.data)
    whole = Stream(CellPlan(config, made, range(len(made)))).batch(9)
    parts = [
        Stream(CellPlan(config, made, range(len(made))), rows=rows).batch(9) for rows in (slice(0, 3), slice(3, 8))
    ]
    for name in whole:
        np.testing.assert_array_equal(whole[name], np.concatenate([part[name] for part in parts]))


def test_without_augmentation_the_input_is_the_ready_picture():
    config = _config(NO_AUGMENT, balance="none")
    made = cell_set(config.data)
    ready = {cell.ready.tobytes() for cell in made.cells}
    batch = Stream(CellPlan(config, made, range(len(made)))).batch(0)
    assert all(image.tobytes() in ready for image in batch["image"])


def test_balance_none_takes_every_cell_once_an_epoch():
    config = _config(NO_AUGMENT, balance="none")
    made = cell_set(config.data, specimens=2, cells=4)  # 24 cells: three batches
    stream = Stream(CellPlan(config, made, range(len(made))))
    epochs = [[image.tobytes() for s in range(3 * e, 3 * e + 3) for image in stream.batch(s)["image"]] for e in (0, 1)]
    assert all(len(set(epoch)) == 24 for epoch in epochs)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(("balance", "low", "high"), [("class", 0.4, 0.6), ("pattern", 0.4, 0.6), ("specimen", 0, 0.2)])
def test_balanced_sampling(balance: str, low: float, high: float):
    config = _config(balance=balance)
    made = cell_set(config.data, specimens=9, cells=2, num_patterns=2)
    few = [i for i, item in enumerate(made.items) if item.pattern == 0 or item.specimen == "ring-0"]
    stream = Stream(CellPlan(config, made, few))
    share = np.mean([stream.batch(step)["labels"] == 1 for step in range(80)])
    assert low <= share <= high


def test_class_balance_ignores_specimens_and_pattern_balance_does_not():
    made = cell_set(_config().data, specimens=2, cells=10, num_patterns=1)
    uneven = [i for i, item in enumerate(made.items) if item.specimen == "disc-0" or i == 10]
    lonely = made.cells[10].ready

    def share(balance: str) -> float:
        stream = Stream(CellPlan(_config(NO_AUGMENT, balance=balance), made, uneven))
        return float(np.mean([[np.array_equal(i, lonely) for i in stream.batch(s)["image"]] for s in range(60)]))

    assert share("class") == pytest.approx(1 / 11, abs=0.05)
    assert share("pattern") == pytest.approx(1 / 2, abs=0.08)


def _warps(augment: AugmentConfig, count: int) -> np.ndarray:
    """Matrices of `count` cells from input to input, which is where plans place them."""
    config = _config(augment)
    plan = CellPlan(config, cell_set(config.data, specimens=1, cells=1), range(3))
    return cut_matrices(config, plan.draw(np.random.default_rng(0), np.zeros(count, int)))


def test_rotation_steps_are_multiples():
    augment = dataclasses.replace(NO_AUGMENT, rotate=True, rotation_step=36.0)
    warps = _warps(augment, 400)
    angles = np.rad2deg(np.arctan2(warps[:, 1, 0], warps[:, 0, 0])) % 360
    steps = np.round(angles / 36) % 10
    np.testing.assert_allclose((angles - 36 * steps + 180) % 360 - 180, 0, atol=1e-3)
    assert len(np.unique(steps)) == 10


def test_cells_are_shifted_by_up_to_the_configured_share_in_each_direction():
    moved = _warps(AugmentConfig(shift=0.1, scale_min=1.0, scale_max=1.0), 500) @ np.array([31.5, 31.5, 1]) - 31.5
    np.testing.assert_allclose(moved.max(0), 6.4, atol=0.2)
    np.testing.assert_allclose(moved.min(0), -6.4, atol=0.2)
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.15


def test_a_quarter_turn_is_exact_and_about_the_centre():
    image = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    turned = {np.rot90(image, k).tobytes() for k in range(4)}
    for warp in _warps(dataclasses.replace(NO_AUGMENT, rotate=True, rotation_step=90.0), 20):
        assert geometry.warp_image(image, warp, 64).tobytes() in turned


def test_a_picture_of_another_size_lies_centred_on_the_input():
    image = np.random.default_rng(0).integers(0, 255, (20, 12)).astype(np.uint8)
    np.testing.assert_array_equal(plain_input(image, 16), np.pad(image, ((0, 0), (8, 8)), mode="reflect")[2:18, 6:22])


def test_shapes_dtypes_and_rate():
    stream = _stream(_config())
    batch = stream.batch(0)
    assert batch["image"].shape == (8, 64, 64)
    assert batch["image"].dtype == np.uint8
    assert batch["labels"].dtype == np.int32
    assert batch["tone_curve"].shape == (8, 4)
    cv2.setNumThreads(1)
    start = time.perf_counter()
    for step in range(50):
        stream.batch(step)
    assert 50 * 8 / (time.perf_counter() - start) > 1000  # cells/s, busy machine; 27,000 in batches of 64


def test_no_cell_to_train_on():
    made = cell_set(_config().data)
    with pytest.raises(UsageError, match="no cell to train on"):
        Stream(CellPlan(_config(), made, []))
