"""Augmentation: lists of geometric and of intensity operations, the jitter of tone curves, and blends of examples."""
