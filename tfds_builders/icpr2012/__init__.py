"""ICPR 2012 contest cells and specimens (MIVIA HEp-2 images dataset v1.0)."""
