"""Session numbers as people write them."""

import re

from unibrain.errors import InputError

__all__ = ["parse_numbers"]

_MOST = 999


def parse_numbers(text: str, option: str = "--sessions") -> tuple[int, ...]:
    """Read numbers and ranges.

    Parameters
    ----------
    text : str
        For example ``1-37`` or ``1,2,5-7``.
    option : str
        What it was given as, for the message.

    Returns
    -------
    tuple of int
        Ascending, each once.

    Raises
    ------
    InputError
        If it is something else, or a number is 0, or a range ends before it begins.

    Examples
    --------
    >>> parse_numbers("3,1-2")
    (1, 2, 3)
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,6})\s*(?:-\s*([0-9]{1,6})\s*)?", part)
        first = int(match[1]) if match else 0
        last = int(match[2] or match[1]) if match else 0
        if not 1 <= first <= last <= _MOST:
            raise InputError(
                f"{option} is {text!r}, expected numbers from 1 and ranges such as 1-37 or 1,2,5-7: mend it"
            )
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))
