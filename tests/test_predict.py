import pathlib
import re
import struct
import threading
import time
import zlib
from typing import Any

import cv2
import jax
import numpy as np
import pytest
import tifffile
from PIL import Image

import hep2jax
from hep2jax import predict
from hep2jax.errors import RunError, UsageError
from hep2jax.prediction import inputs, specimens
from hep2jax.specimens import nuclear_size
from hep2jax.tasks import Input
from hep2jax.training import steps
from hep2jax.training import workdir as workdirs
from tests import predictions
from tests.tfds_builders.zarr_folders import write_zarr
from tfds_builders import icap
from tfds_builders.hep2_synthetic import generator


@pytest.fixture(scope="module")
def trained(unet_run):
    return unet_run


@pytest.fixture(scope="module")
def image():
    return generator.generate_specimen(1, "homogeneous", "positive", height=150, width=210, fields=1)[0].image


@pytest.fixture
def images(tmp_path, image):
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "grey.png"), image)
    cv2.imwrite(str(folder / "colour.bmp"), np.repeat(image[..., None], 3, axis=-1))
    cv2.imwrite(str(folder / "small.tif"), image[:20, :31])
    return folder


def test_every_image_gets_a_mask_an_overlay_and_a_row(trained, images, command, tmp_path):
    out = tmp_path / "out"
    done = command("hep2jax.predict", f"--workdir={trained}", f"--images={images}/*", f"--output={out}")
    assert done.returncode == 0, done.stderr
    rows = _rows(out)
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
    _check_tables(out, rows)


def _check_tables(out: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """The lines of JSON, the cells and the label masks agree with the table."""
    records, cells = predictions.records(out), predictions.rows(out / "cells.csv")
    for row, record in zip(rows, records, strict=True):
        shared = ("image", "page", "pattern", "num_cells")
        assert {name: row[name] for name in shared} == {name: record[name] for name in shared}
        assert record["probability"] == (row["share"] if record["patterns"] else None)
        shares = np.array(list(record["shares"].values()))
        expected = -sum(p * np.log2(p) for p in shares if p > 0) if record["patterns"] else None
        assert record["entropy"] == (expected and pytest.approx(expected, abs=1e-4))
        own = [cell for cell in cells if cell["image"] == row["image"]]
        labels = cv2.imread(str(out / f"{pathlib.Path(row['image']).stem}_cells.png"), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint16
        assert {cell["cell"]: cell["area"] for cell in own} == dict(
            zip(*(part.tolist() for part in np.unique(labels[labels > 0], return_counts=True)), strict=True)
        )
        assert len(own) == row["num_cells"]
        assert all(cell["top"] <= cell["y"] < cell["bottom"] and 0 < cell["probability"] <= 1 for cell in own)


def _rows(out) -> list[dict[str, Any]]:
    return predictions.rows(out / "predictions.csv")


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
    deep = 'deep, très "<script>".png'
    cv2.imwrite(str(images / deep), field.astype(np.uint16) * 16)
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
    one_page = ["colour.bmp", deep, "grey.jpg", "grey.png", "small.tif"]
    assert read == [(name, 1) for name in one_page] + [("stack.tif", 1), ("stack.tif", 2)]
    names = ["colour", deep[:-4], "grey.jpg", "grey.png", "small", "stack_page001", "stack_page002"]
    assert sorted(path.name for path in out.glob("*_overlay.png")) == [f"{name}_overlay.png" for name in names]
    # 8 bits in 12 are the same picture.
    dim, grey = (cv2.imread(str(out / f"{n}_classes.png"), -1) for n in (deep[:-4], "grey.png"))
    assert np.mean(dim == grey) > 0.99
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "&quot;&lt;script&gt;&quot;.png" in page
    assert page.count("<script") == 1
    assert "deep%2C%20tr%C3%A8s%20%22%3Cscript%3E%22_overlay.png" in page
    assert page.count('src="data:image/jpeg') == len(read)


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
    own = ("a_mask.png", "a_overlay.png", "a_classes.png", "a_cells.png", "index.html", "cells.csv")
    for name in ("a.png", "b.TIF", "c.txt", "b_cells.png", "out/d.png", "deep/e.bmp", "odd[1].png", *own):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(pattern: str, output: str = "out") -> list[str]:
        paths = inputs.find_images(f"{tmp_path}/{pattern}".rstrip("/"), tmp_path / output)
        return [str(pathlib.Path(path).relative_to(tmp_path)) for path in paths]

    assert found("") == ["a.png", "b.TIF", "b_cells.png", "odd[1].png"]
    assert found("", output="") == ["a.png", "b.TIF", "b_cells.png", "odd[1].png"]
    assert found("*") == ["a.png", "b.TIF", "b_cells.png", "c.txt", "odd[1].png"]
    assert found("**/*.*") == ["a.png", "b.TIF", "b_cells.png", "c.txt", "deep/e.bmp", "odd[1].png"]
    assert found("out/*", output="out") == ["out/d.png"]
    assert found("odd[1].png") == ["odd[1].png"]


def test_zarr_folders_that_a_pattern_names(tmp_path):
    plate = ("plate.zarr/A/1/0/.zattrs", "plate.zarr/A/1/0/0/0.0", "plate.zarr/A/1/.zgroup", "plate.zarr/x.png")
    for name in ("a.png", "b.ome.ZARR/zarr.json", "c_mask.zarr/.zattrs", "deep/d.zarr/x.png", "out/e.zarr/x", *plate):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def found(pattern: str) -> list[str]:
        paths = inputs.find_images(f"{tmp_path}/{pattern}".rstrip("/"), tmp_path / "out")
        return [str(pathlib.Path(path).relative_to(tmp_path)) for path in paths]

    assert found("") == ["a.png", "b.ome.ZARR", "plate.zarr"]
    assert found("*") == found("")
    assert found("**/*") == ["a.png", "b.ome.ZARR", "deep/d.zarr", "plate.zarr"]
    assert found("*.ZARR") == found("b.ome.ZARR") == ["b.ome.ZARR"]
    assert found("plate.zarr/*/*/*") == found("plate.zarr/A/1/0") == ["plate.zarr/A/1/0"]
    assert found("plate.zarr/x.png") == found("plate.zarr/*.png") == []


def test_images_that_share_a_stem_have_names_of_their_own(tmp_path):
    names = ["field.bmp", "field.png", "a/b_c.png", "a_b/c.png", "A/c.tif", "other.png", "z.ome.zarr", "p.zarr/A/1/0"]
    expected = ["field.bmp", "field.png", "b_c", "a_b/c.png", "A/c.tif", "other", "z.ome", "0"]
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


def test_a_zarr_folder_is_read_like_a_file_of_the_same_pixels(trained, tmp_path):
    field = generator.generate_specimen(1, "homogeneous", "positive", height=64, width=64, fields=1)[0].image
    cv2.imwrite(str(tmp_path / "x.png"), field)
    write_zarr(tmp_path / "x.ome.zarr", field)
    paths, out = inputs.find_images(str(tmp_path), tmp_path / "out"), tmp_path / "out"
    predict.predict(trained, paths, out)
    assert [pathlib.Path(record["image"]).name for record in predictions.records(out)] == ["x.ome.zarr", "x.png"]
    assert (out / "x.ome_classes.png").read_bytes() == (out / "x_classes.png").read_bytes()


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
    assert [row["page"] for row in _rows(tmp_path / "out")] == [1]


def test_fields_of_one_specimen_are_read_together(trained, images, tmp_path):
    (images / "deeper").mkdir()
    for name, rows in (("deeper/grey.png", slice(75)), ("two.png", slice(75, None))):
        cv2.imwrite(str(images / name), cv2.imread(str(images / "grey.png"), cv2.IMREAD_GRAYSCALE)[rows])
    table = images / "table.csv"
    table.write_text(f"image,specimen,note\n{images}/grey.png,a,\ndeeper/grey.png,b,x\nsmall.tif,a,\ntwo.png,b,\n")
    paths, out = inputs.find_images(f"{images}/**/*.*", tmp_path / "out"), tmp_path / "out"
    paths.remove(str(table))
    predict.predict(trained, paths, out, specimens.read(str(table), paths))
    rows, reader = predictions.rows(out / "specimens.csv"), hep2jax.load(trained)
    assert [(row["specimen"], row["fields"]) for row in rows] == [("b", 2), ("a", 2)]
    for row, names in zip(rows, (("deeper/grey.png", "two.png"), ("grey.png", "small.tif")), strict=True):
        fields = [cv2.imread(str(images / name), cv2.IMREAD_GRAYSCALE) for name in names]
        own = reader.row(reader(fields))
        assert {name: row[name] for name in own} == pytest.approx(own, abs=1e-6)
    order = [record["specimen"] for record in predictions.records(out)]
    assert order == [None, "b", "b", "a", "a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,patient\na.png,1\n", "has no column specimen"),
        ("image,specimen\na.png,1\nz.png,1\n", "line 3: 'z.png': is none of the images"),
        ("image,specimen\na.png,1\nd/a.png,1\na.png,2\n", "line 4: 'a.png' was named before"),
        ("image,specimen\nb.png,1\n", "line 2: 'b.png': 2 of the images have this name"),
        ("image,specimen\na.png,\n", "line 2: names no image or no specimen"),
        ("image,specimen\n" + "x" * 200_000 + ",1\n", "cannot be read"),
        ("", "has no column image and no column specimen"),
    ],
)
def test_a_table_of_specimens_that_does_not_fit(text, message, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    paths = [str(tmp_path / name) for name in ("a.png", "d/a.png", "d/b.png", "e/b.png")]
    with pytest.raises(UsageError, match=f"^--specimens={tmp_path}/t.csv: .*{re.escape(message)}"):
        specimens.read(str(tmp_path / "t.csv"), paths)


def test_other_sizes_compile_nothing(trained, tmp_path):
    """Nor do the second of two readings and of two readers: the tiles of all images have one shape."""
    steps.predict_program.cache_clear()
    shapes = [(64, 64), (20, 31), (150, 210), (64, 300), (99, 65)]
    readers = [hep2jax.load(trained) for _ in range(2)]
    compilations: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compilations.append(name))
    counts = []
    for number, shape in enumerate(shapes):
        readers[number % 2](np.zeros(shape, np.uint8))
        counts.append(sum("backend_compile" in name for name in compilations))
    assert counts == [1] * len(shapes)


def test_decoding_stays_ahead_by_a_bound():
    """The thread waits until images are taken, passes its error on, and ends when nobody reads on."""
    made: list[int] = []

    def images(last: int):
        for number in range(last):
            made.append(number)
            yield _image(number)
        raise OSError("damaged")

    started = threading.active_count()
    groups = inputs.groups(images(100))
    assert [image.file for image in next(groups)] == [0, 1, 2, 3]
    time.sleep(0.2)
    assert len(made) <= 4 + 4 + 2
    groups.close()
    rest = inputs.groups(images(2))
    with pytest.raises(OSError, match="damaged"):
        list(rest)
    time.sleep(0.1)
    assert threading.active_count() == started


def _image(number: int) -> inputs.Image:
    pixels = np.broadcast_to(np.uint8(0), (2000, 2000))
    specimen = "s" if number in (2, 3) else None
    return inputs.Image(path="", page=1, num_pages=1, name="", file=number, specimen=specimen, pixels=pixels, mask=None)


def test_wrong_use(trained, command, tmp_path):
    usual = [f"--images={__file__}", f"--output={tmp_path / 'o'}"]
    for flags, message in (
        ([f"--images={tmp_path}/*.none", f"--output={tmp_path / 'o'}"], "no file matches"),
        ([f"--output={tmp_path / 'o'}"], "--images is missing"),
        ([f"--images={__file__}", "--output=gs://bucket/o"], "--output=gs://bucket/o: must be a folder on disk"),
        ([*usual, "--nuclear_diameter=-2"], "--nuclear_diameter"),
        ([*usual, "--segmenter=w"], "--segmenter: is for networks of cells"),
        ([*usual, "--fields"], "--nuclear_diameter is missing"),
        ([*usual, "--fields", "--nuclear_diameter=20"], "--fields: is for networks of single cells; unet reads fields"),
        ([*usual, f"--specimens={tmp_path}/no.csv"], "no.csv: cannot be read (FileNotFoundError"),
    ):
        done = command("hep2jax.predict", f"--workdir={trained}", *flags)
        assert done.returncode == 2
        assert message in done.stderr
        assert not (tmp_path / "o").exists()


def test_images_are_brought_to_the_size_of_the_training_images(trained, command, image, tmp_path):
    size = workdirs.read_nuclear_size(trained)
    assert size is not None
    assert size.nuclear_diameter is not None
    twice = nuclear_size.resized(image, 2.0)
    reader = hep2jax.load(trained)
    reading = reader(twice, nuclear_diameter=2 * size.nuclear_diameter)
    half = Input(nuclear_size.resized(twice, 0.5))
    expected, _ = next(reader.stream([half], nuclear_size.Scales(None)))
    assert reading.probabilities == expected.probabilities
    assert reading.class_masks[0].shape == reading.cell_labels[0].shape == twice.shape
    assert reading.num_cells == expected.num_cells
    for found, small in zip(reading.cells[0], expected.cells[0], strict=True):
        assert found.area == 4 * small.area
        assert found.box == tuple(2 * side for side in small.box)
        assert found.centre == pytest.approx([2 * place + 0.5 for place in small.centre])
    cv2.imwrite(str(tmp_path / "twice.png"), twice)
    flags = [f"--images={tmp_path / 'twice.png'}", f"--nuclear_diameter={2 * size.nuclear_diameter}"]
    done = command("hep2jax.predict", f"--workdir={trained}", f"--output={tmp_path / 'o'}", *flags)
    assert done.returncode == 0
    assert "they are resized by 0.50" in done.stdout
    written = cv2.imread(str(tmp_path / "o" / "twice_classes.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(written, reading.class_masks[0])
