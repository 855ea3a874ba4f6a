"""`unibrain doctor`: what this machine and this installation have, and whether libraries compute what they did."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from unibrain.audit import Finding
from unibrain.doctor.fingerprints import RECORD, Bench, compare, read_record


def examine(record: Path = RECORD) -> tuple[Finding, ...]:
    """Examine this installation: threads, devices, memory, weights, and the fingerprints of the libraries.

    Works on the processor in fp32, and takes a few seconds, most of them for importing the libraries.

    Parameters
    ----------
    record : pathlib.Path
        Fingerprints to compare with.

    Returns
    -------
    tuple of Finding
        A fingerprint that moved is a problem; lacking a graphics card or the official weights is a note.

    Raises
    ------
    InputError
        If the record is missing or damaged.
    """
    known = read_record(record)
    from unibrain.backbone.folder import backbone_folder
    from unibrain.doctor.probes import PROBES

    small = backbone_folder("small")
    return (*_machine(), *_weights(small), *compare(PROBES, Bench(small), known))


def _machine() -> Iterator[Finding]:
    import torch

    from unibrain.backbone.devices import choose_device, free_memory, precision_of, total_memory
    from unibrain.backbone.products import FEW_ROWS, UNITS, arithmetic, onednn_from_rows

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("ok", "processor", f"{cores} cores")
    for dtype in UNITS:
        native, why = arithmetic(dtype)
        how = "multiplied as they are" if native else "widened to fp32 in large products"
        yield Finding("ok", f"weights in {precision_of(dtype)}", f"{how}: {why}")
    rows = onednn_from_rows()
    large = "" if math.isinf(rows) else f"; large ones by oneDNN for {rows} to {FEW_ROWS} rows"
    yield Finding("ok", "weights in fp32", f"multiplied by PyTorch's BLAS{large}")
    device = choose_device("auto")
    if device.type == "cpu":
        advice = "nothing, for the small backbone; with the official one a picture takes minutes on a processor"
        yield Finding("note", "device", "cpu: no graphics card that PyTorch can use", advice)
    else:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "Apple"
        yield Finding("ok", "device", f"{device}: {name}")
    for each in {"cpu": torch.device("cpu"), device.type: device}.values():
        sizes = [total_memory(each), free_memory(each)]
        total, free = ("unknown" if size is None else f"{size / 1e9:,.1f} GB" for size in sizes)
        yield Finding("ok", f"memory of {each}", f"{total}, free now {free}", details={"bytes": sizes})


def _weights(small: Path) -> Iterator[Finding]:
    from unibrain.backbone.folder import backbones_home
    from unibrain.weights.manifest import kept_backbones

    home = backbones_home()
    kept = kept_backbones([("small", small)], home)
    for name, folder, about in kept:
        yield Finding("ok", f"weights: {name}", f"{folder}; {about}")
    if all(name != "official" for name, *_ in kept):
        what = f"not in {home}: only the small backbone is there"
        yield Finding("note", "weights: official", what, "unibrain weights fetch official")
