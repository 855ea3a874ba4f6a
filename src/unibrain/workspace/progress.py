"""Progress bars and messages, one look for all of them; and how many processor threads may be used."""

import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from unibrain.errors import InputError

_ALL = "OMP_NUM_THREADS"
_VARIABLES = (_ALL, "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_MOST_THREADS = 4096
_SLOW = 30.0
"""Seconds between two lines of a bar in a log."""

_remarks: ContextVar[list[str] | None] = ContextVar("remarks", default=None)

T = TypeVar("T")


@dataclass
class _Screen:
    """What this process shows on standard error: there is one, as there is one standard error."""

    mode: Literal["quiet", "normal", "verbose"] = "normal"
    bars: list[Any] = field(default_factory=list)


_screen = _Screen()


def show(mode: Literal["quiet", "normal", "verbose"]) -> None:
    """Choose what is shown: nothing but errors; lines, and bars on a terminal; or bars in a log as well."""
    _screen.mode = mode


def is_quiet() -> bool:
    """Whether nothing but errors is shown; for libraries that draw bars of their own."""
    return _screen.mode == "quiet"


def say(message: str) -> None:
    """Write one line to standard error, without breaking a progress bar that is being drawn."""
    if _screen.mode == "quiet":
        return
    if _screen.bars:
        _screen.bars[-1].write(message, file=sys.stderr)
    else:
        print(message, file=sys.stderr, flush=True)


def remark(message: str) -> None:
    """Say what belongs on record beside the result, and keep it for the block of `remarks` that is around."""
    say(message)
    kept = _remarks.get()
    if kept is not None and message not in kept:
        kept.append(message)


@contextmanager
def remarks() -> Iterator[list[str]]:
    """Collect what `remark` is told in a block, each once."""
    found: list[str] = []
    token = _remarks.set(found)
    try:
        yield found
    finally:
        _remarks.reset(token)


def end_bars() -> None:
    """Leave the line of bars that an error has cut short, so that its message starts a line of its own."""
    while _screen.bars:
        _screen.bars.pop().close()


def track(
    iterable: Iterable[T], description: str, total: int | None = None, unit: str = "it"
) -> Generator[T, None, None]:
    """Iterate with a progress bar on standard error, if somebody looks: on a terminal.

    `total` is needed where `iterable` has no length, and `unit` is what one item is called.
    """
    seen = sys.stderr is not None and sys.stderr.isatty()
    if _screen.mode == "quiet" or not (seen or _screen.mode == "verbose"):
        yield from iterable
        return
    from tqdm import tqdm

    bar = tqdm(
        iterable,
        desc=f"{description:<24}",
        total=total,
        unit=f" {unit}",
        file=sys.stderr,
        dynamic_ncols=True,
        mininterval=0.5 if seen else _SLOW,
    )
    _screen.bars.append(bar)
    try:
        yield from bar
    finally:
        _screen.bars = [other for other in _screen.bars if other is not bar]
        bar.close()


@contextmanager
def progress_bar(total: int, description: str, unit: str = "it") -> Iterator[Callable[[], None]]:
    """Show a progress bar whose yielded function counts one more of `total`; for what is no loop of ours."""
    ticks = track(range(total), description, unit=unit)
    next(ticks, None)  # a bar counts an item when the next one is asked for

    def advance() -> None:
        next(ticks, None)

    try:
        yield advance
    finally:
        ticks.close()


def limit_threads(threads: int | None, of_product: int | None = None) -> None:
    """Let this process use at most `threads` threads; None leaves everything as it is.

    NumPy's and torch's kernels use `of_product` of them, by default all. The BLAS behind NumPy reads the limit when it
    is first imported, so call this before.
    """
    if threads is None:
        return
    if not 1 <= threads <= _MOST_THREADS:
        raise InputError(
            f"threads is {str(threads)[:20]}, and has to be from 1 to {_MOST_THREADS}. Leave it out to use all of them."
        )
    for variable in _VARIABLES:
        os.environ[variable] = str(of_product or threads)
    os.environ[_ALL] = str(threads)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(of_product or threads)


def usable_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_threads() -> int:
    """Processor threads that this process may use: what `limit_threads` or the environment says, or all."""
    given = os.environ.get(_ALL, "")
    return max(1, int(given)) if given.isdecimal() else usable_processors()


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items: a thread makes the next one while the last is used."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]


def readable_seconds(seconds: float) -> str:
    """Write a duration in one unit.

    Examples
    --------
    >>> readable_seconds(0.42), readable_seconds(42), readable_seconds(3900), readable_seconds(200_000)
    ('0.4 s', '42 s', '65 min', '55.6 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
