"""A folder of one's own images with a table of their labels."""
