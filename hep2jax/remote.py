"""Work directories and prepared data sets in object storage: `gs://BUCKET/FOLDER` and `s3://BUCKET/FOLDER`.

Object stores know no appending, no renaming and no locks, and Orbax writes to few of them. A command therefore works
in a local copy of its work directory. What changes there is uploaded every few seconds and at the end.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import tempfile
import threading
from collections.abc import Collection, Iterator
from typing import Any

import fsspec
import jax

from hep2jax import progress, stopping
from hep2jax.errors import RunError, UsageError, one_line

PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}
"""The schemes that can be used, and the package that fsspec needs for each."""

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)")  # one slash is left of two where a URL became a `pathlib.Path`
_LAST = "_CHECKPOINT_METADATA"
"""The file without which a checkpoint is not complete: the last to be uploaded, and the first to be deleted."""

_PROBE = ".writable"

SECONDS = 10.0
"""Between two uploads."""


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path names object storage, or anything else that is not on a file system."""
    return _URL.fullmatch(os.fspath(path)) is not None


def local_folder(path: str | os.PathLike[str], key: str) -> pathlib.Path:
    """The path, if it is on a file system. Raises UsageError, which names the option `key`, otherwise."""
    if is_url(path):
        raise UsageError(f"{key}={os.fspath(path)}: must be a folder on disk")
    return pathlib.Path(path).expanduser()


def connect(url: str | os.PathLike[str], key: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path there. `key` is the option that messages name.

    Raises:
        UsageError: the scheme is unknown, no bucket is named, or the package or credentials are missing.
    """
    scheme, path = _split(url)
    option = f"{key}={scheme}://{path}"
    if scheme not in PACKAGES:
        known = " or ".join(f"{name}://" for name in PACKAGES)
        raise UsageError(f"{option}: {scheme}:// is not supported; name a folder, or one in {known}")
    if not path:
        raise UsageError(f"{option}: names no bucket")
    with reported(option):
        try:
            # Listings are not cached, because other processes change what is listed.
            return fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True), path
        except ImportError as error:
            raise UsageError(
                f"needs the package {PACKAGES[scheme]}; install it (pip install {PACKAGES[scheme]})"
            ) from error


def _split(url: str | os.PathLike[str]) -> tuple[str, str]:
    match = _URL.fullmatch(os.fspath(url))
    assert match is not None
    return match[1], match[2].rstrip("/")


@contextlib.contextmanager
def reported(option: str) -> Iterator[None]:
    """Let errors in this block leave it as UsageError that names an option: the stores raise errors of many types."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from error
    except Exception as error:
        raise UsageError(f"{option}: cannot be used ({one_line(error)})") from error


@contextlib.contextmanager
def opened(
    directory: str | os.PathLike[str], key: str = "--workdir", *, writes: bool = False
) -> Iterator[pathlib.Path]:
    """A local folder that stands for a work directory: the directory itself, or a copy of one in object storage.

    Messages and errors name the URL, not the copy. With `writes`, what changes in the copy is uploaded.

    Raises:
        UsageError: the directory is a URL that cannot be used, that holds files of something else, or that several
            processes are to write.
        RunError: at the end, not everything could be uploaded; the message says where the copy is.
    """
    if not is_url(directory):
        yield pathlib.Path(directory)
        return
    store, path = connect(directory, key)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix="hep2jax-"))
    name = pathlib.PurePosixPath(path).name.strip(".") or "run"  # the title of the report
    mirror = Mirror(store, path, temporary / name)
    url = f"{_split(directory)[0]}://{path}"
    try:
        with reported(f"{key}={url}"):
            _begin(mirror, writes)
        with _uploads(mirror, url) if writes else contextlib.nullcontext(), progress.called(mirror.local, url):
            yield mirror.local
    finally:
        if not mirror.unsaved:
            shutil.rmtree(temporary, ignore_errors=True)


def _begin(mirror: "Mirror", writes: bool) -> None:
    if writes and jax.process_count() > 1:
        raise UsageError(
            "several processes cannot write to object storage; mount the bucket on every host (Cloud Storage FUSE, "
            "Mountpoint for Amazon S3) and name the folder"
        )
    mirror.download()
    if writes:
        mirror.probe()


@contextlib.contextmanager
def _uploads(mirror: "Mirror", url: str) -> Iterator[None]:
    progress.say(f"{url}: no lock keeps a second run out of object storage; start only one")
    done = threading.Event()
    thread = threading.Thread(target=_upload_often, args=(mirror, url, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        with stopping.deferred():
            done.set()
            thread.join()
            try:
                mirror.upload()
            except Exception as error:
                mirror.unsaved = True
                raise RunError(
                    f"{url}: the upload failed ({one_line(error)}); copy {mirror.local} there, or start again"
                ) from error


def _upload_often(mirror: "Mirror", url: str, done: threading.Event) -> None:
    failures = 0
    while not done.wait(SECONDS):
        try:
            mirror.upload()
            failures = 0
        except Exception as error:
            failures += 1
            if failures == 2:  # one is no news: a file may be removed while it is uploaded
                progress.warn(f"{url}: uploads fail ({one_line(error)}); the run goes on, and they are tried again")


@dataclasses.dataclass
class Mirror:
    """The local copy of a folder of an object store."""

    store: Any
    """An fsspec file system."""
    root: str
    """The folder in it."""
    local: pathlib.Path
    unsaved: bool = False
    """Whether the copy holds what could not be uploaded."""

    def __post_init__(self) -> None:
        self._uploaded: dict[str, tuple[int, int] | None] = {}
        """What the store holds, None where that is not known."""

    def download(self) -> None:
        """Copy everything except checkpoints whose upload was not completed; those will be deleted by `upload`."""
        names = listing(self.store, self.root).keys()
        if names and not any(_is_of_a_run(name) for name in names):
            raise UsageError(f"holds files that hep2jax did not write ({min(names)}, ...); choose another")
        self.local.mkdir(parents=True, exist_ok=True)
        whole = [name for name in names if _is_whole(name, names)]
        fetch(self.store, self.root, whole, self.local)
        files = self._files()
        self._uploaded = {name: files.get(name) for name in names}

    def probe(self) -> None:
        """Raise what the store raises if files cannot be written."""
        self.store.pipe_file(f"{self.root}/{_PROBE}", b"\n")
        self.store.rm_file(f"{self.root}/{_PROBE}")

    def upload(self) -> None:
        """Make the store hold what the copy holds. A checkpoint is never there in part with its last file."""
        files = self._files()
        changed = {name for name, stamp in files.items() if self._uploaded.get(name) != stamp}
        gone = self._uploaded.keys() - files.keys()
        last = {name for name in changed | gone if name.endswith(_LAST)}
        self._remove(last & changed & self._uploaded.keys())
        for names in (changed - last, changed & last):
            self._put({name: files[name] for name in names})
        for names in (gone & last, gone - last):
            self._remove(names)

    def _files(self) -> dict[str, tuple[int, int]]:
        """Time of the last change (ns) and size (bytes) of every finished file of the copy."""
        found = {}
        for folder, folders, names in os.walk(self.local):
            folders[:] = [name for name in folders if ".orbax-checkpoint-tmp" not in name]
            for name in names:
                if name != ".lock" and not name.endswith(".tmp"):
                    path = pathlib.Path(folder, name)
                    with contextlib.suppress(FileNotFoundError):
                        status = path.stat()
                        found[path.relative_to(self.local).as_posix()] = (status.st_mtime_ns, status.st_size)
        return found

    def _put(self, files: dict[str, tuple[int, int]]) -> None:
        self._uploaded |= dict.fromkeys(files)
        if files:
            self.store.put([str(self.local / name) for name in files], [f"{self.root}/{name}" for name in files])
        self._uploaded |= files

    def _remove(self, names: Collection[str]) -> None:
        if names:
            with contextlib.suppress(FileNotFoundError):
                self.store.rm([f"{self.root}/{name}" for name in names])
        for name in names:
            self._uploaded.pop(name)


def _is_of_a_run(name: str) -> bool:
    return name.startswith("profile/") or pathlib.PurePosixPath(name).name in ("config.json", _PROBE)


def _is_whole(name: str, names: Collection[str]) -> bool:
    """Whether a file is of no checkpoint, or of one whose last file was uploaded."""
    match = re.match(r"(.*/)?checkpoints/[0-9]+/", name)
    return match is None or match[0] + _LAST in names


def listing(store: Any, root: str) -> dict[str, int]:
    """The size in bytes of every file below a folder of an object store, by its path relative to the folder.

    Raises:
        UsageError: a name leads out of the folder.
    """
    prefix = store._strip_protocol(root).rstrip("/") + "/"
    found = {path.removeprefix(prefix): info["size"] for path, info in store.find(prefix, detail=True).items()}
    found = {name: size for name, size in found.items() if name and not name.endswith("/")}  # markers of folders
    for name in found:
        if name.startswith("/") or ".." in name.split("/"):
            raise UsageError(f"holds a file whose name leads out of the folder ({name!r})")
    return found


def fetch(store: Any, root: str, names: Collection[str], folder: pathlib.Path) -> None:
    """Copy files of an object store into a local folder."""
    if names:
        store.get([f"{root}/{name}" for name in names], [str(folder / name) for name in names])
