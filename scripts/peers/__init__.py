"""The same work in PyTorch, to be timed beside ours: networks, training step, data loader. A benchmark's need only."""
