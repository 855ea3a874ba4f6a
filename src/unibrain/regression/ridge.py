"""Ridge regression in the dual form: kernels, their factorisations, and what these predict.

Ridge with an intercept predicts ``y_mean + (x - x_mean) Xc' (Xc Xc' + alpha I)^-1 (Y - y_mean)``, where ``Xc`` are the
centred training scans (Saunders, Gammerman and Vovk, 1998, "Ridge regression learning algorithm in dual variables").
The part in front of the targets is one matrix of shape (new scans, training images), the same for every target. So all
targets share one kernel and one factorisation, and the weights (voxels x targets: 17 GB for one subject of NSD) are
never formed.

Kernels are accumulated and factorised in float64 whatever the data are: that costs no more than a float32 product (the
kernel is symmetric) and keeps small penalties exact. Products with the targets, which are nearly all the work, run in
the targets' own precision (`unibrain.regression.targets`).
"""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from unibrain.errors import InputError
from unibrain.regression.narrow import Root, diagonal, narrow

BLOCK_BYTES = 2**26
"""Largest block of columns that is held in float64 at once: 64 MiB."""


FEW_VOXELS = 0.75
"""Voxels per scan up to which products of voxels are decomposed and not the kernel of scans."""

SMALL, UNSURE = 1e-13, 1e-8
"""Eigenvalues, as shares of the largest: below the first they are rounding errors of 0; eigenvectors of the kernel that
come from products of voxels are exact to about machine precision over this share, too little between the two."""

LEAST_PENALTY = 1e-11
"""Of the trace of a kernel: with a smaller penalty, rounding may leave no Cholesky factor."""


# Where the large products are computed: NumPy's BLAS, or PyTorch on a graphics card


class Backend:
    """The processor, with the BLAS and LAPACK of NumPy and SciPy; arrays go in and come out as NumPy's."""

    def place(self, matrix: NDArray[Any]) -> Any:
        """Keep a matrix where products are computed, to multiply it many times."""
        return np.ascontiguousarray(matrix)

    def multiply(self, placed: Any, block: NDArray[Any]) -> NDArray[Any]:
        """``placed @ block``; a block of columns of a larger matrix is multiplied as it lies, without a copy."""
        product: NDArray[Any] = placed @ block
        return product

    def gram(self, blocks: Iterable[NDArray[np.float64]], n: int) -> NDArray[np.float64]:
        """Sum of ``block @ block.T`` over blocks of shape (n, columns)."""
        from scipy.linalg.blas import dsyrk

        # One triangle, added up in place: half the work of a product.
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

    def narrow(self, kernel: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Basis and band of a kernel; see `unibrain.regression.narrow`."""
        return narrow(kernel.copy())

    def eigh(self, kernel: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eigenvalues, ascending, and eigenvectors, in columns."""
        from scipy.linalg import eigh

        values, vectors = eigh(kernel, check_finite=False, driver="evd")
        return values, vectors

    def cholesky(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Lower triangular factor; `numpy.linalg.LinAlgError` if there is none. `matrix` may be overwritten."""
        from scipy.linalg import cholesky

        # LAPACK wants columns: those of the transpose are the rows here, so it works in place, and its upper factor
        # is the lower one.
        factor: NDArray[np.float64] = cholesky(matrix.T, lower=False, overwrite_a=True, check_finite=False).T
        return factor


CPU = Backend()


class TorchBackend(Backend):
    """A device of PyTorch, in full precision (float32 stays float32, float64 stays float64)."""

    def __init__(self, device: str) -> None:
        import torch

        self._torch, self.device = torch, torch.device(device)

    def place(self, matrix: NDArray[Any]) -> Any:
        """A copy on the device."""
        with warnings.catch_warnings():
            # Read-only memory is only read.
            warnings.simplefilter("ignore", UserWarning)
            return self._torch.from_numpy(np.ascontiguousarray(matrix)).to(self.device)

    def multiply(self, placed: Any, block: NDArray[Any]) -> NDArray[Any]:
        """Send the block, multiply, fetch the product."""
        return _fetched(placed @ self.place(block))

    def gram(self, blocks: Iterable[NDArray[np.float64]], n: int) -> NDArray[np.float64]:
        """Add up on the device."""
        kernel = self._torch.zeros((n, n), dtype=self._torch.float64, device=self.device)
        for block in blocks:
            columns = self.place(block)
            kernel.addmm_(columns, columns.T)
        return _fetched(kernel)

    def narrow(self, kernel: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A diagonal is the narrowest band: devices decompose faster than a host that sends them small products."""
        values, vectors = self.eigh(kernel)
        # C order, as after saving and loading: BLAS rounds differently for another layout.
        return np.ascontiguousarray(vectors), diagonal(np.maximum(values, 0.0))

    def eigh(self, kernel: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """On the device."""
        values, vectors = self._torch.linalg.eigh(self.place(kernel))
        return _fetched(values), _fetched(vectors)

    def cholesky(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """On the device."""
        factor, wrong = self._torch.linalg.cholesky_ex(self.place(matrix))
        if int(wrong):
            raise np.linalg.LinAlgError(f"the leading minor of order {int(wrong)} is not positive definite")
        return _fetched(factor)


def _fetched(tensor: Any) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy()
    return array


def choose_backend(device: str) -> Backend:
    """NumPy for ``"cpu"``, PyTorch for ``"cuda"`` and ``"cuda:N"``; ``"torch"`` is PyTorch on the processor."""
    if device in ("cpu", "torch"):
        return CPU if device == "cpu" else TorchBackend("cpu")
    kind, _, number = device.partition(":")
    if kind != "cuda" or (number and not (number.isdecimal() and len(number) < 4)):
        raise InputError(f"device is {device!r}. Choose cpu, cuda or cuda:N.")
    import torch

    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= cards:
        raise InputError(f"device is {device!r}, but PyTorch finds {cards} CUDA devices. Choose cpu.")
    return TorchBackend(device)


# Kernels and their factorisations


def column_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Cut the columns of a matrix into blocks of at most `BLOCK_BYTES` in float64, and at least one column."""
    width = max(1, BLOCK_BYTES // (8 * max(1, rows)))
    for start in range(0, columns, width):
        yield slice(start, min(start + width, columns))


def centred_kernel(
    X: NDArray[Any], weights: NDArray[np.float64] | None = None, backend: Backend = CPU
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``(X - mean) @ diag(weights) @ (X - mean).T`` of shape (n, n), and the mean over rows, of shape (voxels,).

    Banded ridge weights each voxel with the inverse penalty of its band; ordinary ridge has no weights.
    """
    n, p = X.shape
    mean = np.empty(p)

    def blocks() -> Iterator[NDArray[np.float64]]:
        for block in column_blocks(n, p):
            columns = np.array(X[:, block], dtype=np.float64, order="C")
            mean[block] = columns.mean(axis=0)
            columns -= mean[block]
            if weights is not None:
                columns *= np.sqrt(weights[block])
            yield columns

    return backend.gram(blocks(), n), mean


def cross_kernel(
    X_new: NDArray[Any],
    X: NDArray[Any],
    mean: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
    backend: Backend = CPU,
) -> NDArray[np.float64]:
    """Kernel of shape (m, n) between new and training scans, both less the training mean."""
    kernel = np.zeros((len(X_new), len(X)))
    for block in column_blocks(len(X_new) + len(X), X.shape[1]):
        new = np.ascontiguousarray(X_new[:, block], dtype=np.float64) - mean[block]
        if weights is not None:
            new *= weights[block]
        train = np.array(X[:, block], dtype=np.float64, order="C")
        train -= mean[block]
        kernel += backend.multiply(backend.place(new), train.T)
    return kernel


def too_small(alpha: float) -> InputError:
    """The error of a penalty with which nothing can be predicted for an image that was left out."""
    return InputError(
        f"alpha {alpha:g} is so small beside the scans' kernel that predictions of images left out would be rounding "
        "errors. Give larger ones."
    )


@dataclass(frozen=True)
class Factorisation:
    """A centred training kernel as ``basis @ band @ basis.T``, which serves every alpha.

    The columns of `basis` (n, r) are orthonormal; if they are fewer than n, the kernel is 0 beside them. For `band`
    see `unibrain.regression.narrow`: it is the diagonal of eigenvalues, or not much more.
    """

    basis: NDArray[np.float64]
    band: NDArray[np.float64]

    @property
    def n(self) -> int:
        """Number of training scans."""
        return len(self.basis)

    @property
    def complete(self) -> bool:
        """Whether the basis is of the whole space."""
        return len(self.band) == self.n

    @property
    def largest(self) -> float:
        """A bound on the kernel's largest eigenvalue."""
        return 2 * float(np.abs(self.band).sum(axis=1).max())

    def root(self, alpha: float, dtype: DTypeLike = np.float64) -> Root:
        """What solves the band for one penalty, in that precision."""
        try:
            return Root.of(self.band, alpha, dtype)
        except np.linalg.LinAlgError as error:
            raise too_small(alpha) from error

    def operators(self, cross: NDArray[np.float64], alphas: Iterable[float]) -> dict[float, NDArray[np.float64]]:
        """``cross (K + alpha I)^-1`` of shape (m, n), by alpha: times centred targets, they are centred predictions."""
        projected = cross @ self.basis
        return {alpha: self.root(alpha).whole(projected.copy()) @ self.basis.T for alpha in alphas}


@dataclass(frozen=True)
class CholeskyFactor:
    """Lower triangular factor of ``K + alpha I``: three to ten times faster to compute, but for one alpha only."""

    alpha: float
    factor: NDArray[np.float64]

    @property
    def n(self) -> int:
        """Number of training scans."""
        return len(self.factor)

    def solve(self, right: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
        """``(K + alpha I)^-1 right``."""
        from scipy.linalg import cho_solve

        if alpha != self.alpha:
            raise InputError(f"alpha is {alpha:g}, but the kernel was factorised for {self.alpha:g}. Fit again.")
        # The transpose of rows is columns, as LAPACK wants them: no copy of the factor.
        found: NDArray[np.float64] = cho_solve((self.factor.T, False), right, check_finite=False)
        return found

    def operators(self, cross: NDArray[np.float64], alphas: Iterable[float]) -> dict[float, NDArray[np.float64]]:
        """See `Factorisation`."""
        return {alpha: self.solve(cross.T, alpha).T for alpha in alphas}


Solver = Factorisation | CholeskyFactor
"""What stands for ``(K + alpha I)^-1``, for any alpha or for one."""


def factorise(kernel: NDArray[np.float64], backend: Backend = CPU, smallest: float = float("inf")) -> Factorisation:
    """Factorisation of a symmetric positive semi-definite kernel.

    Where `smallest`, the smallest of given penalties, is so small that rounding leaves no Cholesky factor, the basis is
    that of the eigenvectors, which serves every penalty.
    """
    if smallest >= LEAST_PENALTY * np.trace(kernel):
        return Factorisation(*backend.narrow(kernel))
    values, vectors = backend.eigh(kernel)
    # A centred kernel has rank below n: its zero eigenvalues come back as rounding errors of either sign.
    return Factorisation(np.ascontiguousarray(vectors), diagonal(np.maximum(values, 0.0)))


def factorise_scans(
    X: NDArray[Any], backend: Backend = CPU, smallest: float = float("inf")
) -> tuple[Factorisation, NDArray[np.float64]]:
    """As `factorise`, of the kernel of scans, and their mean; by way of the voxels' products where voxels are fewer."""
    n, p = X.shape
    if p <= FEW_VOXELS * n:
        columns = np.array(X, dtype=np.float64, order="C")
        mean = columns.mean(axis=0)
        columns -= mean
        rows = (columns[block].T for block in column_blocks(p, n))
        values, vectors = backend.eigh(backend.gram(rows, p))
        kept = values > SMALL * values[-1]
        if values[-1] > 0 and values[kept].min() >= UNSURE * values[-1]:
            values = values[kept]
            found = backend.multiply(backend.place(columns), vectors[:, kept]) / np.sqrt(values)
            return Factorisation(np.ascontiguousarray(found), diagonal(values)), mean
    kernel, mean = centred_kernel(X, backend=backend)
    return factorise(kernel, backend, smallest), mean


def factorise_once(kernel: NDArray[np.float64], alpha: float, backend: Backend = CPU) -> Solver:
    """Factorise for one penalty alone, if it is not too small for that; overwrites the kernel."""
    if alpha < LEAST_PENALTY * np.trace(kernel):
        return factorise(kernel, backend, alpha)
    kernel[np.diag_indices_from(kernel)] += alpha
    return CholeskyFactor(alpha, np.ascontiguousarray(backend.cholesky(kernel)))


@dataclass(frozen=True)
class System:
    """One factorised kernel, the targets that it predicts, and the weight of each voxel in it (None without bands)."""

    names: tuple[str, ...]
    weights: NDArray[np.float64] | None
    solver: Solver

    def operators(
        self,
        scans: NDArray[Any],
        betas: NDArray[Any],
        mean: NDArray[np.float64],
        alphas: Iterable[float],
        backend: Backend,
    ) -> dict[float, NDArray[np.float64]]:
        """Operators of shape (scans, training images), by alpha; `betas` and `mean` are those of training."""
        return self.solver.operators(cross_kernel(scans, betas, mean, self.weights, backend), alphas)
