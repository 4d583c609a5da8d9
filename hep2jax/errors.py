"""The errors that commands report as one line (see `cli.run_app`)."""


def one_line(error: BaseException) -> str:
    """The type and the text of an error, of any library, in one line of bounded length."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


class UsageError(Exception):
    """Wrong use or unusable input (exit code 2); the message says what is wrong, where, and what to do about it."""


class RunError(RuntimeError):
    """A run that is used rightly cannot go on, or did not do all that was asked for (exit code 1)."""


class DivergedError(RunError):
    """The loss of a training step is not finite."""
