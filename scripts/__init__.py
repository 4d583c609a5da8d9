"""Commands in addition to the main program: data preparation, benchmarks and tables of results."""
