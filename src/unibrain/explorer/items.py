"""One scan decoded as somebody chose: what the steps show, what comes out, kept by what it depends on."""

import base64
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibrain.backbone.config import SamplingSettings
from unibrain.errors import DamagedFileError, InputError
from unibrain.experiments import Bench
from unibrain.latents import LATENTS, Latents
from unibrain.report.sections import data_uri
from unibrain.workspace.files import read_json, write_json
from unibrain.workspace.fingerprints import digest
from unibrain.workspace.stages import read_record

if TYPE_CHECKING:
    from unibrain.reconstruction import Decoded

FRAMES = 8
"""Most denoising steps that are shown of an item."""

KINDS = ("picture", "caption")

_FORMAT = 1
_SEEDS = 2**32

Show = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Choice:
    """How a scan is decoded.

    Attributes
    ----------
    use : tuple of str
        Names of the latents that take part, in the order of `LATENTS`.
    seed : int
    sampling : mapping of str to SamplingSettings
        By kind; the kinds that can be decoded from these latents.
    """

    use: tuple[str, ...]
    seed: int
    sampling: Mapping[str, SamplingSettings]

    def options(self) -> dict[str, Any]:
        """Keyword arguments of `unibrain.reconstruct`."""
        names = [field.name for field in fields(SamplingSettings)]
        by_kind = {name: {kind: getattr(one, name) for kind, one in self.sampling.items()} for name in names}
        return {"kinds": set(self.sampling), "use": set(self.use), "seed": self.seed, **by_kind}


def own_sampling(bench: Bench) -> dict[str, SamplingSettings]:
    """How the run samples each kind."""
    record = read_record(bench.run, "reconstruct")
    assert record is not None
    return {kind: SamplingSettings(**record.notes["sampling"][kind]) for kind in bench.kinds if kind in KINDS}


def choose(
    bench: Bench,
    latents: tuple[str, ...],
    use: "list[str] | None" = None,
    seed: int | None = None,
    sampling: Mapping[str, Mapping[str, Any]] | None = None,
) -> Choice:
    """What somebody chose, the rest as the run decodes.

    Parameters
    ----------
    bench : Bench
    latents : tuple of str
        The latents that there are.
    use, seed, sampling
        See `Choice`; `sampling` may leave out kinds and settings.

    Raises
    ------
    InputError
        If a name is not known or a value is out of range, or nothing can be decoded from what takes part.
    """
    known = tuple(name for name in LATENTS if name in latents)
    unknown = [name for name in use or () if name not in known]
    if unknown:
        raise InputError(f"use names {unknown[0]!r}, and the latents are {', '.join(known)}.")
    seed = bench.settings.reconstruct.seed if seed is None else seed
    if not 0 <= seed < _SEEDS:
        raise InputError(f"seed is {seed}. Choose a whole number from 0 to {_SEEDS - 1}.")
    taken = known if use is None else tuple(name for name in known if name in use)
    own, given = own_sampling(bench), sampling or {}
    for kind, values in given.items():
        if kind not in own:
            raise InputError(f"there are settings of a {kind!r}, and this run decodes {', '.join(own)}.")
        for name, value in values.items():
            like = getattr(own[kind], name, None)
            if like is None:
                raise InputError(f"{name!r} is no setting. Choose among {', '.join(asdict(own[kind]))}.")
            fits = isinstance(value, str) if isinstance(like, str) else type(value) in (int, type(like))
            if not fits:
                raise InputError(f"{name} is {value!r}. Give {'text' if isinstance(like, str) else 'a number'}.")
    # Whole numbers and fractions are one to JSON, and not to a digest.
    plain = {
        kind: {name: type(getattr(own[kind], name))(value) for name, value in values.items()}
        for kind, values in given.items()
    }
    guided = any(LATENTS[name].guides for name in taken)
    kinds = [kind for kind in own if guided or any(LATENTS[name].starts == kind for name in taken)]
    if not kinds:
        raise InputError("No latent takes part that something can be decoded from. Switch one on.")
    return Choice(taken, seed, {kind: replace(own[kind], **plain.get(kind, {})) for kind in kinds})


def parts_of(choice: Choice, kind: str) -> tuple[str, ...]:
    """The latents that an item depends on."""
    return tuple(name for name in choice.use if LATENTS[name].guides or LATENTS[name].starts == kind)


def item_key(bench: Bench, latents: Latents, choice: Choice, kind: str) -> str:
    """Digest of everything that decides an item, and what is shown of its steps."""
    import torch

    names = parts_of(choice, kind)
    settings = asdict(choice.sampling[kind]) if any(LATENTS[name].guides for name in names) else {}
    about = [_FORMAT, FRAMES, kind, names, settings, choice.seed, latents.stimulus_ids.tolist()]
    network = [bench.network.fingerprint, bench.network.precision, torch.get_num_threads()]
    return digest(about, network, *(np.ascontiguousarray(latents[name]) for name in names))


def kept_item(bench: Bench, key: str) -> dict[str, Any] | None:
    """An item that was decoded before."""
    try:
        found: dict[str, Any] = read_json(bench.cache / "explorer" / f"{key}.json")
        return found if found.pop("digest") == digest(found["item"], found["frames"]) else None
    except (OSError, KeyError, TypeError, AttributeError, DamagedFileError):
        return None  # decoding it again gives the same one


def decode_item(
    bench: Bench, latents: Latents, choice: Choice, kind: str, show: Show, go_on: Callable[[], None], live: bool = True
) -> dict[str, Any]:
    """Decode one item of one scan, unless it is kept; its steps are shown while it is made.

    Parameters
    ----------
    bench : Bench
    latents : Latents
        Of one scan, which is decoded alone, so that nothing depends on its company.
    choice : Choice
    kind : str
    show : callable
        Takes ``{"kind", "step", "steps", "item"}``: what the network makes of a scan at some of its steps.
    go_on : callable
        Called at every step; raises to stop.
    live : bool
        Whether steps are decoded at once; where parts of the network take turns on the device, they are at the end.

    Returns
    -------
    dict
        ``item`` (a PNG as a data URI, or a caption), ``frames`` as they were shown, and ``seconds``.
    """
    from unibrain.reconstruction import reconstruct

    key = item_key(bench, latents, choice, kind)
    kept = kept_item(bench, key)
    if kept is not None:
        return kept
    began, frames, waiting = time.monotonic(), list[dict[str, Any]](), list[tuple[int, int, NDArray[np.float32]]]()

    def frame(step: int, steps: int, x0: NDArray[np.float32]) -> None:
        shown = bench.network.decode(kind, x0)[0]
        item = shown if isinstance(shown, str) else data_uri(shown)
        frames.append({"kind": kind, "step": step, "steps": steps, "item": item})
        show(frames[-1])

    def watch(kind: str, rows: NDArray[np.int64], step: int, steps: int, latents: NDArray[np.float32]) -> None:
        go_on()
        if step in np.rint(np.linspace(1, steps, min(FRAMES, steps))):
            frame(step, steps, latents) if live else waiting.append((step, steps, latents))

    go_on()
    options = choice.options() | {"kinds": {kind}, "use": set(parts_of(choice, kind))}
    decoded = reconstruct(bench.network, latents, callback=watch, **options)
    for part in waiting:
        frame(*part)
    found = {"item": item_of(decoded, kind), "frames": frames, "seconds": round(time.monotonic() - began, 3)}
    write_json(bench.cache / "explorer" / f"{key}.json", found | {"digest": digest(found["item"], found["frames"])})
    return found


def item_of(decoded: "Decoded", kind: str) -> str:
    """The one item that was decoded: a PNG, as `save_decoded` writes it, in a data URI, or a caption."""
    if kind == "caption":
        assert decoded.captions is not None
        return decoded.captions[0]
    assert decoded.pictures is not None
    return "data:image/png;base64," + base64.b64encode(png(decoded.pictures[0])).decode("ascii")


def png(picture: NDArray[np.uint8]) -> bytes:
    """A picture as the PNG that `unibrain.save_decoded` writes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG")
    return buffer.getvalue()
