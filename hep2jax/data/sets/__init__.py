"""Prepared data sets, decoded into memory: fields, cells and labelled images with their annotations."""
