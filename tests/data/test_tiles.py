import numpy as np
import pytest

from hep2jax.data import tiles


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(100, 32, 8), (64, 64, 16), (65, 64, 16), (20, 64, 0), (1388, 224, 48)]
)
def test_tiles_cover_everything_with_the_overlap(length: int, tile: int, overlap: int):
    begin = tiles.starts(length, tile, overlap)
    assert begin[0] == 0
    assert begin[-1] == max(0, length - tile)
    assert all(b - a <= tile - overlap for a, b in zip(begin, begin[1:], strict=False))


def test_window_is_positive_and_sums_to_one_where_tiles_meet():
    row = tiles.window(64, 16)[32]
    assert row.min() > 0
    np.testing.assert_allclose(row[-16:] + row[:16], 1, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_blending_an_identity_network_gives_the_images_back(batch_size: int):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, shape).astype(np.uint8) for shape in [(90, 70), (20, 33), (64, 64), (40, 130)]]
    tone_curve = [np.array([i, 1, 1, 0], np.float32) for i in range(len(images))]
    blender = tiles.Blender(32, 8)
    restored = []
    for batch in tiles.batches(zip(images, tone_curve, strict=True), batch_size=batch_size, tile=32, overlap=8):
        assert batch.image.shape == (batch_size, 32, 32)
        for tile, pixels, grey in zip(batch.tiles, batch.image, batch.tone_curve, strict=False):
            assert grey[0] == tile.image
            two = np.stack([pixels, 255.0 - pixels], axis=-1)
            blended = blender.add(tile, two)
            if blended is not None:
                restored.append(blended)
    assert len(restored) == len(images)
    for image, blended in zip(images, restored, strict=True):
        np.testing.assert_allclose(blended[..., 0], image, atol=1e-3)
        np.testing.assert_allclose(blended.sum(-1), 255, atol=1e-3)


def test_padded_rows_have_no_tile():
    image = np.zeros((32, 48), np.uint8)
    batches = list(tiles.batches([(image, np.zeros(4, np.float32))], batch_size=5, tile=32, overlap=8))
    assert [len(b.tiles) for b in batches] == [2]
    assert batches[0].tiles[-1].last


def test_a_tile_fades_where_the_next_begins():
    """Two tiles that disagree: the result runs from the one to the other over the overlap, as sin² does."""
    blender = tiles.Blender(8, 4)
    places = tiles.plan(0, (8, 12), 8, 4)
    assert blender.add(places[0], np.zeros((8, 8, 1))) is None
    row = blender.add(places[1], np.ones((8, 8, 1)))[4, :, 0]
    expected = np.sin(np.pi / 2 * (np.arange(4) + 0.5) / 4) ** 2
    np.testing.assert_allclose(row, [0, 0, 0, 0, *expected, 1, 1, 1, 1], atol=1e-4)


def test_an_image_smaller_than_a_tile_is_mirrored_not_blackened():
    image = np.random.default_rng(0).integers(1, 255, (20, 33)).astype(np.uint8)
    batch = next(tiles.batches([(image, np.zeros(4, np.float32))], batch_size=2, tile=32, overlap=8))
    np.testing.assert_array_equal(batch.image[0, :20], image[:, :32])
    np.testing.assert_array_equal(batch.image[0, 20:], image[19:7:-1, :32])
