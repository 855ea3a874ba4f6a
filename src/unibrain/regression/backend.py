"""Where the large products are computed: NumPy's BLAS, or PyTorch on a graphics card; the code around is the same."""

import warnings
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError


class Backend(Protocol):
    """Two products and two factorisations; arrays go in and come out as NumPy's."""

    def place(self, matrix: NDArray[Any]) -> Any:
        """Keep a matrix where products are computed, to multiply it many times."""

    def multiply(self, placed: Any, block: NDArray[Any]) -> NDArray[Any]:
        """``placed @ block``."""

    def gram(self, blocks: Iterable[NDArray[np.float64]], n: int) -> NDArray[np.float64]:
        """Sum of ``block @ block.T`` over blocks of shape (n, columns)."""

    def eigh(self, kernel: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eigenvalues, ascending, and eigenvectors, in columns."""

    def cholesky(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Lower triangular factor; `numpy.linalg.LinAlgError` if there is none. `matrix` may be overwritten."""


class NumpyBackend:
    """The processor, with the BLAS and LAPACK of NumPy and SciPy."""

    def place(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """The matrix itself, its rows one after the other."""
        return np.ascontiguousarray(matrix)

    def multiply(self, placed: Any, block: NDArray[Any]) -> NDArray[Any]:
        """A block of columns of a larger matrix is multiplied as it lies, without a copy."""
        product: NDArray[Any] = placed @ block
        return product

    def gram(self, blocks: Iterable[NDArray[np.float64]], n: int) -> NDArray[np.float64]:
        """One triangle, added up in place: half the work of a product."""
        from scipy.linalg.blas import dsyrk

        kernel: NDArray[np.float64] = np.zeros((n, n), order="F")
        for block in blocks:
            kernel = dsyrk(1.0, block.T, beta=1.0, c=kernel, trans=1, lower=1, overwrite_c=1)
        # In row-major eyes the lower triangle is the upper one; copy it across, some rows at a time.
        kernel = kernel.T
        for start in range(0, n, 256):
            stop = min(start + 256, n)
            kernel[stop:, start:stop] = kernel[start:stop, stop:].T
            corner = kernel[start:stop, start:stop]
            corner[:] = np.triu(corner) + np.triu(corner, 1).T
        return kernel

    def eigh(self, kernel: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """By divide and conquer."""
        from scipy.linalg import eigh

        values, vectors = eigh(kernel, check_finite=False, driver="evd")
        return values, vectors

    def cholesky(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """In place."""
        from scipy.linalg import cholesky

        # LAPACK wants columns: those of the transpose are the rows here, so it works in place, and its upper factor
        # is the lower one.
        factor: NDArray[np.float64] = cholesky(matrix.T, lower=False, overwrite_a=True, check_finite=False).T
        return factor


class TorchBackend:
    """A device of PyTorch, in full precision (float32 stays float32, float64 stays float64)."""

    def __init__(self, device: str) -> None:
        import torch

        self._torch = torch
        self.device = torch.device(device)

    def place(self, matrix: NDArray[Any]) -> Any:
        """A copy on the device."""
        with warnings.catch_warnings():
            # Read-only memory is only read.
            warnings.simplefilter("ignore", UserWarning)
            return self._torch.from_numpy(np.ascontiguousarray(matrix)).to(self.device)

    def multiply(self, placed: Any, block: NDArray[Any]) -> NDArray[Any]:
        """Send the block, multiply, fetch the product."""
        product: NDArray[Any] = (placed @ self.place(block)).cpu().numpy()
        return product

    def gram(self, blocks: Iterable[NDArray[np.float64]], n: int) -> NDArray[np.float64]:
        """Add up on the device."""
        kernel = self._torch.zeros((n, n), dtype=self._torch.float64, device=self.device)
        for block in blocks:
            columns = self.place(block)
            kernel.addmm_(columns, columns.T)
        found: NDArray[np.float64] = kernel.cpu().numpy()
        return found

    def eigh(self, kernel: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """On the device."""
        values, vectors = self._torch.linalg.eigh(self.place(kernel))
        return values.cpu().numpy(), vectors.cpu().numpy()

    def cholesky(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """On the device."""
        factor, wrong = self._torch.linalg.cholesky_ex(self.place(matrix))
        if int(wrong):
            raise np.linalg.LinAlgError(f"the leading minor of order {int(wrong)} is not positive definite")
        found: NDArray[np.float64] = factor.cpu().numpy()
        return found


def choose_backend(device: str) -> Backend:
    """NumPy for ``"cpu"``, PyTorch for ``"cuda"`` and ``"cuda:N"``; ``"torch"`` is PyTorch on the processor."""
    if device == "cpu":
        return NumpyBackend()
    if device == "torch":
        return TorchBackend("cpu")
    kind, _, number = device.partition(":")
    if kind != "cuda" or (number and not (number.isdecimal() and len(number) < 4)):
        raise InputError(f"device is {device!r}. Choose cpu, cuda or cuda:N.")
    import torch

    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= cards:
        raise InputError(f"device is {device!r}, but PyTorch finds {cards} CUDA devices. Choose cpu.")
    return TorchBackend(device)
