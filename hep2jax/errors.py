"""The errors that commands report as one line (see `cli.run_app`)."""


class UsageError(Exception):
    """Wrong use or unusable input (exit code 2); the message says what is wrong, where, and what to do about it."""


class RunError(RuntimeError):
    """A run that did not do everything that was asked for (exit code 1); the message says what was not done."""


class DivergedError(RunError):
    """The loss of a training step is not finite (exit code 1)."""
