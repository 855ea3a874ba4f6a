"""Numbers in the sentences of an audit."""

from collections.abc import Iterable

__all__ = ["count", "some"]

_SHOWN = 5


def count(number: int, item: str) -> str:
    """Write a number with its noun.

    Examples
    --------
    >>> count(1, "image"), count(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{number:,} {item}{'' if number == 1 else 's'}"


def some(entries: Iterable[object]) -> str:
    """Write the first few entries.

    Examples
    --------
    >>> some(range(7))
    '0, 1, 2, 3, 4 and 2 more'
    """
    texts = [str(entry) for entry in entries]
    more = len(texts) - _SHOWN
    return ", ".join(texts[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
