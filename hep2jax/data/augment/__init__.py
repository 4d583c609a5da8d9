"""Augmentation: one affine matrix for the geometry of an example, and a tone curve for its grey levels."""
