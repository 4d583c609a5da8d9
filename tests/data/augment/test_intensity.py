import dataclasses

import numpy as np

from hep2jax.config import AugmentConfig, Config, DataConfig, TrainConfig
from hep2jax.data.augment.intensity import jitter_tone_curve
from hep2jax.data.streams import bags as bag_stream
from hep2jax.data.streams.bags import BagPlan
from hep2jax.data.streams.cells import CellPlan
from hep2jax.data.streams.fields import FieldPlan
from hep2jax.data.streams.stream import Stream
from tests.data.cell_tables import cell_set
from tests.data.fields import field_set

AUGMENT = AugmentConfig(gain=0.5, gamma=0.3, offset=0.05)


def test_each_draw_moves_its_own_number():
    plain = np.array([[20, 0.01, 1, 0], [30, 0.02, 1, 0]])
    draws = np.array([[1, -0.5], [0, 1], [-1, 0.5]])
    expected = [
        [20, 0.01 * np.exp(0.5), 1, -0.05],
        [30, 0.02 * np.exp(-0.25), np.exp(0.3), 0.025],
    ]
    found = jitter_tone_curve(draws, plain, AUGMENT)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32
    still = AugmentConfig(gain=0, gamma=0, offset=0)
    np.testing.assert_allclose(jitter_tone_curve(draws, plain, still), plain, rtol=1e-6)


def test_every_stream_draws_gain_exponent_and_offset_over_their_whole_range():
    config = Config(data=DataConfig(crop_size=48, bag_tiles=1), augment=AUGMENT)
    config.train = TrainConfig(global_batch_size=128)
    fields, cells = field_set(fields=1), cell_set(config.data)
    for stream, plain in (
        (Stream(FieldPlan(config, fields, range(9))), [field.grey_gain for field in fields.fields]),
        (Stream(BagPlan(config, bag_stream.from_specimens(fields, range(9)))), [f.grey_gain for f in fields.fields]),
        (Stream(CellPlan(config, cells, range(len(cells)))), [cell.tone_curve[1] for cell in cells.cells]),
    ):
        _, gain, exponent, shift = stream.batch(0)["tone_curve"].astype(float).T
        # The least and the largest gain say nothing of the images' own: those are known.
        low, high = np.log(min(plain)), np.log(max(plain))
        assert low - 0.5 <= np.log(gain).min() < low - 0.3
        assert high + 0.3 < np.log(gain).max() <= high + 0.5
        for moved, width in ((np.log(exponent), 0.3), (shift, 0.05)):
            assert -width <= moved.min() < -0.9 * width < 0.9 * width < moved.max() <= width


def test_tiles_of_a_bag_keep_the_grey_levels_of_their_own_fields():
    """Two fields of one specimen at unlike exposures: the jitter is shared, the levels are not."""
    made = field_set(num_patterns=1, specimens=1, fields=2)
    fields = dataclasses.replace(made.fields[1], grey_offset=5.0, grey_gain=3 * made.fields[0].grey_gain)
    made = dataclasses.replace(made, fields=(made.fields[0], fields))
    config = Config(data=DataConfig(crop_size=48, bag_tiles=8), augment=AUGMENT, train=TrainConfig(global_batch_size=4))
    tone_curve = (
        Stream(BagPlan(config, bag_stream.from_specimens(made, range(2)))).batch(0)["tone_curve"].reshape(4, 8, 4)
    )
    for bag in tone_curve:
        offsets, numbers = np.unique(bag[:, 0], return_counts=True)
        assert (len(offsets), numbers.sum()) == (2, 8)
        low, high = (bag[bag[:, 0] == value, 1] for value in (5.0, made.fields[0].grey_offset))
        np.testing.assert_allclose(low[0] / high[0], 3, rtol=1e-5)
        np.testing.assert_allclose([np.ptp(low), np.ptp(high)], 0, atol=1e-7)
