"""Which examples are trained on and which are measured: protocols and lists."""
