"""Lists of session numbers in words."""

from collections.abc import Iterable

__all__ = ["as_ranges"]


def as_ranges(numbers: Iterable[int]) -> str:
    """Write numbers as ranges.

    Parameters
    ----------
    numbers : iterable of int

    Returns
    -------
    str

    Examples
    --------
    >>> as_ranges([1, 2, 3, 7, 9, 10])
    '1-3, 7, 9-10'
    """
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join("-".join(str(number) for number in part) for part in parts)
