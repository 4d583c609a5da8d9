"""Performance: peak rates of chips, counts of floating-point operations, profiles, and estimates for TPUs."""
