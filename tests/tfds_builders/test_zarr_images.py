import json
import os
import pathlib
import struct

import numpy as np
import pytest

from tests.tfds_builders.zarr_folders import shards, write_attributes, write_zarr
from tfds_builders import image_files
from tfds_builders.frames import Frame, ImageFileError

_RNG = np.random.default_rng(7)
GREY = _RNG.integers(0, 256, (24, 30), np.uint8)
DEEP = _RNG.integers(0, 4096, (24, 30), np.uint16)
BLOSC = {"name": "blosc", "configuration": {"cname": "lz4", "clevel": 5}}
GZIP = {"name": "gzip", "configuration": {"level": 1}}
ENCODINGS = {
    "plain": (3, {}),
    "gzip": (3, {"codecs": [{"name": "bytes"}, GZIP, {"name": "crc32c"}]}),
    "zstd, big-endian, turned": (
        3,
        {
            "codecs": [
                {"name": "transpose", "configuration": {"order": [1, 0]}},
                {"name": "bytes", "configuration": {"endian": "big"}},
                {"name": "zstd", "configuration": {"level": 1}},
            ]
        },
    ),
    "blosc": (3, {"codecs": [{"name": "bytes"}, BLOSC, {"name": "crc32c"}]}),
    "keys of Zarr 2": (3, {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}}}),
    "shards": (3, shards([4, 5])),
    "shards, blosc, index first": (3, shards([4, 5], BLOSC, at="start")),
    "2": (2, {"compressor": None, "dtype": ">u2"}),
    "2, zlib, Fortran": (2, {"compressor": {"id": "zlib", "level": 1}, "order": "F"}),
    "2, blosc, folders": (2, {"compressor": {"id": "blosc", "cname": "zstd"}, "dimension_separator": "/"}),
}


def _read(folder: pathlib.Path) -> list[Frame]:
    return list(image_files.read(folder))


def _refusal(folder: pathlib.Path) -> str:
    with pytest.raises(ImageFileError) as raised:
        _read(folder)
    message = str(raised.value)
    assert message.startswith(f"{folder}: ")
    assert "\n" not in message
    return message.removeprefix(f"{folder}: ")


def _edit(file: pathlib.Path, **changes) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("name", ENCODINGS)
def test_pixels_of_every_encoding(name, tmp_path):
    version, array = ENCODINGS[name]
    folder = write_zarr(tmp_path / "a.zarr", DEEP, version=version, chunks=(16, 20), array=array)
    (frame,) = _read(folder)
    assert frame.pixels.dtype == np.uint16
    np.testing.assert_array_equal(frame.pixels, DEEP)
    assert (frame.page, frame.num_pages, frame.micrometres_per_pixel) == (1, 1, 0.5)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("chunks", [(1, 1, 1, 16, 16), (2, 2, 3, 24, 30)])
def test_planes_and_channels_are_pages(version, chunks, tmp_path):
    pixels = _RNG.integers(0, 256, (2, 2, 3, 24, 30), np.uint8)
    frames = _read(write_zarr(tmp_path / "a.zarr", pixels, axes="tczyx", version=version, chunks=chunks))
    assert [(frame.page, frame.num_pages) for frame in frames] == [(number, 12) for number in range(1, 13)]
    for frame, page in zip(frames, pixels.reshape(12, 24, 30), strict=True):
        np.testing.assert_array_equal(frame.pixels, page)


def test_three_channels_are_colours_and_one_is_grey(tmp_path):
    colours = _RNG.integers(0, 256, (2, 3, 24, 30), np.uint8)
    frames = _read(write_zarr(tmp_path / "rgb.zarr", colours, axes="zcyx"))
    np.testing.assert_array_equal([frame.pixels for frame in frames], np.moveaxis(colours, 1, -1))
    (frame,) = _read(write_zarr(tmp_path / "grey.zarr", GREY[None], axes="cyx"))
    np.testing.assert_array_equal(frame.pixels, GREY)


def test_a_missing_chunk_has_the_fill_value(tmp_path):
    folder = write_zarr(tmp_path / "a.zarr", GREY, chunks=(12, 30), array={"fill_value": 9})
    (folder / "0/c/1/0").unlink()
    (frame,) = _read(folder)
    np.testing.assert_array_equal(frame.pixels, np.vstack([GREY[:12], np.full((12, 30), 9)]))


@pytest.mark.parametrize(
    ("unit", "of_all", "expected"),
    [("nanometer", 2.0, 0.001), ("millimeter", 1.0, 500.0), (None, 1.0, None), ("furlong", 1.0, None)],
)
def test_size_of_a_pixel(unit, of_all, expected, tmp_path):
    axes = [{"name": name, "type": "space", **({"unit": unit} if unit else {})} for name in "yx"]
    steps = [{"type": "scale", "scale": [1.0, of_all]}, {"type": "translation", "translation": [7.0, 7.0]}]
    folder = write_zarr(tmp_path / "a.zarr", GREY, coordinateTransformations=steps)
    group = json.loads((folder / "zarr.json").read_text())
    group["attributes"]["ome"]["multiscales"][0]["axes"] = axes
    (folder / "zarr.json").write_text(json.dumps(group))
    assert _read(folder)[0].micrometres_per_pixel == (expected and pytest.approx(expected))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("attributes", "fields"),
    [({"plate": {"wells": []}}, "*/*/*"), ({"well": {}}, "*"), ({"bioformats2raw.layout": 3}, "[0-9]*")],
)
def test_collections_say_what_to_name(version, attributes, fields, tmp_path):
    write_attributes(tmp_path, attributes, version)
    assert f"name these instead, by the pattern '{tmp_path}/{fields}'" in _refusal(tmp_path)


def test_a_folder_without_an_image(tmp_path):
    assert "holds no OME-Zarr image" in _refusal(tmp_path)
    (tmp_path / ".zattrs").write_text('{"multiscales": [{"datasets": [{"path": "0"}], "axes": ["y", "x"]}]}')
    assert "older than NGFF 0.4" in _refusal(tmp_path)


@pytest.mark.parametrize(
    ("pixels", "axes", "message"),
    [
        (GREY.astype(np.uint32), "yx", "pixels of the kind uint32"),
        (GREY, "xy", "axes ['x', 'y'] of an array of 2"),
        (GREY[None], "yx", "axes ['y', 'x'] of an array of 3"),
        (GREY[:7], "yx", "30 x 7 pixels: smaller than 8 x 8"),
        (np.zeros((1001, 8, 8), np.uint8), "zyx", "1001 pages; 1 to 1000 are read"),
        (np.zeros((0, 8, 8), np.uint8), "zyx", "0 pages; 1 to 1000 are read"),
    ],
)
def test_images_that_are_not_supported(pixels, axes, message, tmp_path):
    folder = write_zarr(tmp_path / "a.zarr", pixels, axes=axes, chunks=[max(side, 1) for side in pixels.shape])
    assert message in _refusal(folder)


@pytest.mark.parametrize(
    ("shape", "chunks", "message"),
    [
        ((20_000, 20_000), (64, 64), "20000 x 20000 pixels: too large"),
        ((2**61, 8), (64, 64), "pixels: too large"),
        ((10_000, 10_000), (8, 8), "needs 1562500 of them"),
        ((24, 30), (2**20, 2**20), "hold 1099511 MB; at most 100000 and 800 MB are read"),
    ],
)
@pytest.mark.parametrize("version", [2, 3])
def test_sizes_are_bounded_before_memory_is_taken(version, shape, chunks, message, tmp_path):
    folder = write_zarr(tmp_path / "a.zarr", GREY, version=version)
    if version == 2:
        _edit(folder / "0/.zarray", shape=shape, chunks=chunks)
    else:
        grid = {"name": "regular", "configuration": {"chunk_shape": chunks}}
        _edit(folder / "0/zarr.json", shape=shape, chunk_grid=grid)
    assert message in _refusal(folder)


@pytest.mark.parametrize("path", ["../b.zarr/0", "/0", "0/../0", ".", ""])
def test_pixels_outside_the_folder_are_not_read(path, tmp_path):
    write_zarr(tmp_path / "b.zarr", GREY)
    folder = write_zarr(tmp_path / "a.zarr", GREY, datasets=[{"path": path}])
    assert "leads out of the folder" in _refusal(folder)


@pytest.mark.parametrize("linked", ["zarr.json", "0", "0/zarr.json", "0/c", "0/c/0/0"])
def test_links_are_not_followed(linked, tmp_path):
    other, folder = (write_zarr(tmp_path / name, GREY) for name in ("b.zarr", "a.zarr"))
    (folder / linked).rename(tmp_path / "moved")
    (folder / linked).symlink_to(other / linked)
    assert "link" in _refusal(folder)


def test_a_pipe_is_not_waited_for(tmp_path):
    folder = write_zarr(tmp_path / "a.zarr", GREY)
    (folder / "0/c/0/0").unlink()
    os.mkfifo(folder / "0/c/0/0")
    assert "0 in it is a link or no file" in _refusal(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a":' * 3000, "\xff", '{"a": ' + "9" * 5000 + "}"])
@pytest.mark.parametrize("name", ["zarr.json", "0/zarr.json"])
def test_damaged_metadata(name, text, tmp_path):
    folder = write_zarr(tmp_path / "a.zarr", GREY)
    (folder / name).write_text(text, encoding="latin-1")
    assert "zarr.json is damaged" in _refusal(folder)


def test_metadata_without_end(tmp_path):
    folder = write_zarr(tmp_path / "a.zarr", GREY)
    os.truncate(folder / "zarr.json", 2**40)
    assert "zarr.json has 1099511627776 bytes, at most 16000000" in _refusal(folder)


def test_the_page_of_a_damaged_chunk_is_named(tmp_path):
    pixels = _RNG.integers(0, 256, (2, 24, 30), np.uint8)
    array = {"codecs": [{"name": "bytes"}, GZIP]}
    folder = write_zarr(tmp_path / "a.zarr", pixels, axes="zyx", chunks=(1, 24, 30), array=array)
    os.truncate(folder / "0/c/1/0/0", 99)
    frames = image_files.read(folder)
    np.testing.assert_array_equal(next(frames).pixels, pixels[0])
    with pytest.raises(
        ImageFileError, match=r"a.zarr: page 2: damaged, or of a kind that is not supported \(.*c/1/0/0"
    ):
        next(frames)


def test_a_chunk_file_without_end_is_not_read(tmp_path):
    folder = write_zarr(tmp_path / "a.zarr", GREY)
    os.truncate(folder / "0/c/0/0", 2**40)
    assert "0 has 1099511627776 bytes" in _refusal(folder)


@pytest.mark.parametrize("array", [{"codecs": [{"name": "bytes"}, BLOSC]}, shards([12, 15], BLOSC)])
def test_memory_that_a_blosc_header_asks_for_is_not_taken(array, tmp_path):
    folder = write_zarr(tmp_path / "a.zarr", GREY, chunks=(24, 30), array=array)
    data = bytearray((folder / "0/c/0/0").read_bytes())
    struct.pack_into("<I", data, 4, 2**31 - 64)
    (folder / "0/c/0/0").write_bytes(data)
    assert "has chunks that are larger than it or than their pixels" in _refusal(folder)


@pytest.mark.parametrize(("start", "length"), [(2**40, 9), (0, 2**40), (2**64 - 2, 9), (0, 10**5)])
def test_an_index_of_shards_beyond_the_file(start, length, tmp_path):
    folder = write_zarr(tmp_path / "a.zarr", GREY, chunks=(24, 30), array=shards([12, 15], at="start"))
    data = bytearray((folder / "0/c/0/0").read_bytes())
    struct.pack_into("<QQ", data, 16, start, length)
    (folder / "0/c/0/0").write_bytes(data)
    assert "has chunks that are larger than it or than their pixels" in _refusal(folder)


def test_blosc_within_another_codec_is_refused(tmp_path):
    array = {"codecs": [{"name": "bytes"}, BLOSC, GZIP]}
    folder = write_zarr(tmp_path / "a.zarr", GREY, array=array)
    assert _refusal(folder) == "codecs ['bytes', 'blosc', 'gzip'] in this order are not supported"


def test_what_a_chunk_decodes_to_is_bounded_by_tensorstore(tmp_path):
    folder = write_zarr(tmp_path / "a.zarr", GREY, array={"codecs": [{"name": "bytes"}, GZIP]})
    larger = np.zeros((3000, 3000), np.uint8)
    other = write_zarr(tmp_path / "b.zarr", larger, array={"codecs": [{"name": "bytes"}, GZIP], "fill_value": 1})
    (other / "0/c/0/0").rename(folder / "0/c/0/0")
    assert "End of data expected" in _refusal(folder)


def test_files_that_are_no_chunks_do_no_harm(tmp_path):
    folder = write_zarr(tmp_path / "a.zarr", GREY, array={"codecs": [{"name": "bytes"}, BLOSC]})
    for name in (".DS_Store", "0/.DS_Store", "0/c/0/._0"):
        (folder / name).write_bytes(b"\xff" * 40)
    np.testing.assert_array_equal(_read(folder)[0].pixels, GREY)


def test_chunks_of_several_pages_are_decoded_once(tmp_path):
    pixels = _RNG.integers(0, 256, (4, 24, 30), np.uint8)
    folder = write_zarr(tmp_path / "a.zarr", pixels, axes="zyx", chunks=(4, 24, 30))
    frames = image_files.read(folder)
    first = next(frames)
    (folder / "0/c/0/0/0").unlink()
    np.testing.assert_array_equal([first.pixels, *(frame.pixels for frame in frames)], pixels)
