"""The errors that commands report as one line (see `cli.run_app`)."""


class UsageError(Exception):
    """Wrong use or unusable input (exit code 2); the message says what is wrong, where, and what to do about it."""


class DivergedError(RuntimeError):
    """The loss of a training step is not finite (exit code 1)."""
