"""What `--on` may say: on which machines the shards of a run are done."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

_MOST = 4096
_KEY = r"[a-z][a-z_-]*"
_NUMBERS = ("workers", "time", "gpus", "cpus", "memory")


@dataclass(frozen=True)
class Place:
    """Where shards are done.

    Attributes
    ----------
    engine : {"local", "dask", "slurm"}
    workers : int or None
        How many at a time; None: one per graphics card (local), all that are there (dask), 16 (slurm).
    address : str
        Of the Dask scheduler.
    options : mapping of str to str
        Of SLURM: ``partition``, ``time`` (minutes), ``gpus``, ``cpus``, ``memory`` (GB), ``submit`` (``slurm``, or
        ``local`` to try it without a cluster); everything else is passed on to sbatch.
    """

    engine: Literal["local", "dask", "slurm"]
    workers: int | None = None
    address: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


def parse_place(text: str) -> Place:
    """Read a place.

    Raises
    ------
    ValueError
        It says what a place has to be.

    Examples
    --------
    >>> parse_place("local:2")
    Place(engine='local', workers=2, address='', options={})
    >>> parse_place("slurm:gpu,time=240,account=lab").options
    {'partition': 'gpu', 'time': '240', 'account': 'lab'}
    """
    name, _, rest = text.partition(":")
    if name == "local":
        return Place("local", None if not rest and ":" not in text else _number("local", rest))
    if name == "dask":
        if not re.fullmatch(r"((tcp|tls|ucx|ws|wss)://)?[\w.-]+:\d{1,5}", rest):
            raise ValueError("dask:ADDRESS with the address of a scheduler, such as dask:tcp://login-node:8786")
        return Place("dask", None, rest)
    if name != "slurm":
        raise ValueError("local, local:WORKERS, dask:ADDRESS or slurm:PARTITION,KEY=VALUE,...")
    options: dict[str, str] = {}
    for number, part in enumerate(rest.split(",") if rest else []):
        key, equals, value = part.strip().partition("=")
        if not equals and number == 0:
            key, value = "partition", key
        if not re.fullmatch(_KEY, key) or not re.fullmatch(r"[\w.:/@%+-]+", value) or key in options:
            raise ValueError(f"slurm:PARTITION,KEY=VALUE,...; {part.strip()[:40]!r} is no KEY=VALUE, or there twice")
        options[key] = value
    for key in options.keys() & set(_NUMBERS):
        _number(key, options[key], least=0 if key == "gpus" else 1)
    if options.get("submit", "slurm") not in ("slurm", "local"):
        raise ValueError("slurm:...,submit=slurm or submit=local")
    workers = options.pop("workers", None)
    return Place("slurm", None if workers is None else int(workers), "", options)


def place_text(place: Place) -> str:
    """Write a place as `parse_place` reads it."""
    if place.engine == "dask":
        return f"dask:{place.address}"
    if place.engine == "local":
        return "local" if place.workers is None else f"local:{place.workers}"
    options = dict(place.options) | ({} if place.workers is None else {"workers": str(place.workers)})
    first = [options.pop("partition")] if "partition" in options else []
    return ":".join(["slurm", *filter(None, [",".join([*first, *(f"{k}={v}" for k, v in options.items())])])])


def _number(name: str, text: str, least: int = 1) -> int:
    if not re.fullmatch(r"\d{1,9}", text) or not least <= int(text) <= (
        _MOST if name in ("local", "workers") else 10**9
    ):
        raise ValueError(f"a place in which {name} has a whole number of at least {least}, not {text[:40]!r}")
    return int(text)
