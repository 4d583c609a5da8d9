"""Batches as a function of the step: of fields, cells, bags of tiles, and fields for joint reading."""
