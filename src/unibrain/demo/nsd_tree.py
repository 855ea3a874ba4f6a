"""Writes a simulated subject with NSD's file names, types, axis orders and index bases."""

import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pandas
from numpy.typing import NDArray
from scipy.io import savemat

from unibrain.demo.anatomy import Anatomy, build_anatomy
from unibrain.demo.captions import describe
from unibrain.demo.experiment import Experiment, draw_coco, draw_experiment, draw_scenes, run_lengths
from unibrain.demo.scenes import Scene, load_catalogue, render
from unibrain.demo.settings import SimulationSettings
from unibrain.demo.voxels import TrialNoise, draw_tuning, signal
from unibrain.errors import InputError
from unibrain.scans.nsd import NcsnrAccumulator
from unibrain.scans.nsd_layout import BETA_SCALE, REPEATS, SIMULATED_MARKER, SUBJECTS, VOXEL_SIZE, NsdLayout
from unibrain.scans.nsd_regions import ATLAS_LABELS, STANDARD_LABELS
from unibrain.stimuli.nsd import caption_files
from unibrain.workspace.files import atomic_folder, write_json, write_text
from unibrain.workspace.progress import ahead, track

# Streams of random numbers: changing how much one part draws leaves the others as they are.
_DESIGN, _COCO, _BEHAVIOUR, _ANATOMY, _TUNING, _RELIABILITY, _SCALE, _TRIALS = range(8)
_INVALID_SESSION = 2
_OUTSIDE_NOISE = 1.5

_SLOT_SECONDS, _TR = 4.0, 4 / 3
_DAY = 86400.0
_ERRORS, _MISSES = 0.1, 0.02
_MAT_HEADER = b"MATLAB 5.0 MAT-file, a simulated design"

_SIX_CAPTIONS_EVERY = 10
_CURATED = 5
_FOUR_CURATED_EVERY = 7


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
        raise InputError(f"{root}: files are there that are no simulated data. Choose another folder.")
    experiment = draw_experiment(settings, _rng(settings, _DESIGN))
    scenes = draw_scenes(settings, experiment)
    coco_ids, coco_splits = draw_coco(settings, experiment, _rng(settings, _COCO))
    with atomic_folder(root) as folder:
        layout = NsdLayout(folder)
        pictures = _write_pictures(layout.stimuli, scenes, settings)
        for split in ("train2017", "val2017"):
            shown = {i: scene for i, scene in enumerate(scenes.items()) if coco_splits[scene[0]] == split}
            _write_captions(layout.captions(split), shown, coco_ids)
        if settings.curated_captions:
            _write_curated_captions(caption_files(layout, "curated"), scenes, settings.images)
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
    _write_anatomy(layout, anatomy)
    write_responses(layout.responses, experiment, subject, _rng(settings, _BEHAVIOUR, subject))

    ids = experiment.subjectim[subject - 1] - 1
    rows = np.searchsorted(list(scenes), ids)
    training = np.arange(len(ids)) >= settings.test_images
    tuning = draw_tuning(anatomy, load_catalogue(), _rng(settings, _TUNING, subject), settings.semantic_fields)
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

    def scans(session: int) -> tuple[int, NDArray[np.int64], NDArray[np.int16]]:
        images = experiment.masterordering[experiment.trials(session)] - 1
        trials = np.empty((len(images), len(visual)), dtype=np.float32)
        trials[:, visual] = responses[images] + noise.draw(len(images), rng)
        outside = rng.standard_normal((len(images), int((~visual).sum())), dtype=np.float32)
        outside *= np.float32(_OUTSIDE_NOISE)
        trials[:, ~visual] = outside
        trials *= gain
        trials += offset
        trials *= np.float32(BETA_SCALE)
        # MATLAB's int16() rounds and saturates.
        betas = np.clip(np.rint(trials, out=trials), -32768, 32767, out=trials).astype(np.int16)
        if session == _INVALID_SESSION:
            betas[:, invalid] = 0  # as if this voxel had been outside the scanned slab
        return session, images, betas

    sessions = track(range(1, experiment.sessions + 1), f"simulating {layout.name}", unit="session")
    for session, images, betas in ahead(map(scans, sessions)):
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


# Volumes


def write_nifti(path: Path, volume: NDArray[np.generic]) -> None:
    """Write a volume (X, Y, Z) or (X, Y, Z, trials) with NSD's header: sform only, 1.8 mm, no scaling."""
    affine = np.diag([VOXEL_SIZE] * 3 + [1.0])
    affine[:3, 3] = [-VOXEL_SIZE * ((1 + n) / 2 - 1) for n in volume.shape[:3]]
    image: Any = nibabel.Nifti1Image(volume, affine, dtype=volume.dtype)
    image.header.set_zooms([VOXEL_SIZE] * 3 + [_TR] * (volume.ndim - 3))
    image.set_sform(affine, code=1)
    image.set_qform(None, code=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def _write_anatomy(layout: NsdLayout, anatomy: Anatomy) -> None:
    """Write brain mask, label volumes (both hemispheres together, and each alone) and label tables."""
    write_nifti(layout.brainmask, anatomy.brain.astype(np.int16))
    for name, labels in anatomy.labels.items():
        write_nifti(layout.roi(name), labels.astype(np.float64))
        for hemisphere, side in (("lh", anatomy.left), ("rh", ~anatomy.left)):
            write_nifti(layout.roi(name, hemisphere), np.where(side, labels, -1).astype(np.float64))
        names = {**STANDARD_LABELS, **ATLAS_LABELS}[name]
        lines = ["0 Unknown", *(f"{number} {label}" for number, label in names.items())]
        lines[-1] += "\t"  # some of NSD's tables have such a tab
        table = layout.label_tables(name)[0]
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_betas(
    layout: NsdLayout, session: int, brain: NDArray[np.bool_], betas: NDArray[np.int16], formats: Sequence[str]
) -> None:
    """Write one session of betas (trials, brain voxels), percent signal change x 300.

    NIfTI is X, Y, Z, trials; HDF5 is trials, Z, Y, X with one chunk per voxel.
    """
    series = np.ascontiguousarray(betas.T)
    layout.betas_folder.mkdir(parents=True, exist_ok=True)
    if "nifti" in formats:
        volume = np.zeros((*brain.shape, len(betas)), dtype=np.int16)
        volume[brain] = series
        write_nifti(layout.betas(session, "nifti"), volume)
    if "hdf5" in formats:
        shape = (len(betas), *brain.shape[::-1])
        with new_hdf5(layout.betas(session, "hdf5")) as file:
            whole = file.create_dataset("betas", shape, np.int16, chunks=(len(betas), 1, 1, 1))
            # Whole chunks go straight to the file; those that are left out, outside the brain, read as 0.
            for (x, y, z), voxel in zip(np.argwhere(brain).tolist(), series, strict=True):
                whole.id.write_direct_chunk((0, z, y, x), voxel)


class _PatientFile(io.FileIO):
    """A file that keeps its first error for later: the HDF5 library crashes if it cannot write what it has begun."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write, or note why it failed."""
        at = self.tell()
        try:
            written = 0
            while written < len(data) and self.error is None:
                written += super().write(memoryview(data)[written:])
        except OSError as error:
            self.error = error
        self.seek(at + len(data))
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the size, or note why it failed."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


@contextmanager
def new_hdf5(path: Path) -> Iterator[Any]:
    """Open a new HDF5 file; a full disk is an `OSError` when it is closed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = _PatientFile(path, "w+")
    # Not closed if a signal cuts this short: the library may have more to write when it lets go of what is open in it.
    with h5py.File(raw, "w") as file:
        yield file
    raw.close()
    if raw.error is not None:
        raise raw.error


# Pictures and captions


def _write_pictures(path: Path, scenes: dict[int, Scene], settings: SimulationSettings) -> NDArray[np.uint8]:
    """Draw all scenes into ``nsd_stimuli.hdf5``, and return them in the order of `scenes`.

    Images that no scanned subject sees have a row without content (black), which takes no space.
    """
    size = settings.picture_size
    pictures = np.empty((len(scenes), size, size, 3), dtype=np.uint8)
    with new_hdf5(path) as file:
        brick = file.create_dataset("imgBrick", (settings.images, size, size, 3), np.uint8, chunks=(1, size, size, 3))
        items = track(scenes.items(), "drawing pictures", total=len(scenes), unit="picture")
        for row, (stimulus_id, scene) in enumerate(items):
            pictures[row] = render(scene, size)
            brick.id.write_direct_chunk((stimulus_id, 0, 0, 0), pictures[row])
    return pictures


def _write_captions(path: Path, shown: dict[int, tuple[int, Scene]], coco_ids: NDArray[np.int64]) -> None:
    """Write one of COCO's caption files: five captions for most images, six for every tenth."""
    images, annotations = [], []
    for number, (stimulus_id, scene) in shown.items():
        coco_id = int(coco_ids[stimulus_id])
        captions = describe(scene)
        if number % _SIX_CAPTIONS_EVERY == 0:
            captions = (*captions, _one_more(captions))
        images.append({"id": coco_id, "file_name": f"{coco_id:012d}.jpg"})
        annotations += [
            {"image_id": coco_id, "id": 10 * coco_id + i, "caption": text} for i, text in enumerate(captions)
        ]
    info = {"description": "Simulated: captions of composed scenes in COCO's file format"}
    # In one line, as COCO's own: indented text is written by slower code.
    write_text(path, json.dumps({"info": info, "images": images, "annotations": annotations}))


def _one_more(captions: Iterable[str]) -> str:
    plain = [text for text in captions if text.startswith(("a ", "an ")) and text[2] != "p" and " of " not in text]
    return f"a photo of {min(plain or captions, key=len)}"


def _write_curated_captions(path: Path, scenes: dict[int, Scene], images: int) -> None:
    """Write five captions of each image as the array that published decoders use.

    As there, some are empty: the last one of every seventh image, and all of the images that nobody sees.
    """
    texts = {stimulus_id: list(describe(scene)[:_CURATED]) for stimulus_id, scene in scenes.items()}
    for number, captions in enumerate(texts.values()):
        if number % _FOUR_CURATED_EVERY == 0:
            captions[-1] = ""
    longest = max((len(text) for captions in texts.values() for text in captions), default=1)
    array = np.zeros((images, _CURATED), dtype=f"<U{longest}")
    for stimulus_id, captions in texts.items():
        array[stimulus_id, : len(captions)] = captions
    np.save(path, array, allow_pickle=False)


# The design


def write_expdesign(path: Path, experiment: Experiment) -> None:
    """Write ``nsd_expdesign.mat`` with one-row matrices, as NSD's; the same design gives the same bytes."""
    content = io.BytesIO()
    savemat(
        content,
        {
            "masterordering": experiment.masterordering[None].astype(np.float64),
            "subjectim": experiment.subjectim.astype(np.float64),
            "sharedix": experiment.sharedix[None].astype(np.float64),
            "basiccnt": experiment.basiccnt.astype(np.float64),
            "stimpattern": experiment.stimpattern.astype(np.float64),
        },
        do_compression=True,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    # The first 116 bytes are free text, into which SciPy writes the time.
    path.write_bytes(_MAT_HEADER.ljust(116) + content.getvalue()[116:])


def write_stim_info(
    path: Path, experiment: Experiment, coco_ids: NDArray[np.int64], coco_splits: NDArray[np.str_]
) -> None:
    """Write ``nsd_stim_info_merged.csv``: 41 columns, one row per image, 0-based ids, 1-based trials (0: not shown)."""
    images = len(coco_ids)
    shared = np.zeros(images, dtype=np.bool_)
    shared[experiment.sharedix - 1] = True
    columns: dict[str, object] = {
        "cocoId": coco_ids,
        "cocoSplit": coco_splits,
        "cropBox": ["(0.0, 0.0, 0.0, 0.0)"] * images,
        "loss": np.zeros(images),
        "nsdId": np.arange(images),
        "flagged": np.zeros(images, dtype=np.bool_),
        "BOLD5000": np.zeros(images, dtype=np.bool_),
        "shared1000": shared,
    }
    repetitions = experiment.repetitions()
    trials = {}
    for subject in range(1, SUBJECTS + 1):
        rows = experiment.subjectim[subject - 1] - 1
        columns[f"subject{subject}"] = np.isin(np.arange(images), rows).astype(np.int64)
        for repeat in range(REPEATS):
            trials[f"subject{subject}_rep{repeat}"] = np.zeros(images, dtype=np.int64)
            trials[f"subject{subject}_rep{repeat}"][rows] = repetitions[:, repeat]
    path.parent.mkdir(parents=True, exist_ok=True)
    pandas.DataFrame({**columns, **trials}).to_csv(path)


def write_responses(path: Path, experiment: Experiment, subject: int, rng: np.random.Generator) -> None:
    """Write ``responses.tsv``: 19 columns, one row per trial, with simulated button presses.

    The task was to say for every image whether it had been shown before (2) or not (1).
    """
    order = experiment.masterordering
    trials, length = len(order), experiment.trials_per_session
    session = np.arange(trials) // length + 1
    lengths = run_lengths(length)
    run = np.tile(np.repeat(np.arange(1, len(lengths) + 1), lengths), experiment.sessions)
    trial = np.tile(np.concatenate([np.arange(1, n + 1) for n in lengths]), experiment.sessions)
    recent, first = np.full(trials, np.nan), np.full(trials, np.nan)
    current = np.zeros(trials, dtype=np.int64)
    seen: dict[int, tuple[int, int]] = {}
    for now, image in enumerate(order.tolist()):
        if image in seen:
            first[now], recent[now] = (now - before - 1 for before in seen[image])
            current[now] = session[seen[image][1]] == session[now]
        seen[image] = (seen.get(image, (now, now))[0], now)
    old = np.isfinite(first).astype(np.int64)

    correct = rng.random(trials) >= _ERRORS
    button = np.where(correct, old, 1 - old) + 1
    lost = np.zeros(trials, dtype=np.bool_)
    lost[rng.integers(trials)] = True
    pressed = (rng.random(trials) >= _MISSES) & ~lost
    no_press = np.where(pressed, 0.0, np.nan)
    no_data = np.where(lost, np.nan, 0.0)
    table = {
        "SUBJECT": np.full(trials, subject),
        "SESSION": session,
        "RUN": run,
        "TRIAL": trial,
        "73KID": experiment.subjectim[subject - 1, order - 1],
        "10KID": order,
        "TIME": 7 * (session - 1) + 0.4 + (np.arange(trials) % length) * _SLOT_SECONDS / _DAY,
        "ISOLD": old,
        "ISCORRECT": correct + no_press,
        "RT": np.round(rng.uniform(500, 1500, trials), 3) + no_press,
        "CHANGEMIND": no_press,
        "MEMORYRECENT": recent,
        "MEMORYFIRST": first,
        "ISOLDCURRENT": current,
        "ISCORRECTCURRENT": (button == current + 1) + no_press,
        "TOTAL1": ((button == 1) & pressed) + no_data,
        "TOTAL2": ((button == 2) & pressed) + no_data,
        "BUTTON": button + no_press,
        "MISSINGDATA": lost.astype(np.int64),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pandas.DataFrame(table).to_csv(path, sep="\t", index=False, na_rep="NaN")
