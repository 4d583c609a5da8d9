"""From prepared data sets to batches: preparation, sources, protocols, geometry, pipeline, feeding, tiles."""
