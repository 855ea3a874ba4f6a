"""The exceptions that speak to the user."""

from pathlib import Path


class InputError(Exception):
    """A mistake in the input that the user can fix.

    The message is one clear sentence: the file (or option), what is wrong, and what to do. The command line prints it
    without a traceback and exits with code 2.

    Examples
    --------
    >>> raise InputError("betas.csv: 3 columns for 1,500 voxels. Export the betas again.")
    Traceback (most recent call last):
    ...
    unibrain.errors.InputError: betas.csv: 3 columns for 1,500 voxels. Export the betas again.
    """


class UnavailableError(Exception):
    """Something optional is not installed here; the message says what, and which command gets it.

    A score that needs it has no value, and the message stands in its place.
    """


class PlaceError(InputError):
    """Where the shards of a stage were to be done, they cannot be: no scheduler answers, a worker is refused."""


class DamagedFileError(InputError):
    """A file that a stage of the run wrote, and that is now truncated or changed.

    A stage that meets one ends with it, and the stage that wrote the file runs again next time.

    Parameters
    ----------
    path : path-like
        The damaged file.
    message : str
        As for `InputError`.

    Attributes
    ----------
    path : pathlib.Path
    """

    def __init__(self, path: str | Path, message: str) -> None:
        super().__init__(message)
        self.path = Path(path)


class UnfinishedError(Exception):
    """Some shards of a stage could not be done, and all others are.

    The message says which, why, and where their logs are. The command line prints it and exits with code 1.
    """
