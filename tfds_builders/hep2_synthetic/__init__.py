"""Synthetic HEp-2 specimens: the embedded default data set."""
