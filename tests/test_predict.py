import csv

import cv2
import numpy as np
import pytest

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


def test_a_bad_image_is_named_and_the_rest_goes_on(trained, images, command, tmp_path):
    whole = (images / "grey.png").read_bytes()
    (images / "broken.png").write_bytes(whole[:100])
    (images / "notes.txt").write_text("no image")
    cv2.imwrite(str(images / "deep.png"), np.zeros((40, 40), np.uint16))
    done = command("hep2jax.predict", f"--workdir={trained}", f"--images={images}/*", f"--output={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "3 of 6 images read" in done.stdout
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 3
    for name in ("broken.png", "notes.txt", "deep.png: uint16 pixels"):
        assert any(name in line and line.endswith("left out") for line in lines)


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
