"""Starts a run on many hosts: GKE, Compute Engine, Slurm, or several processes of this machine (docs/many-hosts.md)."""
