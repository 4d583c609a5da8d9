"""What the documents point to is there: relative links with their anchors, files, and modules of commands."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXAMPLES = ("mynet", "myset")
"""Files with these words in their names are what a reader of the walks through the code is to write."""

_FENCED = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?:\]\(|src=\")([^)\"\s]+)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_FOLDERS = r"(?:\.github|configs|docs|hep2jax|scripts|tests|tfds_builders)"
_FILE = re.compile(_FOLDERS + r"/[\w./-]*?(?:\w\.(?:py|md|yml)\b|/(?=`))")
_MODULE = re.compile(r"-m ((?:hep2jax|scripts)\.[\w.]+)")


def _documents() -> list[pathlib.Path]:
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
    return sorted(path for path in paths if path.parts[0] not in ("runs", "build") and path.parts[0][0] != ".")


def _anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    titles = (title.strip().lower() for title in _HEADING.findall(_FENCED.sub("", text)))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", _documents(), ids=str)
def test_relative_links_lead_somewhere(document: pathlib.Path):
    text = (ROOT / document).read_text()
    for link in _LINK.findall(_FENCED.sub("", text)):
        if re.match(r"https?:|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / document).parent / name if name else ROOT / document
        assert target.exists(), f"{document}: {link}"
        assert not anchor or anchor in _anchors(target.read_text()), f"{document}: {link}"


@pytest.mark.parametrize("document", _documents(), ids=str)
def test_named_files_and_modules_are_there(document: pathlib.Path):
    text = (ROOT / document).read_text()
    modules = [name.replace(".", "/") + ".py" for name in _MODULE.findall(text)]
    for name in [*_FILE.findall(text), *modules]:
        if not any(word in name for word in EXAMPLES):
            assert (ROOT / name).exists(), f"{document}: {name}"


def test_the_documents_are_found():
    assert {pathlib.Path("README.md"), pathlib.Path("docs/data.md")} <= set(_documents())
