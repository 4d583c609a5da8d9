"""PyTorch versions of networks, training step and data loader, for comparisons of speed in the benchmarks."""
