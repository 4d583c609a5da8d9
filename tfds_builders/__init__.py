"""TFDS builders, one package for each data set; they import nothing of hep2jax and need no TensorFlow."""
