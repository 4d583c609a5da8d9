"""Speed: chips and their peaks, floating-point operations, profiles, and what the TPU compiler says."""
