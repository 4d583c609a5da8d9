"""A run whose work directory and data set are in S3, served by moto on this machine."""

import pathlib
import re
import signal

import cv2
import numpy as np
import pytest

from hep2jax import remote
from tests.end_to_end.test_resume import STEPS, _digest, _flags, _signal_after

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    """The settings of the environment with which commands find an S3 server that has a bucket."""
    moto = pytest.importorskip("moto.server", reason="needs the extra 'stores': an S3 server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        remote.connect("s3://bucket", "")[0].mkdir("bucket")
        yield settings
    server.stop()


@pytest.fixture
def run(command, server, tmp_path):
    """Runs a command that makes its local copies in `tmp_path`; it must leave none."""

    def run(module: str, *flags: str, **options):
        return command(module, *flags, env={**server, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}, **options)

    yield run
    assert not list(tmp_path.glob("hep2jax-*"))


def test_stopped_and_continued_in_object_storage(run, command, cell_flags, data_dir, tmp_path):
    """The end is that of a local run; other commands read the work directory, and a data set, from there."""
    store, _ = remote.connect("s3://bucket", "")
    store.put(f"{data_dir}/hep2_synthetic", "bucket/sets/hep2_synthetic", recursive=True)
    flags = [*_flags(cell_flags, "s3://bucket/runs/a"), "--config.data.data_dir=s3://bucket/sets"]
    process = run("hep2jax.main", *flags, start=True)
    copying, line = _signal_after(process, 6, signal.SIGTERM).splitlines()
    assert process.returncode == 75, line
    assert copying.startswith("copying hep2_synthetic/specimens_tiny/1.0.0 from s3://bucket/sets into ")
    match = re.search(r"step (\d+) of 24 is saved in s3://bucket/runs/a; the same command continues from there$", line)
    assert match is not None, line
    assert store.exists(f"bucket/runs/a/checkpoints/{match[1]}/_CHECKPOINT_METADATA")
    resumed = run("hep2jax.main", *flags)
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert f"continuing at step {match[1]} of {STEPS}" in resumed.stdout
    assert "report: s3://bucket/runs/a/report/index.html" in resumed.stdout
    local = command("hep2jax.main", *_flags(cell_flags, tmp_path / "w"))
    assert _digest(resumed.stdout) == _digest(local.stdout)
    steps = [line for line in store.cat_file("bucket/runs/a/metrics.jsonl").splitlines() if b'"train"' in line]
    assert len(steps) == STEPS
    written = {str(path.relative_to(tmp_path / "w")) for path in (tmp_path / "w").rglob("*") if path.is_file()}
    stored = remote.listing(store, "bucket/runs/a").keys()
    assert {_general(name) for name in stored} == {_general(name) for name in written - {".lock"}}
    _evaluate_and_predict(run, flags, store, tmp_path)


def _general(name: str) -> str:
    """A name without what differs between runs: digests and times."""
    return re.sub(r"[0-9a-f]{32}|tfevents\..*", "*", name)


def _evaluate_and_predict(run, flags: list[str], store, tmp_path: pathlib.Path) -> None:
    before = store.cat_file("bucket/runs/a/report/metrics.json")
    store.rm("bucket/runs/a/report", recursive=True)
    done = run("hep2jax.main", *flags, "--mode=evaluate")
    assert (done.returncode, done.stderr) == (0, "")
    assert store.cat_file("bucket/runs/a/report/metrics.json") == before
    cv2.imwrite(str(tmp_path / "cell.png"), np.random.default_rng(0).integers(0, 255, (70, 70), np.uint8))
    images = [f"--images={tmp_path}/*.png", f"--output={tmp_path / 'out'}"]
    done = run("hep2jax.predict", "--workdir=s3://bucket/runs/a", *images)
    assert (done.returncode, done.stderr) == (0, "")
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("url", "settings", "words"),
    [
        ("s3://no-such-bucket/run", {}, "(FileNotFoundError: The specified bucket does not exist)"),
        ("s3://bucket/run", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "Could not connect to the endpoint URL"),
    ],
)
def test_a_store_that_cannot_be_used(url: str, settings: dict[str, str], words: str, server, command, cell_flags):
    done = command("hep2jax.main", *cell_flags, f"--workdir={url}", env={**server, **settings})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"hep2jax: --workdir={url}: cannot be used (")
    assert words in line
