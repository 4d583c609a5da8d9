"""Systems that read whole specimens, and their comparison."""
