"""AIDA_HEp-2: whole images with one or several consensus patterns."""
