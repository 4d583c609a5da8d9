"""Handing a trained network over to programs that do not have hep2jax."""
