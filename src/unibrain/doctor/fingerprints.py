"""The examination: what the machine has, and fingerprints that name the library which computes something else now."""

import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.audit import Finding
from unibrain.errors import InputError
from unibrain.workspace.files import write_text

if TYPE_CHECKING:
    from unibrain.backbone import VersatileDiffusion

RECORD = Path(__file__).parent / "data" / "fingerprints.json"
"""The record that comes with the package; ``python -m unibrain.doctor.probes`` writes it."""
LIBRARIES = ("transformers", "diffusers", "tokenizers", "pillow", "torch", "numpy")
_POINTS = 8
_DIGITS = 7


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of a result: content that must be equal, and numbers that may differ by a share of their `scale`."""

    exact: dict[str, Any]
    numbers: tuple[float, ...] = ()
    scale: float = 1.0

    def apart(self, other: "Fingerprint") -> float:
        """Largest difference of the numbers, in units of `scale`; infinite if what must be equal is not."""
        if self.exact != other.exact or len(self.numbers) != len(other.numbers):
            return math.inf
        apart = [abs(one - another) for one, another in zip(self.numbers, other.numbers, strict=True)]
        return max(apart, default=0.0) / self.scale if all(map(math.isfinite, apart)) else math.inf


def mixed(count: int, seed: int) -> NDArray[np.uint32]:
    """Whole numbers that look random, the same on every machine and with every version of NumPy; `seed` is 0 to 999."""
    number = np.arange(count, dtype=np.uint32) + np.uint32(seed * 4_000_037)
    for factor in (0x7FEB352D, 0x846CA68B):
        number ^= number >> np.uint32(16)
        number *= np.uint32(factor)
    return number ^ (number >> np.uint32(15))


def of_array(array: NDArray[Any], **exact: Any) -> Fingerprint:
    """Fingerprint an array: its shape, mean and size, eight of its values, and eight sums under fixed signs.

    The signs are those of fixed noise, so that a sum, divided by the root of the count, is as large as a value, and
    moves with any change, wherever it happens. Mean and values are for people, who can see what moved.
    """
    flat = np.asarray(array, dtype=np.float64).ravel()
    size = math.sqrt(float(np.mean(flat**2)))
    # Not evenly spaced: in a picture that could be one column.
    places = mixed(_POINTS, 99) % flat.size
    signs = [np.where(mixed(flat.size, 100 + number) >> np.uint32(31), 1.0, -1.0) for number in range(_POINTS)]
    sums = [float(flat @ sign) / math.sqrt(flat.size) for sign in signs]
    rounded = [float(f"{value:.{_DIGITS}g}") for value in (float(flat.mean()), size, *flat[places].tolist(), *sums)]
    return Fingerprint({"shape": list(array.shape), **exact}, tuple(rounded), rounded[1])


@dataclass(frozen=True)
class Bench:
    """What probes work on: the folder of the small backbone, and the backbone, loaded once on the processor in fp32."""

    folder: Path

    @cached_property
    def backbone(self) -> "VersatileDiffusion":
        """The backbone of that folder."""
        from unibrain.backbone import VersatileDiffusion, load_backbone

        loaded = load_backbone(self.folder, device="cpu", dtype="fp32")
        assert isinstance(loaded, VersatileDiffusion)
        return loaded


@dataclass(frozen=True)
class Probe:
    """One small computation whose result is known.

    `libraries` are those whose change can move it, the most likely one first; `tolerance` is in units of the result's
    size; `weights` says whether it depends on the files of the small backbone.
    """

    name: str
    what: str
    compute: Callable[[Bench], Fingerprint]
    libraries: tuple[str, ...]
    tolerance: float = 0.0
    weights: bool = True


@dataclass(frozen=True)
class Record:
    """Fingerprints that were taken in one go, the versions they were taken with, and the backbone's fingerprint."""

    libraries: dict[str, str]
    backbone: str
    fingerprints: dict[str, Fingerprint] = field(default_factory=dict)


def installed() -> dict[str, str]:
    """Versions of `LIBRARIES`, without the part that names a build (``+cpu``); ``"absent"`` where one is missing."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name).split("+")[0]
        except PackageNotFoundError:
            versions[name] = "absent"
    return versions


def read_record(path: Path = RECORD) -> Record:
    """Read what `write_record` wrote; `InputError` if it is missing or damaged."""
    from pydantic import TypeAdapter

    try:
        return TypeAdapter(Record).validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the recorded fingerprints cannot be read. Install unibrain again.") from error


def take_record(probes: Sequence[Probe], bench: Bench) -> Record:
    """Compute every fingerprint as it is now."""
    return Record(installed(), bench.backbone.fingerprint, {probe.name: probe.compute(bench) for probe in probes})


def write_record(record: Record, path: Path = RECORD) -> None:
    """Write a record, one line per fingerprint, so that a change can be read."""
    head = json.dumps({"libraries": record.libraries, "backbone": record.backbone}, indent=1)[:-2]
    rows = (f"  {json.dumps(name)}: {json.dumps(asdict(each))}" for name, each in record.fingerprints.items())
    write_text(path, f'{head},\n "fingerprints": {{\n' + ",\n".join(rows) + "\n }\n}\n")


def compare(probes: Sequence[Probe], bench: Bench, record: Record) -> Iterator[Finding]:
    """Recompute every fingerprint: a finding on versions, one on the backbone's files, and one per probe."""
    now = installed()
    moved = [name for name in LIBRARIES if record.libraries.get(name) != now[name]]
    said = ", ".join(f"{name} {record.libraries.get(name)} -> {now[name]}" for name in moved)
    yield Finding("ok", "libraries", f"other versions than recorded: {said}" if moved else "as recorded", details=now)
    try:
        same = bench.backbone.fingerprint == record.backbone
        what = f"as recorded ({record.backbone[:12]})" if same else "not the one that was recorded"
    except InputError as error:
        same, what = False, str(error)
    advice = "" if same else "install unibrain again; after a training of your own run python -m unibrain.doctor.probes"
    yield Finding("ok" if same else "problem", "small backbone", what, advice)
    for probe in probes:
        if probe.weights and not same:
            yield Finding("note", probe.name, "not compared: it needs the small backbone", "see small backbone above")
        else:
            yield _compared(probe, bench, record, moved)


def _compared(probe: Probe, bench: Bench, record: Record, moved: Sequence[str]) -> Finding:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = probe.compute(bench)
        stored = record.fingerprints[probe.name]
        apart = stored.apart(found)
        what = "another result" if math.isinf(apart) else f"off by {apart:.1e} of its size"
        # JSON has no infinity.
        details = {"apart": None if math.isinf(apart) else apart, "allowed": probe.tolerance}
    except KeyError:
        return Finding("problem", probe.name, f"{probe.what}: not recorded", "run python -m unibrain.doctor.probes")
    except Exception as error:  # whatever a library raises nowadays is what has to be told
        apart, what, details = math.inf, f"fails ({type(error).__name__}: {' '.join(str(error).split())[:200]})", {}
    if apart <= probe.tolerance:
        return Finding("ok", probe.name, f"{probe.what}: {what if apart else 'equal'}", details=details)
    suspects = [name for name in probe.libraries if name in moved]
    pins = " ".join(f'"{name}=={record.libraries.get(name)}"' for name in suspects)
    advice = f"{' and '.join(suspects)} changed since it was recorded: go back with pip install {pins}"
    if not suspects:
        advice = f"no version of {', '.join(probe.libraries)} changed: install them and unibrain again"
    return Finding("problem", probe.name, f"{probe.what}: {what}", advice, details={**details, "suspects": suspects})
