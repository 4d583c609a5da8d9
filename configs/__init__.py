"""Configuration files; `get_config(variant)` returns the default configuration or one of the file's `VARIANTS`."""
