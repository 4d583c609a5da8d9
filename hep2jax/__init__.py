"""hep2jax: deep networks that read HEp-2 immunofluorescence images, in JAX."""

__version__ = "0.1.0"
