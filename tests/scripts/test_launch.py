"""Launching: manifests and scripts are valid as far as that can be known without a cluster; `local_cluster` runs."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
import yaml

from scripts.launch import gke

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "scripts" / "launch"
VARIANTS = {"queued": ["--queue=lab"], "spot": [], "reserved": ["--reservation=ours"]}
COMMAND = ["--config=configs/fcn.py:published"]


def _manifest(variant: str, *flags: str) -> dict:
    flags = (*flags, *VARIANTS[variant], "--image=registry/hep2jax", "--claim=runs", "--", *COMMAND)
    command = [sys.executable, "-m", "scripts.launch.gke", f"--variant={variant}", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return yaml.safe_load(done.stdout)


def _as_kubernetes_reads_it(value: dict, kind: str) -> dict:
    """What is left of a manifest after Kubernetes' own models have read it: unknown and misplaced keys are gone."""
    client = pytest.importorskip("kubernetes.client", reason="pip install kubernetes, to read manifests as it does")
    api = client.ApiClient()
    return api.sanitize_for_serialization(api.deserialize(json.dumps(value), kind, "application/json"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_jobs_of_a_manifest_are_valid(variant: str):
    jobset = _manifest(variant)
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    [replicated] = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]
    assert _as_kubernetes_reads_it(job, "V1JobTemplateSpec") == job
    wrong = json.loads(json.dumps(job).replace("backoffLimit", "backofLimit"))
    assert _as_kubernetes_reads_it(wrong, "V1JobTemplateSpec") != wrong


def test_what_tells_the_variants_apart():
    queued, spot, reserved = (_manifest(variant) for variant in VARIANTS)
    assert queued["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "lab"}
    assert [jobset["spec"]["suspend"] for jobset in (queued, spot, reserved)] == [True, False, False]
    selectors = [_pod(jobset)["nodeSelector"] for jobset in (queued, spot, reserved)]
    assert [selector.get("cloud.google.com/gke-spot") for selector in selectors] == [None, "true", None]
    assert [selector.get("cloud.google.com/reservation-name") for selector in selectors] == [None, None, "ours"]
    assert [jobset["spec"]["failurePolicy"]["maxRestarts"] for jobset in (queued, spot, reserved)] == [10, 100, 10]


def _pod(jobset: dict) -> dict:
    return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize(("topology", "hosts", "chips"), [("2x4", 1, 8), ("4x4", 4, 4), ("16x16", 64, 4)])
def test_a_slice_has_its_hosts_and_chips(topology: str, hosts: int, chips: int):
    jobset = _manifest("spot", f"--topology={topology}")
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["completions"] == job["parallelism"] == hosts
    assert _pod(jobset)["containers"][0]["resources"]["limits"] == {"google.com/tpu": str(chips)}


def test_hosts_and_chips_add_up():
    for topology, hosts in gke.HOSTS.items():
        rows, columns = map(int, topology.split("x"))
        assert rows * columns == hosts * (8 if hosts == 1 else 4)


def test_the_command_of_a_pod_is_understood(command, tmp_path):
    words = _pod(_manifest("spot"))["containers"][0]["command"]
    assert words[:3] == ["python", "-m", "hep2jax.main"]
    done = command(words[2], *words[3:])  # there is no cluster here
    assert done.returncode == 2
    assert done.stderr.startswith("hep2jax: --distributed: no cluster says who takes part")


def test_a_reservation_belongs_to_its_variant():
    for arguments in (["--variant=reserved"], ["--variant=spot", "--reservation=ours"]):
        with pytest.raises(SystemExit) as end:
            gke.parse([*arguments, "--image=i", "--claim=c"])
        assert end.value.code == 2


@pytest.mark.parametrize("script", ["slurm.sbatch", "compute_engine_tpu.sh"])
def test_shell_scripts(script: str):
    checker = pathlib.Path(sys.executable).with_name("shellcheck")
    subprocess.run(["bash", "-n", LAUNCH / script], check=True)
    done = subprocess.run([checker, LAUNCH / script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def slurm(tmp_path):
    """Runs the batch file with stand-ins for Slurm's commands: `srun` ends with a code, `scontrol` notes its words."""

    def run(code: int) -> tuple[int, str]:
        programs = {"srun": f'echo "$@" > {tmp_path}/ran; exit {code}', "scontrol": f'echo "$@" > {tmp_path}/asked'}
        for name, text in programs.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
            (tmp_path / name).chmod(0o755)
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
        done = subprocess.run(["bash", LAUNCH / "slurm.sbatch", *COMMAND], env=env, cwd=tmp_path)
        assert f"-m hep2jax.main {COMMAND[0]} --distributed" in (tmp_path / "ran").read_text()
        asked = tmp_path / "asked"
        return done.returncode, asked.read_text().strip() if asked.exists() else ""

    return run


@pytest.mark.parametrize(("code", "asked"), [(75, "requeue 7"), (0, ""), (2, ""), (1, "")])
def test_slurm_queues_again_what_was_asked_to_stop(code: int, asked: str, slurm):
    assert slurm(code) == (code, asked)


def _local_cluster(*flags: str, **options) -> subprocess.Popen:
    line = [sys.executable, "-m", "scripts.launch.local_cluster", *flags]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_local_cluster_needs_a_process():
    _, errors = (started := _local_cluster("--processes=0")).communicate()
    assert started.returncode == 2
    assert errors.splitlines() == ["hep2jax: --processes and --devices must be at least 1; --help shows an example"]


@pytest.mark.slow
def test_local_cluster_ends_with_the_highest_code(tmp_path):
    flags = ["--processes=2", "--", "--config=configs/cnn.py", f"--workdir={tmp_path / 'w'}", "--join_timeout=0"]
    output, errors = (started := _local_cluster(*flags)).communicate()
    assert started.returncode == 2
    assert sorted(line[:13] for line in errors.splitlines()) == ["[0] hep2jax: ", "[1] hep2jax: "]
    assert output == ""


@pytest.mark.slow
def test_local_cluster_trains_and_passes_signals_on(cell_flags, compilation_cache, tmp_path):
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(compilation_cache)}
    flags = [*cell_flags, f"--workdir={tmp_path / 'w'}"]
    output, errors = (started := _local_cluster("--devices=2", "--", *flags, env=env)).communicate()
    assert started.returncode == 0, errors
    assert "[0] gao: 51,050 parameters, 4 cpu device(s)" in output.splitlines()
    assert any(line.startswith("[1] process 1 of 2: waiting for") for line in output.splitlines())
    shutil.rmtree(tmp_path / "w")
    started = _local_cluster("--", *flags, "--config.train.num_steps=100000", env=env)
    assert started.stdout is not None
    for line in started.stdout:
        if line.startswith("[0] step"):
            break
    started.send_signal(signal.SIGTERM)
    started.communicate(timeout=60)
    assert started.returncode == 75
