"""Bad input gets one clear line on stderr, exit code 2, and leaves nothing behind; what commands set at their start."""

import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
import types
import warnings

import pytest

from hep2jax import cli, config_files

ROOT = pathlib.Path(__file__).parents[1]
NAMESPACE = "unshare --user --map-root-user --mount sh -c"


def _refused(done) -> str:
    return _one_line(done, code=2)


def _one_line(done, code: int) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("hep2jax: ")
    return lines[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.data.crop_sise=64"], "unknown configuration key 'data.crop_sise': did you mean 'data.crop_size'?"),
        (["--config.train.num_steps=many"], "num_steps"),
        (["--config.model.name=unett"], "nearest is 'unet'"),
        (["--config.optimizer.learning_rate=nan"], "optimizer.learning_rate=nan: must be a finite number"),
        (["--train.num_steps=5"], "did you mean --config.train.num_steps?"),
        (["--confg=x"], "Unknown command line flag 'confg'"),
        (["--mode=trian"], "should be one of"),
        (["stray"], "unexpected argument 'stray'"),
    ],
)
def test_wrong_flags(flags, message, command, tiny_flags, tmp_path):
    line = _refused(command("hep2jax.main", *tiny_flags, *flags, f"--workdir={tmp_path / 'w'}"))
    assert message in line
    assert not (tmp_path / "w").exists()


def test_no_configuration_and_no_such_file(command):
    assert "--config is missing" in _refused(command("hep2jax.main"))
    assert "configs/nothing.py" in _refused(command("hep2jax.main", "--config=configs/nothing.py"))


def test_an_unknown_variant_names_those_that_there_are(command):
    line = _refused(command("hep2jax.main", "--config=configs/resnet.py:publishd"))
    assert "unknown variant 'publishd' of the configuration: its variants are published, icpr2012, icpr2014" in line


@pytest.mark.parametrize(
    ("config", "directory"),
    [("fcn.py", "runs/fcn"), ("fcn.py:", "runs/fcn"), ("resnet.py:published", "runs/resnet-published")],
)
def test_the_work_directory_is_named_after_the_configuration_and_its_variant(config, directory):
    assert "runs/" + config_files.run_name(f"configs/{config}") == directory


def test_help_shows_the_commands_own_flags(command):
    done = command("hep2jax.main", "--help")
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert {"--config", "--workdir", "--mode", "--slices", "--config.train.num_steps=400"} <= set(lines), done.stdout
    assert "grain" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["train", "evaluate", "predict", "view", "profile", "compile", "prepare"]),
        (["profile", "--help"], ["--mode", "--profile_steps", "--config.train.num_steps=400"]),
        (["predict", "--help"], ["--workdir", "--images", "--output"]),
        (["view", "--help"], ["--workdir", "--port", "--images", "--segmenter"]),
        (["prepare", "--help"], ["--name", "--manual_dir"]),
    ],
)
def test_help_of_the_console_command(arguments, words, command):
    done = command("hep2jax", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert {line.split()[0] for line in done.stdout.splitlines() if line.strip()} >= set(words)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no command: name one of train, evaluate, predict, view, export, profile, compile, prepare"),
        (["trian"], "no command 'trian': did you mean 'train'?"),
        (["train", "--config=fnc"], "nearest of the shipped configurations is 'fcn'"),
        (["train", "--config=unet", "--config.model.widht=1"], "did you mean 'model.width'?"),
        (["evaluate", "--profil_steps=3"], "did you mean --profile_steps?"),
        (["predict", "--workdir=w"], "--images is missing"),
        (["view"], "--workdir is missing"),
        (["view", "--workdir=nowhere", "--port=0"], "--workdir=nowhere: holds no run"),
        (["view", "--workdir=nowhere", "--images=nowhere/*.png"], "--images=nowhere/*.png: no image matches"),
        (["view", "--workdir=nowhere", "--port=70000"], "--port"),
        (["prepare", "--name=icpr"], "should be one of"),
    ],
)
def test_wrong_use_of_the_console_command(arguments, message, command):
    assert message in _refused(command("hep2jax", *arguments))


def test_missing_licensed_data_names_the_directory_and_how_to_get_it(command, tmp_path):
    flags = ["--config=configs/fcn.py:icpr2012", f"--config.data.data_dir={tmp_path / 'data'}"]
    line = _refused(command("hep2jax.main", *flags, f"--workdir={tmp_path / 'w'}"))
    assert "mivia.unisa.it" in line
    assert "manual_dir" in line
    empty = tmp_path / "empty"
    empty.mkdir()
    line = _refused(command("hep2jax.main", *flags, f"--config.data.manual_dir={empty}", f"--workdir={tmp_path / 'w'}"))
    assert str(empty) in line
    assert "MIVIA_HEp-2_Images_Dataset" in line


def test_a_foreign_work_directory(command, tiny_flags, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    line = _refused(command("hep2jax.main", *tiny_flags, f"--workdir={tmp_path}"))
    assert "thesis.tex" in line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex"]


def test_a_work_directory_behind_a_url_that_is_not_supported(command, tiny_flags):
    line = _refused(command("hep2jax.main", *tiny_flags, "--workdir=http://host/run"))
    assert "--workdir=http://host/run: http:// is not supported; name a folder, or one in gs:// or s3://" in line
    assert not (ROOT / "http:").exists()


def test_an_unwritable_work_directory(command, tiny_flags, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    line = _refused(command("hep2jax.main", *tiny_flags, f"--workdir={blocked / 'w'}"))
    assert "cannot be written" in line


def test_another_run_in_the_same_directory(command, cell_flags, tmp_path):
    workdir = tmp_path / "w"
    flags = [*cell_flags, f"--workdir={workdir}"]
    assert command("hep2jax.main", *flags).returncode == 0
    line = _refused(command("hep2jax.main", *flags, "--config.seed=7"))
    assert "belongs to another run: seed was 0 and is now 7" in line
    line = _refused(command("hep2jax.main", *flags, "--config.model.width=0.5"))
    assert "another architecture: model.width is 1.0 there and 0.5" in line
    line = _refused(command("hep2jax.main", *flags, "--mode=evaluate", "--config.model.name=vggcell"))
    assert "another architecture: model.name is gao there and vggcell" in line
    assert json.loads((workdir / "config.json").read_text())["seed"] == 0


def test_evaluating_nothing(command, tiny_flags, tmp_path):
    line = _refused(command("hep2jax.main", *tiny_flags, "--mode=evaluate", f"--workdir={tmp_path / 'none'}"))
    assert "holds no run" in line


def test_a_diverging_run_stops_with_the_steps_number(command, cell_flags, tmp_path):
    flags = ["--config.optimizer.learning_rate=1e38", "--config.optimizer.name=sgd", "--config.optimizer.clip_norm=0"]
    flags += ["--config.optimizer.warmup_steps=1", "--config.train.num_steps=8", f"--workdir={tmp_path / 'w'}"]
    done = command("hep2jax.main", *cell_flags, *flags)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("hep2jax: step ")
    assert "loss" in done.stderr
    assert not (tmp_path / "w" / "report").exists()


def test_a_full_disk(compilation_cache, cell_flags, tmp_path):
    """A small file system, mounted by root of a name space of its own, which anyone is where users may have some."""
    disk = tmp_path / "disk"
    disk.mkdir()
    small = f"mount -t tmpfs -o size=1m tmpfs {shlex.quote(str(disk))}"
    if os.system(f"{NAMESPACE} {shlex.quote(small)} 2>/dev/null"):
        pytest.skip("this system gives users no name spaces to mount in")
    flags = ["--config.train.checkpoint_every=2"]
    line = [sys.executable, "-m", "hep2jax.main", *cell_flags, f"--workdir={disk / 'w'}", *flags]
    settings = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(compilation_cache)}
    mounted = [*NAMESPACE.split(), f"{small} && exec {shlex.join(line)}"]
    done = subprocess.run(mounted, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=300)
    line = _one_line(done, code=1)
    assert "no space left" in line
    assert str(disk) in line


def _raised_in(file: str) -> types.SimpleNamespace:
    """What Python hands to its hook for an error that nobody catches, raised in a file of that name."""
    try:
        exec(compile("raise RuntimeError", file, "exec"))
    except RuntimeError as error:
        return types.SimpleNamespace(exc_value=error, exc_traceback=error.__traceback__, object=None)
    raise AssertionError


def test_reads_left_over_from_a_damaged_checkpoint_are_no_news(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    with warnings.catch_warnings():
        cli._ignore_reads_left_over()
    ours = _raised_in("hep2jax/loop.py")
    for unraisable in (_raised_in("uvloop/loop.pyx"), ours, _raised_in("orbax/checkpoint/serialization.py")):
        sys.unraisablehook(unraisable)
    assert reported == [ours]


@pytest.mark.skipif(not platform.libc_ver()[0].startswith("glibc"), reason="the C library is not glibc")
@pytest.mark.parametrize(
    ("platforms", "kept"), [("cpu", True), pytest.param("cuda,cpu", False, marks=pytest.mark.slow)]
)
def test_freed_memory_is_not_fetched_again_on_cpus(platforms: str, kept: bool):
    """Buffers as large as those of a training step, again and again: pages are fetched for the first only."""
    program = """if True:
        import resource
        import numpy as np
        from hep2jax import cli, config_files
        cli.prepare_runtime()
        faults = []
        for _ in range(4):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            np.ones(1 << 26, np.uint8)
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        print(sum(faults[1:]))
    """
    environment = os.environ | {"JAX_PLATFORMS": platforms}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert (int(done.stdout) < 100) == kept


def test_free_memory_goes_back_to_the_system():
    """Of blocks of which every second one is freed, as is the memory of a command that keeps it."""
    script = """
import resource, numpy as np
from hep2jax import cli
def pages(): return int(open("/proc/self/statm").read().split()[1])
cli.prepare_runtime()
blocks = [np.ones(2**17) for _ in range(200)]
del blocks[::2]
before = pages()
cli.return_memory()
print((before - pages()) * resource.getpagesize() / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 80
