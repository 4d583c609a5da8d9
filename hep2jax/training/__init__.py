"""Training: state, step, loop, checkpoints, evaluation, and the work directory."""
