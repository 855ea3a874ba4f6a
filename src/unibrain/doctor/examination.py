"""The whole examination."""

from collections.abc import Sequence
from pathlib import Path

from unibrain.doctor.compare import compare
from unibrain.doctor.dependencies import dependencies
from unibrain.doctor.diagnosis import Diagnosis, Finding, Section
from unibrain.doctor.machine import machine
from unibrain.doctor.optional_data import optional_data
from unibrain.doctor.probe import Bench, Probe
from unibrain.doctor.recorded import RECORD, Record
from unibrain.doctor.weights_found import weights_found

__all__ = ["examine"]


def _fingerprints(record: Record, folder: Path, probes: Sequence[Probe] | None) -> Section:
    if probes is None:
        try:
            from unibrain.doctor.catalogue import PROBES
        except ImportError as error:
            said = f"cannot be computed: {' '.join(str(error).split())}"
            return Section("Fingerprints", (Finding("libraries", "problem", said, "see Dependencies above"),))
        probes = PROBES
    return compare(probes, Bench(folder), record)


def examine(record: Path = RECORD, probes: Sequence[Probe] | None = None) -> Diagnosis:
    """Examine this installation: machine, dependencies, weights, optional data and fingerprints.

    Parameters
    ----------
    record : Path
        Fingerprints to compare with.
    probes : sequence of Probe, optional
        All of them by default.

    Returns
    -------
    Diagnosis

    Raises
    ------
    InputError
        If the record is missing or damaged.

    Notes
    -----
    Works on the processor in fp32, and takes a few seconds, most of them for importing the libraries.
    """
    from unibrain.backbone.storage import backbone_folder

    known = Record.read(record)
    return Diagnosis(
        (
            machine(),
            dependencies(),
            weights_found(),
            optional_data(),
            _fingerprints(known, backbone_folder("small"), probes),
        )
    )
