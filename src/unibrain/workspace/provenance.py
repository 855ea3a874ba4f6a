"""Where a result comes from: versions, machine, seconds and memory."""

import platform
import resource
import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from unibrain.workspace.progress import usable_processors

LIBRARIES = (
    "diffusers",
    "h5py",
    "nibabel",
    "nltk",
    "numpy",
    "pandas",
    "pillow",
    "rouge-score",
    "safetensors",
    "scikit-image",
    "scikit-learn",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
)
"""The libraries whose versions can change a number."""


@cache
def installed(name: str) -> str:
    """The version of a library, without importing it; ``"absent"`` if it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def peak_memory_mb() -> float:
    """Most memory this process has held since it started, in megabytes (10**6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in kibibytes, macOS in bytes.
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


@dataclass(frozen=True)
class Provenance:
    """What made an artefact.

    Attributes
    ----------
    started : str
        UTC, ISO 8601.
    seconds : float
        Wall-clock time of the stage.
    peak_memory_mb : float
        Most memory (10**6 bytes) that the process had held when the stage ended, earlier stages of it included; and its
        workers on this machine as well, each counted as if it shared nothing.
    unibrain, python, platform : str
        Versions and machine.
    processors : int
        Processors that the process may use.
    libraries : dict of str to str
        Versions of `LIBRARIES`.
    """

    started: str
    seconds: float
    peak_memory_mb: float
    unibrain: str
    python: str
    platform: str
    processors: int
    libraries: dict[str, str]

    @classmethod
    def of_now(cls, started: str, seconds: float, workers_mb: float = 0.0) -> "Provenance":
        """Describe this process and machine, and what its workers held."""
        return cls(
            started=started,
            seconds=round(seconds, 3),
            peak_memory_mb=round(peak_memory_mb() + workers_mb, 1),
            unibrain=import_module("unibrain").__version__,
            python=platform.python_version(),
            platform=platform.platform(),
            processors=usable_processors(),
            libraries={name: installed(name) for name in LIBRARIES},
        )
