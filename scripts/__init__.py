"""Commands beside the main program: preparation of data, benchmarks, tables."""
