"""Predictions of a fitted decoder, block by block, into memory or onto a disk."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.latents.latents import LATENT_NAMES
from unibrain.latents.stored import StoredLatents
from unibrain.latents.writer import LatentWriter, Storage
from unibrain.regression.backend import choose_backend
from unibrain.regression.rescale import rescaled
from unibrain.regression.stream import Operators, products
from unibrain.regression.targets import shapes_of, targets_of
from unibrain.workspace.progress import track

if TYPE_CHECKING:
    from unibrain.regression.decoder import BrainDecoder

__all__ = ["predict_blocks", "predict_to"]


def predict_blocks(
    decoder: "BrainDecoder", scans: NDArray[Any], done: Mapping[str, int] | None = None
) -> Iterator[tuple[str, slice, NDArray[Any]]]:
    """Predict all latents, reading their training targets once.

    Parameters
    ----------
    decoder : BrainDecoder
        Fitted.
    scans : ndarray of shape (m, voxels)
    done : mapping of str to int, optional
        Columns of each latent that need not be predicted.

    Yields
    ------
    name : str
        Latent.
    block : slice
        Its columns.
    predictions : ndarray of shape (m, columns)
    """
    done = done or {}
    backend, targets = choose_backend(decoder.device), targets_of(decoder.latents_)
    for system in decoder.systems_:
        left = [name for name in system.latents if done.get(name, 0) < targets[name].shape[1]]
        needed = {float(value) for name in left for value in np.unique(decoder.alphas_[name])}
        if not left:
            continue
        by_alpha = system.operators(scans, decoder.betas_, decoder.betas_mean_, sorted(needed), backend)
        operators: Operators | None = None
        for name in track(left, "predict latents", unit="latent") if decoder.verbose else left:
            alpha, compute = decoder.alphas_[name], targets[name].compute
            if operators is None or not operators.serve(alpha, compute):
                operators = Operators(by_alpha, alpha, compute, backend)
            gain = decoder.gain_[name]
            for block, centred, mean, _ in products(operators, targets[name], decoder.memory * 1e9, done.get(name, 0)):
                yield name, block, rescaled(centred, mean, gain[block], decoder.rescale)


def predict_to(
    decoder: "BrainDecoder",
    folder: str | os.PathLike[str],
    scans: NDArray[Any],
    ids: NDArray[np.int64],
    backbone: str,
    fingerprint: str,
    storage: Storage,
    unfinished: str | os.PathLike[str] | None,
) -> None:
    """Write what `predict_blocks` yields; see `unibrain.regression.decoder.BrainDecoder.predict_to`."""
    writer = LatentWriter(
        folder, ids, backbone, fingerprint, storage=storage, key=_identity(decoder, scans), unfinished=unfinished
    )
    writer.begin(shapes_of(decoder.latents_))

    def write(name: str, block: slice, values: NDArray[Any]) -> None:
        writer.write_columns(name, block, values)
        writer.mark(name, block.stop)

    # One block waits for the disk while the next is multiplied. Where to begin is decided now: `done` grows meanwhile.
    with ThreadPoolExecutor(1, "write") as pool:
        written: Future[None] | None = None
        for part in predict_blocks(decoder, scans, dict(writer.done)):
            if written is not None:
                written.result()
            written = pool.submit(write, *part)
        if written is not None:
            written.result()
    writer.finish()


def _identity(decoder: "BrainDecoder", scans: NDArray[Any]) -> str:
    """Digest of everything that the predictions depend on: unfinished ones of anything else are not continued."""
    digest = hashlib.sha256(f"{decoder.rescale} {decoder.device} {scans.shape} {scans.dtype}".encode())
    arrays = [scans, decoder.betas_, decoder.latents_.stimulus_ids]
    for name in LATENT_NAMES:
        arrays += [decoder.alphas_[name], decoder.gain_[name]]
    arrays += [system.weights for system in decoder.systems_ if system.weights is not None]
    latents = decoder.latents_
    if isinstance(latents, StoredLatents):
        digest.update(latents.manifest_sha256.encode())
        arrays.append(latents.row_numbers)
    else:
        arrays += [latents[name] for name in LATENT_NAMES]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
