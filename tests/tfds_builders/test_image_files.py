import io
import pathlib
import struct

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from tfds_builders import image_files
from tfds_builders.image_files import Frame, ImageFileError

_RNG = np.random.default_rng(7)
GREY = _RNG.integers(0, 256, (24, 30), np.uint8)
RGB = _RNG.integers(0, 256, (24, 30, 3), np.uint8)
GREY_16 = _RNG.integers(0, 4096, (24, 30), np.uint16)
RGB_16 = _RNG.integers(0, 65536, (24, 30, 3), np.uint16)


def _pillow(pixels: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _tiff(pixels: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def _cv2_png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()


def _read(data: bytes, folder: pathlib.Path) -> list[Frame]:
    (folder / "image.any").write_bytes(data)
    return list(image_files.read(folder / "image.any"))


_PALETTE = Image.fromarray(RGB).quantize(16)
_CMYK = Image.fromarray(RGB).convert("CMYK")
_RGBA = np.dstack([RGB, GREY])
_PLANES = np.moveaxis(RGB_16, -1, 0)
EXACT = {
    "png": (_pillow(GREY, "PNG"), GREY),
    "png, RGB": (_pillow(RGB, "PNG"), RGB),
    "png, 16 bits": (_cv2_png(GREY_16), GREY_16),
    "png, RGB of 16 bits": (_cv2_png(RGB_16), RGB_16),
    "png, 1 bit": (_pillow(GREY > 99, "PNG"), np.uint8(255) * (GREY > 99)),
    "png, grey with alpha": (_pillow(np.dstack([GREY, GREY]), "PNG"), GREY),
    "png, RGB with alpha": (_pillow(_RGBA, "PNG"), RGB),
    "png, palette": (_pillow(_PALETTE, "PNG"), np.asarray(_PALETTE.convert("RGB"))),
    "bmp": (_pillow(RGB, "BMP"), RGB),
    "bmp, grey": (_pillow(GREY, "BMP"), GREY),
    "tiff, LZW, 16 bits": (_tiff(GREY_16, compression="lzw", predictor=True), GREY_16),
    "tiff, big, tiles, RGB of 16 bits": (_tiff(RGB_16, bigtiff=True, tile=(16, 16), photometric="rgb"), RGB_16),
    "tiff, planes": (_tiff(_PLANES, photometric="rgb", planarconfig="separate", compression="zlib"), RGB_16),
    "tiff, big-endian": (_tiff(GREY_16, byteorder=">", compression="packbits"), GREY_16),
    "tiff, white is zero": (_tiff(GREY, photometric="miniswhite"), 255 - GREY),
    "tiff, alpha": (_tiff(_RGBA, photometric="rgb", extrasamples=["unassalpha"]), RGB),
    "tiff, CMYK": (_pillow(_CMYK, "TIFF"), np.asarray(_CMYK.convert("RGB"))),
    "tiff, palette": (_pillow(_PALETTE, "TIFF"), np.asarray(_PALETTE.convert("RGB"))),
    "tiff, fax": (_pillow(GREY > 99, "TIFF", compression="group4"), np.uint8(255) * (GREY > 99)),
}


@pytest.mark.parametrize("name", EXACT)
def test_pixels_of_every_format(name, tmp_path):
    data, expected = EXACT[name]
    (frame,) = _read(data, tmp_path)
    assert frame.pixels.dtype == expected.dtype
    np.testing.assert_array_equal(frame.pixels, expected)
    assert (frame.page, frame.num_pages, frame.micrometres_per_pixel, frame.significant_bits) == (1, 1, None, None)


def test_lossy_formats(tmp_path):
    smooth = cv2.GaussianBlur(RGB, (0, 0), 5)
    for data in (_pillow(smooth, "JPEG", quality=95), _pillow(smooth, "TIFF", compression="jpeg", quality=95)):
        (frame,) = _read(data, tmp_path)
        assert np.abs(frame.pixels.astype(int) - smooth).max() < 12
    (frame,) = _read(_pillow(Image.fromarray(smooth).convert("CMYK"), "JPEG", quality=95), tmp_path)
    assert np.abs(frame.pixels.astype(int) - smooth).mean() < 5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_undone(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    jpeg = _pillow(GREY, "JPEG", exif=exif, quality=100, subsampling=0)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg))))
    np.testing.assert_array_equal(_read(jpeg, tmp_path)[0].pixels, expected)
    tags = [(274, "H", 1, orientation, True)]
    turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(_pillow(GREY, "PNG", exif=exif)))))
    np.testing.assert_array_equal(_read(_tiff(GREY, extratags=tags), tmp_path)[0].pixels, turned)
    np.testing.assert_array_equal(_read(_pillow(GREY, "PNG", exif=exif), tmp_path)[0].pixels, turned)


def test_pages_are_frames_and_reduced_copies_are_not(tmp_path):
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        file.write(GREY)
        file.write(GREY[::2, ::2], subfiletype=1)
        file.write(RGB_16, photometric="rgb")
    frames = _read(stream.getvalue(), tmp_path)
    assert [(frame.page, frame.num_pages, frame.pixels.shape) for frame in frames] == [
        (1, 2, GREY.shape),
        (2, 2, RGB.shape),
    ]


def test_pixel_size_and_bits_that_files_state(tmp_path):
    stack = np.stack([GREY_16] * 3)
    ome = {"axes": "ZYX", "PhysicalSizeX": 320, "PhysicalSizeXUnit": "nm", "SignificantBits": 12}
    for data, size, bits in (
        (_tiff(stack, ome=True, photometric="minisblack", metadata=ome), 0.32, 12),
        (_tiff(stack, imagej=True, resolution=(2.0, 2.0), metadata={"unit": "um"}), 0.5, None),
        (_tiff(stack, resolution=(72, 72), resolutionunit="inch", photometric="minisblack"), None, None),
        (_tiff(stack, resolution=(31_250, 31_250), resolutionunit="centimeter", photometric="minisblack"), 0.32, None),
        (_tiff(stack, resolution=(50_800, 50_800), resolutionunit="inch", photometric="minisblack"), 0.5, None),
        (_tiff(stack, resolution=(3, 3), resolutionunit="none", photometric="minisblack"), None, None),
    ):
        frames = _read(data, tmp_path)
        assert [frame.page for frame in frames] == [1, 2, 3]
        assert {frame.significant_bits for frame in frames} == {bits}
        assert all(frame.micrometres_per_pixel == (size and pytest.approx(size)) for frame in frames)


def test_ome_metadata_cannot_name_other_files(tmp_path):
    other = tmp_path / "secret.ome.tif"
    other.write_bytes(_tiff(GREY, ome=True))
    data = _tiff(RGB, ome=True, photometric="rgb", metadata={"axes": "YXS"})
    name = f'<TiffData><UUID FileName="{other.name}">urn:uuid:1</UUID></TiffData>'.encode()
    text = tifffile.TiffFile(io.BytesIO(data)).ome_metadata
    assert text is not None
    changed = _tiff(RGB, photometric="rgb", description=text.encode().replace(b"</Pixels>", name + b"</Pixels>"))
    (frame,) = _read(changed, tmp_path)
    np.testing.assert_array_equal(frame.pixels, RGB)


@pytest.mark.parametrize(("top", "bits"), [(200, 8), (1000, 10), (1023, 10), (1024, 12), (4095, 12), (65535, 16)])
def test_levels_of_16_bits_fill_8_by_the_bits_that_are_used(top, bits):
    pixels = np.array([[0, top // 2, top]], np.uint16)
    expected = np.rint(pixels * (255 / (2**bits - 1))).astype(np.uint8)
    np.testing.assert_array_equal(Frame(pixels=pixels).pixels_8_bit, expected)
    stated = Frame(pixels=pixels, significant_bits=14).pixels_8_bit
    np.testing.assert_array_equal(stated, np.rint(pixels * (255 / (2 ** max(bits, 14) - 1))).astype(np.uint8))


def _patched(data: bytes, offset: int, layout: str, *values: int) -> bytes:
    return data[:offset] + struct.pack(layout, *values) + data[offset + struct.calcsize(layout) :]


def _huge_tiff(**tags: int) -> bytes:
    """A TIFF file with values of `ImageWidth` and such replaced by others."""
    data = _tiff(GREY, compression="zlib")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for name, value in tags.items():
            data = _patched(data, file.pages.first.tags[name].valueoffset, "<I", value)
    return data


def _stack_without_pages() -> bytes:
    return _tiff(GREY_16, description="ImageJ=1.53\nimages=20\nslices=20\n", metadata=None)


_JPEG = _pillow(GREY, "JPEG")
_FRAME_HEADER = _JPEG.index(b"\xff\xc0")
REFUSED = {
    "empty": (b"", "the file is empty"),
    "text": (b"not an image", "not a PNG, JPEG, BMP or TIFF image"),
    "gif": (_pillow(GREY, "GIF"), "not a PNG, JPEG, BMP or TIFF image"),
    "tiny": (_pillow(GREY[:7], "PNG"), "30 x 7 pixels: smaller than 8 x 8"),
    "short png": (EXACT["png"][0][:-30], "damaged"),
    "short bmp": (EXACT["bmp"][0][:-30], "damaged"),
    "short jpeg": (_JPEG[:-300], "damaged"),
    "short tiff": (_tiff(GREY_16)[:-30], "cut short"),
    "png whose pixels were changed": (_patched(EXACT["png"][0], 60, "B", 1), "checksum"),
    "enormous bmp": (_patched(EXACT["bmp"][0], 18, "<ii", 14000, 14000), "too large; at most 100 million"),
    "enormous jpeg": (_patched(_JPEG, _FRAME_HEADER + 5, ">HH", 10001, 10001), "10001 x 10001 pixels: too large"),
    "enormous tiff": (_huge_tiff(ImageWidth=14000, ImageLength=14000), "14000 x 14000 pixels: too large"),
    "long tiff": (_huge_tiff(ImageLength=60000), "30 x 60000 pixels: too large"),
    "float tiff": (_tiff(GREY.astype(np.float32)), "float32 with 1 channels; convert it"),
    "five channels": (_tiff(np.dstack([RGB, RGB]), photometric="rgb"), "6 channels; convert it"),
    "WebP in tiff": (_tiff(RGB, compression="webp", photometric="rgb"), "compression WEBP is not supported"),
    "stack without pages": (_stack_without_pages(), "save it as OME-TIFF"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_are_refused_by_one_line(name, tmp_path, capfd):
    data, message = REFUSED[name]
    with pytest.raises(ImageFileError) as caught:
        _read(data, tmp_path)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / 'image.any'}: ")
    assert message in line
    assert "\n" not in line
    assert capfd.readouterr() == ("", "")


def test_files_that_are_not_there_or_have_too_many_pages(tmp_path, monkeypatch):
    with pytest.raises(ImageFileError, match=r"none\.png: No such file or directory"):
        list(image_files.read(tmp_path / "none.png"))
    pages = _tiff(np.stack([GREY] * 3), photometric="minisblack")
    monkeypatch.setattr(image_files, "MAX_PAGES", 2)
    with pytest.raises(ImageFileError, match="more than 2 pages"):
        _read(pages, tmp_path)
    with pytest.raises(ImageFileError, match="has 2 pages instead of one"):
        image_files.read_first(_written(_tiff(np.stack([GREY] * 2), photometric="minisblack"), tmp_path))


def _written(data: bytes, folder: pathlib.Path) -> pathlib.Path:
    (folder / "image.tif").write_bytes(data)
    return folder / "image.tif"
