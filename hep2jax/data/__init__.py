"""From data sets on disk to batches on devices: data sets, splits, augmentation, training streams, tiles."""
