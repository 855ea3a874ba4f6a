"""Memory and time of preparing a full-size subject, measured on generated files.

Writes a tree with the numbers of NSD's subject 1 (81 x 104 x 83 voxels, 15,724 of them in nsdgeneral, 40 sessions of
750 trials, 10,000 images) to a temporary folder. Only a few session files of each format are written; the other
sessions are hard links to them, so that the reader goes through as many gigabytes as it would with NSD, and holds as
many images. Prepares in processes of their own, and prints a table and one line of JSON.

    python benchmarks/prepare.py

"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import nibabel
import numpy as np

from unibrain.demo.experiment import draw_experiment
from unibrain.demo.nsd_tree import write_expdesign, write_nifti, write_responses, write_stim_info
from unibrain.demo.settings import SimulationSettings
from unibrain.scans.nsd_layout import NsdLayout

GRID = (81, 104, 83)
VOXELS = 15_724
SESSIONS, TRIALS = 40, 750

CHILD = """
import json, sys, time
from pathlib import Path
from unibrain.pipeline import PrepareSection, RunFolder, Settings, run_one
from unibrain.scans import load_subject
from unibrain.scans import nsd_betas as sessions
read, opened, seconds = sessions.read_betas, [], []

def timed(path, *rest):
    opened.append(str(path))
    began = time.monotonic()
    betas = read(path, *rest)
    seconds.append(time.monotonic() - began)
    return betas

sessions.read_betas = timed
section = PrepareSection(**json.loads(sys.argv[2]))
result = run_one("prepare", RunFolder(sys.argv[1]), Settings(prepare=section))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
split = json.loads((Path(sys.argv[1]) / "split.json").read_text())
print(json.dumps({
    "peak_gb": int(peak.split()[1]) * 1024 / 1e9, "seconds": result.seconds, "reading": sum(seconds),
    "sessions": len(opened), "reads_per_file": len(opened) / len(set(opened)), **split["counts"],
}))
"""


def write_hdf5(path: Path, brain: np.ndarray, betas: np.ndarray) -> None:
    """One chunk per voxel, as MATLAB writes it, column by column along X."""
    position = np.cumsum(brain.ravel()).reshape(brain.shape) - 1
    with h5py.File(path, "w") as file:
        stored = file.create_dataset("betas", (len(betas), *brain.shape[::-1]), np.int16, chunks=(len(betas), 1, 1, 1))
        for z in range(brain.shape[2]):
            for y in range(brain.shape[1]):
                column = np.zeros((len(betas), brain.shape[0]), dtype=np.int16)
                inside = brain[:, y, z]
                column[:, inside] = betas[:, position[inside, y, z]]
                stored[:, z, y, :] = column


def write_nifti_gz(path: Path, brain: np.ndarray, betas: np.ndarray) -> None:
    """Volume by volume, compressed quickly."""
    header = nibabel.Nifti1Header()
    header.set_data_shape((*brain.shape, len(betas)))
    header.set_data_dtype(np.int16)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    volume = np.zeros(brain.shape, dtype=np.int16)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.binaryblock + bytes(4))
        for trial in betas:
            volume[brain] = trial
            file.write(volume.tobytes(order="F"))


def write_tree(root: Path, written: int) -> dict[str, float]:
    """Write the tree; return the size of one session's file in each format, in GB."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*((np.arange(n) - (n - 1) / 2) / (n / 2) for n in GRID), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    brain = radius <= 1
    order = np.argsort(np.where(brain & (radius > 0.6), axes[1], np.inf), axis=None)
    general = np.where(brain & (radius > 0.6), 0, -1)
    general.flat[order[:VOXELS]] = 1
    layout = NsdLayout(root)
    write_nifti(layout.brainmask, brain.astype(np.int16))
    write_nifti(layout.roi("nsdgeneral"), general.astype(np.float64))
    settings = SimulationSettings(
        training_images=9000, test_images=1000, sessions=SESSIONS, picture_size=425, all_repeats=True
    )
    experiment = draw_experiment(settings, rng)
    write_expdesign(layout.expdesign, experiment)
    write_stim_info(layout.stim_info, experiment, np.arange(settings.images) + 1, np.full(settings.images, "train2017"))
    write_responses(layout.responses, experiment, 1, rng)
    layout.betas_folder.mkdir(parents=True)
    size = {}
    mean = rng.integers(-300, 300, int(brain.sum()), dtype=np.int16)
    for session in range(1, SESSIONS + 1):
        source = (session - 1) % written + 1
        if session == source:
            # Noise of four bits: compresses about as well as NSD's smooth volumes do.
            betas = mean + rng.integers(-8, 8, (TRIALS, len(mean)), dtype=np.int16)
            write_hdf5(layout.betas(session, "hdf5"), brain, betas)
            write_nifti_gz(layout.betas(session, "nifti"), brain, betas)
            print(f"wrote session {session}", file=sys.stderr)
        for kind in ("hdf5", "nifti"):
            if session != source:
                layout.betas(session, kind).hardlink_to(layout.betas(source, kind))
            size[kind] = layout.betas(1, kind).stat().st_size / 1e9
    return size


def prepare(root: Path, run: Path, **section: object) -> dict[str, float]:
    """Prepare in a process of its own."""
    arguments = [sys.executable, "-c", CHILD, str(run), json.dumps({"root": str(root), **section})]
    result = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--written", type=int, default=2, help="session files to write of each format")
    parser.add_argument("--nifti-sessions", type=int, default=3, help="sessions to read as NIfTI, then extrapolated")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder (about 4 GB)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="unibrain-benchmark-", dir=chosen.folder) as name:
        folder = Path(name)
        size = write_tree(folder / "nsd", chosen.written)
        some = f"1-{chosen.nifti_sessions}"
        jobs: dict[str, dict[str, str]] = {
            "unibrain, HDF5": {"protocol": "unibrain", "format": "hdf5"},
            "nsd-40, HDF5, noise ceiling recomputed": {
                "protocol": "nsd-40",
                "format": "hdf5",
                "noise_ceiling": "recompute",
            },
            "single-trial, HDF5": {"protocol": "single-trial", "format": "hdf5"},
            f"sessions {some}, NIfTI": {"sessions": some, "format": "nifti"},
        }
        results = {}
        for title, section in jobs.items():
            run = folder / "run"
            results[title] = prepare(folder / "nsd", run, **section)
            print(title, results[title], file=sys.stderr)
            subprocess.run(["rm", "-r", str(run)], check=True)
    print("| what | sessions | rows | reads per file | s per session | s in all | peak memory, GB |")
    print("|---|---|---|---|---|---|---|")
    for title, found in results.items():
        rows = found["train_rows"] + found["test_rows"]
        print(
            f"| {title} | {found['sessions']} | {rows:,} | {found['reads_per_file']:.0f} "
            f"| {found['reading'] / found['sessions']:.1f} | {found['seconds']:.0f} | {found['peak_gb']:.2f} |"
        )
    whole, part = results["unibrain, HDF5"], results[f"sessions {some}, NIfTI"]
    extrapolated = part["reading"] / part["sessions"] * whole["sessions"] + whole["seconds"] - whole["reading"]
    print(f"| unibrain, NIfTI, extrapolated | 37 | | 1 | | {extrapolated:.0f} | {whole['peak_gb']:.2f} |")
    print(json.dumps({"file_gb": size, "nifti_37_sessions_seconds": extrapolated, "runs": results}))


if __name__ == "__main__":
    main()
