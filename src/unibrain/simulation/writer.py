"""Writes the whole simulated tree."""

import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.scans.noise_ceiling import NcsnrAccumulator
from unibrain.scans.nsd_layout import BETA_SCALE, SIMULATED_MARKER, NsdLayout
from unibrain.simulation.anatomy import Anatomy, build_anatomy
from unibrain.simulation.experiment import Experiment, draw_experiment
from unibrain.simulation.noise import TrialNoise
from unibrain.simulation.settings import SimulationSettings
from unibrain.simulation.shown import draw_coco, draw_scenes, write_captions, write_curated_captions, write_pictures
from unibrain.simulation.signal import draw_tuning, signal
from unibrain.simulation.tables import write_expdesign, write_responses, write_stim_info
from unibrain.simulation.volumes import write_anatomy, write_betas, write_nifti
from unibrain.stimuli.nsd import caption_files
from unibrain.stimuli.scenes import Scene, load_catalogue
from unibrain.workspace.files import atomic_folder, write_json
from unibrain.workspace.progress import track

__all__ = ["simulate_nsd"]

# Streams of random numbers: changing how much one part draws leaves the others as they are.
_DESIGN, _COCO, _BEHAVIOUR, _ANATOMY, _TUNING, _RELIABILITY, _SCALE, _TRIALS = range(8)
_INVALID_SESSION = 2
_OUTSIDE_NOISE = 1.5


def simulate_nsd(root: str | os.PathLike[str], settings: SimulationSettings | None = None) -> None:
    """Write a simulated subject in the file layout of the Natural Scenes Dataset. No human was scanned.

    Everything is written beside `root` and renamed at the end. ``SIMULATED.json`` at the root holds the settings and
    makes every reader call the data simulated.

    Parameters
    ----------
    root : path-like
        Must not be there, be empty, or be a simulated tree, which is replaced.
    settings : SimulationSettings, optional

    Raises
    ------
    InputError
        If `root` holds anything else, or the disk is full; nothing is changed then.
    """
    settings = settings or SimulationSettings()
    root = Path(root)
    if root.exists() and not (root / SIMULATED_MARKER).is_file() and not (root.is_dir() and not any(root.iterdir())):
        raise InputError(
            f"{root}: found files that are no simulated data, expected a new or an empty folder: "
            "choose another one, nothing was changed"
        )
    experiment = draw_experiment(settings, _rng(settings, _DESIGN))
    scenes = draw_scenes(settings, experiment)
    coco_ids, coco_splits = draw_coco(settings, experiment, _rng(settings, _COCO))
    with atomic_folder(root) as folder:
        layout = NsdLayout(folder)
        pictures = write_pictures(layout.stimuli, scenes, settings)
        captions = {split: layout.captions(split) for split in ("train2017", "val2017")}
        write_captions(captions, scenes, coco_ids, coco_splits)
        if settings.curated_captions:
            write_curated_captions(caption_files(layout, "curated"), scenes, settings.images)
        write_expdesign(layout.expdesign, experiment)
        write_stim_info(layout.stim_info, experiment, coco_ids, coco_splits)
        for subject in settings.subjects:
            _write_subject(NsdLayout(folder, subject), settings, experiment, scenes, pictures)
        about = "Simulated: no human was scanned. Written in the file layout of the Natural Scenes Dataset."
        write_json(layout.marker, {"simulated": True, "about": about, "settings": asdict(settings)})


def _rng(settings: SimulationSettings, stream: int, subject: int = 0) -> np.random.Generator:
    return np.random.default_rng([settings.seed, stream, subject])


def _write_subject(
    layout: NsdLayout,
    settings: SimulationSettings,
    experiment: Experiment,
    scenes: dict[int, Scene],
    pictures: NDArray[np.uint8],
) -> None:
    subject = layout.subject
    anatomy = build_anatomy(settings.grid, _rng(settings, _ANATOMY, subject))
    write_anatomy(layout, anatomy)
    write_responses(layout.responses, experiment, subject, _rng(settings, _BEHAVIOUR, subject))

    ids = experiment.subjectim[subject - 1] - 1
    rows = np.searchsorted(list(scenes), ids)
    training = np.arange(len(ids)) >= settings.test_images
    tuning = draw_tuning(anatomy, load_catalogue(), _rng(settings, _TUNING, subject))
    # The filters of early voxels halve the picture several times: of an odd size they see all but the last pixels.
    side = pictures.shape[1] - pictures.shape[1] % 16
    responses = signal(tuning, pictures[rows, :side, :side], [scenes[int(i)] for i in ids], training)
    noise = TrialNoise(responses[training], settings.noise, _rng(settings, _RELIABILITY, subject))
    _write_sessions(layout, settings, experiment, anatomy, responses, noise)


def _write_sessions(
    layout: NsdLayout,
    settings: SimulationSettings,
    experiment: Experiment,
    anatomy: Anatomy,
    responses: NDArray[np.float32],
    noise: TrialNoise,
) -> None:
    visual = anatomy.nsdgeneral[anatomy.brain]
    scale = _rng(settings, _SCALE, layout.subject)
    gain = scale.lognormal(np.log(0.7), 0.3, len(visual)).astype(np.float32)
    offset = scale.normal(0.5, 0.5, len(visual)).astype(np.float32)
    invalid = int(np.flatnonzero(visual)[visual.sum() // 2])
    rng = _rng(settings, _TRIALS, layout.subject)
    ceiling = NcsnrAccumulator(settings.images_per_subject, len(visual))
    total = np.zeros(len(visual))
    for session in track(range(1, experiment.sessions + 1), f"simulating {layout.name}", unit="session"):
        images = experiment.masterordering[experiment.trials(session)] - 1
        trials = np.empty((len(images), len(visual)), dtype=np.float32)
        trials[:, visual] = responses[images] + noise.draw(len(images), rng)
        outside = rng.standard_normal((len(images), int((~visual).sum())), dtype=np.float32)
        trials[:, ~visual] = np.float32(_OUTSIDE_NOISE) * outside
        percent = gain * trials + offset
        # MATLAB's int16() rounds and saturates.
        betas = np.clip(np.rint(percent * BETA_SCALE), -32768, 32767).astype(np.int16)
        if session == _INVALID_SESSION:
            betas[:, invalid] = 0  # as if this voxel had been outside the scanned slab
        ceiling.add(betas, images)
        total += betas.mean(axis=0, dtype=np.float64)
        write_betas(layout, session, anatomy.brain, betas, settings.beta_formats)

    odd = np.arange(settings.images_per_subject) % 2 == 0
    for split, chosen in (("", None), ("_split1", odd), ("_split2", ~odd)):
        volume = np.full(anatomy.brain.shape, np.nan, dtype=np.float32)
        volume[anatomy.brain] = ceiling.ncsnr(chosen)
        write_nifti(layout.ncsnr(split), volume)
    mean = np.zeros(anatomy.brain.shape, dtype=np.float32)
    mean[anatomy.brain] = total / experiment.sessions
    write_nifti(layout.betas_folder / "meanbeta.nii.gz", mean)
