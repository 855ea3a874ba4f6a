"""Progress bars and messages, one look for all of them; and how many processor threads may be used."""

import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from unibrain.errors import InputError

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

T = TypeVar("T")


def say(message: str) -> None:
    """Write one line to standard error, without breaking a progress bar that is being drawn."""
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(message, file=sys.stderr)
    else:
        print(message, file=sys.stderr, flush=True)


def track(
    iterable: Iterable[T], description: str, total: int | None = None, unit: str = "it"
) -> Generator[T, None, None]:
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


@contextmanager
def progress_bar(total: int, description: str, unit: str = "it") -> Iterator[Callable[[], None]]:
    """Show a progress bar whose yielded function counts one more of `total`; for what is no loop of ours."""
    ticks = track(range(total), description, unit=unit)
    next(ticks, None)  # a bar counts an item when the next one is asked for
    try:
        yield lambda: next(ticks, None) and None
    finally:
        ticks.close()


def limit_threads(threads: int | None) -> None:
    """Let NumPy's and torch's kernels use at most `threads` threads in this process.

    Parameters
    ----------
    threads : int or None
        At least 1; None leaves everything as it is. The BLAS behind NumPy reads the limit when it is first imported, so
        call this before.

    Raises
    ------
    InputError
        If `threads` is below 1.
    """
    if threads is None:
        return
    if threads < 1:
        raise InputError(f"threads is {threads}, expected at least 1: leave it out to use all processors")
    for variable in _VARIABLES:
        os.environ[variable] = str(threads)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)
