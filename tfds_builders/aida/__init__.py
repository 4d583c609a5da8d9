"""AIDA_HEp-2: images with one or several consensus patterns."""
