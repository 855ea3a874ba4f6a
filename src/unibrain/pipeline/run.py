"""Running the stages of a run folder: one, or all of them."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unibrain.errors import InputError
from unibrain.pipeline.backbone_source import BackboneSource
from unibrain.pipeline.settings import Settings
from unibrain.pipeline.settings_file import read_settings, write_settings
from unibrain.pipeline.sources import read_seen
from unibrain.pipeline.stages import STAGES, declare, has_captions, sampling_options
from unibrain.workspace.fingerprints import Fingerprint
from unibrain.workspace.run_folder import RunFolder
from unibrain.workspace.shards import Engine
from unibrain.workspace.stages import Chain, StageResult, read_record

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from unibrain.reconstruction import Decoded
    from unibrain.scans import Subject
    from unibrain.stimuli import Stimuli


def kept_settings(run: RunFolder) -> Settings:
    """Settings that the run folder holds; the defaults in a folder in which nothing was done.

    Raises
    ------
    InputError
        If its ``settings.toml`` is wrong, or lost or emptied after stages have run.
    """
    kept = read_settings(run.settings) if run.settings.exists() else Settings()
    done = [name for name in STAGES if read_record(run, name) is not None]
    if done and not kept.model_fields_set:
        raise InputError(
            f"{run.settings}: it is missing or empty, and {done[-1]} was run with other settings. Put it back, or run "
            f"`unibrain run SETTINGS --out {run.root}` with your own file."
        )
    return kept


def run_one(
    name: str,
    run: RunFolder,
    settings: Settings,
    backbone: BackboneSource | None = None,
    with_earlier: bool = False,
    *,
    audit_betas: bool | None = None,
    engine: Engine | None = None,
) -> StageResult:
    """Run one stage, and keep the settings in the run folder for the stages after it.

    Parameters
    ----------
    name : str
        One of `STAGES`.
    run : RunFolder
    settings : Settings
    backbone : BackboneSource, optional
        By default that of the settings, on the best device.
    with_earlier : bool
        First run the stages above it that are not up to date, instead of refusing.
    audit_betas : bool, optional
        Of the stage `audit`: whether to read the betas of all sessions again; by default as it did last.
    engine : callable, optional
        Does the shards of stages that can be divided, as from `unibrain.engines.engine_of`; by default this process
        does everything.

    Returns
    -------
    StageResult

    Raises
    ------
    InputError
        If the input is wrong or missing, a stage above is not up to date, or another run works in the folder.
    UnfinishedError
        If the engine could not do some shards.
    """
    if name == "simulate" and settings.simulate is None:
        settings = settings.changed("simulate", {}, where=str(run.settings))
    if name not in ("simulate", "prepare") and not run.begun and not (with_earlier and run.settings.exists()):
        raise InputError(
            f"{run.root}: there is no run in this folder. Check the path, or begin with `unibrain prepare`, "
            "`unibrain import` or `unibrain simulate`."
        )
    if name == "audit" and audit_betas is None and not run.artefact("audit").exists():
        audit_betas = True
    chain = Chain(run, declare(run, settings, backbone, audit_betas if name == "audit" else None))
    names = [*chain.above(name), name] if with_earlier else [name]
    return _run_stages(names, run, settings, backbone, audit_betas, engine)[-1]


def run_all(
    run: RunFolder, settings: Settings, backbone: BackboneSource | None = None, engine: Engine | None = None
) -> tuple[StageResult, ...]:
    """Run every stage; skip what is up to date.

    Parameters
    ----------
    run : RunFolder
    settings : Settings
        Scans are simulated if its ``simulate`` is there, and then audited as well: it takes a second.
    backbone : BackboneSource, optional
        By default that of the settings, on the best device. It is loaded once.
    engine : callable, optional
        As in `run_one`.

    Returns
    -------
    tuple of StageResult

    Raises
    ------
    InputError
        If the input is wrong or missing, or another run works in the folder.
    UnfinishedError
        If the engine could not do some shards.
    """
    simulated = settings.simulate is not None
    audit = True if simulated and not run.artefact("audit").exists() else None
    names = [stage.name for stage in declare(run, settings, backbone, audit)]
    return _run_stages(names, run, settings, backbone, audit, engine)


def _run_stages(
    names: Sequence[str],
    run: RunFolder,
    settings: Settings,
    backbone: BackboneSource | None,
    audit_betas: bool | None,
    engine: Engine | None,
) -> tuple[StageResult, ...]:
    backbone = backbone or BackboneSource()
    results, seen = list[StageResult](), dict[str, Fingerprint]()
    with run.lock():
        _check_source(run, settings)
        for name in names:
            # Declared anew for each: what the audit reads depends on what is there by then.
            stages = declare(run, settings, backbone, audit_betas if name == "audit" else None)
            chain = Chain(run, stages, seen, engine)
            results.append(chain.run(name, lambda: write_settings(run.settings, settings)))
    return tuple(results)


def _check_source(run: RunFolder, settings: Settings) -> None:
    """Refuse to replace a run on scans of one kind by a run on scans of another."""
    record = read_record(run, "prepare")
    if record is None:
        return
    kinds = {"custom": "your own data", "nsd": "NSD's files", "simulate": "a simulated subject"}
    before = "custom" if "custom" in record.settings else "simulate" if "nsd" in record.inputs else "nsd"
    now = "custom" if settings.custom is not None else "simulate" if settings.simulate is not None else "nsd"
    if before != now:
        raise InputError(
            f"{run.root}: this folder holds a run on {kinds[before]}, which one on {kinds[now]} would replace. Choose "
            "another folder, or remove this one."
        )


def remarks_of(run: RunFolder) -> list[str]:
    """What is on record beside the results of a run, such as batches that had to be smaller; a line each."""
    records = {name: read_record(run, name) for name in STAGES}
    return [f"{name}: {text}" for name, one in records.items() if one for text in one.notes.get("remarks", ())]


def decoded_items(run: RunFolder) -> "tuple[Decoded, Stimuli]":
    """What a run decoded, and the pictures and captions that were seen; reconstruct must be up to date."""
    from unibrain.reconstruction import load_decoded

    settings = kept_settings(run)
    with run.lock():
        Chain(run, declare(run, settings)).require("reconstruct")
        return load_decoded(run.artefact("decoded")), read_seen(run, settings)[1]


def decode(
    run: RunFolder | str | os.PathLike[str],
    scans: "Subject | ArrayLike",
    stimulus_ids: "ArrayLike | None" = None,
    *,
    backbone: BackboneSource | None = None,
    **options: Any,
) -> "Decoded":
    """Decode scans with the decoder of a run: a picture and a caption of each.

    Parameters
    ----------
    run : RunFolder or path-like
        Everything up to `fit` must be up to date.
    scans : Subject, or array-like of shape (n, voxels) or (voxels,)
        One scan or several, prepared like those of the run: the same voxels in the same order, z-scored.
    stimulus_ids : array-like of shape (n,), optional
        Image of each scan, which decides its noise; a `Subject` has its own. Left out: 0, 1, 2 and so on.
    backbone : BackboneSource, optional
        By default that of the settings, on the best device. One that is given is not loaded again by the next call.
    **options
        Anything that `unibrain.reconstruct` takes, such as ``image_weight=0.8`` or ``use={"z_image"}``. What is left
        out is as in the run.

    Returns
    -------
    Decoded
        For a scan that the run decoded itself, what it decoded, up to rounding (a grey level).

    Raises
    ------
    InputError
        If a stage is not up to date, or the scans do not fit the decoder.

    Examples
    --------
    The first unseen image of the demo::

        subject = unibrain.load_subject("unibrain-demo")
        decoded = unibrain.decode("unibrain-demo", subject.test.rows([0]))
    """
    from unibrain.reconstruction import reconstruct
    from unibrain.regression import BrainDecoder
    from unibrain.scans import Subject

    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    if not folder.begun:
        raise InputError(
            f"{folder.root}: there is no run in this folder. Check the path, or begin with `unibrain demo`."
        )
    betas: Any = scans
    if isinstance(scans, Subject):
        if stimulus_ids is not None:
            raise InputError(f"{scans.name}: a subject has stimulus ids of its own. Leave stimulus_ids out.")
        betas, stimulus_ids = scans.betas, scans.stimulus_ids
    settings, source = kept_settings(folder), backbone or BackboneSource()
    with folder.lock():
        Chain(folder, declare(folder, settings, source)).require("fit")
        decoder = BrainDecoder.load(folder.artefact("decoder"), verify=False)
        predicted = decoder.predict(betas, stimulus_ids)
    usual = sampling_options(settings, has_captions(predicted)) | {"seed": settings.reconstruct.seed}
    return reconstruct(source.load(settings.extract.backbone), predicted, **(usual | options))


def write_weights(
    run: RunFolder,
    latent: str,
    path: Path,
    targets: str = ":",
    regions: Sequence[str] | None = None,
    backbone: BackboneSource | None = None,
) -> tuple[int, int]:
    """Write the ridge weights of some dimensions of a latent, and some voxels.

    Parameters
    ----------
    run : RunFolder
        With a fitted decoder.
    latent : str
    path : pathlib.Path
        An ``.npy`` file.
    targets : str
        ``"start:stop"`` in the flattened latent; either may be left out.
    regions : sequence of str, optional
        Regions whose voxels are written, in the order of the subject's voxels; all voxels by default.
    backbone : BackboneSource, optional
        By default that of the settings.

    Returns
    -------
    tuple of int
        Number of voxels and of dimensions.

    Raises
    ------
    InputError
        If nothing is fitted, the decoder is not of this subject any more, or a name or range is wrong.
    """
    import numpy as np

    from unibrain.regression import BrainDecoder, export_weights
    from unibrain.scans import load_subject

    found = re.fullmatch(r"(\d{0,9}):(\d{0,9})", targets)
    if found is None:
        raise InputError(f"targets is {targets!r}, and has to be start:stop, such as 0:768.")
    start, stop = (int(text) if text else None for text in found.groups())
    with run.lock():
        Chain(run, declare(run, kept_settings(run), backbone)).require("fit")
        decoder = BrainDecoder.load(run.artefact("decoder"))
        subject = load_subject(run.artefact("subject"))
    absent = [name for name in regions or () if name not in subject.regions]
    if absent:
        raise InputError(
            f"{run.artefact('subject')}: there is no region {absent[0]}. Choose among {', '.join(subject.regions)}."
        )
    voxels = None if regions is None else np.any([subject.regions[name] for name in regions], axis=0)
    weights = export_weights(decoder, latent, slice(start, stop), voxels, path)
    return weights.shape[0], weights.shape[1]


def push_latents(run: RunFolder, address: str) -> dict[str, str]:
    """Copy the latents of a run, and its predictions if there are any, to an object store: artefact to its address."""
    from unibrain.latents import write_latents

    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", address):
        raise InputError(f"{address}: this is no address of an object store, such as s3://bucket/my-run.")
    if not run.begun:
        raise InputError(f"{run.root}: there is no run in this folder. Check the path.")
    with run.lock():
        chain = Chain(run, declare(run, kept_settings(run)))
        chain.require("extract")
        names = ["latents", *["predicted"] * chain.is_current("reconstruct")]
        places = {name: f"{address.rstrip('/')}/{name}" for name in names}
        for name, place in places.items():
            write_latents(run.artefact(name), place)
    return places
