"""Training, validation and test splits: protocols and split lists."""
