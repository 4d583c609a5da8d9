"""One file for each thing that a user would run; `get_config(variant)` gives its plain form or one of `VARIANTS`."""
