"""Progress bars and messages, one look for all of them."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["say", "track"]

T = TypeVar("T")


def say(message: str) -> None:
    """Write one line to standard error, without breaking a progress bar that is being drawn."""
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(message, file=sys.stderr)
    else:
        print(message, file=sys.stderr, flush=True)


def track(iterable: Iterable[T], description: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Iterate with a progress bar on standard error.

    Parameters
    ----------
    iterable : iterable
        What to go through.
    description : str
        A word or two in front of the bar.
    total : int, optional
        The number of items, where `iterable` has no length.
    unit : str
        What one item is called.

    Yields
    ------
    object
        The items of `iterable`.
    """
    from tqdm import tqdm

    yield from tqdm(
        iterable,
        desc=f"{description:<24}",
        total=total,
        unit=f" {unit}",
        file=sys.stderr,
        dynamic_ncols=True,
        mininterval=0.5,
    )
