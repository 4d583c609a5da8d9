"""Prepared data sets, decoded into memory: fields, cells and whole images, each with the truth about it."""
