"""One file for each experiment that a user would run."""
