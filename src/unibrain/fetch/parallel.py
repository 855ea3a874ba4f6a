"""Several downloads at once; the first that fails stops the others."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait

from unibrain.fetch.web import CancelledError, Web

__all__ = ["run_parallel"]


def run_parallel(web: Web, jobs: Iterable[Callable[[], None]], threads: int) -> None:
    """Run jobs in threads.

    Parameters
    ----------
    web : Web
        What the jobs ask over; it is cancelled if one of them fails or the user stops the command.
    jobs : iterable of callable
        Begun in this order.
    threads : int
        How many run at once.

    Raises
    ------
    Exception
        What the first job that failed raised. All threads have ended then.
    """
    failed: list[Exception] = []

    def run(job: Callable[[], None]) -> None:
        try:
            web.check()
            job()
        except CancelledError:
            pass
        except Exception as error:
            failed.append(error)
            # Here and not in the waiting thread: this one would begin its next job before that one wakes.
            web.cancel()

    with ThreadPoolExecutor(threads, thread_name_prefix="fetch") as pool:
        futures = [pool.submit(run, job) for job in jobs]
        try:
            wait(futures)
        except BaseException:
            web.cancel()
            raise
    if failed:
        raise failed[0]
    web.check()
