"""The errors that a user can mend; `main` turns them into one line and exit code 2."""


class UsageError(Exception):
    """Wrong use or unusable input: says what is wrong, where, and what to do about it."""


class DivergedError(RuntimeError):
    """The loss of a training step is not finite."""
