"""Symmetric matrices as narrow bands: ``matrix = basis @ band @ basis.T``, with an orthonormal basis.

That is the first half of an eigendecomposition: nothing but large products (Bischof, Lang and Sun, 2000, "A framework
for symmetric band reduction"). What would follow (a tridiagonal matrix, its eigenvectors, and the way back) waits for
memory and takes twice as long; and a band is solved for a penalty nearly as fast as a diagonal.

A band of r rows is kept as an array of shape (r, 2 * `WIDTH`): `WIDTH` rows after another are a block; its own square
stands to the right, and what couples it with the block before to the left.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

WIDTH = 128
"""Rows of a block. Fewer multiply more slowly, more of them cost more in every solution."""

Doubles = NDArray[np.float64]


def _cut(size: int, width: int = WIDTH) -> Iterator[slice]:
    return (slice(start, min(start + width, size)) for start in range(0, size, width))


def narrow(matrix: Doubles) -> tuple[Doubles, Doubles]:
    """Basis and band of a symmetric matrix, of which the lower triangle is read; overwrites it."""
    n = len(matrix)
    band, products = np.zeros((n, 2 * WIDTH)), []
    # What is still to be subtracted from the rest, as a product left @ right: block by block, when it is read next.
    left, right = np.zeros((n, 0)), np.zeros((0, n))
    for own in _cut(n):
        width, rest = own.stop - own.start, slice(own.stop, n)
        matrix[own.start :, own] -= left @ right[:, :width]
        band[own, WIDTH : WIDTH + width] = _whole(matrix[own, own])
        if rest.start == n:
            break
        left, right = left[width:], right[:, width:]
        # The columns below the block become a triangle by reflections (I - V T V'), and V is kept in their place.
        raw, scales = np.linalg.qr(matrix[rest, own], mode="raw")
        count = len(scales)
        band[rest.start : rest.start + count, :WIDTH] = np.triu(raw.T[:count])
        reflectors = np.tril(raw.T[:, :count])
        reflectors[np.arange(count), np.arange(count)] = 1
        reflectors[:, scales == 0] = 0
        product = np.triu(reflectors.T @ reflectors, 1)
        np.fill_diagonal(product, 1 / np.where(scales == 0, 1, scales))
        product = np.linalg.inv(product)
        matrix[rest, own.start : own.start + count] = reflectors
        products.append(product)
        # The rest from both sides, in half the work of a product: only its lower triangle is kept up to date.
        image, remainder = np.zeros_like(reflectors), matrix[rest, rest]
        for rows in _cut(len(image), 2 * WIDTH):
            block = remainder[rows, : rows.stop]
            block -= left[rows] @ right[:, : rows.stop]
            image[rows] += block[:, : rows.start] @ reflectors[: rows.start]
            image[: rows.start] += block[:, : rows.start].T @ reflectors[rows]
            image[rows] += _whole(block[:, rows.start :]) @ reflectors[rows]
        image = image @ product
        image -= 0.5 * reflectors @ (product.T @ (reflectors.T @ image))
        left, right = np.hstack([reflectors, image]), np.vstack([image.T, reflectors.T])
    basis = np.eye(n)
    for number, product in reversed(list(enumerate(products))):
        start = (number + 1) * WIDTH
        reflectors, rest_of_basis = matrix[start:, start - WIDTH : start - WIDTH + len(product)], basis[start:, start:]
        change = product @ (reflectors.T @ rest_of_basis)
        for rows in _cut(len(reflectors), 2 * WIDTH):
            rest_of_basis[rows] -= reflectors[rows] @ change
    return basis, band


def _whole(lower: Doubles) -> Doubles:
    """The symmetric matrix of a lower triangle."""
    return np.tril(lower) + np.tril(lower, -1).T


def diagonal(values: Doubles) -> Doubles:
    """The band that is a diagonal, such as the one of eigenvalues in their eigenvectors."""
    band = np.zeros((len(values), 2 * WIDTH))
    rows = np.arange(len(values))
    band[rows, WIDTH + rows % WIDTH] = values
    return band


@dataclass(frozen=True)
class Root:
    """Triangular factor L of a band with a penalty, ``L L' = band + alpha I``.

    For each block: its rows, what couples it with the block before, and the inverse of its own triangle.
    """

    blocks: tuple[tuple[slice, NDArray[Any], NDArray[Any]], ...]

    @classmethod
    def of(cls, band: Doubles, alpha: float, dtype: DTypeLike = np.float64) -> "Root":
        """Factorise in double precision, and solve in `dtype`.

        `numpy.linalg.LinAlgError` if band and penalty are not positive definite.
        """
        blocks, inverse = [], np.zeros((WIDTH, WIDTH))
        for rows in _cut(len(band)):
            size = rows.stop - rows.start
            coupling = band[rows, :WIDTH] @ inverse.T
            own = band[rows, WIDTH : WIDTH + size] - coupling @ coupling.T
            own[np.diag_indices(size)] += alpha
            inverse = np.linalg.inv(np.linalg.cholesky(own))
            blocks.append((rows, coupling.astype(dtype, copy=False), inverse.astype(dtype, copy=False)))
        return cls(tuple(blocks))

    def half(self, right: NDArray[Any]) -> NDArray[Any]:
        """``right @ inv(L).T``, in place of `right`, whose rows the band multiplies."""
        before: NDArray[Any] | None = None
        for rows, coupling, inverse in self.blocks:
            part = right[:, rows]
            if before is not None:
                part -= before @ coupling.T
            part[:] = part @ inverse.T
            before = part
        return right

    def whole(self, right: NDArray[Any]) -> NDArray[Any]:
        """``right @ inv(band + alpha I)``, in place of `right`."""
        return self.rest(self.half(right))

    def rest(self, right: NDArray[Any]) -> NDArray[Any]:
        """``right @ inv(L)``, in place of `right`."""
        after: NDArray[Any] | None = None
        for rows, coupling, inverse in reversed(self.blocks):
            part = right[:, rows]
            if after is not None:
                part -= after
            part[:] = part @ inverse
            after = part @ coupling
        return right
