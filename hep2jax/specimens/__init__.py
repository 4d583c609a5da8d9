"""Systems that classify whole specimens, and the comparison of these systems."""
