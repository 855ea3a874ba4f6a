"""Ctrl-C and `kill` as one exception that is not lost on its way."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

__all__ = ["Stopped", "stoppable"]

_AGAIN = 0.02


class Stopped(KeyboardInterrupt):
    """Ctrl-C, or being asked to end.

    CPython notes a plain KeyboardInterrupt that passes through `exec` (as it may during an import), and then ends the
    process by a signal, whatever exit code it was given; a class of its own is not noted.
    """


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` in the block on SIGINT (Ctrl-C) and SIGTERM (a cluster's queue, `kill`), so that it cleans up.

    A signal is handled wherever Python happens to be. Inside a weak reference's callback, where h5py spends much of
    its time, Python drops every exception; a `Stopped` that is dropped there is raised once more, a moment later.
    """
    signals = [signal.SIGTERM, signal.SIGALRM]
    # Where Ctrl-C is ignored, as a shell has it for what runs in the background, it stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signals.append(signal.SIGINT)
    hook = sys.unraisablehook

    def again(dropped: "sys.UnraisableHookArgs") -> None:
        if issubclass(dropped.exc_type, Stopped):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        else:
            hook(dropped)

    handlers = {number: signal.signal(number, _stop) for number in signals}
    sys.unraisablehook = again
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            signal.signal(number, handler)
