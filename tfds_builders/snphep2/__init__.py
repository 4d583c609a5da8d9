"""SNPHEp-2 cells (Wiliem et al. 2013)."""
