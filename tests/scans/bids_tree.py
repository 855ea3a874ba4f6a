"""Writes a small folder of BIDS derivatives as LAION-fMRI publishes it, or as GLMsingle leaves it beside events."""

import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas
from PIL import Image

GRID = (4, 3, 5)
SESSIONS = ("ses-01", "ses-02")
LABELS = (*(f"shared_12rep_LAION_cluster_{n}_i0.jpg" for n in range(6)), "unique_a.jpg", "unique_b.jpg")
SHOWN = {"ses-01": [0, 1, 2, 3, 4, 5, 6, 0, 1], "ses-02": [7, 2, 3, 0, 5, 7]}
"""Picture of every beta, in order; pictures 6 and 7 are in no split."""
TRAIN, TEST = (1, 2, 4, 5), (0, 3)


@dataclass
class BidsData:
    """Betas of two sessions, 25 voxels inside the mask: one has NaN in one session, one in both."""

    root: Path
    volumes: dict[str, np.ndarray]  # session to (X, Y, Z, trials)
    mask: np.ndarray

    @property
    def mask_file(self) -> Path:
        return self.root / "visual.nii.gz"

    @property
    def split_file(self) -> Path:
        return self.root / "tau.json"

    def file(self, session: str, suffix: str, subject: str = "sub-01") -> Path:
        return self.root / subject / session / "func" / f"{subject}_{session}_task-images_{suffix}"

    def betas(self, session: str) -> Path:
        return self.file(session, "space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz")

    def trials(self, session: str) -> Path:
        return self.file(session, "desc-SingletrialBetas_trials.tsv")

    def matrix(self) -> pandas.DataFrame:
        """Every trial inside the mask, by picture and session; NaN where there is no estimate."""
        parts = [pandas.DataFrame(self.volumes[session][self.mask].T) for session in SESSIONS]
        whole = pandas.concat(parts, ignore_index=True).astype(np.float64)
        shown = [(n, session) for session in SESSIONS for n in SHOWN[session]]
        whole.index = pandas.MultiIndex.from_tuples(shown, names=["picture", "session"])
        return whole


def save(path: Path, volume: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1.778, 1.778, 1.778, 1])), path)


def make(root: Path) -> BidsData:
    random = np.random.default_rng(3)
    mask = np.zeros(GRID, dtype=bool)
    mask.reshape(-1)[random.permutation(60)[:25]] = True
    places = np.argwhere(mask)
    volumes = {name: random.normal(size=(*GRID, len(SHOWN[name]))).astype(np.float32) for name in SESSIONS}
    volumes["ses-01"][tuple(places[4])] = np.nan
    for name in SESSIONS:
        volumes[name][tuple(places[9])] = np.nan
    data = BidsData(root, volumes, mask)
    save(data.mask_file, mask.astype(np.uint8))
    return data


def write_laion(data: BidsData) -> None:
    """One NIfTI and one table a session; lines are in no order, and ``beta_index`` counts."""
    for name in SESSIONS:
        save(data.betas(name), data.volumes[name])
        trials = pandas.DataFrame(
            {
                "session": name,
                "run": 1,
                "beta_index": range(len(SHOWN[name])),
                "label": [LABELS[n] for n in SHOWN[name]],
            }
        )
        trials.sample(frac=1, random_state=0).to_csv(data.trials(name), sep="\t", index=False)
        # Beside the betas are volumes that are not betas, and what macOS leaves there.
        data.betas(name).with_name(f"._{data.betas(name).name}").write_bytes(b"\0\5\26\7")
        save(data.file(name, "space-T1w_desc-Noiseceiling_statmap.nii.gz"), data.volumes[name][..., 0])
    data.split_file.write_text(json.dumps(split()))


def split() -> dict:
    train, test = ([LABELS[n] for n in numbers] for numbers in (TRAIN, TEST))
    train += ["shared_never_shown.jpg"]
    variant = {"variant_id": 0, "train_ids": train, "test_ids": test}
    about = {"name": "tau", "pool": "LAION non-OOD shared", "splitter": "min_nn_stochastic", "params": {}}
    return about | {"n_train": len(train), "n_test": len(test), "variants": [variant]}


def write_glmsingle(data: BidsData) -> None:
    """GLMsingle's own HDF5 of the mask's voxels, and events of runs 2 and 10, with pauses in between."""
    for name in SESSIONS:
        folder = data.root / "sub-01" / name / "func"
        folder.mkdir(parents=True, exist_ok=True)
        with h5py.File(folder / "TYPED_FITHRF_GLMDENOISE_RR.hdf5", "w") as file:
            file["betasmd"] = data.volumes[name][data.mask][:, None, None, :]
            file["R2"] = np.zeros((25, 1, 1))
            file["pcvoxels"] = np.zeros((25, 1, 1), dtype=bool)
            file["noisepool"] = h5py.Empty("f")  # what was not computed
        for run, numbers in (("2", SHOWN[name][:4]), ("10", SHOWN[name][4:])):
            rows = [(4.0 * n, 2.0, "image", LABELS[number]) for n, number in enumerate(numbers)]
            rows.insert(2, (5.5, 1.0, "pause", "n/a"))
            events = pandas.DataFrame(rows, columns=["onset", "duration", "trial_type", "stim_file"])
            path = folder / f"sub-01_{name}_task-images_run-{run}_events.tsv"
            events.to_csv(path, sep="\t", index=False)
    data.split_file.write_text(json.dumps(split()))


def write_pictures(folder: Path) -> None:
    folder.mkdir()
    random = np.random.default_rng(6)
    for label in LABELS:
        Image.fromarray(random.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(folder / label)


def write_captions(path: Path) -> None:
    """Two by people in the order of ``caption_idx``, and one by a machine, for every picture."""
    rows = []
    for label in LABELS:
        rows += [
            (label, 2, "human", f"second of {label}"),
            (label, 0, "ai", "written by a machine"),
            (label, 1, "human", f"first | of {label}"),
        ]
    pandas.DataFrame(rows, columns=["image_name", "caption_idx", "source", "caption"]).to_csv(path, index=False)
