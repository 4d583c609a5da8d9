"""The page in a real browser: an image is dropped, a cell clicked and corrected, and the corrections downloaded."""

import csv
import io
import pathlib
import zipfile
from collections.abc import Iterator

import pytest

from hep2jax.report import palette
from tests.browser import CHROMIUM, Browser
from tests.view.conftest import TOKEN

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

# The middle of a cell on the screen, at a pixel of the cell itself.
_PLACE = """(() => {
  const cell = state.current.cells.find((cell) => cell.label === %d), box = canvas.getBoundingClientRect();
  const [x, y] = cell.centre.map(Math.round);
  return [x * view.scale + view.x + box.x, y * view.scale + view.y + box.y, x, y];
})()"""
_COLOUR = "[...pen.getImageData(%f * devicePixelRatio, %f * devicePixelRatio, 1, 1).data].slice(0, 3)"


@pytest.fixture(scope="module")
def tab(tmp_path_factory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(tab, page) -> Browser:
    """The page, opened by its link."""
    tab.complaints.clear()
    tab.open(f"http://127.0.0.1:{page}/#{TOKEN}")
    tab.wait("document.querySelector('#status').textContent === 'Ready'")
    return tab


def _set(browser: Browser, selector: str, value: str) -> None:
    browser.run(f"(() => {{ const e = document.querySelector('{selector}'); e.value = '{value}'; e.oninput(); }})()")


def _text(browser: Browser, selector: str) -> str:
    return browser.run(f"document.querySelector('{selector}').innerText")


def _read(browser: Browser, image: pathlib.Path) -> None:
    browser.drop([image])
    browser.wait("document.querySelector('#status').textContent === '1 image read'")
    browser.wait("Boolean(view.base) && document.activeElement !== null")


def _colour_at(browser: Browser, x: float, y: float) -> list[int]:
    left, top = browser.run("(() => { const box = canvas.getBoundingClientRect(); return [box.x, box.y]; })()")
    return browser.run(_COLOUR % (x - left, y - top))


def test_from_a_dropped_image_to_downloaded_corrections(browser, desk, image, reader):
    assert browser.run("location.hash") == ""
    _read(browser, image)
    assert _text(browser, "#name") == image.name  # and no element of that markup
    (entry,) = desk.entries
    cell = max(entry.cells, key=lambda cell: cell["area"])
    x, y, column, row = browser.run(_PLACE % cell["label"])
    pattern = int(entry.reading.class_masks[0][row, column]) - 1
    assert entry.labels[row, column] == cell["label"]

    _set(browser, "#opacity", "1")
    assert _colour_at(browser, x, y) == list(palette.rgb(palette.pattern_colour(pattern)))
    browser.run(f"document.querySelectorAll('#classes input')[{pattern}].click()")
    grey = _colour_at(browser, x, y)
    assert grey[0] == grey[1] == grey[2]
    browser.run(f"document.querySelectorAll('#classes input')[{pattern}].click()")

    browser.click(x, y)
    browser.wait("state.cell !== null")
    assert _text(browser, "#cell-title") == f"Cell {cell['label']}"
    assert reader.classes[cell["pattern"]].replace("_", " ") in _text(browser, "#cell-words")
    assert browser.run("[...crop.getContext('2d').getImageData(0, 0, 160, 160).data].some((v, i) => i % 4 < 3 && v)")
    browser.wait("document.querySelectorAll('#nearest img').length === 6 && nearest.querySelector('img').complete")
    assert browser.run("nearest.querySelector('img').naturalWidth") == 64

    other = (cell["pattern"] + 1) % len(reader.classes)
    for key, words, wanted in (
        (str(other + 1), "1 correction", {cell["label"]: other}),
        ("u", "0 corrections", {}),
        (str(other + 1), "1 correction", {cell["label"]: other}),
    ):
        browser.press(key)
        browser.wait(f"document.querySelector('#corrected').textContent === '{words}'")
        browser.run("saved")
        assert entry.corrections == wanted
    _set(browser, "#area", "1000000")  # leaves out all cells that nobody has corrected
    assert _text(browser, "#words-one") == f"1 {reader.classes[other].replace('_', ' ')}"

    browser.run("document.querySelector('#save-cells').click()")
    with zipfile.ZipFile(browser.downloaded("corrections-cells.zip")) as archive:
        (label,) = csv.DictReader(io.StringIO(archive.read("labels.csv").decode()))
    assert (label["pattern"], label["specimen"]) == (reader.classes[other], "b_field_cell")
    browser.run("document.querySelector('#save-results').click()")
    assert zipfile.ZipFile(browser.downloaded("results.zip")).testzip() is None

    browser.open(f"http://127.0.0.1:{browser.run('location.port')}/")  # this tab still knows the token
    browser.wait("Boolean(view.base)")
    assert _text(browser, "#corrected") == "1 correction"
    assert browser.complaints == []


def test_everything_is_reached_by_keys(browser, desk, image, reader):
    _read(browser, image)
    assert browser.run("document.activeElement.id") == "canvas"
    browser.run("document.querySelector('input, button, [tabindex]').focus()")
    assert browser.run("document.activeElement.id") == "files"
    visited = []
    while "canvas" not in visited:
        browser.press("Tab")
        visited.append(browser.run("document.activeElement.id"))
        assert len(visited) < 10, visited
    browser.press("ArrowRight")
    label = browser.wait("state.cell && state.cell.label")
    browser.press("0")
    browser.wait("document.querySelector('#corrected').textContent === '1 correction'")
    while browser.run("document.activeElement.dataset.pattern") != "1":
        browser.press("Tab")
        assert browser.run("document.activeElement !== document.body"), "no key leads to the patterns"
    browser.press("Enter")
    browser.wait(f"state.current.corrections[{label}] === 1")
    browser.run("saved")
    assert desk.entries[0].corrections == {label: 1}
    assert browser.complaints == []


def test_without_the_token_the_page_shows_nothing(tab, page, desk, image):
    desk.add(image, image.name)
    tab.open(f"http://127.0.0.1:{page}/#wrong")
    tab.wait("document.querySelector('#status').classList.contains('error')")
    assert _text(tab, "#status") == "open the link that hep2jax view printed"
    assert image.name not in tab.run("document.body.innerText")


def test_nothing_is_cut_off_on_a_telephone(browser, image):
    browser.call("Emulation.setDeviceMetricsOverride", width=420, height=800, deviceScaleFactor=1, mobile=True)
    try:
        _read(browser, image)
        browser.run("select(state.current.cells[0])")
        browser.wait("document.querySelectorAll('#nearest img').length === 6")
        assert browser.run("document.documentElement.scrollWidth") == 420
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


def test_answers_that_overtake_each_other_lose_no_image(browser, desk, image, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(image.read_bytes())
    browser.run("""
      const plain = ask, arrived = Promise.withResolvers(), shown = Promise.withResolvers();
      ask = async (path, options) => {  // b.png is sent after a.png is read, and shown before
        if (path.includes("name=b.png")) await arrived.promise;
        const answer = await plain(path, options);
        if (path.includes("name=a.png")) { arrived.resolve(); await shown.promise; }
        if (path.includes("name=b.png")) setTimeout(shown.resolve, 200);
        return answer;
      };
    """)
    browser.drop([tmp_path / "a.png", tmp_path / "b.png"])
    browser.wait("document.querySelector('#status').textContent === '2 images read'")
    assert browser.run("state.images.map((image) => image.name)") == ["a.png", "b.png"]


def test_an_image_is_removed_and_the_next_one_shown(browser, desk, image, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(image.read_bytes())
    browser.drop([tmp_path / "a.png", tmp_path / "b.png"])
    browser.wait("document.querySelector('#status').textContent === '2 images read'")
    browser.run("document.querySelector('#images .open').click()")
    browser.wait("Boolean(view.base) && document.activeElement === canvas")
    assert _text(browser, "#name") == "a.png"
    browser.run("document.querySelector('[aria-label=\"Remove a.png\"]').click()")
    browser.wait("document.querySelector('#name').textContent === 'b.png'")
    assert [entry.name for entry in desk.entries] == ["b.png"]
    browser.run("document.querySelector('[aria-label=\"Remove b.png\"]').click()")
    browser.wait("document.querySelector('#viewer').hidden")
    assert desk.entries == []
    assert browser.complaints == []
