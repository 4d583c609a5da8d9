"""Training batches as a function of the step: one stream, with a plan for each kind of example."""
