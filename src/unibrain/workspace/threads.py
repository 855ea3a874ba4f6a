"""How many processor threads the numeric libraries may use."""

import os
import sys

from unibrain.errors import InputError

__all__ = ["limit_threads"]

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


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
