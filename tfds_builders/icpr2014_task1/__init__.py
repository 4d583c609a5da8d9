"""I3A Task 1 cells (contests at ICIP 2013, ICPR 2014 and ICPR 2016)."""
