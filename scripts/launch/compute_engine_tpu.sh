#!/bin/bash
# Start-up script of Compute Engine TPU machines, the same on each of them. It reads what to do from the metadata:
#   hep2jax-source    what pip installs, such as git+https://HOST/hep2jax or a wheel in a mounted folder
#   hep2jax-flags     flags of hep2jax.main, such as --config=fcn:published --workdir=/mnt/runs/fcn
#   hep2jax-share     SERVER:/FOLDER of an NFS share, which is mounted at /mnt/runs and holds work directory and data
# The run is a service of systemd. It asks the run to stop when the machine is taken away, and starts it again after an
# end with any exit code other than 0 (done) and 2 (wrong use).
set -euo pipefail

attribute() {
    curl --silent --fail --header 'Metadata-Flavor: Google' \
        "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}

source=$(attribute hep2jax-source)
flags=$(attribute hep2jax-flags)
share=$(attribute hep2jax-share)

mkdir -p /mnt/runs
mountpoint --quiet /mnt/runs || mount -t nfs -o rw,hard "$share" /mnt/runs

if [ ! -x /opt/hep2jax/bin/python ]; then
    python3 -m venv /opt/hep2jax
fi
/opt/hep2jax/bin/python -m pip install --quiet "hep2jax[tpu] @ $source"

cat >/etc/systemd/system/hep2jax.service <<UNIT
[Unit]
Description=hep2jax: a process of a run on several hosts
Wants=network-online.target
After=network-online.target remote-fs.target
StartLimitIntervalSec=0

[Service]
ExecStart=/opt/hep2jax/bin/python -m hep2jax.main $flags --distributed --join_timeout=600
Environment=HOME=/root
WorkingDirectory=/mnt/runs
KillSignal=SIGTERM
TimeoutStopSec=60
Restart=on-failure
RestartSec=10
RestartPreventExitStatus=2
UNIT
systemctl daemon-reload
systemctl start --no-block hep2jax.service
