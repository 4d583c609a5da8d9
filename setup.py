"""Puts the configurations inside the package, as `hep2jax.configs`; everything else is in pyproject.toml.

They stand at the top of the repository, where users look for them, but `configs` is no name to put into site-packages.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["hep2jax", "hep2jax.*", "tfds_builders", "tfds_builders.*"]), "hep2jax.configs"],
    package_dir={"hep2jax.configs": "configs"},
)
