import csv
import pathlib
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from hep2jax import predict
from hep2jax.errors import RunError
from hep2jax.prediction import inputs
from tfds_builders import icap
from tfds_builders.hep2_synthetic import generator


@pytest.fixture(scope="module")
def trained(command, tiny_flags, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("predict") / "w"
    done = command("hep2jax.main", *tiny_flags, "--config.train.num_steps=4", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    field = generator.generate_specimen(1, "homogeneous", "positive", height=150, width=210, fields=1)[0]
    cv2.imwrite(str(folder / "grey.png"), field.image)
    cv2.imwrite(str(folder / "colour.bmp"), np.repeat(field.image[..., None], 3, axis=-1))
    cv2.imwrite(str(folder / "small.tif"), field.image[:20, :31])
    return folder


def test_every_image_gets_a_mask_an_overlay_and_a_row(trained, images, command, tmp_path):
    out = tmp_path / "out"
    done = command("hep2jax.predict", f"--workdir={trained}", f"--images={images}/*", f"--output={out}", new=True)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert [row["image"].rsplit("/", 1)[1] for row in rows] == ["colour.bmp", "grey.png", "small.tif"]
    assert all(row["icap"] == icap.describe(row["pattern"]) for row in rows)
    for name, shape in (("grey", (150, 210)), ("colour", (150, 210)), ("small", (20, 31))):
        mask = cv2.imread(str(out / f"{name}_classes.png"), cv2.IMREAD_UNCHANGED)
        assert mask.shape == shape
        assert mask.max() <= 8
        assert cv2.imread(str(out / f"{name}_overlay.png")).shape == (*shape, 3)
    # Three equal channels are the same picture as one.
    grey, colour = (cv2.imread(str(out / f"{n}_classes.png"), cv2.IMREAD_UNCHANGED) for n in ("grey", "colour"))
    np.testing.assert_array_equal(grey, colour)


def _rows(out) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _claim(data: bytes, width: int, height: int) -> bytes:
    """A PNG file that claims another size."""
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]


def test_a_hostile_folder_is_read_as_far_as_it_can_be(trained, images, command, tmp_path):
    whole, field = (images / "grey.png").read_bytes(), cv2.imread(str(images / "grey.png"), cv2.IMREAD_GRAYSCALE)
    bad = {
        "broken.png": whole[:100],
        "empty.png": b"",
        "text.png": b"no image",
        "notes.txt": b"no image",
        "tiny.png": cv2.imencode(".png", field[:1, :1])[1].tobytes(),
        "enormous.png": _claim(whole, 14_000, 14_000),
    }
    for name, data in bad.items():
        (images / name).write_bytes(data)
    cv2.imwrite(str(images / "deep, très.png"), field.astype(np.uint16) * 16)
    Image.fromarray(field).convert("CMYK").save(images / "grey.jpg")
    tifffile.imwrite(images / "stack.tif", np.stack([field] * 2))
    for own in ("old_classes.png", "old_overlay.png", "grey_mask.png"):
        cv2.imwrite(str(images / own), field)
    out = images / "out"
    out.mkdir()
    cv2.imwrite(str(out / "left.png"), field)
    done = command("hep2jax.predict", f"--workdir={trained}", f"--images={images}/**", f"--output={out}")
    assert done.returncode == 1, done.stderr
    assert "6 of 12 images read" in done.stdout
    *named, last = done.stderr.strip().splitlines()
    assert last == "hep2jax: 6 of 12 images could not be read, or not completely; they are named above"
    assert sorted(line.split(": ")[1].rsplit("/", 1)[1] for line in named) == sorted(bad)
    read = [(row["image"].rsplit("/", 1)[1], row["page"]) for row in _rows(out)]
    one_page = ["colour.bmp", "deep, très.png", "grey.jpg", "grey.png", "small.tif"]
    assert read == [(name, "1") for name in one_page] + [("stack.tif", "1"), ("stack.tif", "2")]
    names = ["colour", "deep, très", "grey.jpg", "grey.png", "small", "stack_page001", "stack_page002"]
    assert sorted(path.name for path in out.glob("*_overlay.png")) == [f"{name}_overlay.png" for name in names]
    # 8 bits in 12 are the same picture.
    deep, grey = (cv2.imread(str(out / f"{n}_classes.png"), -1) for n in ("deep, très", "grey.png"))
    assert np.mean(deep == grey) > 0.99


def test_nothing_readable_leaves_nothing(trained, command, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    done = command("hep2jax.predict", f"--workdir={trained}", f"--images={tmp_path}", f"--output={tmp_path / 'out'}")
    assert done.returncode == 2
    assert "none of the 1 images could be read; nothing was written" in done.stderr
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written_is_said_before_images_are_read(trained, images, command):
    flags = (f"--workdir={trained}", f"--images={images}", f"--output={images / 'grey.png'}")
    done = command("hep2jax.predict", *flags)
    assert done.returncode == 2
    assert done.stderr.strip() == f"hep2jax: --output={images / 'grey.png'}: cannot be written (File exists)"


def test_files_that_a_pattern_names(tmp_path):
    for name in ("a.png", "b.TIF", "c.txt", "a_mask.png", "a_overlay.png", "out/d.png", "deep/e.bmp", "odd[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(pattern: str, output: str = "out") -> list[str]:
        paths = inputs.find_images(f"{tmp_path}/{pattern}".rstrip("/"), tmp_path / output)
        return [str(pathlib.Path(path).relative_to(tmp_path)) for path in paths]

    assert found("") == ["a.png", "b.TIF", "odd[1].png"]
    assert found("", output="") == ["a.png", "b.TIF", "odd[1].png"]
    assert found("*") == ["a.png", "b.TIF", "c.txt", "odd[1].png"]
    assert found("**/*.*") == ["a.png", "b.TIF", "c.txt", "deep/e.bmp", "odd[1].png"]
    assert found("out/*", output="out") == ["out/d.png"]
    assert found("odd[1].png") == ["odd[1].png"]


def test_images_that_share_a_stem_have_names_of_their_own(tmp_path):
    names = ["field.bmp", "field.png", "a/b_c.png", "a_b/c.png", "A/c.tif", "other.png"]
    expected = ["field.bmp", "field.png", "b_c", "a_b/c.png", "A/c.tif", "other"]
    assert inputs.output_names([f"{tmp_path}/{name}" for name in names]) == expected


def test_a_page_does_not_take_the_name_of_another_image(trained, tmp_path):
    field = generator.generate_specimen(1, "homogeneous", "positive", height=64, width=64, fields=1)[0].image
    tifffile.imwrite(tmp_path / "x.tif", np.stack([field] * 2))
    cv2.imwrite(str(tmp_path / "x_page002.png"), field[:32])
    paths = inputs.find_images(str(tmp_path), tmp_path / "out")
    predict.predict(trained, paths, tmp_path / "out")
    assert len(_rows(tmp_path / "out")) == 3
    heights = {path.stem: cv2.imread(str(path), -1).shape[0] for path in (tmp_path / "out").glob("*_classes.png")}
    assert heights == {"x_page001_classes": 64, "x_page002_classes": 64, "x_page002_2_classes": 32}


def test_a_page_that_is_damaged_leaves_those_before_it(trained, tmp_path, capsys):
    field = generator.generate_specimen(1, "homogeneous", "positive", height=64, width=64, fields=1)[0].image
    tifffile.imwrite(tmp_path / "x.tif", np.stack([field] * 2), compression="zlib")
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        start = file.pages[1].dataoffsets[0]
    data = bytearray((tmp_path / "x.tif").read_bytes())
    data[start : start + 20] = bytes(20)
    (tmp_path / "x.tif").write_bytes(data)
    with pytest.raises(RunError, match="1 of 1 images could not be read, or not completely"):
        predict.predict(trained, [str(tmp_path / "x.tif")], tmp_path / "out")
    assert "x.tif: page 2: not an image, or damaged" in capsys.readouterr().err
    assert [row["page"] for row in _rows(tmp_path / "out")] == ["1"]


def test_wrong_use(trained, command, tmp_path):
    for flags, message in (
        ([f"--images={tmp_path}/*.none", f"--output={tmp_path / 'o'}"], "no file matches"),
        ([f"--output={tmp_path / 'o'}"], "--images is missing"),
        ([f"--images={__file__}", "--output=gs://bucket/o"], "--output=gs://bucket/o: must be a folder on disk"),
    ):
        done = command("hep2jax.predict", f"--workdir={trained}", *flags)
        assert done.returncode == 2
        assert message in done.stderr
        assert not (tmp_path / "o").exists()
