"""For whom operations are traced."""

import jax

from hep2jax import ops


def test_without_a_target_the_devices_at_hand_count():
    at_hand = ops.Target(jax.default_backend(), jax.device_count())
    assert ops.current() == at_hand
    with ops.target("tpu", devices=4):
        assert ops.current() == ops.Target("tpu", 4)
        with ops.target(ops.PLAIN):
            assert ops.current() == ops.Target(ops.PLAIN, 1)
        assert ops.current() == ops.Target("tpu", 4)
    assert ops.current() == at_hand
