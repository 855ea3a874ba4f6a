"""Several subjects at once: one process each, the processor's cores shared out among them."""

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from unibrain.errors import InputError

__all__ = ["for_each_subject", "threads_per_job"]

S = TypeVar("S")
R = TypeVar("R")


def threads_per_job(jobs: int, cores: int | None = None) -> int:
    """Threads of each of several processes that work at the same time.

    Parameters
    ----------
    jobs : int
        Number of processes, at least 1.
    cores : int, optional
        Cores to share; by default those that this process may use.

    Returns
    -------
    int
        At least 1; together no more than `cores`, unless there are more processes than cores.

    Raises
    ------
    InputError
        If `jobs` is below 1.
    """
    if jobs < 1:
        raise InputError(f"jobs is {jobs}, expected at least 1: choose how many subjects to work on at once")
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


def for_each_subject(work: Callable[[S], R], subjects: Sequence[S], jobs: int = 2) -> list[R]:
    """Call `work` for each subject, several at a time, each in a process of its own with its share of the cores.

    BLAS uses all cores by default: without a limit, two fits at once would run twice as many threads as there are
    cores, and take longer than one after the other. Memory adds up: each fit needs its own kernel.

    Parameters
    ----------
    work : callable
        A function of a module (it is sent to other processes), for example one that loads a subject's scans, fits a
        `BrainDecoder` and saves it.
    subjects : sequence
        What it is called with.
    jobs : int
        How many at a time.

    Returns
    -------
    list
        What it returned, in the order of `subjects`.

    Raises
    ------
    InputError
        If `jobs` is below 1; and whatever `work` raises.

    Examples
    --------
    ``for_each_subject(fit_and_save, [1, 2, 5, 7], jobs=2)``
    """
    threads = threads_per_job(jobs)
    if jobs == 1 or len(subjects) < 2:
        return [work(subject) for subject in subjects]
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # A fresh process: a forked one would inherit the BLAS threads of this one in an undefined state.
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_share, initargs=(threads,)) as pool:
        return list(pool.map(work, subjects))


def _share(threads: int) -> None:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from unibrain.workspace.progress import limit_threads

    limit_threads(threads)
    # What is loaded already does not read the environment again.
    threadpool_limits(threads)
