"""Feature maps with mixed styles: what is mixed, when, and in which networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hep2jax.config import ModelConfig
from hep2jax.models import NETWORKS, build, mixstyle
from hep2jax.ops import lanes

_KEY = jax.random.key(0)

mixed = jax.jit(mixstyle.mixed)


def _maps(batch: int = 6) -> jax.Array:
    """Every example has a style of its own."""
    rng = np.random.default_rng(0)
    style = rng.uniform(1, 5, (2, batch, 1, 1, 8))
    return jax.device_put((style[0] * rng.normal(size=(batch, 16, 16, 8)) + style[1]).astype(np.float32))


def _style(maps) -> tuple[np.ndarray, np.ndarray]:
    return np.mean(maps, (1, 2)), np.std(maps, (1, 2))


def test_the_new_style_lies_between_those_of_two_examples():
    maps = _maps()
    after = mixed(maps, _KEY, 1.0)
    assert not np.allclose(after, maps, atol=0.1)
    before, after = (np.stack(_style(found), axis=1) for found in (maps, after))
    for example, style in enumerate(after):
        shares = []
        for partner in before:
            direction, moved = (partner - before[example]).ravel(), (style - before[example]).ravel()
            share = direction @ moved / max(direction @ direction, 1e-9)
            if np.allclose(share * direction, moved, atol=1e-3):
                shares.append(share)
        assert shares
        assert all(-1e-4 <= share <= 1 + 1e-4 for share in shares)


def test_the_content_stays():
    maps = _maps()
    contents = []
    for found in (maps, mixed(maps, _KEY, 1.0)):
        mean, deviation = (part[:, None, None] for part in _style(found))
        contents.append((found - mean) / deviation)
    np.testing.assert_allclose(*contents, atol=1e-3)


def test_with_a_probability_of_one_half_half_of_the_batches_stay_exactly_as_they_are():
    maps = _maps()
    keys = jax.random.split(_KEY, 60)
    stay = [np.array_equal(mixed(maps, key, 0.5), maps) for key in keys]
    assert 15 < sum(stay) < 45
    np.testing.assert_array_equal(mixed(maps, _KEY, 0.0), maps)


def test_columns_side_by_side_are_mixed_as_others():
    maps = _maps()
    joined = mixed(lanes.join(maps, 2), _KEY, 1.0)
    np.testing.assert_allclose(lanes.split(joined), mixed(maps, _KEY, 1.0), rtol=1e-4, atol=1e-4)


def test_bfloat16_maps_stay_bfloat16():
    assert jax.eval_shape(mixed, _maps().astype(jnp.bfloat16), _KEY, 1.0).dtype == jnp.bfloat16


def test_maps_are_mixed_only_while_styles_is_open():
    maps = _maps()
    with mixstyle.styles(1.0, _KEY):
        made = [mixstyle.mix(maps) for _ in range(mixstyle.LAYERS + 1)]
    assert [np.array_equal(found, maps) for found in made] == [False] * mixstyle.LAYERS + [True]
    np.testing.assert_array_equal(mixstyle.mix(maps), maps)
    with mixstyle.styles(0.0, _KEY):
        np.testing.assert_array_equal(mixstyle.mix(maps), maps)


@pytest.mark.parametrize(
    "name", [n if n in ("gao", "fcn", "mil") else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS]
)
def test_every_network_offers_its_first_maps(name: str, monkeypatch):
    seen, side = [], {"gao": 78, "dacn": 80, "dcae": 80}.get(name, 64)

    def spy(maps: jax.Array, key: jax.Array, probability: float) -> jax.Array:
        seen.append(maps.shape)
        return maps

    monkeypatch.setattr(mixstyle, "mixed", spy)

    def forward() -> object:
        config = ModelConfig(name=name, width=0.05)
        network = build(config, num_outputs=3, in_channels=1, rngs=nnx.Rngs(0), dtype=jnp.dtype("float32"))
        with mixstyle.styles(0.5, _KEY):
            return network(jnp.zeros((2, side, side, 1)), train=True, rngs=nnx.Rngs(dropout=0))

    jax.eval_shape(forward)
    assert len(seen) == mixstyle.LAYERS
    assert all(shape[0] == 2 and len(shape) == 4 for shape in seen)
