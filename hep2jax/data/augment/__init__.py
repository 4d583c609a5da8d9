"""Augmentation: geometric operations, intensity operations, jitter of tone curves, and mixup."""
