"""Prints the JobSet manifest of a run on a TPU v5e slice of Google Kubernetes Engine.

python -m scripts.launch.gke --variant=spot --topology=4x8 --image=IMAGE --claim=runs -- \
    --config=configs/fcn.py:published | kubectl apply -f -

The claim is a volume that all hosts can write, such as Filestore; work directory and data sets lie on it.
docs/many-hosts.md explains the variants, and what restarts what.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import yaml

HOSTS = {"2x4": 1, "4x4": 4, "4x8": 8, "8x8": 16, "8x16": 32, "16x16": 64}
"""By topology of a v5e slice, its hosts. A host of a slice has 4 chips; the only one of 2x4 has 8."""

PORTS = (8471, 8431, 8482)
"""Of the TPU runtime, of its metrics, and of JAX's coordinator."""

WRONG_USE = 2
"""Exit code of a command that would end the same way each time."""


def manifest(options: argparse.Namespace) -> dict[str, Any]:
    """The JobSet."""
    labels = {"kueue.x-k8s.io/queue-name": options.queue} if options.variant == "queued" else {}
    hosts = HOSTS[options.topology]
    job = {
        "backoffLimit": 0,  # a host never restarts alone: the JobSet restarts all of them
        "completionMode": "Indexed",
        "completions": hosts,
        "parallelism": hosts,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": "hep2jax", "operator": "In", "values": [WRONG_USE]},
                }
            ]
        },
        "template": {"spec": _pod(options, 8 if hosts == 1 else 4)},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": options.name,
            "labels": labels,
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "suspend": options.variant == "queued",  # Kueue lets it start
            "failurePolicy": {
                "maxRestarts": options.restarts,
                "rules": [
                    {
                        "name": "wrong-use",
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [{"name": "slice", "replicas": 1, "template": {"spec": job}}],
        },
    }


def _pod(options: argparse.Namespace, chips: int) -> dict[str, Any]:
    selector = {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": options.topology,
    }
    tolerations = [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}]
    if options.variant == "spot":
        selector["cloud.google.com/gke-spot"] = "true"
        spot = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
        tolerations.append(spot)
    elif options.variant == "reserved":
        selector["cloud.google.com/reservation-name"] = options.reservation
    command = [
        "python",
        "-m",
        "hep2jax.main",
        *options.flags,
        "--distributed",
        f"--join_timeout={options.join_timeout}",
    ]
    command += [f"--workdir=/runs/{options.name}", "--config.data.data_dir=/runs/data"]
    container = {
        "name": "hep2jax",
        "image": options.image,
        "command": command,
        "ports": [{"containerPort": port} for port in PORTS],
        "resources": {"limits": {"google.com/tpu": str(chips)}},
        "volumeMounts": [{"name": "runs", "mountPath": "/runs"}],
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 120,  # Spot machines give less than 30 seconds, whatever stands here
        "nodeSelector": selector,
        "tolerations": tolerations,
        "containers": [container],
        "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": options.claim}}],
    }


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; a wrong one ends the command with exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=["queued", "spot", "reserved"], required=True)
    parser.add_argument("--topology", choices=list(HOSTS), default="4x4")
    parser.add_argument("--image", required=True, help="a container image with hep2jax and its extra tpu")
    parser.add_argument("--claim", required=True, help="the persistent volume claim that all hosts can write")
    parser.add_argument("--name", default="hep2jax")
    parser.add_argument("--queue", default="tpu", help="queued: Kueue's local queue (default: tpu)")
    parser.add_argument("--reservation", help="reserved: the name of the reservation")
    parser.add_argument("--restarts", type=int, help="at most; default: 100 on Spot machines, otherwise 10")
    parser.add_argument("--join_timeout", type=int, default=600, help="seconds; images are pulled meanwhile")
    parser.add_argument("flags", nargs="*", help="flags of hep2jax.main, behind --")
    options = parser.parse_args(arguments)
    if (options.variant == "reserved") != (options.reservation is not None):
        parser.error("--reservation belongs to --variant=reserved, which needs it")
    if options.restarts is None:
        options.restarts = 100 if options.variant == "spot" else 10
    return options


if __name__ == "__main__":
    yaml.safe_dump(manifest(parse(sys.argv[1:])), sys.stdout, sort_keys=False)
