"""The one exception that speaks to the user."""

__all__ = ["InputError"]


class InputError(Exception):
    """A mistake in the input that the user can mend.

    The message is one sentence: the file (or argument), what was found, what was expected, and what to do. The command
    line prints it without a traceback and exits with code 2.

    Examples
    --------
    >>> raise InputError("betas.csv has 3 columns, expected 1,500 (one per voxel): export the betas again")
    Traceback (most recent call last):
    ...
    unibrain.errors.InputError: betas.csv has 3 columns, expected 1,500 (one per voxel): export the betas again
    """
