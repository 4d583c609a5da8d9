"""I3A Task 2 specimens (contests at ICPR 2014 and ICPR 2016)."""
