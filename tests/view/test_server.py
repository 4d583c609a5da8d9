"""The server of the page: who is answered, what it takes, and what it gives back."""

import csv
import io
import json
import signal
import sys
import threading
import urllib.parse
import zipfile

import cv2
import numpy as np
import pytest
import tifffile

from hep2jax import view
from hep2jax.errors import UsageError
from hep2jax.view import desk as desks
from hep2jax.view import server
from tests.conftest import REPOSITORY


def _upload(ask, path, name: str | None = None) -> tuple[int, bytes]:
    query = urllib.parse.urlencode({"name": name or path.name})
    return ask("POST", f"/api/images?{query}", path.read_bytes())[:2]


def _read(ask, path) -> dict:
    status, body = _upload(ask, path)
    assert status == 200, body
    return json.loads(body)["images"][-1]


def _unzip(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode())))


def _pixels(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def test_only_who_has_the_token_learns_anything(ask):
    for path in ("/", "/page.js", "/page.css", "/theme.css"):
        assert ask("GET", path, Authorization="")[0] == 200
    for path in ("/api/state", "/api/facts", "/api/results.zip", "/api/images/x/grey.png", "/else"):
        for given in ("", "Bearer wrong", "Bearer ", "secret"):
            assert ask("GET", path, Authorization=given)[0] == 401
    status, body, _ = ask("GET", "/api/facts")
    assert status == 200
    assert json.loads(body)["network"] == "unet"


def test_another_name_of_this_machine_is_refused(ask):
    for host in ("evil.example", "127.0.0.1.evil.example:80", "localhost@evil.example", ""):
        assert ask("GET", "/", Host=host)[0] == 421
    assert ask("GET", "/", Host="localhost:1234")[0] == 200


def test_other_pages_may_change_nothing(ask, image):
    assert ask("POST", "/api/images", image.read_bytes(), Origin="http://evil.example")[0] == 403
    assert ask("DELETE", "/api/images/x", Origin="http://127.0.0.1:1")[0] == 403
    assert ask("DELETE", "/api/images/x", Host="localhost:9", Origin="http://localhost:9")[0] == 204


def test_every_answer_forbids_foreign_scripts_frames_and_copies(ask):
    for path in ("/", "/api/state", "/else"):
        headers = ask("GET", path)[2]
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["server"] is None


def test_an_image_is_read_corrected_and_given_back(ask, image, reader):
    record = _read(ask, image)
    assert (record["name"], record["width"], record["height"]) == (image.name, 210, 150)
    assert record["cells"], "the network of the tests found nothing"
    labels = [cell["label"] for cell in record["cells"]]
    other = (record["cells"][0]["pattern"] + 1) % len(reader.classes)
    wanted = {str(labels[0]): other} | ({str(labels[1]): desks.NOT_A_CELL} if len(labels) > 1 else {})
    path = f"/api/images/{record['key']}"
    assert ask("PUT", f"{path}/corrections", json.dumps(wanted).encode())[0] == 204
    assert json.loads(ask("GET", "/api/state")[1])["images"][0]["corrections"] == wanted

    files = _unzip(ask("GET", "/api/results.zip")[1])
    stem = "b_field_cell"
    assert set(files) == {"predictions.csv", "cells.csv", f"masks/{stem}_cells.png", f"masks/{stem}_classes.png"}
    (row,) = _rows(files["predictions.csv"])
    assert (row["image"], row["pattern"]) == (image.name, record["pattern"])
    cells = _rows(files["cells.csv"])
    assert [int(cell["cell"]) for cell in cells] == labels
    assert [cell["corrected"] for cell in cells[:1]] == [reader.classes[other]]
    reading = reader(cv2.imread(str(image), cv2.IMREAD_GRAYSCALE))
    np.testing.assert_array_equal(_pixels(files[f"masks/{stem}_cells.png"]), reading.cell_labels[0])
    np.testing.assert_array_equal(_pixels(ask("GET", f"{path}/classes.png")[1]), reading.class_masks[0])

    files = _unzip(ask("GET", "/api/corrections-cells.zip")[1])
    name = f"{stem}_cell{labels[0]:04d}.png"
    assert set(files) == {"labels.csv", f"images/{name}", f"masks/{name}"}
    expected = {"image": f"images/{name}", "pattern": reader.classes[other], "mask": f"masks/{name}", "specimen": stem}
    assert _rows(files["labels.csv"]) == [expected | {"intensity": ""}]
    assert (_pixels(files[f"masks/{name}"]) > 0).sum() == record["cells"][0]["area"]

    files = _unzip(ask("GET", "/api/corrections-fields.zip")[1])
    left = np.unique(_pixels(files[f"masks/{stem}.png"])).tolist()
    assert left == [0, *(label for label in labels if wanted.get(str(label)) != desks.NOT_A_CELL)]
    np.testing.assert_array_equal(_pixels(files[f"images/{stem}.png"]), cv2.imread(str(image), cv2.IMREAD_GRAYSCALE))
    assert ask("DELETE", path)[0] == 204
    assert ask("GET", f"{path}/grey.png")[0] == 404


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'{"1": "x"}', b'{"9999": 0}', b'{"1": 99}', b'{"1": -2}', b"9" * 2000000]
)
def test_corrections_that_cannot_be(body: bytes, ask, image):
    record = _read(ask, image)
    assert ask("PUT", f"/api/images/{record['key']}/corrections", body)[0] in (400, 413, 422)
    assert json.loads(ask("GET", "/api/state")[1])["images"][0]["corrections"] == {}


def test_uploads_are_bounded(ask, monkeypatch, tmp_path, image):
    for data, message in ((b"", "is empty"), (b"no image", "not a PNG"), (image.read_bytes()[:300], "damaged")):
        (tmp_path / "x.png").write_bytes(data)
        status, body = _upload(ask, tmp_path / "x.png", "../../etc/None\n.png")
        assert (status, body.startswith(b"None.png: ")) == (422, True), body
        assert message in body.decode()
        assert str(tmp_path).encode() not in body
    monkeypatch.setattr(server, "MAX_BYTES", 1_000)
    assert _upload(ask, image)[0] == 413
    assert ask("POST", "/api/images", iter([b"x" * 600] * 3))[0] == 413  # without a declared length
    monkeypatch.undo()
    monkeypatch.setattr(desks, "MAX_IMAGE_PIXELS", 1_000)
    assert _upload(ask, image)[0] == 422
    monkeypatch.undo()
    monkeypatch.setattr(desks, "MAX_PAGES", 1)
    tifffile.imwrite(tmp_path / "two.tif", np.zeros((2, 20, 20), np.uint8))
    status, body = _upload(ask, tmp_path / "two.tif")
    assert (status, b"more pages" in body) == (422, True)
    monkeypatch.setattr(server, "MAX_UPLOADS", 0)
    assert _upload(ask, image)[0] == 503


def test_the_page_forgets_the_oldest_image_without_corrections(ask, monkeypatch, image):
    monkeypatch.setattr(desks, "MAX_IMAGES", 2)
    first, second = _read(ask, image), _read(ask, image)
    label = first["cells"][0]["label"]
    assert ask("PUT", f"/api/images/{first['key']}/corrections", json.dumps({label: 0}).encode())[0] == 204
    third = _read(ask, image)
    present = [entry["key"] for entry in json.loads(ask("GET", "/api/state")[1])["images"]]
    assert present == [first["key"], third["key"]]
    assert second["key"] not in present
    ask("PUT", f"/api/images/{third['key']}/corrections", json.dumps({label: 0}).encode())
    status, body = _upload(ask, image)
    assert (status, b"full of images with corrections" in body) == (422, True)


def test_the_page_has_no_inline_script_or_style():
    page = (REPOSITORY / "hep2jax" / "view" / "page.html").read_text()
    assert page.count("<script") == 1
    assert "style=" not in page
    assert "://" not in page
    script = (REPOSITORY / "hep2jax" / "view" / "page.js").read_text()
    assert "innerHTML" not in script


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt, also where a shell has started the tests in the background and ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_the_server_has_ended_when_the_command_ends(desk):
    before, main = set(threading.enumerate()), threading.get_ident()
    timer = threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with view.listen(0) as listener, pytest.raises(KeyboardInterrupt):
        server.serve(desk, server.make_app(desk, "secret"), listener, [])
    timer.join()
    assert set(threading.enumerate()) <= before


def test_a_port_that_is_taken():
    with view.listen(0) as listener, pytest.raises(UsageError, match="cannot be used .*--port=0"):
        view.listen(listener.getsockname()[1])


def test_a_missing_framework_is_said_in_one_line(monkeypatch):
    monkeypatch.delitem(sys.modules, "hep2jax.view.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UsageError, match=r"view needs the package uvicorn: pip install 'hep2jax\[view\]'"):
        view._server()
