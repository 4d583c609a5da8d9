"""Work directories in object storage, on fsspec's store in memory; `end_to_end/test_object_storage.py` uses S3."""

import contextlib
import itertools
import json
import pathlib
import re
import shutil
import sys
import time

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import hep2jax
from hep2jax import progress, remote
from hep2jax.errors import RunError, UsageError

LAST = "_CHECKPOINT_METADATA"
_numbers = itertools.count()


class BreakingStore(MemoryFileSystem):
    """Breaks down after `left` changes. It holds the same files as the store in memory."""

    protocol = "breaking"
    left = 0

    @classmethod
    def _change(cls) -> None:
        if not cls.left:
            raise ConnectionError("the store is down")
        cls.left -= 1

    def put_file(self, *arguments, **options):
        self._change()
        super().put_file(*arguments, **options)

    def rm(self, path, recursive=False, maxdepth=None):
        for name in path:
            self._change()
            self.rm_file(name)


@pytest.fixture(autouse=True)
def stores(monkeypatch, tmp_path):
    """Both stores can be named in URLs, and local copies are made in `tmp_path`."""
    fsspec.register_implementation("breaking", BreakingStore, clobber=True)
    monkeypatch.setattr(remote, "PACKAGES", {"memory": "fsspec", "breaking": "fsspec", "gs": "gcsfs"})
    monkeypatch.setattr(BreakingStore, "left", 1000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def folder() -> str:
    """A folder that is empty in both stores."""
    return f"bucket/{next(_numbers)}"


def _write(directory: pathlib.Path, **files: str) -> None:
    for name, text in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _stored(folder: str) -> dict[str, str]:
    store = fsspec.filesystem("memory")
    names = remote.listing(store, folder)
    return {name: store.cat_file(f"{folder}/{name}").decode(errors="replace") for name in names}


def test_a_folder_on_disk_is_the_work_directory_itself(tmp_path):
    with remote.opened(tmp_path / "w", writes=True) as directory:
        assert directory == tmp_path / "w"
    assert not directory.exists()


def test_what_a_run_leaves_is_there_in_the_next_one(folder, tmp_path, capsys):
    with remote.opened(f"memory://{folder}", writes=True) as directory:
        _write(directory, **{"config.json": "{}", "metrics.jsonl": "1\n", "report__index.html": "<p>", ".lock": ""})
        _write(directory, **{"time.json.7.tmp": "{", "checkpoints__4.orbax-checkpoint-tmp-1__state": "x"})
    line = f"memory://{folder}: no lock keeps a second run out of object storage; start only one\n"
    assert capsys.readouterr().out == line
    assert _stored(folder) == {"config.json": "{}", "metrics.jsonl": "1\n", "report/index.html": "<p>"}
    assert list(tmp_path.iterdir()) == []
    with remote.opened(pathlib.Path(f"memory://{folder}/"), writes=True) as directory:
        assert (directory / "report" / "index.html").read_text() == "<p>"
        with (directory / "metrics.jsonl").open("a") as file:
            file.write("2\n")
        (directory / "report" / "index.html").unlink()
    assert _stored(folder) == {"config.json": "{}", "metrics.jsonl": "1\n2\n"}


def test_a_reader_changes_nothing(folder):
    with remote.opened(f"memory://{folder}", writes=True) as directory:
        _write(directory, **{"config.json": "{}"})
    with remote.opened(f"memory://{folder}") as directory:
        _write(directory, **{"config.json": "{1}", "other": ""})
    assert _stored(folder) == {"config.json": "{}"}


def test_files_are_uploaded_during_the_run(folder, monkeypatch):
    monkeypatch.setattr(remote, "SECONDS", 0.05)
    with remote.opened(f"memory://{folder}", writes=True) as directory:
        _write(directory, **{"config.json": "{}"})
        deadline = time.monotonic() + 30
        while not _stored(folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert _stored(folder) == {"config.json": "{}"}


def _checkpoints(local: pathlib.Path, *saves: str) -> None:
    """Write checkpoints; each is named by its step and whatever tells it from others of the step."""
    for save in saves:
        for name in ("state__d__0", "state__d__1", "metrics__metrics", LAST):
            _write(local, **{f"checkpoints__{save[0]}__{name}": save})


@pytest.mark.parametrize("changes", range(24))
def test_whenever_an_upload_breaks_off_what_is_found_is_whole(changes: int, folder, tmp_path, monkeypatch):
    """Checkpoint 1 is removed, 2 is replaced by another one of the same step, and 3 is new."""
    mirror = remote.Mirror(BreakingStore(), folder, tmp_path / "first")
    _write(mirror.local, **{"config.json": "{}"})
    _checkpoints(mirror.local, "1", "2")
    mirror.upload()
    shutil.rmtree(mirror.local / "checkpoints" / "1")
    _checkpoints(mirror.local, "2+", "3")
    monkeypatch.setattr(BreakingStore, "left", changes)
    if changes < 13:  # 1 + 4 + 4 to replace and write; then 4 to remove
        with pytest.raises(ConnectionError):
            mirror.upload()
    else:
        mirror.upload()
    next_start = remote.Mirror(fsspec.filesystem("memory"), folder, tmp_path / "second")
    next_start.download()
    found = {
        path.name: {file.read_text() for file in path.rglob("*") if file.is_file()}
        for path in next_start.local.glob("checkpoints/*")
    }
    assert found
    assert all(
        len(saves) == 1 and len(list((next_start.local / "checkpoints" / step).rglob("*"))) == 7
        for step, saves in found.items()
    )
    if changes >= 13:
        assert found == {"2": {"2+"}, "3": {"3"}}
    next_start.upload()
    assert {name.split("/")[1] for name in _stored(folder) if "/" in name} == set(found)


def test_what_cannot_be_uploaded_is_kept_and_named(folder):
    work = contextlib.ExitStack()
    directory = work.enter_context(remote.opened(f"breaking://{folder}", writes=True))
    _write(directory, **{"config.json": "{}"})
    BreakingStore.left = 0
    with pytest.raises(RunError, match="the upload failed .*the store is down") as raised:
        work.close()
    assert str(directory) in str(raised.value)
    assert (directory / "config.json").exists()


def test_a_store_that_is_down_for_long_is_warned_of_once(folder, monkeypatch, capsys):
    monkeypatch.setattr(remote, "SECONDS", 0.02)
    with remote.opened(f"breaking://{folder}", writes=True) as directory:
        BreakingStore.left = 0
        _write(directory, **{"config.json": "{}"})
        time.sleep(0.5)
        BreakingStore.left = 1000
    (line,) = capsys.readouterr().err.splitlines()
    assert f"breaking://{folder}: uploads fail (ConnectionError: the store is down); the run goes on" in line
    assert _stored(folder) == {"config.json": "{}"}


def test_messages_name_the_url(folder, capsys):
    def work(directory: pathlib.Path) -> None:
        progress.say(f"report: {directory}/report")
        progress.warn(f"{directory} is odd")
        raise UsageError(f"{directory}/x: is bad")

    with pytest.raises(UsageError, match=f"^memory://{folder}/x: is bad$"), remote.opened(f"memory://{folder}") as path:
        work(path)
    out, err = capsys.readouterr()
    assert out == f"report: memory://{folder}/report\n"
    assert err == f"hep2jax: memory://{folder} is odd\n"
    progress.say(str(path))
    assert capsys.readouterr().out == f"{path}\n"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x"])
def test_no_file_leaves_the_work_directory(name: str, folder, tmp_path):
    store = fsspec.filesystem("memory")
    store.pipe_file(f"{folder}/config.json", b"{}")
    store.store[f"/{folder}/{name}"] = store.store[f"/{folder}/config.json"]  # as S3 allows
    with pytest.raises(UsageError, match="leads out of the folder"), remote.opened(f"memory://{folder}"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_files_of_something_else_are_left_alone(folder):
    fsspec.filesystem("memory").pipe_file(f"{folder}/thesis.tex", b"x")
    message = f"^--workdir=memory://{folder}: holds files that hep2jax did not write \\(thesis.tex"
    with pytest.raises(UsageError, match=message), remote.opened(f"memory://{folder}", writes=True):
        pass
    assert _stored(folder) == {"thesis.tex": "x"}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("gs://bucket/run", "--workdir=gs://bucket/run: needs the package gcsfs; install it"),
        ("gs://", "--workdir=gs://: names no bucket"),
        ("http://host/run", "--workdir=http://host/run: http:// is not supported; name a folder, or one in memory://"),
    ],
)
def test_a_url_that_cannot_be_used(url: str, words: str, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not installed
    with pytest.raises(UsageError, match=re.escape(words)), remote.opened(url):
        pass


def test_only_folders_on_disk():
    assert remote.local_folder("~/x", "--output") == pathlib.Path.home() / "x"
    with pytest.raises(UsageError, match="^--output=gs://b/x: must be a folder on disk$"):
        remote.local_folder("gs://b/x", "--output")


@pytest.mark.slow
def test_the_functions_of_the_package(cell_config, folder, tmp_path):
    url = f"memory://{folder}/trial"
    trained = hep2jax.train(cell_config, url)
    files = _stored(f"{folder}/trial")
    assert trained == json.loads(files["report/metrics.json"])
    assert "params_digest" in files["metrics.jsonl"].splitlines()[-1]
    assert "<title>trial: hep2jax report</title>" in files["report/index.html"]
    assert str(tmp_path) not in files["report/index.html"].replace(str(cell_config.data.data_dir), "")
    assert hep2jax.evaluate(url) == trained
    assert list(hep2jax.load(pathlib.Path(url)).classes) == json.loads(files["classes.json"])
    assert list(tmp_path.iterdir()) == []
