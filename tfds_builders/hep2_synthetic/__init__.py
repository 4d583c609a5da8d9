"""Synthetic HEp-2 specimens, the default data set, which is generated and needs no files."""
